//! Ephemeral containers, which come into a pod while it runs, to look at it: through a subresource of their own.
//!
//! # Source
//! Kubernetes `pkg/apis/core/validation/validation.go`, `validateEphemeralContainers`,
//! `ValidatePodEphemeralContainersUpdate`; `pkg/registry/core/pod/strategy.go`, `podEphemeralContainersStrategy`.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{EphemeralContainer, Pod, PodSpec};

use super::{
    container::{self, Around, as_container},
    update::{MIRROR, differences},
};
use crate::field::{FieldErrors, FieldPath};

const NOT_HERE: &str = "cannot be set for an Ephemeral Container";

/// Checks the ephemeral containers at `path`.
pub(super) fn validate_all(spec: &PodSpec, around: &Around<'_>, path: &FieldPath, errs: &mut FieldErrors) {
    let others = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let others: BTreeSet<&str> = others.map(|c| c.name.as_str()).collect();
    let mut seen = others.clone();
    for (i, ephemeral) in spec.ephemeral_containers.iter().flatten().enumerate() {
        let at = path.index(i);
        container::validate(&as_container(ephemeral), around, &at, errs);
        if !seen.insert(ephemeral.name.as_str()) {
            errs.duplicate(&at.child("name"), ephemeral.name.as_str());
        }
        let target = ephemeral.target_container_name.as_deref().unwrap_or_default();
        if !target.is_empty() && !others.contains(target) {
            errs.not_found(&at.child("targetContainerName"), target);
        }
        validate_fields(ephemeral, &at, errs);
    }
}

/// They are no part of what the pod does, so nothing may rely on them.
fn validate_fields(ephemeral: &EphemeralContainer, path: &FieldPath, errs: &mut FieldErrors) {
    let resources = ephemeral.resources.as_ref();
    let asks = |amounts: Option<usize>| amounts.is_some_and(|n| n > 0);
    let given = [
        ("ports", ephemeral.ports.as_ref().is_some_and(|p| !p.is_empty())),
        (
            "resources",
            asks(resources.and_then(|r| r.limits.as_ref()).map(|l| l.len()))
                || asks(resources.and_then(|r| r.requests.as_ref()).map(|r| r.len()))
                || asks(resources.and_then(|r| r.claims.as_ref()).map(Vec::len)),
        ),
        ("resizePolicy", ephemeral.resize_policy.as_ref().is_some_and(|p| !p.is_empty())),
        ("restartPolicy", ephemeral.restart_policy.is_some()),
        ("restartPolicyRules", ephemeral.restart_policy_rules.as_ref().is_some_and(|r| !r.is_empty())),
        ("livenessProbe", ephemeral.liveness_probe.is_some()),
        ("readinessProbe", ephemeral.readiness_probe.is_some()),
        ("startupProbe", ephemeral.startup_probe.is_some()),
        ("lifecycle", ephemeral.lifecycle.is_some()),
    ];
    for (field, _) in given.iter().filter(|(_, given)| *given) {
        errs.forbidden(&path.child(field), NOT_HERE);
    }
    for (i, mount) in ephemeral.volume_mounts.iter().flatten().enumerate() {
        for (field, part) in [("subPath", &mount.sub_path), ("subPathExpr", &mount.sub_path_expr)] {
            if part.as_ref().is_some_and(|p| !p.is_empty()) {
                errs.forbidden(&path.child("volumeMounts").index(i).child(field), NOT_HERE);
            }
        }
    }
}

/// A write through the subresource changes nothing else.
pub(super) fn prepare(new: &mut Pod, old: &Pod) {
    let mut given = new.spec.take().and_then(|s| s.ephemeral_containers);
    // Those that are there keep their places, whatever order a client sends: a node knows them by these.
    let before: Vec<_> =
        old.spec.iter().flat_map(|s| s.ephemeral_containers.iter().flatten()).map(|c| &c.name).collect();
    let place = |c: &EphemeralContainer| before.iter().position(|name| **name == c.name).unwrap_or(usize::MAX);
    given.iter_mut().for_each(|given| given.sort_by_key(place));
    let version = new.metadata.resource_version.take();
    new.clone_from(old);
    new.metadata.resource_version = version;
    new.spec.get_or_insert_default().ephemeral_containers = given;
}

/// Those that are there stay as they are.
pub(super) fn validate_update(new: &Pod, old: &Pod, errs: &mut FieldErrors) {
    if old.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(MIRROR)) {
        return errs.forbidden(&FieldPath::default(), "static pods do not support ephemeral containers");
    }
    let of = |pod: &Pod| pod.spec.as_ref().and_then(|s| s.ephemeral_containers.clone()).unwrap_or_default();
    let (new, path) = (of(new), FieldPath::new("spec").child("ephemeralContainers"));
    for before in of(old) {
        let name = before.name.as_str();
        match new.iter().find(|c| c.name == name) {
            None => {
                errs.forbidden(&path, &format!("existing ephemeral containers {name:?} may not be removed\n"));
            }
            Some(after) if *after != before => {
                let diff = differences(&path, after, &before);
                let detail = format!("existing ephemeral containers {name:?} may not be changed\n{diff}");
                errs.forbidden(&path, &detail);
            }
            Some(_) => {}
        }
    }
}
