//! [`PodInfo`]: everything the plugins need of a pod, worked out once when it enters the queue.

use std::{borrow::Cow, collections::BTreeMap};

use k8s_openapi::api::core::v1::{Container, NodeSelector, Pod, PodSpec, PreferredSchedulingTerm, Toleration};
use podium_api::ObjectKey;

use crate::{
    requests::requests,
    resources::Resources,
    terms::{Labels, PodTerms},
};

/// The scheduler of pods that name none.
pub const DEFAULT_SCHEDULER: &str = "default-scheduler";

/// A port of the node that a pod wants for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The address; `0.0.0.0` is all of them.
    pub ip: String,
    /// The number.
    pub port: i32,
}

impl HostPort {
    /// Whether only one of the two can be had.
    pub fn conflicts(&self, other: &Self) -> bool {
        let any = |ip: &str| ip == "0.0.0.0";
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || any(&self.ip) || any(&other.ip))
    }
}

/// A claim that a pod uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimUse {
    /// The claim's name.
    pub name: String,
    /// It is made for this pod by the controller of ephemeral volumes.
    pub ephemeral: bool,
}

/// A pod that waits for a node (or counts on one).
#[derive(Debug, Clone, Default)]
pub struct PodInfo {
    /// Namespace and name.
    pub key: ObjectKey,
    /// `metadata.uid`.
    pub uid: String,
    /// Its labels.
    pub labels: Labels,
    /// Uid of its controller; empty when it has none.
    pub owner: String,
    /// `spec.schedulerName`; `default-scheduler` when unset.
    pub scheduler_name: String,
    /// `spec.priority`.
    pub priority: i32,
    /// `spec.preemptionPolicy` is `Never`.
    pub never_preempts: bool,
    /// The pod waits for `spec.schedulingGates` to be removed.
    pub gated: bool,
    /// It is being deleted.
    pub terminating: bool,
    /// It is being deleted because the scheduler preempted it.
    pub preempted: bool,
    /// When it started, in seconds since 1970; [`i64::MAX`] when it has not.
    pub started: i64,
    /// `spec.nodeName`; empty when it has none yet.
    pub node_name: String,
    /// `status.nominatedNodeName`; empty when it has none.
    pub nominated_node: String,
    /// What it requests, `pods: 1` included.
    pub requests: Resources,
    /// The same, with a minimum of CPU and memory for containers that request nothing.
    pub nonzero: Resources,
    /// Ports of the node that it wants.
    pub ports: Vec<HostPort>,
    /// `spec.nodeSelector`.
    pub node_selector: BTreeMap<String, String>,
    /// Required node affinity.
    pub required_affinity: Option<NodeSelector>,
    /// Preferred node affinity.
    pub preferred_affinity: Vec<PreferredSchedulingTerm>,
    /// `spec.tolerations`.
    pub tolerations: Vec<Toleration>,
    /// Images of its containers and volumes, with their tags.
    pub images: Vec<String>,
    /// Claims that it uses.
    pub claims: Vec<ClaimUse>,
    /// What it says about other pods.
    pub terms: Option<Box<PodTerms>>,
}

impl PodInfo {
    /// Reads a pod.
    pub fn of(pod: &Pod) -> Self {
        let base = Self::without_spec(pod);
        let Some(spec) = &pod.spec else { return base };
        let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
        let (requests, nonzero) = requests(spec);
        let preferred = affinity.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.clone());
        Self {
            scheduler_name: spec.scheduler_name.clone().unwrap_or_else(|| DEFAULT_SCHEDULER.to_owned()),
            priority: spec.priority.unwrap_or(0),
            never_preempts: spec.preemption_policy.as_deref() == Some("Never"),
            gated: spec.scheduling_gates.as_ref().is_some_and(|g| !g.is_empty()),
            node_name: spec.node_name.clone().unwrap_or_default(),
            requests,
            nonzero,
            ports: host_ports(spec),
            node_selector: spec.node_selector.clone().unwrap_or_default(),
            required_affinity: affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.clone()),
            preferred_affinity: preferred.unwrap_or_default(),
            tolerations: spec.tolerations.clone().unwrap_or_default(),
            images: images(spec),
            claims: claims(&base.key.name, spec),
            terms: PodTerms::of(pod, spec),
            ..base
        }
    }

    fn without_spec(pod: &Pod) -> Self {
        let status = pod.status.as_ref();
        let controller = pod.metadata.owner_references.iter().flatten().find(|o| o.controller == Some(true));
        Self {
            key: ObjectKey::of(&pod.metadata),
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            labels: pod.metadata.labels.clone().unwrap_or_default(),
            owner: controller.map(|o| o.uid.clone()).unwrap_or_default(),
            terminating: pod.metadata.deletion_timestamp.is_some(),
            preempted: is_preempted(pod),
            started: started(pod),
            nominated_node: status.and_then(|s| s.nominated_node_name.clone()).unwrap_or_default(),
            ..Self::default()
        }
    }

    /// The name of the resource behind a bit of [`crate::Unmet::Resources`].
    pub fn resource_name(&self, bit: usize) -> &str {
        match bit {
            0 => "pods",
            1 => "cpu",
            2 => "memory",
            3 => "ephemeral-storage",
            n => self.requests.other.get(n - 4).map_or("", |(name, _)| name),
        }
    }
}

/// Whether a pod is on its way out because the scheduler preempted it.
pub(crate) fn is_preempted(pod: &Pod) -> bool {
    let mut conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
    pod.metadata.deletion_timestamp.is_some()
        && conditions.any(|c| {
            c.type_ == "DisruptionTarget" && c.status == "True" && c.reason.as_deref() == Some("PreemptionByScheduler")
        })
}

/// When a pod started, in seconds since 1970; [`i64::MAX`] when it has not.
pub(crate) fn started(pod: &Pod) -> i64 {
    let time = pod.status.as_ref().and_then(|s| s.start_time.as_ref());
    time.map_or(i64::MAX, |time| time.0.as_second())
}

fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let sidecar = |c: &&Container| c.restart_policy.as_deref() == Some("Always");
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten().filter(sidecar));
    let ports = containers.flat_map(|c| c.ports.iter().flatten());
    let wanted = ports.filter_map(|p| {
        let port = p.host_port.filter(|port| *port > 0)?;
        let ip = p.host_ip.clone().filter(|ip| !ip.is_empty()).unwrap_or_else(|| "0.0.0.0".to_owned());
        Some(HostPort { protocol: p.protocol.clone().unwrap_or_else(|| "TCP".to_owned()), ip, port })
    });
    wanted.collect()
}

/// Init containers and image volumes count, too.
///
/// # Source
/// Kubernetes `plugins/imagelocality/image_locality.go`.
fn images(spec: &PodSpec) -> Vec<String> {
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers).filter_map(|c| c.image.as_deref());
    let volumes = spec.volumes.iter().flatten().filter_map(|v| v.image.as_ref()?.reference.as_deref());
    containers.chain(volumes).map(|image| with_tag(image).into_owned()).collect()
}

/// An image's name as nodes and pods mean it alike: without a tag it is `latest`.
pub(crate) fn with_tag(image: &str) -> Cow<'_, str> {
    let last = image.rsplit('/').next().unwrap_or_default();
    if image.is_empty() || image.starts_with("file://") || last.contains([':', '@']) {
        return Cow::Borrowed(image);
    }
    Cow::Owned(format!("{image}:latest"))
}

fn claims(pod: &str, spec: &PodSpec) -> Vec<ClaimUse> {
    let volumes = spec.volumes.iter().flatten();
    let used = volumes.filter_map(|v| match (&v.persistent_volume_claim, &v.ephemeral) {
        (Some(claim), _) => Some(ClaimUse { name: claim.claim_name.clone(), ephemeral: false }),
        (None, Some(_)) => Some(ClaimUse { name: format!("{pod}-{}", v.name), ephemeral: true }),
        (None, None) => None,
    });
    used.collect()
}
