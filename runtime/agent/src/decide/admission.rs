//! Whether a node takes a pod that is bound to it: kubelet's own look, after the scheduler's. Pure.
//!
//! # Source
//! Kubernetes `pkg/kubelet/lifecycle/predicate.go`, `pkg/kubelet/eviction/eviction_manager.go` (`Admit`),
//! `pkg/kubelet/sysctl/allowlist.go`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Container, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Taint, Toleration,
};

use super::{amounts::Amounts, resources::qos_class};

/// Why a pod is not taken: it has failed before it ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rejection {
    /// As `status.reason` and the event have it.
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// The node, as far as it matters here.
pub(crate) struct Host<'a> {
    pub(crate) name: &'a str,
    pub(crate) labels: &'a BTreeMap<String, String>,
    pub(crate) taints: &'a [Taint],
    pub(crate) allocatable: Amounts,
    pub(crate) pods_max: u32,
    /// What the pods that were taken already request.
    pub(crate) used: Amounts,
    /// How many these are.
    pub(crate) pods: usize,
    /// The ports of the node that these have.
    pub(crate) ports: &'a [HostPort],
    pub(crate) memory_pressure: bool,
    pub(crate) disk_pressure: bool,
}

/// A port of the node that a container asks for (`hostPort`). Nothing listens there, but no two pods get the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostPort {
    address: String,
    protocol: String,
    port: i32,
}

impl HostPort {
    /// # Source
    /// Kubernetes `staging/src/k8s.io/kube-scheduler/framework/types.go`, `HostPortInfo.CheckConflict`.
    fn conflicts(&self, other: &Self) -> bool {
        let anywhere = |address: &str| address == "0.0.0.0";
        let same_address = self.address == other.address || anywhere(&self.address) || anywhere(&other.address);
        same_address && self.protocol == other.protocol && self.port == other.port
    }
}

/// The ports of the node that a pod asks for.
pub(crate) fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let text = |value: &Option<String>, default: &str| {
        value.as_deref().filter(|text| !text.is_empty()).unwrap_or(default).to_owned()
    };
    let sidecar = |c: &&Container| c.restart_policy.as_deref() == Some("Always");
    let spec = pod.spec.iter();
    let containers = spec.flat_map(|s| s.containers.iter().chain(s.init_containers.iter().flatten().filter(sidecar)));
    let ports = containers.flat_map(|c| c.ports.iter().flatten());
    let asked = ports.filter_map(|p| Some((p, p.host_port.filter(|port| *port > 0)?)));
    asked
        .map(|(p, port)| HostPort { address: text(&p.host_ip, "0.0.0.0"), protocol: text(&p.protocol, "TCP"), port })
        .collect()
}

/// Annotation of a pod that comes from a file: where it comes from.
pub(crate) const SOURCE: &str = "kubernetes.io/config.source";
const OS: &str = "linux";
const CRITICAL: i32 = 2_000_000_000;

/// Whether a pod comes from a file.
pub(crate) fn is_static(pod: &Pod) -> bool {
    pod.metadata.annotations.as_ref().and_then(|a| a.get(SOURCE)).is_some_and(|source| source != "api")
}

/// Whether a pod is never evicted: static and mirror pods, and those of the two highest priority classes.
///
/// # Source
/// Kubernetes `pkg/kubelet/types/pod_update.go`, `IsCriticalPod`.
pub(crate) fn is_critical(pod: &Pod) -> bool {
    is_static(pod) || pod.spec.as_ref().and_then(|s| s.priority).is_some_and(|priority| priority >= CRITICAL)
}

/// Decides. `requests`: what the pod requests. The first thing in the way is told.
pub(crate) fn admit(pod: &Pod, requests: Amounts, host: &Host<'_>) -> Result<(), Rejection> {
    let Some(spec) = &pod.spec else { return Ok(()) };
    pressure(pod, spec, host)?;
    sysctls(spec)?;
    system(pod, spec)?;
    room(requests, host)?;
    placed(pod, spec, host)
}

fn no(reason: &'static str, message: impl Into<String>) -> Result<(), Rejection> {
    Err(Rejection { reason, message: message.into() })
}

fn pressure(pod: &Pod, spec: &PodSpec, host: &Host<'_>) -> Result<(), Rejection> {
    if is_critical(pod) || !(host.memory_pressure || host.disk_pressure) {
        return Ok(());
    }
    if host.memory_pressure && !host.disk_pressure {
        let taint = Taint {
            key: "node.kubernetes.io/memory-pressure".to_owned(),
            effect: "NoSchedule".to_owned(),
            ..Taint::default()
        };
        if qos_class(spec) != "BestEffort" || tolerated(spec.tolerations.as_deref(), &taint) {
            return Ok(());
        }
    }
    let all = [(host.memory_pressure, "MemoryPressure"), (host.disk_pressure, "DiskPressure")];
    let names: Vec<_> = all.iter().filter(|(is, _)| *is).map(|(_, name)| *name).collect();
    no("Evicted", format!("The node had condition: [{}]. ", names.join(" ")))
}

/// Those that mean something to one pod alone; they mean nothing here.
const SAFE_SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

fn sysctls(spec: &PodSpec) -> Result<(), Rejection> {
    let all = spec.security_context.iter().flat_map(|c| c.sysctls.iter().flatten());
    let forbidden = all.map(|s| s.name.replace('/', ".")).find(|name| !SAFE_SYSCTLS.contains(&name.as_str()));
    match forbidden {
        Some(name) => no("SysctlForbidden", format!("forbidden sysctl: {name:?} not allowlisted")),
        None => Ok(()),
    }
}

fn system(pod: &Pod, spec: &PodSpec) -> Result<(), Rejection> {
    let label = pod.metadata.labels.as_ref().and_then(|l| l.get("kubernetes.io/os"));
    if label.is_some_and(|os| os != OS) {
        let words = "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label";
        return no("PodOSSelectorNodeLabelDoesNotMatch", words);
    }
    if spec.os.as_ref().is_some_and(|os| os.name != OS) {
        return no("PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS");
    }
    let strict = spec.security_context.as_ref().and_then(|c| c.supplemental_groups_policy.as_deref());
    if strict == Some("Strict") {
        let words = "SupplementalGroupsPolicy=Strict is not supported in this node";
        return no("SupplementalGroupsPolicyNotSupported", words);
    }
    Ok(())
}

fn room(requests: Amounts, host: &Host<'_>) -> Result<(), Rejection> {
    let (all, used) = (host.allocatable, host.used);
    let pods = (1, host.pods as u64, u64::from(host.pods_max));
    let rows = [
        ("OutOfpods", "pods", pods),
        ("OutOfcpu", "cpu", (requests.cpu_millicores, used.cpu_millicores, all.cpu_millicores)),
        ("OutOfmemory", "memory", (requests.memory_bytes, used.memory_bytes, all.memory_bytes)),
        (
            "OutOfephemeral-storage",
            "ephemeral-storage",
            (requests.ephemeral_bytes, used.ephemeral_bytes, all.ephemeral_bytes),
        ),
    ];
    for (reason, name, (requested, used, capacity)) in rows {
        if requested > 0 && requested > capacity.saturating_sub(used) {
            return no(reason, short_of(name, requested, used, capacity));
        }
    }
    Ok(())
}

/// Kubelet's words for what does not fit.
pub(crate) fn short_of(name: &str, requested: u64, used: u64, capacity: u64) -> String {
    format!("Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}")
}

fn placed(pod: &Pod, spec: &PodSpec, host: &Host<'_>) -> Result<(), Rejection> {
    if !affinity_matches(spec, host) {
        let words = "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
        return no("NodeAffinity", words);
    }
    if spec.node_name.as_deref().is_some_and(|name| !name.is_empty() && name != host.name) {
        return no("NodeName", "Predicate NodeName failed: node(s) didn't match the requested node name");
    }
    if host_ports(pod).iter().any(|port| host.ports.iter().any(|taken| port.conflicts(taken))) {
        let words = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
        return no("NodePorts", words);
    }
    let tolerations = spec.tolerations.as_deref();
    let untolerated = host.taints.iter().any(|t| t.effect == "NoExecute" && !tolerated(tolerations, t));
    if untolerated && !is_static(pod) {
        let words = "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate";
        return no("TaintToleration", words);
    }
    Ok(())
}

/// # Source
/// Kubernetes `staging/src/k8s.io/api/core/v1/toleration.go`, `ToleratesTaint`.
fn tolerated(tolerations: Option<&[Toleration]>, taint: &Taint) -> bool {
    let covers = |wanted: Option<&str>, actual: &str| wanted.is_none_or(|w| w.is_empty() || w == actual);
    tolerations.unwrap_or_default().iter().any(|t| {
        let value_matches = match t.operator.as_deref() {
            None | Some("" | "Equal") => {
                t.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default()
            }
            Some("Exists") => true,
            Some(_) => false,
        };
        covers(t.effect.as_deref(), &taint.effect) && covers(t.key.as_deref(), &taint.key) && value_matches
    })
}

fn affinity_matches(spec: &PodSpec, host: &Host<'_>) -> bool {
    let labels = spec.node_selector.iter().flatten().all(|(k, v)| host.labels.get(k) == Some(v));
    let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
    let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    labels && required.is_none_or(|r| r.node_selector_terms.iter().any(|term| term_matches(term, host)))
}

/// A term without requirements matches nothing. `matchFields` knows `metadata.name` only, as in Kubernetes.
fn term_matches(term: &NodeSelectorTerm, host: &Host<'_>) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let name = |r: &NodeSelectorRequirement| (r.key == "metadata.name").then_some(host.name);
    !(expressions.is_empty() && fields.is_empty())
        && expressions.iter().all(|r| requirement_matches(r, host.labels.get(&r.key).map(String::as_str)))
        && fields.iter().all(|r| requirement_matches(r, name(r)))
}

fn requirement_matches(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = || value.is_some_and(|v| values.iter().any(|w| w == v));
    let compared = |holds: fn(i64, i64) -> bool| {
        let actual = value.and_then(|v| v.parse().ok());
        let bound = values.first().and_then(|v| v.parse().ok());
        actual.zip(bound).is_some_and(|(a, b)| holds(a, b))
    };
    match requirement.operator.as_str() {
        "In" => listed(),
        "NotIn" => !listed(),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compared(|a, b| a > b),
        "Lt" => compared(|a, b| a < b),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{super::amounts::requests_of, *};

    fn told(pod: Value, pressure: (bool, bool)) -> String {
        let labels = BTreeMap::from([("disk".to_owned(), "ssd".to_owned())]);
        let taint = Taint { key: "gone".to_owned(), effect: "NoExecute".to_owned(), ..Taint::default() };
        let host = Host {
            name: "n1",
            labels: &labels,
            taints: &[taint],
            allocatable: Amounts { cpu_millicores: 1000, memory_bytes: 1 << 30, ephemeral_bytes: 1 << 20 },
            pods_max: 3,
            used: Amounts { cpu_millicores: 900, memory_bytes: 0, ephemeral_bytes: 0 },
            pods: 2,
            ports: &[HostPort { address: "10.0.0.1".to_owned(), protocol: "TCP".to_owned(), port: 80 }],
            memory_pressure: pressure.0,
            disk_pressure: pressure.1,
        };
        let mut pod = pod;
        pod["spec"]["containers"][0]["name"] = "c".into();
        if pod["spec"]["tolerations"].is_null() {
            pod["spec"]["tolerations"] = json!([{ "key": "gone", "operator": "Exists" }]);
        }
        let pod: Pod = serde_json::from_value(pod).unwrap();
        match admit(&pod, requests_of(&pod), &host) {
            Ok(()) => "taken".to_owned(),
            Err(Rejection { reason, message }) => format!("{reason}: {message}"),
        }
    }

    fn spec(spec: Value) -> Value {
        let mut spec = spec;
        if spec["containers"].is_null() {
            spec["containers"] = json!([{}]);
        }
        json!({ "spec": spec })
    }

    fn asking(name: &str, amount: &str) -> Value {
        spec(json!({ "containers": [{ "resources": { "requests": { name: amount } } }] }))
    }

    #[test]
    fn what_is_taken_and_what_is_not() {
        let affinity = |key: &str| {
            let term = json!({ "matchExpressions": [{ "key": key, "operator": "Exists" }] });
            let required = json!({ "nodeSelectorTerms": [term] });
            json!({ "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": required } })
        };
        let port = |port: Value| spec(json!({ "containers": [{ "ports": [port] }] }));
        let sysctl = |name: &str| json!({ "securityContext": { "sysctls": [{ "name": name, "value": "1" }] } });
        for (pod, expected) in [
            (spec(json!({})), "taken"),
            (asking("cpu", "100m"), "taken"),
            (
                asking("cpu", "101m"),
                "OutOfcpu: Node didn't have enough resource: cpu, requested: 101, used: 900, capacity: 1000",
            ),
            (
                asking("memory", "2Gi"),
                "OutOfmemory: Node didn't have enough resource: memory, requested: 2147483648, used: 0, capacity: 1073741824",
            ),
            (
                asking("ephemeral-storage", "2Mi"),
                "OutOfephemeral-storage: Node didn't have enough resource: ephemeral-storage, requested: 2097152, used: 0, \
                 capacity: 1048576",
            ),
            (spec(json!({ "os": { "name": "linux" } })), "taken"),
            (
                spec(json!({ "os": { "name": "windows" } })),
                "PodOSNotSupported: Failed to admit pod as the OS field doesn't match node OS",
            ),
            (spec(json!({ "nodeSelector": { "disk": "ssd" } })), "taken"),
            (
                spec(json!({ "nodeSelector": { "disk": "hdd" } })),
                "NodeAffinity: Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector",
            ),
            (spec(json!({ "affinity": affinity("disk") })), "taken"),
            (
                spec(json!({ "affinity": affinity("gpu") })),
                "NodeAffinity: Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector",
            ),
            (
                spec(json!({ "nodeName": "n2" })),
                "NodeName: Predicate NodeName failed: node(s) didn't match the requested node name",
            ),
            (port(json!({ "containerPort": 80 })), "taken"),
            (port(json!({ "containerPort": 80, "hostPort": 81 })), "taken"),
            (port(json!({ "containerPort": 80, "hostPort": 80, "protocol": "UDP" })), "taken"),
            (port(json!({ "containerPort": 80, "hostPort": 80, "hostIP": "10.0.0.2" })), "taken"),
            (
                port(json!({ "containerPort": 8080, "hostPort": 80 })),
                "NodePorts: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports",
            ),
            (
                spec(json!({ "tolerations": [] })),
                "TaintToleration: Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate",
            ),
            (
                json!({ "metadata": { "annotations": { SOURCE: "file" } }, "spec": { "tolerations": [], "containers": [{}] } }),
                "taken",
            ),
            (spec(sysctl("net.ipv4.tcp_syncookies")), "taken"),
            (spec(sysctl("kernel/msgmax")), "SysctlForbidden: forbidden sysctl: \"kernel.msgmax\" not allowlisted"),
        ] {
            assert_eq!(told(pod.clone(), (false, false)), expected, "{pod}");
        }
    }

    #[test]
    fn a_node_that_is_short_takes_less() {
        let best = || spec(json!({}));
        let critical = || spec(json!({ "priority": CRITICAL }));
        for (pod, pressure, expected) in [
            (best(), (true, false), "Evicted: The node had condition: [MemoryPressure]. "),
            (asking("cpu", "10m"), (true, false), "taken"),
            (critical(), (true, true), "taken"),
            (asking("cpu", "10m"), (false, true), "Evicted: The node had condition: [DiskPressure]. "),
            (best(), (true, true), "Evicted: The node had condition: [MemoryPressure DiskPressure]. "),
        ] {
            assert_eq!(told(pod.clone(), pressure), expected, "{pod}");
        }
    }
}
