//! ResourceQuota: how much of what a namespace may hold. Enforced at admission, counted in its status.
//!
//! # Source
//! Kubernetes `pkg/apis/core/validation/validation.go` (`ValidateResourceQuota`),
//! `pkg/printers/internalversion/printers.go` (`printResourceQuota`).

use std::{collections::BTreeMap, fmt::Write as _};

use k8s_openapi::{
    api::core::v1::{ResourceQuota, ResourceQuotaSpec, ScopedResourceSelectorRequirement},
    apimachinery::pkg::api::resource::Quantity as WireQuantity,
};

use super::pod::validate_quantity;
use crate::{
    field::{FieldErrors, FieldPath},
    kind::{Cell, Column, Kind, Names, Scope, Sub},
    names,
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
        let scopes = |quota: &Self| {
            let mut scopes = quota.spec.as_ref().and_then(|s| s.scopes.clone()).unwrap_or_default();
            scopes.sort();
            scopes
        };
        errs.immutable(&FieldPath::new("spec").child("scopes"), &scopes(self), &scopes(old));
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
        let messages = names::is_qualified_name(name);
        let standard = name.contains('/') || is_standard(name);
        if messages.is_empty() && !standard {
            errs.invalid(&at, name.as_str(), "must be a standard resource type or fully qualified");
        }
        errs.invalid_each(&at, name, messages);
        if let Some(read) = validate_quantity(amount, &at, errs)
            && is_count(name)
            && !read.is_whole()
        {
            errs.invalid(&at, amount.0.as_str(), "must be an integer");
        }
    }
}

fn is_count(name: &str) -> bool {
    matches!(
        name,
        "pods"
            | "services"
            | "replicationcontrollers"
            | "resourcequotas"
            | "secrets"
            | "configmaps"
            | "persistentvolumeclaims"
            | "services.nodeports"
            | "services.loadbalancers"
    )
}

fn is_standard(name: &str) -> bool {
    let amount = matches!(
        name.trim_start_matches("requests.").trim_start_matches("limits."),
        "cpu" | "memory" | "ephemeral-storage"
    );
    amount || is_count(name) || name == "requests.storage" || name == "storage" || name.contains("hugepages-")
}

fn validate_scopes(spec: &ResourceQuotaSpec, path: &FieldPath, errs: &mut FieldErrors) {
    let selected = spec.scope_selector.iter().flat_map(|s| s.match_expressions.iter().flatten());
    let at = path.child("scopeSelector").child("matchExpressions");
    for (i, requirement) in selected.clone().enumerate() {
        validate_requirement(requirement, &at.index(i), errs);
    }
    let listed: Vec<&str> = spec.scopes.iter().flatten().map(String::as_str).collect();
    let at = path.child("scopes");
    for scope in listed.iter().filter(|s| !SCOPES.contains(*s)) {
        errs.invalid(&at, *scope, "unsupported scope");
    }
    let all: Vec<&str> = listed.iter().copied().chain(selected.map(|r| r.scope_name.as_str())).collect();
    for (one, other) in OPPOSITES {
        if all.contains(&one) && all.contains(&other) {
            errs.invalid(&at, listed.clone(), "conflicting scopes");
        }
    }
    let only_pods = |name: &&String| !matches!(name.as_str(), "pods") && all.contains(&"BestEffort");
    for name in spec.hard.iter().flat_map(BTreeMap::keys).filter(only_pods) {
        errs.invalid(&at, listed.clone(), &format!("unsupported scope applied to resource {name}"));
    }
}

fn validate_requirement(requirement: &ScopedResourceSelectorRequirement, path: &FieldPath, errs: &mut FieldErrors) {
    let (scope, operator) = (requirement.scope_name.as_str(), requirement.operator.as_str());
    let values = requirement.values.as_deref().unwrap_or_default();
    if !SCOPES.contains(&scope) {
        errs.invalid(&path.child("scopeName"), scope, "unsupported scope");
    }
    let with_values = matches!(scope, "PriorityClass" | "VolumeAttributesClass");
    if !with_values && operator != "Exists" {
        let detail = "must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, \
                      ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or \
                      ResourceQuotaScopeCrossNamespacePodAffinity";
        errs.invalid(&path.child("operator"), operator, detail);
    }
    match operator {
        "In" | "NotIn" if values.is_empty() => {
            errs.required(
                &path.child("values"),
                "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
            );
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            errs.invalid(
                &path.child("values"),
                values.to_vec(),
                "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector",
            );
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
