//! A pod that names its node goes nowhere else.

use crate::{Changes, Filter, NodeInfo, Prepared, PreparedFilter, Snapshot, Verdict, subject::Subject};

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

    fn prepare<'p>(&self, subject: &Subject<'p>, _snapshot: &Snapshot) -> Prepared<'p> {
        match subject.pod.node_name.as_str() {
            "" => Prepared::Skip,
            name => Prepared::Check(Box::new(Wanted(name))),
        }
    }
}

impl PreparedFilter for Wanted<'_> {
    fn check(&self, _snapshot: &Snapshot, _slot: u32, node: &NodeInfo) -> Verdict {
        if *node.name == *self.0 {
            return Verdict::Fits;
        }
        Verdict::never("node(s) didn't match the requested node name")
    }
}
