//! Images go when the disk fills up: those that no pod uses, longest unused first, until there is room again.
//!
//! # Source
//! Kubernetes `pkg/kubelet/images/image_gc_manager.go`: thresholds, minimum age, reasons and words.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use k8s_openapi::api::core::v1::{ObjectReference, Pod};
use podium_client::Note;

use super::{super::Shared, Images};
use crate::images::{reference::Reference, store::Kept};

/// How often it is looked at the disk.
const EVERY: Duration = Duration::from_secs(300);

/// When images go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageGc {
    /// Use of the disk, in percent, from which on images go. 100: never.
    pub high_percent: u8,
    /// Use of the disk, in percent, down to which they go.
    pub low_percent: u8,
    /// How long an image stays at least, even when nobody uses it.
    pub age_min: Duration,
}

impl Default for ImageGc {
    fn default() -> Self {
        Self { high_percent: 85, low_percent: 80, age_min: Duration::from_secs(120) }
    }
}

/// What a look at the disk says.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    /// Percent in use.
    percent: u64,
    /// Bytes that should become free; none when there is room.
    free_bytes: u64,
    /// Images that may go, in this order.
    candidates: Vec<String>,
}

/// Decides. `disk`: bytes in use, and all there are.
fn plan(config: ImageGc, disk: (u64, u64), images: &[Kept], in_use: &HashSet<String>, now: SystemTime) -> Plan {
    let (used, total) = disk;
    let percent = (used.saturating_mul(100)).checked_div(total).unwrap_or(0);
    if percent < u64::from(config.high_percent) || config.high_percent >= 100 {
        return Plan { percent, free_bytes: 0, candidates: Vec::new() };
    }
    let target = total / 100 * u64::from(config.low_percent);
    let age = |at: SystemTime| now.duration_since(at).unwrap_or_default();
    let mut unused: Vec<_> =
        images.iter().filter(|kept| !in_use.contains(&kept.entry.name) && age(kept.since) >= config.age_min).collect();
    unused.sort_by_key(|kept| (kept.used, kept.since));
    let candidates = unused.into_iter().map(|kept| kept.entry.name.clone()).collect();
    Plan { percent, free_bytes: used.saturating_sub(target), candidates }
}

/// Looks at the disk every few minutes.
pub(crate) async fn keep(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(EVERY).await;
        if let Err(why) = collect(&shared).await {
            tracing::warn!(why, "image garbage collection failed");
            let regarding = ObjectReference {
                kind: Some("Node".to_owned()),
                name: Some(shared.config.node_name.clone()),
                uid: Some(shared.config.node_name.clone()),
                ..ObjectReference::default()
            };
            shared.recorder.note(Note { regarding, warning: true, reason: "ImageGCFailed".to_owned(), message: why });
        }
    }
}

async fn collect(shared: &Arc<Shared>) -> Result<(), String> {
    let of_task = shared.clone();
    let done = tokio::task::spawn_blocking(move || {
        let in_use = of_task.images.in_use(of_task.pods.list(None).iter().filter_map(|pod| pod.downcast_ref()));
        of_task.images.collect(of_task.config.image_gc, &in_use, SystemTime::now())
    });
    done.await.unwrap_or_else(|error| Err(error.to_string()))
}

impl Images {
    /// Whole names of the images that pods name.
    fn in_use<'a>(&self, pods: impl Iterator<Item = &'a Pod>) -> HashSet<String> {
        let specs = pods.filter_map(|pod| pod.spec.as_ref());
        let names = specs.flat_map(|spec| {
            let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten()).map(|c| &c.image);
            let ephemeral = spec.ephemeral_containers.iter().flatten().map(|c| &c.image);
            containers.chain(ephemeral).filter_map(|image| image.as_deref())
        });
        let registries = &self.puller.config.registries;
        names.filter_map(|name| Some(Reference::parse(name, registries).ok()?.canonical())).collect()
    }

    /// Removes images until there is room. Blocks.
    fn collect(&self, config: ImageGc, in_use: &HashSet<String>, now: SystemTime) -> Result<(), String> {
        let store = &self.puller.store;
        let cannot =
            |error: std::io::Error| format!("failed to look at the disk of {}: {error}", store.dir().display());
        let plan = plan(config, store.disk().map_err(cannot)?, &store.all(), in_use, now);
        if plan.free_bytes == 0 {
            return Ok(());
        }
        let (percent, bytes) = (plan.percent, plan.free_bytes);
        tracing::info!(percent, bytes, "the disk is filling up: unused images go");
        let (mut freed, mut removed) = (self.puller.sweep(), 0);
        for name in &plan.candidates {
            if freed >= plan.free_bytes {
                break;
            }
            freed += store.remove(name).map_err(|error| format!("failed to remove image {name}: {error}"))?;
            removed += 1;
        }
        tracing::info!(freed, removed, "images removed");
        self.changed.notify_one();
        if freed < plan.free_bytes {
            return Err(format!(
                "Failed to garbage collect required amount of images. Attempted to free {} bytes, but only found {freed} bytes \
                 eligible to free.",
                plan.free_bytes
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::images::{Record, store::Entry};

    #[test]
    fn what_is_unused_longest_goes_first() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(10_000);
        let kept = |name: &str, used: u64, since: u64| {
            let entry = Entry {
                name: name.to_owned(),
                shown: name.to_owned(),
                record: Arc::new(Record::default()),
                opened_by: Vec::new(),
            };
            let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            Kept { entry: Arc::new(entry), used: at(used), since: at(since) }
        };
        let images =
            [kept("new", 9_990, 9_990), kept("b", 500, 1), kept("a", 400, 2), kept("used", 1, 1), kept("c", 600, 1)];
        let in_use = HashSet::from(["used".to_owned()]);
        let of = |disk, config| plan(config, disk, &images, &in_use, now);
        for (used, free_bytes, candidates) in
            [(849, 0, vec![]), (850, 50, vec!["a", "b", "c"]), (1000, 200, vec!["a", "b", "c"])]
        {
            let found = of((used, 1000), ImageGc::default());
            assert_eq!(
                (found.free_bytes, found.candidates),
                (free_bytes, candidates.iter().map(|c| (*c).to_owned()).collect())
            );
        }
        assert_eq!(of((1000, 1000), ImageGc { high_percent: 100, ..ImageGc::default() }).free_bytes, 0);
        assert_eq!(of((0, 0), ImageGc::default()).free_bytes, 0);
    }
}
