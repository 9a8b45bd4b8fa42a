//! What a pod as a whole requests and may use: over its containers, its init containers, its sidecars and its overhead.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/component-helpers/resource/helpers.go` (`PodRequests`, `PodLimits`).

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Container as Spec, Pod, PodSpec, ResourceRequirements},
    apimachinery::pkg::api::resource::Quantity as Wire,
};
use podium_api::quantity::Quantity;

use super::restart::is_sidecar;

/// Amounts of what the node keeps account of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Amounts {
    /// Thousandths of a core.
    pub(crate) cpu_millicores: u64,
    pub(crate) memory_bytes: u64,
    /// Logs and emptyDirs.
    pub(crate) ephemeral_bytes: u64,
}

impl Amounts {
    /// Each one of both.
    pub(crate) fn with(self, other: Self, how: fn(u64, u64) -> u64) -> Self {
        Self {
            cpu_millicores: how(self.cpu_millicores, other.cpu_millicores),
            memory_bytes: how(self.memory_bytes, other.memory_bytes),
            ephemeral_bytes: how(self.ephemeral_bytes, other.ephemeral_bytes),
        }
    }

    /// The sum.
    pub(crate) fn plus(self, other: Self) -> Self {
        self.with(other, u64::saturating_add)
    }

    /// What is left.
    pub(crate) fn minus(self, other: Self) -> Self {
        self.with(other, u64::saturating_sub)
    }

    fn of(list: Option<&BTreeMap<String, Wire>>) -> Self {
        let (cpu, memory, ephemeral) = (read(list, "cpu"), read(list, "memory"), read(list, "ephemeral-storage"));
        let bytes = |q: Option<Quantity>| q.map_or(0, |q| q.bytes());
        Self {
            cpu_millicores: cpu.map_or(0, |q| u64::try_from(q.milli()).unwrap_or(0)),
            memory_bytes: bytes(memory),
            ephemeral_bytes: bytes(ephemeral),
        }
    }
}

/// One amount of a resource list.
pub(crate) fn read(list: Option<&BTreeMap<String, Wire>>, name: &str) -> Option<Quantity> {
    list?.get(name).and_then(|wire| Quantity::try_from(wire).ok())
}

/// The resources that containers have, which may be others than the spec's while a resize waits.
pub(crate) type Having<'a> = dyn Fn(&'a Spec) -> Option<&'a ResourceRequirements> + 'a;

/// As the spec has them.
pub(crate) fn of_spec(spec: &Spec) -> Option<&ResourceRequirements> {
    spec.resources.as_ref()
}

/// What a pod requests.
pub(crate) fn requests<'a>(spec: &'a PodSpec, having: &Having<'a>) -> Amounts {
    let sum = combined(spec, &|c| Amounts::of(having(c).and_then(|r| r.requests.as_ref())));
    let whole = spec.resources.as_ref().and_then(|r| r.requests.as_ref());
    overridden(sum, whole).plus(Amounts::of(spec.overhead.as_ref()))
}

/// What a pod may use; `None` where one of its containers has no limit and neither has the pod.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PodLimits {
    pub(crate) cpu_millicores: Option<u64>,
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) ephemeral_bytes: Option<u64>,
}

/// What a pod may use.
pub(crate) fn limits<'a>(spec: &'a PodSpec, having: &Having<'a>) -> PodLimits {
    let of = |c: &'a Spec| having(c).and_then(|r| r.limits.as_ref());
    let whole = spec.resources.as_ref().and_then(|r| r.limits.as_ref());
    let overhead = Amounts::of(spec.overhead.as_ref());
    let sum = overridden(combined(spec, &|c| Amounts::of(of(c))), whole).plus(overhead);
    let mut containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let all = |name: &str| {
        let named = |list| read(list, name).is_some_and(|q| !q.is_zero());
        named(whole) || containers.clone().all(|c| named(of(c)))
    };
    let limits = PodLimits {
        cpu_millicores: all("cpu").then_some(sum.cpu_millicores),
        memory_bytes: all("memory").then_some(sum.memory_bytes),
        ephemeral_bytes: None,
    };
    // Unlike the others, this one holds for what is limited at all.
    let limited = containers.any(|c| read(of(c), "ephemeral-storage").is_some());
    PodLimits { ephemeral_bytes: limited.then_some(sum.ephemeral_bytes), ..limits }
}

/// Amounts that the pod itself names replace the sums over its containers.
fn overridden(sum: Amounts, whole: Option<&BTreeMap<String, Wire>>) -> Amounts {
    let named = Amounts::of(whole);
    Amounts {
        cpu_millicores: read(whole, "cpu").map_or(sum.cpu_millicores, |_| named.cpu_millicores),
        memory_bytes: read(whole, "memory").map_or(sum.memory_bytes, |_| named.memory_bytes),
        ephemeral_bytes: sum.ephemeral_bytes,
    }
}

/// All containers together, or the most that is needed before they run; sidecars go on beside both.
fn combined<'a>(spec: &'a PodSpec, of: &dyn Fn(&'a Spec) -> Amounts) -> Amounts {
    let mut total = spec.containers.iter().map(of).fold(Amounts::default(), Amounts::plus);
    let (mut sidecars, mut most) = (Amounts::default(), Amounts::default());
    for container in spec.init_containers.iter().flatten() {
        let mut needed = of(container);
        if is_sidecar(container) {
            total = total.plus(needed);
            sidecars = sidecars.plus(needed);
            needed = sidecars;
        } else {
            needed = needed.plus(sidecars);
        }
        most = most.with(needed, u64::max);
    }
    total.with(most, u64::max)
}

/// What a pod requests, as its spec says.
pub(crate) fn requests_of(pod: &Pod) -> Amounts {
    pod.spec.as_ref().map_or_else(Amounts::default, |spec| requests(spec, &of_spec))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(spec: Value) -> PodSpec {
        serde_json::from_value(spec).unwrap()
    }

    fn container(name: &str, cpu: &str, memory: &str) -> Value {
        let amounts = json!({ "cpu": cpu, "memory": memory });
        json!({ "name": name, "resources": { "requests": amounts, "limits": amounts } })
    }

    #[test]
    fn sums() {
        let side = |cpu: &str| {
            let mut c = container("s", cpu, "8Mi");
            c["restartPolicy"] = "Always".into();
            c
        };
        let a = container("a", "100m", "16Mi");
        let bare = json!({ "name": "b" });
        for (spec, requests_expected, limits_expected) in [
            (json!({ "containers": [a] }), (100, 16), (Some(100), Some(16))),
            (json!({ "containers": [a, bare] }), (100, 16), (None, None)),
            (json!({ "containers": [a, a] }), (200, 32), (Some(200), Some(32))),
            (
                json!({ "containers": [a], "initContainers": [container("i", "1", "4Mi")] }),
                (1000, 16),
                (Some(1000), Some(16)),
            ),
            (
                json!({ "containers": [a], "initContainers": [side("50m"), container("i", "1", "4Mi")] }),
                (1050, 24),
                (Some(1050), Some(24)),
            ),
            (json!({ "containers": [a], "initContainers": [side("50m")] }), (150, 24), (Some(150), Some(24))),
            (json!({ "containers": [a], "overhead": { "cpu": "7m" } }), (107, 16), (Some(107), Some(16))),
            (
                json!({ "containers": [a, bare], "resources": { "limits": { "memory": "64Mi" } } }),
                (100, 16),
                (None, Some(64)),
            ),
            (json!({ "containers": [bare], "resources": { "requests": { "cpu": "2" } } }), (2000, 0), (None, None)),
        ] {
            let spec = pod(spec);
            let (requests, limits) = (requests(&spec, &of_spec), limits(&spec, &of_spec));
            let found = (
                (requests.cpu_millicores, requests.memory_bytes >> 20),
                (limits.cpu_millicores, limits.memory_bytes.map(|b| b >> 20)),
            );
            assert_eq!(found, (requests_expected, limits_expected), "{spec:?}");
        }
    }
}
