//! The controllers: each a pure function from what was seen to what to do.
//!
//! No clock, no I/O, no randomness: the driver passes the time, hands in a [`View`] of its mirrors and applies the
//! [`Plan`]. A controller is one file plus one line in [`all`].

pub mod certificate_cleaner;
pub mod cluster_role_aggregation;
mod controller_history;
pub mod cron_job;
pub mod daemon_set;
pub mod deployment;
pub mod disruption;
pub mod endpoint_slice;
pub mod endpoint_slice_mirroring;
pub mod endpoints;
pub mod garbage_collector;
pub mod job;
mod key;
pub mod namespace;
pub mod node_lifecycle;
mod owners;
pub mod persistent_volume;
pub mod plan;
pub mod pod_garbage_collection;
mod pods;
pub mod replica_set;
pub mod resource_quota;
mod service_pods;
pub mod stateful_set;
pub mod storage_protection;
#[cfg(test)]
mod test_support;
pub mod token_cleaner;
pub mod ttl_after_finished;
pub mod view;

pub use key::Key;
pub use plan::{Action, EventNote, EventType, Plan, Preconditions};
pub use view::{NAME_REST, View, ViewExt};

use jiff::Timestamp;
use podium_api::{ApiError, KindRef, Object};

/// Which changes wake a controller.
pub struct Trigger {
    /// The kind watched.
    pub kind: KindRef,
    /// The keys of this controller that a changed object concerns. Asked for the object as it was and as it is: what it
    /// no longer matches has to hear of it too. `view` may be used to look up others; it already shows the change.
    pub keys: Keys,
}

/// The keys that an object concerns.
pub type Keys = fn(object: &dyn Object, view: &dyn View) -> Vec<Key>;

/// A controller.
pub trait Controller: Send + Sync + 'static {
    /// Its name, for example `deployment`.
    fn name(&self) -> &'static str;
    /// The name that its events carry as their source, for example `deployment-controller`.
    fn component(&self) -> &'static str {
        self.name()
    }
    /// What wakes it. The kinds named here (and only those, but see [`Controller::any_kind`]) can be read through the
    /// [`View`].
    fn triggers(&self) -> Vec<Trigger>;
    /// The keys that an object concerns of a kind that nobody knew when this was built: custom resources come and go.
    /// `None`: they do not concern this controller. With it all of [`View::kinds`] can be read.
    fn any_kind(&self) -> Option<Keys> {
        None
    }
    /// Whether a change can matter to it at all: asked before the triggers are, so that the heartbeats of a thousand nodes
    /// wake nobody. `old` is `None` for what has come, `new` for what has gone.
    fn concerns(&self, _old: Option<&dyn Object>, _new: Option<&dyn Object>) -> bool {
        true
    }
    /// Decides what one key needs. Same input, same plan.
    fn reconcile(&self, key: &Key, view: &dyn View, now: Timestamp) -> Plan;
    /// What to tell the user when an action of the key's plan was refused. Applied before the back-off; its own failures
    /// are only logged. Not asked for conflicts and "not found": these pass by themselves.
    fn refused(&self, _key: &Key, _error: &ApiError, _view: &dyn View, _now: Timestamp) -> Plan {
        Plan::default()
    }
}

/// What an operator may say about controllers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// For so long a node may be silent before it counts as lost.
    pub node_grace_seconds: i64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { node_grace_seconds: node_lifecycle::GRACE_SECONDS }
    }
}

/// Every controller, as they are by default.
pub fn all() -> Vec<Box<dyn Controller>> {
    with(Settings::default())
}

/// Every controller.
pub fn with(settings: Settings) -> Vec<Box<dyn Controller>> {
    vec![
        Box::new(deployment::Deployments),
        Box::new(replica_set::ReplicaSets),
        Box::new(replica_set::ReplicationControllers),
        Box::new(stateful_set::StatefulSets),
        Box::new(daemon_set::DaemonSets),
        Box::new(job::Jobs),
        Box::new(cron_job::CronJobs),
        Box::new(ttl_after_finished::TtlAfterFinished),
        Box::new(pod_garbage_collection::PodGarbageCollection),
        Box::new(certificate_cleaner::CertificateCleaner),
        Box::new(token_cleaner::TokenCleaner),
        Box::new(endpoint_slice::EndpointSlices),
        Box::new(endpoint_slice_mirroring::Mirroring),
        Box::new(endpoints::EndpointsObjects),
        Box::new(namespace::Namespaces),
        Box::new(garbage_collector::GarbageCollector),
        Box::new(node_lifecycle::NodeLifecycle { grace_seconds: settings.node_grace_seconds }),
        Box::new(resource_quota::ResourceQuotas),
        Box::new(disruption::PodDisruptionBudgets),
        Box::new(cluster_role_aggregation::ClusterRoleAggregation),
        Box::new(storage_protection::ClaimProtection),
        Box::new(storage_protection::VolumeProtection),
        Box::new(persistent_volume::Claims),
        Box::new(persistent_volume::Volumes),
        Box::new(persistent_volume::EphemeralVolumes),
    ]
}
