//! Prefers nodes that the pod's preferred node affinity matches.

use k8s_openapi::api::core::v1::PreferredSchedulingTerm;

use crate::{
    NodeInfo, PreparedScore, Score, Snapshot, filters::term_matches, plugin::normalize_by_highest, subject::Subject,
};

/// The sum of the weights of the terms that match.
#[derive(Debug, Default)]
pub struct PreferredNodes {
    /// What the configuration prefers for all pods.
    pub added: Vec<PreferredSchedulingTerm>,
}

struct Preferred<'p> {
    own: &'p [PreferredSchedulingTerm],
    added: Vec<PreferredSchedulingTerm>,
}

impl Score for PreferredNodes {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn prepare<'p>(
        &self,
        subject: &Subject<'p>,
        _snapshot: &'p Snapshot,
        _feasible: &[u32],
    ) -> Option<Box<dyn PreparedScore + 'p>> {
        let own = &subject.pod.preferred_affinity;
        if own.is_empty() && self.added.is_empty() {
            return None;
        }
        Some(Box::new(Preferred { own, added: self.added.clone() }))
    }
}

impl PreparedScore for Preferred<'_> {
    fn score(&self, _slot: u32, node: &NodeInfo) -> i64 {
        let terms = self.own.iter().chain(&self.added).filter(|t| t.weight != 0 && term_matches(&t.preference, node));
        terms.map(|t| i64::from(t.weight)).sum()
    }

    fn normalize(&self, scores: &mut [i64]) {
        normalize_by_highest(scores, false);
    }
}
