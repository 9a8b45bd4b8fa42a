//! What runs here for one pod, as data, and how it changes: each change is a small pure transition.

use std::{borrow::Cow, net::IpAddr};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container as Spec, ContainerState, ContainerStateTerminated, ContainerStatus, Pod, ResourceRequirements,
};
use podium_sandbox::Ending;

use super::{
    admission::Rejection,
    backoff::{Backoff, QUICK, SLOW},
    ephemeral,
    probe::{Outcome, ProbeKind, Probes, Verdict},
    resize::Unresized,
};

/// Bound on the message of a container's end.
const MESSAGE_BYTES_MAX: usize = 2048;

/// A container of a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Slot {
    /// One of the init containers.
    Init(usize),
    /// One of the containers.
    Main(usize),
    /// One of the ephemeral containers.
    Ephemeral(usize),
}

impl Slot {
    /// Its spec.
    pub(crate) fn spec(self, pod: &Pod) -> Option<Cow<'_, Spec>> {
        let spec = pod.spec.as_ref()?;
        match self {
            Self::Init(i) => spec.init_containers.as_ref()?.get(i).map(Cow::Borrowed),
            Self::Main(i) => spec.containers.get(i).map(Cow::Borrowed),
            Self::Ephemeral(i) => ephemeral::container(spec, i).map(Cow::Owned),
        }
    }

    /// Whether it came to look at the pod, and is no part of what that does.
    pub(crate) fn is_ephemeral(self) -> bool {
        matches!(self, Self::Ephemeral(_))
    }

    /// Where it stands in the spec, as events say it.
    pub(crate) fn field_path(self, name: &str) -> String {
        match self {
            Self::Init(_) => format!("spec.initContainers{{{name}}}"),
            Self::Main(_) => format!("spec.containers{{{name}}}"),
            Self::Ephemeral(_) => format!("spec.ephemeralContainers{{{name}}}"),
        }
    }
}

/// What runs here for one pod.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Local {
    /// Its address.
    pub(crate) ip: Option<IpAddr>,
    /// When the agent first saw it.
    pub(crate) since: Timestamp,
    /// One for each init container.
    pub(crate) init: Vec<Container>,
    /// One for each container.
    pub(crate) main: Vec<Container>,
    /// One for each ephemeral container: more may come while the pod runs.
    pub(crate) ephemeral: Vec<Container>,
    /// Whether all of it is being ended.
    pub(crate) stopping: Stopping,
    /// Why the pod as a whole has failed: reason and message.
    pub(crate) failed: Option<(&'static str, String)>,
    /// Whether the node takes it.
    pub(crate) admission: Admission,
    /// The grace that the end under way was given.
    pub(crate) grace_seconds: Option<i64>,
    /// Why it has to leave the node.
    pub(crate) evicted: Option<Box<Evicted>>,
    /// All of its containers are being ended to be started again.
    pub(crate) all_again: bool,
    /// Why its containers do not have yet what its spec gives them.
    pub(crate) unresized: Option<Box<Unresized>>,
}

/// Whether the node takes a pod.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) enum Admission {
    /// Nobody has looked yet.
    #[default]
    Unasked,
    /// It does.
    Taken,
    /// It does not.
    Refused(Box<Rejection>),
}

/// The node is short of something, or the pod keeps too much.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Evicted {
    pub(crate) grace_seconds: i64,
    pub(crate) message: String,
}

/// How far the end of a pod is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stopping {
    /// It is to run.
    No,
    /// Its containers are being ended.
    Running,
    /// Nothing runs any more.
    Done,
}

/// One container.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Container {
    pub(crate) state: State,
    /// The run before.
    pub(crate) last: Option<Box<Ended>>,
    /// `restartCount`.
    pub(crate) restarts: i32,
    /// Whether it has run at all.
    pub(crate) ran: bool,
    /// Identity of the newest run.
    pub(crate) run: Option<Box<Run>>,
    pub(crate) crash: Backoff,
    pub(crate) start: Backoff,
    pub(crate) probes: Option<Box<Probes>>,
    /// What it was given, which is not what its spec says while a resize waits.
    pub(crate) allocated: Option<Box<ResourceRequirements>>,
}

/// Where one container is.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) enum State {
    /// Not started yet.
    #[default]
    Waiting,
    /// Could not be started.
    Stuck(Box<Failure>),
    /// The driver is starting it.
    Starting,
    /// Runs.
    Running {
        /// Since when.
        since: Timestamp,
    },
    /// Runs, but a probe failed and it is being ended.
    Killing {
        /// Since when it runs.
        since: Timestamp,
    },
    /// Has ended.
    Ended(Box<Ended>),
}

/// Identity of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    /// `podium://…`
    pub(crate) id: String,
    /// The image's name with its digest.
    pub(crate) image_id: String,
}

/// An end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) exit_code: i32,
    pub(crate) reason: String,
    pub(crate) message: Option<String>,
    pub(crate) started: Option<Timestamp>,
    pub(crate) finished: Timestamp,
    pub(crate) id: Option<String>,
}

/// Why a container could not be started: the reason shown in its status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailureReason {
    /// What a volume shows is missing.
    ContainerCreating,
    /// The image cannot be had.
    ErrImagePull,
    /// The image is not here and may not be fetched.
    ErrImageNeverPull,
    /// The image's name is malformed.
    InvalidImageName,
    /// A ConfigMap, a Secret or a key of one is missing.
    CreateContainerConfigError,
    /// The image cannot run here.
    CreateContainerError,
    /// It could be made but not run.
    RunContainerError,
}

impl FailureReason {
    /// As it stands in a status.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::ContainerCreating => "ContainerCreating",
            Self::ErrImagePull => "ErrImagePull",
            Self::ErrImageNeverPull => "ErrImageNeverPull",
            Self::InvalidImageName => "InvalidImageName",
            Self::CreateContainerConfigError => "CreateContainerConfigError",
            Self::CreateContainerError => "CreateContainerError",
            Self::RunContainerError => "RunContainerError",
        }
    }
}

/// A start that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) reason: FailureReason,
    pub(crate) message: String,
    pub(crate) at: Timestamp,
    pub(crate) retry_at: Timestamp,
}

impl Local {
    /// A pod seen for the first time, or again after this process was restarted: what its status says has run is taken
    /// over, what ran in a process that is gone counts as lost.
    pub(crate) fn adopt(pod: &Pod, now: Timestamp) -> Self {
        let status = pod.status.clone().unwrap_or_default();
        let spec = pod.spec.as_ref();
        let names = |list: Option<&Vec<Spec>>| list.into_iter().flatten().map(|c| c.name.clone()).collect::<Vec<_>>();
        let take = |names: Vec<String>, found: &[ContainerStatus]| {
            let of = |name: &String| found.iter().find(|s| s.name == *name);
            names.iter().map(|name| of(name).map_or_else(Container::default, |s| Container::adopt(s, now))).collect()
        };
        Self {
            ip: status.pod_ip.as_deref().and_then(|ip| ip.parse().ok()),
            since: status.start_time.as_ref().map_or(now, |t| t.0),
            init: take(
                names(spec.and_then(|s| s.init_containers.as_ref())),
                &status.init_container_statuses.unwrap_or_default(),
            ),
            main: take(names(spec.map(|s| &s.containers)), &status.container_statuses.unwrap_or_default()),
            ephemeral: take(
                spec.iter().flat_map(|s| s.ephemeral_containers.iter().flatten()).map(|c| c.name.clone()).collect(),
                &status.ephemeral_container_statuses.unwrap_or_default(),
            ),
            stopping: Stopping::No,
            failed: None,
            admission: Admission::Unasked,
            grace_seconds: None,
            evicted: None,
            all_again: false,
            unresized: None,
        }
    }

    /// One container.
    pub(crate) fn container(&mut self, slot: Slot) -> Option<&mut Container> {
        match slot {
            Slot::Init(i) => self.init.get_mut(i),
            Slot::Main(i) => self.main.get_mut(i),
            Slot::Ephemeral(i) => self.ephemeral.get_mut(i),
        }
    }

    /// All containers, init containers first, ephemeral ones last.
    pub(crate) fn containers(&self) -> impl Iterator<Item = (Slot, &Container)> {
        let ephemeral = self.ephemeral.iter().enumerate().map(|(i, c)| (Slot::Ephemeral(i), c));
        self.lasting().chain(ephemeral)
    }

    /// Those that the pod is made of: all but ephemeral ones.
    pub(crate) fn lasting(&self) -> impl Iterator<Item = (Slot, &Container)> {
        let init = self.init.iter().enumerate().map(|(i, c)| (Slot::Init(i), c));
        init.chain(self.main.iter().enumerate().map(|(i, c)| (Slot::Main(i), c)))
    }

    /// The pod has changed: ephemeral containers may have come. They never go, and keep their places.
    pub(crate) fn follow(&mut self, pod: &Pod) {
        let count = pod.spec.as_ref().map_or(0, ephemeral::count);
        if self.ephemeral.len() < count {
            self.ephemeral.resize_with(count, Container::default);
        }
    }

    /// Whether anything runs or is being started.
    pub(crate) fn busy(&self) -> bool {
        self.containers().any(|(_, c)| c.busy())
    }

    /// Whether the init containers are done with: one of the others has been started.
    pub(crate) fn begun(&self) -> bool {
        self.main.iter().any(|c| c.busy() || c.ran && c.state != State::Waiting)
    }

    /// The node takes it: its containers get what its spec says.
    pub(crate) fn taken(&mut self, pod: &Pod) {
        self.admission = Admission::Taken;
        self.allocate(pod);
    }

    /// Its containers have what its spec says from now on.
    pub(crate) fn allocate(&mut self, pod: &Pod) {
        self.unresized = None;
        let specs = pod.spec.as_ref();
        let init = specs.and_then(|s| s.init_containers.as_deref()).unwrap_or_default();
        let main = specs.map(|s| s.containers.as_slice()).unwrap_or_default();
        let pairs = self.init.iter_mut().zip(init).chain(self.main.iter_mut().zip(main));
        for (container, spec) in pairs {
            container.allocated = spec.resources.clone().map(Box::new);
        }
    }

    /// All containers have ended to be started again: from the first init container on.
    pub(crate) fn reset(&mut self) {
        self.all_again = false;
        for container in self.init.iter_mut().chain(&mut self.main) {
            if let State::Ended(_) = container.state
                && let State::Ended(ended) = std::mem::take(&mut container.state)
            {
                container.last = Some(ended);
            }
        }
    }
}

impl Container {
    fn adopt(status: &ContainerStatus, now: Timestamp) -> Self {
        let terminated =
            |state: &Option<ContainerState>| state.as_ref().and_then(|s| s.terminated.as_ref().map(Ended::adopt));
        let running = status.state.as_ref().and_then(|s| s.running.as_ref());
        let last = terminated(&status.last_state);
        let (current, last) = match (terminated(&status.state), running) {
            (Some(ended), _) => (Some(ended), last),
            (None, Some(running)) => (Some(Ended::lost(running.started_at.as_ref().map(|t| t.0), status, now)), last),
            // It waits to be started again: what counts is its last end.
            (None, None) => (last, None),
        };
        Self {
            ran: current.is_some(),
            state: current.map_or(State::Waiting, |ended| State::Ended(Box::new(ended))),
            last: last.map(Box::new),
            restarts: status.restart_count,
            run: status.container_id.clone().map(|id| Box::new(Run { id, image_id: status.image_id.clone() })),
            ..Self::default()
        }
    }

    /// Whether it runs or is being started.
    pub(crate) fn busy(&self) -> bool {
        matches!(self.state, State::Starting | State::Running { .. } | State::Killing { .. })
    }

    /// Whether it is about to become ready: it is being started, or its first probe is being made.
    pub(crate) fn settling(&self, now: Timestamp) -> bool {
        match (&self.state, &self.probes) {
            (State::Starting, _) => true,
            (State::Running { since }, Some(probes)) => {
                !probes.ready() && probes.in_flight() && now.as_second() - since.as_second() <= 1
            }
            _ => false,
        }
    }

    /// Number of the run that would be next, as the log file is named.
    pub(crate) fn next_run(&self) -> i32 {
        if self.ran { self.restarts + 1 } else { self.restarts }
    }

    /// `started` of its status.
    pub(crate) fn is_started(&self) -> bool {
        matches!(self.state, State::Running { .. }) && self.probes.as_ref().is_none_or(|p| p.started())
    }

    /// Whether it should get requests.
    pub(crate) fn is_ready(&self) -> bool {
        matches!(self.state, State::Running { .. }) && self.probes.as_ref().is_none_or(|p| p.ready())
    }

    /// The driver begins to start it.
    pub(crate) fn starting(&mut self, now: Timestamp) {
        match (std::mem::replace(&mut self.state, State::Starting), &self.last) {
            (State::Ended(ended), _) => {
                self.crash.advance(SLOW, ended.finished, now);
                self.last = Some(ended);
            }
            (State::Waiting, Some(last)) => self.crash.advance(SLOW, last.finished, now),
            _ => {}
        }
    }

    /// When it may be started, if it waits for that: at once, or after its back-off.
    pub(crate) fn startable_at(&self, now: Timestamp) -> Timestamp {
        self.last.as_ref().map_or(now, |last| self.crash.ready_at(SLOW, last.finished))
    }

    /// It runs.
    pub(crate) fn started(&mut self, spec: &Spec, run: Run, now: Timestamp) {
        self.restarts = self.next_run();
        self.ran = true;
        self.run = Some(Box::new(run));
        self.start = Backoff::default();
        self.probes = Probes::of(spec, now);
        self.state = State::Running { since: now };
    }

    /// It could not be started; says after how many seconds it is tried again.
    pub(crate) fn failed(&mut self, reason: FailureReason, message: String, now: Timestamp) -> i64 {
        let quick = matches!(reason, FailureReason::ContainerCreating | FailureReason::CreateContainerConfigError);
        let policy = if quick { QUICK } else { SLOW };
        self.start.advance(policy, now, now);
        let retry_at = super::backoff::after(now, self.start.delay_seconds());
        self.state = State::Stuck(Box::new(Failure { reason, message, at: now, retry_at }));
        self.start.delay_seconds()
    }

    /// It has ended. `message`: what it left to say.
    pub(crate) fn ended(&mut self, ending: &Ending, message: Option<String>, now: Timestamp) {
        let started = match &self.state {
            State::Running { since } | State::Killing { since } => Some(*since),
            State::Ended(_) => return,
            _ => None,
        };
        let mut ended = Ended::of(ending, started, now, self.run.as_ref().map(|r| r.id.clone()));
        ended.message = message.or(ended.message);
        self.probes = None;
        self.ran = true;
        self.state = State::Ended(Box::new(ended));
    }

    /// A probe has failed for good: it is being ended.
    pub(crate) fn killing(&mut self) {
        if let State::Running { since } = self.state {
            self.state = State::Killing { since };
        }
    }

    /// The result of a probe.
    pub(crate) fn probed(&mut self, kind: ProbeKind, spec: &Spec, outcome: &Outcome, now: Timestamp) -> Verdict {
        match (&self.state, &mut self.probes, kind.spec(spec)) {
            (State::Running { .. }, Some(probes), Some(spec)) => match outcome {
                Outcome::Success => probes.observe(kind, spec, true, now),
                Outcome::Failed(_) => probes.observe(kind, spec, false, now),
                Outcome::Unknown(_) => {
                    probes.passed_over(kind, spec, now);
                    Verdict::Same
                }
            },
            _ => Verdict::Same,
        }
    }
}

impl Ended {
    fn of(ending: &Ending, started: Option<Timestamp>, finished: Timestamp, id: Option<String>) -> Self {
        let (exit_code, reason, message) = match ending {
            Ending::Finished { code: 0 } => (0, "Completed", None),
            Ending::Finished { code } => (*code, "Error", None),
            // As a process that aborts: 128 + SIGABRT.
            Ending::Trapped { message, backtrace } => (134, "Error", Some(trap(message, backtrace))),
            Ending::OutOfMemory { limit_bytes } => {
                (137, "OOMKilled", Some(format!("the container went past its memory limit of {limit_bytes} bytes")))
            }
            Ending::TimedOut => (137, "Error", Some("the container ran past its deadline".to_owned())),
            Ending::Killed => (137, "Error", None),
        };
        Self { exit_code, reason: reason.to_owned(), message, started, finished, id }
    }

    pub(crate) fn adopt(terminated: &ContainerStateTerminated) -> Self {
        Self {
            exit_code: terminated.exit_code,
            reason: terminated.reason.clone().unwrap_or_default(),
            message: terminated.message.clone(),
            started: terminated.started_at.as_ref().map(|t| t.0),
            finished: terminated.finished_at.as_ref().map_or(Timestamp::UNIX_EPOCH, |t| t.0),
            id: terminated.container_id.clone(),
        }
    }

    fn lost(started: Option<Timestamp>, status: &ContainerStatus, now: Timestamp) -> Self {
        Self {
            exit_code: 137,
            reason: "ContainerStatusUnknown".to_owned(),
            message: Some("The container could not be located: the agent that ran it has ended".to_owned()),
            started,
            finished: now,
            id: status.container_id.clone(),
        }
    }
}

fn trap(message: &str, backtrace: &[String]) -> String {
    let mut text = message.to_owned();
    for frame in backtrace {
        if text.len() + frame.len() > MESSAGE_BYTES_MAX {
            break;
        }
        text.push('\n');
        text.push_str(frame);
    }
    let end = text.floor_char_boundary(MESSAGE_BYTES_MAX);
    text.truncate(end);
    text
}
