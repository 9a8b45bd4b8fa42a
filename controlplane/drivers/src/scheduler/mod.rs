//! [`Scheduler`]: gives pods their nodes: mirrors -> snapshot and queue -> `schedule` -> assume -> bind.
//!
//! One task owns snapshot and queue and decides one pod after another; bindings (and the conditions of pods that fit
//! nowhere) are written by tasks of their own, many at a time, while it goes on deciding on the assumed state.
//! Invariants: an assumed pod is confirmed by its mirror or forgotten when its binding fails; a pod that is bound,
//! finished, terminating, gone or somebody else's is never tried. Losing its memory costs only time.

mod state;
mod write;

use std::{sync::Arc, time::Duration};

use podium_api::{
    ApiError, Kind, Object, Reason,
    k8s_openapi::api::core::v1::{Node, Pod},
    kind_of,
};
use podium_client::{ApiRef, ClockRef, Delta, Mirror, MirrorScope, Recorder, SystemClock};
use podium_scheduler::Profile;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::Instant,
};

use self::{
    state::{Decided, State},
    write::{Writer, Written},
};
use crate::{
    controller::{at, stopped},
    lease::LeaseConfig,
    manager::{Handle, supervise},
    metrics::Metrics,
};

/// Deltas taken in before pods are tried again.
const DELTAS_MAX: usize = 4096;
/// Pods tried before deltas and other tasks get their turn.
const PODS_MAX: usize = 64;
/// How long a mirror may take to become ready.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// How pods are scheduled.
pub struct SchedulerConfig {
    /// Plugins, and the scheduler's name.
    pub profile: Arc<Profile>,
    /// The time of day.
    pub clock: ClockRef,
    /// How many bindings (and conditions) may be written at a time.
    pub writes_at_once: usize,
    /// Where the ties are broken from; equal seeds and equal input make equal decisions.
    pub seed: u64,
    /// The host in events.
    pub host: String,
    /// The lease to hold while running; `None` on a single node: always leader.
    pub leadership: Option<LeaseConfig>,
    /// Where to count.
    pub metrics: Metrics,
}

impl Default for SchedulerConfig {
    fn default() -> Self {
        Self {
            profile: Arc::new(Profile::default()),
            clock: Arc::new(SystemClock),
            writes_at_once: 256,
            seed: rand::random(),
            host: String::new(),
            leadership: None,
            metrics: Metrics::default(),
        }
    }
}

/// Runs the scheduler. See the module documentation.
pub struct Scheduler;

impl Scheduler {
    /// Starts the scheduler on the current tokio runtime.
    pub fn start(api: ApiRef, config: SchedulerConfig) -> Handle {
        Handle::spawn(move |stop| {
            let (leadership, metrics) = (config.leadership.clone(), config.metrics.clone());
            let config = Arc::new(config);
            supervise(api, leadership, metrics, "scheduler", stop, move |api, stop| {
                let config = Arc::clone(&config);
                async move { Run::open(api, &config).await?.run(stop).await }
            })
        })
    }
}

/// One run, from opening the mirrors to being told to stop.
struct Run {
    pods: mpsc::UnboundedReceiver<Delta>,
    nodes: mpsc::UnboundedReceiver<Delta>,
    pod_mirror: Arc<dyn Mirror>,
    state: State,
    writer: Arc<Writer>,
    writes: JoinSet<Written>,
    writes_max: usize,
    started: Instant,
    metrics: Metrics,
}

impl Run {
    async fn open(api: ApiRef, config: &SchedulerConfig) -> Result<Self, ApiError> {
        let node_mirror = mirror::<Node>(&api).await?;
        let pod_mirror = mirror::<Pod>(&api).await?;
        let component = &config.profile.scheduler_name;
        let recorder = Recorder::start(Arc::clone(&api), Arc::clone(&config.clock), component, &config.host);
        Ok(Self {
            nodes: node_mirror.subscribe(),
            pods: pod_mirror.subscribe(),
            pod_mirror,
            state: State::new(Arc::clone(&config.profile), config.seed),
            writer: Arc::new(Writer { api, recorder, clock: Arc::clone(&config.clock) }),
            writes: JoinSet::new(),
            writes_max: config.writes_at_once.max(1),
            started: Instant::now(),
            metrics: config.metrics.clone(),
        })
    }

    async fn run(mut self, mut stop: watch::Receiver<bool>) -> Result<(), ApiError> {
        loop {
            self.take_in();
            let tried = self.try_pods();
            self.show();
            if tried == PODS_MAX {
                // There may be more: let the bindings get on, then go on.
                tokio::task::yield_now().await;
                continue;
            }
            let blocked = self.writes.len() >= self.writes_max;
            let due = self.state.next_at().filter(|_| !blocked).map(|due| self.started + due);
            tokio::select! {
                biased;
                () = stopped(&mut stop) => break,
                Some(written) = self.writes.join_next(), if !self.writes.is_empty() => self.settle(written),
                delta = self.nodes.recv() => self.state.node(&delta.ok_or_else(ended::<Node>)?, self.now()),
                delta = self.pods.recv() => self.state.pod(&delta.ok_or_else(ended::<Pod>)?, self.now()),
                () = at(due) => {}
            }
        }
        while self.writes.join_next().await.is_some() {}
        Ok(())
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Takes in what has happened: nodes first, so that pods find theirs.
    fn take_in(&mut self) {
        let now = self.now();
        for _ in 0..DELTAS_MAX {
            let Ok(delta) = self.nodes.try_recv() else { break };
            self.state.node(&delta, now);
        }
        for _ in 0..DELTAS_MAX {
            let Ok(delta) = self.pods.try_recv() else { break };
            self.state.pod(&delta, now);
        }
        while let Some(written) = self.writes.try_join_next() {
            self.settle(written);
        }
    }

    /// Tries pods while any are ready and their bindings may be written; returns how many.
    fn try_pods(&mut self) -> usize {
        let now = self.now();
        for tried in 0..PODS_MAX {
            if self.writes.len() >= self.writes_max {
                return tried;
            }
            let Some(decided) = self.state.decide(now) else { return tried };
            let result = if matches!(decided, Decided::Bind { .. }) { "scheduled" } else { "unschedulable" };
            self.metrics.attempts.with_label_values(&[result]).inc();
            self.write(decided);
        }
        PODS_MAX
    }

    fn write(&mut self, decided: Decided) {
        let writer = Arc::clone(&self.writer);
        match decided {
            Decided::Bind { queued, node } => drop(self.writes.spawn(writer.bind(queued, node))),
            Decided::Unschedulable { pod, message } => {
                let seen = self.pod_mirror.get(&pod.key).filter(|o| o.uid() == pod.uid);
                if let Some(seen) = seen {
                    self.writes.spawn(writer.unschedulable(seen, message));
                }
            }
        }
    }

    /// A write has ended.
    fn settle(&mut self, written: Result<Written, tokio::task::JoinError>) {
        let Ok(Written::NotBound(queued)) = written else { return };
        self.metrics.attempts.with_label_values(&["error"]).inc();
        let seen = self.pod_mirror.get(&queued.pod.key).filter(|o| o.uid() == queued.pod.uid);
        let seen = seen.and_then(<dyn Object>::downcast_arc::<Pod>);
        self.state.not_bound(queued, seen.as_deref(), self.started.elapsed());
    }

    fn show(&self) {
        let pending = self.state.pending();
        let parts = [
            ("active", pending.active),
            ("backoff", pending.backoff),
            ("unschedulable", pending.unschedulable),
            ("gated", pending.gated),
        ];
        for (part, pods) in parts {
            self.metrics.pending.with_label_values(&[part]).set(i64::try_from(pods).unwrap_or(i64::MAX));
        }
    }
}

async fn mirror<K: Kind>(api: &ApiRef) -> Result<Arc<dyn Mirror>, ApiError> {
    let kind = kind_of::<K>();
    let mirror = tokio::time::timeout(READY_TIMEOUT, api.mirror(&kind, MirrorScope::default())).await;
    let late = || ApiError::new(Reason::Timeout, format!("no mirror of {} in time", K::NAMES.plural));
    mirror.map_err(|_| late())?
}

fn ended<K: Kind>() -> ApiError {
    ApiError::internal(format!("the mirror of {} ended", K::NAMES.plural))
}
