//! Pods come to nodes and leave them.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use podium_api::ObjectKey;

use super::{Happened, Mover, Snapshot, counting, follow};
use crate::{
    change::Changes,
    pod::{HostPort, PodInfo, is_preempted, started},
    resources::Resources,
    volumes::VolumePlan,
};

/// A pod that counts on a node: what is needed to count it, and to choose it as a victim.
#[derive(Debug, Default)]
pub(crate) struct Placed {
    pub(crate) uid: Arc<str>,
    pub(crate) name: String,
    pub(crate) priority: i32,
    pub(crate) started: i64,
    pub(crate) preempted: bool,
    pub(crate) terminating: bool,
    pub(crate) group: u32,
    pub(super) holders: Box<[u32]>,
    /// `None`: its node is not there.
    pub(super) slot: Option<u32>,
    /// Counts on its node now; a victim that is thought away does not.
    pub(super) counted: bool,
    node: Arc<str>,
    generation: i64,
    pub(super) requests: Resources,
    nonzero_millicores: i64,
    nonzero_bytes: i64,
    pub(super) ports: Box<[HostPort]>,
    pub(super) claims: Box<[ObjectKey]>,
    plan: Option<Box<VolumePlan>>,
}

impl Snapshot {
    /// A pod appeared or changed. Counts when it has a node and has not finished; confirms what was assumed.
    pub fn add_pod(&mut self, pod: &Pod) -> Happened {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let node = pod.spec.as_ref().and_then(|s| s.node_name.as_deref()).unwrap_or_default();
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default();
        if matches!(phase, "Succeeded" | "Failed") {
            return self.remove_pod(uid);
        }
        if node.is_empty() {
            return Happened::default();
        }
        match self.by_uid.get(uid).copied() {
            Some(at) if self.is_current(at, pod, node) => {
                let known = &mut self.placed[at as usize];
                (known.started, known.preempted) = (started(pod), is_preempted(pod));
                known.generation = pod.metadata.generation.unwrap_or(0);
                Happened::default()
            }
            before => {
                let ended = before.is_some_and(|at| {
                    let known = &self.placed[at as usize];
                    !known.terminating && pod.metadata.deletion_timestamp.is_some()
                });
                let mut happened = self.assume(&PodInfo::of(pod), node);
                if let Some(at) = self.by_uid.get(uid) {
                    self.placed[*at as usize].generation = pod.metadata.generation.unwrap_or(0);
                }
                // A pod that begins to end still has its room, but counts no more in topology spread. Other changes on its
                // node (it was resized, or has other labels) may help whoever was refused for it.
                match (before, ended) {
                    (None, _) => {}
                    (Some(_), true) => happened.changes = Changes::POD_LEFT,
                    (Some(_), false) => happened.changes |= Changes::POD_REMOVED | Changes::POD_LEFT,
                }
                happened
            }
        }
    }

    /// Whether what is counted of a pod is as it was.
    fn is_current(&self, at: u32, pod: &Pod, node: &str) -> bool {
        let known = &self.placed[at as usize];
        let generation = pod.metadata.generation.unwrap_or(0);
        let key = self.index.group_key(known.group);
        *known.node == *node
            && (known.generation == generation || known.generation == 0)
            && known.terminating == pod.metadata.deletion_timestamp.is_some()
            && pod.metadata.labels.as_ref().map_or(key.labels.is_empty(), |labels| *labels == key.labels)
    }

    /// Counts a pod on a node before its binding is known to have succeeded. Wherever it counted before, it no longer does.
    pub fn assume(&mut self, pod: &PodInfo, node: &str) -> Happened {
        self.remove_pod(&pod.uid);
        self.nominations.remove(&pod.uid);
        let slot = self.slots.get(node).copied();
        let name = slot.map_or_else(|| node.into(), |slot| self.nodes[slot as usize].name.clone());
        let group = self.index.group(pod);
        self.index.join(group);
        let (topologies, nodes, order) = (&mut self.topologies, &self.nodes, &self.order);
        let holders = self.index.hold(pod, |key| follow(topologies, nodes, order, key));
        let claims = pod.claims.iter().map(|c| ObjectKey::new(&*pod.key.namespace, &*c.name)).collect();
        let placed = Placed {
            uid: pod.uid.as_str().into(),
            name: pod.key.name.clone(),
            priority: pod.priority,
            started: pod.started,
            preempted: pod.preempted,
            terminating: pod.terminating,
            group,
            holders,
            slot,
            counted: false,
            node: name.clone(),
            generation: 0,
            requests: pod.requests.clone(),
            nonzero_millicores: pod.nonzero.millicores,
            nonzero_bytes: pod.nonzero.memory_bytes,
            ports: pod.ports.clone().into_boxed_slice(),
            claims,
            plan: None,
        };
        let mover = Mover::of(&placed);
        let at = self.put(placed);
        match slot {
            Some(slot) => self.nodes[slot as usize].pods.push(at),
            None => self.strays.entry(name).or_default().push(at),
        }
        self.count(at, true);
        Happened { changes: Changes::POD_CAME, slot, pod: Some(mover), stored: None }
    }

    /// Remembers what is written for the claims of an assumed pod: their volumes are promised until it is gone.
    pub fn promise(&mut self, uid: &str, plan: VolumePlan) {
        if let Some(at) = self.by_uid.get(uid) {
            self.volumes.promise(&plan);
            self.placed[*at as usize].plan = Some(Box::new(plan));
        }
    }

    /// Takes an assumed pod off its node again: the binding failed.
    pub fn forget(&mut self, uid: &str) -> Happened {
        self.remove_pod(uid)
    }

    /// A pod is gone.
    pub fn remove_pod(&mut self, uid: &str) -> Happened {
        let nominated = self.nominations.remove(uid).is_some();
        let Some((_, at)) = self.by_uid.remove_entry(uid) else {
            let changes = if nominated { Changes::POD_REMOVED } else { Changes::NONE };
            return Happened::only(changes);
        };
        self.count(at, false);
        let gone = std::mem::take(&mut self.placed[at as usize]);
        self.placed_free.push(at);
        let siblings = match gone.slot {
            Some(slot) => Some(&mut self.nodes[slot as usize].pods),
            None => self.strays.get_mut(&gone.node),
        };
        if let Some(siblings) = siblings {
            if let Some(place) = siblings.iter().position(|pod| *pod == at) {
                siblings.swap_remove(place);
            }
            if siblings.is_empty() && gone.slot.is_none() {
                self.strays.remove(&gone.node);
            }
        }
        if let Some(plan) = &gone.plan {
            self.volumes.withdraw(plan);
        }
        let mover = Mover::of(&gone);
        self.index.release(&gone.holders);
        self.index.leave(gone.group);
        let changes = Changes::POD_REMOVED | Changes::POD_LEFT;
        Happened { changes, slot: gone.slot, pod: Some(mover), stored: None }
    }

    /// A pod was told to end to make room; its mirror will say so.
    pub fn mark_preempted(&mut self, uid: &str) {
        if let Some(at) = self.by_uid.get(uid) {
            self.placed[*at as usize].preempted = true;
        }
    }

    pub(crate) fn placed(&self, at: u32) -> &Placed {
        &self.placed[at as usize]
    }

    /// Thinks a pod away from its node, until [`Snapshot::settle`].
    pub(crate) fn lift(&mut self, at: u32) {
        self.count(at, false);
    }

    /// Puts a pod back that was thought away.
    pub(crate) fn settle(&mut self, at: u32) {
        self.count(at, true);
    }

    fn put(&mut self, placed: Placed) -> u32 {
        let uid = placed.uid.clone();
        let at = match self.placed_free.pop() {
            Some(at) => {
                self.placed[at as usize] = placed;
                at
            }
            None => {
                self.placed.push(placed);
                u32::try_from(self.placed.len() - 1).unwrap_or(u32::MAX)
            }
        };
        self.by_uid.insert(uid, at);
        at
    }

    /// Counts a pod on its node, or no longer. Nothing happens when that is so already, or the node is not there.
    pub(super) fn count(&mut self, at: u32, more: bool) {
        let pod = &mut self.placed[at as usize];
        let Some(slot) = pod.slot.filter(|_| pod.counted != more) else { return };
        pod.counted = more;
        let node = &mut self.nodes[slot as usize];
        let nonzero =
            Resources { millicores: pod.nonzero_millicores, memory_bytes: pod.nonzero_bytes, ..Resources::default() };
        if more {
            node.requested.add(&pod.requests);
            node.nonzero.add(&nonzero);
            node.ports.extend(pod.ports.iter().cloned());
        } else {
            node.requested.subtract(&pod.requests);
            node.nonzero.subtract(&nonzero);
            for port in &pod.ports {
                if let Some(place) = node.ports.iter().position(|p| p == port) {
                    node.ports.swap_remove(place);
                }
            }
        }
        for claim in &pod.claims {
            let users = self.claims_used.entry(claim.clone()).or_default();
            *users = if more { *users + 1 } else { users.saturating_sub(1) };
            if *users == 0 {
                self.claims_used.remove(claim);
            }
        }
        self.index.count_pod(counting(pod, slot), &self.topologies, more);
    }

    /// How many placed pods use a claim.
    pub(crate) fn claim_users(&self, claim: &ObjectKey) -> u32 {
        self.claims_used.get(claim).copied().unwrap_or(0)
    }
}
