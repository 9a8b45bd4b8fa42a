//! Runs one controller: watch -> keyed queue -> `reconcile` -> apply in order -> rest -> back off.
//!
//! Invariants: one key runs at most once at a time; after a plan wrote something its key rests until the mirrors show
//! it; a panic in a reconcile costs that key a back-off and nobody else anything.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use futures::FutureExt;
use podium_api::ApiError;
use podium_client::{ApiRef, ClockRef, Delta, Recorder};
use podium_controllers::{Controller, Key, Keys, Plan};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
    time::Instant,
};

use crate::{
    apply::Applier,
    informer::{Listener, Views, kind_id},
    metrics::Metrics,
    queue::{Outcome, Queue},
};

/// One controller with its queue.
pub(crate) struct Runner {
    pub(crate) controller: Arc<dyn Controller>,
    pub(crate) views: Views,
    pub(crate) queue: Queue,
    pub(crate) api: ApiRef,
    pub(crate) clock: ClockRef,
    pub(crate) recorder: Recorder,
    pub(crate) metrics: Metrics,
}

impl Runner {
    /// What queues the keys that a delta of this kind concerns; one listener for each trigger of the kind.
    pub(crate) fn listeners(self: &Arc<Self>, kind: crate::informer::KindId) -> Vec<Listener> {
        let triggers = self.controller.triggers().into_iter().filter(|t| kind_id(&t.kind.names()) == kind);
        let listener = |trigger: podium_controllers::Trigger| {
            let runner = Arc::clone(self);
            Box::new(move |delta: &Delta| runner.trigger(trigger.keys, delta)) as Listener
        };
        triggers.map(listener).collect()
    }

    /// What queues the keys that a delta of a kind concerns which came while this was running.
    pub(crate) fn listener_of_any(self: &Arc<Self>) -> Option<Listener> {
        let (runner, keys) = (Arc::clone(self), self.controller.any_kind()?);
        Some(Box::new(move |delta: &Delta| runner.trigger(keys, delta)))
    }

    fn trigger(&self, keys: Keys, delta: &Delta) {
        let objects = match delta {
            Delta::Put { old, new } => [old.as_ref(), Some(new)],
            Delta::Delete { old, .. } => [Some(old), None],
        };
        let [old, new] = objects.map(|object| object.map(|object| &**object));
        if !self.controller.concerns(old, new) {
            return;
        }
        for object in objects.into_iter().flatten() {
            let Ok(keys) = catch_unwind(AssertUnwindSafe(|| keys(&**object, &self.views))) else {
                let controller = self.controller.name();
                tracing::error!(controller, object = %object.key(), "the trigger panicked; the change is ignored");
                continue;
            };
            keys.into_iter().for_each(|key| self.queue.add(key));
        }
    }

    /// Runs until told to stop, with at most `workers` plans being applied at a time; then waits for those under way, but
    /// for no mirror to show what they wrote.
    pub(crate) async fn run(self: Arc<Self>, workers: usize, mut stop: watch::Receiver<bool>) {
        let permits = Arc::new(Semaphore::new(workers));
        let mut tasks = JoinSet::new();
        let depth = self.metrics.depth.with_label_values(&[self.controller.name()]);
        loop {
            while let Ok(permit) = Arc::clone(&permits).try_acquire_owned() {
                let Some(key) = self.queue.pop() else { break };
                tasks.spawn(Arc::clone(&self).run_key(key, permit, stop.clone()));
            }
            depth.set(i64::try_from(self.queue.depth()).unwrap_or(i64::MAX));
            let due = if permits.available_permits() > 0 { self.queue.next_due() } else { None };
            tokio::select! {
                biased;
                () = stopped(&mut stop) => break,
                Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
                () = self.queue.changed() => {}
                () = at(due) => {}
            }
        }
        while tasks.join_next().await.is_some() {}
    }

    async fn run_key(self: Arc<Self>, key: Key, permit: OwnedSemaphorePermit, stop: watch::Receiver<bool>) {
        let name = self.controller.name();
        let started = Instant::now();
        let run = AssertUnwindSafe(self.reconcile(&key, (permit, stop), started)).catch_unwind().await;
        let (result, outcome) = run.unwrap_or_else(|panic| {
            tracing::error!(controller = name, %key, panic = panic_text(&*panic), "the reconcile panicked");
            ("panic", Outcome::Failed)
        });
        self.metrics.reconciles.with_label_values(&[name, result]).inc();
        if self.queue.finish(&key, outcome).is_some() {
            self.metrics.retries.with_label_values(&[name]).inc();
        }
    }

    async fn reconcile(
        &self,
        key: &Key,
        (permit, mut stop): (OwnedSemaphorePermit, watch::Receiver<bool>),
        started: Instant,
    ) -> (&'static str, Outcome) {
        let controller = self.controller.name();
        let Plan { actions, requeue_after } = self.controller.reconcile(key, &self.views, self.clock.now());
        let applier = Applier { api: &*self.api, views: &self.views, recorder: &self.recorder };
        let (expect, result) = applier.apply(actions).await;
        self.metrics.duration.with_label_values(&[controller]).observe(started.elapsed().as_secs_f64());
        // A resting key does no work: others may run meanwhile.
        drop(permit);
        self.queue.wake();
        tokio::select! {
            biased;
            () = stopped(&mut stop) => {}
            rested = expect.rest() => if !rested {
                tracing::warn!(controller, %key, "the mirrors do not show what was written; going on without");
            }
        }
        match result {
            Ok(()) => ("success", Outcome::Done(requeue_after)),
            Err(error) if error.is_conflict() || error.is_not_found() => {
                tracing::debug!(controller, %key, %error, "changed meanwhile; trying again");
                ("error", Outcome::Failed)
            }
            Err(error) => {
                tracing::warn!(controller, %key, %error, "reconcile failed; trying again");
                self.tell(key, &error, &applier).await;
                ("error", Outcome::Failed)
            }
        }
    }

    /// Tells the user what was refused, in the controller's words.
    async fn tell(&self, key: &Key, refused: &ApiError, applier: &Applier<'_>) {
        let plan = self.controller.refused(key, refused, &self.views, self.clock.now());
        if let (_, Err(error)) = applier.apply(plan.actions).await {
            let controller = self.controller.name();
            tracing::debug!(controller, %key, %error, "the refusal could not be told");
        }
    }
}

/// Waits until then; for ever when there is no such time.
pub(crate) async fn at(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// Waits until told to stop (or until nobody is left who could).
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}
