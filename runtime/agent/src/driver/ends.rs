//! The owner's part about containers and pods that are ended.

use std::time::Duration;

use podium_api::ObjectKey;
use tokio::sync::watch;

use super::{
    PodId,
    deadline::Deadline,
    pods::Pods,
    stop::{self, Restart, Stopped},
};
use crate::decide::{
    self,
    local::{Slot, State, Stopping},
};

impl Pods {
    /// Ends one container; what follows is decided when it has ended. `grace_seconds`: the pod's when `None`. `words` says
    /// why.
    pub(super) fn restart(&mut self, key: &ObjectKey, slot: Slot, grace_seconds: Option<i64>, words: &str) {
        let shared = self.shared.clone();
        let Some(entry) = self.entries.get_mut(key) else { return };
        let Some(container) = entry.local.container(slot) else { return };
        container.killing();
        let Some(runtime) = entry.take_runtime(slot, None) else { return };
        shared.note(&entry.pod, Some(slot), false, "Killing", words);
        // A pod that is being deleted has one grace for everything.
        let of_pod = decide::grace(&entry.pod);
        let deleting = entry.pod.metadata.deletion_grace_period_seconds.is_some();
        let grace = seconds(grace_seconds.filter(|_| !deleting).unwrap_or(of_pod));
        let deadline = Deadline::after(grace);
        entry.restarts.retain(|deadline| !deadline.left().is_zero());
        entry.restarts.push(deadline.clone());
        let (id, pod, ip) = (entry.id.clone(), entry.pod.clone(), entry.local.ip);
        tokio::spawn(stop::restart(shared, Restart { id, pod, ip, slot, runtime, deadline }));
    }

    /// A container's end begins the whole pod anew: the others end too.
    pub(super) fn end_all(&mut self, key: &ObjectKey) -> bool {
        let Some(entry) = self.entries.get_mut(key) else { return false };
        entry.local.all_again = true;
        let slots: Vec<_> = entry.runtimes.iter().map(|(slot, _)| *slot).collect();
        for slot in slots {
            self.restart(key, slot, None, "Restarting all containers of the pod");
        }
        true
    }

    /// All have ended: the pod begins anew.
    pub(super) fn reset(&mut self, key: &ObjectKey) -> bool {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.local.reset();
        }
        true
    }

    pub(super) fn stop(&mut self, key: &ObjectKey, grace_seconds: i64, failed: Option<(&'static str, String)>) -> bool {
        let shared = self.shared.clone();
        let Some(entry) = self.entries.get_mut(key) else { return false };
        entry.local.stopping = Stopping::Running;
        entry.local.grace_seconds = Some(grace_seconds);
        entry.hurry(seconds(grace_seconds));
        // Hooks of containers that start give up.
        entry.wanted = watch::Sender::new(());
        if let Some((reason, message)) = failed {
            shared.note(&entry.pod, None, reason == "Evicted", reason, message.clone());
            entry.local.failed = Some((reason, message));
        }
        let runtimes = entry.take_runtimes();
        for (slot, _) in &runtimes {
            let name = slot.spec(&entry.pod).map(|s| s.name.clone()).unwrap_or_default();
            shared.note(&entry.pod, Some(*slot), false, "Killing", format!("Stopping container {name}"));
        }
        if runtimes.is_empty() {
            entry.stopped_if_quiet();
            return true;
        }
        let deadline = Deadline::after(seconds(grace_seconds));
        entry.stop = Some(deadline.clone());
        let (id, pod, ip) = (entry.id.clone(), entry.pod.clone(), entry.local.ip);
        tokio::spawn(stop::stop(shared, stop::Job { id, pod, ip, deadline, runtimes }));
        true
    }

    /// Less time is left than was given.
    pub(super) fn hurry(&mut self, key: &ObjectKey, grace_seconds: i64) -> bool {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.local.grace_seconds = Some(grace_seconds);
            entry.hurry(seconds(grace_seconds));
        }
        true
    }

    pub(super) fn stopped(&mut self, pod: &PodId, endings: Vec<Stopped>) {
        let (shared, now) = (self.shared.clone(), self.shared.clock.now());
        let Some(entry) = self.entry(pod) else { return };
        shared.metrics.running.sub(i64::try_from(endings.len()).unwrap_or(0));
        for Stopped { slot, ending, message } in endings {
            if let Some(container) = entry.container_mut(slot).filter(|c| !matches!(c.state, State::Ended(_))) {
                container.ended(&ending, message, now);
            }
        }
        entry.stop = None;
        entry.stopped_if_quiet();
        self.dirty.insert(pod.key.clone());
    }
}

fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}
