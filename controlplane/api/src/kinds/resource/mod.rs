//! Devices that pods may claim (dynamic resource allocation). Served and stored for those who bring such drivers and what
//! hands their devices out: Podium does not allocate devices itself.
//!
//! What is deliberately not judged here: whether the CEL expressions of selectors compile, and the sums of counters and
//! policies of capacities that drivers publish; both are read by whoever allocates. The time of a device's taint is not
//! filled in.
//!
//! # Source
//! Kubernetes `pkg/apis/resource/validation/validation.go`, `pkg/apis/resource/v1/defaults.go`,
//! `pkg/registry/resource/*/strategy.go`, `pkg/printers/internalversion/printers.go`.

mod claim;
mod class;
mod slice;
mod status;

use std::collections::BTreeSet;

use k8s_openapi::api::resource::v1::{DeviceSelector, OpaqueDeviceConfiguration};

use crate::{
    field::{FieldErrors, FieldPath},
    names,
};

const GROUP: &str = "resource.k8s.io";
const DRIVER_NAME_MAX: usize = 63;
const POOL_NAME_MAX: usize = 253;
const SELECTORS_MAX: usize = 32;
const CONFIGS_MAX: usize = 32;
const EXPRESSION_BYTES_MAX: usize = 10 * 1024;
const PARAMETERS_BYTES_MAX: usize = 10 * 1024;
const DOMAIN_MAX: usize = 63;
const IDENTIFIER_MAX: usize = 32;

/// Drivers are named like domains.
fn validate_driver_name(name: &str, path: &FieldPath, errs: &mut FieldErrors) {
    if name.is_empty() {
        return errs.required(path, "");
    }
    if name.len() > DRIVER_NAME_MAX {
        errs.too_long(path, DRIVER_NAME_MAX);
    }
    errs.invalid_each(path, name, names::is_dns1123_subdomain(&name.to_lowercase()));
}

/// Pools are named like domains, with slashes between several.
fn validate_pool_name(name: &str, path: &FieldPath, errs: &mut FieldErrors) {
    if name.is_empty() {
        return errs.required(path, "");
    }
    if name.len() > POOL_NAME_MAX {
        errs.too_long(path, POOL_NAME_MAX);
    }
    for part in name.split('/') {
        errs.invalid_each(path, part, names::is_dns1123_subdomain(part));
    }
}

fn validate_label(name: &str, path: &FieldPath, errs: &mut FieldErrors) {
    errs.invalid_each(path, name, names::is_dns1123_label(name));
}

fn validate_selectors(selectors: Option<&Vec<DeviceSelector>>, path: &FieldPath, errs: &mut FieldErrors) {
    let selectors = selectors.map(Vec::as_slice).unwrap_or_default();
    at_most(selectors.len(), SELECTORS_MAX, path, errs);
    for (i, selector) in selectors.iter().enumerate() {
        let at = path.index(i).child("cel");
        match &selector.cel {
            None => errs.required(&at, ""),
            Some(cel) if cel.expression.is_empty() => errs.required(&at.child("expression"), ""),
            Some(cel) if cel.expression.len() > EXPRESSION_BYTES_MAX => {
                errs.too_long(&at.child("expression"), EXPRESSION_BYTES_MAX);
            }
            Some(_) => {}
        }
    }
}

fn validate_configuration(opaque: Option<&OpaqueDeviceConfiguration>, path: &FieldPath, errs: &mut FieldErrors) {
    let at = path.child("opaque");
    let Some(opaque) = opaque else { return errs.required(&at, "") };
    validate_driver_name(&opaque.driver, &at.child("driver"), errs);
    let parameters = &opaque.parameters.0;
    let at = at.child("parameters");
    if parameters.is_null() {
        errs.required(&at, "");
    } else if !parameters.is_object() {
        errs.invalid(&at, "<value omitted>", "parameters must be a valid JSON object");
    } else if parameters.to_string().len() > PARAMETERS_BYTES_MAX {
        errs.too_long(&at, PARAMETERS_BYTES_MAX);
    }
}

/// `NAME` or `DOMAIN/NAME`; with the domain when `full`.
fn validate_attribute_name(name: &str, full: bool, path: &FieldPath, errs: &mut FieldErrors) {
    if name.is_empty() {
        return errs.required(path, "name required");
    }
    let identifier = match name.split_once('/') {
        None if full => return errs.invalid(path, name, "must include a domain"),
        None => name,
        Some((domain, identifier)) => {
            if domain.is_empty() {
                errs.invalid(path, domain, "the domain must not be empty");
            } else {
                if domain.len() > DOMAIN_MAX {
                    errs.too_long(path, DOMAIN_MAX);
                }
                errs.invalid_each(path, domain, names::is_dns1123_subdomain(domain));
            }
            identifier
        }
    };
    if identifier.is_empty() {
        return errs.invalid(path, identifier, "the name must not be empty");
    }
    if identifier.len() > IDENTIFIER_MAX {
        errs.too_long(path, IDENTIFIER_MAX);
    }
    errs.invalid_each(path, identifier, names::is_c_identifier(identifier));
}

fn at_most(items: usize, items_max: usize, path: &FieldPath, errs: &mut FieldErrors) {
    if items > items_max {
        errs.too_many(path, items, items_max);
    }
}

/// Each name once.
fn unique<'a>(names: impl Iterator<Item = &'a str>, at: impl Fn(usize) -> FieldPath, errs: &mut FieldErrors) {
    let mut known = BTreeSet::new();
    for (i, name) in names.enumerate() {
        if !known.insert(name) {
            errs.duplicate(&at(i), name);
        }
    }
}
