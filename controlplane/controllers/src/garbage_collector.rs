//! Garbage collection by owner references: what nobody owns any more goes.
//!
//! Keys are of every kind. An owner counts as gone when its mirror shows no object of its name with its uid and has got
//! at least as far as the dependent's own revision. Owners of kinds that are not served here are taken to be there. An owner in
//! another namespace is none; what lives in no namespace and names one that does is never collected.
//!
//! # Source
//! Kubernetes `pkg/controller/garbagecollector/{garbagecollector.go,graph_builder.go}`.

#[cfg(test)]
mod tests;

use jiff::Timestamp;
use k8s_openapi::{api::core::v1::Event, apimachinery::pkg::apis::meta::v1::OwnerReference};
use podium_api::{Kind, KindRef, Object, ObjectKey, Scope};
use serde_json::json;

use crate::{
    Action, Controller, EventNote, Key, Keys, Plan, Preconditions, Trigger, View,
    owners::{is_of, patch_owners},
};

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";
/// A dependent older than this is judged even when the owner's mirror does not tell how far it is.
const LAG_SECONDS_MAX: i64 = 30;

/// All kinds that own or are owned: not Events, which are many, and of each kind the version that is stored.
fn concerns(kind: &KindRef) -> bool {
    kind.names() != Event::NAMES && kind.stored_as().is_none()
}

/// The garbage collector.
pub struct GarbageCollector;

impl Controller for GarbageCollector {
    fn name(&self) -> &'static str {
        "garbage-collector"
    }

    fn component(&self) -> &'static str {
        "garbage-collector-controller"
    }

    fn triggers(&self) -> Vec<Trigger> {
        let kinds = podium_api::kinds::all().into_iter();
        kinds.filter(concerns).map(|kind| Trigger { kind, keys }).collect()
    }

    fn any_kind(&self) -> Option<Keys> {
        Some(keys)
    }

    fn reconcile(&self, key: &Key, view: &dyn View, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(kind) = view.kinds().into_iter().find(|kind| key.is(&kind.names())) else { return plan };
        let Some(object) = view.get(&kind.names(), &key.object) else { return plan };
        if object.meta().deletion_timestamp.is_none() {
            judge(&*object, view, now, &mut plan);
        } else if has_finalizer(&*object, ORPHAN) {
            orphan(&*object, view, &mut plan);
        } else if has_finalizer(&*object, FOREGROUND) && !is_blocked(&*object, view) {
            plan.push(drop_finalizer(&*object, FOREGROUND));
        }
        plan
    }
}

/// Whom a change concerns: the object, its dependents when it goes, its owners when they wait for it.
fn keys(object: &dyn Object, view: &dyn View) -> Vec<Key> {
    let meta = object.meta();
    let gone = view.get(&object.names(), &object.key()).is_none_or(|there| there.uid() != object.uid());
    let going = meta.deletion_timestamp.is_some();
    let mut keys = Vec::new();
    let owners = meta.owner_references.as_deref().unwrap_or_default();
    if !gone && (!owners.is_empty() || (going && (has_finalizer(object, FOREGROUND) || has_finalizer(object, ORPHAN))))
    {
        keys.push(Key::of(object));
    }
    if gone || (going && has_finalizer(object, FOREGROUND)) {
        keys.extend(dependents(object, view).iter().map(|dependent| Key::of(&**dependent)));
    }
    let waiting = owners.iter().filter_map(|reference| owner_key(object, reference, view));
    let waits = |(kind, key): &(KindRef, ObjectKey)| {
        view.get(&kind.names(), key).is_some_and(|owner| owner.meta().deletion_timestamp.is_some())
    };
    keys.extend(waiting.filter(waits).map(|(kind, key)| Key::new(&kind.names(), key)));
    keys
}

fn dependents(owner: &dyn Object, view: &dyn View) -> Vec<std::sync::Arc<dyn Object>> {
    if owner.uid().is_empty() {
        return Vec::new();
    }
    view.kinds().iter().flat_map(|kind| view.owned_by(&kind.names(), owner.uid())).collect()
}

/// The kind of an owner, by group and kind: the reference may name another version than the one that is stored.
fn owner_kind(reference: &OwnerReference, view: &dyn View) -> Option<KindRef> {
    view.kinds().into_iter().find(|kind| is_of(reference, &kind.names()))
}

/// Where an owner is to be found; `None` when it cannot be known.
fn owner_key(dependent: &dyn Object, reference: &OwnerReference, view: &dyn View) -> Option<(KindRef, ObjectKey)> {
    let kind = owner_kind(reference, view)?;
    let namespace = match (kind.scope(), dependent.meta().namespace.as_deref().unwrap_or_default()) {
        (Scope::Cluster, _) => "",
        (Scope::Namespaced, "") => return None,
        (Scope::Namespaced, namespace) => namespace,
    };
    Some((kind, ObjectKey::new(namespace, &reference.name)))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    /// There, or not known.
    Solid,
    /// There, and waiting for its dependents to go before it goes.
    Waiting,
    Gone,
    /// Not in its mirror, which may lag.
    Unsure,
}

fn owner_state(dependent: &dyn Object, reference: &OwnerReference, view: &dyn View, now: Timestamp) -> Owner {
    let Some((kind, key)) = owner_key(dependent, reference, view) else { return Owner::Solid };
    let names = kind.names();
    match view.get(&names, &key).filter(|owner| owner.uid() == reference.uid) {
        Some(owner) if owner.meta().deletion_timestamp.is_some() && has_finalizer(&*owner, FOREGROUND) => {
            Owner::Waiting
        }
        Some(_) => Owner::Solid,
        None => {
            if is_old(dependent, now) || view.revision(&names) >= dependent.revision() {
                Owner::Gone
            } else {
                Owner::Unsure
            }
        }
    }
}

fn is_old(object: &dyn Object, now: Timestamp) -> bool {
    let created = object.meta().creation_timestamp.as_ref().map_or(now, |t| t.0);
    now.as_second() - created.as_second() > LAG_SECONDS_MAX
}

/// Says of owners that are there, but where they cannot own this object. Only of an object that has just come: it is judged
/// then, and a look at all objects of a kind for each of many that go would be a long one.
fn tell_misplaced(object: &dyn Object, view: &dyn View, now: Timestamp, plan: &mut Plan) {
    if is_old(object, now) {
        return;
    }
    let namespace = object.meta().namespace.as_deref().unwrap_or_default();
    for reference in object.meta().owner_references.iter().flatten() {
        let Some(kind) = owner_kind(reference, view).filter(|kind| kind.scope() == Scope::Namespaced) else { continue };
        let (names, OwnerReference { api_version, kind, name, uid, .. }) = (kind.names(), reference);
        let key = ObjectKey::new(namespace, name);
        let here = view.get(&names, &key).is_some_and(|owner| owner.uid() == uid);
        if !here && view.list(&names, None).iter().any(|owner| owner.uid() == uid) {
            let message = format!(
                "ownerRef [{api_version}/{kind}, namespace: {namespace}, name: {name}, uid: {uid}] does not exist in \
                 namespace {namespace:?}"
            );
            plan.push(Action::Event(EventNote::warning(object, "OwnerRefInvalidNamespace", message)));
        }
    }
}

/// An object without an owner left goes; with one left it loses its references to those that are gone.
fn judge(object: &dyn Object, view: &dyn View, now: Timestamp, plan: &mut Plan) {
    let references = object.meta().owner_references.as_deref().unwrap_or_default();
    if references.is_empty() {
        return;
    }
    let states: Vec<Owner> = references.iter().map(|r| owner_state(object, r, view, now)).collect();
    if states.contains(&Owner::Unsure) {
        return plan.requeue_in(1);
    }
    tell_misplaced(object, view, now, plan);
    let solid: Vec<OwnerReference> =
        references.iter().zip(&states).filter(|(_, s)| **s == Owner::Solid).map(|(r, _)| r.clone()).collect();
    if solid.len() == references.len() {
        return;
    }
    if !solid.is_empty() {
        return plan.push(patch_owners(object, &solid));
    }
    let dependents = if states.contains(&Owner::Waiting) { dependents(object, view) } else { Vec::new() };
    if closes_circle(references, &dependents) {
        // Its owners no longer wait for it; the change brings it back here to be deleted.
        let unblocked = |r: &OwnerReference| OwnerReference { block_owner_deletion: Some(false), ..r.clone() };
        return plan.push(patch_owners(object, &references.iter().map(unblocked).collect::<Vec<_>>()));
    }
    plan.push(delete(object, !dependents.is_empty()));
}

/// Whether what waits for an object that its own owners wait for may be waiting for the same again: a dependent of it is
/// waiting already.
fn closes_circle(references: &[OwnerReference], dependents: &[std::sync::Arc<dyn Object>]) -> bool {
    let waits =
        |d: &std::sync::Arc<dyn Object>| d.meta().deletion_timestamp.is_some() && has_finalizer(&**d, FOREGROUND);
    references.iter().any(|r| r.block_owner_deletion == Some(true)) && dependents.iter().any(waits)
}

/// As its finalizers ask for, else in the foreground when its own owner waits for it and it has dependents itself.
fn delete(object: &dyn Object, foreground: bool) -> Action {
    let propagation = match () {
        () if has_finalizer(object, ORPHAN) => "Orphan",
        () if foreground || has_finalizer(object, FOREGROUND) => "Foreground",
        () => "Background",
    };
    let meta = object.meta();
    Action::Delete {
        kind: object.kind(),
        key: object.key(),
        preconditions: Preconditions { uid: meta.uid.clone(), resource_version: meta.resource_version.clone() },
        propagation: Some(propagation),
        grace_seconds: None,
    }
}

fn is_blocked(owner: &dyn Object, view: &dyn View) -> bool {
    let blocks = |r: &OwnerReference| r.uid == owner.uid() && r.block_owner_deletion == Some(true);
    dependents(owner, view).iter().any(|d| d.meta().owner_references.iter().flatten().any(blocks))
}

/// Takes the owner off its dependents, then lets it go.
fn orphan(owner: &dyn Object, view: &dyn View, plan: &mut Plan) {
    for dependent in dependents(owner, view) {
        let mut references = dependent.meta().owner_references.clone().unwrap_or_default();
        references.retain(|r| r.uid != owner.uid());
        plan.push(patch_owners(&*dependent, &references));
    }
    plan.push(drop_finalizer(owner, ORPHAN));
}

/// Whether an object has a finalizer.
pub(crate) fn has_finalizer(object: &dyn Object, name: &str) -> bool {
    object.meta().finalizers.iter().flatten().any(|f| f == name)
}

/// Takes a finalizer away.
pub(crate) fn drop_finalizer(object: &dyn Object, name: &str) -> Action {
    let meta = object.meta();
    let rest: Vec<&String> = meta.finalizers.iter().flatten().filter(|f| *f != name).collect();
    let patch = json!({"metadata": {
        "uid": meta.uid, "resourceVersion": meta.resource_version, "finalizers": rest,
    }});
    Action::MergePatch { kind: object.kind(), key: object.key(), patch, subresource: None }
}
