//! Which volume suits a claim: the smallest that is large enough, of the same class, with all access modes and labels.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::core::v1::{PersistentVolume, PersistentVolumeClaim},
    apimachinery::pkg::api::resource::Quantity as Wire,
};
use podium_api::{Selector, quantity::Quantity};

use super::{claim_key, is_for};

fn storage(list: Option<&BTreeMap<String, Wire>>) -> Quantity {
    let found = list.and_then(|list| list.get("storage"));
    found.and_then(|wire| Quantity::try_from(wire).ok()).unwrap_or_default()
}

/// The best volume for a claim. `only_chosen`: only one that names the claim already.
pub(super) fn best(
    claim: &PersistentVolumeClaim,
    volumes: &[Arc<PersistentVolume>],
    only_chosen: bool,
) -> Option<Arc<PersistentVolume>> {
    let fits =
        |volume: &&Arc<PersistentVolume>| volume.metadata.deletion_timestamp.is_none() && suits(volume, claim).is_ok();
    let chosen = volumes.iter().filter(fits).find(|volume| is_for(volume, claim));
    if chosen.is_some() || only_chosen {
        return chosen.cloned();
    }
    let spec = claim.spec.as_ref()?;
    let selector = match &spec.selector {
        Some(selector) => Some(Selector::from_label_selector(Some(selector)).ok()?),
        None => None,
    };
    let free = volumes.iter().filter(|volume| claim_key(volume).is_none()).filter(fits);
    let free = free.filter(|volume| {
        let phase = volume.status.as_ref().and_then(|s| s.phase.as_deref());
        phase == Some("Available")
            && selector.as_ref().is_none_or(|s| s.matches(volume.metadata.labels.as_ref().unwrap_or(&BTreeMap::new())))
    });
    let size = |volume: &Arc<PersistentVolume>| storage(volume.spec.as_ref().and_then(|s| s.capacity.as_ref())).bytes();
    free.min_by_key(|volume| (size(volume), volume.metadata.name.clone())).cloned()
}

/// Whether size, class, modes and volume mode allow the two to be bound.
///
/// # Errors
/// What does not match, as the event says it.
pub(super) fn suits(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Result<(), &'static str> {
    let (Some(has), Some(wants)) = (&volume.spec, &claim.spec) else { return Err("there is no spec") };
    let requests = wants.resources.as_ref().and_then(|r| r.requests.as_ref());
    if storage(has.capacity.as_ref()).bytes() < storage(requests).bytes() {
        return Err("requested PV is too small");
    }
    let class = |name: &Option<String>| name.clone().unwrap_or_default();
    if class(&has.storage_class_name) != class(&wants.storage_class_name) {
        return Err("storageClassName does not match");
    }
    let mode = |mode: &Option<String>| mode.clone().unwrap_or_else(|| "Filesystem".to_owned());
    if mode(&has.volume_mode) != mode(&wants.volume_mode) {
        return Err("incompatible volumeMode");
    }
    let modes = has.access_modes.as_deref().unwrap_or_default();
    if wants.access_modes.iter().flatten().any(|mode| !modes.contains(mode)) {
        return Err("incompatible accessMode");
    }
    Ok(())
}
