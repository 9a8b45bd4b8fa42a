//! What the scheduler must keep to: a node is never promised more than it has, nobody is sent where a taint that has been there for
//! a while keeps them off, and whoever is ended to make room was less important than a pod that waited then, or a short time
//! before.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use podium_api::k8s_openapi::api::core::v1::{Node, Pod, Taint};
use tokio::time::Instant;

use super::LATE_SECONDS;
use crate::objects::NODE_CORES;

const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// All pods, as the scheduler should see them.
#[derive(Default)]
pub(super) struct Placement {
    pods: BTreeMap<String, Placed>,
    /// What keeps pods off a node, and since when.
    taints: BTreeMap<String, Vec<(Taint, Instant)>>,
    /// Priorities of pods that waited until then.
    waited: VecDeque<(Instant, i32)>,
}

struct Placed {
    node: String,
    cores: u32,
    priority: i32,
}

impl Placement {
    pub(super) fn node(&mut self, node: &Node, gone: bool) {
        let known = self.taints.entry(node.metadata.name.clone().unwrap_or_default()).or_default();
        let mut now: Vec<Taint> = Vec::new();
        if let Some(spec) = node.spec.as_ref().filter(|_| !gone) {
            now.extend(spec.taints.iter().flatten().filter(|taint| taint.effect != "PreferNoSchedule").cloned());
            if spec.unschedulable == Some(true) {
                now.push(Taint { key: UNSCHEDULABLE.to_owned(), effect: "NoSchedule".to_owned(), ..Taint::default() });
            }
        }
        let same = |a: &Taint, b: &Taint| (&a.key, &a.effect, &a.value) == (&b.key, &b.effect, &b.value);
        known.retain(|(taint, _)| now.iter().any(|other| same(taint, other)));
        for taint in now {
            if !known.iter().any(|(other, _)| same(&taint, other)) {
                known.push((taint, Instant::now()));
            }
        }
    }

    /// # Errors
    /// Something that the scheduler must know of keeps the pod off its node.
    fn may_be_on(&self, pod: &Pod, node: &str) -> Result<(), String> {
        let late = Duration::from_secs(LATE_SECONDS);
        let mut known = self.taints.get(node).into_iter().flatten().filter(|(_, since)| since.elapsed() > late);
        match known.find(|(taint, _)| !tolerates(pod, taint)) {
            Some((taint, _)) => {
                let name = pod.metadata.name.as_deref().unwrap_or_default();
                Err(format!("pod {name} is put on {node}, which has the taint {}:{}", taint.key, taint.effect))
            }
            None => Ok(()),
        }
    }

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
        if came {
            self.may_be_on(pod, &node)?;
        }
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

fn tolerates(pod: &Pod, taint: &Taint) -> bool {
    let covers = |wanted: Option<&String>, actual: &str| wanted.is_none_or(|w| w.is_empty() || w == actual);
    let mut tolerations = pod.spec.iter().flat_map(|s| s.tolerations.iter().flatten());
    tolerations.any(|t| {
        covers(t.key.as_ref(), &taint.key)
            && covers(t.effect.as_ref(), &taint.effect)
            && (t.operator.as_deref() == Some("Exists") || t.value == taint.value)
    })
}
