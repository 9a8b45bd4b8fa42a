//! Prefers nodes near pods that the pod likes, or that like the pod, and far from the others.
//!
//! # Source
//! Kubernetes `plugins/interpodaffinity/scoring.go`.

use crate::{
    NodeInfo, PreparedScore, SCORE_MAX, Score, Snapshot,
    index::{Counted, Held},
    subject::Subject,
};

/// Adds up the weights of preferred terms, the pod's own and those of placed pods.
#[derive(Debug)]
pub struct PreferredPods {
    /// What a placed pod's required affinity to this pod counts.
    pub hard_weight: i64,
    /// What placed pods prefer does not count for pods without preferences of their own.
    pub ignore_placed: bool,
}

impl Default for PreferredPods {
    fn default() -> Self {
        Self { hard_weight: 1, ignore_placed: false }
    }
}

struct Terms<'p> {
    snapshot: &'p Snapshot,
    own: Vec<(i64, Counted)>,
    /// Weight, holder, topology.
    placed: Vec<(i64, u32, u32)>,
}

impl Score for PreferredPods {
    fn name(&self) -> &'static str {
        "InterPodAffinity"
    }

    fn prepare<'p>(
        &self,
        subject: &Subject<'p>,
        snapshot: &'p Snapshot,
        _feasible: &[u32],
    ) -> Option<Box<dyn PreparedScore + 'p>> {
        if self.ignore_placed && subject.preferred.is_empty() {
            return None;
        }
        let holders = snapshot.index.holders_of(subject.group);
        let weighted = holders.filter_map(|(number, holder)| {
            let weight = match holder.held {
                Held::Anti => 0,
                Held::Affinity => self.hard_weight,
                Held::Preferred(weight) => i64::from(weight),
            };
            (weight != 0).then_some((weight, number, holder.topology))
        });
        let placed: Vec<_> = weighted.collect();
        if placed.is_empty() && subject.preferred.is_empty() {
            return None;
        }
        Some(Box::new(Terms { snapshot, own: subject.preferred.clone(), placed }))
    }
}

impl PreparedScore for Terms<'_> {
    fn score(&self, slot: u32, _node: &NodeInfo) -> i64 {
        let own = self.own.iter().map(|(weight, term)| weight * i64::from(self.snapshot.count_near(*term, slot)));
        let placed = self.placed.iter().map(|(weight, holder, topology)| {
            let domain = self.snapshot.topologies.domain(*topology, slot);
            weight * i64::from(self.snapshot.index.held_in(*holder, domain))
        });
        own.chain(placed).sum()
    }

    fn normalize(&self, scores: &mut [i64]) {
        let lowest = scores.iter().copied().min().unwrap_or(0);
        let range = scores.iter().copied().max().unwrap_or(0) - lowest;
        for score in scores {
            *score = if range > 0 { SCORE_MAX * (*score - lowest) / range } else { 0 };
        }
    }
}
