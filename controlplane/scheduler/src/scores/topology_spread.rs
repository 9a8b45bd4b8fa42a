//! Prefers nodes in domains with few pods, by topology spread constraints with `ScheduleAnyway`.
//!
//! # Source
//! Kubernetes `plugins/podtopologyspread/scoring.go`.

use crate::{
    NodeInfo, PreparedScore, SCORE_MAX, Score, Snapshot,
    filters::domain_counts,
    subject::{Spread, Subject},
    topology::NOWHERE,
};

/// A node that lacks a label is not compared with the others, and gets nothing.
const IGNORED: i64 = -1;
const HOSTNAME: &str = "kubernetes.io/hostname";

/// Evens out domains.
pub struct EvenSpread;

struct Constraints<'p> {
    snapshot: &'p Snapshot,
    all: Vec<Weighed<'p>>,
    /// Nodes must have all labels to be compared.
    strict: bool,
}

struct Weighed<'p> {
    spread: Spread<'p>,
    /// Pods by domain of the nodes that count, when not all do.
    own: Option<Vec<u32>>,
    /// The more domains there are, the more a pod in one of them counts.
    weight: f64,
}

impl Score for EvenSpread {
    fn name(&self) -> &'static str {
        "PodTopologySpread"
    }

    fn prepare<'p>(
        &self,
        subject: &Subject<'p>,
        snapshot: &'p Snapshot,
        feasible: &[u32],
    ) -> Option<Box<dyn PreparedScore + 'p>> {
        let soft: Vec<_> = subject.spread.iter().filter(|s| !s.constraint.hard).cloned().collect();
        if soft.is_empty() {
            return None;
        }
        let strict = !subject.spread_by_default;
        let compared = |slot: &u32| !strict || soft.iter().all(|s| snapshot.domain(s.counted, *slot) != NOWHERE);
        let nodes = feasible.iter().filter(|slot| compared(slot)).count();
        let weigh = |spread: &Spread<'p>| {
            let topology = snapshot.topologies.get(spread.counted.topology);
            let domains =
                if topology.key == HOSTNAME { nodes } else { domains_of(spread, snapshot, feasible, &compared) };
            // On one host's count there is nothing to sum up.
            let by_node = spread.by_node.filter(|_| topology.key != HOSTNAME);
            let required = if strict { soft.as_slice() } else { &[] };
            let own = by_node.map(|by_node| domain_counts(subject.pod, spread, by_node, required, snapshot).0);
            Weighed { spread: spread.clone(), own, weight: ((domains + 2) as f64).ln() }
        };
        let all = soft.iter().map(weigh).collect();
        Some(Box::new(Constraints { snapshot, all, strict }))
    }
}

/// How many domains the nodes to choose from are in.
fn domains_of(spread: &Spread<'_>, snapshot: &Snapshot, feasible: &[u32], compared: &dyn Fn(&u32) -> bool) -> usize {
    let mut seen = vec![false; snapshot.topologies.get(spread.counted.topology).nodes.len() + 1];
    for slot in feasible.iter().filter(|slot| compared(slot)) {
        // Nodes without the label are a domain of their own here.
        let domain = snapshot.domain(spread.counted, *slot) as usize;
        let at = domain.min(seen.len() - 1);
        seen[at] = true;
    }
    seen.iter().filter(|there| **there).count()
}

impl PreparedScore for Constraints<'_> {
    fn score(&self, slot: u32, _node: &NodeInfo) -> i64 {
        let mut score = 0.0;
        for weighed in &self.all {
            let counted = weighed.spread.counted;
            let domain = self.snapshot.domain(counted, slot);
            if domain == NOWHERE {
                if self.strict {
                    return IGNORED;
                }
                continue;
            }
            let pods = match &weighed.own {
                Some(own) => own.get(domain as usize).copied().unwrap_or(0),
                None => self.snapshot.index.count(counted, domain),
            };
            let tolerated = (weighed.spread.constraint.max_skew - 1) as f64;
            score += f64::from(pods) * weighed.weight + tolerated;
        }
        score.round() as i64
    }

    fn normalize(&self, scores: &mut [i64]) {
        let compared = || scores.iter().copied().filter(|s| *s != IGNORED);
        let (lowest, highest) = (compared().min().unwrap_or(0), compared().max().unwrap_or(0));
        for score in scores {
            *score = match (*score, highest) {
                (IGNORED, _) => 0,
                (_, 0) => SCORE_MAX,
                (score, _) => SCORE_MAX * (highest + lowest - score) / highest,
            };
        }
    }
}
