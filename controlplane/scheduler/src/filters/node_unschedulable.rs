//! Cordoned nodes take only pods that tolerate it.

use crate::{Changes, Filter, NodeInfo, PodInfo, PreparedFilter, Unmet, Verdict, filters::tolerates};

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

    fn prepare<'p>(&self, pod: &'p PodInfo) -> Option<Box<dyn PreparedFilter + 'p>> {
        let tolerated = tolerates(&pod.tolerations, "node.kubernetes.io/unschedulable", "", "NoSchedule");
        if tolerated { None } else { Some(Box::new(Intolerant)) }
    }
}

impl PreparedFilter for Intolerant {
    fn check<'n>(&self, node: &'n NodeInfo) -> Verdict<'n> {
        if !node.unschedulable {
            return Verdict::Fits;
        }
        Verdict::Unfit { reason: Unmet::Text("node(s) were unschedulable"), preemption_helps: false }
    }
}
