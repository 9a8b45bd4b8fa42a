//! What a claim needs: a volume, or word to a provisioner, and a status that says how far it is.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::{
    core::v1::{PersistentVolume, PersistentVolumeClaim, Pod},
    storage::v1::StorageClass,
};
use podium_api::{Kind, Object, ObjectKey, Revision, kind_of};
use serde_json::{Value, json};

use super::{
    BIND_COMPLETED, BOUND_BY_CONTROLLER, SELECTED_NODE, STORAGE_PROVISIONER, STORAGE_PROVISIONER_BETA, annotation,
    claim_key, claim_uid, claims_of, is_for, matching, phase, unbound_claims, volume_name,
};
use crate::{
    Action, Controller, EventNote, Key, Plan, Trigger, View, ViewExt,
    pods::{is_active, node_name},
};

/// Until the next look at a claim that waits for a provisioner.
const PROVISION_SECONDS: i64 = 15;

/// The controller of claims.
pub struct Claims;

impl Controller for Claims {
    fn name(&self) -> &'static str {
        "persistentvolume-binder"
    }

    fn component(&self) -> &'static str {
        "persistentvolume-controller"
    }

    fn triggers(&self) -> Vec<Trigger> {
        vec![
            Trigger { kind: kind_of::<PersistentVolumeClaim>(), keys: |claim, _| vec![Key::of(claim)] },
            Trigger { kind: kind_of::<PersistentVolume>(), keys: of_volume },
            Trigger { kind: kind_of::<Pod>(), keys: unbound_claims },
            Trigger { kind: kind_of::<StorageClass>(), keys: of_class },
        ]
    }

    fn reconcile(&self, key: &Key, view: &dyn View, _now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(claim) = view.get_as::<PersistentVolumeClaim>(&key.object) else { return plan };
        if claim.metadata.deletion_timestamp.is_some() && annotation(&claim.metadata, BIND_COMPLETED).is_none() {
            return plan;
        }
        if annotation(&claim.metadata, BIND_COMPLETED).is_some() {
            check(&claim, view, &mut plan);
        } else if volume_name(&claim).is_empty() {
            find(&claim, view, &mut plan);
        } else {
            take(&claim, view, &mut plan);
        }
        plan
    }
}

/// The claim that a volume is for, and those that may want it when it is free.
fn of_volume(object: &dyn Object, view: &dyn View) -> Vec<Key> {
    let Some(volume) = object.downcast_ref::<PersistentVolume>() else { return Vec::new() };
    let key = |key| Key::new(&PersistentVolumeClaim::NAMES, key);
    if let Some(claim) = claim_key(volume) {
        return vec![key(claim)];
    }
    waiting(view)
        .filter(|claim| matching::suits(volume, claim).is_ok())
        .map(|c| key(ObjectKey::of(&c.metadata)))
        .collect()
}

fn of_class(object: &dyn Object, view: &dyn View) -> Vec<Key> {
    let name = object.meta().name.clone();
    let of = waiting(view).filter(|claim| claim.spec.as_ref().and_then(|s| s.storage_class_name.clone()) == name);
    of.map(|claim| Key::new(&PersistentVolumeClaim::NAMES, ObjectKey::of(&claim.metadata))).collect()
}

/// Claims that are bound to nothing yet.
fn waiting(view: &dyn View) -> impl Iterator<Item = Arc<PersistentVolumeClaim>> {
    let claims = view.list_as::<PersistentVolumeClaim>(None);
    claims.into_iter().filter(|claim| annotation(&claim.metadata, BIND_COMPLETED).is_none())
}

/// A claim that names no volume: looks for one, or has one made.
fn find(claim: &PersistentVolumeClaim, view: &dyn View, plan: &mut Plan) {
    let class_name = claim.spec.as_ref().and_then(|s| s.storage_class_name.clone()).unwrap_or_default();
    let class = view.get_as::<StorageClass>(&ObjectKey::new("", &*class_name));
    let waits = class.as_ref().is_some_and(|c| c.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"));
    let delayed = waits && annotation(&claim.metadata, SELECTED_NODE).is_none();
    let volumes = view.list_as::<PersistentVolume>(None);
    if let Some(volume) = matching::best(claim, &volumes, delayed) {
        return bind(claim, &volume, plan);
    }
    if delayed {
        return match consumer(claim, view) {
            Some(node) => annotate(claim, json!({ SELECTED_NODE: node }), plan),
            None => {
                let words = "waiting for first consumer to be created before binding";
                plan.push(Action::Event(EventNote::normal(claim, "WaitForFirstConsumer", words)));
                pending(claim, plan);
            }
        };
    }
    match class {
        Some(class) => provision(claim, &class, plan),
        None if class_name.is_empty() => {
            let words = "no persistent volumes available for this claim and no storage class is set";
            plan.push(Action::Event(EventNote::normal(claim, "FailedBinding", words)));
        }
        None => {
            let words = format!("storageclass.storage.k8s.io {class_name:?} not found");
            plan.push(Action::Event(EventNote::warning(claim, "ProvisioningFailed", words)));
        }
    }
    pending(claim, plan);
}

/// The node of the first pod that uses a claim.
fn consumer(claim: &PersistentVolumeClaim, view: &dyn View) -> Option<String> {
    let key = ObjectKey::of(&claim.metadata);
    let pods = view.list_as::<Pod>(Some(&key.namespace));
    let mut users = pods.iter().filter(|pod| is_active(pod) && !node_name(pod).is_empty());
    users.find(|pod| claims_of(pod).any(|name| name == key)).map(|pod| node_name(pod).to_owned())
}

/// Asks a provisioner for a volume.
fn provision(claim: &PersistentVolumeClaim, class: &StorageClass, plan: &mut Plan) {
    let provisioner = &class.provisioner;
    if provisioner == "kubernetes.io/no-provisioner" {
        let words = "no volume plugin matched name: kubernetes.io/no-provisioner";
        plan.push(Action::Event(EventNote::warning(claim, "ProvisioningFailed", words)));
        return;
    }
    if annotation(&claim.metadata, STORAGE_PROVISIONER) != Some(provisioner) {
        let names = json!({ STORAGE_PROVISIONER: provisioner, STORAGE_PROVISIONER_BETA: provisioner });
        return annotate(claim, names, plan);
    }
    let words = format!(
        "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the system administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered."
    );
    plan.push(Action::Event(EventNote::normal(claim, "ExternalProvisioning", words)));
    plan.requeue_in(PROVISION_SECONDS);
}

fn annotate(claim: &PersistentVolumeClaim, annotations: Value, plan: &mut Plan) {
    let patch = json!({ "metadata": {
        "resourceVersion": claim.metadata.resource_version, "annotations": annotations,
    } });
    push_patch::<PersistentVolumeClaim>(ObjectKey::of(&claim.metadata), patch, None, plan);
}

fn push_patch<K: Kind>(key: ObjectKey, patch: Value, subresource: Option<&'static str>, plan: &mut Plan) {
    plan.push(Action::MergePatch { kind: kind_of::<K>(), key, patch, subresource });
}

fn pending(claim: &PersistentVolumeClaim, plan: &mut Plan) {
    if claim.status.as_ref().and_then(|s| s.phase.as_deref()) != Some("Pending") {
        status(claim, json!({ "phase": "Pending" }), plan);
    }
}

fn status(claim: &PersistentVolumeClaim, status: Value, plan: &mut Plan) {
    push_patch::<PersistentVolumeClaim>(
        ObjectKey::of(&claim.metadata),
        json!({ "status": status }),
        Some("status"),
        plan,
    );
}

/// A claim that names its volume: takes it when it is there and free.
fn take(claim: &PersistentVolumeClaim, view: &dyn View, plan: &mut Plan) {
    let name = volume_name(claim);
    let Some(volume) = view.get_as::<PersistentVolume>(&ObjectKey::new("", name)) else {
        return pending(claim, plan);
    };
    if claim_key(&volume).is_some() && !is_for(&volume, claim) {
        let words = format!("volume {name:?} already bound to a different claim.");
        plan.push(Action::Event(EventNote::warning(claim, "FailedBinding", words)));
        return pending(claim, plan);
    }
    if let Err(why) = matching::suits(&volume, claim) {
        let words = format!("Cannot bind to requested volume {name:?}: {why}");
        plan.push(Action::Event(EventNote::warning(claim, "VolumeMismatch", words)));
        return pending(claim, plan);
    }
    bind(claim, &volume, plan);
}

/// Binds the two, the volume first: it is what others might take.
fn bind(claim: &PersistentVolumeClaim, volume: &PersistentVolume, plan: &mut Plan) {
    let (key, name) = (ObjectKey::of(&claim.metadata), volume.metadata.name.as_deref().unwrap_or_default());
    let volume_key = ObjectKey::new("", name);
    if claim_uid(volume) != claim.metadata.uid.as_deref().unwrap_or_default() {
        let claim_ref = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": key.namespace, "name": key.name,
            "uid": claim.metadata.uid, "resourceVersion": claim.metadata.resource_version,
        });
        let mut metadata = json!({ "resourceVersion": volume.metadata.resource_version });
        if claim_key(volume).is_none() {
            metadata["annotations"] = json!({ BOUND_BY_CONTROLLER: "yes" });
        }
        let patch = json!({ "metadata": metadata, "spec": { "claimRef": claim_ref } });
        push_patch::<PersistentVolume>(volume_key.clone(), patch, None, plan);
    }
    if volume.status.as_ref().and_then(|s| s.phase.as_deref()) != Some("Bound") {
        push_patch::<PersistentVolume>(volume_key, json!({ "status": { "phase": "Bound" } }), Some("status"), plan);
    }
    let mut annotations = json!({ BIND_COMPLETED: "yes" });
    let mut patch = json!({});
    if volume_name(claim).is_empty() {
        annotations[BOUND_BY_CONTROLLER] = "yes".into();
        patch["spec"] = json!({ "volumeName": name });
    }
    patch["metadata"] = json!({ "annotations": annotations });
    push_patch::<PersistentVolumeClaim>(key, patch, None, plan);
    bound(claim, volume, plan);
}

fn bound(claim: &PersistentVolumeClaim, volume: &PersistentVolume, plan: &mut Plan) {
    let spec = volume.spec.as_ref();
    let wanted = json!({
        "phase": "Bound",
        "accessModes": spec.and_then(|s| s.access_modes.clone()),
        "capacity": spec.and_then(|s| s.capacity.clone()),
    });
    let is = claim.status.as_ref();
    let same = phase(is.and_then(|s| s.phase.as_deref())) == "Bound"
        && is.and_then(|s| s.access_modes.as_ref()) == spec.and_then(|s| s.access_modes.as_ref());
    if !same {
        status(claim, wanted, plan);
    }
}

/// The revision at which an object was seen.
fn seen(object: &dyn Object) -> Revision {
    object.revision()
}

/// A claim that was bound: its volume must still be there, and its own.
fn check(claim: &PersistentVolumeClaim, view: &dyn View, plan: &mut Plan) {
    let name = volume_name(claim);
    let volume = view.get_as::<PersistentVolume>(&ObjectKey::new("", name));
    let lost = |reason: &str, words: String, plan: &mut Plan| {
        if claim.status.as_ref().and_then(|s| s.phase.as_deref()) != Some("Lost") {
            plan.push(Action::Event(EventNote::warning(claim, reason, words)));
            status(claim, json!({ "phase": "Lost" }), plan);
        }
    };
    match volume {
        None if view.revision(&PersistentVolume::NAMES) < seen(claim) => plan.requeue_in(1),
        None => {
            let words = "Bound claim has lost its PersistentVolume. Data on the volume is lost!";
            lost("ClaimLost", words.to_owned(), plan);
        }
        Some(volume) if is_for(&volume, claim) => {
            if claim_uid(&volume).is_empty() {
                bind(claim, &volume, plan);
            } else {
                bound(claim, &volume, plan);
            }
        }
        Some(volume) if claim_key(&volume).is_none() => bind(claim, &volume, plan),
        Some(_) => {
            let words = "Two claims are bound to the same volume, this one is bound incorrectly";
            lost("ClaimMisbound", words.to_owned(), plan);
        }
    }
}
