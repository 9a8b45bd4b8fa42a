//! Writes pods' status: the newest wins, one write of a pod at a time, a bounded number over all pods.
//!
//! A status that only says that containers are being created waits a moment: usually the next one overtakes it. A pod's
//! removal from the API comes after its last status.

use std::{collections::HashMap, sync::Arc, time::Duration};

use k8s_openapi::{
    api::core::v1::{Pod, PodStatus},
    apimachinery::pkg::apis::meta::v1::{DeleteOptions, Preconditions},
};
use parking_lot::Mutex;
use podium_api::{ApiError, Object, kind_of};
use podium_client::{ApiExt as _, ApiRef, Mirror};
use tokio::{
    sync::{Notify, Semaphore},
    time::{Instant, timeout},
};

use super::{PodId, metrics::Metrics};

/// How long a status that is about to be overtaken may wait.
const SETTLE: Duration = Duration::from_millis(100);
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(10);

/// Writes status in the background.
#[derive(Clone)]
pub(crate) struct StatusWriter(Arc<Inner>);

struct Inner {
    api: ApiRef,
    pods: Arc<dyn Mirror>,
    permits: Semaphore,
    metrics: Metrics,
    waiting: Mutex<HashMap<PodId, Slot>>,
    idle: Notify,
}

#[derive(Default)]
struct Slot {
    status: Option<Arc<PodStatus>>,
    delete: bool,
    due: Option<Instant>,
    hurry: Arc<Notify>,
}

enum Write {
    Status(Arc<PodStatus>),
    Delete,
}

impl StatusWriter {
    pub(crate) fn new(api: ApiRef, pods: Arc<dyn Mirror>, writes_max: usize, metrics: Metrics) -> Self {
        let permits = Semaphore::new(writes_max.max(1));
        Self(Arc::new(Inner { api, pods, permits, metrics, waiting: Mutex::default(), idle: Notify::new() }))
    }

    /// Writes a status, soon. `settling`: another one is expected in a moment.
    pub(crate) fn put(&self, pod: &PodId, status: Arc<PodStatus>, settling: bool) {
        self.change(pod, |slot| {
            slot.status = Some(status);
            // One that waits already is not put off again.
            slot.due = match (settling, slot.due) {
                (false, _) => None,
                (true, due) => Some(due.unwrap_or_else(|| Instant::now() + SETTLE)),
            };
        });
    }

    /// Removes the pod from the API, after its last status.
    pub(crate) fn delete(&self, pod: &PodId) {
        self.change(pod, |slot| {
            slot.delete = true;
            slot.due = None;
        });
    }

    /// The pod has gone: nothing more is to be written.
    pub(crate) fn forget(&self, pod: &PodId) {
        if let Some(slot) = self.0.waiting.lock().get_mut(pod) {
            (slot.status, slot.delete, slot.due) = (None, false, None);
            slot.hurry.notify_one();
        }
    }

    /// Waits until everything is written, at most so long.
    pub(crate) async fn flush(&self, limit: Duration) {
        let idle = async {
            loop {
                let next = self.0.idle.notified();
                tokio::pin!(next);
                next.as_mut().enable();
                if self.0.waiting.lock().is_empty() {
                    return;
                }
                next.await;
            }
        };
        // What is not written is written again by the next process.
        let _ = timeout(limit, idle).await;
    }

    fn change(&self, pod: &PodId, change: impl FnOnce(&mut Slot)) {
        let mut waiting = self.0.waiting.lock();
        let new = !waiting.contains_key(pod);
        let slot = waiting.entry(pod.clone()).or_default();
        change(slot);
        if new {
            tokio::spawn(self.0.clone().write_all(pod.clone()));
        } else if slot.due.is_none() {
            slot.hurry.notify_one();
        }
    }
}

impl Inner {
    /// Writes for one pod until nothing is left to write.
    async fn write_all(self: Arc<Self>, pod: PodId) {
        let mut retry = RETRY_FIRST;
        while let Some(write) = self.next(&pod).await {
            let Ok(_permit) = self.permits.acquire().await else { return };
            let outcome = match &write {
                Write::Status(status) => self.write(&pod, status).await,
                Write::Delete => self.delete(&pod).await,
            };
            match outcome {
                Ok(()) => retry = RETRY_FIRST,
                Err(error) => {
                    tracing::debug!(pod = %pod.key, %error, "a pod's status is not written yet");
                    self.metrics.status_retries.inc();
                    self.again(&pod, write, retry);
                    retry = (retry * 2).min(RETRY_MAX);
                }
            }
        }
    }

    /// The next write when it is due; `None`: nothing is left, and the slot is gone.
    async fn next(&self, pod: &PodId) -> Option<Write> {
        loop {
            let (due, hurry) = {
                let mut waiting = self.waiting.lock();
                let slot = waiting.get_mut(pod)?;
                match slot.due.filter(|due| *due > Instant::now()) {
                    Some(due) => (due, slot.hurry.clone()),
                    None => {
                        slot.due = None;
                        let write = slot.take();
                        if write.is_none() {
                            waiting.remove(pod);
                            self.idle.notify_waiters();
                        }
                        return write;
                    }
                }
            };
            tokio::select! {
                () = tokio::time::sleep_until(due) => {}
                () = hurry.notified() => {}
            }
        }
    }

    /// Puts back what could not be written, unless something newer has come.
    fn again(&self, pod: &PodId, write: Write, after: Duration) {
        let mut waiting = self.waiting.lock();
        let slot = waiting.entry(pod.clone()).or_default();
        match write {
            Write::Status(status) => {
                slot.status.get_or_insert(status);
            }
            Write::Delete => slot.delete = true,
        }
        slot.due = Some(Instant::now() + after);
    }

    async fn write(&self, id: &PodId, status: &PodStatus) -> Result<(), ApiError> {
        let mut current = self.pods.get(&id.key).and_then(|object| object.downcast_arc::<Pod>());
        for _ in 0..4 {
            let Some(pod) = current.take() else { return Ok(()) };
            if super::id_of(&pod) != *id {
                return Ok(());
            }
            let mut new = Pod::clone(&pod);
            new.status = Some(PodStatus { conditions: conditions(&pod, status), ..status.clone() });
            match limited(self.api.update(Box::new(new) as Box<dyn Object>, Some("status"))).await {
                Ok(_) => return Ok(()),
                Err(error) if error.is_not_found() => return Ok(()),
                Err(error) if error.is_conflict() => match limited(self.api.get_typed::<Pod>(&id.key)).await {
                    Ok(pod) => current = Some(pod),
                    Err(error) if error.is_not_found() => return Ok(()),
                    Err(error) => return Err(error),
                },
                Err(error) => return Err(error),
            }
        }
        Err(ApiError::internal("the pod changed again and again"))
    }

    async fn delete(&self, id: &PodId) -> Result<(), ApiError> {
        let preconditions = Preconditions { uid: Some(id.uid.to_string()), resource_version: None };
        let options = DeleteOptions {
            grace_period_seconds: Some(0),
            preconditions: Some(preconditions),
            ..DeleteOptions::default()
        };
        match limited(self.api.delete(&kind_of::<Pod>(), &id.key, options)).await {
            // Another pod has its name by now.
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            outcome => outcome,
        }
    }
}

impl Slot {
    fn take(&mut self) -> Option<Write> {
        if let Some(status) = self.status.take() {
            return Some(Write::Status(status));
        }
        std::mem::take(&mut self.delete).then_some(Write::Delete)
    }
}

/// Ours, and those that others have set meanwhile.
fn conditions(pod: &Pod, status: &PodStatus) -> Option<Vec<k8s_openapi::api::core::v1::PodCondition>> {
    let mut all = status.conditions.clone().unwrap_or_default();
    for foreign in pod.status.iter().flat_map(|s| s.conditions.iter().flatten()) {
        match all.iter_mut().find(|c| c.type_ == foreign.type_) {
            // One of ours that is not there any more is over.
            _ if crate::decide::status::is_own(&foreign.type_) => {}
            Some(ours) => *ours = foreign.clone(),
            None => all.push(foreign.clone()),
        }
    }
    Some(all)
}

async fn limited<T>(call: impl Future<Output = Result<T, ApiError>>) -> Result<T, ApiError> {
    let late = || ApiError::internal(format!("no answer from the API within {} s", WRITE_TIMEOUT.as_secs()));
    timeout(WRITE_TIMEOUT, call).await.unwrap_or_else(|_| Err(late()))
}
