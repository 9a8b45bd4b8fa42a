//! What a plugin is: a [`Filter`] says where a pod cannot go, a [`Score`] where it had better go.
//!
//! Both are prepared once per pod and then asked once per node, in the hot loop: no allocation there. A prepared plugin
//! keeps nothing of the snapshot but numbers, so that preemption may think pods away between two questions.

use crate::{change::Changes, node::NodeInfo, snapshot::Snapshot, subject::Subject};

/// Why a node cannot take a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unmet {
    /// A fixed sentence.
    Text(&'static str),
    /// Resources that are short, as bits: in the order in which the pod asks for them.
    Resources(u64),
}

/// A filter's answer for one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The pod may go there.
    Fits,
    /// The pod cannot go there.
    Unfit {
        /// Why.
        reason: Unmet,
        /// Whether removing pods of lower priority could change that.
        preemption_helps: bool,
    },
}

impl Verdict {
    /// Refuses for a reason that pods of lower priority do not change.
    pub const fn never(why: &'static str) -> Self {
        Self::Unfit { reason: Unmet::Text(why), preemption_helps: false }
    }

    /// Refuses for a reason that may be pods of lower priority.
    pub const fn not_now(why: &'static str) -> Self {
        Self::Unfit { reason: Unmet::Text(why), preemption_helps: true }
    }
}

/// What a filter says of a pod before any node is looked at.
pub enum Prepared<'p> {
    /// This pod asks nothing of the filter on any node.
    Skip,
    /// Each node has to be asked.
    Check(Box<dyn PreparedFilter + 'p>),
    /// Only the nodes with these names need to be asked; there is nothing on others.
    Only(Vec<&'p str>, Box<dyn PreparedFilter + 'p>),
    /// No node will do.
    Refuse {
        /// Why.
        reason: String,
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
    /// Looks at the pod once.
    fn prepare<'p>(&self, subject: &Subject<'p>, snapshot: &Snapshot) -> Prepared<'p>;
}

/// A [`Filter`] for one pod.
pub trait PreparedFilter {
    /// Judges one node. Must not allocate.
    fn check(&self, snapshot: &Snapshot, slot: u32, node: &NodeInfo) -> Verdict;
    /// Pods were thought away or added: takes in what was summed up over nodes.
    fn refresh(&mut self, _snapshot: &Snapshot) {}
}

/// Says where a pod had better go.
pub trait Score: Send + Sync + 'static {
    /// Its name, as in Kubernetes.
    fn name(&self) -> &'static str;
    /// Looks at the pod once. `feasible`: the slots of the nodes to choose from. `None`: they are equal to this pod.
    fn prepare<'p>(
        &self,
        subject: &Subject<'p>,
        snapshot: &'p Snapshot,
        feasible: &[u32],
    ) -> Option<Box<dyn PreparedScore + 'p>>;
}

/// A [`Score`] for one pod.
pub trait PreparedScore {
    /// Any number, unless [`PreparedScore::normalize`] does nothing: then 0 (worst) to 100 (best). Must not allocate.
    fn score(&self, slot: u32, node: &NodeInfo) -> i64;
    /// Brings the scores of all feasible nodes between 0 and 100.
    fn normalize(&self, _scores: &mut [i64]) {}
}

/// The highest score.
pub const SCORE_MAX: i64 = 100;

/// Scales scores so that the highest becomes 100; `reverse` turns them around.
///
/// # Source
/// Kubernetes `plugins/helper/normalize_score.go`.
pub(crate) fn normalize_by_highest(scores: &mut [i64], reverse: bool) {
    let highest = scores.iter().copied().max().unwrap_or(0);
    for score in scores {
        *score = match (highest, reverse) {
            (..=0, false) => 0,
            (..=0, true) => SCORE_MAX,
            (_, false) => *score * SCORE_MAX / highest,
            (_, true) => SCORE_MAX - *score * SCORE_MAX / highest,
        };
    }
}
