//! Revisions: which template came when. `kubectl rollout history` and `undo` read them from the annotations kept here.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use podium_api::{Object, ObjectKey};
use serde_json::json;

use super::{
    Work,
    hash::template_hash,
    set::{Set, TEMPLATE_HASH, max_surge, max_unavailable, rolls},
};
use crate::{Action, EventNote, ViewExt, owners::controller_ref};

pub(super) const REVISION: &str = "deployment.kubernetes.io/revision";
pub(super) const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
pub(super) const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
pub(super) const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";

/// Annotations of the Deployment that are not copied to its ReplicaSets.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    "deprecated.deployment.rollback.to",
    REVISION,
    REVISION_HISTORY,
    DESIRED_REPLICAS,
    MAX_REPLICAS,
];
/// Bound on the revision history annotation.
const HISTORY_BYTES_MAX: usize = 2000;

impl Work<'_> {
    /// Finds or (with `create`) makes the ReplicaSet of the current template, and keeps revision numbers current.
    pub(super) fn keep_history(&mut self, create: bool) {
        let newest_old = self.old.iter().map(Set::revision).max().unwrap_or(0);
        let revision = newest_old + 1;
        match self.new.take() {
            Some(set) => {
                let shown = set.revision().max(revision).to_string();
                self.set_revision(&shown);
                self.note_found(set.name());
                self.refresh(&set, revision);
                self.new = Some(set);
            }
            None if create => self.create(revision),
            None => {}
        }
    }

    fn set_revision(&mut self, revision: &str) {
        let known = self.deployment.metadata.annotations.as_ref().and_then(|a| a.get(REVISION));
        if known.map(String::as_str) != Some(revision) {
            self.revision = Some(revision.to_owned());
        }
    }

    /// Brings an existing ReplicaSet's annotations and `minReadySeconds` up to date.
    fn refresh(&mut self, set: &Set, revision: i64) {
        let mut annotations = self.copied_annotations();
        if set.revision() < revision {
            annotations.insert(REVISION.to_owned(), revision.to_string());
            if let Some(history) = history_with(set) {
                annotations.insert(REVISION_HISTORY.to_owned(), history);
            }
        }
        let known = set.seen.metadata.annotations.clone().unwrap_or_default();
        annotations.retain(|k, v| known.get(k) != Some(v));
        let wanted = self.deployment.spec.as_ref().and_then(|s| s.min_ready_seconds);
        let actual = set.seen.spec.as_ref().and_then(|s| s.min_ready_seconds);
        let same_wait = wanted.unwrap_or(0) == actual.unwrap_or(0);
        if annotations.is_empty() && same_wait {
            return;
        }
        let mut patch = json!({"metadata": {"uid": set.seen.metadata.uid, "annotations": annotations}});
        if !same_wait {
            patch["spec"] = json!({"minReadySeconds": wanted.unwrap_or(0)});
        }
        self.plan.push(Action::MergePatch {
            kind: set.seen.kind(),
            key: ObjectKey::of(&set.seen.metadata),
            patch,
            subresource: None,
        });
    }

    fn copied_annotations(&self) -> BTreeMap<String, String> {
        let all = self.deployment.metadata.annotations.iter().flatten();
        all.filter(|(k, _)| !NOT_COPIED.contains(&k.as_str())).map(|(k, v)| (k.clone(), v.clone())).collect()
    }

    /// The annotations by which a later scaling knows what the sizes were meant for.
    pub(super) fn size_annotations(&self) -> [(String, String); 2] {
        let wanted = self.wanted();
        [
            (DESIRED_REPLICAS.to_owned(), wanted.to_string()),
            (MAX_REPLICAS.to_owned(), (wanted + max_surge(self.deployment)).to_string()),
        ]
    }

    /// How many replicas a new ReplicaSet gets at once: what surge allows, or all when recreating.
    pub(super) fn first_replicas(&self, current: i32) -> i32 {
        let wanted = self.wanted();
        if !rolls(self.deployment) {
            return wanted;
        }
        let room = wanted + max_surge(self.deployment) - self.total();
        if room <= 0 { current } else { current + room.min(wanted - current) }
    }

    fn create(&mut self, revision: i64) {
        let deployment = self.deployment;
        let Some(spec) = &deployment.spec else { return };
        let hash = template_hash(&spec.template, self.status.collision_count);
        let name = format!("{}-{hash}", deployment.metadata.name.as_deref().unwrap_or_default());
        let key = ObjectKey::new(deployment.metadata.namespace.clone().unwrap_or_default(), &name);
        if self.view.get_as::<ReplicaSet>(&key).is_some() {
            // Somebody else has the name: another hash next time.
            self.status.collision_count = Some(self.status.collision_count.unwrap_or(0) + 1);
            return;
        }
        let replicas = self.first_replicas(0);
        let set = self.new_set(name, &hash, replicas, revision);
        self.plan.push(Action::Create(Box::new(set.clone())));
        self.note_created(set.metadata.name.as_deref().unwrap_or_default());
        if replicas > 0 {
            self.tell_scaled(set.metadata.name.as_deref().unwrap_or_default(), 0, replicas);
        }
        self.set_revision(&revision.to_string());
        self.new = Some(Set::of(std::sync::Arc::new(set)));
    }

    fn new_set(&self, name: String, hash: &str, replicas: i32, revision: i64) -> ReplicaSet {
        let spec = self.deployment.spec.clone().unwrap_or_default();
        let (mut template, mut selector) = (spec.template, spec.selector);
        let labels = template.metadata.get_or_insert_default().labels.get_or_insert_default();
        labels.insert(TEMPLATE_HASH.to_owned(), hash.to_owned());
        let labels = labels.clone();
        selector.match_labels.get_or_insert_default().insert(TEMPLATE_HASH.to_owned(), hash.to_owned());
        let mut annotations = self.copied_annotations();
        annotations.extend(self.size_annotations());
        annotations.insert(REVISION.to_owned(), revision.to_string());
        let metadata = ObjectMeta {
            name: Some(name),
            namespace: self.deployment.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: Some(annotations),
            owner_references: Some(vec![controller_ref::<Deployment>(self.deployment)]),
            ..ObjectMeta::default()
        };
        let min_ready_seconds = spec.min_ready_seconds;
        let spec = ReplicaSetSpec { replicas: Some(replicas), min_ready_seconds, selector, template: Some(template) };
        ReplicaSet { metadata, spec: Some(spec), status: None }
    }

    pub(super) fn tell_scaled(&mut self, name: &str, from: i32, to: i32) {
        let way = if to > from { "up" } else { "down" };
        let message = format!("Scaled {way} replica set {name} from {from} to {to}");
        self.plan.push(Action::Event(EventNote::normal(self.deployment, "ScalingReplicaSet", message)));
    }

    /// The lowest number of available pods that an update may go down to.
    pub(super) fn min_available(&self) -> i32 {
        self.wanted() - max_unavailable(self.deployment)
    }
}

/// The revisions that a ReplicaSet had before, with the present one, the oldest dropped when there are too many.
fn history_with(set: &Set) -> Option<String> {
    let current = Some(set.revision()).filter(|r| *r > 0)?.to_string();
    let mut all: Vec<&str> = set.annotation(REVISION_HISTORY).unwrap_or_default().split(',').collect();
    all.retain(|r| !r.is_empty());
    all.push(&current);
    while all.iter().map(|r| r.len() + 1).sum::<usize>() > HISTORY_BYTES_MAX {
        all.remove(0);
    }
    Some(all.join(","))
}
