//! A node takes a pod only when what is left there covers what the pod requests.

use crate::{Changes, Filter, NodeInfo, PodInfo, PreparedFilter, Resources, Unmet, Verdict};

/// Compares requests with what is allocatable and not yet requested.
pub struct NodeResourcesFit;

struct Requests<'p>(&'p Resources);

impl Filter for NodeResourcesFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn unblocked_by(&self) -> Changes {
        Changes::NODE_ADDED | Changes::NODE_ALLOCATABLE | Changes::POD_REMOVED
    }

    fn prepare<'p>(&self, pod: &'p PodInfo) -> Option<Box<dyn PreparedFilter + 'p>> {
        Some(Box::new(Requests(&pod.requests)))
    }
}

impl PreparedFilter for Requests<'_> {
    fn check<'n>(&self, node: &'n NodeInfo) -> Verdict<'n> {
        let (wanted, used, all) = (self.0, &node.requested, &node.allocatable);
        let mut short = 0_u64;
        // Without pods nothing helps: such a resource is larger than the whole node.
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
        if short == 0 {
            return Verdict::Fits;
        }
        Verdict::Unfit { reason: Unmet::Resources(short), preemption_helps: !hopeless }
    }
}
