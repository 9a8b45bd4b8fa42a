//! The controllers: each a pure function from what was seen to what to do.
//!
//! No clock, no I/O, no randomness: the driver passes the time, hands in a [`View`] of its mirrors and applies the
//! [`Plan`]. A controller is one file plus one line in [`all`].

pub mod plan;
pub mod view;

pub use plan::{Action, EventNote, EventType, Plan, Preconditions};
pub use view::{View, ViewExt};

use jiff::Timestamp;
use podium_api::{KindRef, Object, ObjectKey};

/// Which changes wake a controller.
pub struct Trigger {
    /// The kind watched.
    pub kind: KindRef,
    /// The keys of this controller that a changed object concerns. `view` may be used to look up others.
    pub keys: fn(object: &dyn Object, view: &dyn View) -> Vec<ObjectKey>,
}

/// A controller.
pub trait Controller: Send + Sync + 'static {
    /// Its name, for example `deployment`; also the source of its events.
    fn name(&self) -> &'static str;
    /// What wakes it. The kinds named here (and only those) can be read through the [`View`].
    fn triggers(&self) -> Vec<Trigger>;
    /// Decides what one key needs. Same input, same plan.
    fn reconcile(&self, key: &ObjectKey, view: &dyn View, now: Timestamp) -> Plan;
}

/// Every controller.
pub fn all() -> Vec<Box<dyn Controller>> {
    Vec::new()
}
