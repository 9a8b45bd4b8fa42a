//! What a plugin is: a [`Filter`] says where a pod cannot go, a [`Score`] where it had better go.
//!
//! Both are prepared once per pod and then asked once per node, in the hot loop: no allocation there.

use crate::{change::Changes, node::NodeInfo, pod::PodInfo, snapshot::Snapshot};

/// Why a node cannot take a pod. Borrowed from the node, so that refusing allocates nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unmet<'n> {
    /// A fixed sentence.
    Text(&'static str),
    /// A taint that the pod does not tolerate.
    Taint {
        /// Its key.
        key: &'n str,
        /// Its value; may be empty.
        value: &'n str,
    },
    /// Resources that are short, as bits: in the order in which the pod asks for them.
    Resources(u64),
}

/// A filter's answer for one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict<'n> {
    /// The pod may go there.
    Fits,
    /// The pod cannot go there.
    Unfit {
        /// Why.
        reason: Unmet<'n>,
        /// Whether removing pods of lower priority could change that.
        preemption_helps: bool,
    },
}

/// Says where a pod cannot go.
pub trait Filter: Send + Sync + 'static {
    /// Its name, as in Kubernetes.
    fn name(&self) -> &'static str;
    /// Which changes may unblock what it refused.
    fn unblocked_by(&self) -> Changes;
    /// Looks at the pod once. `None`: this pod asks nothing of the filter on any node.
    fn prepare<'p>(&self, pod: &'p PodInfo) -> Option<Box<dyn PreparedFilter + 'p>>;
}

/// A [`Filter`] for one pod.
pub trait PreparedFilter {
    /// Judges one node. Must not allocate.
    fn check<'n>(&self, node: &'n NodeInfo) -> Verdict<'n>;
}

/// Says where a pod had better go.
pub trait Score: Send + Sync + 'static {
    /// Its name, as in Kubernetes.
    fn name(&self) -> &'static str;
    /// Looks at the pod once. `None`: all nodes are equal to this pod.
    fn prepare<'p>(&self, pod: &'p PodInfo, snapshot: &'p Snapshot) -> Option<Box<dyn PreparedScore + 'p>>;
}

/// A [`Score`] for one pod.
pub trait PreparedScore {
    /// 0 (worst) to 100 (best). Must not allocate.
    fn score(&self, node: &NodeInfo) -> u32;
}
