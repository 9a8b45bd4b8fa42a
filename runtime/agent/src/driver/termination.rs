//! What a container leaves to say when it ends: a file that it writes, or the end of its log.
//!
//! The file is made when the guest first looks at its files, so that containers that never do cost nothing.
//!
//! # Source
//! Kubernetes `pkg/kubelet/kuberuntime/kuberuntime_container.go` (`getTerminationMessage`) and `pkg/kubelet/container`.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Container as Spec, Pod};
use podium_sandbox::{Ending, Mount, MountSource};

use super::Shared;
use crate::{
    LogOptions,
    decide::local::Slot,
    logs::{reader, writer::ContainerLog},
};

/// Bytes of one container's message, and of all of a pod.
const MESSAGE_BYTES_MAX: usize = 4096;
const POD_BYTES_MAX: usize = 12 << 10;
/// What is taken of a log.
const LOG_LINES_MAX: u64 = 80;
const LOG_BYTES_MAX: usize = 2048;
/// How long the log's last lines may take to be written.
const LOG_TIMEOUT: Duration = Duration::from_secs(2);

/// What one run of a container leaves behind.
#[derive(Clone)]
pub(crate) struct Left {
    pub(crate) file: Arc<MessageFile>,
    pub(crate) log: Arc<ContainerLog>,
    pub(crate) log_path: Arc<Path>,
}

/// The file of one run. Removed when the run is over.
pub(crate) struct MessageFile {
    path: PathBuf,
    made: AtomicBool,
}

impl MessageFile {
    /// A file that is not there yet.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, made: AtomicBool::new(false) }
    }

    /// At most so many bytes of it; `None`: nothing was written.
    fn read(&self, bytes_max: usize) -> Option<String> {
        use io::{Read as _, Seek as _};
        if !self.made.load(Ordering::Acquire) {
            return None;
        }
        let mut file = fs::File::open(&self.path).ok()?;
        let length = usize::try_from(file.metadata().ok()?.len()).unwrap_or(usize::MAX);
        let skipped = length.saturating_sub(bytes_max);
        file.seek(io::SeekFrom::Start(skipped as u64)).ok()?;
        let mut bytes = Vec::new();
        file.take(bytes_max as u64).read_to_end(&mut bytes).ok()?;
        (!bytes.is_empty()).then(|| String::from_utf8_lossy(&bytes).into_owned())
    }
}

impl MountSource for MessageFile {
    fn path(&self) -> io::Result<&Path> {
        if !self.made.load(Ordering::Acquire) {
            fs::create_dir_all(self.path.parent().unwrap_or(&self.path))?;
            fs::OpenOptions::new().create(true).append(true).open(&self.path)?;
            self.made.store(true, Ordering::Release);
        }
        Ok(&self.path)
    }
}

impl Drop for MessageFile {
    fn drop(&mut self) {
        if self.made.load(Ordering::Acquire) {
            // What stays is removed with the pod's folder.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The mount of a container's message file; `None`: something else is mounted there.
pub(crate) fn mount(spec: &Spec, file: &Arc<MessageFile>) -> Option<Mount> {
    let path = spec.termination_message_path.as_deref().filter(|p| !p.is_empty()).unwrap_or("/dev/termination-log");
    let taken = spec.volume_mounts.iter().flatten().any(|mount| mount.mount_path == path);
    (!taken && path.starts_with('/')).then(|| Mount {
        guest_path: path.to_owned(),
        source: file.clone(),
        sub_path: None,
        read_only: false,
    })
}

/// What it left to say.
pub(crate) async fn message(shared: &Shared, pod: &Pod, slot: Slot, left: &Left, ending: &Ending) -> Option<String> {
    let spec = slot.spec(pod)?;
    let of_pod = pod.spec.as_ref().map_or(1, |s| s.containers.len() + s.init_containers.iter().flatten().count());
    let bytes_max = MESSAGE_BYTES_MAX.min(POD_BYTES_MAX / of_pod.max(1));
    if let Some(message) = left.file.read(bytes_max) {
        return Some(message);
    }
    let fall_back = spec.termination_message_policy.as_deref() == Some("FallbackToLogsOnError");
    let failed = !matches!(ending, Ending::Finished { code: 0 });
    if !(fall_back && failed) {
        return None;
    }
    let tail = tail(left, shared.config.log_files_max);
    tokio::time::timeout(LOG_TIMEOUT, tail).await.ok().flatten()
}

/// The end of the log: bounded lines, bounded bytes.
async fn tail(left: &Left, files_max: u32) -> Option<String> {
    left.log.flush().await;
    let options = LogOptions { tail_lines: Some(LOG_LINES_MAX), ..LogOptions::default() };
    let mut chunks = reader::read(left.log_path.to_path_buf(), files_max, None, options);
    let mut kept = Vec::new();
    while let Some(chunk) = chunks.next().await {
        kept.extend_from_slice(&chunk.ok()?);
        if kept.len() > 2 * LOG_BYTES_MAX {
            kept.drain(..kept.len() - LOG_BYTES_MAX);
        }
    }
    let from = kept.len().saturating_sub(LOG_BYTES_MAX);
    let text = String::from_utf8_lossy(&kept[from..]).into_owned();
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_made_late_read_in_part_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/0");
        let file = Arc::new(MessageFile::new(path.clone()));
        assert_eq!(file.read(10), None);
        assert!(!path.exists());
        let mount = mount(&Spec::default(), &file).unwrap();
        assert_eq!(mount.guest_path, "/dev/termination-log");
        let made = mount.source.path().unwrap().to_owned();
        assert_eq!(file.read(10), None, "nothing was written");
        fs::write(made, "0123456789abc").unwrap();
        assert_eq!(file.read(10).as_deref(), Some("3456789abc"));
        assert_eq!(file.read(100).as_deref(), Some("0123456789abc"));
        let json =
            serde_json::json!({ "name": "c", "volumeMounts": [{ "name": "v", "mountPath": "/dev/termination-log" }] });
        let spec: Spec = serde_json::from_value(json).unwrap();
        assert!(super::mount(&spec, &file).is_none(), "a volume comes first");
        drop((file, mount));
        assert!(!path.exists());
    }
}
