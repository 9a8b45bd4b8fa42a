//! ValidatingAdmissionPolicyBinding and MutatingAdmissionPolicyBinding: where a policy holds, and with which parameters.

use std::collections::BTreeSet;

use k8s_openapi::api::admissionregistration::v1::{MutatingAdmissionPolicyBinding, ValidatingAdmissionPolicyBinding};

use super::{
    CATEGORIES, GROUP,
    rules::{default_resources, one_of, param_shown, validate_match_resources, validate_mutable, validate_param_ref},
};
use crate::{
    field::{FieldErrors, FieldPath},
    kind::{Cell, Column, Kind, Names, Scope},
    names,
};

const ACTIONS: &[&str] = &["Audit", "Deny", "Warn"];

impl Kind for ValidatingAdmissionPolicyBinding {
    const NAMES: Names = Names::new(
        GROUP,
        "v1",
        "ValidatingAdmissionPolicyBinding",
        "validatingadmissionpolicybindings",
        "validatingadmissionpolicybinding",
    )
    .categories(CATEGORIES);
    const SCOPE: Scope = Scope::Cluster;
    const UNCONDITIONAL_UPDATE: bool = false;
    const COLUMNS: &'static [Column<Self>] = &[
        Column::NAME,
        Column::<Self>::text("PolicyName", |b, _| Cell::from(b.spec.policy_name.as_str()))
            .help("PolicyName indicates the policy definition which the policy binding binded to"),
        Column::<Self>::text("ParamRef", |b, _| param_shown(b.spec.param_ref.as_ref()))
            .help("ParamRef indicates the param resource which sets the configration param"),
        Column::AGE,
    ];

    fn fill_defaults(&mut self) {
        default_resources(self.spec.match_resources.as_mut());
    }

    crate::kind::generation_of_spec!();

    fn validate(&self, errs: &mut FieldErrors) {
        let (spec, path) = (&self.spec, FieldPath::new("spec"));
        validate_policy_name(&spec.policy_name, &path.child("policyName"), errs);
        if let Some(param) = &spec.param_ref {
            validate_param_ref(param, &path.child("paramRef"), errs);
        }
        if let Some(resources) = &spec.match_resources {
            // Spelled as Kubernetes spells it.
            validate_match_resources(resources, &path.child("matchResouces"), errs);
        }
        validate_actions(&spec.validation_actions, &path.child("validationActions"), errs);
    }
}

impl Kind for MutatingAdmissionPolicyBinding {
    const NAMES: Names = Names::new(
        GROUP,
        "v1",
        "MutatingAdmissionPolicyBinding",
        "mutatingadmissionpolicybindings",
        "mutatingadmissionpolicybinding",
    )
    .categories(CATEGORIES);
    const SCOPE: Scope = Scope::Cluster;
    const UNCONDITIONAL_UPDATE: bool = false;
    const COLUMNS: &'static [Column<Self>] = &[
        Column::NAME,
        Column::<Self>::text("PolicyName", |b, _| {
            Cell::from(b.spec.as_ref().and_then(|s| s.policy_name.clone()).unwrap_or_default())
        })
        .help("PolicyName indicates the policy definition which the policy binding binded to"),
        Column::<Self>::text("ParamRef", |b, _| param_shown(b.spec.as_ref().and_then(|s| s.param_ref.as_ref())))
            .help("ParamRef indicates the param resource which sets the configration param"),
        Column::AGE,
    ];

    fn fill_defaults(&mut self) {
        default_resources(self.spec.get_or_insert_default().match_resources.as_mut());
    }

    crate::kind::generation_of_spec!();

    fn validate(&self, errs: &mut FieldErrors) {
        let (Some(spec), path) = (&self.spec, FieldPath::new("spec")) else { return };
        validate_policy_name(spec.policy_name.as_deref().unwrap_or_default(), &path.child("policyName"), errs);
        if let Some(param) = &spec.param_ref {
            validate_param_ref(param, &path.child("paramRef"), errs);
        }
        if let Some(resources) = &spec.match_resources {
            let at = path.child("matchResources");
            validate_match_resources(resources, &at, errs);
            validate_mutable(resources, &at, errs);
        }
    }
}

fn validate_policy_name(name: &str, path: &FieldPath, errs: &mut FieldErrors) {
    match name {
        "" => errs.required(path, ""),
        name => errs.invalid_each(path, name, names::is_dns1123_subdomain(name)),
    }
}

fn validate_actions(actions: &[String], path: &FieldPath, errs: &mut FieldErrors) {
    let mut seen = BTreeSet::new();
    for (i, action) in actions.iter().enumerate() {
        one_of(Some(action), ACTIONS, &path.index(i), errs);
        if !seen.insert(action.as_str()) {
            errs.duplicate(&path.index(i), action.as_str());
        }
    }
    if seen.contains("Deny") && seen.contains("Warn") {
        let detail = "must not contain both Deny and Warn (repeating the same validation failure information in the \
                      API response and headers serves no purpose)";
        errs.invalid(path, actions, detail);
    }
    if seen.is_empty() {
        errs.required(path, "at least one validation action is required");
    }
}
