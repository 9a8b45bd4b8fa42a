//! The owner's part about pods that have to leave: what each one uses, and that one of them goes.

use k8s_openapi::api::core::v1::Pod;

use super::{PodId, entry::Entry, pods::Pods};
use crate::decide::{
    admission::is_critical,
    amounts::{self, read},
    eviction::{ContainerUse, Eviction, PodUse, Share},
    local::{Evicted, Stopping},
};

impl Pods {
    /// What every pod uses that runs and is not about to end.
    pub(super) fn uses(&self) -> Vec<PodUse<PodId>> {
        let live = |entry: &&Entry| !entry.runtimes.is_empty() && entry.local.stopping == Stopping::No;
        self.entries.values().filter(live).map(use_of).collect()
    }

    /// It has to go. Whether it still runs is looked at here: a while has passed since it was chosen.
    pub(super) fn evict(&mut self, eviction: Eviction<PodId>) {
        let Eviction { key: id, grace_seconds, message } = eviction;
        let Some(entry) = self.entry(&id) else { return };
        if entry.local.stopping == Stopping::No && entry.local.evicted.is_none() && !is_critical(&entry.pod) {
            tracing::warn!(pod = %id.key, message, "a pod is evicted");
            entry.local.evicted = Some(Box::new(Evicted { grace_seconds, message }));
            self.shared.metrics.evictions.inc();
            self.dirty.insert(id.key);
        }
    }
}

fn use_of(entry: &Entry) -> PodUse<PodId> {
    let pod: &Pod = &entry.pod;
    let requests = amounts::requests_of(pod);
    let one = |(slot, runtime): &(crate::decide::local::Slot, super::guest::Runtime)| {
        let spec = slot.spec(pod)?;
        let requested = |name| {
            let list = spec.resources.as_ref().and_then(|r| r.requests.as_ref());
            read(list, name).map_or(0, |q| q.bytes())
        };
        let used_bytes = runtime.guest.usage().memory_bytes;
        Some(ContainerUse {
            name: spec.name.clone(),
            memory: Share { used_bytes, requested_bytes: requested("memory") },
            disk: Share { used_bytes: 0, requested_bytes: requested("ephemeral-storage") },
        })
    };
    let containers: Vec<_> = entry.runtimes.iter().filter_map(one).collect();
    PodUse {
        key: entry.id.clone(),
        critical: is_critical(pod),
        priority: pod.spec.as_ref().and_then(|s| s.priority).unwrap_or(0),
        memory: Share {
            used_bytes: containers.iter().map(|c| c.memory.used_bytes).sum(),
            requested_bytes: requests.memory_bytes,
        },
        disk: Share { used_bytes: 0, requested_bytes: requests.ephemeral_bytes },
        containers,
    }
}
