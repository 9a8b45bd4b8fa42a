//! How much the pods' own folders hold, and which have grown past their `sizeLimit`.

use std::{
    fs, io,
    path::Path,
    sync::{Arc, Weak},
};

use podium_api::quantity::{Format, Quantity};

use super::{
    PodVolumes, Volumes,
    volume::{Empty, Place, Volume},
};
use crate::driver::PodId;

/// Entries counted in one volume; one with more counts as too large for any limit, and so does one that is nested deeper than a
/// path can say.
const ENTRIES_MAX: u64 = 1_000_000;
/// What the kernel keeps for each file and folder in memory, beside its pages.
const ENTRY_BYTES: u64 = 1 << 10;

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
        for volume in volumes.into_iter().flat_map(|v| v.all()) {
            let Some(empty) = held(&volume) else { continue };
            let list = if empty.in_memory { &mut usage.in_memory } else { &mut usage.on_disk };
            list.push((volume.name.clone(), size(empty)));
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
            let sizes = pod.volumes.values().filter_map(|v| held(v)).filter(|empty| empty.in_memory).map(size);
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
            let found = pod.volumes.values().find_map(|volume| {
                let empty = held(volume)?;
                let limit = empty.limit_bytes.filter(|limit| size(empty) > *limit)?;
                Some((&volume.name, limit))
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

/// A folder of the pod's own that holds anything yet.
fn held(volume: &Volume) -> Option<&Empty> {
    match &volume.place {
        Place::Empty(empty) if empty.made.load(std::sync::atomic::Ordering::Acquire) => Some(empty),
        _ => None,
    }
}

/// Bytes of all files of a volume. `u64::MAX`: they cannot be counted.
fn size(empty: &Empty) -> u64 {
    tree_bytes(&empty.dir, if empty.in_memory { ENTRY_BYTES } else { 0 })
}

/// Bytes of all files below a folder, as its file system counts them, and some for each entry. Follows no link.
fn tree_bytes(dir: &Path, entry_bytes: u64) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let mut bytes: u64 = 0;
    let mut entries = 0;
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        let listed = match fs::read_dir(dir) {
            Ok(listed) => listed,
            // It was removed meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            // What lies deeper than a path can say must not be free of charge.
            Err(_) => return u64::MAX,
        };
        for entry in listed.filter_map(Result::ok) {
            entries += 1;
            if entries > ENTRIES_MAX {
                return u64::MAX;
            }
            let Ok(meta) = entry.metadata() else { continue };
            bytes = bytes.saturating_add(meta.blocks().saturating_mul(512)).saturating_add(entry_bytes);
            if meta.is_dir() {
                open.push(entry.path());
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};

    use super::*;

    #[test]
    fn nothing_is_free_of_charge() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(tree_bytes(dir.path(), 7), 0);
        for number in 0..10 {
            fs::write(dir.path().join(number.to_string()), "").unwrap();
        }
        assert_eq!((tree_bytes(dir.path(), 0), tree_bytes(dir.path(), 7)), (0, 70));
        fs::write(dir.path().join("0"), [1; 5000]).unwrap();
        assert!(tree_bytes(dir.path(), 0) >= 5000);
        assert_eq!(tree_bytes(&dir.path().join("none"), 7), 0);
        // A file in folders within each other whose path is longer than any may be.
        let (name, mut folder) = ("n".repeat(250), openat(CWD, dir.path(), OFlags::DIRECTORY, Mode::empty()).unwrap());
        for _ in 0..20 {
            mkdirat(&folder, &name, Mode::RWXU).unwrap();
            folder = openat(&folder, &name, OFlags::DIRECTORY, Mode::empty()).unwrap();
        }
        openat(&folder, "file", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
        assert_eq!(tree_bytes(dir.path(), 0), u64::MAX);
        podium_sandbox::remove_tree(&dir.path().join(&name)).unwrap();
    }
}
