//! A pod that names its node goes nowhere else.

use crate::{Changes, Filter, NodeInfo, PodInfo, PreparedFilter, Unmet, Verdict};

/// Compares `spec.nodeName`.
pub struct NodeName;

struct Wanted<'p>(&'p str);

impl Filter for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }

    fn unblocked_by(&self) -> Changes {
        Changes::NODE_ADDED
    }

    fn prepare<'p>(&self, pod: &'p PodInfo) -> Option<Box<dyn PreparedFilter + 'p>> {
        if pod.node_name.is_empty() { None } else { Some(Box::new(Wanted(&pod.node_name))) }
    }
}

impl PreparedFilter for Wanted<'_> {
    fn check<'n>(&self, node: &'n NodeInfo) -> Verdict<'n> {
        if *node.name == *self.0 {
            return Verdict::Fits;
        }
        let reason = Unmet::Text("node(s) didn't match the requested node name");
        Verdict::Unfit { reason, preemption_helps: false }
    }
}
