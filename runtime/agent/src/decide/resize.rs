//! Other amounts of CPU and memory for containers that run: whether they fit, and what is said until they do. Pure.
//!
//! # Source
//! Kubernetes `pkg/kubelet/allocation/allocation_manager.go`, `pkg/kubelet/kuberuntime/kuberuntime_manager.go`.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container as Spec, Pod, ResourceRequirements};

use super::{
    amounts::{Amounts, read},
    backoff::after,
    local::{Container, Local, State},
};

/// How often it is seen whether a container uses little enough by now.
const RETRY_SECONDS: i64 = 10;

/// Why containers do not have yet what the spec gives them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unresized {
    /// The generation of the pod that was tried.
    pub(crate) generation: Option<i64>,
    /// `PodResizePending` or `PodResizeInProgress`.
    pub(crate) condition: &'static str,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    /// When it is tried again by itself.
    pub(crate) retry_at: Option<Timestamp>,
}

/// Whether a spec's amounts are others than those that its containers have, and are not known to be impossible now.
pub(crate) fn is_due(pod: &Pod, local: &Local, now: Timestamp) -> bool {
    let known = local
        .unresized
        .as_ref()
        .is_some_and(|u| u.generation == pod.metadata.generation && u.retry_at.is_none_or(|at| at > now));
    !known && local.lasting().any(|(slot, c)| slot.spec(pod).is_some_and(|spec| differs(&spec, c)))
}

/// Whether one container has other amounts than its spec says.
pub(crate) fn differs(spec: &Spec, container: &Container) -> bool {
    spec.resources.as_ref() != container.allocated.as_deref()
}

/// Whether a container has to be started anew to get them, as `resizePolicy` says.
pub(crate) fn restarts(spec: &Spec, container: &Container) -> bool {
    if !matches!(container.state, State::Running { .. }) {
        return false;
    }
    let amounts = |r: Option<&ResourceRequirements>, name: &str| {
        (r.and_then(|r| read(r.limits.as_ref(), name)), r.and_then(|r| read(r.requests.as_ref(), name)))
    };
    let changed = |name: &str| amounts(spec.resources.as_ref(), name) != amounts(container.allocated.as_deref(), name);
    let policies = spec.resize_policy.iter().flatten();
    policies.filter(|p| p.restart_policy == "RestartContainer").any(|p| changed(&p.resource_name))
}

/// Whether the amounts fit: `wanted` is what the pod would request, `others` what all other pods do.
///
/// # Errors
/// What to say: they never will (`Infeasible`), or not now (`Deferred`).
pub(crate) fn fits(pod: &Pod, wanted: Amounts, others: Amounts, all: Amounts) -> Result<(), Unresized> {
    let unresized = |reason, message| Unresized {
        generation: pod.metadata.generation,
        condition: "PodResizePending",
        reason,
        message,
        retry_at: None,
    };
    let rows = [
        ("cpu", wanted.cpu_millicores, others.cpu_millicores, all.cpu_millicores),
        ("memory", wanted.memory_bytes, others.memory_bytes, all.memory_bytes),
    ];
    for (name, wanted, _, all) in rows {
        if wanted > all {
            let words = format!("Node didn't have enough capacity: {name}, requested: {wanted}, capacity: {all}");
            return Err(unresized("Infeasible", words));
        }
    }
    for (name, wanted, others, all) in rows {
        if wanted > all.saturating_sub(others) {
            let words = super::admission::short_of(name, wanted, others, all);
            return Err(unresized("Deferred", words));
        }
    }
    Ok(())
}

/// A container uses more memory than it would have: the limit stays until it uses less.
pub(crate) fn below_usage(pod: &Pod, name: &str, limit_bytes: u64, used_bytes: u64, now: Timestamp) -> Unresized {
    Unresized {
        generation: pod.metadata.generation,
        condition: "PodResizeInProgress",
        reason: "Error",
        retry_at: Some(after(now, RETRY_SECONDS)),
        message: format!(
            "cannot decrease memory limits: attempting to set container {name:?} memory limit ({limit_bytes}) below current \
             usage ({used_bytes})"
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_fits() {
        let amounts = |cpu_millicores, memory_bytes| Amounts { cpu_millicores, memory_bytes, ephemeral_bytes: 0 };
        let pod = Pod::default();
        for (wanted, others, expected) in [
            (amounts(500, 10), amounts(500, 90), "fits"),
            (
                amounts(501, 10),
                amounts(500, 0),
                "Deferred: Node didn't have enough resource: cpu, requested: 501, used: 500, capacity: 1000",
            ),
            (
                amounts(1001, 10),
                amounts(0, 0),
                "Infeasible: Node didn't have enough capacity: cpu, requested: 1001, capacity: 1000",
            ),
            (
                amounts(600, 101),
                amounts(500, 0),
                "Infeasible: Node didn't have enough capacity: memory, requested: 101, capacity: 100",
            ),
        ] {
            let found = fits(&pod, wanted, others, amounts(1000, 100));
            let found = found.map_or_else(|u| format!("{}: {}", u.reason, u.message), |()| "fits".to_owned());
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn who_has_to_be_started_anew() {
        let container = |cpu: &str, memory: &str| -> Value {
            json!({ "name": "c", "resources": { "limits": { "cpu": cpu, "memory": memory } },
                "resizePolicy": [{ "resourceName": "cpu", "restartPolicy": "NotRequired" },
                    { "resourceName": "memory", "restartPolicy": "RestartContainer" }] })
        };
        let had: Spec = serde_json::from_value(container("1", "64Mi")).unwrap();
        for (cpu, memory, expected) in
            [("1", "64Mi", (false, false)), ("2", "64Mi", (true, false)), ("1", "65Mi", (true, true))]
        {
            let spec: Spec = serde_json::from_value(container(cpu, memory)).unwrap();
            let now = jiff::Timestamp::UNIX_EPOCH;
            let allocated = had.resources.clone().map(Box::new);
            let container = Container { state: State::Running { since: now }, allocated, ..Container::default() };
            assert_eq!((differs(&spec, &container), restarts(&spec, &container)), expected, "{cpu} {memory}");
        }
    }
}
