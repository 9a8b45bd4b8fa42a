//! Which pods are a Job's: those that it controls and that match, and orphans that match.
//!
//! Adopting a pod gives it the tracking finalizer with the same write, releasing one takes it away: a pod is counted by
//! exactly one Job, or by none.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::{
    api::{batch::v1::Job, core::v1::Pod},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use podium_api::{ObjectKey, Selector, kind_of};
use serde_json::json;

use super::FINALIZER;
use crate::{
    Action, View, ViewExt,
    owners::{controller_of, controller_ref, is_controlled_by},
};

/// The pods of a Job.
#[derive(Default)]
pub(super) struct Claimed {
    /// By name. Those just adopted have their finalizer already.
    pub(super) pods: Vec<Arc<Pod>>,
    /// Uids of those that the plan adopts: they are not written again by the same plan.
    pub(super) adopted: BTreeSet<String>,
}

/// Finds a Job's pods; the actions adopt and release. A Job on its way out does neither.
pub(super) fn claim(job: &Job, selector: &Selector, view: &dyn View, actions: &mut Vec<Action>) -> Claimed {
    let meta = &job.metadata;
    let uid = meta.uid.as_deref().unwrap_or_default();
    let mut claimed = Claimed::default();
    if uid.is_empty() {
        return claimed;
    }
    let matches = |pod: &Arc<Pod>| selector.matches_option(pod.metadata.labels.as_ref());
    let controlled = view.owned_as::<Pod>(uid).into_iter().filter(|pod| is_controlled_by(&pod.metadata, uid));
    let (mine, released): (Vec<_>, Vec<_>) = controlled.partition(matches);
    claimed.pods = mine;
    if meta.deletion_timestamp.is_none() {
        actions.extend(released.iter().map(|pod| release(pod, uid)));
        let is_orphan = |pod: &Arc<Pod>| {
            let theirs = &pod.metadata;
            let free = theirs.deletion_timestamp.is_none() && controller_of(theirs).is_none();
            free && theirs.namespace == meta.namespace
        };
        let orphans = view.owned_as::<Pod>("").into_iter().filter(|pod| is_orphan(pod) && matches(pod));
        for orphan in orphans {
            actions.push(adopt(job, &orphan));
            claimed.adopted.extend(orphan.metadata.uid.clone());
            claimed.pods.push(Arc::new(tracked(&orphan)));
        }
    }
    claimed.pods.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    claimed
}

/// Whether a pod has still to be counted.
pub(super) fn is_tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|f| f == FINALIZER)
}

fn tracked(pod: &Pod) -> Pod {
    let mut pod = pod.clone();
    let finalizers = pod.metadata.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|f| f == FINALIZER) {
        finalizers.push(FINALIZER.to_owned());
    }
    pod
}

fn adopt(job: &Job, orphan: &Pod) -> Action {
    let reference = controller_ref(job);
    let mut owners = orphan.metadata.owner_references.clone().unwrap_or_default();
    owners.retain(|o| o.uid != reference.uid);
    owners.push(reference);
    let finalizers = tracked(orphan).metadata.finalizers.unwrap_or_default();
    patch(&orphan.metadata, Some(&owners), &finalizers)
}

fn release(pod: &Pod, uid: &str) -> Action {
    let mut owners = pod.metadata.owner_references.clone().unwrap_or_default();
    owners.retain(|o| o.uid != uid);
    patch(&pod.metadata, Some(&owners), &untracked(&pod.metadata))
}

/// Says that a pod has been counted.
pub(super) fn untrack(pod: &Pod) -> Action {
    patch(&pod.metadata, None, &untracked(&pod.metadata))
}

fn untracked(meta: &ObjectMeta) -> Vec<String> {
    meta.finalizers.iter().flatten().filter(|f| *f != FINALIZER).cloned().collect()
}

/// Writes a pod as it was seen. Lists that become empty go.
fn patch(meta: &ObjectMeta, owners: Option<&[OwnerReference]>, finalizers: &[String]) -> Action {
    let finalizers = Some(finalizers).filter(|list| !list.is_empty());
    let mut patch = json!({"metadata": {
        "uid": meta.uid, "resourceVersion": meta.resource_version, "finalizers": finalizers,
    }});
    if let Some(owners) = owners {
        patch["metadata"]["ownerReferences"] = json!(Some(owners).filter(|list| !list.is_empty()));
    }
    Action::MergePatch { kind: kind_of::<Pod>(), key: ObjectKey::of(meta), patch, subresource: None }
}
