//! How much the pods' own folders hold, and which have grown past their `sizeLimit`.

use std::{
    fs,
    path::Path,
    sync::{Arc, Weak},
};

use podium_api::quantity::{Format, Quantity};

use super::{
    PodVolumes, Volumes,
    volume::{Empty, Place},
};
use crate::driver::PodId;

/// Entries counted in one volume; one with more counts as too large for any limit.
const ENTRIES_MAX: usize = 1_000_000;

/// What one pod's own volumes hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct PodUsage {
    /// Name and bytes of each `emptyDir` on disk.
    pub(crate) on_disk: Vec<(String, u64)>,
    /// Name and bytes of each `emptyDir` in memory.
    pub(crate) in_memory: Vec<(String, u64)>,
}

impl Volumes {
    /// What a pod's own volumes hold. Blocks while folders are walked.
    pub(crate) fn usage(&self, uid: &str) -> PodUsage {
        let entry = self.pods.lock().get(uid).cloned();
        let volumes = entry.as_ref().and_then(|entry| entry.volumes.get());
        let mut usage = PodUsage::default();
        for (name, empty) in volumes.into_iter().flat_map(|v| empties(v)) {
            let list = if empty.in_memory { &mut usage.in_memory } else { &mut usage.on_disk };
            list.push((name.to_owned(), size(&empty.dir)));
        }
        usage
    }

    /// Has pods pay for what their volumes of `medium: Memory` hold, as a cgroup pays for a tmpfs. Blocks while folders are walked.
    pub(crate) fn bill_memory(&self) {
        let pods: Vec<Arc<PodVolumes>> = {
            let mut pods = self.in_memory.lock();
            pods.retain(|pod| pod.strong_count() > 0);
            pods.iter().filter_map(Weak::upgrade).collect()
        };
        for pod in pods {
            let Some(group) = pod.group.upgrade() else { continue };
            let sizes = empties(&pod).filter(|(_, empty)| empty.in_memory).map(|(_, empty)| size(&empty.dir));
            group.bill_files(sizes.fold(0, u64::saturating_add));
        }
    }

    /// Whether any pod has a volume in memory.
    pub(crate) fn any_in_memory(&self) -> bool {
        !self.in_memory.lock().is_empty()
    }

    /// Pods that hold more in an `emptyDir` than its `sizeLimit`, each with kubelet's words for it. Blocks while folders are
    /// walked.
    pub(crate) fn over_limit(&self) -> Vec<(PodId, String)> {
        let pods: Vec<Arc<PodVolumes>> = self.pods.lock().values().filter_map(|e| e.volumes.get().cloned()).collect();
        let over = |pod: &Arc<PodVolumes>| {
            let found = empties(pod).find_map(|(name, empty)| {
                let limit = empty.limit_bytes.filter(|limit| size(&empty.dir) > *limit)?;
                Some((name, limit))
            });
            let (name, limit) = found?;
            let limit = Quantity::from_value(i64::try_from(limit).unwrap_or(i64::MAX), Format::BinarySi);
            Some((pod.id.clone(), format!("Usage of EmptyDir volume {name:?} exceeds the limit \"{limit}\". ")))
        };
        pods.iter().filter_map(over).collect()
    }
}

impl PodVolumes {
    /// Whether a volume of it is of `medium: Memory`.
    pub(super) fn has_memory(&self) -> bool {
        self.volumes.values().any(|volume| matches!(&volume.place, Place::Empty(empty) if empty.in_memory))
    }
}

/// Those that hold anything yet.
fn empties(pod: &PodVolumes) -> impl Iterator<Item = (&str, &Empty)> {
    pod.volumes.values().filter_map(|volume| match &volume.place {
        Place::Empty(empty) if empty.made.load(std::sync::atomic::Ordering::Acquire) => Some((&*volume.name, empty)),
        _ => None,
    })
}

/// Bytes of all files below a folder, as the disk counts them. Follows no link.
fn size(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let mut bytes = 0;
    let mut entries = 0;
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok) {
            entries += 1;
            if entries > ENTRIES_MAX {
                return u64::MAX;
            }
            let Ok(meta) = entry.metadata() else { continue };
            bytes += meta.blocks() * 512;
            if meta.is_dir() {
                open.push(entry.path());
            }
        }
    }
    bytes
}
