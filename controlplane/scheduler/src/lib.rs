//! Where a pod should run: filter and score plugins over a [`Snapshot`], preemption, and the queue of pods that wait.
//!
//! Pure: no I/O, no clock, no randomness, no async. The driver feeds the snapshot from its mirrors, pops a pod from the
//! [`Queue`], asks [`schedule`], assumes the pod on the node and binds it:
//!
//! ```text
//! mirrors of nodes, pods, claims … -> Snapshot, Queue
//! queue.pop(now) -> schedule(&pod, &mut snapshot, &profile, tie)
//!   Bind { node, volumes } -> snapshot.assume(&pod, &node); write the volumes, wait for them; bind;
//!                             on failure snapshot.forget(uid), queue.failed(pod, now)
//!   Unschedulable { .. }   -> queue.unschedulable(pod, ..); event FailedScheduling, condition PodScheduled;
//!                             victims: nominate the pod, end them
//! snapshot.upsert_node(..) and friends say what happened, for queue.wake(..)
//! ```
//!
//! A plugin is one file plus one line in [`Profile::default`] (and one in [`config`], if it can be configured).

mod budget;
mod change;
pub mod config;
mod decide;
pub mod filters;
mod index;
mod message;
mod node;
mod nominated;
mod plugin;
mod pod;
mod preempt;
mod profile;
pub mod queue;
mod requests;
mod resources;
pub mod scores;
mod snapshot;
mod subject;
pub mod synthetic;
mod terms;
#[cfg(test)]
mod tests;
mod topology;
mod volumes;

pub use change::Changes;
pub use config::Config;
pub use decide::{Decision, Refusal, schedule};
pub use node::NodeInfo;
pub use plugin::{Filter, Prepared, PreparedFilter, PreparedScore, SCORE_MAX, Score, Unmet, Verdict};
pub use pod::{ClaimUse, DEFAULT_SCHEDULER, HostPort, PodInfo};
pub use preempt::Preemption;
pub use profile::{PreemptionLimits, Profile, Weighted};
pub use queue::{Queue, Queued};
pub use resources::Resources;
pub use snapshot::{Happened, Help, Snapshot};
pub use subject::Subject;
pub use terms::{AffinityTerm, PodTerms, Scope, SpreadConstraint};
pub use volumes::VolumePlan;
