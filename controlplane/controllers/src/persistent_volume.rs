//! Binds claims to volumes, asks provisioners for new ones, and says what has become of volumes whose claims went.
//!
//! A claim of a class that waits for its first consumer is given to the node of the first pod that uses it (`selected-node`),
//! unless the scheduler has done so; the provisioner there makes the volume. Volumes are never bound twice: whoever takes one
//! names the revision that was looked at.
//!
//! # Source
//! Kubernetes `pkg/controller/volume/persistentvolume/pv_controller.go`, `index.go`; `pkg/controller/volume/ephemeral`.

mod claim;
mod ephemeral;
mod matching;
#[cfg(test)]
mod tests;
mod volume;

use k8s_openapi::{
    api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Volume},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use podium_api::{Object, ObjectKey};

pub use self::{claim::Claims, ephemeral::EphemeralVolumes, volume::Volumes};
use crate::{Key, View, ViewExt};

const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
const STORAGE_PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
const STORAGE_PROVISIONER_BETA: &str = "volume.beta.kubernetes.io/storage-provisioner";

fn annotation<'a>(meta: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(name).map(String::as_str)
}

/// The claim that a volume is, or is to be, bound to.
fn claim_key(volume: &PersistentVolume) -> Option<ObjectKey> {
    let claim = volume.spec.as_ref()?.claim_ref.as_ref()?;
    Some(ObjectKey::new(claim.namespace.clone().unwrap_or_default(), claim.name.clone().unwrap_or_default()))
}

fn claim_uid(volume: &PersistentVolume) -> &str {
    let claim = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref());
    claim.and_then(|c| c.uid.as_deref()).unwrap_or_default()
}

/// Whether a volume is for this claim, by name or bound to it.
fn is_for(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let uid = claim_uid(volume);
    claim_key(volume) == Some(ObjectKey::of(&claim.metadata))
        && (uid.is_empty() || Some(uid) == claim.metadata.uid.as_deref())
}

fn volume_name(claim: &PersistentVolumeClaim) -> &str {
    claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).unwrap_or_default()
}

fn phase(status: Option<&str>) -> &str {
    status.unwrap_or("Pending")
}

/// The name of the claim that a pod's volume stands for.
pub(crate) fn claim_name(pod: &Pod, volume: &Volume) -> Option<String> {
    if let Some(claim) = &volume.persistent_volume_claim {
        return Some(claim.claim_name.clone());
    }
    volume.ephemeral.as_ref()?;
    Some(format!("{}-{}", pod.metadata.name.as_deref().unwrap_or_default(), volume.name))
}

fn claims_of(pod: &Pod) -> impl Iterator<Item = ObjectKey> {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    volumes.filter_map(|v| claim_name(pod, v)).map(move |name| ObjectKey::new(namespace.clone(), name))
}

/// Key of a pod's claims that are bound to nothing yet.
fn unbound_claims(object: &dyn Object, view: &dyn View) -> Vec<Key> {
    use podium_api::Kind as _;
    let Some(pod) = object.downcast_ref::<Pod>() else { return Vec::new() };
    let unbound = |key: &ObjectKey| {
        let claim = view.get_as::<PersistentVolumeClaim>(key);
        claim.is_some_and(|claim| annotation(&claim.metadata, BIND_COMPLETED).is_none())
    };
    claims_of(pod).filter(unbound).map(|key| Key::new(&PersistentVolumeClaim::NAMES, key)).collect()
}
