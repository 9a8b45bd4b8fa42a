//! Ending all containers of a pod: `preStop`, then no new requests once nobody sends any, then those under way, then the
//! rest. All within the grace of the pod.

use std::{net::IpAddr, sync::Arc, time::Duration};

use futures::future::join_all;
use k8s_openapi::api::core::v1::{LifecycleHandler, Pod};
use podium_sandbox::{Ending, Usage};
use tokio::time::Instant;

use super::{
    PodId, Report, Shared,
    guest::{Guest, Runtime},
    probes,
};
use crate::decide::local::Slot;

/// A pod to end.
pub(crate) struct Job {
    pub(crate) id: PodId,
    pub(crate) pod: Arc<Pod>,
    pub(crate) ip: Option<IpAddr>,
    pub(crate) grace: Duration,
    pub(crate) runtimes: Vec<(Slot, Runtime)>,
}

/// Ends it and reports how its containers ended.
pub(crate) async fn stop(shared: Arc<Shared>, job: Job) {
    let deadline = Instant::now() + job.grace;
    let Job { id, pod, ip, runtimes, .. } = job;
    let ends = runtimes.into_iter().map(|(slot, runtime)| {
        let (shared, id, pod) = (&shared, &id, &pod);
        async move {
            pre_stop(shared, id, pod, slot, ip, deadline).await;
            let guest = runtime.guest.clone();
            let ending = runtime.end(deadline.saturating_duration_since(Instant::now())).await;
            count(shared, &guest);
            (slot, ending)
        }
    });
    let endings = join_all(ends).await;
    shared.report(Report::Stopped { pod: id, endings });
}

/// Ends one container, because a probe failed.
pub(crate) async fn restart(shared: Arc<Shared>, id: PodId, slot: Slot, runtime: Runtime, grace: Duration) {
    let (run, guest) = (runtime.id.clone(), runtime.guest.clone());
    let ending = match runtime.end(grace).await {
        // It did not end by itself, whatever became of its requests.
        Ending::Finished { code: 0 } => Ending::Killed,
        ending => ending,
    };
    count(&shared, &guest);
    shared.report(Report::Ended { pod: id, slot, run, ending });
}

/// Adds what an ended container has used to the metrics.
pub(crate) fn count(shared: &Shared, guest: &Guest) {
    let Usage { cpu, throttled, .. } = match guest {
        Guest::Http(container) => container.usage(),
        Guest::Command(container) => container.usage(),
    };
    shared.metrics.cpu_seconds.inc_by(cpu.as_secs_f64());
    shared.metrics.throttled_seconds.inc_by(throttled.as_secs_f64());
}

async fn pre_stop(shared: &Shared, id: &PodId, pod: &Pod, slot: Slot, ip: Option<IpAddr>, deadline: Instant) {
    let Some(spec) = slot.spec(pod) else { return };
    let Some(hook) = spec.lifecycle.as_ref().and_then(|l| l.pre_stop.as_ref()) else { return };
    let done = tokio::time::timeout_at(deadline, async {
        match (hook, ip) {
            (LifecycleHandler { sleep: Some(sleep), .. }, _) => {
                tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
                Ok(())
            }
            (LifecycleHandler { http_get: Some(action), .. }, Some(ip)) => {
                probes::http_get(shared, id, ip, spec, action).await
            }
            _ => Err("only sleep and httpGet are supported".to_owned()),
        }
    });
    if let Ok(Err(why)) = done.await {
        shared.note(pod, Some(slot), true, "FailedPreStopHook", format!("PreStopHook failed: {why}"));
    }
}
