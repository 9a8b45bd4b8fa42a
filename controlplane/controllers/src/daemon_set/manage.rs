//! Which nodes lack a pod and which pods are too many.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use super::{
    Work,
    nodes::{FAILURES, Placement},
    rollout::is_new,
};
use crate::{
    EventNote,
    pods::{is_ready, node_name, phase},
};

/// The longest pause before a failed pod is replaced, in seconds.
const PAUSE_SECONDS_MAX: i64 = 900;
/// A pod that lived for so long did not fail at once: what failed before is forgotten.
const FORGET_SECONDS: i64 = 2 * PAUSE_SECONDS_MAX;

impl Work<'_> {
    /// Makes the pods that are missing and deletes those that failed, are too many, or may not run where they are.
    pub(super) fn manage(&mut self) {
        for (node, placement) in self.nodes.clone() {
            self.manage_node(&node, placement);
        }
        // Nobody else removes a pod that waits for a node that is gone.
        let of_no_node =
            self.pods.iter().filter(|(node, _)| !self.nodes.contains_key(*node)).flat_map(|(_, pods)| pods);
        let unbound: Vec<_> = of_no_node.filter(|pod| node_name(pod).is_empty() && !is_going(pod)).cloned().collect();
        self.todo.deletes.extend(unbound);
    }

    fn manage_node(&mut self, node: &str, placement: Placement) {
        let pods = self.pods_on(node).to_vec();
        if !placement.keeps {
            self.todo.deletes.extend(pods.into_iter().filter(|pod| !is_going(pod)));
            return;
        }
        if pods.is_empty() {
            if placement.runs {
                self.todo.creates.push((node.to_owned(), 0));
            }
            return;
        }
        let running = self.sort_out_finished(node, &pods, placement);
        if !self.surges() {
            self.todo.deletes.extend(running.into_iter().skip(1));
        } else if running.is_empty() {
            let planned = self.todo.creates.iter().any(|(n, _)| n == node);
            let failing = pods.iter().any(|pod| !is_going(pod));
            if placement.runs && !planned && !failing {
                // With surge a node need not wait for the old pod to be gone.
                self.todo.creates.push((node.to_owned(), 0));
            }
        } else {
            self.prune(&running);
        }
    }

    /// Deletes what has ended, and replaces it when its time has come; answers with what has not.
    fn sort_out_finished(&mut self, node: &str, pods: &[Arc<Pod>], placement: Placement) -> Vec<Arc<Pod>> {
        let here = |pod: &&Arc<Pod>| !is_going(pod);
        let has_ended = |pod: &&Arc<Pod>| matches!(phase(pod), "Failed" | "Succeeded");
        let (ended, running): (Vec<_>, Vec<_>) = pods.iter().filter(here).partition(has_ended);
        let mut to_make = None;
        for pod in ended {
            let key = podium_api::ObjectKey::of(&pod.metadata);
            let wait = if phase(pod) == "Failed" { self.pause_left(pod) } else { 0 };
            if wait > 0 {
                self.todo.again_in(wait);
                continue;
            }
            let event = if phase(pod) == "Failed" {
                to_make = to_make.max(Some(self.failures(pod).saturating_add(1)));
                let message = format!("Found failed daemon pod {key} on node {node}, will try to kill it");
                EventNote::warning(self.set, "FailedDaemonPod", message)
            } else {
                let message = format!("Found succeeded daemon pod {key} on node {node}, will try to delete it");
                EventNote::normal(self.set, "SucceededDaemonPod", message)
            };
            self.todo.events.push(event);
            self.todo.deletes.push(Arc::clone(pod));
        }
        if let Some(failures) = to_make.filter(|_| running.is_empty() && placement.runs) {
            self.todo.creates.push((node.to_owned(), failures));
        }
        running.into_iter().cloned().collect()
    }

    /// How many pods had failed in a row on this pod's node before it.
    fn failures(&self, pod: &Pod) -> u32 {
        let noted = pod.metadata.annotations.as_ref().and_then(|a| a.get(FAILURES)?.parse().ok()).unwrap_or(0);
        if self.age_seconds(pod) >= FORGET_SECONDS { 0 } else { noted }
    }

    /// Seconds until a failed pod is replaced: the first at once, then 1, 2, 4, … after the one before was.
    fn pause_left(&self, pod: &Pod) -> i64 {
        match self.failures(pod) {
            0 => 0,
            n => {
                let pause = 1_i64.checked_shl(n - 1).filter(|_| n < 32).unwrap_or(PAUSE_SECONDS_MAX);
                pause.min(PAUSE_SECONDS_MAX) - self.age_seconds(pod)
            }
        }
    }

    fn age_seconds(&self, pod: &Pod) -> i64 {
        let created = pod.metadata.creation_timestamp.as_ref().map_or(self.now, |t| t.0);
        self.now.as_second() - created.as_second()
    }

    /// With surge a node has one old and one new pod until the new one is available.
    fn prune(&mut self, running: &[Arc<Pod>]) {
        if running.len() < 2 {
            return;
        }
        let (new, old): (Vec<_>, Vec<_>) = running.iter().partition(|pod| is_new(pod, self.hash));
        let surplus = new.iter().skip(1).chain(old.iter().skip(1));
        self.todo.deletes.extend(surplus.map(|pod| Arc::clone(pod)));
        if let (Some(new), Some(old)) = (new.first(), old.first())
            && (!is_ready(old) || self.is_available(new))
        {
            self.todo.deletes.push(Arc::clone(old));
        }
    }
}

pub(super) fn is_going(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}
