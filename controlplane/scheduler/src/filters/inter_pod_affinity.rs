//! Required affinity and anti-affinity between pods, in both directions.
//!
//! # Source
//! Kubernetes `plugins/interpodaffinity/filtering.go`.

use crate::{
    Changes, Filter, NodeInfo, Prepared, PreparedFilter, Snapshot, Verdict,
    index::{Counted, Held},
    subject::Subject,
    topology::NOWHERE,
};

/// Looks at what pods say of each other.
pub struct InterPodAffinity;

struct Terms {
    affinity: Vec<Counted>,
    /// The first pod of those that want each other may go anywhere.
    wants_itself: bool,
    alone: bool,
    anti: Vec<Counted>,
    /// Terms of placed pods that want this pod away, and their topologies.
    unwanted_by: Vec<(u32, u32)>,
}

impl Filter for InterPodAffinity {
    fn name(&self) -> &'static str {
        "InterPodAffinity"
    }

    fn unblocked_by(&self) -> Changes {
        Changes::POD_CAME | Changes::POD_LEFT | Changes::NODE_ADDED | Changes::NODE_LABELS | Changes::DOMAINS
    }

    fn prepare<'p>(&self, subject: &Subject<'p>, snapshot: &Snapshot) -> Prepared<'p> {
        let holders = snapshot.index.holders_of(subject.group).filter(|(_, holder)| holder.held == Held::Anti);
        let unwanted_by: Vec<_> = holders.map(|(number, holder)| (number, holder.topology)).collect();
        if subject.affinity.is_empty() && subject.anti.is_empty() && unwanted_by.is_empty() {
            return Prepared::Skip;
        }
        let mut terms = Terms {
            affinity: subject.affinity.clone(),
            wants_itself: subject.wants_itself,
            alone: false,
            anti: subject.anti.clone(),
            unwanted_by,
        };
        terms.refresh(snapshot);
        Prepared::Check(Box::new(terms))
    }
}

impl Terms {
    /// Each term's place must be there, and have a pod that all terms mean. When there is none anywhere, the first of
    /// those that want each other is let in.
    fn affinity_fits(&self, snapshot: &Snapshot, slot: u32) -> bool {
        let placed = |term: &Counted| snapshot.domain(*term, slot) != NOWHERE;
        self.affinity.iter().all(placed)
            && (self.affinity.iter().all(|term| snapshot.count_near(*term, slot) > 0)
                || (self.alone && self.wants_itself))
    }
}

impl PreparedFilter for Terms {
    fn check(&self, snapshot: &Snapshot, slot: u32, _node: &NodeInfo) -> Verdict {
        if !self.affinity.is_empty() && !self.affinity_fits(snapshot, slot) {
            return Verdict::never("node(s) didn't match pod affinity rules");
        }
        if self.anti.iter().any(|term| snapshot.count_near(*term, slot) > 0) {
            return Verdict::not_now("node(s) didn't match pod anti-affinity rules");
        }
        let unwanted = |(holder, topology): &(u32, u32)| {
            snapshot.index.held_in(*holder, snapshot.topologies.domain(*topology, slot)) > 0
        };
        if self.unwanted_by.iter().any(unwanted) {
            return Verdict::not_now("node(s) didn't satisfy existing pods anti-affinity rules");
        }
        Verdict::Fits
    }

    fn refresh(&mut self, snapshot: &Snapshot) {
        self.alone = self.wants_itself && !self.affinity.iter().any(|term| snapshot.index.is_anywhere(*term));
    }
}
