//! A pod's status from what runs here: phase, conditions, container statuses, in Kubernetes' words.
//!
//! # Source
//! Kubernetes `pkg/kubelet/kubelet_pods.go` (`getPhase`, `convertToAPIContainerStatuses`) and `pkg/kubelet/status/generate.go`.

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{
        Container as Spec, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
        ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodSpec, PodStatus,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::{
    IMAGE_ERROR_SHOWN_SECONDS,
    admission::Rejection,
    backoff::{SLOW, after},
    ephemeral,
    local::{Container, Ended, Failure, FailureReason, Local, Slot, State, Stopping},
    resources::qos_class,
    restart::{is_sidecar, restarts},
};

/// What is the same for all pods of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Facts {
    /// The node's address.
    pub(crate) host_ip: IpAddr,
}

/// The conditions that are this agent's; others are carried over.
const OWN: [&str; 7] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
    "PodResizePending",
    "PodResizeInProgress",
];

/// The status that a pod should have.
pub(crate) fn status(
    pod: &Pod,
    spec: &PodSpec,
    local: &Local,
    prior: &PodStatus,
    facts: &Facts,
    now: Timestamp,
) -> PodStatus {
    let init_specs = spec.init_containers.as_deref().unwrap_or_default();
    let init = statuses(pod, spec, init_specs, &local.init, Slot::Init, now);
    let main = statuses(pod, spec, &spec.containers, &local.main, Slot::Main, now);
    let ephemeral = statuses(pod, spec, &ephemeral::containers(spec), &local.ephemeral, Slot::Ephemeral, now);
    let terminal = local.stopping == Stopping::Done;
    let failed = local.failed.is_some() && terminal;
    let phase = match if failed { "Failed" } else { phase(spec, &init, &main, terminal) } {
        // Nothing ends for good while something of it runs.
        "Succeeded" | "Failed" if local.busy() => {
            if local.begun() {
                "Running"
            } else {
                "Pending"
            }
        }
        phase => phase,
    };
    let conditions = Conditions { pod, spec, init: &init, main: &main, phase, local, prior, now }.all();
    let ip = local.ip.map(|ip| ip.to_string());
    let host_ip = facts.host_ip.to_string();
    let current = pod.status.as_ref();
    PodStatus {
        conditions: Some(conditions),
        container_statuses: Some(main),
        ephemeral_container_statuses: (!ephemeral.is_empty()).then_some(ephemeral),
        host_ip: Some(host_ip.clone()),
        host_ips: Some(vec![HostIP { ip: host_ip }]),
        init_container_statuses: (!init.is_empty()).then_some(init),
        message: local.failed.as_ref().map(|(_, message)| message.clone()),
        observed_generation: pod.metadata.generation,
        phase: Some(phase.to_owned()),
        pod_ips: ip.clone().map(|ip| vec![PodIP { ip }]),
        pod_ip: ip,
        qos_class: current.and_then(|s| s.qos_class.clone()).or_else(|| Some(qos_class(spec).to_owned())),
        reason: local.failed.as_ref().map(|(reason, _)| (*reason).to_owned()),
        start_time: Some(time(local.since)),
        nominated_node_name: current.and_then(|s| s.nominated_node_name.clone()),
        ..PodStatus::default()
    }
}

/// The status of a pod that the node does not take: it has failed, and nothing of it ran.
///
/// # Source
/// Kubernetes `pkg/kubelet/kubelet.go`, `rejectPod`.
pub(crate) fn rejected(pod: &Pod, spec: &PodSpec, local: &Local, rejection: &Rejection) -> PodStatus {
    let current = pod.status.clone().unwrap_or_default();
    PodStatus {
        observed_generation: pod.metadata.generation,
        phase: Some("Failed".to_owned()),
        qos_class: current.qos_class.clone().or_else(|| Some(qos_class(spec).to_owned())),
        reason: Some(rejection.reason.to_owned()),
        message: Some(format!("Pod was rejected: {}", rejection.message)),
        start_time: Some(time(local.since)),
        ..current
    }
}

/// Whether the `Ready` condition is true.
#[cfg(test)]
pub(crate) fn is_ready(status: &PodStatus) -> bool {
    status.conditions.iter().flatten().any(|c| c.type_ == "Ready" && c.status == "True")
}

/// Kubernetes shows times with whole seconds.
pub(crate) fn time(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

fn statuses(
    pod: &Pod,
    pod_spec: &PodSpec,
    specs: &[Spec],
    local: &[Container],
    slot: fn(usize) -> Slot,
    now: Timestamp,
) -> Vec<ContainerStatus> {
    let has_init = pod_spec.init_containers.as_ref().is_some_and(|i| !i.is_empty());
    let waiting_for = if has_init { "PodInitializing" } else { "ContainerCreating" };
    let one = |(i, (spec, container)): (usize, (&Spec, &Container))| {
        let view = View { pod, pod_spec, spec, container, slot: slot(i), now, waiting_for };
        let finite_init = matches!(view.slot, Slot::Init(_)) && !is_sidecar(spec);
        view.status(finite_init)
    };
    specs.iter().zip(local).enumerate().map(one).collect()
}

struct View<'a> {
    pod: &'a Pod,
    pod_spec: &'a PodSpec,
    spec: &'a Spec,
    container: &'a Container,
    slot: Slot,
    now: Timestamp,
    waiting_for: &'static str,
}

impl View<'_> {
    fn status(&self, finite_init: bool) -> ContainerStatus {
        let (state, last) = self.states();
        let done = matches!(&self.container.state, State::Ended(e) if e.exit_code == 0);
        let run = self.container.run.as_ref();
        // What nobody probes is neither ready nor started, as kubelet has it.
        let lasting = !self.slot.is_ephemeral();
        let allocated = self.container.allocated.as_deref().filter(|_| self.container.busy());
        ContainerStatus {
            allocated_resources: allocated.and_then(|r| r.requests.clone()),
            resources: (lasting && self.container.busy()).then(|| allocated.cloned().unwrap_or_default()),
            container_id: run.map(|r| r.id.clone()),
            image: self.spec.image.clone().unwrap_or_default(),
            image_id: run.map(|r| r.image_id.clone()).unwrap_or_default(),
            last_state: Some(last.map(terminated).unwrap_or_default()),
            name: self.spec.name.clone(),
            ready: if finite_init { done } else { lasting && self.container.is_ready() },
            restart_count: self.container.restarts,
            started: lasting.then(|| self.container.is_started()),
            state: Some(state),
            ..ContainerStatus::default()
        }
    }

    fn states(&self) -> (ContainerState, Option<&Ended>) {
        let last = self.container.last.as_deref();
        match &self.container.state {
            State::Waiting => (waiting(self.waiting_for, None), last),
            State::Starting => match last {
                // Between two runs the end of the first is still what there is to show.
                Some(ended) => (terminated(ended), None),
                None => (waiting("ContainerCreating", None), None),
            },
            State::Stuck(failure) => (self.stuck(failure), last),
            State::Running { since } | State::Killing { since } => (running(*since), last),
            State::Ended(ended) => match self.crash_loop(ended) {
                Some(message) => (waiting("CrashLoopBackOff", Some(message)), Some(ended)),
                None => (terminated(ended), last),
            },
        }
    }

    fn stuck(&self, failure: &Failure) -> ContainerState {
        let shown = after(failure.at, IMAGE_ERROR_SHOWN_SECONDS);
        if failure.reason == FailureReason::ErrImagePull && self.now >= shown {
            let image = self.spec.image.as_deref().unwrap_or_default();
            let message = format!("Back-off pulling image {image:?}: ErrImagePull: {}", failure.message);
            return waiting("ImagePullBackOff", Some(message));
        }
        waiting(failure.reason.as_str(), Some(failure.message.clone()))
    }

    fn crash_loop(&self, ended: &Ended) -> Option<String> {
        let waits = restarts(self.pod_spec, self.slot, self.spec, ended)
            && self.pod.metadata.deletion_timestamp.is_none()
            && self.container.crash.ready_at(SLOW, ended.finished) > self.now;
        let seconds = self.container.crash.delay_seconds();
        waits.then(|| {
            format!(
                "back-off {} restarting failed container={} pod={}",
                span(seconds),
                self.spec.name,
                pod_words(self.pod)
            )
        })
    }
}

/// A pod as kubelet's messages name it: `name_namespace(uid)`.
pub(crate) fn pod_words(pod: &Pod) -> String {
    let meta = &pod.metadata;
    let of = |text: &Option<String>| text.clone().unwrap_or_default();
    format!("{}_{}({})", of(&meta.name), of(&meta.namespace), of(&meta.uid))
}

/// Go's way to print whole seconds: `10s`, `2m40s`, `5m0s`.
fn span(seconds: i64) -> String {
    if seconds < 60 { format!("{seconds}s") } else { format!("{}m{}s", seconds / 60, seconds % 60) }
}

fn waiting(reason: &str, message: Option<String>) -> ContainerState {
    let waiting = ContainerStateWaiting { reason: Some(reason.to_owned()), message };
    ContainerState { waiting: Some(waiting), ..ContainerState::default() }
}

fn running(since: Timestamp) -> ContainerState {
    let running = ContainerStateRunning { started_at: Some(time(since)) };
    ContainerState { running: Some(running), ..ContainerState::default() }
}

fn terminated(ended: &Ended) -> ContainerState {
    let terminated = ContainerStateTerminated {
        container_id: ended.id.clone(),
        exit_code: ended.exit_code,
        finished_at: Some(time(ended.finished)),
        message: ended.message.clone(),
        reason: Some(ended.reason.clone()),
        started_at: ended.started.map(time),
        signal: None,
    };
    ContainerState { terminated: Some(terminated), ..ContainerState::default() }
}

#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    waiting: usize,
    running: usize,
    stopped: usize,
    succeeded: usize,
    /// Of those that stopped: how many are started again.
    again: usize,
}

fn tally(pod: &PodSpec, statuses: &[ContainerStatus]) -> Tally {
    let mut tally = Tally::default();
    for (i, (spec, status)) in pod.containers.iter().zip(statuses).enumerate() {
        let state = status.state.as_ref();
        let before = || status.last_state.as_ref().and_then(|s| s.terminated.as_ref());
        if state.is_some_and(|s| s.running.is_some()) {
            tally.running += 1;
        } else if let Some(ended) = state.and_then(|s| s.terminated.as_ref()) {
            tally.stopped += 1;
            tally.succeeded += usize::from(ended.exit_code == 0);
            tally.again += usize::from(restarts(pod, Slot::Main(i), spec, &Ended::adopt(ended)));
        } else if before().is_some() {
            tally.stopped += 1;
            tally.again += 1;
        } else {
            tally.waiting += 1;
        }
    }
    tally
}

/// The phase. `terminal`: nothing runs any more and nothing will.
fn phase(spec: &PodSpec, init: &[ContainerStatus], main: &[ContainerStatus], terminal: bool) -> &'static str {
    let specs = spec.init_containers.as_deref().unwrap_or_default();
    let begun = main.iter().any(|s| s.container_id.is_some());
    for (i, (of, status)) in specs.iter().zip(init).enumerate().filter(|_| !begun) {
        let ended = status.state.as_ref().and_then(|s| s.terminated.as_ref());
        let pending = if is_sidecar(of) { status.started != Some(true) } else { ended.map(|t| t.exit_code) != Some(0) };
        if pending {
            let stays = ended.is_some_and(|t| !restarts(spec, Slot::Init(i), of, &Ended::adopt(t)));
            return if stays && !is_sidecar(of) { "Failed" } else { not_begun(main, terminal) };
        }
    }
    let tally = tally(spec, main);
    let ended = if tally.stopped == tally.succeeded { "Succeeded" } else { "Failed" };
    match () {
        () if tally.waiting > 0 => not_begun(main, terminal),
        () if tally.running > 0 => "Running",
        () if tally.stopped == 0 => "Pending",
        () if terminal => ended,
        () if tally.again > 0 => "Running",
        () => ended,
    }
}

/// A pod that ends before all of it has run has failed.
fn not_begun(main: &[ContainerStatus], terminal: bool) -> &'static str {
    let running = main.iter().any(|s| s.state.as_ref().is_some_and(|s| s.running.is_some()));
    if terminal && !running { "Failed" } else { "Pending" }
}

struct Conditions<'a> {
    pod: &'a Pod,
    spec: &'a PodSpec,
    init: &'a [ContainerStatus],
    main: &'a [ContainerStatus],
    phase: &'static str,
    local: &'a Local,
    prior: &'a PodStatus,
    now: Timestamp,
}

/// `None`: true. Else reason and message.
type Unmet = Option<(&'static str, Option<String>)>;

impl Conditions<'_> {
    fn all(&self) -> Vec<PodCondition> {
        let foreign = self.pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
        let foreign: Vec<_> = foreign.filter(|c| !OWN.contains(&c.type_.as_str())).cloned().collect();
        let containers_ready = self.containers_ready();
        let ready = containers_ready.clone().or_else(|| self.gates(&foreign));
        let addressed = self.local.ip.is_none() || self.local.stopping == Stopping::Done;
        let mut all = vec![
            self.condition("PodReadyToStartContainers", addressed.then_some(("", None))),
            self.condition("Initialized", self.initialized()),
            self.condition("Ready", ready),
            self.condition("ContainersReady", containers_ready),
            self.condition("PodScheduled", None),
        ];
        if let Some(unresized) = &self.local.unresized {
            let unmet = Some((unresized.reason, Some(unresized.message.clone())));
            all.push(PodCondition { status: "True".to_owned(), ..self.condition(unresized.condition, unmet) });
        }
        if self.phase == "Succeeded" && all[1].reason.is_none() {
            all[1].reason = Some("PodCompleted".to_owned());
        }
        all.extend(foreign);
        if let Some(evicted) = &self.local.evicted {
            all.retain(|c| c.type_ != "DisruptionTarget");
            let unmet = Some(("TerminationByKubelet", Some(evicted.message.clone())));
            all.push(PodCondition { status: "True".to_owned(), ..self.condition("DisruptionTarget", unmet) });
        }
        all
    }

    fn condition(&self, type_: &str, unmet: Unmet) -> PodCondition {
        let status = if unmet.is_none() { "True" } else { "False" };
        let find =
            |s: &PodStatus| s.conditions.iter().flatten().find(|c| c.type_ == type_ && c.status == status).cloned();
        let before = find(self.prior).or_else(|| self.pod.status.as_ref().and_then(find));
        let (reason, message) = unmet.map_or((None, None), |(reason, message)| (Some(reason.to_owned()), message));
        PodCondition {
            last_transition_time: before.and_then(|c| c.last_transition_time).or_else(|| Some(time(self.now))),
            message,
            observed_generation: self.pod.metadata.generation,
            reason: reason.filter(|r| !r.is_empty()),
            status: status.to_owned(),
            type_: type_.to_owned(),
            last_probe_time: None,
        }
    }

    fn initialized(&self) -> Unmet {
        if self.phase == "Succeeded" || self.main.iter().any(|s| s.container_id.is_some()) {
            return None;
        }
        let specs = self.spec.init_containers.as_deref().unwrap_or_default();
        let incomplete = specs
            .iter()
            .zip(self.init)
            .filter(|(spec, status)| if is_sidecar(spec) { status.started != Some(true) } else { !status.ready });
        let names: Vec<_> = incomplete.map(|(spec, _)| spec.name.as_str()).collect();
        let message = || format!("containers with incomplete status: [{}]", names.join(" "));
        (!names.is_empty()).then(|| ("ContainersNotInitialized", Some(message())))
    }

    fn containers_ready(&self) -> Unmet {
        match self.phase {
            "Succeeded" => return Some(("PodCompleted", None)),
            "Failed" => return Some(("PodFailed", None)),
            _ => {}
        }
        let specs = self.spec.init_containers.as_deref().unwrap_or_default();
        let sidecars = specs.iter().zip(self.init).filter(|(spec, _)| is_sidecar(spec)).map(|(_, status)| status);
        let unready = sidecars.chain(self.main).filter(|s| !s.ready);
        let names: Vec<_> = unready.map(|s| s.name.as_str()).collect();
        let message = || format!("containers with unready status: [{}]", names.join(" "));
        (!names.is_empty()).then(|| ("ContainersNotReady", Some(message())))
    }

    fn gates(&self, foreign: &[PodCondition]) -> Unmet {
        let mut unmet = Vec::new();
        for gate in self.spec.readiness_gates.iter().flatten() {
            let name = &gate.condition_type;
            match foreign.iter().find(|c| c.type_ == *name) {
                None => unmet.push(format!("corresponding condition of pod readiness gate {name:?} does not exist.")),
                Some(c) if c.status != "True" => {
                    unmet.push(format!("the status of pod readiness gate {name:?} is not \"True\", but {}", c.status));
                }
                Some(_) => {}
            }
        }
        (!unmet.is_empty()).then(|| ("ReadinessGatesNotReady", Some(unmet.join(", "))))
    }
}

/// Whether a condition is this agent's to set.
pub(crate) fn is_own(type_: &str) -> bool {
    OWN.contains(&type_)
}
