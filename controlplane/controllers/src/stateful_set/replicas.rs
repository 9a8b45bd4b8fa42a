//! What each pod needs: to be made, to be mended, to go.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{PersistentVolumeClaim, Pod},
    apimachinery::pkg::util::intstr::IntOrString,
};
use podium_api::ObjectKey;

use super::{
    Verb, Work,
    identity::{self, POD_INDEX, POD_NAME},
    retention::{self, Claim, Policy},
    tell, tell_failure,
};
use crate::{
    Action, EventNote, ViewExt,
    controller_history::{REVISION_HASH, label, relabel},
    owners::{delete, patch_owners},
    pods::{available_in, is_finished, is_ready, phase},
};

/// At most so many pods are made, or deleted, by one plan.
pub(super) const BURST_MAX: usize = 500;
/// At most so many pods are told of by events of one plan, as Kubernetes' spam filter allows.
pub(super) const EVENTS_MAX: usize = 25;

/// How it goes on after one pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// With the next pod.
    Go,
    /// In order: not before this pod is well. Without order: with the next pod.
    Wait,
    /// Not at all this time.
    Stop,
}

impl Work<'_> {
    /// Keeps the pods that are wanted, lets those go that are not, then updates.
    pub(super) fn keep(&mut self) {
        if self.keep_replicas() && self.let_condemned_go() {
            self.update();
        }
    }

    /// `false`: nothing else is to be done this time.
    fn keep_replicas(&mut self) -> bool {
        let mut all_done = true;
        for at in 0..self.replicas.len() {
            match self.keep_replica(at) {
                Next::Go => {}
                Next::Wait if !self.is_ordered() => {}
                Next::Wait => return false,
                Next::Stop => all_done = false,
            }
            if !all_done && self.is_ordered() || self.todo.pods.len() >= BURST_MAX {
                return false;
            }
        }
        all_done
    }

    fn keep_replica(&mut self, at: usize) -> Next {
        let Some(pod) = self.replicas[at].clone() else { return self.make(at) };
        if is_finished(&pod) {
            // However it ended: the next plan makes it anew.
            if pod.metadata.deletion_timestamp.is_none() {
                self.delete(&pod);
            }
            return Next::Wait;
        }
        let ordinal = self.ordinal_at(at);
        if phase(&pod) == "Pending" && !self.make_claims(ordinal) {
            return Next::Stop;
        }
        if self.is_ordered() && self.is_unavailable(&pod) {
            return Next::Wait;
        }
        self.mend(ordinal, &pod);
        Next::Go
    }

    /// Makes the pod of a place where none is.
    fn make(&mut self, at: usize) -> Next {
        let ordinal = self.ordinal_at(at);
        if let Some(until) = self.rests_until(ordinal) {
            self.todo.again_at = Some(until);
            return Next::Wait;
        }
        let version = if self.stays_at_current(at) { &self.versions.current } else { &self.versions.update };
        let pod = identity::new_pod(self.set, self.spec, version, ordinal);
        if Policy::of(self.spec).when_scaled && self.claims_are_stale(ordinal, &pod) {
            // They are about to go with the pod that had them before.
            return Next::Wait;
        }
        if !self.make_claims(ordinal) {
            return Next::Stop;
        }
        let event = tell(self.set, Verb::Create, &identity::pod_name(self.set, ordinal));
        let told = self.todo.pods.len() < EVENTS_MAX;
        let pod = Box::new(pod);
        self.todo.pods.push(if told { Action::CreateAndTell(pod, event) } else { Action::Create(pod) });
        Next::Wait
    }

    /// Until when the name of an ordinal's pod rests.
    fn rests_until(&self, ordinal: i32) -> Option<Timestamp> {
        let namespace = self.set.metadata.namespace.as_deref().unwrap_or_default();
        self.view.rests_until::<Pod>(&ObjectKey::new(namespace, identity::pod_name(self.set, ordinal)), self.now)
    }

    /// Whether a pod that is made anew gets the template that the others still have.
    fn stays_at_current(&self, at: usize) -> bool {
        let strategy = self.spec.update_strategy.as_ref();
        if strategy.and_then(|s| s.type_.as_deref()) == Some("OnDelete") {
            return false;
        }
        let current = || self.set.status.as_ref().and_then(|s| s.current_replicas).unwrap_or(0);
        let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
        let below = rolling.map_or_else(current, |r| r.partition.unwrap_or(0));
        i32::try_from(at).is_ok_and(|at| at < below)
    }

    fn claim(&self, name: &str) -> Option<Arc<PersistentVolumeClaim>> {
        let namespace = self.set.metadata.namespace.as_deref().unwrap_or_default();
        self.view.get_as(&ObjectKey::new(namespace, name))
    }

    fn claims_are_stale(&self, ordinal: i32, pod: &Pod) -> bool {
        let claims = identity::claims(self.set, self.spec, ordinal);
        let known = claims.iter().filter_map(|c| self.claim(c.metadata.name.as_deref().unwrap_or_default()));
        let mut owners = known.map(|claim| claim.metadata.owner_references.clone().unwrap_or_default());
        owners.any(|owners| retention::is_stale(&owners, pod))
    }

    /// Makes the claims that are missing. `false`: one of them is on its way out, and the pod has to wait for that.
    fn make_claims(&mut self, ordinal: i32) -> bool {
        let pod = identity::pod_name(self.set, ordinal);
        for mut claim in identity::claims(self.set, self.spec, ordinal) {
            let name = claim.metadata.name.clone().unwrap_or_default();
            match self.claim(&name) {
                Some(known) if known.metadata.deletion_timestamp.is_some() => {
                    let why = format!("pvc {name} is being deleted");
                    self.todo.events.push(tell_failure(self.set, Verb::Create, &pod, &why));
                    return false;
                }
                Some(_) => {}
                None => {
                    if Policy::of(self.spec).when_deleted {
                        claim.metadata.owner_references = Some(vec![crate::owners::controller_ref(self.set)]);
                    }
                    let set = identity::set_name(self.set);
                    let message = format!("create Claim {name} Pod {pod} in StatefulSet {set} success");
                    let event = EventNote::normal(self.set, "SuccessfulCreate", message);
                    self.todo.claims.push(Action::CreateAndTell(Box::new(claim), event));
                }
            }
        }
        true
    }

    /// Puts right what was changed on a pod, and the owners of its claims.
    fn mend(&mut self, ordinal: i32, pod: &Arc<Pod>) {
        self.mend_claims(ordinal, pod, false);
        let name = identity::pod_name(self.set, ordinal);
        if !identity::has_its_volumes(self.set, self.spec, ordinal, pod) {
            // The API refuses this for a pod that was adopted without them, which is how its user hears of it.
            let mut mended = (**pod).clone();
            let spec = mended.spec.get_or_insert_default();
            let known = spec.volumes.take().unwrap_or_default();
            spec.volumes = Some(identity::volumes(self.set, self.spec, ordinal, known));
            self.todo.mends.push(Action::Update(Box::new(mended)));
        } else if identity::has_its_name(pod) {
            return;
        } else {
            let index = ordinal.to_string();
            self.todo.mends.push(relabel(&**pod, &[(POD_NAME, name.as_str()), (POD_INDEX, index.as_str())]));
        }
        self.todo.events.push(tell(self.set, Verb::Update, &name));
    }

    fn mend_claims(&mut self, ordinal: i32, pod: &Pod, condemned: bool) {
        let policy = Policy::of(self.spec);
        for wanted in identity::claims(self.set, self.spec, ordinal) {
            let name = wanted.metadata.name.as_deref().unwrap_or_default();
            let Some(claim) = self.claim(name) else { continue };
            let with = Claim { claim: &claim, set: self.set, pod, condemned, policy };
            let Some(owners) = with.owners_to_be() else { continue };
            if with.has_other_controller() {
                let message = format!(
                    "PersistentVolumeClaim {name} has a conflicting OwnerReference that acts as a manging controller, \
                     the retention policy is ignored for this claim"
                );
                self.todo.events.push(EventNote::warning(self.set, "ConflictingController", message));
            }
            self.todo.mends.push(patch_owners(&*claim, &owners));
        }
    }

    /// `false`: the update has to wait.
    fn let_condemned_go(&mut self) -> bool {
        for pod in self.condemned.clone() {
            let ordinal = identity::ordinal(self.set, &pod.metadata).unwrap_or_default();
            self.mend_claims(ordinal, &pod, true);
        }
        let first_unavailable = self.first_unavailable();
        for pod in self.condemned.clone() {
            let terminating = pod.metadata.deletion_timestamp.is_some();
            if self.is_ordered() {
                // An unhealthy one may go only if no other stands before it.
                let blocked = !self.is_available(&pod) && pod.metadata.name != first_unavailable;
                if !terminating && !blocked {
                    self.delete(&pod);
                }
                return false;
            }
            if !terminating && self.todo.deletes.len() < BURST_MAX {
                self.delete(&pod);
            }
        }
        true
    }

    /// The name of the unavailable pod with the lowest ordinal, those that are wanted first.
    fn first_unavailable(&self) -> Option<String> {
        let wanted = self.replicas.iter().flatten();
        let mut all = wanted.chain(self.condemned.iter().rev());
        all.find(|pod| self.is_unavailable(pod)).and_then(|pod| pod.metadata.name.clone())
    }

    /// Deletes old pods, highest ordinal first.
    fn update(&mut self) {
        let strategy = self.spec.update_strategy.as_ref();
        if strategy.and_then(|s| s.type_.as_deref()) == Some("OnDelete") {
            return;
        }
        let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
        let partition = usize::try_from(rolling.and_then(|r| r.partition).unwrap_or(0)).unwrap_or(0);
        let most = max_unavailable(rolling.and_then(|r| r.max_unavailable.as_ref()), self.replicas.len());
        let missing = self.replicas.iter().filter(|place| self.is_missing(place.as_ref())).count();
        let mut budget = most.saturating_sub(missing);
        for at in (partition..self.replicas.len()).rev() {
            let Some(pod) = self.replicas[at].clone() else { continue };
            let is_new = label(&pod.metadata, REVISION_HASH) == self.versions.update.name;
            let goes = pod.metadata.deletion_timestamp.is_some() || is_finished(&pod);
            if is_new || goes || self.todo.deletes.len() >= BURST_MAX {
                continue;
            }
            let costs = usize::from(!self.is_unavailable(&pod));
            if costs > budget {
                continue;
            }
            budget -= costs;
            self.delete(&pod);
            self.todo.updated += 1;
        }
    }

    fn delete(&mut self, pod: &Arc<Pod>) {
        self.todo.deletes.push(delete(&**pod));
        self.todo.events.push(tell(self.set, Verb::Delete, pod.metadata.name.as_deref().unwrap_or_default()));
    }

    fn is_missing(&self, place: Option<&Arc<Pod>>) -> bool {
        place.is_none_or(|pod| self.is_unavailable(pod))
    }

    fn is_unavailable(&self, pod: &Pod) -> bool {
        pod.metadata.deletion_timestamp.is_some() || !self.is_available(pod)
    }

    /// Running, and ready for long enough.
    pub(super) fn is_available(&self, pod: &Pod) -> bool {
        let min_ready_seconds = self.spec.min_ready_seconds.unwrap_or(0);
        is_running_and_ready(pod) && available_in(pod, min_ready_seconds, self.now) == Some(0)
    }
}

pub(super) fn is_running_and_ready(pod: &Pod) -> bool {
    phase(pod) == "Running" && is_ready(pod)
}

/// How many may be missing during an update: at least one, percentages rounded down.
fn max_unavailable(value: Option<&IntOrString>, of: usize) -> usize {
    let number = match value {
        None => 1,
        Some(IntOrString::Int(number)) => usize::try_from(*number).unwrap_or(1),
        Some(IntOrString::String(text)) => {
            text.trim_end_matches('%').parse::<usize>().map_or(1, |percent| of.saturating_mul(percent) / 100)
        }
    };
    number.max(1)
}
