//! Claims and volumes that are in use stay until they are not: admission gives each a finalizer, these controllers take it
//! away from one that is on its way out as soon as no pod and no claim uses it.
//!
//! # Source
//! Kubernetes `pkg/controller/volume/{pvcprotection,pvprotection}`.

#[cfg(test)]
mod tests;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use podium_api::{Kind, Object, ObjectKey, kind_of};

use crate::{
    Controller, Key, Plan, Trigger, View, ViewExt,
    garbage_collector::{drop_finalizer, has_finalizer},
    persistent_volume::claim_name,
    pods::node_name,
};

const CLAIMS: &str = "kubernetes.io/pvc-protection";
const VOLUMES: &str = "kubernetes.io/pv-protection";

fn waits(object: &dyn Object, finalizer: &str) -> bool {
    object.meta().deletion_timestamp.is_some() && has_finalizer(object, finalizer)
}

/// The controller of claims.
pub struct ClaimProtection;

impl Controller for ClaimProtection {
    fn name(&self) -> &'static str {
        "pvc-protection"
    }

    fn triggers(&self) -> Vec<Trigger> {
        vec![
            Trigger { kind: kind_of::<PersistentVolumeClaim>(), keys: waiting_claim },
            Trigger { kind: kind_of::<Pod>(), keys: of_pod },
        ]
    }

    fn reconcile(&self, key: &Key, view: &dyn View, _now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(claim) = view.get_as::<PersistentVolumeClaim>(&key.object) else { return plan };
        let used = || view.list_as::<Pod>(Some(&key.object.namespace)).iter().any(|pod| uses(pod, &claim));
        if waits(&*claim, CLAIMS) && !used() {
            plan.push(drop_finalizer(&*claim, CLAIMS));
        }
        plan
    }
}

fn waiting_claim(object: &dyn Object, _view: &dyn View) -> Vec<Key> {
    if waits(object, CLAIMS) { vec![Key::of(object)] } else { Vec::new() }
}

/// The claims that wait for a pod.
fn of_pod(object: &dyn Object, view: &dyn View) -> Vec<Key> {
    let Some(pod) = object.downcast_ref::<Pod>() else { return Vec::new() };
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    let names = volumes.filter_map(|v| claim_name(pod, v)).map(|name| ObjectKey::new(namespace.clone(), name));
    let waiting = names.filter(|key| view.get_as::<PersistentVolumeClaim>(key).is_some_and(|c| waits(&*c, CLAIMS)));
    waiting.map(|key| Key::new(&PersistentVolumeClaim::NAMES, key)).collect()
}

/// Whether a pod has a claim. One that is on no node has none: no node begins a pod whose claim is on its way out.
fn uses(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    let meta = &pod.metadata;
    let ended = meta.deletion_timestamp.is_some() && meta.deletion_grace_period_seconds == Some(0);
    let own = claim.metadata.owner_references.iter().flatten().any(|o| Some(&o.uid) == meta.uid.as_ref());
    let volumes = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten());
    let mut mine = volumes.filter(|v| claim_name(pod, v) == claim.metadata.name);
    // What was made for a pod goes with it.
    !node_name(pod).is_empty() && mine.any(|v| v.ephemeral.is_none() || own && !ended)
}

/// The controller of volumes.
pub struct VolumeProtection;

impl Controller for VolumeProtection {
    fn name(&self) -> &'static str {
        "pv-protection"
    }

    fn triggers(&self) -> Vec<Trigger> {
        vec![Trigger { kind: kind_of::<PersistentVolume>(), keys: waiting_volume }]
    }

    fn reconcile(&self, key: &Key, view: &dyn View, _now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(volume) = view.get_as::<PersistentVolume>(&key.object) else { return plan };
        let bound = volume.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound");
        if waits(&*volume, VOLUMES) && !bound {
            plan.push(drop_finalizer(&*volume, VOLUMES));
        }
        plan
    }
}

fn waiting_volume(object: &dyn Object, _view: &dyn View) -> Vec<Key> {
    if waits(object, VOLUMES) { vec![Key::of(object)] } else { Vec::new() }
}
