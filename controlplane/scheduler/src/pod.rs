//! [`PodInfo`]: everything the plugins need of a pod, worked out once when it enters the queue.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Container, NodeSelector, Pod, PodSpec, Toleration},
    apimachinery::pkg::api::resource::Quantity,
};
use podium_api::ObjectKey;

use crate::resources::Resources;

/// CPU that a container without a request is taken to need when nodes are scored, in millicores.
const NONZERO_MILLICORES: i64 = 100;
/// Memory that a container without a request is taken to need when nodes are scored, in bytes.
const NONZERO_MEMORY_BYTES: i64 = 200 * 1024 * 1024;

/// A pod that waits for a node (or counts on one).
#[derive(Debug, Clone, Default)]
pub struct PodInfo {
    /// Namespace and name.
    pub key: ObjectKey,
    /// `metadata.uid`.
    pub uid: String,
    /// `spec.schedulerName`; `default-scheduler` when unset.
    pub scheduler_name: String,
    /// `spec.priority`.
    pub priority: i32,
    /// `spec.preemptionPolicy` is `Never`.
    pub never_preempts: bool,
    /// The pod waits for `spec.schedulingGates` to be removed.
    pub gated: bool,
    /// `spec.nodeName`; empty when it has none yet.
    pub node_name: String,
    /// What it requests, `pods: 1` included.
    pub requests: Resources,
    /// The same, with a minimum of CPU and memory for containers that request nothing.
    pub nonzero: Resources,
    /// `spec.nodeSelector`.
    pub node_selector: BTreeMap<String, String>,
    /// Required node affinity.
    pub required_affinity: Option<NodeSelector>,
    /// `spec.tolerations`.
    pub tolerations: Vec<Toleration>,
    /// Images of its containers.
    pub images: Vec<String>,
}

impl PodInfo {
    /// Reads a pod.
    pub fn of(pod: &Pod) -> Self {
        let base = Self {
            key: ObjectKey::of(&pod.metadata),
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            ..Self::default()
        };
        let Some(spec) = &pod.spec else { return base };
        let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
        Self {
            scheduler_name: spec.scheduler_name.clone().unwrap_or_else(|| "default-scheduler".to_owned()),
            priority: spec.priority.unwrap_or(0),
            never_preempts: spec.preemption_policy.as_deref() == Some("Never"),
            gated: spec.scheduling_gates.as_ref().is_some_and(|g| !g.is_empty()),
            node_name: spec.node_name.clone().unwrap_or_default(),
            requests: requests(spec, |_| (0, 0)),
            nonzero: requests(spec, missing),
            node_selector: spec.node_selector.clone().unwrap_or_default(),
            required_affinity: affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.clone()),
            tolerations: spec.tolerations.clone().unwrap_or_default(),
            images: spec.containers.iter().filter_map(|c| c.image.clone()).collect(),
            ..base
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

/// Millicores and bytes to add for what a container does not request.
fn missing(container: &Container) -> (i64, i64) {
    let requested = container.resources.as_ref().and_then(|r| r.requests.as_ref());
    let lacks = |name: &str| !requested.is_some_and(|r| r.contains_key(name));
    (if lacks("cpu") { NONZERO_MILLICORES } else { 0 }, if lacks("memory") { NONZERO_MEMORY_BYTES } else { 0 })
}

/// The sum of the containers or the largest init container, whichever is more, plus the overhead. Init containers that
/// keep running (`restartPolicy: Always`) count as containers, and are there while later init containers run.
///
/// # Source
/// Kubernetes `staging/src/k8s.io/component-helpers/resource/helpers.go`, `PodRequests`.
fn requests(spec: &PodSpec, missing: fn(&Container) -> (i64, i64)) -> Resources {
    let one = |container: &Container| {
        let mut sum =
            container.resources.as_ref().and_then(|r| r.requests.as_ref()).map(Resources::of).unwrap_or_default();
        let (millicores, bytes) = missing(container);
        sum.millicores += millicores;
        sum.memory_bytes += bytes;
        sum
    };
    let mut total = Resources::default();
    for container in &spec.containers {
        total.add(&one(container));
    }
    let (mut sidecars, mut largest) = (Resources::default(), Resources::default());
    for container in spec.init_containers.iter().flatten() {
        let mut needed = one(container);
        if container.restart_policy.as_deref() == Some("Always") {
            total.add(&needed);
            sidecars.add(&needed);
            needed = sidecars.clone();
        } else {
            needed.add(&sidecars);
        }
        largest.raise_to(&needed);
    }
    total.raise_to(&largest);
    let none = BTreeMap::<String, Quantity>::new();
    total.add(&Resources::of(spec.overhead.as_ref().unwrap_or(&none)));
    total.pods = 1;
    total
}
