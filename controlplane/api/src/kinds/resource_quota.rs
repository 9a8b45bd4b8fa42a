//! ResourceQuota: how much of what a namespace may hold. Enforced at admission, counted in its status.
//!
//! # Source
//! Kubernetes `pkg/apis/core/validation/validation.go` (`ValidateResourceQuota`),
//! `pkg/printers/internalversion/printers.go` (`printResourceQuota`).

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use k8s_openapi::{
    api::core::v1::{ResourceQuota, ResourceQuotaSpec, ScopedResourceSelectorRequirement},
    apimachinery::pkg::api::resource::Quantity as WireQuantity,
};

use serde_json::{Value, json};

use super::resource_name;
use crate::{
    field::{FieldErrors, FieldPath},
    kind::{Cell, Column, Kind, Names, Scope, Sub},
};

const SCOPES: [&str; 7] = [
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];
/// Scopes that cannot both hold.
const OPPOSITES: [(&str, &str); 2] = [("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")];

type Amounts = BTreeMap<String, WireQuantity>;

impl Kind for ResourceQuota {
    const NAMES: Names = Names::new("", "v1", "ResourceQuota", "resourcequotas", "resourcequota").short(&["quota"]);
    const SCOPE: Scope = Scope::Namespaced;
    const RETURNS_DELETED: bool = true;
    const SUBRESOURCES: &'static [Sub<Self>] = &[Sub::STATUS];
    const COLUMNS: &'static [Column<Self>] = &[
        Column::NAME,
        Column::<Self>::text("Request", |q, _| Cell::from(shown(q, false))).help("Request represents a minimum amount of cpu/memory that a container may consume."),
        Column::<Self>::text("Limit", |q, _| Cell::from(shown(q, true))).help("Limits control the maximum amount of cpu/memory that a container may use independent of contention on the node."),
        Column::AGE,
    ];

    crate::kind::status_apart!();

    fn validate(&self, errs: &mut FieldErrors) {
        let spec = self.spec.clone().unwrap_or_default();
        let path = FieldPath::new("spec");
        validate_amounts(spec.hard.as_ref(), &path.child("hard"), errs);
        validate_scopes(&spec, &path, errs);
    }

    fn validate_update(&self, old: &Self, errs: &mut FieldErrors) {
        let scopes = |quota: &Self| quota.spec.as_ref().and_then(|s| s.scopes.clone()).unwrap_or_default();
        let (new, old) = (scopes(self), scopes(old));
        let set = |scopes: &[String]| scopes.iter().cloned().collect::<BTreeSet<_>>();
        if set(&new) != set(&old) {
            errs.invalid(&FieldPath::new("spec").child("scopes"), new, "field is immutable");
        }
    }

    fn validate_status_update(&self, _old: &Self, errs: &mut FieldErrors) {
        let path = FieldPath::new("status");
        let Some(status) = &self.status else { return };
        validate_amounts(status.hard.as_ref(), &path.child("hard"), errs);
        validate_amounts(status.used.as_ref(), &path.child("used"), errs);
    }
}

fn validate_amounts(amounts: Option<&Amounts>, path: &FieldPath, errs: &mut FieldErrors) {
    for (name, amount) in amounts.into_iter().flatten() {
        let at = path.key(name);
        resource_name::validate(name, &at, errs);
        if !name.contains('/') && !is_standard(name) {
            errs.invalid(&at, name.as_str(), "must be a standard resource for quota");
        }
        resource_name::validate_amount(name, amount, &at, errs);
    }
}

fn is_standard(name: &str) -> bool {
    resource_name::is_of_quotas(name) && name != "storage"
}

/// Whether what has the scope has the resource at all.
fn goes_with(scope: &str, name: &str) -> bool {
    match scope {
        "Terminating" | "NotTerminating" | "NotBestEffort" | "PriorityClass" | "CrossNamespacePodAffinity" => {
            let amount = name.trim_start_matches("requests.").trim_start_matches("limits.");
            name == "pods" || matches!(amount, "cpu" | "memory")
        }
        "BestEffort" => name == "pods",
        "VolumeAttributesClass" => matches!(name, "persistentvolumeclaims" | "requests.storage"),
        _ => true,
    }
}

fn validate_scopes(spec: &ResourceQuotaSpec, path: &FieldPath, errs: &mut FieldErrors) {
    let listed: Vec<&str> = spec.scopes.iter().flatten().map(String::as_str).collect();
    let at = path.child("scopes");
    for scope in &listed {
        if !SCOPES.contains(scope) {
            errs.invalid(&at, listed.clone(), "unsupported scope");
        }
        validate_scope(scope, spec, &at, &json!(listed), errs);
    }
    validate_opposites(&listed, &at, &listed, errs);
    let Some(selector) = &spec.scope_selector else { return };
    let at = path.child("scopeSelector").child("matchExpressions");
    let value = serde_json::to_value(selector).unwrap_or_default();
    let requirements = selector.match_expressions.as_deref().unwrap_or_default();
    for requirement in requirements {
        if !SCOPES.contains(&requirement.scope_name.as_str()) {
            errs.invalid(&at.child("scopeName"), requirement.scope_name.as_str(), "unsupported scope");
        }
        validate_scope(&requirement.scope_name, spec, &at, &value, errs);
        validate_requirement(requirement, &at, errs);
    }
    let selected: Vec<&str> = requirements.iter().map(|r| r.scope_name.as_str()).collect();
    validate_opposites(&selected, &at, &listed, errs);
}

fn validate_scope(scope: &str, spec: &ResourceQuotaSpec, path: &FieldPath, value: &Value, errs: &mut FieldErrors) {
    let names = spec.hard.iter().flat_map(BTreeMap::keys);
    for _ in names.filter(|name| is_standard(name) && !goes_with(scope, name)) {
        errs.invalid(path, value.clone(), "unsupported scope applied to resource");
    }
}

fn validate_opposites(scopes: &[&str], path: &FieldPath, value: &[&str], errs: &mut FieldErrors) {
    for (one, other) in OPPOSITES {
        if scopes.contains(&one) && scopes.contains(&other) {
            errs.invalid(path, value.to_vec(), "conflicting scopes");
        }
    }
}

fn validate_requirement(requirement: &ScopedResourceSelectorRequirement, path: &FieldPath, errs: &mut FieldErrors) {
    let (scope, operator) = (requirement.scope_name.as_str(), requirement.operator.as_str());
    let values = requirement.values.as_deref().unwrap_or_default();
    let with_values = matches!(scope, "PriorityClass" | "VolumeAttributesClass");
    if SCOPES.contains(&scope) && !with_values && operator != "Exists" {
        let detail = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, \
                      ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or \
                      ResourceQuotaScopeCrossNamespacePodAffinity";
        errs.invalid(&path.child("operator"), operator, detail);
    }
    match operator {
        "In" | "NotIn" if values.is_empty() => {
            let detail = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
            errs.required(&path.child("values"), detail);
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            let detail = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
            errs.invalid(&path.child("values"), values.to_vec(), detail);
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        other => errs.invalid(&path.child("operator"), other, "not a valid selector operator"),
    }
}

/// `cpu: 1/2, pods: 0/10`: of the limits, or of all others.
fn shown(quota: &ResourceQuota, limits: bool) -> String {
    let Some(status) = &quota.status else { return String::new() };
    let mut out = String::new();
    for (name, hard) in status.hard.iter().flatten().filter(|(name, _)| name.starts_with("limits") == limits) {
        let used = status.used.as_ref().and_then(|u| u.get(name)).map_or("0", |q| q.0.as_str());
        let comma = if out.is_empty() { "" } else { ", " };
        // Writing to a string cannot fail.
        let _ = write!(out, "{comma}{name}: {used}/{}", hard.0);
    }
    out
}
