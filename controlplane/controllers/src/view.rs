//! What a controller may look at: its mirrors, with the two indexes that all controllers need.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use podium_api::{Kind, KindRef, Names, Object, ObjectKey, Revision};

/// How long a name rests before a controller gives it to another object. Whoever deletes an object by its name and waits looks
/// twice (`kubectl delete` lists, and looks at what it has listed up to 0.1 s later): a successor that is there by then is taken
/// for the one that was deleted, and waited for without end.
pub const NAME_REST: Duration = Duration::from_millis(300);

/// Read access to the mirrors of the kinds that a controller's triggers name. Others are empty.
pub trait View: Send + Sync {
    /// One object.
    fn get(&self, names: &Names, key: &ObjectKey) -> Option<Arc<dyn Object>>;
    /// All objects of a kind, or those of one namespace.
    fn list(&self, names: &Names, namespace: Option<&str>) -> Vec<Arc<dyn Object>>;
    /// Objects of a kind that have an owner reference to this uid; with an empty uid those that no controller owns.
    fn owned_by(&self, names: &Names, owner_uid: &str) -> Vec<Arc<dyn Object>>;
    /// The mirror of this kind holds every change up to this revision. Mirrors of different kinds are not equally far:
    /// whoever concludes from an object of one kind that one of another is gone has to compare.
    fn revision(&self, names: &Names) -> Revision;
    /// Every kind that can be read, custom ones among them; one version of each.
    fn kinds(&self) -> Vec<KindRef>;
    /// Since when somebody has been looking. Silence before that tells nothing: nobody heard it. `None`: for ever.
    fn since(&self) -> Option<Timestamp> {
        None
    }
    /// For how long this object has not been seen to change, by a clock that never jumps. Kept for Leases only: times that
    /// stand in them are of other hosts' clocks. `None`: it is not known.
    fn unchanged_for(&self, _names: &Names, _key: &ObjectKey) -> Option<Duration> {
        None
    }
    /// When an object of this name was seen to go: the last thousands are remembered, for [`NAME_REST`] at least.
    fn freed(&self, _names: &Names, _key: &ObjectKey) -> Option<Timestamp> {
        None
    }
}

/// Typed access to a [`View`].
pub trait ViewExt {
    /// One `K`.
    fn get_as<K: Kind>(&self, key: &ObjectKey) -> Option<Arc<K>>;
    /// All `K`, or those of one namespace.
    fn list_as<K: Kind>(&self, namespace: Option<&str>) -> Vec<Arc<K>>;
    /// The `K` that have an owner reference to this uid.
    fn owned_as<K: Kind>(&self, owner_uid: &str) -> Vec<Arc<K>>;
    /// Until when the name of a `K` rests after the one that had it. `None`: it may be given.
    fn rests_until<K: Kind>(&self, key: &ObjectKey, now: Timestamp) -> Option<Timestamp>;
}

impl<V: View + ?Sized> ViewExt for V {
    fn get_as<K: Kind>(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.get(&K::NAMES, key)?.downcast_arc()
    }

    fn list_as<K: Kind>(&self, namespace: Option<&str>) -> Vec<Arc<K>> {
        self.list(&K::NAMES, namespace).into_iter().filter_map(<dyn Object>::downcast_arc).collect()
    }

    fn owned_as<K: Kind>(&self, owner_uid: &str) -> Vec<Arc<K>> {
        self.owned_by(&K::NAMES, owner_uid).into_iter().filter_map(<dyn Object>::downcast_arc).collect()
    }

    fn rests_until<K: Kind>(&self, key: &ObjectKey, now: Timestamp) -> Option<Timestamp> {
        let freed = self.freed(&K::NAMES, key)?;
        let until = freed.checked_add(NAME_REST).ok()?;
        // A clock that was set back must not hold a name.
        (freed <= now && now < until).then_some(until)
    }
}
