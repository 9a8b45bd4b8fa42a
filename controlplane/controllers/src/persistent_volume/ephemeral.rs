//! Claims for `ephemeral` volumes: made from the template in the pod, owned by it, gone with it.

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{PersistentVolumeClaim, Pod},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use podium_api::{Object, ObjectKey, kind_of};

use super::claim_name;
use crate::{Action, Controller, EventNote, Key, Plan, Trigger, View, ViewExt, pods::is_active};

/// The controller of ephemeral volumes.
pub struct EphemeralVolumes;

impl Controller for EphemeralVolumes {
    fn name(&self) -> &'static str {
        "ephemeral-volume"
    }

    fn triggers(&self) -> Vec<Trigger> {
        vec![
            Trigger { kind: kind_of::<Pod>(), keys: of_pod },
            Trigger { kind: kind_of::<PersistentVolumeClaim>(), keys: of_claim },
        ]
    }

    fn reconcile(&self, key: &Key, view: &dyn View, _now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(pod) = view.get_as::<Pod>(&key.object).filter(|pod| is_active(pod)) else { return plan };
        for volume in pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()) {
            let template = volume.ephemeral.as_ref().and_then(|e| e.volume_claim_template.as_ref());
            let (Some(template), Some(name)) = (template, claim_name(&pod, volume)) else { continue };
            let key = ObjectKey::new(&*key.object.namespace, &*name);
            let Some(there) = view.get_as::<PersistentVolumeClaim>(&key) else {
                let mut metadata = template.metadata.clone().unwrap_or_default();
                metadata.name = Some(name);
                metadata.namespace = Some(key.namespace);
                metadata.owner_references = Some(vec![owner(&pod.metadata)]);
                let claim = PersistentVolumeClaim { metadata, spec: Some(template.spec.clone()), status: None };
                plan.push(Action::Create(Box::new(claim)));
                continue;
            };
            if !there.metadata.owner_references.iter().flatten().any(|o| Some(&o.uid) == pod.metadata.uid.as_ref()) {
                let words =
                    format!("PVC {key} was not created for pod {} (pod is not owner)", ObjectKey::of(&pod.metadata));
                plan.push(Action::Event(EventNote::warning(&*pod, "FailedBinding", words)));
            }
        }
        plan
    }
}

fn owner(pod: &ObjectMeta) -> OwnerReference {
    OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Pod".to_owned(),
        name: pod.name.clone().unwrap_or_default(),
        uid: pod.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

fn of_pod(object: &dyn Object, _view: &dyn View) -> Vec<Key> {
    let Some(pod) = object.downcast_ref::<Pod>() else { return Vec::new() };
    let ephemeral = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()).any(|v| v.ephemeral.is_some());
    if ephemeral { vec![Key::of(object)] } else { Vec::new() }
}

/// The pod that owns a claim: it may have to be made anew.
fn of_claim(object: &dyn Object, _view: &dyn View) -> Vec<Key> {
    use podium_api::Kind as _;
    let namespace = object.meta().namespace.clone().unwrap_or_default();
    let pods = object.meta().owner_references.iter().flatten().filter(|o| o.kind == "Pod");
    pods.map(|o| Key::new(&Pod::NAMES, ObjectKey::new(&*namespace, &*o.name))).collect()
}
