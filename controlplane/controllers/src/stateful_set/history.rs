//! Which versions of the template there are: the one that pods are at and the one that they go to.
//!
//! # Source
//! Kubernetes `pkg/controller/statefulset/stateful_set_control.go`, `getStatefulSetRevisions` and `truncateHistory`.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::api::{
    apps::v1::{ControllerRevision, StatefulSet, StatefulSetSpec},
    core::v1::{Pod, PodTemplateSpec},
};
use podium_api::ObjectKey;

use crate::{
    Action, View, ViewExt,
    controller_history::{self as history, HASH, REVISION_HASH, label},
    owners::delete,
};

/// One version of the template.
#[derive(Debug, Clone)]
pub(super) struct Version {
    /// The name of its ControllerRevision.
    pub(super) name: String,
    pub(super) template: PodTemplateSpec,
}

/// What is known of the versions.
pub(super) struct Versions {
    /// The one that everything was at when the last roll-out was done.
    pub(super) current: Version,
    /// The one of the template as it is now.
    pub(super) update: Version,
    /// How often a name was taken by another revision already.
    pub(super) collisions: i32,
    /// All revisions, oldest first.
    known: Vec<Arc<ControllerRevision>>,
}

impl Versions {
    /// Finds both versions; notes what has to be written for them. `None` for a set on its way out that never had any.
    pub(super) fn of(
        set: &StatefulSet,
        spec: &StatefulSetSpec,
        mut known: Vec<Arc<ControllerRevision>>,
        view: &dyn View,
        actions: &mut Vec<Action>,
    ) -> Option<Self> {
        history::sort(&mut known);
        let seen = set.status.as_ref();
        let mut collisions = seen.and_then(|s| s.collision_count).unwrap_or(0);
        let data = history::data_of(&spec.template);
        let number = history::next_number(&known);
        let equal = known.iter().rposition(|revision| history::has_data(revision, &data));
        let name = match equal {
            Some(at) => {
                if at + 1 < known.len() {
                    // Back to what was: it becomes the newest again.
                    actions.push(history::renumber(&known[at], number));
                }
                known[at].metadata.name.clone().unwrap_or_default()
            }
            None if set.metadata.deletion_timestamp.is_some() => return None,
            None => {
                let (name, hash, there) = free_name(set, &data, view, &mut collisions);
                if !there {
                    let new = history::new(set, name.clone(), &spec.template, data, number, (HASH, hash));
                    actions.push(Action::Create(Box::new(new)));
                }
                name
            }
        };
        let update = Version { name, template: spec.template.clone() };
        let current_name = seen.and_then(|s| s.current_revision.as_deref()).unwrap_or_default();
        let current = known.iter().find(|r| r.metadata.name.as_deref() == Some(current_name)).and_then(|revision| {
            Some(Version { name: current_name.to_owned(), template: history::template_in(revision)? })
        });
        let current = current.unwrap_or_else(|| update.clone());
        Some(Self { current, update, collisions, known })
    }

    /// Deletes revisions that no pod is at, beyond the limit.
    pub(super) fn cleanup(&self, spec: &StatefulSetSpec, pods: &[Arc<Pod>], actions: &mut Vec<Action>) {
        let Some(limit) = spec.revision_history_limit else { return };
        let mut live: BTreeSet<&str> = pods.iter().map(|pod| label(&pod.metadata, REVISION_HASH)).collect();
        live.extend([self.current.name.as_str(), self.update.name.as_str()]);
        let unused = |r: &&Arc<ControllerRevision>| !live.contains(r.metadata.name.as_deref().unwrap_or_default());
        let unused: Vec<_> = self.known.iter().filter(unused).cloned().collect();
        actions.extend(history::surplus(&unused, limit).iter().map(|revision| delete(&**revision)));
    }
}

/// A name that no other revision has, the hash in it, and whether a revision with this very data has it already.
fn free_name(
    set: &StatefulSet,
    data: &serde_json::Value,
    view: &dyn View,
    collisions: &mut i32,
) -> (String, String, bool) {
    let namespace = set.metadata.namespace.as_deref().unwrap_or_default();
    loop {
        let hash = history::hash(data, *collisions);
        let name = history::name(super::identity::set_name(set), &hash);
        let known = view.get_as::<ControllerRevision>(&ObjectKey::new(namespace, &*name));
        match known.map(|revision| history::has_data(&revision, data)) {
            // Every turn ends or finds another object in the way: there are only so many.
            Some(false) => *collisions = collisions.saturating_add(1),
            there => return (name, hash, there.is_some()),
        }
    }
}
