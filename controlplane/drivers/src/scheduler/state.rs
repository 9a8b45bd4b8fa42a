//! What the scheduler knows: the pure snapshot and queue, fed from deltas. No I/O, no async, no clock.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use podium_api::{
    Object, ObjectKey,
    k8s_openapi::api::{
        core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod},
        policy::v1::PodDisruptionBudget,
        storage::v1::{CSINode, StorageClass},
    },
};
use podium_client::Delta;
use podium_scheduler::{
    Changes, Config, DEFAULT_SCHEDULER, Decision, Happened, PodInfo, Preemption, Queue, Queued, Refusal, Snapshot,
    VolumePlan, queue::Pending, schedule,
};

pub(super) struct State {
    snapshot: Snapshot,
    queue: Queue,
    config: Arc<Config>,
    tie: u64,
    /// Pods that are neither in the queue nor seen to be bound: something is being written for them, or was. Whatever
    /// else happens to them, they are not tried meanwhile.
    in_flight: HashSet<String>,
    /// Pods whose claims have to be bound before they are.
    waiting: BTreeMap<String, Waiting>,
    /// Claims have changed since pods that wait for theirs were looked at.
    claims_changed: bool,
}

/// A pod on its node whose claims are not bound yet.
struct Waiting {
    queued: Queued,
    node: Arc<str>,
    claims: Vec<ObjectKey>,
    until: Duration,
}

/// What to write for a pod.
pub(super) enum Decided {
    /// It is assumed on the node.
    Bind { queued: Queued, node: Arc<str> },
    /// It is assumed on the node; its claims are to be bound first.
    Provision { pod: Arc<PodInfo>, node: Arc<str>, volumes: VolumePlan },
    /// It waits in the queue.
    Unschedulable { pod: Arc<PodInfo>, refusal: Refusal },
    /// It is nominated to a node where others are to end first. Hand it back with [`State::preempted`].
    Preempt { queued: Queued, refusal: Refusal, preemption: Preemption },
}

/// A pod whose claims are bound now, or were not in time.
pub(super) enum Provisioned {
    Bind { queued: Queued, node: Arc<str> },
    Late { queued: Queued },
}

impl State {
    pub(super) fn new(config: Arc<Config>, seed: u64) -> Self {
        Self {
            snapshot: Snapshot::new(),
            queue: Queue::with_backoff(config.backoff_initial, config.backoff_max),
            config,
            tie: seed,
            in_flight: HashSet::new(),
            waiting: BTreeMap::new(),
            claims_changed: false,
        }
    }

    /// Takes in a change of any kind that matters to scheduling.
    pub(super) fn take(&mut self, delta: &Delta, now: Duration) {
        let object = &**delta.object();
        if object.downcast_ref::<Pod>().is_some() {
            return self.pod(delta, now);
        }
        let gone = matches!(delta, Delta::Delete { .. });
        let happened = if gone { self.removed(object) } else { self.put(object) };
        self.claims_changed |= happened.changes.intersects(Changes::VOLUMES);
        self.wake(&happened, now);
    }

    fn put(&mut self, object: &dyn Object) -> Happened {
        if let Some(node) = object.downcast_ref::<Node>() {
            self.snapshot.upsert_node(node)
        } else if let Some(namespace) = object.downcast_ref::<Namespace>() {
            let labels = namespace.metadata.labels.clone().unwrap_or_default();
            self.snapshot.namespace(&object.key().name, Some(&labels))
        } else if let Some(claim) = object.downcast_ref::<PersistentVolumeClaim>() {
            self.snapshot.upsert_claim(claim)
        } else if let Some(volume) = object.downcast_ref::<PersistentVolume>() {
            self.snapshot.upsert_volume(volume)
        } else if let Some(class) = object.downcast_ref::<StorageClass>() {
            self.snapshot.upsert_class(class)
        } else if let Some(node) = object.downcast_ref::<CSINode>() {
            self.snapshot.upsert_csi_node(node)
        } else {
            if let Some(budget) = object.downcast_ref::<PodDisruptionBudget>() {
                self.snapshot.upsert_budget(budget);
            }
            Happened::default()
        }
    }

    fn removed(&mut self, object: &dyn Object) -> Happened {
        let key = object.key();
        if object.downcast_ref::<Node>().is_some() {
            return self.snapshot.remove_node(&key.name);
        }
        if object.downcast_ref::<Namespace>().is_some() {
            return self.snapshot.namespace(&key.name, None);
        }
        if object.downcast_ref::<PersistentVolumeClaim>().is_some() {
            self.snapshot.remove_claim(&key);
        } else if object.downcast_ref::<PersistentVolume>().is_some() {
            self.snapshot.remove_volume(&key.name);
        } else if object.downcast_ref::<StorageClass>().is_some() {
            self.snapshot.remove_class(&key.name);
        } else if object.downcast_ref::<CSINode>().is_some() {
            self.snapshot.remove_csi_node(&key.name);
        } else {
            self.snapshot.remove_budget(&key);
        }
        Happened::default()
    }

    fn wake(&mut self, happened: &Happened, now: Duration) {
        let snapshot = &self.snapshot;
        self.queue.wake(happened.changes, now, |pod, by| snapshot.help(happened, pod, by));
    }

    fn pod(&mut self, delta: &Delta, now: Duration) {
        match delta {
            Delta::Put { old, new } => {
                let old = old.as_ref().and_then(|old| old.downcast_ref::<Pod>());
                if let Some(new) = new.downcast_ref::<Pod>() {
                    if old.is_some_and(|old| old.metadata.uid != new.metadata.uid) {
                        self.gone(old.and_then(|o| o.metadata.uid.as_deref()).unwrap_or_default(), now);
                    }
                    self.pod_is(old, new, now);
                }
            }
            Delta::Delete { old, .. } => self.gone(old.uid(), now),
        }
    }

    fn gone(&mut self, uid: &str, now: Duration) {
        self.queue.remove(uid);
        self.waiting.remove(uid);
        self.in_flight.remove(uid);
        let happened = self.snapshot.remove_pod(uid);
        self.wake(&happened, now);
    }

    fn pod_is(&mut self, old: Option<&Pod>, new: &Pod, now: Duration) {
        let uid = new.metadata.uid.as_deref().unwrap_or_default();
        if self.waits(new) {
            // The scheduler's own condition must not make a pod that fits nowhere active again.
            if !self.in_flight.contains(uid) && old.is_none_or(|old| !self.waits(old) || differs(old, new)) {
                let pod = Arc::new(PodInfo::of(new));
                if !pod.nominated_node.is_empty() {
                    self.snapshot.nominate(&pod, &pod.nominated_node);
                }
                self.queue.add(pod, now);
            }
            return;
        }
        self.queue.remove(uid);
        let bound = new.spec.as_ref().is_some_and(|s| s.node_name.as_deref().is_some_and(|n| !n.is_empty()));
        let happened = if bound { self.snapshot.add_pod(new) } else { self.snapshot.remove_pod(uid) };
        self.waiting.remove(uid);
        self.in_flight.remove(uid);
        self.wake(&happened, now);
    }

    /// Whether a pod is this scheduler's and has no node yet.
    fn waits(&self, pod: &Pod) -> bool {
        let Some(spec) = &pod.spec else { return false };
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("Pending");
        spec.node_name.as_deref().unwrap_or_default().is_empty()
            && self.config.profile_of(spec.scheduler_name.as_deref().unwrap_or(DEFAULT_SCHEDULER)).is_some()
            && pod.metadata.deletion_timestamp.is_none()
            && !matches!(phase, "Succeeded" | "Failed")
    }

    /// Decides about the next pod, if any is ready. One that fits is assumed on its node.
    pub(super) fn decide(&mut self, now: Duration) -> Option<Decided> {
        let queued = self.queue.pop(now)?;
        let config = Arc::clone(&self.config);
        let Some(profile) = config.profile_of(&queued.pod.scheduler_name) else { return self.decide(now) };
        self.tie = self.tie.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let decision = schedule(&queued.pod, &mut self.snapshot, profile, mix(self.tie));
        Some(match decision {
            Decision::Bind { node, volumes } => self.assume(queued, node, volumes, now),
            Decision::Unschedulable(refusal) => self.refuse(queued, refusal, now),
        })
    }

    fn assume(&mut self, queued: Queued, node: Arc<str>, volumes: VolumePlan, now: Duration) -> Decided {
        let pod = Arc::clone(&queued.pod);
        let happened = self.snapshot.assume(&pod, &node);
        self.in_flight.insert(pod.uid.clone());
        self.wake(&happened, now);
        if volumes.is_empty() {
            return Decided::Bind { queued, node };
        }
        self.snapshot.promise(&pod.uid, volumes.clone());
        let claims = volumes.claims().cloned().collect();
        let until = now + self.config.bind_timeout;
        let waiting = Waiting { queued, node: Arc::clone(&node), claims, until };
        self.waiting.insert(pod.uid.clone(), waiting);
        Decided::Provision { pod, node, volumes }
    }

    fn refuse(&mut self, queued: Queued, mut refusal: Refusal, now: Duration) -> Decided {
        let pod = Arc::clone(&queued.pod);
        if refusal.clear_nomination {
            let happened = self.snapshot.withdraw_nomination(&pod.uid);
            self.wake(&happened, now);
        }
        let Some(preemption) = refusal.preemption.take() else {
            self.queue.unschedulable(queued, refusal.unblocked_by, now);
            return Decided::Unschedulable { pod, refusal };
        };
        for (_, uid) in &preemption.displaced {
            self.snapshot.withdraw_nomination(uid);
            self.queue.activate(uid, now);
        }
        self.snapshot.nominate(&pod, &preemption.node);
        self.in_flight.insert(pod.uid.clone());
        Decided::Preempt { queued, refusal, preemption }
    }

    /// The binding of an assumed pod failed. `seen`: the pod as its mirror shows it now.
    pub(super) fn not_bound(&mut self, mut queued: Queued, seen: Option<&Pod>, now: Duration) {
        let uid = queued.pod.uid.clone();
        self.in_flight.remove(&uid);
        self.waiting.remove(&uid);
        if let Some(pod) = seen.filter(|pod| pod.spec.as_ref().is_some_and(|s| s.node_name.is_some())) {
            // It is bound after all (only the answer was lost), or by somebody else.
            let happened = self.snapshot.add_pod(pod);
            self.wake(&happened, now);
            return;
        }
        let happened = self.snapshot.forget(&uid);
        self.wake(&happened, now);
        if let Some(pod) = seen.filter(|pod| self.waits(pod)) {
            queued.pod = Arc::new(PodInfo::of(pod));
            self.queue.failed(queued, now);
        }
    }

    /// The victims of a pod have been told to end (`victims`: those that have); it waits for that, or, without
    /// `unblocked_by`, is tried again after its back-off, since not all could be told.
    pub(super) fn preempted(
        &mut self,
        mut queued: Queued,
        unblocked_by: Option<Changes>,
        victims: &[String],
        (seen, now): (Option<&Pod>, Duration),
    ) {
        let uid = queued.pod.uid.clone();
        self.in_flight.remove(&uid);
        victims.iter().for_each(|victim| self.snapshot.mark_preempted(victim));
        let Some(pod) = seen.filter(|pod| self.waits(pod)) else {
            let happened = self.snapshot.withdraw_nomination(&uid);
            return self.wake(&happened, now);
        };
        queued.pod = Arc::new(PodInfo::of(pod));
        match unblocked_by {
            Some(unblocked_by) => self.queue.unschedulable(queued, unblocked_by, now),
            None => self.queue.failed(queued, now),
        }
    }

    /// Pods whose claims are bound now, or were not in time.
    pub(super) fn provisioned(&mut self, now: Duration) -> Vec<Provisioned> {
        let changed = std::mem::take(&mut self.claims_changed);
        let ends = |w: &Waiting| w.until <= now || (changed && self.snapshot.all_bound(w.claims.iter()));
        let ended: Vec<String> = self.waiting.iter().filter(|(_, w)| ends(w)).map(|(uid, _)| uid.clone()).collect();
        let ended = ended.into_iter().filter_map(|uid| self.waiting.remove(&uid)).collect::<Vec<_>>();
        let outcome = |Waiting { queued, node, claims, .. }: Waiting| {
            if self.snapshot.all_bound(claims.iter()) {
                Provisioned::Bind { queued, node }
            } else {
                Provisioned::Late { queued }
            }
        };
        ended.into_iter().map(outcome).collect()
    }

    /// What was to be written for a pod's claims could not be: the pod, to be tried again.
    pub(super) fn not_provisioned(&mut self, uid: &str) -> Option<Queued> {
        self.waiting.remove(uid).map(|waiting| waiting.queued)
    }

    pub(super) fn next_at(&self) -> Option<Duration> {
        let waiting = self.waiting.values().map(|w| w.until).min();
        self.queue.next_at().into_iter().chain(waiting).min()
    }

    pub(super) fn pending(&self) -> Pending {
        self.queue.pending()
    }

    /// Nodes, and pods that count on them.
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.snapshot.nodes().len(), self.snapshot.pods())
    }
}

/// Whether a change may matter to scheduling.
fn differs(old: &Pod, new: &Pod) -> bool {
    old.spec != new.spec || old.metadata.labels != new.metadata.labels
}

/// Spreads consecutive numbers over all bits (splitmix64).
fn mix(number: u64) -> u64 {
    let mut z = number;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}
