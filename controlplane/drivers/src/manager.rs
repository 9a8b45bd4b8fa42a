//! [`ControllerManager`]: every controller over shared informers, while this process leads.
//!
//! It starts over, with a back-off, when a mirror cannot be opened or ends, and when leadership is lost. All decisions
//! are level-based, so that starting over loses nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use podium_api::{ApiError, KindRef};
use podium_client::{ApiRef, ClockRef, Delta, Recorder, SystemClock};
use podium_controllers::Controller;
use tokio::{
    sync::{mpsc, watch},
    task::{JoinHandle, JoinSet},
};

use crate::{
    ControllerSettings,
    controller::{Runner, stopped},
    informer::{Informer, KindId, Listener, Views, kind_id},
    lease::{LeaderElector, LeaseConfig},
    metrics::Metrics,
    queue::Queue,
};

/// How controllers run.
pub struct ManagerConfig {
    /// Which controllers; by default all.
    pub controllers: Vec<Arc<dyn Controller>>,
    /// The time of day.
    pub clock: ClockRef,
    /// How many keys of one controller may be written at a time. Resting keys do not count.
    pub workers: usize,
    /// The host in events.
    pub host: String,
    /// The lease to hold while running; `None` on a single node: always leader.
    pub leadership: Option<LeaseConfig>,
    /// Where to count.
    pub metrics: Metrics,
}

impl Default for ManagerConfig {
    fn default() -> Self {
        Self {
            controllers: controllers(ControllerSettings::default()),
            clock: Arc::new(SystemClock),
            workers: 16,
            host: String::new(),
            leadership: None,
            metrics: Metrics::default(),
        }
    }
}

/// Every controller, as an operator wants them.
pub fn controllers(settings: ControllerSettings) -> Vec<Arc<dyn Controller>> {
    podium_controllers::with(settings).into_iter().map(Arc::from).collect()
}

/// Runs the controllers. See the module documentation.
pub struct ControllerManager;

impl ControllerManager {
    /// Starts all controllers on the current tokio runtime.
    pub fn start(api: ApiRef, config: ManagerConfig) -> Handle {
        Handle::spawn(move |stop| {
            supervise(api, config.leadership.clone(), config.metrics.clone(), "controllers", stop, move |api, stop| {
                let run = Run {
                    controllers: config.controllers.clone(),
                    clock: Arc::clone(&config.clock),
                    workers: config.workers.max(1),
                    host: config.host.clone(),
                    metrics: config.metrics.clone(),
                };
                run.run(api, stop)
            })
        })
    }
}

/// A driver that runs.
pub struct Handle {
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Handle {
    pub(crate) fn spawn<F: Future<Output = ()> + Send + 'static>(
        main: impl FnOnce(watch::Receiver<bool>) -> F,
    ) -> Self {
        let (stop, stopped) = watch::channel(false);
        Self { task: tokio::spawn(main(stopped)), stop }
    }

    /// Stops: what is being written is finished, leadership is given back. Waits for that, at most 30 s.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(true);
        if tokio::time::timeout(Duration::from_secs(30), &mut self.task).await.is_err() {
            tracing::warn!("a driver did not stop within 30 s; cutting it off");
            self.task.abort();
        }
    }

    /// Cuts it off at once, whatever it is doing, as the end of its process would: for simulations. Events that it has
    /// decided to tell may still be told.
    pub fn crash(self) {
        self.task.abort();
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

/// Runs `main` while leading, again and again until told to stop. `main` ends when it is told to stop or has failed.
pub(crate) async fn supervise<F: Future<Output = Result<(), ApiError>> + Send + 'static>(
    api: ApiRef,
    leadership: Option<LeaseConfig>,
    metrics: Metrics,
    name: &'static str,
    mut stop: watch::Receiver<bool>,
    main: impl Fn(ApiRef, watch::Receiver<bool>) -> F + Send + Sync,
) {
    let mut failures = 0;
    while !*stop.borrow() {
        let result = match &leadership {
            None => main(Arc::clone(&api), stop.clone()).await,
            Some(lease) => {
                let elector = LeaderElector::new(Arc::clone(&api), lease.clone(), metrics.clone());
                elector.while_leading(stop.clone(), |stop| main(Arc::clone(&api), stop)).await
            }
        };
        let Err(error) = result else {
            failures = 0;
            continue;
        };
        failures += 1;
        let pause = (crate::queue::backoff(failures) * 20).min(Duration::from_secs(10));
        tracing::warn!(driver = name, %error, ?pause, "stopped; starting over");
        let _ = tokio::time::timeout(pause, stopped(&mut stop)).await;
    }
}

/// One run of all controllers.
struct Run {
    controllers: Vec<Arc<dyn Controller>>,
    clock: ClockRef,
    workers: usize,
    host: String,
    metrics: Metrics,
}

type Source = (Arc<Informer>, mpsc::UnboundedReceiver<Delta>, Vec<Listener>);

impl Run {
    async fn run(self, api: ApiRef, stop: watch::Receiver<bool>) -> Result<(), ApiError> {
        let mut sources = open_all(&api, self.kinds(), &self.clock).await?;
        let runners = self.runners(&api, &sources);
        for (informer, deltas, listeners) in &mut sources {
            let kind = kind_id(&informer.kind.names());
            listeners.extend(runners.iter().flat_map(|runner| runner.listeners(kind)));
            // The state at the start goes in first, so that no controller decides on half of it.
            informer.catch_up(deltas, &[]);
        }
        sources.iter().for_each(queue_everything);
        let (stop_workers, workers_stop) = watch::channel(false);
        let mut workers = JoinSet::new();
        for runner in &runners {
            workers.spawn(Arc::clone(runner).run(self.workers, workers_stop.clone()));
        }
        let built_in = self.kinds().iter().map(|kind| kind_id(&kind.names())).collect();
        let pumps = Pumps { api, clock: self.clock, runners, built_in, custom: BTreeSet::new(), tasks: JoinSet::new() };
        let result = pumps.run(sources, stop).await;
        stop_workers.send_replace(true);
        while workers.join_next().await.is_some() {}
        result
    }

    /// Every kind that some trigger names, once.
    fn kinds(&self) -> Vec<KindRef> {
        let triggers = self.controllers.iter().flat_map(|c| c.triggers());
        let kinds: BTreeMap<KindId, KindRef> = triggers.map(|t| (kind_id(&t.kind.names()), t.kind)).collect();
        kinds.into_values().collect()
    }

    fn runners(&self, api: &ApiRef, sources: &[Source]) -> Vec<Arc<Runner>> {
        let runner = |controller: &Arc<dyn Controller>| {
            let named: Vec<_> = controller.triggers().iter().map(|t| kind_id(&t.kind.names())).collect();
            let informers = sources.iter().map(|(informer, ..)| Arc::clone(informer));
            Arc::new(Runner {
                views: Views::new(informers.filter(|i| named.contains(&kind_id(&i.kind.names()))), self.clock.now()),
                recorder: Recorder::start(Arc::clone(api), Arc::clone(&self.clock), controller.component(), &self.host),
                controller: Arc::clone(controller),
                queue: Queue::default(),
                api: Arc::clone(api),
                clock: Arc::clone(&self.clock),
                metrics: self.metrics.clone(),
            })
        };
        self.controllers.iter().map(runner).collect()
    }
}

/// Tells the listeners of every object that is there.
fn queue_everything((informer, _, listeners): &Source) {
    for new in informer.list(None) {
        let delta = Delta::Put { old: None, new };
        listeners.iter().for_each(|listener| listener(&delta));
    }
}

async fn open_all(api: &ApiRef, kinds: Vec<KindRef>, clock: &ClockRef) -> Result<Vec<Source>, ApiError> {
    let mut sources = Vec::with_capacity(kinds.len());
    for kind in kinds {
        let (informer, deltas) = Informer::open(&**api, kind, Arc::clone(clock)).await?;
        sources.push((informer, deltas, Vec::new()));
    }
    Ok(sources)
}

/// What feeds the informers; those of custom resources come and go with their kinds.
struct Pumps {
    api: ApiRef,
    clock: ClockRef,
    runners: Vec<Arc<Runner>>,
    /// The kinds that have to be there.
    built_in: BTreeSet<KindId>,
    custom: BTreeSet<KindId>,
    tasks: JoinSet<KindId>,
}

impl Pumps {
    /// Runs until told to stop, or until the mirror of a built-in kind ends.
    async fn run(mut self, sources: Vec<Source>, mut stop: watch::Receiver<bool>) -> Result<(), ApiError> {
        sources.into_iter().for_each(|source| self.spawn(source));
        let mut changes = self.api.kinds_changed();
        loop {
            self.follow_kinds().await;
            tokio::select! {
                biased;
                () = stopped(&mut stop) => return Ok(()),
                Some(ended) = self.tasks.join_next() => match ended {
                    Ok(kind) if self.custom.remove(&kind) => self.forget(kind),
                    Ok((_, kind)) => return Err(ApiError::internal(format!("the mirror of {kind} ended"))),
                    Err(_) => return Err(ApiError::internal("the pump of a mirror panicked")),
                },
                () = changed(&mut changes) => {}
            }
        }
    }

    fn spawn(&mut self, (informer, mut deltas, listeners): Source) {
        self.tasks.spawn(async move {
            informer.pump(&mut deltas, &listeners).await;
            kind_id(&informer.kind.names())
        });
    }

    /// Opens what is new among the kinds. What is gone ends by itself.
    async fn follow_kinds(&mut self) {
        for kind in self.api.kinds() {
            let id = kind_id(&kind.names());
            if self.built_in.contains(&id) || self.custom.contains(&id) {
                continue;
            }
            let mut source = match open_all(&self.api, vec![kind], &self.clock).await.map(|mut sources| sources.pop()) {
                Ok(Some(source)) => source,
                // It may be gone again; if not, the next change comes by here.
                Ok(None) => continue,
                Err(error) => {
                    tracing::warn!(kind = id.1, %error, "a custom resource is not watched");
                    continue;
                }
            };
            source.2 = self.runners.iter().filter_map(Runner::listener_of_any).collect();
            source.0.catch_up(&mut source.1, &[]);
            for runner in self.runners.iter().filter(|runner| runner.controller.any_kind().is_some()) {
                runner.views.add(Arc::clone(&source.0));
            }
            queue_everything(&source);
            self.custom.insert(id);
            self.spawn(source);
        }
    }

    fn forget(&self, kind: KindId) {
        self.runners.iter().for_each(|runner| runner.views.remove(kind));
    }
}

/// Waits for a change of the kinds; for ever where there is none.
async fn changed(changes: &mut Option<watch::Receiver<u64>>) {
    if let Some(receiver) = changes
        && receiver.changed().await.is_ok()
    {
        return;
    }
    *changes = None;
    std::future::pending::<()>().await;
}
