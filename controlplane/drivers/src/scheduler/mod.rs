//! [`Scheduler`]: gives pods their nodes: mirrors -> snapshot and queue -> `schedule` -> assume -> bind.
//!
//! One task owns snapshot and queue and decides one pod after another; bindings (and the conditions of pods that fit
//! nowhere) are written by tasks of their own, many at a time, while it goes on deciding on the assumed state.
//! Invariants: an assumed pod is confirmed by its mirror or forgotten when its binding fails; a pod that is bound,
//! finished, terminating, gone or somebody else's is never tried; while something is written for a pod it is not tried
//! again. Losing its memory costs only time.

pub(crate) mod metrics;
mod state;
mod write;

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use podium_api::{
    ApiError, Kind, Object, Reason,
    k8s_openapi::api::{
        core::v1::{Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod},
        policy::v1::PodDisruptionBudget,
        storage::v1::{CSINode, StorageClass},
    },
    kind_of,
};
use podium_client::{ApiRef, ClockRef, Delta, Mirror, MirrorScope, Recorder, SystemClock};
use podium_scheduler::{Config, PodInfo};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
    time::Instant,
};

use self::{
    metrics::SchedulerMetrics,
    state::{Decided, Provisioned, State},
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
    /// Scheduler names, and for each its plugins.
    pub config: Arc<Config>,
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
            config: Arc::new(Config::default()),
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
    feeds: Feeds,
    pods: Arc<dyn Mirror>,
    state: State,
    writer: Arc<Writer>,
    writes: JoinSet<(Written, Instant)>,
    writes_max: usize,
    started: Instant,
    metrics: SchedulerMetrics,
}

/// The deltas of all kinds that matter: pods last, so that they find what they need.
struct Feeds(Vec<mpsc::UnboundedReceiver<Delta>>);

impl Feeds {
    /// The next delta of any kind; an error when a mirror ended.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Delta, ApiError>> {
        for feed in &mut self.0 {
            if let Poll::Ready(delta) = feed.poll_recv(context) {
                return Poll::Ready(delta.ok_or_else(|| ApiError::internal("a mirror of the scheduler ended")));
            }
        }
        Poll::Pending
    }

    /// Hands over what has been delivered, at most [`DELTAS_MAX`] of each kind.
    fn drain(&mut self, mut take: impl FnMut(&Delta)) {
        for feed in &mut self.0 {
            for _ in 0..DELTAS_MAX {
                let Ok(delta) = feed.try_recv() else { break };
                take(&delta);
            }
        }
    }
}

impl Run {
    async fn open(api: ApiRef, config: &SchedulerConfig) -> Result<Self, ApiError> {
        let pods = mirror::<Pod>(&api).await?;
        let others = [
            mirror::<Node>(&api).await?,
            mirror::<Namespace>(&api).await?,
            mirror::<StorageClass>(&api).await?,
            mirror::<CSINode>(&api).await?,
            mirror::<PersistentVolume>(&api).await?,
            mirror::<PersistentVolumeClaim>(&api).await?,
            mirror::<PodDisruptionBudget>(&api).await?,
        ];
        let recorder = |name: &String| {
            (name.clone(), Recorder::start(Arc::clone(&api), Arc::clone(&config.clock), name, &config.host))
        };
        let names = config.config.profiles.iter().map(|profile| &profile.scheduler_name);
        let recorders = names.map(recorder).collect();
        Ok(Self {
            feeds: Feeds(others.iter().chain([&pods]).map(|mirror| mirror.subscribe()).collect()),
            pods,
            state: State::new(Arc::clone(&config.config), config.seed),
            writer: Arc::new(Writer { api, recorders, clock: Arc::clone(&config.clock) }),
            writes: JoinSet::new(),
            writes_max: config.writes_at_once.max(1),
            started: Instant::now(),
            metrics: config.metrics.scheduler.clone(),
        })
    }

    async fn run(mut self, mut stop: watch::Receiver<bool>) -> Result<(), ApiError> {
        loop {
            self.take_in();
            let tried = self.try_pods();
            self.metrics.show(self.state.pending(), self.state.sizes(), self.writes.len());
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
                delta = poll_fn(|context| self.feeds.poll(context)) => {
                    let now = self.started.elapsed();
                    self.state.take(&delta?, now);
                }
                () = at(due) => {}
            }
        }
        while self.writes.join_next().await.is_some() {}
        Ok(())
    }

    /// Takes in what has happened.
    fn take_in(&mut self) {
        let now = self.started.elapsed();
        let state = &mut self.state;
        self.feeds.drain(|delta| state.take(delta, now));
        while let Some(written) = self.writes.try_join_next() {
            self.settle(written);
        }
        for provisioned in self.state.provisioned(now) {
            match provisioned {
                Provisioned::Bind { queued, node } => self.spawn(Instant::now(), |w| w.bind(queued, node)),
                Provisioned::Late { queued } => {
                    self.writer.late(&queued.pod);
                    let seen = self.seen(&queued.pod);
                    self.state.not_bound(queued, seen.as_deref(), now);
                }
            }
        }
    }

    /// Tries pods while any are ready and their bindings may be written; returns how many.
    fn try_pods(&mut self) -> usize {
        for tried in 0..PODS_MAX {
            if self.writes.len() >= self.writes_max {
                return tried;
            }
            let since = Instant::now();
            let Some(decided) = self.state.decide(self.started.elapsed()) else { return tried };
            self.metrics.decided(since.elapsed());
            self.write(decided, since);
        }
        PODS_MAX
    }

    fn write(&mut self, decided: Decided, since: Instant) {
        let refused = |metrics: &SchedulerMetrics, pod: &PodInfo| {
            metrics.attempt("unschedulable", &pod.scheduler_name, since.elapsed());
        };
        match decided {
            Decided::Bind { queued, node } => self.spawn(since, |writer| writer.bind(queued, node)),
            Decided::Provision { pod, node, volumes } => self.spawn(since, |w| w.provision(pod, node, volumes)),
            Decided::Unschedulable { pod, refusal } => {
                refused(&self.metrics, &pod);
                if let Some(seen) = self.pods.get(&pod.key).filter(|o| o.uid() == pod.uid) {
                    self.spawn(since, |writer| writer.unschedulable(pod, seen, refusal));
                }
            }
            Decided::Preempt { queued, refusal, preemption } => {
                refused(&self.metrics, &queued.pod);
                self.metrics.preemption(preemption.victims.len());
                match self.pods.get(&queued.pod.key).filter(|o| o.uid() == queued.pod.uid) {
                    Some(seen) => self.spawn(since, |writer| writer.preempt(queued, seen, refusal, preemption)),
                    None => self.state.preempted(queued, None, &[], (None, self.started.elapsed())),
                }
            }
        }
    }

    fn spawn<F>(&mut self, since: Instant, write: impl FnOnce(Arc<Writer>) -> F)
    where
        F: Future<Output = Written> + Send + 'static,
    {
        let written = write(Arc::clone(&self.writer));
        self.writes.spawn(async move { (written.await, since) });
    }

    /// A write has ended.
    fn settle(&mut self, written: Result<(Written, Instant), tokio::task::JoinError>) {
        let Ok((written, since)) = written else { return };
        let now = self.started.elapsed();
        match written {
            Written::Done => {}
            Written::Bound(queued) => {
                self.metrics.attempt("scheduled", &queued.pod.scheduler_name, since.elapsed());
                self.metrics.bound(queued.attempts, now.saturating_sub(queued.since));
            }
            Written::NotBound(queued) => {
                self.metrics.attempt("error", &queued.pod.scheduler_name, since.elapsed());
                let seen = self.seen(&queued.pod);
                self.state.not_bound(queued, seen.as_deref(), now);
            }
            Written::NotProvisioned { uid } => {
                let Some(queued) = self.state.not_provisioned(&uid) else { return };
                self.metrics.attempt("error", &queued.pod.scheduler_name, since.elapsed());
                let seen = self.seen(&queued.pod);
                self.state.not_bound(queued, seen.as_deref(), now);
            }
            Written::Preempted { queued, unblocked_by, victims, missed } => {
                let seen = self.seen(&queued.pod);
                let unblocked_by = (!missed).then_some(unblocked_by);
                self.state.preempted(queued, unblocked_by, &victims, (seen.as_deref(), now));
            }
        }
    }

    /// A pod as its mirror shows it now.
    fn seen(&self, pod: &PodInfo) -> Option<Arc<Pod>> {
        let seen = self.pods.get(&pod.key).filter(|o| o.uid() == pod.uid);
        seen.and_then(<dyn Object>::downcast_arc::<Pod>)
    }
}

async fn mirror<K: Kind>(api: &ApiRef) -> Result<Arc<dyn Mirror>, ApiError> {
    let kind = kind_of::<K>();
    let mirror = tokio::time::timeout(READY_TIMEOUT, api.mirror(&kind, MirrorScope::default())).await;
    let late = || ApiError::new(Reason::Timeout, format!("no mirror of {} in time", K::NAMES.plural));
    mirror.map_err(|_| late())?
}
