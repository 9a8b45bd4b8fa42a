//! What one pod needs now: a pure function of its spec, of what runs here for it, and of the time. No I/O, no clock.

pub(crate) mod admission;
pub(crate) mod amounts;
pub(crate) mod backoff;
pub(crate) mod balancer;
pub(crate) mod env;
pub(crate) mod ephemeral;
pub(crate) mod eviction;
pub(crate) mod grants;
pub(crate) mod instances;
pub(crate) mod local;
pub(crate) mod probe;
pub(crate) mod resize;
pub(crate) mod resources;
pub(crate) mod restart;
pub(crate) mod security;
pub(crate) mod static_pod;
pub(crate) mod status;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_ends;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container as Spec, Pod, PodSpec, PodStatus};

use self::{
    backoff::{SLOW, after},
    local::{Admission, Container, FailureReason, Local, Slot, State, Stopping},
    probe::ProbeKind,
    restart::{AfterEnd, after_end, is_sidecar, restarts},
    status::Facts,
};

/// How long `ErrImagePull` is shown before it becomes `ImagePullBackOff`.
pub(crate) const IMAGE_ERROR_SHOWN_SECONDS: i64 = 2;

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// See whether the node takes the pod.
    Admit,
    /// Give the pod an address.
    Allocate,
    /// Give its containers what its spec says by now.
    Resize,
    /// End all containers so that all are started again.
    EndAll,
    /// All of them have ended: begin anew.
    Reset,
    /// End what is being ended sooner than it was told.
    Hurry {
        /// Seconds from now.
        grace_seconds: i64,
    },
    /// Start a container.
    Start(Slot),
    /// Make a probe.
    Probe(Slot, ProbeKind),
    /// End all containers within the grace.
    Stop {
        /// Seconds.
        grace_seconds: i64,
        /// Why the pod has failed, if it has: reason and message.
        failed: Option<(&'static str, String)>,
    },
    /// Remove the pod from the API: nothing of it runs any more.
    Delete,
}

/// What one pod needs.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Decision {
    /// In this order.
    pub(crate) actions: Vec<Action>,
    /// What its status should say; `None`: it is final already.
    pub(crate) status: Option<PodStatus>,
    /// Look again then, even if nothing happens.
    pub(crate) wake_at: Option<Timestamp>,
}

impl Decision {
    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |earlier| earlier.min(at)));
    }
}

/// Decides. Same input, same decision. `prior` is the status that was decided last.
pub(crate) fn decide(pod: &Pod, local: &Local, prior: &PodStatus, facts: &Facts, now: Timestamp) -> Decision {
    let mut decision = Decision::default();
    let Some(spec) = pod.spec.as_ref() else { return decision };
    let deleting = pod.metadata.deletion_timestamp.is_some();
    if is_final(pod) && !local.busy() {
        decision.actions.extend(deleting.then_some(Action::Delete));
        return decision;
    }
    if let Admission::Refused(rejection) = &local.admission {
        decision.actions.extend(deleting.then_some(Action::Delete));
        decision.status = Some(status::rejected(pod, spec, local, rejection));
        return decision;
    }
    if deleting || local.stopping != Stopping::No {
        stop(pod, local, deleting, &mut decision);
    } else if local.admission == Admission::Unasked {
        decision.actions.push(Action::Admit);
    } else if let Some(evicted) = &local.evicted {
        let failed = Some(("Evicted", evicted.message.clone()));
        decision.actions.push(Action::Stop { grace_seconds: evicted.grace_seconds, failed });
    } else if past_deadline(spec, local, now, &mut decision) {
        let message = "Pod was active on the node longer than the specified deadline".to_owned();
        decision.actions.push(Action::Stop { grace_seconds: grace(pod), failed: Some(("DeadlineExceeded", message)) });
    } else if local.ip.is_none() {
        decision.actions.push(Action::Allocate);
    } else {
        live(pod, spec, local, now, &mut decision);
    }
    decision.status = Some(status::status(pod, spec, local, prior, facts, now));
    decision
}

/// A pod that is to run.
fn live(pod: &Pod, spec: &PodSpec, local: &Local, now: Timestamp, decision: &mut Decision) {
    if resize::is_due(pod, local, now) {
        decision.actions.push(Action::Resize);
    } else if let Some(at) = local.unresized.as_ref().and_then(|u| u.retry_at) {
        decision.wake(at);
    }
    match (local.all_again, local.busy()) {
        (true, true) => {}
        (true, false) => decision.actions.push(Action::Reset),
        (false, _) if all_again(pod, spec, local) => decision.actions.push(Action::EndAll),
        (false, busy) if settled(spec, local) => {
            // Only sidecars are left, and whoever looks.
            decision.actions.extend(busy.then(|| Action::Stop { grace_seconds: grace(pod), failed: None }));
        }
        (false, _) => {
            run_ephemeral(spec, local, now, decision);
            run(spec, local, now, decision);
        }
    }
}

/// Whether the API says that the pod has ended for good.
pub(crate) fn is_final(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).is_some_and(|p| p == "Succeeded" || p == "Failed")
}

/// How long the pod may take to end.
pub(crate) fn grace(pod: &Pod) -> i64 {
    let spec = || pod.spec.as_ref().and_then(|s| s.termination_grace_period_seconds);
    pod.metadata.deletion_grace_period_seconds.or_else(spec).unwrap_or(30).max(0)
}

fn stop(pod: &Pod, local: &Local, deleting: bool, decision: &mut Decision) {
    let grace_seconds = grace(pod);
    match local.stopping {
        Stopping::No => decision.actions.push(Action::Stop { grace_seconds, failed: None }),
        Stopping::Running if deleting && local.grace_seconds.is_some_and(|given| grace_seconds < given) => {
            decision.actions.push(Action::Hurry { grace_seconds });
        }
        Stopping::Running => {}
        Stopping::Done if deleting => decision.actions.push(Action::Delete),
        Stopping::Done => {}
    }
}

fn past_deadline(spec: &PodSpec, local: &Local, now: Timestamp, decision: &mut Decision) -> bool {
    let Some(seconds) = spec.active_deadline_seconds else { return false };
    let deadline = after(local.since, seconds);
    if now < deadline {
        decision.wake(deadline);
    }
    now >= deadline
}

/// Init containers one after the other, each sidecar until it has started, then the others.
///
/// # Source
/// Kubernetes `pkg/kubelet/kuberuntime/kuberuntime_container.go`, `computeInitContainerActions`.
fn run(spec: &PodSpec, local: &Local, now: Timestamp, decision: &mut Decision) {
    let init_specs = spec.init_containers.as_deref().unwrap_or_default();
    let begun = local.begun();
    // Whatever stands before the newest one has been waited for already.
    let newest = local.init.iter().rposition(|c| c.busy() || c.ran && c.state != State::Waiting);
    let mut initialized = true;
    for (i, (init, container)) in init_specs.iter().zip(&local.init).enumerate() {
        let passed = begun || newest.is_some_and(|newest| i < newest);
        let done = matches!(&container.state, State::Ended(e) if e.exit_code == 0);
        if !is_sidecar(init) && (passed || done) {
            continue;
        }
        advance(spec, init, Slot::Init(i), container, now, decision);
        if !(passed || is_sidecar(init) && container.is_started()) {
            initialized = false;
            break;
        }
    }
    if initialized {
        run_main(spec, local, now, decision);
    }
}

/// They wait for nothing, and run once.
///
/// # Source
/// Kubernetes `pkg/kubelet/kuberuntime/kuberuntime_manager.go`, `computePodActions`.
fn run_ephemeral(pod: &PodSpec, local: &Local, now: Timestamp, decision: &mut Decision) {
    for (i, container) in local.ephemeral.iter().enumerate() {
        // No part of its own spec decides anything here: it has no probes and is never started again.
        advance(pod, &Spec::default(), Slot::Ephemeral(i), container, now, decision);
    }
}

/// A container waits for the `postStart` of those before it.
fn run_main(spec: &PodSpec, local: &Local, now: Timestamp, decision: &mut Decision) {
    for (i, (main, container)) in spec.containers.iter().zip(&local.main).enumerate() {
        advance(spec, main, Slot::Main(i), container, now, decision);
        let starting = container.state == State::Starting || decision.actions.contains(&Action::Start(Slot::Main(i)));
        if starting && main.lifecycle.as_ref().is_some_and(|l| l.post_start.is_some()) {
            break;
        }
    }
}

fn advance(pod: &PodSpec, spec: &Spec, slot: Slot, container: &Container, now: Timestamp, decision: &mut Decision) {
    let at = match &container.state {
        State::Waiting => container.startable_at(now),
        State::Stuck(failure) => {
            let shown = after(failure.at, IMAGE_ERROR_SHOWN_SECONDS);
            if failure.reason == FailureReason::ErrImagePull && now < shown {
                decision.wake(shown);
            }
            failure.retry_at
        }
        State::Ended(ended) if restarts(pod, slot, spec, ended) => container.crash.ready_at(SLOW, ended.finished),
        State::Running { .. } => return probe(slot, container, now, decision),
        _ => return,
    };
    if at <= now {
        decision.actions.push(Action::Start(slot));
    } else {
        decision.wake(at);
    }
}

fn probe(slot: Slot, container: &Container, now: Timestamp, decision: &mut Decision) {
    let Some(probes) = &container.probes else { return };
    decision.actions.extend(probes.due(now).map(|kind| Action::Probe(slot, kind)));
    if let Some(at) = probes.wake_at(now) {
        decision.wake(at);
    }
}

/// Whether nothing of the pod but its sidecars will run any more.
fn settled(spec: &PodSpec, local: &Local) -> bool {
    let stays = |slot, spec_of: &Spec, container: &Container| matches!(&container.state, State::Ended(ended) if !restarts(spec, slot, spec_of, ended));
    let mut main = spec.containers.iter().zip(&local.main).enumerate();
    if !local.main.is_empty() && main.all(|(i, (spec, c))| stays(Slot::Main(i), spec, c)) {
        return true;
    }
    let mut init = spec.init_containers.iter().flatten().zip(&local.init).enumerate();
    let failed = |c: &Container| matches!(&c.state, State::Ended(ended) if ended.exit_code != 0);
    !local.begun() && init.any(|(i, (spec, c))| failed(c) && stays(Slot::Init(i), spec, c))
}

/// Whether a container has ended in a way that begins the whole pod anew.
fn all_again(pod: &Pod, spec: &PodSpec, local: &Local) -> bool {
    local.lasting().any(|(slot, container)| match (&container.state, slot.spec(pod)) {
        (State::Ended(ended), Some(of)) => after_end(spec, slot, &of, ended.exit_code) == AfterEnd::AllAgain,
        _ => false,
    })
}
