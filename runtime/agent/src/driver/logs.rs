//! Which log belongs to which container, and the [`LogReader`] over it.
//!
//! Files: `<data_dir>/logs/<namespace>_<pod>_<uid>/<container>/<run>.log`, `run` counting from 0 as `restartCount` does.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::Arc,
};

use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use parking_lot::Mutex;
use podium_api::ObjectKey;

use super::{PodId, Shared, exec::Live, id_of};
use crate::{
    LogError, LogOptions, LogReader, LogStream,
    logs::{reader, writer::ContainerLog},
};

/// The newest run of each container that has run since this process started.
pub(crate) struct LogIndex {
    dir: PathBuf,
    runs: Mutex<HashMap<PodId, Vec<NewestRun>>>,
}

#[derive(Clone)]
struct NewestRun {
    container: String,
    run: i32,
    log: Arc<ContainerLog>,
    live: Live,
}

impl LogIndex {
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir, runs: Mutex::default() }
    }

    fn pod_dir(&self, pod: &PodId) -> PathBuf {
        self.dir.join(format!("{}_{}_{}", pod.key.namespace, pod.key.name, pod.uid))
    }

    /// Where a run of a container is logged.
    pub(crate) fn path(&self, pod: &PodId, container: &str, run: i32) -> PathBuf {
        self.pod_dir(pod).join(container).join(format!("{run}.log"))
    }

    /// Bytes of the logs of each container. Blocks while folders are read.
    pub(crate) fn sizes(&self, pod: &PodId) -> Vec<(String, u64)> {
        let entries = |dir: &std::path::Path| std::fs::read_dir(dir).into_iter().flatten().flatten();
        let size = |dir: PathBuf| entries(&dir).filter_map(|e| Some(e.metadata().ok()?.len())).sum();
        let named =
            entries(&self.pod_dir(pod)).filter_map(|e| Some((e.file_name().into_string().ok()?, size(e.path()))));
        named.collect()
    }

    /// A run begins.
    pub(crate) fn begin(&self, pod: &PodId, container: &str, run: i32, (log, live): (Arc<ContainerLog>, Live)) {
        let mut runs = self.runs.lock();
        let runs = runs.entry(pod.clone()).or_default();
        runs.retain(|r| r.container != container);
        runs.push(NewestRun { container: container.to_owned(), run, log, live });
    }

    /// The pod has gone; answers with the folder to remove.
    pub(crate) fn forget(&self, pod: &PodId) -> PathBuf {
        self.runs.lock().remove(pod);
        self.pod_dir(pod)
    }

    /// How clients reach the newest run of a container, if it has not ended.
    pub(crate) fn live(&self, pod: &PodId, container: &str) -> Option<(Live, Arc<ContainerLog>)> {
        let newest = self.newest(pod, container).filter(|newest| !newest.log.is_closed())?;
        Some((newest.live, newest.log))
    }

    fn newest(&self, pod: &PodId, container: &str) -> Option<NewestRun> {
        self.runs.lock().get(pod)?.iter().find(|r| r.container == container).cloned()
    }

    /// Folders of pods that are not among these.
    pub(crate) fn stale(&self, pods: &[Arc<Pod>]) -> Vec<PathBuf> {
        let kept: HashSet<_> = pods.iter().map(|pod| self.pod_dir(&id_of(pod))).collect();
        let found = std::fs::read_dir(&self.dir).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
        found.filter(|path| path.is_dir() && !kept.contains(path)).collect()
    }
}

impl LogReader for Shared {
    fn logs<'a>(&'a self, key: &'a ObjectKey, options: LogOptions) -> BoxFuture<'a, Result<LogStream, LogError>> {
        Box::pin(async move {
            let pod = self.pods.get(key).and_then(|object| object.downcast_arc::<Pod>());
            let pod = pod.ok_or_else(|| LogError::NoPod(key.to_string()))?;
            let container = chosen(&pod, options.container.as_deref())?;
            let id = id_of(&pod);
            let newest = self.log_index.newest(&id, container);
            let dir = self.log_index.pod_dir(&id).join(container);
            let number = newest.as_ref().map(|n| n.run).or_else(|| reader::newest_run(&dir));
            let status = status_of(&pod, container);
            let number = number.or_else(|| status.filter(|s| s.container_id.is_some()).map(|s| s.restart_count));
            let Some(number) = number else {
                let reason = status
                    .and_then(|s| s.state.as_ref()?.waiting.as_ref()?.reason.as_deref())
                    .unwrap_or("ContainerCreating");
                let words = format!("container {container:?} in pod {:?} is waiting to start: {reason}", key.name);
                return Err(LogError::BadRequest(words));
            };
            if !options.previous {
                let live = newest.map(|n| n.log);
                let path = self.log_index.path(&id, container, number);
                return Ok(reader::read(path, self.config.log_files_max, live, options));
            }
            if number == 0 {
                let words = format!("previous terminated container {container:?} in pod {:?} not found", key.name);
                return Err(LogError::BadRequest(words));
            }
            let path = self.log_index.path(&id, container, number - 1);
            Ok(reader::read(path, self.config.log_files_max, None, options))
        })
    }
}

fn chosen<'a>(pod: &'a Pod, container: Option<&str>) -> Result<&'a str, LogError> {
    let spec = pod.spec.as_ref();
    let names: Vec<_> = spec.iter().flat_map(|s| s.containers.iter().map(|c| c.name.as_str())).collect();
    let init = spec.iter().flat_map(|s| s.init_containers.iter().flatten().map(|c| c.name.as_str()));
    let ephemeral = spec.iter().flat_map(|s| s.ephemeral_containers.iter().flatten().map(|c| c.name.as_str()));
    let pod_name = pod.metadata.name.as_deref().unwrap_or_default();
    match (container.filter(|c| !c.is_empty()), names.as_slice()) {
        (Some(wanted), _) => names
            .iter()
            .copied()
            .chain(init)
            .chain(ephemeral)
            .find(|name| *name == wanted)
            .ok_or_else(|| LogError::BadRequest(format!("container {wanted} is not valid for pod {pod_name}"))),
        (None, [one]) => Ok(one),
        (None, many) => {
            let many = many.join(" ");
            let words = format!("a container name must be specified for pod {pod_name}, choose one of: [{many}]");
            Err(LogError::BadRequest(words))
        }
    }
}

fn status_of<'a>(pod: &'a Pod, container: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let all = status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten());
    all.chain(status.ephemeral_container_statuses.iter().flatten()).find(|s| s.name == container)
}
