//! Core dumps of containers that ask for them: where they lie, what they take up, and how they are read.
//!
//! Files: `<data_dir>/coredumps/<pod's uid>/<container>/TIME-N.coredump`, written by the sandbox within the bounds that it was
//! given. They count as ephemeral storage of their pod and go with it.

use std::{collections::HashSet, fs, io, path::PathBuf, sync::Arc};

use bytes::BytesMut;
use futures::{future::BoxFuture, stream};
use k8s_openapi::api::core::v1::Pod;
use podium_api::ObjectKey;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt as _;

use super::{PodId, Shared, id_of};
use crate::{LogError, LogStream};

const SUFFIX: &str = ".coredump";
const CHUNK_BYTES: usize = 256 << 10;
/// Of one container: far more than it may keep.
const LISTED_MAX: usize = 1000;

/// A core dump of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoreDump {
    /// Its file's name, as the event of the trap says it.
    pub name: String,
    /// Its size.
    pub bytes: u64,
}

/// Reads the core dumps of this node's containers.
pub trait CoreDumpReader: Send + Sync + 'static {
    /// Those that a container has left, the newest first.
    ///
    /// # Errors
    /// When the pod is not here or the folder cannot be read.
    fn list<'a>(&'a self, pod: &'a ObjectKey, container: &'a str) -> BoxFuture<'a, Result<Vec<CoreDump>, LogError>>;

    /// The bytes of one of them.
    ///
    /// # Errors
    /// When the pod is not here, it has none of this name, or it cannot be read.
    fn read<'a>(
        &'a self,
        pod: &'a ObjectKey,
        container: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<LogStream, LogError>>;
}

impl Shared {
    fn core_dumps_dir(&self) -> PathBuf {
        self.config.data_dir.join("coredumps")
    }

    /// Where those of a pod are.
    pub(crate) fn pod_core_dumps(&self, pod: &PodId) -> PathBuf {
        self.core_dumps_dir().join(&*pod.uid)
    }

    /// Bytes of those of each container. Blocks.
    pub(crate) fn core_dump_sizes(&self, pod: &PodId) -> Vec<(String, u64)> {
        let dirs = fs::read_dir(self.pod_core_dumps(pod)).into_iter().flatten().flatten();
        let sized = dirs.filter_map(|dir| {
            let bytes = found(&dir.path()).ok()?.iter().map(|dump| dump.bytes).sum();
            Some((dir.file_name().into_string().ok()?, bytes))
        });
        sized.collect()
    }

    /// Removes those of pods that are not among these. Blocks.
    pub(crate) fn clean_core_dumps(&self, uids: &HashSet<String>) {
        for dir in fs::read_dir(self.core_dumps_dir()).into_iter().flatten().flatten() {
            if !uids.contains(&*dir.file_name().to_string_lossy()) {
                // Tried again when the agent starts again.
                let _ = fs::remove_dir_all(dir.path());
            }
        }
    }

    /// A container's folder. It must be in the pod's spec: names that are not never become paths.
    fn container_core_dumps(&self, key: &ObjectKey, container: &str) -> Result<PathBuf, LogError> {
        let pod = self.pods.get(key).and_then(|object| object.downcast_arc::<Pod>());
        let pod = pod.ok_or_else(|| LogError::NoPod(key.to_string()))?;
        let spec = pod.spec.as_ref();
        let own = spec.iter().flat_map(|s| s.containers.iter().chain(s.init_containers.iter().flatten()));
        let ephemeral = spec.iter().flat_map(|s| s.ephemeral_containers.iter().flatten());
        let mut names = own.map(|c| &c.name).chain(ephemeral.map(|c| &c.name));
        if !names.any(|name| name == container) {
            return Err(LogError::BadRequest(format!("container {container} is not valid for pod {}", key.name)));
        }
        Ok(self.pod_core_dumps(&id_of(&pod)).join(container))
    }
}

impl CoreDumpReader for Shared {
    fn list<'a>(&'a self, pod: &'a ObjectKey, container: &'a str) -> BoxFuture<'a, Result<Vec<CoreDump>, LogError>> {
        Box::pin(async move {
            let dir = self.container_core_dumps(pod, container)?;
            let looked = tokio::task::spawn_blocking(move || found(&dir)).await;
            looked.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(|error| LogError::Io(error.to_string()))
        })
    }

    fn read<'a>(
        &'a self,
        pod: &'a ObjectKey,
        container: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<LogStream, LogError>> {
        Box::pin(async move {
            if self.list(pod, container).await?.iter().all(|dump| dump.name != name) {
                return Err(LogError::BadRequest(format!("container {container:?} has left no core dump {name:?}")));
            }
            let path = self.container_core_dumps(pod, container)?.join(name);
            // An open file is read to its end, even when a newer dump takes its place meanwhile.
            let file = tokio::fs::File::open(path).await.map_err(|error| LogError::Io(error.to_string()))?;
            let chunks = stream::try_unfold(file, |mut file| async move {
                let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
                let length = file.read_buf(&mut chunk).await?;
                Ok((length > 0).then(|| (chunk.freeze(), file)))
            });
            Ok(Box::pin(chunks) as LogStream)
        })
    }
}

/// What a folder has, the newest first: names begin with the time. None when there is no folder.
fn found(dir: &std::path::Path) -> io::Result<Vec<CoreDump>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let dump = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().ok().filter(|name| name.ends_with(SUFFIX))?;
        let meta = entry.metadata().ok().filter(fs::Metadata::is_file)?;
        Some(CoreDump { name, bytes: meta.len() })
    };
    let mut dumps: Vec<_> = entries.flatten().filter_map(dump).take(LISTED_MAX).collect();
    dumps.sort_by(|a, b| b.name.cmp(&a.name));
    Ok(dumps)
}

/// The reader over what the driver shares.
pub(crate) fn reader(shared: &Arc<Shared>) -> Arc<dyn CoreDumpReader> {
    shared.clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_listed_newest_first_and_nothing_else_counts() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(found(&dir.path().join("none")).unwrap(), []);
        for (name, text) in [("1-0.coredump", "a"), ("2-1.coredump", "bc"), (".tmpX", "half"), ("notes.txt", "x")] {
            fs::write(dir.path().join(name), text).unwrap();
        }
        fs::create_dir(dir.path().join("3-0.coredump")).unwrap();
        let dump = |name: &str, bytes| CoreDump { name: name.to_owned(), bytes };
        assert_eq!(found(dir.path()).unwrap(), [dump("2-1.coredump", 2), dump("1-0.coredump", 1)]);
    }
}
