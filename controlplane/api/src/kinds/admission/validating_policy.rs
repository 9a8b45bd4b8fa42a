//! ValidatingAdmissionPolicy: what objects must fulfil, in CEL.

use std::collections::BTreeSet;

use k8s_openapi::api::admissionregistration::v1::{
    AuditAnnotation, ValidatingAdmissionPolicy, ValidatingAdmissionPolicySpec, Validation,
};

use super::{
    CATEGORIES, FAILURE_POLICIES, GROUP,
    rules::{
        default_resources, default_text, kind_shown, one_of, required_one_of, validate_conditions,
        validate_constraints, validate_param_kind, validate_variables,
    },
};
use crate::{
    field::{FieldErrors, FieldPath},
    kind::{Cell, Column, Kind, Names, Scope, Sub},
    kinds::condition,
    names,
};

const AUDIT_ANNOTATIONS_MAX: usize = 20;
const ANNOTATION_BYTES_MAX: usize = 5 * 1024;
const REASONS: &[&str] = &["Forbidden", "Invalid", "RequestEntityTooLarge"];

impl Kind for ValidatingAdmissionPolicy {
    const NAMES: Names = Names::new(
        GROUP,
        "v1",
        "ValidatingAdmissionPolicy",
        "validatingadmissionpolicies",
        "validatingadmissionpolicy",
    )
    .categories(CATEGORIES);
    const SCOPE: Scope = Scope::Cluster;
    const UNCONDITIONAL_UPDATE: bool = false;
    const SUBRESOURCES: &'static [Sub<Self>] = &[Sub::STATUS];
    const COLUMNS: &'static [Column<Self>] = &[
        Column::NAME,
        Column::<Self>::int("Validations", |p, _| {
            Cell::from(p.spec.as_ref().and_then(|s| s.validations.as_ref()).map_or(0, Vec::len))
        })
        .help("Validations indicates the number of validation rules defined in this configuration"),
        Column::<Self>::text("ParamKind", |p, _| kind_shown(p.spec.as_ref().and_then(|s| s.param_kind.as_ref())))
            .help("ParamKind specifies the kind of resources used to parameterize this policy"),
        Column::AGE,
    ];

    fn fill_tree(tree: &mut Cell) {
        condition::fill_times(tree);
    }

    fn fill_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        default_text(&mut spec.failure_policy, "Fail");
        default_resources(spec.match_constraints.as_mut());
    }

    crate::kind::status_apart!();
    crate::kind::generation_of_spec!();

    fn validate(&self, errs: &mut FieldErrors) {
        if let Some(spec) = &self.spec {
            let name = self.metadata.name.as_deref().unwrap_or_default();
            validate_spec(spec, name, &FieldPath::new("spec"), errs);
        }
    }

    fn validate_status_update(&self, _old: &Self, errs: &mut FieldErrors) {
        let (Some(status), path) = (&self.status, FieldPath::new("status")) else { return };
        let warnings = status.type_checking.iter().flat_map(|t| t.expression_warnings.iter().flatten());
        for (i, warning) in warnings.enumerate() {
            let at = path.child("typeChecking").child("expressionWarnings").index(i);
            for (field, text) in [("warning", warning.warning.as_str()), ("fieldRef", warning.field_ref.trim())] {
                if text.is_empty() {
                    errs.required(&at.child(field), "");
                }
            }
        }
        condition::validate_all(status.conditions.as_deref(), &path.child("conditions"), errs);
    }
}

fn validate_spec(spec: &ValidatingAdmissionPolicySpec, name: &str, path: &FieldPath, errs: &mut FieldErrors) {
    required_one_of(spec.failure_policy.as_deref(), FAILURE_POLICIES, &path.child("failurePolicy"), errs);
    if let Some(kind) = &spec.param_kind {
        validate_param_kind(kind, &path.child("paramKind"), errs);
    }
    validate_constraints(spec.match_constraints.as_ref(), &path.child("matchConstraints"), errs);
    validate_conditions(spec.match_conditions.as_deref(), &path.child("matchConditions"), errs);
    validate_variables(spec.variables.as_deref(), &path.child("variables"), errs);
    let validations = spec.validations.as_deref().unwrap_or_default();
    let annotations = spec.audit_annotations.as_deref().unwrap_or_default();
    if validations.is_empty() && annotations.is_empty() {
        let detail = "validations or auditAnnotations must contain at least one item";
        errs.required(&path.child("validations"), detail);
        errs.required(&path.child("auditAnnotations"), detail);
    }
    for (i, validation) in validations.iter().enumerate() {
        validate_validation(validation, &path.child("validations").index(i), errs);
    }
    validate_annotations(annotations, name, &path.child("auditAnnotations"), errs);
}

fn validate_validation(validation: &Validation, path: &FieldPath, errs: &mut FieldErrors) {
    if validation.expression.trim().is_empty() {
        errs.required(&path.child("expression"), "expression is not specified");
    }
    let text = validation.message_expression.as_deref().unwrap_or_default();
    if !text.is_empty() && text.trim().is_empty() {
        errs.invalid(&path.child("messageExpression"), text, "must be non-empty if specified");
    }
    let (message, at) = (validation.message.as_deref().unwrap_or_default(), path.child("message"));
    if !message.is_empty() && message.trim().is_empty() {
        errs.invalid(&at, message, "message must be non-empty if specified");
    } else if message.trim().contains(['\n', '\r']) {
        errs.invalid(&at, message, "message must not contain line breaks");
    }
    one_of(validation.reason.as_deref(), REASONS, &path.child("reason"), errs);
}

fn validate_annotations(annotations: &[AuditAnnotation], name: &str, path: &FieldPath, errs: &mut FieldErrors) {
    if annotations.len() > AUDIT_ANNOTATIONS_MAX {
        let value = serde_json::to_value(annotations).unwrap_or_default();
        errs.invalid(path, value, &format!("must not have more than {AUDIT_ANNOTATIONS_MAX} auditAnnotations"));
    }
    let mut seen = BTreeSet::new();
    for (i, annotation) in annotations.iter().enumerate() {
        let at = path.index(i);
        validate_annotation(annotation, name, &at, errs);
        if !seen.insert(&annotation.key) {
            errs.duplicate(&at.child("key"), annotation.key.as_str());
        }
    }
}

fn validate_annotation(annotation: &AuditAnnotation, name: &str, path: &FieldPath, errs: &mut FieldErrors) {
    let key = annotation.key.as_str();
    if name.is_empty() {
        errs.invalid(&path.child("key"), key, "requires metadata.name be non-empty");
    } else {
        let whole = format!("{name}/{key}");
        errs.invalid_each(&path.child("key"), &whole, names::is_qualified_name(&whole));
    }
    match annotation.value_expression.trim().len() {
        0 => errs.required(&path.child("valueExpression"), "valueExpression is not specified"),
        bytes if bytes > ANNOTATION_BYTES_MAX => {
            let detail = format!("must not exceed {ANNOTATION_BYTES_MAX} bytes in length");
            errs.required(&path.child("valueExpression"), &detail);
        }
        _ => {}
    }
}
