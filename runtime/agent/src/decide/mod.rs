//! What one pod needs now: a pure function of its spec, of what runs here for it, and of the time. No I/O, no clock.

pub(crate) mod backoff;
pub(crate) mod env;
pub(crate) mod local;
pub(crate) mod probe;
pub(crate) mod resources;
pub(crate) mod status;
#[cfg(test)]
mod tests;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container as Spec, Pod, PodSpec, PodStatus};

use self::{
    backoff::{SLOW, after},
    local::{Container, Ended, FailureReason, Local, Slot, State, Stopping},
    probe::ProbeKind,
    status::Facts,
};

/// How long `ErrImagePull` is shown before it becomes `ImagePullBackOff`.
pub(crate) const IMAGE_ERROR_SHOWN_SECONDS: i64 = 2;

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Give the pod an address.
    Allocate,
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
        if deleting {
            decision.actions.push(Action::Delete);
        }
        return decision;
    }
    if deleting || local.stopping != Stopping::No {
        stop(pod, local, deleting, &mut decision);
    } else if past_deadline(spec, local, now, &mut decision) {
        let message = "Pod was active on the node longer than the specified deadline".to_owned();
        decision.actions.push(Action::Stop { grace_seconds: grace(pod), failed: Some(("DeadlineExceeded", message)) });
    } else if local.ip.is_none() {
        decision.actions.push(Action::Allocate);
    } else {
        run(spec, local, now, &mut decision);
        if settled(spec, local) && local.busy() {
            // Only sidecars are left.
            decision.actions.push(Action::Stop { grace_seconds: grace(pod), failed: None });
        }
    }
    decision.status = Some(status::status(pod, spec, local, prior, facts, now));
    decision
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
    match local.stopping {
        Stopping::No => decision.actions.push(Action::Stop { grace_seconds: grace(pod), failed: None }),
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

fn run(spec: &PodSpec, local: &Local, now: Timestamp, decision: &mut Decision) {
    let policy = RestartPolicy::of(spec);
    let init_specs = spec.init_containers.as_deref().unwrap_or_default();
    let begun = local.main.iter().any(|c| c.ran || c.busy());
    let mut initialized = true;
    for (i, (spec, container)) in init_specs.iter().zip(&local.init).enumerate() {
        let sidecar = is_sidecar(spec);
        let done = matches!(&container.state, State::Ended(e) if e.exit_code == 0);
        if (begun || done) && !sidecar {
            continue;
        }
        let policy = if sidecar { RestartPolicy::Always } else { policy.for_init() };
        advance(Slot::Init(i), container, policy, now, decision);
        if !(begun || sidecar && container.is_started()) {
            initialized = false;
            break;
        }
    }
    if initialized {
        for (i, container) in local.main.iter().enumerate() {
            advance(Slot::Main(i), container, policy, now, decision);
        }
    }
}

fn advance(slot: Slot, container: &Container, policy: RestartPolicy, now: Timestamp, decision: &mut Decision) {
    let at = match &container.state {
        State::Waiting => now,
        State::Stuck(failure) => {
            let shown = after(failure.at, IMAGE_ERROR_SHOWN_SECONDS);
            if failure.reason == FailureReason::ErrImagePull && now < shown {
                decision.wake(shown);
            }
            failure.retry_at
        }
        State::Ended(ended) if policy.restarts(ended) => container.crash.ready_at(SLOW, ended.finished),
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

/// Whether all containers have ended and none will be started again.
fn settled(spec: &PodSpec, local: &Local) -> bool {
    let policy = RestartPolicy::of(spec);
    !local.main.is_empty()
        && local.main.iter().all(|c| matches!(&c.state, State::Ended(ended) if !policy.restarts(ended)))
}

/// Whether an init container goes on beside the others.
pub(crate) fn is_sidecar(spec: &Spec) -> bool {
    spec.restart_policy.as_deref() == Some("Always")
}

/// `restartPolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

impl RestartPolicy {
    /// A pod's.
    pub(crate) fn of(spec: &PodSpec) -> Self {
        match spec.restart_policy.as_deref() {
            Some("Never") => Self::Never,
            Some("OnFailure") => Self::OnFailure,
            _ => Self::Always,
        }
    }

    /// An init container that succeeded is never run again.
    pub(crate) fn for_init(self) -> Self {
        if self == Self::Always { Self::OnFailure } else { self }
    }

    /// Whether a container that ended so is started again.
    pub(crate) fn restarts(self, ended: &Ended) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => ended.exit_code != 0,
            Self::Never => false,
        }
    }
}
