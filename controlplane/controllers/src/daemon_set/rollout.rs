//! From one template to the next, node by node.
//!
//! # Source
//! Kubernetes `pkg/controller/daemon/update.go`, `rollingUpdate`.

use std::sync::Arc;

use k8s_openapi::{
    api::{apps::v1::RollingUpdateDaemonSet, core::v1::Pod},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{Work, manage::is_going};
use crate::controller_history::{REVISION_HASH, label};

/// The pods of a node that stay, by their version.
struct OnNode<'a> {
    new: Option<&'a Arc<Pod>>,
    old: Option<&'a Arc<Pod>>,
}

/// What may be missing, and what may be there in addition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) surge: usize,
    pub(super) unavailable: usize,
}

impl Work<'_> {
    pub(super) fn rolls(&self) -> bool {
        let strategy = self.spec.update_strategy.as_ref().and_then(|s| s.type_.as_deref());
        strategy.unwrap_or("RollingUpdate") == "RollingUpdate"
    }

    fn rolling(&self) -> Option<&RollingUpdateDaemonSet> {
        self.spec.update_strategy.as_ref()?.rolling_update.as_ref()
    }

    /// Whether a node may have two pods.
    pub(super) fn surges(&self) -> bool {
        self.rolls() && scaled(self.rolling().and_then(|r| r.max_surge.as_ref()), 1, 0) > 0
    }

    pub(super) fn bounds(&self, desired: usize) -> Bounds {
        let surge = scaled(self.rolling().and_then(|r| r.max_surge.as_ref()), desired, 0);
        let unavailable = scaled(self.rolling().and_then(|r| r.max_unavailable.as_ref()), desired, 1);
        let nothing_could_move = desired > 0 && surge == 0 && unavailable == 0;
        Bounds { surge, unavailable: if nothing_could_move { 1 } else { unavailable } }
    }

    /// Takes the steps that the bounds allow now.
    pub(super) fn roll(&mut self) {
        let desired = self.nodes.values().filter(|placement| placement.runs).count();
        let bounds = self.bounds(desired);
        if bounds.surge == 0 {
            self.replace(bounds.unavailable);
        } else {
            self.surge(bounds.surge, desired);
        }
    }

    /// Every node that has pods or should have one.
    fn nodes_to_roll(&self) -> Vec<&String> {
        let empty = self.nodes.iter().filter(|(node, p)| p.runs && !self.pods.contains_key(*node));
        let mut all: Vec<&String> = self.pods.keys().chain(empty.map(|(node, _)| node)).collect();
        all.sort_unstable();
        all
    }

    /// `None`: there are more than one of a version, which has to be put right first.
    fn on_node(&self, node: &str) -> Option<OnNode<'_>> {
        let staying = self.pods_on(node).iter().filter(|pod| !is_going(pod));
        let (new, old): (Vec<_>, Vec<_>) = staying.partition(|pod| is_new(pod, self.hash));
        let one_each = new.len() <= 1 && old.len() <= 1;
        one_each.then(|| OnNode { new: new.first().copied(), old: old.first().copied() })
    }

    /// Deletes old pods: those that are not available at once, of the others as many as may be missing.
    fn replace(&mut self, max_unavailable: usize) {
        let (mut unavailable, mut candidates, mut free) = (0, Vec::new(), Vec::new());
        for node in self.nodes_to_roll() {
            match self.on_node(node) {
                Some(OnNode { new: Some(new), old: None }) => unavailable += usize::from(!self.is_available(new)),
                Some(OnNode { new: None, old: Some(old) }) if self.is_available(old) => {
                    candidates.push(Arc::clone(old));
                }
                Some(OnNode { new: None, old: Some(old) }) => {
                    unavailable += 1;
                    free.push(Arc::clone(old));
                }
                // None, or both: a pod is missing here until that is put right.
                _ => unavailable += 1,
            }
        }
        candidates.truncate(max_unavailable.saturating_sub(unavailable));
        self.todo.deletes.extend(free.into_iter().chain(candidates));
    }

    /// Makes new pods beside old ones, and deletes old ones whose new one is available.
    fn surge(&mut self, max_surge: usize, desired: usize) {
        let (mut surging, mut available) = (0_usize, 0_usize);
        let (mut deletes, mut misplaced, mut now, mut candidates) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for node in self.nodes_to_roll() {
            let Some(OnNode { new, old }) = self.on_node(node) else {
                surging += 1;
                continue;
            };
            let counts = old.or(new).is_some_and(|pod| self.is_available(pod));
            available += usize::from(counts);
            let runs = self.nodes.get(node).is_some_and(|placement| placement.runs);
            match (new, old) {
                (_, None) => {}
                (None, Some(old)) if !runs && counts => misplaced.push(Arc::clone(old)),
                (None, Some(old)) if !runs => deletes.push(Arc::clone(old)),
                (None, Some(_)) if !counts => now.push(node.clone()),
                (None, Some(_)) => candidates.push(node.clone()),
                (Some(new), Some(old)) if self.is_available(new) => deletes.push(Arc::clone(old)),
                (Some(_), Some(_)) => surging += 1,
            }
        }
        // Who asks for surge expects that all stay available: what has to leave a node waits for others.
        misplaced.truncate(available.saturating_sub(desired));
        candidates.truncate(max_surge.saturating_sub(surging));
        self.todo.deletes.extend(deletes.into_iter().chain(misplaced));
        self.todo.creates.extend(now.into_iter().chain(candidates).map(|node| (node, 0)));
    }
}

/// Whether a pod has the template as it is now.
pub(super) fn is_new(pod: &Pod, hash: &str) -> bool {
    !hash.is_empty() && label(&pod.metadata, REVISION_HASH) == hash
}

/// A number, or a percentage of `of`, rounded up.
fn scaled(value: Option<&IntOrString>, of: usize, default: usize) -> usize {
    match value {
        None => default,
        Some(IntOrString::Int(number)) => usize::try_from(*number).unwrap_or(0),
        Some(IntOrString::String(text)) => {
            let percent = text.trim_end_matches('%').parse::<usize>().unwrap_or(0);
            of.saturating_mul(percent).div_ceil(100)
        }
    }
}
