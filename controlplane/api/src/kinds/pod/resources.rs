//! Validation of amounts: requests and limits.
//!
//! # Source
//! Kubernetes `pkg/apis/core/validation/validation.go`, `ValidateResourceRequirements`.

use std::collections::BTreeMap;

use k8s_openapi::{api::core::v1::ResourceRequirements, apimachinery::pkg::api::resource::Quantity as WireQuantity};

use crate::{
    field::{FieldErrors, FieldPath},
    names,
    quantity::Quantity,
};

type Amounts = BTreeMap<String, WireQuantity>;

/// Checks requests and limits, and that no request is above its limit.
pub(super) fn validate(resources: &ResourceRequirements, path: &FieldPath, errs: &mut FieldErrors) {
    let empty = Amounts::new();
    let limits = resources.limits.as_ref().unwrap_or(&empty);
    let requests = resources.requests.as_ref().unwrap_or(&empty);
    for (name, amount) in limits {
        validate_amount(name, amount, &path.child("limits").key(name), errs);
    }
    let at = path.child("requests");
    for (name, amount) in requests {
        let request = validate_amount(name, amount, &at.key(name), errs);
        let limit = limits.get(name).and_then(|l| l.0.parse::<Quantity>().ok());
        let (Some(request), Some(limit)) = (request, limit) else { continue };
        if may_overcommit(name) && request > limit {
            let detail = format!("must be less than or equal to {name} limit of {limit}");
            errs.invalid(&at, request.to_string(), &detail);
        } else if !may_overcommit(name) && request != limit {
            errs.invalid(&at, request.to_string(), &format!("must be equal to {name} limit of {limit}"));
        }
    }
}

fn may_overcommit(name: &str) -> bool {
    matches!(name, "cpu" | "memory" | "ephemeral-storage")
}

fn validate_amount(name: &str, amount: &WireQuantity, path: &FieldPath, errs: &mut FieldErrors) -> Option<Quantity> {
    let messages = names::is_qualified_name(name);
    let standard = may_overcommit(name) || name.starts_with("hugepages-");
    if messages.is_empty() && !name.contains('/') && !standard {
        errs.invalid(path, name, "must be a standard resource for containers");
    }
    errs.invalid_each(path, name, messages);
    let amount = validate_quantity(amount, path, errs)?;
    if !standard && !amount.is_whole() {
        errs.invalid(path, amount.to_string(), "must be an integer");
    }
    Some(amount)
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
