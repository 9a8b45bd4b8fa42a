//! Ending containers: `preStop`, then no new requests once nobody sends any, then those under way, then the rest. Sidecars
//! end after what they serve, the last one first. All within the grace of the pod, which may shrink meanwhile.
//!
//! # Source
//! Kubernetes `pkg/kubelet/kuberuntime/kuberuntime_container.go` (`killContainer`) and
//! `kuberuntime_termination_order.go`.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc, time::Duration};

use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use podium_sandbox::{Ending, Usage};
use tokio::sync::watch;

use super::{
    PodId, Report, Shared,
    deadline::Deadline,
    guest::{Guest, Runtime},
    hooks::{self, Hook},
    termination,
};
use crate::decide::{local::Slot, restart::is_sidecar};

/// What every container gets after its `preStop`, however long that took.
const MINIMUM: Duration = Duration::from_secs(2);

/// A pod to end.
pub(crate) struct Job {
    pub(crate) id: PodId,
    pub(crate) pod: Arc<Pod>,
    pub(crate) ip: Option<IpAddr>,
    pub(crate) deadline: Deadline,
    pub(crate) runtimes: Vec<(Slot, Runtime)>,
}

/// How one container ended.
pub(crate) struct Stopped {
    pub(crate) slot: Slot,
    pub(crate) ending: Ending,
    /// What it left to say.
    pub(crate) message: Option<String>,
}

/// Ends it and reports how its containers ended.
pub(crate) async fn stop(shared: Arc<Shared>, job: Job) {
    let Job { id, pod, ip, deadline, runtimes } = job;
    let order = Order::new(runtimes.iter().map(|(slot, _)| *slot));
    let ends = runtimes.into_iter().map(|(slot, runtime)| {
        let (shared, id, pod, deadline, order) = (&shared, &id, &pod, &deadline, &order);
        async move {
            pre_stop(shared, id, pod, slot, ip, &runtime, deadline).await;
            if slot.spec(pod).is_some_and(|spec| is_sidecar(&spec)) {
                deadline.within(order.turn(slot)).await;
            }
            let ending = end(shared, runtime, pod, slot, &deadline.at_least(MINIMUM)).await;
            order.gone(slot);
            ending
        }
    });
    let endings = join_all(ends).await;
    shared.report(Report::Stopped { pod: id, endings });
}

/// One container to end, which is to be started again.
pub(crate) struct Restart {
    pub(crate) id: PodId,
    pub(crate) pod: Arc<Pod>,
    pub(crate) ip: Option<IpAddr>,
    pub(crate) slot: Slot,
    pub(crate) runtime: Runtime,
    pub(crate) deadline: Deadline,
}

/// Ends one container and reports that.
pub(crate) async fn restart(shared: Arc<Shared>, job: Restart) {
    let Restart { id, pod, ip, slot, runtime, deadline } = job;
    let run = runtime.id.clone();
    pre_stop(&shared, &id, &pod, slot, ip, &runtime, &deadline).await;
    let Stopped { ending, message, .. } = end(&shared, runtime, &pod, slot, &deadline.at_least(MINIMUM)).await;
    let ending = match ending {
        // It did not end by itself, whatever became of its requests.
        Ending::Finished { code: 0 } => Ending::Killed,
        ending => ending,
    };
    shared.report(Report::Ended { pod: id, slot, run, ending, message });
}

async fn end(shared: &Shared, runtime: Runtime, pod: &Pod, slot: Slot, deadline: &Deadline) -> Stopped {
    let (guest, left) = (runtime.guest.clone(), runtime.left.clone());
    let ending = runtime.end(deadline).await;
    count(shared, &guest);
    let message = termination::message(shared, pod, slot, &left, &ending).await;
    Stopped { slot, ending, message }
}

/// Adds what an ended container has used to the metrics.
pub(crate) fn count(shared: &Shared, guest: &Guest) {
    let Usage { cpu, throttled, .. } = guest.usage();
    shared.metrics.cpu_seconds.inc_by(cpu.as_secs_f64());
    shared.metrics.throttled_seconds.inc_by(throttled.as_secs_f64());
}

async fn pre_stop(
    shared: &Shared,
    id: &PodId,
    pod: &Arc<Pod>,
    slot: Slot,
    ip: Option<IpAddr>,
    runtime: &Runtime,
    deadline: &Deadline,
) {
    let spec = slot.spec(pod);
    let hook = spec.as_ref().and_then(|spec| spec.lifecycle.as_ref()?.pre_stop.as_ref());
    let (Some(handler), Some(ip)) = (hook, ip) else { return };
    let hook = Hook { id, pod, slot, ip, runtime, handler };
    // One that takes too long is left behind without a word, as kubelet does it.
    if let Some(Err(why)) = deadline.within(Box::pin(hooks::run(shared, hook))).await {
        tracing::info!(pod = %id.key, why, "a preStop hook failed");
        shared.note(pod, Some(slot), true, "FailedPreStopHook", "PreStopHook failed");
    }
}

/// Who is still there.
struct Order(watch::Sender<BTreeSet<Slot>>);

impl Order {
    fn new(slots: impl Iterator<Item = Slot>) -> Self {
        Self(watch::Sender::new(slots.collect()))
    }

    /// Waits until nobody is there who might need this sidecar: containers, and sidecars that started after it.
    async fn turn(&self, sidecar: Slot) {
        let needed = |left: &BTreeSet<Slot>| left.iter().any(|slot| *slot > sidecar);
        // It cannot be an error: this holds the sender.
        let _ = self.0.subscribe().wait_for(|left| !needed(left)).await;
    }

    fn gone(&self, slot: Slot) {
        self.0.send_modify(|left| {
            left.remove(&slot);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sidecars_go_last_and_in_reverse() {
        let (first, second, main) = (Slot::Init(0), Slot::Init(2), Slot::Main(0));
        let order = Order::new([first, second, main].into_iter());
        let free = |slot| futures::FutureExt::now_or_never(order.turn(slot)).is_some();
        assert!(!free(first) && !free(second));
        order.gone(main);
        assert!(!free(first) && free(second));
        order.gone(second);
        assert!(free(first));
    }
}
