//! `persistentVolumeClaimRetentionPolicy`: who owns the claims, and so with whom they go.
//!
//! A claim that shall go with the set is owned by the set; one that shall go when the set shrinks, by the pod that is about
//! to go. Claims that somebody else controls, or whose owner was another object of the same name, are left alone.
//!
//! # Source
//! Kubernetes `pkg/controller/statefulset/stateful_set_utils.go` (`isClaimOwnerUpToDate`,
//! `updateClaimOwnerRefForSetAndPod`).

use k8s_openapi::{
    api::{
        apps::v1::{StatefulSet, StatefulSetSpec},
        core::v1::{PersistentVolumeClaim, Pod},
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use podium_api::Kind;

use crate::owners::controller_ref;

/// What becomes of claims.
#[derive(Debug, Clone, Copy)]
pub(super) struct Policy {
    /// They go when the set shrinks.
    pub(super) when_scaled: bool,
    /// They go when the set goes.
    pub(super) when_deleted: bool,
}

impl Policy {
    pub(super) fn of(spec: &StatefulSetSpec) -> Self {
        let policy = spec.persistent_volume_claim_retention_policy.as_ref();
        let deletes = |word: Option<&String>| word.is_some_and(|w| w == "Delete");
        Self {
            when_scaled: deletes(policy.and_then(|p| p.when_scaled.as_ref())),
            when_deleted: deletes(policy.and_then(|p| p.when_deleted.as_ref())),
        }
    }

    fn retains(self) -> bool {
        !self.when_scaled && !self.when_deleted
    }

    /// Whether set and pod are to own a claim of a pod that stays (or, `condemned`, goes because the set shrinks).
    fn owners(self, condemned: bool) -> (bool, bool) {
        let pod = self.when_scaled && condemned;
        (self.when_deleted && !pod, pod)
    }
}

/// A claim with those who may own it.
pub(super) struct Claim<'a> {
    pub(super) claim: &'a PersistentVolumeClaim,
    pub(super) set: &'a StatefulSet,
    pub(super) pod: &'a Pod,
    /// The pod goes because the set shrinks.
    pub(super) condemned: bool,
    pub(super) policy: Policy,
}

impl Claim<'_> {
    /// The owners that it is to have; `None` when it has them.
    pub(super) fn owners_to_be(&self) -> Option<Vec<OwnerReference>> {
        if self.is_right() {
            return None;
        }
        let ours = |o: &OwnerReference| is_about(o, self.set) || is_about(o, self.pod);
        let mut owners: Vec<_> = self.references().iter().filter(|o| !ours(o)).cloned().collect();
        if !self.has_other_controller() {
            let (set, pod) = self.policy.owners(self.condemned);
            owners.extend(pod.then(|| controller_ref(self.pod)));
            owners.extend(set.then(|| controller_ref(self.set)));
        }
        Some(owners)
    }

    /// Whether somebody else controls it although a policy says what becomes of it.
    pub(super) fn has_other_controller(&self) -> bool {
        let other = |o: &OwnerReference| {
            if is_about(o, self.set) {
                return !is(o, self.set);
            }
            if is_about(o, self.pod) {
                return !is(o, self.pod);
            }
            o.controller == Some(true)
        };
        !self.policy.retains() && self.references().iter().any(other)
    }

    fn is_right(&self) -> bool {
        if is_stale(self.references(), self.set) || is_stale(self.references(), self.pod) {
            return true;
        }
        let owns = (self.is_owned_by(self.set), self.is_owned_by(self.pod));
        if self.has_other_controller() {
            return owns == (false, false);
        }
        let ours = |o: &&OwnerReference| is(o, self.set) || is(o, self.pod);
        let only_owns = self.references().iter().filter(ours).any(|o| o.controller != Some(true));
        !only_owns && owns == self.policy.owners(self.condemned)
    }

    fn references(&self) -> &[OwnerReference] {
        self.claim.metadata.owner_references.as_deref().unwrap_or_default()
    }

    fn is_owned_by<K: Kind>(&self, owner: &K) -> bool {
        self.references().iter().any(|o| is(o, owner))
    }
}

/// Whether a reference is to this very object.
fn is<K: Kind>(reference: &OwnerReference, object: &K) -> bool {
    Some(&reference.uid) == object.metadata().uid.as_ref()
}

/// Whether a reference is to an object of this kind and name, this one or an earlier one.
fn is_about<K: Kind>(reference: &OwnerReference, object: &K) -> bool {
    reference.api_version == K::NAMES.api_version()
        && reference.kind == K::NAMES.kind
        && Some(&reference.name) == object.metadata().name.as_ref()
}

/// Whether a reference is to an earlier object of the same kind and name: its claim goes with that one.
pub(super) fn is_stale<K: Kind>(references: &[OwnerReference], object: &K) -> bool {
    references.iter().find(|o| is_about(o, object)).is_some_and(|o| !is(o, object))
}
