//! A node takes a pod only when what is left there covers what the pod requests.
//!
//! # Source
//! Kubernetes `plugins/noderesources/fit.go`.

use std::collections::BTreeSet;

use crate::{
    Changes, Filter, NodeInfo, Prepared, PreparedFilter, Resources, Snapshot, Unmet, Verdict, subject::Subject,
};

/// Compares requests with what is allocatable and not yet requested.
#[derive(Debug, Default)]
pub struct NodeResourcesFit {
    /// Extended resources that are somebody else's business.
    pub ignored: BTreeSet<String>,
    /// The same by the part of the name before the slash.
    pub ignored_groups: BTreeSet<String>,
}

enum Requests<'p> {
    All(&'p Resources),
    Some(Resources),
}

impl Filter for NodeResourcesFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn unblocked_by(&self) -> Changes {
        Changes::NODE_ADDED | Changes::NODE_ALLOCATABLE | Changes::POD_REMOVED
    }

    fn prepare<'p>(&self, subject: &Subject<'p>, _snapshot: &Snapshot) -> Prepared<'p> {
        let requests = &subject.pod.requests;
        let ignored = |name: &str| {
            self.ignored.contains(name)
                || name.split_once('/').is_some_and(|(group, _)| self.ignored_groups.contains(group))
        };
        if !requests.other.iter().any(|(name, _)| ignored(name)) {
            return Prepared::Check(Box::new(Requests::All(requests)));
        }
        let mut some = requests.clone();
        // The places stay, since the bits of a shortage are places.
        some.other.iter_mut().filter(|(name, _)| ignored(name)).for_each(|(_, amount)| *amount = 0);
        Prepared::Check(Box::new(Requests::Some(some)))
    }
}

impl PreparedFilter for Requests<'_> {
    fn check(&self, _snapshot: &Snapshot, _slot: u32, node: &NodeInfo) -> Verdict {
        let wanted = match self {
            Self::All(wanted) => *wanted,
            Self::Some(wanted) => wanted,
        };
        match shortage(wanted, &node.allocatable, &node.requested) {
            (0, _) => Verdict::Fits,
            (short, hopeless) => Verdict::Unfit { reason: Unmet::Resources(short), preemption_helps: !hopeless },
        }
    }
}

/// What is short, as bits, and whether it would be on the empty node, too.
pub(crate) fn shortage(wanted: &Resources, all: &Resources, used: &Resources) -> (u64, bool) {
    let mut short = 0_u64;
    let mut hopeless = false;
    let mut weigh = |bit: usize, wanted: i64, used: i64, all: i64| {
        if wanted > 0 && wanted > all.saturating_sub(used) {
            short |= 1 << bit;
            hopeless |= wanted > all;
        }
    };
    weigh(0, wanted.pods, used.pods, all.pods);
    weigh(1, wanted.millicores, used.millicores, all.millicores);
    weigh(2, wanted.memory_bytes, used.memory_bytes, all.memory_bytes);
    weigh(3, wanted.ephemeral_bytes, used.ephemeral_bytes, all.ephemeral_bytes);
    // A mask has 64 bits; a pod with more than 60 extended resources shares the last one.
    for (i, (name, amount)) in wanted.other.iter().enumerate() {
        weigh((4 + i).min(63), *amount, used.other(name), all.other(name));
    }
    (short, hopeless)
}
