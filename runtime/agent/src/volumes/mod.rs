//! Volumes of pods: made when the first container of a pod starts, brought up to date while it runs, gone with it.
//!
//! Invariants: what a pod needs is known to be there before any of its containers starts; files are written when a guest
//! first looks at them, so pods that never look cost no file; no mount leads out of its volume; what belongs to no pod of
//! this node is removed. A folder of a pod is `<data_dir>/pods/<uid>/volumes/<name>`; Secrets, tokens and `medium: Memory`
//! lie in a memory file system where there is one.

mod atomic;
mod claims;
mod follow;
mod host;
mod memory_place;
mod payload;
mod sources;
mod stores;
mod usage;
mod volume;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs, io,
    net::IpAddr,
    path::{Component, Path, PathBuf},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container as Spec, HostPathVolumeSource, Pod, Volume as VolumeSpec};
use parking_lot::Mutex;
use podium_api::quantity::Quantity;
use podium_client::{ApiRef, ClockRef};
use podium_sandbox::{Group, Mount, Stores, remove_tree};
use tokio::sync::OnceCell;

pub use self::claims::PROVISIONER;
pub(crate) use self::claims::provision;
pub(crate) use self::sources::{read, read_all};
use self::{
    follow::Follow,
    memory_place::MemoryPlace,
    payload::{Payload, Wanted, is_api_volume},
    stores::{OpenStores, VolumeStores},
    volume::{Empty, Files, Host, Place, Volume},
};
use crate::{
    decide::{
        env::{Surroundings, Variables},
        resources::NodeResources,
    },
    driver::PodId,
};

/// So many folders of a container are made because its image says that it writes to them; more are left out.
const IMAGE_VOLUMES_MAX: usize = 16;

/// Where volumes may lie.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    /// `<data_dir>/pods`.
    pub(crate) pods: PathBuf,
    /// A memory file system for what must not reach a disk; `None`: there is none.
    pub(crate) memory: Option<MemoryPlace>,
    /// `<data_dir>/storage`: volumes that this node has provisioned.
    pub(crate) storage: PathBuf,
    /// What `hostPath` may show.
    pub(crate) granted: Vec<PathBuf>,
}

impl Places {
    /// Below the agent's folder; `memory_dir` is used if it is a folder that can be written.
    pub(crate) fn new(data_dir: &Path, memory_dir: Option<&Path>, granted: Vec<PathBuf>) -> Self {
        let memory = memory_dir.and_then(|dir| MemoryPlace::new(dir, data_dir));
        Self { pods: data_dir.join("pods"), memory, storage: data_dir.join("storage"), granted }
    }

    fn memory(&self) -> Option<&Path> {
        self.memory.as_ref().map(MemoryPlace::path)
    }

    /// Where folders of pods lie.
    fn roots(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(&*self.pods).chain(self.memory())
    }
}

/// All volumes of this node's pods.
pub(crate) struct Volumes {
    places: Places,
    api: ApiRef,
    clock: ClockRef,
    facts: Facts,
    pods: Mutex<HashMap<Arc<str>, Arc<Entry>>>,
    follow: Follow,
    stores: Arc<OpenStores>,
    versions: AtomicU64,
    /// Pods with volumes in memory.
    in_memory: Mutex<Vec<Weak<PodVolumes>>>,
}

/// What volumes may show of the node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts {
    pub(crate) host_ip: IpAddr,
    pub(crate) node: NodeResources,
}

#[derive(Default)]
struct Entry {
    volumes: OnceCell<Arc<PodVolumes>>,
    gone: AtomicBool,
}

/// The volumes of one pod.
pub(crate) struct PodVolumes {
    id: PodId,
    ip: IpAddr,
    pod: Mutex<Arc<Pod>>,
    volumes: BTreeMap<String, Arc<Volume>>,
    /// Those of containers, for what their images say that they write to.
    of_images: Mutex<BTreeMap<String, Arc<Volume>>>,
    /// Where they lie.
    dir: PathBuf,
    stores: Arc<OpenStores>,
    wanted: Wanted,
    /// What pays for its volumes in memory.
    group: Weak<Group>,
    /// When tokens are to be fetched anew.
    refresh_at: Mutex<Option<Timestamp>>,
}

impl Volumes {
    pub(crate) fn new(places: Places, api: ApiRef, clock: ClockRef, facts: Facts) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            places,
            follow: Follow::new(api.clone(), this.clone()),
            api,
            clock,
            facts,
            pods: Mutex::default(),
            stores: Arc::default(),
            versions: AtomicU64::new(0),
            in_memory: Mutex::default(),
        })
    }

    /// Makes sure that everything is there that the pod's volumes show. Done once for all its containers.
    ///
    /// # Errors
    /// What is missing, as kubelet says it in its events; to be tried again.
    pub(crate) async fn prepare(
        &self,
        id: &PodId,
        pod: &Arc<Pod>,
        ip: IpAddr,
        group: &Arc<Group>,
    ) -> Result<Arc<PodVolumes>, String> {
        let entry = self.pods.lock().entry(id.uid.clone()).or_default().clone();
        let volumes = entry.volumes.get_or_try_init(|| self.make(id, pod, ip, group)).await?.clone();
        if entry.gone.load(Ordering::Acquire) {
            return Err("the pod has gone".to_owned());
        }
        Ok(volumes)
    }

    async fn make(
        &self,
        id: &PodId,
        pod: &Arc<Pod>,
        ip: IpAddr,
        group: &Arc<Group>,
    ) -> Result<Arc<PodVolumes>, String> {
        let specs = pod.spec.as_ref().and_then(|s| s.volumes.as_deref()).unwrap_or_default();
        let mut wanted = Wanted::default();
        for spec in specs {
            wanted.add(spec);
        }
        let made = PodVolumes {
            id: id.clone(),
            ip,
            pod: Mutex::new(pod.clone()),
            volumes: BTreeMap::new(),
            of_images: Mutex::default(),
            dir: self.places.pods.join(&*id.uid).join("volumes"),
            stores: self.stores.clone(),
            wanted,
            group: Arc::downgrade(group),
            refresh_at: Mutex::default(),
        };
        let mut payloads = self.payloads(&made, specs).await?;
        let mut volumes = BTreeMap::new();
        for spec in specs {
            let place = self.place(id, pod, spec, &mut payloads).await.map_err(|e| set_up_failed(&spec.name, &e))?;
            volumes.insert(spec.name.clone(), Arc::new(Volume::new(spec.name.clone(), place)));
        }
        let made = Arc::new(PodVolumes { volumes, ..made });
        self.follow.add(&made);
        if made.has_memory() {
            self.in_memory.lock().push(Arc::downgrade(&made));
        }
        Ok(made)
    }

    /// The files of those volumes that show objects of the API.
    async fn payloads(&self, pod: &PodVolumes, specs: &[VolumeSpec]) -> Result<HashMap<String, Payload>, String> {
        let object = pod.pod.lock().clone();
        let first = |name: fn(&VolumeSpec) -> bool| specs.iter().find(|v| name(v)).map_or("", |v| v.name.as_str());
        let namespace = &pod.id.key.namespace;
        let Wanted { config_maps, secrets, tokens, .. } = &pod.wanted;
        let sources = read_all(&*self.api, namespace, config_maps.clone(), secrets.clone()).await;
        let sources = sources.map_err(|error| set_up_failed(first(is_api_volume), &error))?;
        let tokens = self.tokens(pod, &object, tokens).await;
        let tokens = tokens.map_err(|error| set_up_failed(first(|v| v.projected.is_some()), &error))?;
        let around = Surroundings {
            pod: &object,
            pod_ip: pod.ip,
            host_ip: self.facts.host_ip,
            node: self.facts.node,
            sources: &sources,
            services: &[],
        };
        let mut payloads = HashMap::new();
        for spec in specs.iter().filter(|spec| is_api_volume(spec)) {
            let payload = payload::payload(spec, &around, &tokens).map_err(|e| set_up_failed(&spec.name, &e))?;
            payloads.insert(spec.name.clone(), payload);
        }
        Ok(payloads)
    }

    async fn place(
        &self,
        id: &PodId,
        pod: &Pod,
        spec: &VolumeSpec,
        payloads: &mut HashMap<String, Payload>,
    ) -> Result<Place, String> {
        if let Some(payload) = payloads.remove(&spec.name) {
            let secret = spec.secret.is_some() || spec.projected.is_some();
            let dir = self.dir(id, &spec.name, secret);
            return Ok(Place::Files(Files::new(dir, payload, self.version())));
        }
        if let Some(source) = &spec.empty_dir {
            let in_memory = source.medium.as_deref() == Some("Memory") && self.places.memory.is_some();
            let limit = source.size_limit.as_ref().and_then(|q| Quantity::try_from(q).ok()).map(|q| q.bytes());
            return Ok(Place::Empty(Empty {
                dir: self.dir(id, &spec.name, in_memory),
                made: AtomicBool::new(false),
                limit_bytes: limit.filter(|bytes| *bytes > 0),
                in_memory,
            }));
        }
        if let Some(HostPathVolumeSource { path, type_ }) = &spec.host_path {
            let path = host::resolve(path, type_.as_deref().unwrap_or_default(), &self.places.granted)?;
            return opened(&path, false);
        }
        if let Some(source) = &spec.persistent_volume_claim {
            let read_only = source.read_only == Some(true);
            return self.claim(&id.key.namespace, &source.claim_name, read_only, None).await;
        }
        if spec.ephemeral.is_some() {
            let name = format!("{}-{}", id.key.name, spec.name);
            return self.claim(&id.key.namespace, &name, false, pod.metadata.uid.as_deref()).await;
        }
        Err(format!("volumes of the type {} are not offered by this node", type_of(spec)))
    }

    /// Where a volume of a pod lies.
    fn dir(&self, id: &PodId, volume: &str, secret: bool) -> PathBuf {
        let root = self.places.memory().filter(|_| secret).unwrap_or(&self.places.pods);
        root.join(&*id.uid).join("volumes").join(volume)
    }

    /// A name that no state of a volume has had before.
    fn version(&self) -> String {
        let now = self.clock.now().strftime("%Y_%m_%d_%H_%M_%S%.9f").to_string();
        format!("{}_{}", now.replace('.', "_"), self.versions.fetch_add(1, Ordering::Relaxed))
    }

    /// The pod has changed: what its volumes show of it may have too.
    pub(crate) fn changed(&self, id: &PodId, pod: &Arc<Pod>) {
        let entry = self.pods.lock().get(&id.uid).cloned();
        let Some(volumes) = entry.and_then(|entry| entry.volumes.get().cloned()) else { return };
        let old = std::mem::replace(&mut *volumes.pod.lock(), pod.clone());
        let (was, is) = (&old.metadata, &pod.metadata);
        if volumes.wanted.pod && (was.labels != is.labels || was.annotations != is.annotations) {
            self.follow.refresh(&id.uid);
        }
    }

    /// The pod has gone: so do its folders. Blocks for as long as that takes.
    pub(crate) fn forget(&self, id: &PodId) {
        let Some(entry) = self.pods.lock().remove(&id.uid) else { return };
        entry.gone.store(true, Ordering::Release);
        if let Some(volumes) = entry.volumes.get() {
            self.follow.remove(volumes);
        }
        self.remove_dirs(&id.uid);
    }

    /// Removes the folders of pods that went while no agent ran. Blocks for as long as that takes.
    pub(crate) fn clean(&self, pods: &HashSet<String>) {
        for root in self.places.roots() {
            let names = fs::read_dir(root).into_iter().flatten().filter_map(|e| e.ok()?.file_name().into_string().ok());
            for uid in names.filter(|uid| !pods.contains(uid) && uid != memory_place::MARK) {
                self.remove_dirs(&uid);
            }
        }
    }

    fn remove_dirs(&self, uid: &str) {
        for root in self.places.roots() {
            match remove_tree(&root.join(uid)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(uid, %error, "cannot remove the volumes of a pod");
                }
                _ => {}
            }
        }
    }

    /// Brings what a pod's volumes show up to date. What is missing now stays as it was.
    async fn refresh(&self, uid: &str) {
        let entry = self.pods.lock().get(uid).cloned();
        let Some(entry) = entry else { return };
        let Some(volumes) = entry.volumes.get() else { return };
        let object = volumes.pod.lock().clone();
        let specs = object.spec.as_ref().and_then(|s| s.volumes.as_deref()).unwrap_or_default();
        let payloads = match self.payloads(volumes, specs).await {
            Ok(payloads) => payloads,
            Err(error) => {
                tracing::debug!(pod = %volumes.id.key, error, "volumes stay as they are");
                return;
            }
        };
        let updates = payloads.into_iter().map(|(name, payload)| (volumes.volumes.get(&name).cloned(), payload));
        let updates: Vec<_> = updates.collect();
        let versions: Vec<_> = updates.iter().map(|_| self.version()).collect();
        let pod = volumes.id.key.clone();
        let written = tokio::task::spawn_blocking(move || {
            for ((volume, payload), version) in updates.into_iter().zip(versions) {
                let Some(Place::Files(files)) = volume.as_ref().map(|v| &v.place) else { continue };
                if let Err(error) = files.update(payload, version) {
                    tracing::warn!(%pod, %error, "cannot update a volume");
                }
            }
        });
        if written.await.is_ok() && entry.gone.load(Ordering::Acquire) {
            // It went meanwhile; what was written just now is nobody's.
            self.remove_dirs(uid);
        }
    }
}

/// The files of a volume that shows objects of the API; none for others.
///
/// # Errors
/// What is missing.
pub(crate) fn files_of(volume: &VolumeSpec, around: &Surroundings<'_>) -> Result<usize, String> {
    if !is_api_volume(volume) {
        return Ok(0);
    }
    payload::payload(volume, around, &payload::Tokens::new()).map(|files| files.len())
}

/// kubelet's words in the event `FailedMount`.
fn set_up_failed(volume: &str, error: &str) -> String {
    format!("MountVolume.SetUp failed for volume {volume:?} : {error}")
}

/// Whether a path is relative and says nothing of going up.
fn is_below(path: &str) -> bool {
    Path::new(path).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}

/// A folder or file of the host.
fn opened(path: &Path, read_only: bool) -> Result<Place, String> {
    let host = Host::open(path, read_only).map_err(|error| format!("cannot open {}: {error}", path.display()))?;
    Ok(Place::Host(host))
}

/// The name of the field that is set.
fn type_of(spec: &VolumeSpec) -> String {
    let value = serde_json::to_value(spec).unwrap_or_default();
    let mut fields = value.as_object().into_iter().flatten().map(|(key, _)| key.clone());
    fields.find(|key| key != "name").unwrap_or_else(|| "none".to_owned())
}

impl PodVolumes {
    /// All of them, those of images last.
    fn all(&self) -> Vec<Arc<Volume>> {
        self.volumes.values().cloned().chain(self.of_images.lock().values().cloned()).collect()
    }

    /// Adds a folder for each that the container's image says it writes to and where the pod mounts nothing. It is empty at
    /// first, the container's own, and goes with the pod.
    pub(crate) fn add_of_image(&self, container: &str, folders: &[String], mounts: &mut Vec<Mount>) {
        for (at, folder) in folders.iter().enumerate().take(IMAGE_VOLUMES_MAX) {
            if mounts.iter().any(|mount| mount.guest_path.trim_end_matches('/') == folder) {
                continue;
            }
            // No volume of a pod has such a name.
            let name = format!("image~{container}~{at}");
            let make = || {
                let (dir, made) = (self.dir.join(&name), AtomicBool::new(false));
                let place = Place::Empty(Empty { dir, made, limit_bytes: None, in_memory: false });
                Arc::new(Volume::new(name.clone(), place))
            };
            let source = self.of_images.lock().entry(name.clone()).or_insert_with(make).clone();
            mounts.push(Mount { guest_path: folder.clone(), source, sub_path: None, read_only: false });
        }
    }

    /// What `wasi:keyvalue` opens for one container.
    pub(crate) fn stores(&self, spec: &Spec) -> Option<Arc<dyn Stores>> {
        let mounts = spec.volume_mounts.iter().flatten().filter(|mount| mount.read_only != Some(true));
        let mut names: Vec<_> = mounts.map(|mount| &mount.name).collect();
        names.sort_unstable();
        names.dedup();
        let volumes = names.into_iter().filter_map(|name| self.volumes.get(name).cloned());
        VolumeStores::over(volumes, &self.stores, &self.group)
    }

    /// What one container mounts, in the order of its spec.
    ///
    /// # Errors
    /// When a `subPath` leads out of its volume by what it says.
    pub(crate) fn mounts(&self, spec: &Spec, variables: &Variables) -> Result<Vec<Mount>, String> {
        let mut mounts = Vec::new();
        for mount in spec.volume_mounts.iter().flatten() {
            let volume = self.volumes.get(&mount.name);
            let volume = volume.ok_or_else(|| format!("the pod has no volume {:?}", mount.name))?;
            let expanded = mount.sub_path_expr.as_ref().map(|text| variables.expand(text));
            let sub_path = expanded.or_else(|| mount.sub_path.clone()).filter(|sub| !sub.is_empty());
            if sub_path.as_deref().is_some_and(|sub| !is_below(sub)) {
                return Err(format!("subPath of volumeMount {:?} must be relative and without ..", mount.name));
            }
            mounts.push(Mount {
                guest_path: mount.mount_path.clone(),
                source: volume.clone(),
                sub_path: sub_path.map(PathBuf::from),
                read_only: mount.read_only == Some(true) || volume.read_only(),
            });
        }
        Ok(mounts)
    }
}
