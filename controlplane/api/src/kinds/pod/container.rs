//! Validation of containers: names, images, ports, mounts.
//!
//! # Source
//! Kubernetes `pkg/apis/core/validation/validation.go`, `validateContainerCommon`.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, ContainerPort, VolumeMount};

use super::{
    env, handler, resources,
    spec::{one_of, validate_id},
};
use crate::{
    field::{FieldErrors, FieldPath},
    names,
};

/// The protocols of ports.
pub(in crate::kinds) const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

/// Checks what all containers have; probes and the uniqueness of names excepted.
pub(super) fn validate(container: &Container, volumes: &BTreeSet<&str>, path: &FieldPath, errs: &mut FieldErrors) {
    match container.name.as_str() {
        "" => errs.required(&path.child("name"), ""),
        name => errs.invalid_each(&path.child("name"), name, names::is_dns1123_label(name)),
    }
    validate_image(container.image.as_deref().unwrap_or_default(), &path.child("image"), errs);
    let policies = ["File", "FallbackToLogsOnError"];
    let policy = container.termination_message_policy.as_deref();
    one_of(&path.child("terminationMessagePolicy"), policy, &policies, errs);
    validate_ports(container.ports.as_deref().unwrap_or_default(), &path.child("ports"), errs);
    env::validate(container, path, errs);
    validate_mounts(container.volume_mounts.as_deref().unwrap_or_default(), volumes, &path.child("volumeMounts"), errs);
    let policy = container.image_pull_policy.as_deref();
    one_of(&path.child("imagePullPolicy"), policy, &["Always", "IfNotPresent", "Never"], errs);
    if let Some(resources) = &container.resources {
        resources::validate(resources, &path.child("resources"), errs);
    }
    if let Some(context) = &container.security_context {
        let at = path.child("securityContext");
        validate_id(context.run_as_user, &at.child("runAsUser"), errs);
        validate_id(context.run_as_group, &at.child("runAsGroup"), errs);
    }
}

/// Checks the probes and hooks of a container that is no init container.
pub(super) fn validate_probes(container: &Container, path: &FieldPath, errs: &mut FieldErrors) {
    handler::validate_lifecycle(container, path, errs);
    handler::validate_probes(container, path, errs);
}

/// Checks what init containers may not have, unless they go on running beside the containers.
pub(super) fn validate_init(container: &Container, path: &FieldPath, errs: &mut FieldErrors) {
    if let Some(policy) = container.restart_policy.as_deref() {
        if policy == "Always" {
            return validate_probes(container, path, errs);
        }
        errs.not_supported(&path.child("restartPolicy"), policy, &["Always"]);
    }
    let given = [
        ("lifecycle", container.lifecycle.is_some()),
        ("livenessProbe", container.liveness_probe.is_some()),
        ("readinessProbe", container.readiness_probe.is_some()),
        ("startupProbe", container.startup_probe.is_some()),
    ];
    for (field, given) in given {
        if given {
            errs.forbidden(&path.child(field), "may not be set for init containers without restartPolicy=Always");
        }
    }
}

/// An image is required; whether it can be fetched is the node's business.
pub(super) fn validate_image(image: &str, path: &FieldPath, errs: &mut FieldErrors) {
    if image.is_empty() {
        errs.required(path, "");
    } else if image.trim() != image {
        errs.invalid(path, image, "must not have leading or trailing whitespace");
    }
}

fn validate_ports(ports: &[ContainerPort], path: &FieldPath, errs: &mut FieldErrors) {
    let mut seen = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let at = path.index(i);
        if let Some(name) = port.name.as_deref().filter(|n| !n.is_empty()) {
            let messages = names::is_port_name(name);
            if messages.is_empty() && !seen.insert(name) {
                errs.duplicate(&at.child("name"), name);
            }
            errs.invalid_each(&at.child("name"), name, messages);
        }
        match port.container_port {
            0 => errs.required(&at.child("containerPort"), ""),
            number => validate_port(number, &at.child("containerPort"), errs),
        }
        if let Some(number) = port.host_port.filter(|n| *n != 0) {
            validate_port(number, &at.child("hostPort"), errs);
        }
        one_of(&at.child("protocol"), port.protocol.as_deref(), &PROTOCOLS, errs);
    }
}

/// The number of a port is 1 to 65535.
pub(in crate::kinds) fn validate_port(number: i32, path: &FieldPath, errs: &mut FieldErrors) {
    for message in names::is_port_number(number) {
        errs.invalid(path, number, &message);
    }
}

fn validate_mounts(mounts: &[VolumeMount], volumes: &BTreeSet<&str>, path: &FieldPath, errs: &mut FieldErrors) {
    let mut places = BTreeSet::new();
    for (i, mount) in mounts.iter().enumerate() {
        let at = path.index(i);
        if mount.name.is_empty() {
            errs.required(&at.child("name"), "");
        }
        if !volumes.contains(mount.name.as_str()) {
            errs.not_found(&at.child("name"), &mount.name);
        }
        let place = mount.mount_path.as_str();
        if place.is_empty() {
            errs.required(&at.child("mountPath"), "");
        }
        if !places.insert(place) {
            errs.invalid(&at.child("mountPath"), place, "must be unique");
        }
        let sub_path = mount.sub_path.as_deref().unwrap_or_default();
        let expression = mount.sub_path_expr.as_deref().unwrap_or_default();
        if !sub_path.is_empty() && !expression.is_empty() {
            let detail = "subPathExpr and subPath are mutually exclusive";
            errs.invalid(&at.child("subPathExpr"), expression, detail);
        }
        validate_descending_path(sub_path, &at.child("subPath"), errs);
        validate_descending_path(expression, &at.child("subPathExpr"), errs);
    }
}

/// A path that stays below where it starts.
pub(super) fn validate_descending_path(text: &str, path: &FieldPath, errs: &mut FieldErrors) {
    if text.starts_with('/') {
        errs.invalid(path, text, "must be a relative path");
    }
    if text.split('/').any(|part| part == "..") {
        errs.invalid(path, text, "must not contain '..'");
    }
}
