//! Validation of environment variables and where they come from.
//!
//! # Source
//! Kubernetes `pkg/apis/core/validation/validation.go`, `ValidateEnv`, `ValidateEnvFrom`.

use k8s_openapi::api::core::v1::{Container, EnvFromSource, EnvVarSource, ObjectFieldSelector, ResourceFieldSelector};

use crate::{
    field::{FieldErrors, FieldPath},
    names,
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
/// The resources that variables and files may show.
const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
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
        validate_env_from(from, &path.child("envFrom").index(i), errs);
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
    if field.api_version.as_deref().unwrap_or_default().is_empty() {
        errs.required(&path.child("apiVersion"), "");
    }
    let wanted = field.field_path.as_str();
    if wanted.is_empty() {
        return errs.required(&path.child("fieldPath"), "");
    }
    let subscript =
        |map: &str| wanted.strip_prefix(map).and_then(|s| s.strip_prefix("['")).and_then(|s| s.strip_suffix("']"));
    if let Some(key) = subscript("metadata.annotations") {
        errs.invalid_each(path, key, names::is_qualified_name(&key.to_lowercase()));
    } else if let Some(key) = subscript("metadata.labels") {
        errs.invalid_each(path, key, names::is_qualified_name(key));
    } else if !supported.contains(&wanted) {
        let detail = format!("error converting fieldPath: field label not supported: {wanted}");
        errs.invalid(&path.child("fieldPath"), wanted, &detail);
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
        return;
    }
    match resource.resource.as_str() {
        "" => errs.required(&path.child("resource"), ""),
        name if RESOURCES.contains(&name) => {}
        name if name.starts_with("limits.hugepages-") || name.starts_with("requests.hugepages-") => {}
        name => errs.not_supported(&path.child("resource"), name, RESOURCES),
    }
}

fn validate_key_ref(name: &str, key: &str, path: &FieldPath, errs: &mut FieldErrors) {
    errs.invalid_each(&path.child("name"), name, names::is_dns1123_subdomain(name));
    match key {
        "" => errs.required(&path.child("key"), ""),
        key => errs.invalid_each(&path.child("key"), key, names::is_config_map_key(key)),
    }
}

fn validate_env_from(from: &EnvFromSource, path: &FieldPath, errs: &mut FieldErrors) {
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
        0 => errs.invalid(path, "", "must specify one of: `configMapRef` or `secretRef`"),
        1 => {}
        _ => errs.invalid(path, "", ONE_AT_A_TIME),
    }
}
