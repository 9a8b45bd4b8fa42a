//! The way from old ReplicaSets to the new one: `RollingUpdate` step by step, `Recreate` all at once.

use k8s_openapi::api::core::v1::Pod;

use super::{Work, set::Set};
use crate::{ViewExt, pods::is_finished};

impl Work<'_> {
    /// One step of a rolling update: up as far as surge allows, else down as far as availability allows.
    pub(super) fn roll(&mut self) {
        if self.new.is_none() {
            return self.keep_history(true);
        }
        if self.grow_new() || self.shrink_old() {
            return;
        }
        if self.is_complete() {
            self.cleanup();
        }
    }

    /// Down with all old pods; only when they are gone, up with the new.
    pub(super) fn recreate(&mut self) {
        let mut scaled = false;
        for at in 0..self.old.len() {
            scaled |= self.scale_old(at, 0);
        }
        if scaled || self.old_pods_run() {
            return;
        }
        if self.new.is_none() {
            return self.keep_history(true);
        }
        if self.scale_new(self.wanted()) {
            return;
        }
        if self.is_complete() {
            self.cleanup();
        }
    }

    fn grow_new(&mut self) -> bool {
        let (wanted, Some(current)) = (self.wanted(), self.new.as_ref().map(|s| s.replicas)) else { return false };
        let replicas = if current > wanted { wanted } else { self.first_replicas(current) };
        self.scale_new(replicas)
    }

    fn shrink_old(&mut self) -> bool {
        let Some(new) = &self.new else { return false };
        let unavailable_new = new.replicas - new.stays_available();
        let room = self.total() - self.min_available() - unavailable_new;
        if self.old.iter().all(|s| s.replicas == 0) || room <= 0 {
            return false;
        }
        let unhealthy = self.drop_unhealthy(room);
        let healthy = self.drop_healthy();
        unhealthy || healthy
    }

    /// Old pods that are not available can go without loss: they are taken first, at most `room` of them.
    fn drop_unhealthy(&mut self, mut room: i32) -> bool {
        let mut scaled = false;
        for at in 0..self.old.len() {
            let set = &self.old[at];
            let useless = (set.replicas - set.available()).max(0);
            let dropped = useless.min(room);
            if dropped > 0 {
                room -= dropped;
                scaled |= self.scale_old(at, set.replicas - dropped);
            }
        }
        scaled
    }

    /// Then as many others as there are available pods above the minimum.
    fn drop_healthy(&mut self) -> bool {
        let mut room = self.all().map(Set::stays_available).sum::<i32>() - self.min_available();
        let mut scaled = false;
        for at in 0..self.old.len() {
            let replicas = self.old[at].replicas;
            let dropped = replicas.min(room);
            if dropped > 0 {
                room -= dropped;
                scaled |= self.scale_old(at, replicas - dropped);
            }
        }
        scaled
    }

    /// Whether a pod of an old ReplicaSet has not ended yet, those on their way out included.
    fn old_pods_run(&self) -> bool {
        let uid = |set: &Set| set.seen.metadata.uid.clone().unwrap_or_default();
        let runs = |set: &Set| {
            let pods = self.view.owned_as::<Pod>(&uid(set));
            set.status_replicas() > 0 || pods.iter().any(|pod| !is_finished(pod))
        };
        self.old.iter().any(runs)
    }
}
