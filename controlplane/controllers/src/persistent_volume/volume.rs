//! What a volume's status says of its claim. Folders are the provisioner's: it deletes what is released and to go.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use podium_api::{Kind, Object, ObjectKey, kind_of};
use serde_json::json;

use super::{BOUND_BY_CONTROLLER, PROVISIONED_BY, annotation, claim_key, claim_uid, volume_name};
use crate::{Action, Controller, EventNote, Key, Plan, Trigger, View, ViewExt};

/// The controller of volumes.
pub struct Volumes;

impl Controller for Volumes {
    fn name(&self) -> &'static str {
        "persistentvolume-phase"
    }

    fn component(&self) -> &'static str {
        "persistentvolume-controller"
    }

    fn triggers(&self) -> Vec<Trigger> {
        vec![
            Trigger { kind: kind_of::<PersistentVolume>(), keys: |volume, _| vec![Key::of(volume)] },
            Trigger { kind: kind_of::<PersistentVolumeClaim>(), keys: of_claim },
        ]
    }

    fn reconcile(&self, key: &Key, view: &dyn View, _now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(volume) = view.get_as::<PersistentVolume>(&key.object) else { return plan };
        let Some(claim_key) = claim_key(&volume) else {
            set_phase(&volume, "Available", &mut plan);
            return plan;
        };
        let uid = claim_uid(&volume);
        if uid.is_empty() {
            // Meant for a claim that has not come yet.
            set_phase(&volume, "Available", &mut plan);
            return plan;
        }
        let claim = view.get_as::<PersistentVolumeClaim>(&claim_key);
        match claim.filter(|claim| claim.metadata.uid.as_deref() == Some(uid)) {
            None if view.revision(&PersistentVolumeClaim::NAMES) < (&*volume as &dyn Object).revision() => {
                plan.requeue_in(1);
            }
            None => release(&volume, &mut plan),
            Some(claim) if Some(volume_name(&claim)) == volume.metadata.name.as_deref() => {
                set_phase(&volume, "Bound", &mut plan);
            }
            // The claim's own controller binds it.
            Some(claim) if volume_name(&claim).is_empty() => {}
            Some(_) => give_up(&volume, &mut plan),
        }
        plan
    }
}

/// Volumes that are bound to a claim, or that it names.
fn of_claim(object: &dyn Object, view: &dyn View) -> Vec<Key> {
    let Some(claim) = object.downcast_ref::<PersistentVolumeClaim>() else { return Vec::new() };
    let uid = claim.metadata.uid.as_deref().unwrap_or_default();
    let all = view.list_as::<PersistentVolume>(None);
    let its = all.iter().filter(|v| claim_uid(v) == uid || v.metadata.name.as_deref() == Some(volume_name(claim)));
    its.map(|volume| Key::of(&**volume)).collect()
}

fn set_phase(volume: &PersistentVolume, phase: &str, plan: &mut Plan) {
    if volume.status.as_ref().and_then(|s| s.phase.as_deref()) != Some(phase) {
        let patch = json!({ "status": { "phase": phase, "message": null, "reason": null } });
        push(volume, patch, Some("status"), plan);
    }
}

fn push(volume: &PersistentVolume, patch: serde_json::Value, subresource: Option<&'static str>, plan: &mut Plan) {
    let key = ObjectKey::of(&volume.metadata);
    plan.push(Action::MergePatch { kind: kind_of::<PersistentVolume>(), key, patch, subresource });
}

/// Its claim is gone.
fn release(volume: &PersistentVolume, plan: &mut Plan) {
    let policy = volume.spec.as_ref().and_then(|s| s.persistent_volume_reclaim_policy.as_deref());
    let by_hand = annotation(&volume.metadata, PROVISIONED_BY).is_none();
    let stuck = match policy {
        Some("Recycle") => Some(("VolumeFailedRecycle", "No recycler plugin found for the volume!")),
        Some("Delete") if by_hand => Some(("VolumeFailedDelete", "No deleter plugin found for the volume!")),
        _ => None,
    };
    let Some((reason, words)) = stuck else { return set_phase(volume, "Released", plan) };
    if volume.status.as_ref().and_then(|s| s.phase.as_deref()) != Some("Failed") {
        plan.push(Action::Event(EventNote::warning(volume, reason, words)));
        push(volume, json!({ "status": { "phase": "Failed", "message": words } }), Some("status"), plan);
    }
}

/// The claim has taken another volume. One that was chosen here is free again; one that the user chose stays as it is.
fn give_up(volume: &PersistentVolume, plan: &mut Plan) {
    if annotation(&volume.metadata, PROVISIONED_BY).is_some() {
        return release(volume, plan);
    }
    let by_controller = annotation(&volume.metadata, BOUND_BY_CONTROLLER).is_some();
    let version = volume.metadata.resource_version.clone();
    let patch = if by_controller {
        let metadata = json!({ "resourceVersion": version, "annotations": { BOUND_BY_CONTROLLER: null } });
        json!({ "metadata": metadata, "spec": { "claimRef": null } })
    } else {
        json!({ "metadata": { "resourceVersion": version }, "spec": { "claimRef": { "uid": null, "resourceVersion": null } } })
    };
    push(volume, patch, None, plan);
}
