//! Requests and limits: what the sandbox enforces, the class of service, and what `resourceFieldRef` shows.
//!
//! # Source
//! Kubernetes `pkg/apis/core/v1/helper/qos/qos.go` and `pkg/api/v1/resource/helpers.go`.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Container as Spec, PodSpec, ResourceFieldSelector, ResourceRequirements},
    apimachinery::pkg::api::resource::Quantity as Wire,
};
use podium_api::quantity::Quantity;
use podium_sandbox::{CpuLimit, GroupLimits, Limits};

use super::{
    amounts::{self, Having},
    instances,
};

/// What a container gets that its spec does not name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NodeResources {
    /// Allocatable thousandths of a core.
    pub(crate) cpu_millicores: u64,
    /// Allocatable memory.
    pub(crate) memory_bytes: u64,
    /// Allocatable bytes of disk for logs and volumes.
    pub(crate) ephemeral_bytes: u64,
    /// Memory of a container without `limits.memory`.
    pub(crate) memory_default_bytes: u64,
}

fn amount(list: Option<&BTreeMap<String, Wire>>, name: &str) -> Option<Quantity> {
    list?.get(name).and_then(|wire| Quantity::try_from(wire).ok())
}

fn limit(spec: &Spec, name: &str) -> Option<Quantity> {
    amount(spec.resources.as_ref()?.limits.as_ref(), name)
}

/// A request that is not named equals the limit.
fn request(spec: &Spec, name: &str) -> Option<Quantity> {
    amount(spec.resources.as_ref()?.requests.as_ref(), name).or_else(|| limit(spec, name))
}

/// What the sandbox is to enforce. Requests of CPU become the weight: at least 2, as in Kubernetes.
pub(crate) fn limits(spec: &Spec, annotations: Option<&BTreeMap<String, String>>, node: &NodeResources) -> Limits {
    let millicores = |q: Quantity| u32::try_from(q.millicores().0).unwrap_or(u32::MAX);
    let memory_default = node.memory_default_bytes.min(node.memory_bytes.max(1));
    let limits = Limits {
        memory_bytes_max: limit(spec, "memory").map(|q| q.bytes()).filter(|b| *b > 0).unwrap_or(memory_default),
        cpu: CpuLimit {
            quota_millicores: limit(spec, "cpu").map(millicores).filter(|m| *m > 0),
            weight_millicores: request(spec, "cpu").map_or(2, millicores).max(2),
        },
        ..Limits::default()
    };
    instances::apply(limits, annotations)
}

/// What the containers of a pod may use together: its own limits, or the sum of its containers' where each has one. The
/// weight is what all of them request.
///
/// # Source
/// Kubernetes `pkg/kubelet/cm/helpers_linux.go`, `ResourceConfigForPod`.
pub(crate) fn group_limits<'a>(spec: &'a PodSpec, having: &Having<'a>, node: &NodeResources) -> GroupLimits {
    let limits = amounts::limits(spec, having);
    let millicores = |amount: u64| u32::try_from(amount).unwrap_or(u32::MAX);
    GroupLimits {
        memory_bytes_max: limits.memory_bytes.filter(|b| *b > 0).unwrap_or(node.memory_bytes.max(1)),
        cpu: CpuLimit {
            quota_millicores: limits.cpu_millicores.map(millicores).filter(|m| *m > 0),
            weight_millicores: millicores(amounts::requests(spec, having).cpu_millicores).max(2),
        },
    }
}

/// `Guaranteed`, `Burstable` or `BestEffort`. What a pod itself names counts instead of what its containers do.
pub(crate) fn qos_class(spec: &PodSpec) -> &'static str {
    let of_pod = spec.resources.as_ref().filter(|r| r.requests.is_some() || r.limits.is_some());
    let of_containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let all: Vec<_> = match of_pod {
        Some(resources) => vec![Some(resources)],
        None => of_containers.map(|c| c.resources.as_ref()).collect(),
    };
    let names = ["cpu", "memory"];
    let set = |q: Option<Quantity>| q.filter(|q| !q.is_zero());
    let limit = |r: &Option<&ResourceRequirements>, name| set(amount(r.and_then(|r| r.limits.as_ref()), name));
    let request = |r: &Option<&ResourceRequirements>, name| {
        set(amount(r.and_then(|r| r.requests.as_ref()), name)).or_else(|| limit(r, name))
    };
    let any = all.iter().any(|r| names.iter().any(|n| request(r, n).is_some()));
    let full = |r| names.iter().all(|n| limit(r, n).is_some() && request(r, n) == limit(r, n));
    match any {
        false => "BestEffort",
        true if all.iter().all(full) => "Guaranteed",
        true => "Burstable",
    }
}

/// The value of a `resourceFieldRef`: rounded up to whole divisors. A limit that is not set is what the node has.
pub(crate) fn field(spec: &Spec, selector: &ResourceFieldSelector, node: &NodeResources) -> Result<String, String> {
    let (kind, name) = selector.resource.split_once('.').unwrap_or_default();
    let nanos = |q: Quantity| if name == "cpu" { q.milli() } else { q.value().saturating_mul(1000) };
    let whole_node = match name {
        "cpu" => i64::try_from(node.cpu_millicores).unwrap_or(i64::MAX),
        "memory" => i64::try_from(node.memory_bytes).unwrap_or(i64::MAX).saturating_mul(1000),
        _ => 0,
    };
    let milli = match (kind, name) {
        ("limits", "cpu" | "memory" | "ephemeral-storage") => limit(spec, name).map_or(whole_node, nanos),
        ("requests", "cpu" | "memory" | "ephemeral-storage") => request(spec, name).map_or(0, nanos),
        _ => return Err(format!("unsupported container resource: {}", selector.resource)),
    };
    let divisor = selector.divisor.as_ref().and_then(|d| Quantity::try_from(d).ok()).filter(|d| !d.is_zero());
    let divisor = divisor.map_or(1000, |d| d.milli()).max(1);
    let whole = milli / divisor + i64::from(milli % divisor != 0);
    Ok(whole.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(resources: serde_json::Value) -> Spec {
        serde_json::from_value(json!({ "name": "app", "resources": resources })).unwrap()
    }

    const NODE: NodeResources = NodeResources {
        cpu_millicores: 2000,
        memory_bytes: 4 << 30,
        ephemeral_bytes: 0,
        memory_default_bytes: 1 << 30,
    };

    #[test]
    fn limits_and_requests_become_what_the_sandbox_enforces() {
        for (resources, memory, quota, weight) in [
            (json!({}), 1 << 30, None, 2),
            (json!({ "limits": { "memory": "64Mi", "cpu": "250m" } }), 64 << 20, Some(250), 250),
            (json!({ "requests": { "cpu": "1" }, "limits": { "cpu": "2" } }), 1 << 30, Some(2000), 1000),
            (json!({ "requests": { "memory": "8Mi" } }), 1 << 30, None, 2),
        ] {
            let limits = limits(&spec(resources.clone()), None, &NODE);
            let found = (limits.memory_bytes_max, limits.cpu.quota_millicores, limits.cpu.weight_millicores);
            assert_eq!(found, (memory, quota, weight), "{resources}");
        }
    }

    #[test]
    fn classes_of_service() {
        let pod = |resources: &[serde_json::Value]| PodSpec {
            containers: resources.iter().cloned().map(spec).collect(),
            ..PodSpec::default()
        };
        let full = json!({ "limits": { "memory": "64Mi", "cpu": "250m" } });
        for (resources, class) in [
            (vec![json!({})], "BestEffort"),
            (vec![full.clone()], "Guaranteed"),
            (vec![full, json!({})], "Burstable"),
            (vec![json!({ "requests": { "cpu": "1m" } })], "Burstable"),
            (vec![json!({ "requests": { "cpu": "1" }, "limits": { "cpu": "2", "memory": "1Gi" } })], "Burstable"),
        ] {
            assert_eq!(qos_class(&pod(&resources)), class, "{resources:?}");
        }
    }

    #[test]
    fn resource_fields_are_rounded_up_to_divisors() {
        let spec = spec(json!({ "limits": { "memory": "65Mi" }, "requests": { "cpu": "250m" } }));
        for (resource, divisor, expected) in [
            ("limits.memory", None, Ok("68157440")),
            ("limits.memory", Some("1Mi"), Ok("65")),
            ("limits.memory", Some("1Gi"), Ok("1")),
            ("requests.cpu", None, Ok("1")),
            ("requests.cpu", Some("1m"), Ok("250")),
            ("limits.cpu", None, Ok("2")),
            ("requests.memory", None, Ok("68157440")),
            ("limits.gpu", None, Err("unsupported container resource: limits.gpu")),
        ] {
            let divisor = divisor.map(|d: &str| Wire(d.to_owned()));
            let selector = ResourceFieldSelector { resource: resource.to_owned(), divisor, container_name: None };
            let found = field(&spec, &selector, &NODE);
            assert_eq!(found.as_deref().map_err(String::as_str), expected, "{resource}");
        }
    }
}
