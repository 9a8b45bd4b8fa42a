//! MutatingAdmissionPolicy: how objects are changed on their way in, in CEL.

use k8s_openapi::api::admissionregistration::v1::{MutatingAdmissionPolicy, MutatingAdmissionPolicySpec, Mutation};

use super::{
    CATEGORIES, FAILURE_POLICIES, GROUP,
    rules::{
        default_resources, default_text, kind_shown, required_one_of, validate_conditions, validate_constraints,
        validate_mutable, validate_param_kind, validate_variables,
    },
};
use crate::{
    field::{FieldErrors, FieldPath},
    kind::{Cell, Column, Kind, Names, Scope},
};

impl Kind for MutatingAdmissionPolicy {
    const NAMES: Names =
        Names::new(GROUP, "v1", "MutatingAdmissionPolicy", "mutatingadmissionpolicies", "mutatingadmissionpolicy")
            .categories(CATEGORIES);
    const SCOPE: Scope = Scope::Cluster;
    const UNCONDITIONAL_UPDATE: bool = false;
    const COLUMNS: &'static [Column<Self>] = &[
        Column::NAME,
        Column::<Self>::int("Mutations", |p, _| {
            Cell::from(p.spec.as_ref().and_then(|s| s.mutations.as_ref()).map_or(0, Vec::len))
        })
        .help("Mutation indicates the number of mutations rules defined in this configuration"),
        Column::<Self>::text("ParamKind", |p, _| kind_shown(p.spec.as_ref().and_then(|s| s.param_kind.as_ref())))
            .help("ParamKind specifies the kind of resources used to parameterize this policy"),
        Column::AGE,
    ];

    fn fill_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        default_text(&mut spec.failure_policy, "Fail");
        default_resources(spec.match_constraints.as_mut());
    }

    crate::kind::generation_of_spec!();

    fn validate(&self, errs: &mut FieldErrors) {
        if let Some(spec) = &self.spec {
            validate_spec(spec, &FieldPath::new("spec"), errs);
        }
    }
}

fn validate_spec(spec: &MutatingAdmissionPolicySpec, path: &FieldPath, errs: &mut FieldErrors) {
    required_one_of(spec.failure_policy.as_deref(), FAILURE_POLICIES, &path.child("failurePolicy"), errs);
    if let Some(kind) = &spec.param_kind {
        validate_param_kind(kind, &path.child("paramKind"), errs);
    }
    let at = path.child("matchConstraints");
    validate_constraints(spec.match_constraints.as_ref(), &at, errs);
    if let Some(constraints) = &spec.match_constraints {
        validate_mutable(constraints, &at, errs);
    }
    validate_conditions(spec.match_conditions.as_deref(), &path.child("matchConditions"), errs);
    validate_variables(spec.variables.as_deref(), &path.child("variables"), errs);
    let mutations = spec.mutations.as_deref().unwrap_or_default();
    if mutations.is_empty() {
        errs.required(&path.child("mutations"), "mutations must contain at least one item");
    }
    for (i, mutation) in mutations.iter().enumerate() {
        validate_mutation(mutation, &path.child("mutations").index(i), errs);
    }
    let reinvocation = spec.reinvocation_policy.as_deref();
    required_one_of(reinvocation, &["Never", "IfNeeded"], &path.child("reinvocationPolicy"), errs);
}

/// One of two ways to say a change.
fn validate_mutation(mutation: &Mutation, path: &FieldPath, errs: &mut FieldErrors) {
    let apply = mutation.apply_configuration.as_ref().map(|a| a.expression.as_deref().unwrap_or_default());
    let patch = mutation.json_patch.as_ref().map(|p| p.expression.as_deref().unwrap_or_default());
    let (apply, patch) = (("applyConfiguration", apply), ("jsonPatch", patch));
    let (wanted, other) = match mutation.patch_type.as_str() {
        "ApplyConfiguration" => (apply, patch),
        "JSONPatch" => (patch, apply),
        "" => return errs.required(&path.child("patchType"), ""),
        kind => return errs.not_supported(&path.child("patchType"), kind, &["ApplyConfiguration", "JSONPatch"]),
    };
    let kind = &mutation.patch_type;
    match wanted {
        (field, None) => {
            errs.required(&path.child(field), &format!("must be specified when patchType is {kind}"));
        }
        (field, Some(expression)) if expression.trim().is_empty() => {
            errs.required(&path.child(field).child("expression"), "");
        }
        _ => {}
    }
    if let (field, Some(_)) = other {
        let detail = format!("must not be specified when patchType is {kind}");
        errs.invalid(&path.child(field), format!("{{{field}}}"), &detail);
    }
}
