//! Other amounts of CPU and memory for a pod that runs: through a subresource of their own.
//!
//! # Source
//! Kubernetes `pkg/apis/core/validation/validation.go`, `ValidatePodResize`; `pkg/registry/core/pod/strategy.go`,
//! `podResizeStrategy`.

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

use super::{container::is_sidecar, qos::qos_class, resources::Amounts, update::MIRROR};
use crate::field::{FieldErrors, FieldPath};

/// What may be changed while a container runs.
const RESIZABLE: [&str; 2] = ["cpu", "memory"];

/// A write through the subresource changes what containers ask for, and nothing else.
pub(super) fn prepare(new: &mut Pod, old: &Pod) {
    let given = new.spec.take().unwrap_or_default();
    let version = new.metadata.resource_version.take();
    new.clone_from(old);
    new.metadata.resource_version = version;
    let spec = new.spec.get_or_insert_default();
    let take = |into: &mut [Container], from: Vec<Container>| {
        for (into, from) in into.iter_mut().zip(from) {
            into.resources = from.resources;
            into.resize_policy = from.resize_policy;
        }
    };
    take(&mut spec.containers, given.containers);
    take(spec.init_containers.as_deref_mut().unwrap_or_default(), given.init_containers.unwrap_or_default());
    spec.resources = given.resources;
}

/// Checks a write through the subresource.
pub(super) fn validate_update(new: &Pod, old: &Pod, errs: &mut FieldErrors) {
    let default = PodSpec::default();
    let (spec, had) = (new.spec.as_ref().unwrap_or(&default), old.spec.as_ref().unwrap_or(&default));
    let whole = |spec: &PodSpec| {
        let some = |amounts: &Option<Amounts>| amounts.as_ref().is_some_and(|a| !a.is_empty());
        spec.resources.as_ref().is_some_and(|r| some(&r.requests) || some(&r.limits))
    };
    let never = [
        (whole(spec) || whole(had), "pods with pod-level resources cannot be resized"),
        (old.metadata.annotations.iter().any(|a| a.contains_key(MIRROR)), "static pods cannot be resized"),
        (had.os.as_ref().is_some_and(|os| os.name == "windows"), "windows pods cannot be resized"),
    ];
    if let Some((_, detail)) = never.iter().find(|(is, _)| *is) {
        return errs.forbidden(&FieldPath::default(), detail);
    }
    let (path, before) = (FieldPath::new("spec"), errs.0.len());
    if qos_class(spec) != qos_class(had) {
        let class = new.status.as_ref().and_then(|s| s.qos_class.clone());
        errs.invalid(&path, class, "Pod QOS Class may not change as a result of resizing");
    }
    if !is_supported(old) {
        errs.forbidden(&path, "Pod running on node without support for resize");
    }
    let init = |spec: &PodSpec| spec.init_containers.clone().unwrap_or_default();
    validate_list(&init(spec), &init(had), true, &path, errs);
    validate_list(&spec.containers, &had.containers, false, &path, errs);
    if errs.0.len() == before && with_amounts_of(spec, had) != *had {
        errs.forbidden(&path, "only cpu and memory resources are mutable");
    }
}

/// Whether the node tells what running containers have, as nodes do that can give them more.
fn is_supported(pod: &Pod) -> bool {
    let statuses = pod.status.iter().flat_map(|s| s.container_statuses.iter().flatten());
    let mut running = statuses.filter(|s| s.state.as_ref().is_some_and(|s| s.running.is_some()));
    running.next().is_none_or(|s| s.resources.is_some())
}

fn validate_list(new: &[Container], old: &[Container], init: bool, path: &FieldPath, errs: &mut FieldErrors) {
    let at = path.child(if init { "initContainers" } else { "containers" });
    for (i, (new, old)) in new.iter().zip(old).enumerate() {
        let fixed = init && !is_sidecar(old);
        if !fixed {
            validate_container(new, old, &at.index(i).child("resources"), errs);
        }
        let allowed = if fixed { new.clone() } else { with_amounts(new, old) };
        if allowed != *old {
            let detail = match (init, fixed) {
                (_, true) => "resources for non-sidecar init containers are immutable",
                (true, false) => "only cpu and memory resources for sidecar containers are mutable",
                (false, false) => "only cpu and memory resources are mutable",
            };
            errs.forbidden(path, detail);
        }
    }
}

fn validate_container(new: &Container, old: &Container, path: &FieldPath, errs: &mut FieldErrors) {
    let of = |container: &Container| container.resources.clone().unwrap_or_default();
    let (now, had) = (of(new), of(old));
    let removed = |new: &Option<Amounts>, old: &Option<Amounts>| {
        old.iter().flatten().any(|(name, _)| new.as_ref().is_none_or(|n| !n.contains_key(name)))
    };
    if removed(&now.requests, &had.requests) {
        errs.forbidden(&path.child("requests"), "resource requests cannot be removed");
    }
    if removed(&now.limits, &had.limits) {
        errs.forbidden(&path.child("limits"), "resource limits cannot be removed");
    }
}

/// A container with the old amounts of what may change.
fn with_amounts(new: &Container, old: &Container) -> Container {
    let back = |new: Option<&Amounts>, old: Option<&Amounts>| {
        let old = old?;
        let mut amounts = new.cloned().unwrap_or_default();
        for name in RESIZABLE {
            match old.get(name) {
                Some(amount) => amounts.insert(name.to_owned(), amount.clone()),
                None => amounts.remove(name),
            };
        }
        Some(amounts)
    };
    let mut container = new.clone();
    let (now, had) = (new.resources.as_ref(), old.resources.as_ref());
    let limits = back(now.and_then(|r| r.limits.as_ref()), had.and_then(|r| r.limits.as_ref()));
    let requests = back(now.and_then(|r| r.requests.as_ref()), had.and_then(|r| r.requests.as_ref()));
    if let Some(resources) = &mut container.resources {
        resources.limits = limits;
        resources.requests = requests;
    }
    container
}

fn with_amounts_of(new: &PodSpec, old: &PodSpec) -> PodSpec {
    let mut spec = new.clone();
    for (new, old) in spec.containers.iter_mut().zip(&old.containers) {
        *new = with_amounts(new, old);
    }
    for (new, old) in spec.init_containers.iter_mut().flatten().zip(old.init_containers.iter().flatten()) {
        *new = with_amounts(new, old);
    }
    spec
}
