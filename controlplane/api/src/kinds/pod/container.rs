//! Validation of containers: names, images, ports, and what each kind of container may have.
//!
//! # Source
//! Kubernetes `pkg/apis/core/validation/validation.go`, `validateContainerCommon`, `validateContainers`,
//! `validateInitContainers`.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    Container, ContainerPort, ContainerResizePolicy, ContainerRestartRule, EphemeralContainer, PodSpec, Volume,
};

use super::{env, handler, mounts, resources, security, spec::one_of};
use crate::{
    field::{FieldErrors, FieldPath},
    names,
};

/// The protocols of ports.
pub(in crate::kinds) const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];
const RESTART_POLICIES: [&str; 3] = ["Always", "Never", "OnFailure"];
const RESTART_RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;

/// What the containers of a pod are judged by.
pub(super) struct Around<'a> {
    /// The volumes that can be mounted, by name.
    pub(super) volumes: BTreeMap<&'a str, &'a Volume>,
    /// The names of the pod's resource claims.
    pub(super) claims: BTreeSet<&'a str>,
    /// Whether the pod shares the users of its node.
    pub(super) host_users: bool,
    /// What becomes of containers that end.
    pub(super) restart_policy: &'a str,
    /// Seconds that the pod has to end.
    pub(super) grace_seconds: Option<i64>,
}

/// Visits all containers of a pod with their paths.
pub(super) fn all_containers(spec: &PodSpec, path: &FieldPath, mut visit: impl FnMut(&Container, &FieldPath)) {
    let lists = [
        ("initContainers", spec.init_containers.as_deref().unwrap_or_default()),
        ("containers", spec.containers.as_slice()),
    ];
    for (field, list) in lists {
        for (i, container) in list.iter().enumerate() {
            visit(container, &path.child(field).index(i));
        }
    }
    for (i, container) in spec.ephemeral_containers.iter().flatten().enumerate() {
        visit(&as_container(container), &path.child("ephemeralContainers").index(i));
    }
}

/// What an ephemeral container has of a container: everything but its target.
pub(super) fn as_container(ephemeral: &EphemeralContainer) -> Container {
    let tree = serde_json::to_value(ephemeral).unwrap_or_default();
    serde_json::from_value(tree).unwrap_or_default()
}

/// Whether an init container goes on running beside the containers.
pub(super) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Checks the containers at `path`.
pub(super) fn validate_all(containers: &[Container], around: &Around<'_>, path: &FieldPath, errs: &mut FieldErrors) {
    if containers.is_empty() {
        return errs.required(path, "");
    }
    let mut seen = BTreeSet::new();
    for (i, container) in containers.iter().enumerate() {
        let at = path.index(i);
        validate(container, around, &at, errs);
        if !seen.insert(container.name.as_str()) {
            errs.duplicate(&at.child("name"), container.name.as_str());
        }
        handler::validate_lifecycle(container, around.grace_seconds, &at, errs);
        handler::validate_probes(container, around.grace_seconds, &at, errs);
    }
    validate_host_ports(containers, path, errs);
}

/// Checks the init containers at `path`, whose names are not those of the containers either.
pub(super) fn validate_all_init(spec: &PodSpec, around: &Around<'_>, path: &FieldPath, errs: &mut FieldErrors) {
    let mut seen: BTreeSet<&str> = spec.containers.iter().map(|c| c.name.as_str()).collect();
    for (i, container) in spec.init_containers.iter().flatten().enumerate() {
        let at = path.index(i);
        validate(container, around, &at, errs);
        if !container.name.is_empty() && !seen.insert(&container.name) {
            errs.duplicate(&at.child("name"), container.name.as_str());
        }
        // They run one by one, so only one's own ports are in its way.
        validate_host_ports(std::slice::from_ref(container), path, errs);
        if is_sidecar(container) {
            handler::validate_lifecycle(container, around.grace_seconds, &at, errs);
            handler::validate_probes(container, around.grace_seconds, &at, errs);
        } else {
            forbid_hooks(container, &at, errs);
        }
    }
}

fn forbid_hooks(container: &Container, path: &FieldPath, errs: &mut FieldErrors) {
    let given = [
        ("lifecycle", container.lifecycle.is_some()),
        ("livenessProbe", container.liveness_probe.is_some()),
        ("readinessProbe", container.readiness_probe.is_some()),
        ("startupProbe", container.startup_probe.is_some()),
    ];
    for (field, _) in given.iter().filter(|(_, given)| *given) {
        errs.forbidden(&path.child(field), "may not be set for init containers without restartPolicy=Always");
    }
}

/// Checks what all containers have; probes, hooks and the uniqueness of names excepted.
pub(super) fn validate(container: &Container, around: &Around<'_>, path: &FieldPath, errs: &mut FieldErrors) {
    match container.name.as_str() {
        "" => errs.required(&path.child("name"), ""),
        name => errs.invalid_each(&path.child("name"), name, names::is_dns1123_label(name)),
    }
    if container.image.as_deref().unwrap_or_default().is_empty() {
        errs.required(&path.child("image"), "");
    }
    let policies = ["File", "FallbackToLogsOnError"];
    let policy = container.termination_message_policy.as_deref();
    one_of(&path.child("terminationMessagePolicy"), policy, &policies, errs);
    validate_ports(container.ports.as_deref().unwrap_or_default(), &path.child("ports"), errs);
    env::validate(container, path, errs);
    mounts::validate(container, &around.volumes, path, errs);
    validate_pull_policy(container.image_pull_policy.as_deref(), &path.child("imagePullPolicy"), errs);
    if let Some(resources) = &container.resources {
        resources::validate(resources, &around.claims, &path.child("resources"), errs);
    }
    let policies = container.resize_policy.as_deref().unwrap_or_default();
    validate_resize_policies(policies, around.restart_policy, &path.child("resizePolicy"), errs);
    if let Some(context) = &container.security_context {
        security::validate(context, around.host_users, &path.child("securityContext"), errs);
    }
    validate_restart(container, path, errs);
}

/// When an image is fetched.
pub(super) fn validate_pull_policy(policy: Option<&str>, path: &FieldPath, errs: &mut FieldErrors) {
    one_of(path, policy, &["Always", "IfNotPresent", "Never"], errs);
}

/// Images of pods stand without blanks around them; templates from before that was asked may have some.
pub(super) fn validate_blanks(spec: &PodSpec, path: &FieldPath, errs: &mut FieldErrors) {
    all_containers(spec, path, |container, path| {
        let image = container.image.as_deref().unwrap_or_default();
        if image.trim() != image {
            errs.invalid(&path.child("image"), image, "must not have leading or trailing whitespace");
        }
    });
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

/// No two ports of containers that run at the same time are one port of the node.
fn validate_host_ports(containers: &[Container], path: &FieldPath, errs: &mut FieldErrors) {
    let mut seen = BTreeSet::new();
    for (i, container) in containers.iter().enumerate() {
        for (j, port) in container.ports.iter().flatten().enumerate() {
            let Some(number) = port.host_port.filter(|n| *n != 0) else { continue };
            let (protocol, ip) = (port.protocol.as_deref(), port.host_ip.as_deref());
            let one = format!("{}/{}/{number}", protocol.unwrap_or_default(), ip.unwrap_or_default());
            if !seen.insert(one.clone()) {
                errs.duplicate(&path.index(i).child("ports").index(j).child("hostPort"), one);
            }
        }
    }
}

fn validate_resize_policies(
    policies: &[ContainerResizePolicy],
    restart_policy: &str,
    path: &FieldPath,
    errs: &mut FieldErrors,
) {
    let mut seen = BTreeSet::new();
    for (i, policy) in policies.iter().enumerate() {
        if !seen.insert(policy.resource_name.as_str()) {
            errs.duplicate(&path.index(i), policy.resource_name.as_str());
        }
        one_of(path, Some(&policy.resource_name), &["cpu", "memory"], errs);
        one_of(path, Some(&policy.restart_policy), &["NotRequired", "RestartContainer"], errs);
        if restart_policy == "Never" && policy.restart_policy != "NotRequired" {
            let detail = "must be 'NotRequired' when `restartPolicy` is 'Never'";
            errs.invalid(path, policy.restart_policy.as_str(), detail);
        }
    }
}

fn validate_restart(container: &Container, path: &FieldPath, errs: &mut FieldErrors) {
    let rules = container.restart_policy_rules.as_deref().unwrap_or_default();
    let at = path.child("restartPolicy");
    match container.restart_policy.as_deref() {
        None if !rules.is_empty() => errs.required(&at, "must specify restartPolicy when restart rules are used"),
        Some(policy) if !RESTART_POLICIES.contains(&policy) => errs.not_supported(&at, policy, &RESTART_POLICIES),
        _ => {}
    }
    let path = path.child("restartPolicyRules");
    if rules.len() > RESTART_RULES_MAX {
        errs.too_many(&path, rules.len(), RESTART_RULES_MAX);
    }
    for (i, rule) in rules.iter().enumerate() {
        validate_restart_rule(rule, &path.index(i), errs);
    }
}

fn validate_restart_rule(rule: &ContainerRestartRule, path: &FieldPath, errs: &mut FieldErrors) {
    one_of(&path.child("action"), Some(&rule.action), &["Restart", "RestartAllContainers"], errs);
    let Some(codes) = &rule.exit_codes else {
        return errs.required(&path.child("exitCodes"), "must be specified");
    };
    let path = path.child("exitCodes");
    one_of(&path.child("operator"), Some(&codes.operator), &["In", "NotIn"], errs);
    let values = codes.values.as_deref().unwrap_or_default();
    if values.len() > EXIT_CODES_MAX {
        errs.too_many(&path.child("values"), values.len(), EXIT_CODES_MAX);
    }
}

/// A path that stays below where it starts.
pub(super) fn validate_descending_path(text: &str, path: &FieldPath, errs: &mut FieldErrors) {
    if text.starts_with('/') {
        errs.invalid(path, text, "must be a relative path");
    }
    validate_no_backsteps(text, path, errs);
}

/// A path without `..` in it.
pub(in crate::kinds) fn validate_no_backsteps(text: &str, path: &FieldPath, errs: &mut FieldErrors) {
    if text.split('/').any(|part| part == "..") {
        errs.invalid(path, text, "must not contain '..'");
    }
}
