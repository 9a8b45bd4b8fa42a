//! Names of what pods ask for, and what follows from a name alone.
//!
//! # Source
//! Kubernetes `pkg/apis/core/helper/helpers.go`; `pkg/apis/core/validation/validation.go`, `validateResourceName`,
//! `ValidateResourceQuantityValue`.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as WireQuantity;

use super::pod::validate_quantity;
use crate::{
    field::{FieldErrors, FieldPath},
    names,
    quantity::Quantity,
};

const HUGE_PAGES: &str = "hugepages-";
const REQUESTS: &str = "requests.";

/// What is counted in whole numbers.
const COUNTS: [&str; 9] = [
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
];
const AMOUNTS: [&str; 11] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "storage",
    "requests.storage",
];

/// `hugepages-2Mi`
pub(super) fn is_huge_pages(name: &str) -> bool {
    name.starts_with(HUGE_PAGES)
}

/// What Kubernetes itself knows: names without a domain, or with one of its own.
fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// What a node's vendor adds: `example.com/gpu`.
fn is_extended(name: &str) -> bool {
    let quota = || names::is_qualified_name(&format!("{REQUESTS}{name}"));
    !is_native(name) && !name.starts_with(REQUESTS) && quota().is_empty()
}

/// Whether more may be promised than there is.
pub(super) fn may_overcommit(name: &str) -> bool {
    is_native(name) && !is_huge_pages(name)
}

/// Whether amounts of it are whole numbers.
pub(super) fn is_whole(name: &str) -> bool {
    COUNTS.contains(&name) || is_extended(name)
}

/// What quotas may bound, of names without a domain.
pub(super) fn is_of_quotas(name: &str) -> bool {
    let huge = name.strip_prefix(REQUESTS).unwrap_or(name);
    COUNTS.contains(&name) || AMOUNTS.contains(&name) || is_huge_pages(huge)
}

/// What containers may ask for, of names without a domain.
fn is_of_containers(name: &str) -> bool {
    matches!(name, "cpu" | "memory" | "ephemeral-storage") || is_huge_pages(name)
}

/// Checks a name as any kind may name a resource.
pub(super) fn validate(name: &str, path: &FieldPath, errs: &mut FieldErrors) {
    let messages = names::is_qualified_name(name);
    if messages.is_empty() && !name.contains('/') && !is_of_quotas(name) {
        errs.invalid(path, name, "must be a standard resource type or fully qualified");
    }
    errs.invalid_each(path, name, messages);
}

/// Checks a name as containers may name a resource.
pub(super) fn validate_of_container(name: &str, path: &FieldPath, errs: &mut FieldErrors) {
    validate(name, path, errs);
    if !name.contains('/') {
        if !is_of_containers(name) {
            errs.invalid(path, name, "must be a standard resource for containers");
        }
    } else if !is_native(name) && !is_extended(name) {
        errs.invalid(path, name, "doesn't follow extended resource name standard");
    }
}

/// Checks an amount of a resource: not negative, and whole where only whole ones make sense.
pub(super) fn validate_amount(
    name: &str,
    amount: &WireQuantity,
    path: &FieldPath,
    errs: &mut FieldErrors,
) -> Option<Quantity> {
    let read = validate_quantity(amount, path, errs)?;
    if is_whole(name) && !read.is_whole() {
        errs.invalid(path, amount.0.as_str(), "must be an integer");
    }
    Some(read)
}

/// Why an amount of huge pages is not made of such pages.
pub(super) fn indivisible(name: &str, amount: &Quantity) -> Option<String> {
    let page = name.strip_prefix(HUGE_PAGES)?.parse::<Quantity>().ok().filter(|p| p.value() > 0);
    let fits = page.is_some_and(|page| amount.value() % page.value() == 0);
    (!fits).then(|| format!("{amount} is not positive integer multiple of {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_from_a_name() {
        for (name, native, extended, overcommit, whole) in [
            ("cpu", true, false, true, false),
            ("pods", true, false, true, true),
            ("hugepages-2Mi", true, false, false, false),
            ("example.com/gpu", false, true, false, true),
            ("kubernetes.io/batch", true, false, true, false),
            ("requests.example.com/gpu", false, false, false, false),
        ] {
            let got = (is_native(name), is_extended(name), may_overcommit(name), is_whole(name));
            assert_eq!(got, (native, extended, overcommit, whole), "{name}");
        }
    }

    #[test]
    fn huge_pages() {
        for (name, amount, fits) in
            [("hugepages-2Mi", "4Mi", true), ("hugepages-2Mi", "3Mi", false), ("hugepages-x", "1", false)]
        {
            assert_eq!(indivisible(name, &amount.parse().unwrap()).is_none(), fits, "{name} {amount}");
        }
    }
}
