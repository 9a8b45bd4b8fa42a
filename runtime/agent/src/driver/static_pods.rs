//! Pods from files: reads a folder of manifests, runs what they describe, and keeps a mirror of each in the API.
//!
//! Three parts, each of which only says what there is: the folder's reader tells the owner of the pods, the owner publishes which
//! static pods there are, and a loop makes the mirrors follow that. A pod whose file has gone or changed ends within its
//! grace; only then does another of its name begin.
//!
//! # Source
//! Kubernetes `pkg/kubelet/config/file.go` and `pkg/kubelet/pod/mirror_client.go`.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::Pod,
    apimachinery::pkg::apis::meta::v1::{DeleteOptions, Preconditions, Time},
};
use podium_api::{ApiError, Object, ObjectKey, kind_of, yaml};
use podium_client::Delta;
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, timeout},
};

use super::{Report, Shared, id_of, pods::Pods};
use crate::decide::static_pod::{self, mirrored};

/// Files read of a folder, and bytes of one: more is not looked at.
const FILES_MAX: usize = 10_000;
const FILE_BYTES_MAX: u64 = 10 << 20;
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a mirror that cannot be written waits for the next try.
const RETRY: Duration = Duration::from_secs(5);

/// Name, size and time of every file: what tells one state of the folder from another.
type Listing = BTreeMap<PathBuf, (u64, Option<SystemTime>)>;

/// The static pods of this node by name.
pub(crate) type Wanted = Arc<HashMap<ObjectKey, Arc<Pod>>>;

/// What the owner knows of static pods.
pub(crate) struct Mirrors {
    /// Those that run, and those whose turn has not come.
    wanted: watch::Sender<Wanted>,
    /// The mirror of each that has been seen, by its uid.
    seen: HashMap<ObjectKey, String>,
}

impl Default for Mirrors {
    fn default() -> Self {
        Self { wanted: watch::Sender::new(Wanted::default()), seen: HashMap::new() }
    }
}

impl Mirrors {
    /// Follows which static pods there are.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Wanted> {
        self.wanted.subscribe()
    }

    fn get(&self, key: &ObjectKey) -> Option<Arc<Pod>> {
        self.wanted.borrow().get(key).cloned()
    }
}

impl Pods {
    /// The files describe these pods now.
    pub(super) fn static_pods(&mut self, pods: Vec<Arc<Pod>>) {
        let now = self.shared.clock.now();
        let wanted: HashMap<_, _> = pods.into_iter().map(|pod| (ObjectKey::of(&pod.metadata), pod)).collect();
        let had = self.mirrors.wanted.send_replace(Arc::new(wanted.clone()));
        for (key, pod) in had.iter() {
            if wanted.get(key).is_none_or(|new| new.metadata.uid != pod.metadata.uid) {
                self.end_static(key, now);
            }
        }
        for key in wanted.keys() {
            self.begin_static(key);
        }
    }

    /// Begins a static pod, unless one of its name has to end first.
    fn begin_static(&mut self, key: &ObjectKey) {
        let Some(pod) = self.mirrors.get(key).filter(|_| !self.entries.contains_key(key)) else { return };
        let mut pod = Pod::clone(&pod);
        let id = id_of(&pod);
        // One that ran before this process did goes on where it was.
        let mirror = self.shared.pods.get(key).and_then(|object| object.downcast_arc::<Pod>());
        pod.status = mirror.filter(|mirror| id_of(mirror) == id).and_then(|mirror| mirror.status.clone());
        self.put(id, Arc::new(pod));
    }

    fn end_static(&mut self, key: &ObjectKey, now: Timestamp) {
        let Some(entry) = self.entries.get_mut(key).filter(|entry| static_pod::is_file(&entry.pod)) else { return };
        let mut pod = Pod::clone(&entry.pod);
        pod.metadata.deletion_timestamp.get_or_insert(Time(now));
        entry.pod = Arc::new(pod);
        self.dirty.insert(key.clone());
    }

    /// A static pod has ended for good; `false`: it is none.
    pub(super) fn ended_static(&mut self, key: &ObjectKey) -> bool {
        if !self.entries.get(key).is_some_and(|entry| static_pod::is_file(&entry.pod)) {
            return false;
        }
        self.remove(key);
        self.begin_static(key);
        true
    }

    /// A mirror has changed: only that there is a new one matters, whose status is to be written.
    pub(super) fn mirror_changed(&mut self, mirror: &Pod, gone: bool) {
        let key = ObjectKey::of(&mirror.metadata);
        if gone {
            self.mirrors.seen.remove(&key);
            return;
        }
        let uid = mirror.metadata.uid.clone().unwrap_or_default();
        let Some(entry) = self.entries.get(&key).filter(|entry| entry.id == id_of(mirror)) else { return };
        if self.mirrors.seen.insert(key, uid.clone()) != Some(uid) && entry.desired.phase.is_some() {
            self.status.put(&entry.id, entry.desired.clone(), false);
        }
    }
}

/// Reads the folder once.
pub(crate) async fn read_once(shared: &Arc<Shared>) {
    let of_task = shared.clone();
    let read = tokio::task::spawn_blocking(move || {
        let files = of_task.config.static_pods_dir.as_deref().map(list).unwrap_or_default();
        pods_of(&of_task, &files)
    });
    shared.report(Report::Static(read.await.unwrap_or_default()));
}

/// Reads the folder whenever it has changed.
pub(crate) async fn follow(shared: Arc<Shared>) {
    let Some(dir) = shared.config.static_pods_dir.clone() else { return };
    let mut before = None;
    let mut ticks = interval(shared.config.static_pods_every.max(Duration::from_millis(10)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let (of_task, dir) = (shared.clone(), dir.clone());
        let known = before.clone();
        let look = tokio::task::spawn_blocking(move || {
            let listing = list(&dir);
            let pods = (known.as_ref() != Some(&listing)).then(|| pods_of(&of_task, &listing));
            (listing, pods)
        });
        let Ok((listing, pods)) = look.await else { continue };
        before = Some(listing);
        if let Some(pods) = pods {
            shared.report(Report::Static(pods));
        }
    }
}

/// Regular files, hidden ones left out.
fn list(dir: &Path) -> Listing {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Listing::new(),
        Err(error) => {
            tracing::warn!(dir = %dir.display(), %error, "the folder of static pods cannot be read");
            return Listing::new();
        }
    };
    let visible = entries.flatten().filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."));
    let files = visible.filter_map(|entry| {
        let meta = std::fs::metadata(entry.path()).ok().filter(std::fs::Metadata::is_file)?;
        Some((entry.path(), (meta.len(), meta.modified().ok())))
    });
    files.take(FILES_MAX).collect()
}

/// What can be read of it; the first of several with one name counts.
fn pods_of(shared: &Shared, files: &Listing) -> Vec<Arc<Pod>> {
    let mut pods: BTreeMap<ObjectKey, Arc<Pod>> = BTreeMap::new();
    for (path, (bytes, _)) in files {
        let read = match *bytes > FILE_BYTES_MAX {
            true => Err(format!("it has {bytes} bytes, more than {FILE_BYTES_MAX}")),
            false => read_file(path, &shared.config.node_name, shared.clock.now()),
        };
        match read {
            Ok(pod) => drop(pods.entry(ObjectKey::of(&pod.metadata)).or_insert_with(|| Arc::new(pod))),
            Err(error) => tracing::warn!(file = %path.display(), error, "this file is no static pod and is left out"),
        }
    }
    pods.into_values().collect()
}

fn read_file(path: &Path, node: &str, now: Timestamp) -> Result<Pod, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let documents = yaml::documents(&text).map_err(|error| error.to_string())?;
    match documents.as_slice() {
        [one] => static_pod::read(one, node, now),
        many => Err(format!("a file holds one pod, not {}", many.len())),
    }
}

/// Makes the mirrors in the API follow the static pods, and removes those that mirror nothing.
pub(crate) async fn mirror(shared: Arc<Shared>, mut wanted: watch::Receiver<Wanted>) {
    // Until the folder has been read, nobody knows what mirrors nothing.
    if wanted.changed().await.is_err() {
        return;
    }
    let mut deltas = shared.pods.subscribe();
    loop {
        let now = wanted.borrow_and_update().clone();
        let settled = sync(&shared, &now).await;
        let changed = async {
            while let Some(delta) = deltas.recv().await {
                let (Delta::Put { new: object, .. } | Delta::Delete { old: object, .. }) = &delta;
                let pod = object.downcast_ref::<Pod>();
                if pod.is_some_and(|pod| mirrored(pod).is_some() || now.contains_key(&ObjectKey::of(&pod.metadata))) {
                    return true;
                }
            }
            false
        };
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() { return },
            more = changed => if !more { return },
            () = tokio::time::sleep(RETRY), if !settled => {}
        }
    }
}

/// Whether all mirrors are as they should be.
async fn sync(shared: &Shared, wanted: &HashMap<ObjectKey, Arc<Pod>>) -> bool {
    let mut settled = true;
    for object in shared.pods.list(None) {
        let Some(pod) = object.downcast_arc::<Pod>().filter(|pod| mirrored(pod).is_some()) else { continue };
        let of = wanted.get(&ObjectKey::of(&pod.metadata));
        let right = of.is_some_and(|of| id_of(of) == id_of(&pod)) && pod.metadata.deletion_timestamp.is_none();
        if !right {
            settled &= told("remove", delete(shared, &pod).await);
        }
    }
    for (key, pod) in wanted {
        let there = shared.pods.get(key).and_then(|object| object.downcast_arc::<Pod>());
        if there.is_none() {
            settled &= told("create", create(shared, pod).await);
        }
    }
    settled
}

fn told(what: &str, outcome: Result<(), ApiError>) -> bool {
    if let Err(error) = &outcome {
        tracing::debug!(%error, what, "a mirror pod is not as it should be yet");
    }
    outcome.is_ok()
}

async fn delete(shared: &Shared, pod: &Pod) -> Result<(), ApiError> {
    let preconditions = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
    let options =
        DeleteOptions { grace_period_seconds: Some(0), preconditions: Some(preconditions), ..DeleteOptions::default() };
    let key = ObjectKey::of(&pod.metadata);
    match limited(shared.api.delete(&kind_of::<Pod>(), &key, options)).await {
        // It is another one by now, which the next look sees.
        Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
        outcome => outcome,
    }
}

async fn create(shared: &Shared, pod: &Pod) -> Result<(), ApiError> {
    let node = shared.state.node().and_then(|node| node.metadata.uid.clone());
    let node = node.ok_or_else(|| ApiError::internal("the Node is not known yet"))?;
    let mirror = static_pod::mirror(pod, &shared.config.node_name, &node);
    limited(shared.api.create(Box::new(mirror) as Box<dyn Object>)).await.map(drop)
}

async fn limited<T>(call: impl Future<Output = Result<T, ApiError>>) -> Result<T, ApiError> {
    let late = || ApiError::internal(format!("no answer from the API within {} s", WRITE_TIMEOUT.as_secs()));
    timeout(WRITE_TIMEOUT, call).await.unwrap_or_else(|_| Err(late()))
}
