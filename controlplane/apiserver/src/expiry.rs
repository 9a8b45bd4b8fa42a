//! Events do not stay: they are removed some time after they last happened.
//!
//! # Source
//! Kubernetes keeps them for `--event-ttl`, one hour, from their last write.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Event;
use podium_api::Kind as _;
use tokio_util::sync::CancellationToken;

use crate::registry::{Registry, cache::Filter};

/// How often old events are looked for.
const EVERY: Duration = Duration::from_secs(60);
/// How many are removed at once: the store gathers them into one flush, and other writes go in between.
const BATCH: usize = 256;

/// Removes old events for as long as the server runs.
pub(crate) async fn events(registry: Arc<Registry>, ttl: Duration, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY.min(ttl)) => expire(&registry, ttl).await,
        }
    }
}

/// Removes what is too old by now.
pub(crate) async fn expire(registry: &Registry, ttl: Duration) {
    let Ok(resource) = registry.of(&Event::NAMES) else { return };
    let ttl = SignedDuration::try_from(ttl).unwrap_or(SignedDuration::MAX);
    let Ok(limit) = registry.clock().now().checked_sub(ttl) else { return };
    let old = |event: &Event| last_seen(event).is_some_and(|at| at < limit);
    let entries = resource.cache.list(&Filter::default()).entries;
    let old: Vec<_> = entries.iter().filter(|e| e.object.downcast_ref().is_some_and(old)).collect();
    for batch in old.chunks(BATCH) {
        let removals = batch.iter().map(|entry| registry.discard(&resource, entry));
        for result in futures::future::join_all(removals).await {
            if let Err(error) = result {
                tracing::warn!(%error, "an old event cannot be removed");
                return;
            }
        }
    }
}

/// When an event last happened, by whichever of its times says so.
fn last_seen(event: &Event) -> Option<Timestamp> {
    let series = event.series.as_ref().and_then(|s| s.last_observed_time.as_ref()).map(|t| t.0);
    let times = [
        series,
        event.event_time.as_ref().map(|t| t.0),
        event.last_timestamp.as_ref().map(|t| t.0),
        event.metadata.creation_timestamp.as_ref().map(|t| t.0),
    ];
    times.into_iter().flatten().max()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{
        api::core::v1::EventSeries,
        apimachinery::pkg::apis::meta::v1::{MicroTime, Time},
    };

    use super::*;

    #[test]
    fn the_newest_time_counts() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut event = Event::default();
        assert_eq!(last_seen(&event), None);
        event.metadata.creation_timestamp = Some(Time(at(10)));
        assert_eq!(last_seen(&event), Some(at(10)));
        event.last_timestamp = Some(Time(at(20)));
        event.event_time = Some(MicroTime(at(15)));
        assert_eq!(last_seen(&event), Some(at(20)));
        event.series = Some(EventSeries { last_observed_time: Some(MicroTime(at(30))), ..EventSeries::default() });
        assert_eq!(last_seen(&event), Some(at(30)));
    }
}
