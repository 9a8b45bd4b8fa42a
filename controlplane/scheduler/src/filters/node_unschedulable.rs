//! Cordoned nodes take only pods that tolerate it.

use crate::{
    Changes, Filter, NodeInfo, PodInfo, Prepared, PreparedFilter, Snapshot, Verdict, filters::tolerates,
    subject::Subject,
};

/// Looks at `spec.unschedulable`.
pub struct NodeUnschedulable;

struct Intolerant;

impl Filter for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn unblocked_by(&self) -> Changes {
        Changes::NODE_ADDED | Changes::NODE_UNSCHEDULABLE
    }

    fn prepare<'p>(&self, subject: &Subject<'p>, snapshot: &Snapshot) -> Prepared<'p> {
        if snapshot.census.cordoned == 0 || tolerated(subject.pod) {
            return Prepared::Skip;
        }
        Prepared::Check(Box::new(Intolerant))
    }
}

impl PreparedFilter for Intolerant {
    fn check(&self, _snapshot: &Snapshot, _slot: u32, node: &NodeInfo) -> Verdict {
        if node.unschedulable { Verdict::never("node(s) were unschedulable") } else { Verdict::Fits }
    }
}

/// Whether a pod may go to cordoned nodes.
pub(crate) fn tolerated(pod: &PodInfo) -> bool {
    tolerates(&pod.tolerations, "node.kubernetes.io/unschedulable", "", "NoSchedule")
}
