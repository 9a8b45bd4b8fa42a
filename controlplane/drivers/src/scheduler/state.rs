//! What the scheduler knows: the pure snapshot and queue, fed from deltas. No I/O, no async, no clock.

use std::{sync::Arc, time::Duration};

use podium_api::k8s_openapi::api::core::v1::{Node, Pod};
use podium_client::Delta;
use podium_scheduler::{Decision, PodInfo, Profile, Queue, Queued, Snapshot, queue::Pending, schedule};

pub(super) struct State {
    snapshot: Snapshot,
    queue: Queue,
    profile: Arc<Profile>,
    tie: u64,
}

/// What to write for a pod.
pub(super) enum Decided {
    /// It is assumed on the node.
    Bind { queued: Queued, node: Arc<str> },
    /// It waits in the queue.
    Unschedulable { pod: Arc<PodInfo>, message: String },
}

impl State {
    pub(super) fn new(profile: Arc<Profile>, seed: u64) -> Self {
        Self { snapshot: Snapshot::new(), queue: Queue::new(), profile, tie: seed }
    }

    pub(super) fn node(&mut self, delta: &Delta, now: Duration) {
        let changes = match delta {
            Delta::Put { new, .. } => match new.downcast_ref::<Node>() {
                Some(node) => self.snapshot.upsert_node(node),
                None => return,
            },
            Delta::Delete { old, .. } => self.snapshot.remove_node(&old.key().name),
        };
        self.queue.wake(changes, now);
    }

    pub(super) fn pod(&mut self, delta: &Delta, now: Duration) {
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
        let changes = self.snapshot.remove_pod(uid);
        self.queue.wake(changes, now);
    }

    fn pod_is(&mut self, old: Option<&Pod>, new: &Pod, now: Duration) {
        let uid = new.metadata.uid.as_deref().unwrap_or_default();
        if self.waits(new) {
            // The scheduler's own condition must not make a pod that fits nowhere active again.
            if old.is_none_or(|old| !self.waits(old) || differs(old, new)) {
                self.queue.add(Arc::new(PodInfo::of(new)));
            }
            return;
        }
        self.queue.remove(uid);
        let changes = self.snapshot.add_pod(new);
        self.queue.wake(changes, now);
    }

    /// Whether a pod is this scheduler's and has no node yet.
    fn waits(&self, pod: &Pod) -> bool {
        let Some(spec) = &pod.spec else { return false };
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("Pending");
        spec.node_name.as_deref().unwrap_or_default().is_empty()
            && spec.scheduler_name.as_deref().unwrap_or("default-scheduler") == self.profile.scheduler_name
            && pod.metadata.deletion_timestamp.is_none()
            && !matches!(phase, "Succeeded" | "Failed")
    }

    /// Decides about the next pod, if any is ready. One that fits is assumed on its node.
    pub(super) fn decide(&mut self, now: Duration) -> Option<Decided> {
        let queued = self.queue.pop(now)?;
        self.tie = self.tie.wrapping_add(0x9E37_79B9_7F4A_7C15);
        match schedule(&queued.pod, &self.snapshot, &self.profile, mix(self.tie)) {
            Decision::Bind { node } => {
                self.snapshot.assume(&queued.pod, &node);
                Some(Decided::Bind { queued, node })
            }
            Decision::Unschedulable(refusal) => {
                let pod = Arc::clone(&queued.pod);
                self.queue.unschedulable(queued, refusal.unblocked_by, now);
                Some(Decided::Unschedulable { pod, message: refusal.message })
            }
        }
    }

    /// The binding of an assumed pod failed. `seen`: the pod as its mirror shows it now.
    pub(super) fn not_bound(&mut self, queued: Queued, seen: Option<&Pod>, now: Duration) {
        let uid = queued.pod.uid.clone();
        if let Some(pod) = seen.filter(|pod| pod.spec.as_ref().is_some_and(|s| s.node_name.is_some())) {
            // It is bound after all (only the answer was lost), or by somebody else.
            let changes = self.snapshot.add_pod(pod);
            self.queue.wake(changes, now);
            return;
        }
        let changes = self.snapshot.forget(&uid);
        self.queue.wake(changes, now);
        if seen.is_some_and(|pod| self.waits(pod)) {
            self.queue.failed(queued, now);
        }
    }

    pub(super) fn next_at(&self) -> Option<Duration> {
        self.queue.next_at()
    }

    pub(super) fn pending(&self) -> Pending {
        self.queue.pending()
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
