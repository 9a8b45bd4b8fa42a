//! The versions of the template: which one is the present one, and which may be forgotten.
//!
//! # Source
//! Kubernetes `pkg/controller/daemon/update.go` (`constructHistory`, `snapshot`, `dedupCurHistories`, `cleanupHistory`).

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::api::{
    apps::v1::{ControllerRevision, DaemonSet, DaemonSetSpec},
    core::v1::Pod,
};
use podium_api::ObjectKey;
use serde_json::Value;

use crate::{
    Action, View, ViewExt,
    controller_history::{self as revisions, REVISION_HASH, label},
    deployment::template_hash,
    owners::delete,
};

/// What a DaemonSet has been.
pub(super) struct History {
    /// The label of pods of the present template.
    pub(super) hash: String,
    /// All other revisions, oldest first.
    old: Vec<Arc<ControllerRevision>>,
}

impl History {
    /// Finds the present revision; notes what has to be written for it. `None`: what is noted has to be done before anything
    /// else is looked at, because its name is taken or because it is there twice.
    pub(super) fn of(
        set: &DaemonSet,
        spec: &DaemonSetSpec,
        mut known: Vec<Arc<ControllerRevision>>,
        pods: &[Arc<Pod>],
        view: &dyn View,
        actions: &mut Vec<Action>,
    ) -> Option<Self> {
        revisions::sort(&mut known);
        // One that was adopted may lack the label; its name will do.
        let unlabelled = known.iter().filter(|r| label(&r.metadata, REVISION_HASH).is_empty());
        actions.extend(unlabelled.map(|r| revisions::relabel(&**r, &[(REVISION_HASH, hash_of(r))])));
        let data = revisions::data_of(&spec.template);
        let (mut present, old): (Vec<_>, Vec<_>) = known.into_iter().partition(|r| revisions::has_data(r, &data));
        let number = revisions::next_number(&old);
        let Some(kept) = present.pop() else {
            return Some(Self { hash: new_revision(set, spec, data, number, view, actions)?, old });
        };
        let hash = hash_of(&kept).to_owned();
        if !present.is_empty() {
            let stray = pods.iter().filter(|pod| label(&pod.metadata, REVISION_HASH) != hash);
            let doubles: BTreeSet<&str> = present.iter().map(|r| hash_of(r)).collect();
            let stray = stray.filter(|pod| doubles.contains(label(&pod.metadata, REVISION_HASH)));
            actions.extend(stray.map(|pod| revisions::relabel(&**pod, &[(REVISION_HASH, hash.as_str())])));
            actions.extend(present.iter().map(|double| delete(&**double)));
            return None;
        }
        if kept.revision < number {
            actions.push(revisions::renumber(&kept, number));
        }
        Some(Self { hash, old })
    }

    /// Deletes revisions that no pod is at, beyond the limit.
    pub(super) fn cleanup(&self, spec: &DaemonSetSpec, pods: &[Arc<Pod>], actions: &mut Vec<Action>) {
        let Some(limit) = spec.revision_history_limit.and_then(|limit| usize::try_from(limit).ok()) else { return };
        let live: BTreeSet<&str> = pods.iter().map(|pod| label(&pod.metadata, REVISION_HASH)).collect();
        let surplus = self.old.len().saturating_sub(limit);
        let unused = self.old.iter().filter(|revision| !live.contains(hash_of(revision)));
        actions.extend(unused.take(surplus).map(|revision| delete(&**revision)));
    }
}

/// What the pods of a revision are labelled with.
fn hash_of(revision: &ControllerRevision) -> &str {
    match label(&revision.metadata, REVISION_HASH) {
        "" => revision.metadata.name.as_deref().unwrap_or_default(),
        hash => hash,
    }
}

/// Makes the revision of the present template; its hash.
fn new_revision(
    set: &DaemonSet,
    spec: &DaemonSetSpec,
    data: Value,
    number: i64,
    view: &dyn View,
    actions: &mut Vec<Action>,
) -> Option<String> {
    let collisions = set.status.as_ref().and_then(|s| s.collision_count);
    let hash = template_hash(&spec.template, collisions);
    let name = format!("{}-{hash}", set.metadata.name.as_deref().unwrap_or_default());
    let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
    match view.get_as::<ControllerRevision>(&ObjectKey::new(namespace, &*name)) {
        None => {
            let new = revisions::new(set, name, &spec.template, data, number, (REVISION_HASH, hash.clone()));
            actions.push(Action::Create(Box::new(new)));
            Some(hash)
        }
        Some(there) if revisions::has_data(&there, &data) => Some(hash),
        Some(_) => {
            let mut status = set.status.clone().unwrap_or_default();
            status.collision_count = Some(collisions.unwrap_or(0).saturating_add(1));
            actions.push(Action::UpdateStatus(Box::new(DaemonSet { status: Some(status), ..set.clone() })));
            None
        }
    }
}
