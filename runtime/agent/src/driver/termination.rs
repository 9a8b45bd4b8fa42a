//! What a container leaves to say when it ends: a file that it writes, or the end of its log.
//!
//! The file is made when the guest first looks at its files, so that containers that never do cost nothing. WASI knows folders
//! only: a private one stands for the parent of the path, unless that is in a volume.
//!
//! # Source
//! Kubernetes `pkg/kubelet/kuberuntime/kuberuntime_container.go` (`getTerminationMessage`) and `pkg/kubelet/container`.

use std::{
    fs,
    io::{self, Read as _, Seek as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use cap_std::{ambient_authority, fs::Dir};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Container as Spec, Pod};
use podium_sandbox::{Ending, Mount, MountSource};

use super::Shared;
use crate::{
    LogOptions,
    decide::local::Slot,
    logs::{reader, writer::ContainerLog},
};

const PATH_DEFAULT: &str = "/dev/termination-log";
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

/// Where the message of one run is: a name in a folder of its own, or in one of the volumes.
pub(crate) struct MessageFile {
    folder: Folder,
    name: PathBuf,
}

enum Folder {
    /// Nowhere: a path that no folder can be mounted for.
    None,
    /// Removed when the run is over.
    Private(Arc<Private>),
    Volume(Arc<dyn MountSource>),
}

/// A folder that is made when a guest looks.
struct Private {
    dir: PathBuf,
    name: PathBuf,
    made: AtomicBool,
}

impl MountSource for Private {
    fn path(&self) -> io::Result<&Path> {
        if !self.made.load(Ordering::Acquire) {
            fs::create_dir_all(&self.dir)?;
            fs::OpenOptions::new().create(true).append(true).open(self.dir.join(&self.name))?;
            self.made.store(true, Ordering::Release);
        }
        Ok(&self.dir)
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        if self.made.load(Ordering::Acquire) {
            // What stays is removed with the pod's folder.
            let _ = podium_sandbox::remove_tree(&self.dir);
        }
    }
}

impl MessageFile {
    /// The file of a container with these mounts, and the mount that it needs, if it needs one. `dir`: a folder of its own,
    /// which is not there yet.
    pub(crate) fn new(spec: &Spec, mounts: &[Mount], dir: PathBuf) -> (Self, Option<Mount>) {
        let path = spec.termination_message_path.as_deref().filter(|p| !p.is_empty()).unwrap_or(PATH_DEFAULT);
        let path = Path::new(path);
        let within = mounts.iter().filter(|mount| path.starts_with(&mount.guest_path));
        if let Some(mount) = within.max_by_key(|mount| mount.guest_path.len()) {
            let rest = path.strip_prefix(&mount.guest_path).unwrap_or(path);
            let name = mount.sub_path.as_deref().unwrap_or(Path::new("")).join(rest);
            return (Self { folder: Folder::Volume(mount.source.clone()), name }, None);
        }
        let (parent, name) = (path.parent().and_then(Path::to_str), path.file_name().map(PathBuf::from));
        let (Some(parent), Some(name)) = (parent.filter(|p| p.len() > 1), name) else {
            return (Self { folder: Folder::None, name: PathBuf::new() }, None);
        };
        let private = Arc::new(Private { dir, name: name.clone(), made: AtomicBool::new(false) });
        let mount = Mount { guest_path: parent.to_owned(), source: private.clone(), sub_path: None, read_only: false };
        (Self { folder: Folder::Private(private), name }, Some(mount))
    }

    /// At most so many bytes from its end; `None`: nothing was written. No link leads out of the folder, whatever the guest
    /// has put there.
    fn read(&self, bytes_max: usize) -> Option<String> {
        let root = match &self.folder {
            Folder::Private(private) if private.made.load(Ordering::Acquire) => private.path().ok()?,
            Folder::Volume(source) => source.path().ok()?,
            _ => return None,
        };
        let root = Dir::open_ambient_dir(root, ambient_authority()).ok()?;
        let mut file = root.open(&self.name).ok()?;
        let length = file.metadata().ok().filter(|meta| meta.is_file())?.len();
        file.seek(io::SeekFrom::Start(length.saturating_sub(bytes_max as u64))).ok()?;
        let mut bytes = Vec::new();
        file.take(bytes_max as u64).read_to_end(&mut bytes).ok()?;
        (!bytes.is_empty()).then(|| String::from_utf8_lossy(&bytes).into_owned())
    }
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

    fn spec(path: &str) -> Spec {
        Spec { termination_message_path: Some(path.to_owned()), ..Spec::default() }
    }

    #[test]
    fn the_file_is_made_late_read_in_part_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/0");
        let (file, mount) = MessageFile::new(&Spec::default(), &[], path.clone());
        let mount = mount.unwrap();
        assert_eq!((mount.guest_path.as_str(), file.read(10)), ("/dev", None));
        assert!(!path.exists());
        let made = mount.source.path().unwrap().join("termination-log");
        assert_eq!(file.read(10), None, "nothing was written");
        fs::write(&made, "0123456789abc").unwrap();
        assert_eq!(file.read(10).as_deref(), Some("3456789abc"));
        assert_eq!(file.read(100).as_deref(), Some("0123456789abc"));
        let secret = dir.path().join("secret");
        fs::write(&secret, "of the host").unwrap();
        fs::remove_file(&made).unwrap();
        std::os::unix::fs::symlink(&secret, &made).unwrap();
        assert_eq!(file.read(10), None, "no link leads out");
        drop((file, mount));
        assert!(!path.exists());
    }

    #[test]
    fn a_volume_may_be_where_the_message_is() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("sub/x")).unwrap();
        fs::write(dir.path().join("sub/x/last"), "words").unwrap();
        let volume = Mount {
            guest_path: "/data".to_owned(),
            source: Arc::new(dir.path().to_owned()),
            sub_path: Some("sub".into()),
            read_only: false,
        };
        let (file, mount) = MessageFile::new(&spec("/data/x/last"), std::slice::from_ref(&volume), "/none".into());
        assert!(mount.is_none());
        assert_eq!(file.read(100).as_deref(), Some("words"));
        for (path, mounted) in [("/last", None), ("/a/b/last", Some("/a/b")), ("/database/last", Some("/database"))] {
            let (_, mount) = MessageFile::new(&spec(path), std::slice::from_ref(&volume), "/none".into());
            assert_eq!(mount.as_ref().map(|m| m.guest_path.as_str()), mounted, "{path}");
        }
    }
}
