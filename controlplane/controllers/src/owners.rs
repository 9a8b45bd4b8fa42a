//! Owner references: who controls an object, and adopting and releasing by selector.
//!
//! # Source
//! Kubernetes `pkg/controller/controller_ref_manager.go`.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use podium_api::{Kind, Names, Object, ObjectKey, selector::Selector};
use serde_json::json;

use crate::{Action, Key, View, ViewExt};

/// The owner that controls an object.
pub(crate) fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|o| o.controller == Some(true))
}

/// The key of the controlling owner, when it is of this kind.
pub(crate) fn controller_key(meta: &ObjectMeta, names: &Names) -> Option<Key> {
    let owner = controller_of(meta).filter(|o| o.kind == names.kind && o.api_version == names.api_version())?;
    Some(Key::new(names, ObjectKey::new(meta.namespace.clone().unwrap_or_default(), owner.name.clone())))
}

/// The group of an owner's kind.
fn group_of(owner: &OwnerReference) -> &str {
    owner.api_version.split_once('/').map_or("", |(group, _)| group)
}

/// Whether an owner is of a kind, in whatever version.
pub(crate) fn is_of(owner: &OwnerReference, names: &Names) -> bool {
    owner.kind == names.kind && group_of(owner) == names.group
}

/// The reference by which `owner` controls what it creates or adopts.
pub(crate) fn controller_ref<K: Kind>(owner: &K) -> OwnerReference {
    let meta = owner.metadata();
    OwnerReference {
        api_version: K::NAMES.api_version().into_owned(),
        kind: K::NAMES.kind.to_owned(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Whether the object with this uid controls another.
pub(crate) fn is_controlled_by(meta: &ObjectMeta, uid: &str) -> bool {
    controller_of(meta).is_some_and(|o| o.uid == uid)
}

/// What belongs to `owner`: objects that it controls and that match, and orphans that match. The actions adopt the
/// orphans and release what no longer matches. An owner on its way out adopts nothing.
pub(crate) fn claim<O: Kind, K: Kind>(
    owner: &O,
    selector: &Selector,
    view: &dyn View,
    actions: &mut Vec<Action>,
) -> Vec<Arc<K>> {
    claim_those(owner, |k: &K| selector.matches_option(k.metadata().labels.as_ref()), view, actions)
}

/// The same, where more than labels says what matches.
pub(crate) fn claim_those<O: Kind, K: Kind>(
    owner: &O,
    belongs: impl Fn(&K) -> bool,
    view: &dyn View,
    actions: &mut Vec<Action>,
) -> Vec<Arc<K>> {
    claim_and_adopt(owner, belongs, |_| true, view, actions)
}

/// The same, where not every orphan that matches is adopted.
pub(crate) fn claim_and_adopt<O: Kind, K: Kind>(
    owner: &O,
    belongs: impl Fn(&K) -> bool,
    adopts: impl Fn(&K) -> bool,
    view: &dyn View,
    actions: &mut Vec<Action>,
) -> Vec<Arc<K>> {
    let (meta, uid) = (owner.metadata(), owner.metadata().uid.as_deref().unwrap_or_default());
    if uid.is_empty() {
        return Vec::new();
    }
    let matches = |k: &Arc<K>| belongs(k);
    let controlled = view.owned_as::<K>(uid).into_iter().filter(|k| is_controlled_by(k.metadata(), uid));
    let (mut claimed, released): (Vec<_>, Vec<_>) = controlled.partition(matches);
    if meta.deletion_timestamp.is_some() {
        return claimed;
    }
    actions.extend(released.iter().map(|k| release(&**k, uid)));
    let adoptable = |k: &Arc<K>| {
        let theirs = k.metadata();
        theirs.namespace == meta.namespace && theirs.deletion_timestamp.is_none() && controller_of(theirs).is_none()
    };
    let orphans: Vec<_> =
        view.owned_as::<K>("").into_iter().filter(|k| adoptable(k) && matches(k) && adopts(k)).collect();
    actions.extend(orphans.iter().map(|k| adopt(owner, &**k)));
    claimed.extend(orphans);
    claimed
}

fn adopt<O: Kind, K: Kind>(owner: &O, orphan: &K) -> Action {
    let mut owners = orphan.metadata().owner_references.clone().unwrap_or_default();
    let reference = controller_ref(owner);
    owners.retain(|o| o.uid != reference.uid);
    owners.push(reference);
    patch_owners(orphan, &owners)
}

fn release<K: Kind>(owned: &K, uid: &str) -> Action {
    let mut owners = owned.metadata().owner_references.clone().unwrap_or_default();
    owners.retain(|o| o.uid != uid);
    patch_owners(owned, &owners)
}

/// Replaces the owner references of an object as it was seen.
pub(crate) fn patch_owners(object: &dyn Object, owners: &[OwnerReference]) -> Action {
    let meta = object.meta();
    let patch = json!({"metadata": {
        "uid": meta.uid, "resourceVersion": meta.resource_version, "ownerReferences": owners,
    }});
    Action::MergePatch { kind: object.kind(), key: object.key(), patch, subresource: None }
}

/// Deletes an object if it is still the one that was seen.
pub(crate) fn delete(object: &dyn Object) -> Action {
    Action::Delete {
        kind: object.kind(),
        key: object.key(),
        preconditions: crate::Preconditions { uid: object.meta().uid.clone(), resource_version: None },
        propagation: None,
        grace_seconds: None,
    }
}

/// The keys of the `K` in an orphan's namespace whose selector matches it.
pub(crate) fn matching<K: Kind>(orphan: &ObjectMeta, view: &dyn View, selects: fn(&K) -> Option<Selector>) -> Vec<Key> {
    let matches = |k: &Arc<K>| selects(k).is_some_and(|s| s.matches_option(orphan.labels.as_ref()));
    let candidates = view.list_as::<K>(orphan.namespace.as_deref());
    candidates.iter().filter(|k| matches(k)).map(|k| Key::new(&K::NAMES, ObjectKey::of(k.metadata()))).collect()
}
