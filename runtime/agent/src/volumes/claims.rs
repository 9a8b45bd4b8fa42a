//! Claims on local storage: finding the folder of a bound one, and provisioning a volume for one that is to be on this node.
//!
//! A claim that the scheduler (or the controller that binds claims) has given to this node by `selected-node` gets a folder
//! below `<data_dir>/storage` and a PersistentVolume that points there and nowhere else. A volume of ours that is released and
//! to be deleted goes with its folder.
//!
//! # Source
//! Kubernetes `sigs.k8s.io/sig-storage-lib-external-provisioner`, `pkg/volume/local`.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::{
    api::core::v1::{
        LocalVolumeSource, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, ObjectReference, PersistentVolume,
        PersistentVolumeClaim, PersistentVolumeSpec, VolumeNodeAffinity,
    },
    api::storage::v1::StorageClass,
    apimachinery::pkg::apis::meta::v1::{DeleteOptions, ObjectMeta},
};
use podium_api::{ObjectKey, Reason, kind_of};
use podium_client::{Delta, Mirror, MirrorScope};

use super::{Place, Volumes, host, opened, read};

/// What a StorageClass names as its provisioner to get storage of this node.
pub const PROVISIONER: &str = "podium.dev/local";

/// How long a start waits for its claim to be bound before it says so.
const BOUND_WITHIN: Duration = Duration::from_secs(5);
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const STORAGE_PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
const HOSTNAME: &str = "kubernetes.io/hostname";

impl Volumes {
    /// The folder that a claim stands for. `owner`: uid of the pod that must own it.
    pub(super) async fn claim(
        &self,
        namespace: &str,
        name: &str,
        read_only: bool,
        owner: Option<&str>,
    ) -> Result<Place, String> {
        let failed = |why: &str| format!("error processing PVC {namespace}/{name}: {why}");
        let claim = self.bound(namespace, name).await.map_err(|why| failed(&why))?;
        let owned = |uid| claim.metadata.owner_references.iter().flatten().any(|o| o.uid == uid);
        if owner.is_some_and(|uid| !owned(uid)) {
            return Err(failed("the PVC was not created for the pod (pod is not owner)"));
        }
        let volume_name = claim.spec.as_ref().and_then(|s| s.volume_name.clone()).unwrap_or_default();
        let volume = read::<PersistentVolume>(&*self.api, "", &volume_name).await?;
        let volume = volume.ok_or_else(|| failed(&format!("failed to fetch PV {volume_name:?} from API server")))?;
        let spec = volume.spec.as_ref();
        let bound_to = spec.and_then(|s| s.claim_ref.as_ref()).and_then(|r| r.uid.as_deref());
        if bound_to != claim.metadata.uid.as_deref() {
            return Err(failed(&format!("PV {volume_name:?} is bound to another claim")));
        }
        let local = spec.and_then(|s| s.local.as_ref()).map(|l| l.path.as_str());
        let path = local.or_else(|| spec.and_then(|s| s.host_path.as_ref()).map(|h| h.path.as_str()));
        let path = path.ok_or_else(|| failed("only local and hostPath volumes are offered by this node"))?;
        let path = if provisioned_here(&volume) && Path::new(path).parent() == Some(&self.places.storage) {
            fs::create_dir_all(path).map_err(|e| failed(&format!("cannot make {path}: {e}")))?;
            Path::new(path).canonicalize().map_err(|e| failed(&format!("cannot find {path}: {e}")))?
        } else {
            host::resolve(path, "", &self.places.granted).map_err(|e| failed(&e))?
        };
        let modes = spec.and_then(|s| s.access_modes.as_deref()).unwrap_or_default();
        let only_read = !modes.is_empty() && modes.iter().all(|mode| mode == "ReadOnlyMany");
        opened(&path, read_only || only_read).map_err(|e| failed(&e))
    }

    /// Waits a little for a claim to be bound: it may have been created together with its pod.
    async fn bound(&self, namespace: &str, name: &str) -> Result<Arc<PersistentVolumeClaim>, String> {
        let scope =
            MirrorScope { namespace: Some(namespace.to_owned()), fields: Some(format!("metadata.name={name}")) };
        let mirror = self.api.mirror(&kind_of::<PersistentVolumeClaim>(), scope).await.map_err(|e| e.message)?;
        let mut deltas = mirror.subscribe();
        let mut state = format!("failed to fetch PVC from API server: persistentvolumeclaim {name:?} not found");
        let waiting = async {
            while let Some(delta) = deltas.recv().await {
                let Delta::Put { new, .. } = delta else { continue };
                let Some(claim) = new.downcast_arc::<PersistentVolumeClaim>() else { continue };
                if claim.metadata.deletion_timestamp.is_some() {
                    return Err("can't start pod because PVC is being deleted".to_owned());
                }
                if claim.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound") {
                    return Ok(claim);
                }
                state = "PVC is not bound".to_owned();
            }
            Err("the API is going down".to_owned())
        };
        match tokio::time::timeout(BOUND_WITHIN, waiting).await {
            Ok(found) => found,
            Err(_elapsed) => Err(state),
        }
    }
}

fn provisioned_here(volume: &PersistentVolume) -> bool {
    annotation(&volume.metadata, PROVISIONED_BY) == Some(PROVISIONER)
}

fn annotation<'a>(meta: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(name).map(String::as_str)
}

/// Provisions volumes for claims that are given to this node, and deletes them. Runs until it is aborted.
pub(crate) async fn provision(volumes: Arc<Volumes>, node: String) {
    let mirror = |kind| volumes.api.mirror(kind, MirrorScope::default());
    let (claims, existing) = (kind_of::<PersistentVolumeClaim>(), kind_of::<PersistentVolume>());
    let (claims, existing) = match tokio::try_join!(mirror(&claims), mirror(&existing)) {
        Ok(mirrors) => mirrors,
        Err(error) => {
            tracing::warn!(%error, "claims cannot be followed: this node provisions no storage");
            return;
        }
    };
    let (mut of_claims, mut of_volumes) = (claims.subscribe(), existing.subscribe());
    let provisioner = Provisioner { volumes: &volumes, node: &node, existing: &*existing };
    loop {
        let delta = tokio::select! {
            delta = of_claims.recv() => delta,
            delta = of_volumes.recv() => delta,
        };
        let Some(delta) = delta else { return };
        let Delta::Put { new, .. } = delta else { continue };
        let done = if let Some(claim) = new.downcast_ref::<PersistentVolumeClaim>() {
            provisioner.make(claim).await
        } else if let Some(volume) = new.downcast_ref::<PersistentVolume>() {
            provisioner.delete(volume).await
        } else {
            Ok(())
        };
        if let Err(error) = done {
            tracing::warn!(object = %new.key(), error, "cannot provision storage");
        }
    }
}

struct Provisioner<'a> {
    volumes: &'a Volumes,
    node: &'a str,
    existing: &'a dyn Mirror,
}

impl Provisioner<'_> {
    async fn make(&self, claim: &PersistentVolumeClaim) -> Result<(), String> {
        let meta = &claim.metadata;
        let bound = claim.spec.as_ref().is_some_and(|s| s.volume_name.as_deref().is_some_and(|n| !n.is_empty()));
        let ours = annotation(meta, STORAGE_PROVISIONER) == Some(PROVISIONER)
            && annotation(meta, SELECTED_NODE) == Some(self.node);
        if bound || !ours || meta.deletion_timestamp.is_some() {
            return Ok(());
        }
        let name = format!("pvc-{}", meta.uid.as_deref().unwrap_or_default());
        if self.existing.get(&ObjectKey::new("", &*name)).is_some() {
            return Ok(());
        }
        let class_name = claim.spec.as_ref().and_then(|s| s.storage_class_name.clone()).unwrap_or_default();
        let class = read::<StorageClass>(&*self.volumes.api, "", &class_name).await?;
        let Some(class) = class.filter(|class| class.provisioner == PROVISIONER) else { return Ok(()) };
        let path = self.volumes.places.storage.join(&name);
        fs::create_dir_all(&path).map_err(|e| format!("cannot make {}: {e}", path.display()))?;
        let volume = volume(&name, &path, claim, &class, self.node);
        match self.volumes.api.create(Box::new(volume)).await {
            Err(error) if error.reason != Reason::AlreadyExists => Err(error.message),
            _ => Ok(()),
        }
    }

    /// A released volume of ours goes with its folder.
    async fn delete(&self, volume: &PersistentVolume) -> Result<(), String> {
        let meta = &volume.metadata;
        let Some(spec) = &volume.spec else { return Ok(()) };
        let released = volume.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Released");
        let to_go = spec.persistent_volume_reclaim_policy.as_deref() == Some("Delete");
        let path = spec.local.as_ref().map(|local| PathBuf::from(&local.path));
        let path = path.filter(|path| path.parent() == Some(&self.volumes.places.storage));
        let (true, true, true, Some(path)) = (released, to_go, provisioned_here(volume), path) else { return Ok(()) };
        if !on_node(spec, self.node) || meta.deletion_timestamp.is_some() {
            return Ok(());
        }
        let removed = tokio::task::spawn_blocking(move || podium_sandbox::remove_tree(&path)).await;
        match removed {
            Ok(Err(error)) if error.kind() != io::ErrorKind::NotFound => return Err(error.to_string()),
            _ => {}
        }
        let kind = kind_of::<PersistentVolume>();
        match self.volumes.api.delete(&kind, &ObjectKey::of(meta), DeleteOptions::default()).await {
            Err(error) if !error.is_not_found() => Err(error.message),
            _ => Ok(()),
        }
    }
}

fn on_node(spec: &PersistentVolumeSpec, node: &str) -> bool {
    let required = spec.node_affinity.as_ref().and_then(|a| a.required.as_ref());
    let mut rules =
        required.iter().flat_map(|r| &r.node_selector_terms).flat_map(|t| t.match_expressions.iter().flatten());
    rules.any(|rule| rule.key == HOSTNAME && rule.values.iter().flatten().any(|value| value == node))
}

fn volume(
    name: &str,
    path: &Path,
    claim: &PersistentVolumeClaim,
    class: &StorageClass,
    node: &str,
) -> PersistentVolume {
    let spec = claim.spec.clone().unwrap_or_default();
    let request = spec.resources.and_then(|r| r.requests).and_then(|r| r.get("storage").cloned());
    let rule = NodeSelectorRequirement {
        key: HOSTNAME.to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let term = NodeSelectorTerm { match_expressions: Some(vec![rule]), match_fields: None };
    let claim_ref = ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("PersistentVolumeClaim".to_owned()),
        namespace: claim.metadata.namespace.clone(),
        name: claim.metadata.name.clone(),
        uid: claim.metadata.uid.clone(),
        resource_version: claim.metadata.resource_version.clone(),
        field_path: None,
    };
    PersistentVolume {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            annotations: Some(BTreeMap::from([(PROVISIONED_BY.to_owned(), PROVISIONER.to_owned())])),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeSpec {
            access_modes: spec.access_modes,
            capacity: request.map(|storage| BTreeMap::from([("storage".to_owned(), storage)])),
            claim_ref: Some(claim_ref),
            local: Some(LocalVolumeSource { path: path.display().to_string(), fs_type: None }),
            node_affinity: Some(VolumeNodeAffinity {
                required: Some(NodeSelector { node_selector_terms: vec![term] }),
            }),
            persistent_volume_reclaim_policy: Some(class.reclaim_policy.clone().unwrap_or_else(|| "Delete".to_owned())),
            storage_class_name: class.metadata.name.clone(),
            volume_mode: Some("Filesystem".to_owned()),
            ..PersistentVolumeSpec::default()
        }),
        status: None,
    }
}
