//! What the scheduler must keep to: a node is never promised more than it has, and whoever is ended to make room was less
//! important than a pod that waited then, or a short time before.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use podium_api::k8s_openapi::api::core::v1::Pod;
use tokio::time::Instant;

use super::LATE_SECONDS;
use crate::objects::NODE_CORES;

/// All pods, as the scheduler should see them.
#[derive(Default)]
pub(super) struct Placement {
    pods: BTreeMap<String, Placed>,
    /// Priorities of pods that waited until then.
    waited: VecDeque<(Instant, i32)>,
}

struct Placed {
    node: String,
    cores: u32,
    priority: i32,
}

impl Placement {
    /// # Errors
    /// What does not hold.
    pub(super) fn pod(&mut self, pod: &Pod, old: Option<&Pod>, gone: bool) -> Result<(), String> {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default();
        let before = self.pods.remove(&uid);
        if let Some(waiting) = before.as_ref().filter(|b| b.node.is_empty()) {
            self.waited.push_back((Instant::now(), waiting.priority));
        }
        if gone || matches!(phase, "Succeeded" | "Failed") {
            return Ok(());
        }
        let placed = Placed::of(pod);
        let (node, priority) = (placed.node.clone(), placed.priority);
        let came = !node.is_empty() && before.is_none_or(|before| before.node != node);
        self.pods.insert(uid, placed);
        let on_node = self.pods.values().filter(|p| p.node == node);
        let cores: u32 = on_node.map(|p| p.cores).sum();
        // Pods of DaemonSets have their nodes, too, from the scheduler.
        if came && cores > NODE_CORES {
            return Err(format!("pod {name} makes it {cores} cores on {node}, which has {NODE_CORES}"));
        }
        if is_preempted(pod) && !old.is_some_and(is_preempted) && !self.someone_above(priority) {
            return Err(format!("pod {name} of priority {priority} was preempted for nobody of a higher one"));
        }
        Ok(())
    }

    fn someone_above(&mut self, priority: i32) -> bool {
        let late = Duration::from_secs(LATE_SECONDS);
        self.waited.retain(|(at, _)| at.elapsed() <= late);
        let waits = self.pods.values().any(|p| p.node.is_empty() && p.priority > priority);
        waits || self.waited.iter().any(|(_, waited)| *waited > priority)
    }
}

impl Placed {
    fn of(pod: &Pod) -> Self {
        let Some(spec) = &pod.spec else { return Self { node: String::new(), cores: 0, priority: 0 } };
        let requests = spec.containers.iter().filter_map(|c| c.resources.as_ref()?.requests.as_ref()?.get("cpu"));
        Self {
            node: spec.node_name.clone().unwrap_or_default(),
            cores: requests.filter_map(|q| q.0.parse::<u32>().ok()).sum(),
            priority: spec.priority.unwrap_or(0),
        }
    }
}

pub(super) fn is_preempted(pod: &Pod) -> bool {
    let mut conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.any(|c| c.type_ == "DisruptionTarget" && c.reason.as_deref() == Some("PreemptionByScheduler"))
}
