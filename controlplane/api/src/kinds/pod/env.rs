//! Validation of environment variables and where they come from.
//!
//! # Source
//! Kubernetes `pkg/apis/core/validation/validation.go`, `ValidateEnv`, `ValidateEnvFrom`.

use k8s_openapi::api::core::v1::{Container, EnvFromSource, EnvVarSource, ObjectFieldSelector, ResourceFieldSelector};

use crate::{
    field::{FieldErrors, FieldPath},
    names,
    quantity::Quantity,
};

const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// All fields of pods that can be shown one way or another.
const POD_FIELDS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.serviceAccountName",
    "spec.schedulerName",
    "status.phase",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// The resources that variables and files may show.
const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const BYTE_DIVISORS: &[&str] = &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];
const BYTE_DIVISORS_TEXT: &str = "1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei";
const ONE_AT_A_TIME: &str = "may not have more than one field specified at a time";

/// Checks `env` and `envFrom` of the container at `path`.
pub(super) fn validate(container: &Container, path: &FieldPath, errs: &mut FieldErrors) {
    for (i, var) in container.env.iter().flatten().enumerate() {
        let at = path.child("env").index(i);
        match var.name.as_str() {
            "" => errs.required(&at.child("name"), ""),
            name => errs.invalid_each(&at.child("name"), name, names::is_env_var_name(name)),
        }
        if let Some(from) = &var.value_from {
            let literal = var.value.as_ref().is_some_and(|v| !v.is_empty());
            validate_source(from, literal, &at.child("valueFrom"), errs);
        }
    }
    for (i, from) in container.env_from.iter().flatten().enumerate() {
        validate_env_from(from, &path.child("envFrom"), i, errs);
    }
}

fn validate_source(from: &EnvVarSource, literal: bool, path: &FieldPath, errs: &mut FieldErrors) {
    let mut sources = 0;
    if let Some(field) = &from.field_ref {
        sources += 1;
        validate_field_ref(field, ENV_FIELDS, &path.child("fieldRef"), errs);
    }
    if let Some(resource) = &from.resource_field_ref {
        sources += 1;
        validate_resource_ref(resource, false, &path.child("resourceFieldRef"), errs);
    }
    if let Some(key) = &from.config_map_key_ref {
        sources += 1;
        validate_key_ref(&key.name, &key.key, &path.child("configMapKeyRef"), errs);
    }
    if let Some(key) = &from.secret_key_ref {
        sources += 1;
        validate_key_ref(&key.name, &key.key, &path.child("secretKeyRef"), errs);
    }
    sources += usize::from(from.file_key_ref.is_some());
    let detail = match sources {
        0 => "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef` or `secretKeyRef`",
        _ if literal => "may not be specified when `value` is not empty",
        1 => return,
        _ => ONE_AT_A_TIME,
    };
    errs.invalid(path, "", detail);
}

/// A field of the pod that a variable or a file shows.
pub(super) fn validate_field_ref(
    field: &ObjectFieldSelector,
    supported: &[&str],
    path: &FieldPath,
    errs: &mut FieldErrors,
) {
    match field.api_version.as_deref().unwrap_or_default() {
        "" => return errs.required(&path.child("apiVersion"), ""),
        "v1" => {}
        other => {
            let detail = format!("error converting fieldPath: unsupported pod version: {other}");
            return errs.invalid(&path.child("fieldPath"), field.field_path.as_str(), &detail);
        }
    }
    let wanted = field.field_path.as_str();
    if wanted.is_empty() {
        return errs.required(&path.child("fieldPath"), "");
    }
    let subscript = wanted.strip_suffix("']").and_then(|s| s.split_once("['"));
    match subscript {
        Some(("metadata.annotations", key)) => {
            errs.invalid_each(path, key, names::is_qualified_name(&key.to_lowercase()));
        }
        Some(("metadata.labels", key)) => errs.invalid_each(path, key, names::is_qualified_name(key)),
        Some((of, _)) if POD_FIELDS.contains(&of) => errs.invalid(path, of, "does not support subscript"),
        None if supported.contains(&wanted) => {}
        None if POD_FIELDS.contains(&wanted) => errs.not_supported(&path.child("fieldPath"), wanted, supported),
        _ => {
            let detail = format!("error converting fieldPath: field label not supported: {wanted}");
            errs.invalid(&path.child("fieldPath"), wanted, &detail);
        }
    }
}

/// An amount that a variable or a file shows. Files must name the container.
pub(super) fn validate_resource_ref(
    resource: &ResourceFieldSelector,
    in_volume: bool,
    path: &FieldPath,
    errs: &mut FieldErrors,
) {
    if in_volume && resource.container_name.as_deref().unwrap_or_default().is_empty() {
        errs.required(&path.child("containerName"), "");
        return validate_divisor(resource, path, errs);
    }
    validate_divisor(resource, path, errs);
    match resource.resource.as_str() {
        "" => errs.required(&path.child("resource"), ""),
        name if RESOURCES.contains(&name) => {}
        name if name.starts_with("limits.hugepages-") || name.starts_with("requests.hugepages-") => {}
        name => errs.not_supported(&path.child("resource"), name, RESOURCES),
    }
}

/// What an amount is shown in: cores or their thousandths, bytes or a power of them.
fn validate_divisor(resource: &ResourceFieldSelector, path: &FieldPath, errs: &mut FieldErrors) {
    let Some(divisor) = resource.divisor.as_ref().and_then(|d| d.0.parse::<Quantity>().ok()) else { return };
    if divisor.is_zero() {
        return;
    }
    let name = resource.resource.as_str();
    let of = name.strip_prefix("limits.").or_else(|| name.strip_prefix("requests.")).unwrap_or_default();
    let text = divisor.to_string();
    let (supported, values, what): (&[&str], &str, &str) = match of {
        "cpu" => (&["1m", "1"], "1m and 1", "cpu"),
        "memory" => (BYTE_DIVISORS, BYTE_DIVISORS_TEXT, "memory"),
        "ephemeral-storage" => (BYTE_DIVISORS, BYTE_DIVISORS_TEXT, "local ephemeral storage"),
        of if of.starts_with("hugepages-") => (BYTE_DIVISORS, BYTE_DIVISORS_TEXT, "hugepages"),
        _ => return,
    };
    if !supported.contains(&text.as_str()) {
        let detail = format!("only divisor's values {values} are supported with the {what} resource");
        errs.invalid(&path.child("divisor"), name, &detail);
    }
}

fn validate_key_ref(name: &str, key: &str, path: &FieldPath, errs: &mut FieldErrors) {
    errs.invalid_each(&path.child("name"), name, names::is_dns1123_subdomain(name));
    match key {
        "" => errs.required(&path.child("key"), ""),
        key => errs.invalid_each(&path.child("key"), key, names::is_config_map_key(key)),
    }
}

/// How many sources there are is said of the list, as Kubernetes does.
fn validate_env_from(from: &EnvFromSource, list: &FieldPath, i: usize, errs: &mut FieldErrors) {
    let path = list.index(i);
    if let Some(prefix) = from.prefix.as_deref().filter(|p| !p.is_empty()) {
        errs.invalid_each(&path.child("prefix"), prefix, names::is_env_var_name(prefix));
    }
    let refs = [
        ("configMapRef", from.config_map_ref.as_ref().map(|r| r.name.as_str())),
        ("secretRef", from.secret_ref.as_ref().map(|r| r.name.as_str())),
    ];
    for (field, name) in refs {
        match name {
            None => {}
            Some("") => errs.required(&path.child(field).child("name"), ""),
            Some(name) => {
                errs.invalid_each(&path.child(field).child("name"), name, names::is_dns1123_subdomain(name));
            }
        }
    }
    match refs.iter().filter(|r| r.1.is_some()).count() {
        0 => errs.invalid(list, "", "must specify one of: `configMapRef` or `secretRef`"),
        1 => {}
        _ => errs.invalid(list, "", ONE_AT_A_TIME),
    }
}
