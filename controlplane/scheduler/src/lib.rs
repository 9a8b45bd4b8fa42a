//! Where a pod should run: filter and score plugins over a [`Snapshot`], and the queue of pods that wait.
//!
//! Pure: no I/O, no clock, no randomness, no async. The driver feeds the snapshot from its mirrors, pops a pod from the
//! [`Queue`], asks [`schedule`], assumes the pod on the node and binds it:
//!
//! ```text
//! mirror of nodes, pods -> Snapshot, Queue
//! queue.pop(now) -> schedule(&pod, &snapshot, &profile, tie)
//!   Bind { node }            -> snapshot.assume(&pod, &node); bind; on failure snapshot.forget(uid), queue.failed(pod, now)
//!   Unschedulable { .. }     -> queue.unschedulable(pod, unblocked_by, now); event FailedScheduling, condition PodScheduled
//! snapshot.upsert_node(..) and friends return the Changes to hand to queue.wake(changes, now)
//! ```
//!
//! A plugin is one file plus one line in [`Profile::default`].

mod change;
mod decide;
pub mod filters;
mod node;
mod plugin;
mod pod;
mod profile;
pub mod queue;
#[cfg(test)]
mod queue_tests;
mod resources;
pub mod scores;
mod snapshot;
pub mod synthetic;
#[cfg(test)]
mod tests;

pub use change::Changes;
pub use decide::{Decision, Refusal, schedule};
pub use node::NodeInfo;
pub use plugin::{Filter, PreparedFilter, PreparedScore, Score, Unmet, Verdict};
pub use pod::PodInfo;
pub use profile::{Profile, Weighted};
pub use queue::{Queue, Queued};
pub use resources::Resources;
pub use snapshot::Snapshot;
