//! A port of the node goes to one pod.

use crate::{Changes, Filter, NodeInfo, PodInfo, Prepared, PreparedFilter, Snapshot, Verdict, subject::Subject};

/// Compares host ports.
pub struct NodePorts;

struct Wanted<'p>(&'p PodInfo);

impl Filter for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn unblocked_by(&self) -> Changes {
        Changes::NODE_ADDED | Changes::POD_REMOVED
    }

    fn prepare<'p>(&self, subject: &Subject<'p>, _snapshot: &Snapshot) -> Prepared<'p> {
        if subject.pod.ports.is_empty() { Prepared::Skip } else { Prepared::Check(Box::new(Wanted(subject.pod))) }
    }
}

impl PreparedFilter for Wanted<'_> {
    fn check(&self, _snapshot: &Snapshot, _slot: u32, node: &NodeInfo) -> Verdict {
        if self.0.ports.iter().any(|wanted| node.ports.iter().any(|taken| taken.conflicts(wanted))) {
            return Verdict::not_now("node(s) didn't have free ports for the requested pod ports");
        }
        Verdict::Fits
    }
}
