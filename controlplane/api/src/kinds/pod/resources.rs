//! Validation of requests and limits, of containers and of pods as a whole.
//!
//! # Source
//! Kubernetes `pkg/apis/core/validation/validation.go`, `validateResourceRequirements`, `validatePodResources`.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    api::core::v1::{Container, PodSpec, ResourceClaim, ResourceRequirements},
    apimachinery::pkg::api::resource::Quantity as WireQuantity,
};

use super::container::is_sidecar;
use crate::{
    field::{FieldErrors, FieldPath},
    kinds::resource_name,
    names,
    quantity::Quantity,
};

pub(super) type Amounts = BTreeMap<String, WireQuantity>;
type NameCheck = fn(&str, &FieldPath, &mut FieldErrors);

/// Checks what a container asks for. `claims` are those that its pod has.
pub(super) fn validate(
    resources: &ResourceRequirements,
    claims: &BTreeSet<&str>,
    path: &FieldPath,
    errs: &mut FieldErrors,
) {
    validate_requirements(resources, resource_name::validate_of_container, path, errs);
    validate_claims(resources.claims.as_deref().unwrap_or_default(), claims, &path.child("claims"), errs);
}

/// Checks limits that stand alone, as a pod's overhead does.
pub(in crate::kinds) fn validate_limits(limits: &Amounts, path: &FieldPath, errs: &mut FieldErrors) {
    let resources = ResourceRequirements { limits: Some(limits.clone()), ..ResourceRequirements::default() };
    validate_requirements(&resources, resource_name::validate_of_container, path, errs);
}

fn validate_requirements(resources: &ResourceRequirements, name: NameCheck, path: &FieldPath, errs: &mut FieldErrors) {
    let empty = Amounts::new();
    let limits = resources.limits.as_ref().unwrap_or(&empty);
    let requests = resources.requests.as_ref().unwrap_or(&empty);
    let (limits_at, requests_at) = (path.child("limits"), path.child("requests"));
    for (resource, amount) in limits {
        validate_amount(resource, amount, name, &limits_at.key(resource), errs);
    }
    for (resource, amount) in requests {
        let request = validate_amount(resource, amount, name, &requests_at.key(resource), errs);
        let may_overcommit = resource_name::may_overcommit(resource);
        let Some(limit) = limits.get(resource) else {
            if !may_overcommit {
                errs.required(&limits_at, "Limit must be set for non overcommitable resources");
            }
            continue;
        };
        let (Some(request), Ok(limit)) = (request, limit.0.parse::<Quantity>()) else { continue };
        if may_overcommit && request > limit {
            let detail = format!("must be less than or equal to {resource} limit of {limit}");
            errs.invalid(&requests_at, request.to_string(), &detail);
        } else if !may_overcommit && request != limit {
            let detail = format!("must be equal to {resource} limit of {limit}");
            errs.invalid(&requests_at, request.to_string(), &detail);
        }
    }
    let mut all = limits.keys().chain(requests.keys());
    let computes = |name: &String| matches!(name.as_str(), "cpu" | "memory");
    if all.clone().any(|n| resource_name::is_huge_pages(n)) && !all.any(computes) {
        errs.forbidden(path, "HugePages require cpu or memory");
    }
}

fn validate_amount(
    resource: &str,
    amount: &WireQuantity,
    name: NameCheck,
    path: &FieldPath,
    errs: &mut FieldErrors,
) -> Option<Quantity> {
    name(resource, path, errs);
    let amount = resource_name::validate_amount(resource, amount, path, errs)?;
    if resource_name::is_huge_pages(resource)
        && let Some(why) = resource_name::indivisible(resource, &amount)
    {
        errs.invalid(path, amount.to_string(), &why);
    }
    Some(amount)
}

fn validate_claims(claims: &[ResourceClaim], of_pod: &BTreeSet<&str>, path: &FieldPath, errs: &mut FieldErrors) {
    let mut seen = BTreeSet::new();
    for (i, claim) in claims.iter().enumerate() {
        let (at, name) = (path.index(i), claim.name.as_str());
        if name.is_empty() {
            errs.required(&at, "");
            continue;
        }
        let request = claim.request.as_deref().unwrap_or_default();
        if !request.is_empty() {
            errs.invalid_each(&at.child("request"), request, names::is_dns1123_label(request));
        }
        // All of a claim, or parts of it.
        let taken = seen.contains(&(name, "")) || seen.contains(&(name, request));
        if taken || (request.is_empty() && seen.iter().any(|(of, _)| *of == name)) {
            errs.duplicate(&at, name);
        }
        seen.insert((name, request));
        if !of_pod.contains(name) {
            let known = of_pod.iter().copied().collect::<Vec<_>>().join(", ");
            let rest = if known.is_empty() { " which is empty".to_owned() } else { format!(": {known}") };
            errs.not_found_because(&at, name, &format!("must be one of the names in pod.spec.resourceClaims{rest}"));
        }
    }
}

/// Checks what a pod asks for as a whole against what its containers ask for.
pub(super) fn validate_of_pod(spec: &PodSpec, path: &FieldPath, errs: &mut FieldErrors) {
    let Some(resources) = &spec.resources else { return };
    if resources.claims.is_some() {
        errs.forbidden(&path.child("claims"), "claims cannot be set for Resources at pod-level");
    }
    validate_requirements(resources, validate_name_of_pod, path, errs);
    let amount =
        |amounts: &Option<Amounts>, name: &str| -> Option<Quantity> { amounts.as_ref()?.get(name)?.0.parse().ok() };
    for (name, wanted) in sum(&spec.containers, spec.init_containers.as_deref().unwrap_or_default()) {
        let given = amount(&resources.requests, name).unwrap_or(Quantity::ZERO);
        if wanted > given {
            let detail = format!("must be greater than or equal to aggregate container requests of {wanted}");
            errs.invalid(&path.child("requests").key(name), given.to_string(), &detail);
        }
    }
    for (i, container) in spec.containers.iter().enumerate() {
        let limits = container.resources.as_ref().and_then(|r| r.limits.as_ref());
        for name in limits.into_iter().flat_map(BTreeMap::keys) {
            let of_container = amount(&limits.cloned(), name);
            if let (Some(one), Some(all)) = (of_container, amount(&resources.limits, name))
                && one > all
            {
                let at = path.child("containers").index(i).key(name).child("limits");
                errs.invalid(&at, one.to_string(), &format!("must be less than or equal to pod limits of {all}"));
            }
        }
    }
}

fn validate_name_of_pod(name: &str, path: &FieldPath, errs: &mut FieldErrors) {
    let before = errs.0.len();
    resource_name::validate(name, path, errs);
    let supported = matches!(name, "cpu" | "memory") || resource_name::is_huge_pages(name);
    if errs.0.len() == before && !supported {
        errs.not_supported(path, name, &["cpu", "hugepages-", "memory"]);
    }
}

/// What all containers ask for that run at the same time.
fn sum<'a>(containers: &'a [Container], init: &'a [Container]) -> BTreeMap<&'a str, Quantity> {
    let mut total = BTreeMap::new();
    let sidecars = init.iter().filter(|c| is_sidecar(c));
    for container in containers.iter().chain(sidecars) {
        for (name, amount) in container.resources.iter().flat_map(|r| r.requests.iter().flatten()) {
            let Ok(amount) = amount.0.parse::<Quantity>() else { continue };
            let before = total.get(name.as_str()).copied().unwrap_or(Quantity::ZERO);
            total.insert(name.as_str(), before + amount);
        }
    }
    for container in init.iter().filter(|c| !is_sidecar(c)) {
        for (name, amount) in container.resources.iter().flat_map(|r| r.requests.iter().flatten()) {
            let Ok(amount) = amount.0.parse::<Quantity>() else { continue };
            let entry = total.entry(name.as_str()).or_insert(Quantity::ZERO);
            *entry = (*entry).max(amount);
        }
    }
    total
}

/// An amount that is not negative.
pub(in crate::kinds) fn validate_quantity(
    amount: &WireQuantity,
    path: &FieldPath,
    errs: &mut FieldErrors,
) -> Option<Quantity> {
    match amount.0.parse::<Quantity>() {
        Ok(read) => {
            if read.is_negative() {
                errs.invalid(path, amount.0.as_str(), "must be greater than or equal to 0");
            }
            Some(read)
        }
        Err(error) => {
            errs.invalid(path, amount.0.as_str(), &error.to_string());
            None
        }
    }
}
