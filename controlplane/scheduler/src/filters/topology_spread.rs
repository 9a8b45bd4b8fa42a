//! Topology spread constraints with `DoNotSchedule`.
//!
//! # Source
//! Kubernetes `plugins/podtopologyspread/filtering.go`.

use crate::{
    Changes, Filter, NodeInfo, PodInfo, Prepared, PreparedFilter, Snapshot, Verdict,
    filters::{affinity_matches, tolerates_all},
    index::Counted,
    subject::{Spread, Subject},
    topology::NOWHERE,
};

/// Keeps domains from having many more pods than others.
pub struct PodTopologySpread;

struct Constraints<'p> {
    pod: &'p PodInfo,
    all: Vec<Summed<'p>>,
}

/// A constraint, with what its domains have.
struct Summed<'p> {
    spread: Spread<'p>,
    /// Pods by domain, of the nodes that count; empty when all nodes count: then the index has them.
    own: Vec<u32>,
    /// Pods in the emptiest domain; 0 when there are fewer domains than the constraint demands.
    emptiest: i64,
}

impl Filter for PodTopologySpread {
    fn name(&self) -> &'static str {
        "PodTopologySpread"
    }

    fn unblocked_by(&self) -> Changes {
        Changes::POD_CAME | Changes::POD_LEFT | Changes::NODE_ADDED | Changes::NODE_LABELS | Changes::DOMAINS
    }

    fn prepare<'p>(&self, subject: &Subject<'p>, snapshot: &Snapshot) -> Prepared<'p> {
        let hard = subject.spread.iter().filter(|s| s.constraint.hard);
        let all: Vec<_> = hard.map(|spread| Summed { spread: spread.clone(), own: Vec::new(), emptiest: 0 }).collect();
        if all.is_empty() {
            return Prepared::Skip;
        }
        let mut constraints = Constraints { pod: subject.pod, all };
        constraints.refresh(snapshot);
        Prepared::Check(Box::new(constraints))
    }
}

impl PreparedFilter for Constraints<'_> {
    fn check(&self, snapshot: &Snapshot, slot: u32, _node: &NodeInfo) -> Verdict {
        for summed in &self.all {
            let Spread { constraint, counted, counts_itself, .. } = &summed.spread;
            let domain = snapshot.domain(*counted, slot);
            if domain == NOWHERE {
                return Verdict::never("node(s) didn't match pod topology spread constraints (missing required label)");
            }
            let there = match &summed.spread.by_node {
                Some(_) => summed.own.get(domain as usize).copied().unwrap_or(0),
                None => snapshot.index.count(*counted, domain),
            };
            if i64::from(there) + i64::from(*counts_itself) - summed.emptiest > constraint.max_skew {
                return Verdict::not_now("node(s) didn't match pod topology spread constraints");
            }
        }
        Verdict::Fits
    }

    fn refresh(&mut self, snapshot: &Snapshot) {
        let spreads: Vec<_> = self.all.iter().map(|s| s.spread.clone()).collect();
        for summed in &mut self.all {
            let (domains, emptiest) = match &summed.spread.by_node {
                None => {
                    let nodes = &snapshot.topologies.get(summed.spread.counted.topology).nodes;
                    summarize(snapshot.index.counts(summed.spread.counted), nodes.iter().map(|nodes| *nodes > 0))
                }
                Some(by_node) => {
                    let (own, present) = domain_counts(self.pod, &summed.spread, *by_node, &spreads, snapshot);
                    summed.own = own;
                    summarize(&summed.own, present.into_iter())
                }
            };
            let few = domains < summed.spread.constraint.domains_min;
            summed.emptiest = if few { 0 } else { i64::from(emptiest) };
        }
    }
}

/// How many domains there are, and the pods in the emptiest.
fn summarize(pods: &[u32], present: impl Iterator<Item = bool>) -> (usize, u32) {
    let (mut domains, mut emptiest) = (0, u32::MAX);
    for (domain, _) in present.enumerate().filter(|(_, present)| *present) {
        domains += 1;
        emptiest = emptiest.min(pods.get(domain).copied().unwrap_or(0));
    }
    (domains, emptiest)
}

/// Pods by domain for one constraint of a pod, and which domains there are, when not all nodes count. `required`: the
/// constraints whose labels a node must all have to count.
pub(crate) fn domain_counts(
    pod: &PodInfo,
    spread: &Spread<'_>,
    by_node: Counted,
    required: &[Spread<'_>],
    snapshot: &Snapshot,
) -> (Vec<u32>, Vec<bool>) {
    let topology = snapshot.topologies.get(spread.counted.topology);
    let mut pods = vec![0; topology.nodes.len()];
    let mut present = vec![false; topology.nodes.len()];
    let constraint = &spread.constraint;
    for slot in snapshot.order().iter().copied() {
        let node = snapshot.at(slot);
        let counts = required.iter().all(|r| snapshot.domain(r.counted, slot) != NOWHERE)
            && (!constraint.honor_affinity || affinity_matches(pod, node))
            && (!constraint.honor_taints || tolerates_all(pod, node));
        let domain = topology.domain(slot);
        if counts && domain != NOWHERE {
            pods[domain as usize] += snapshot.index.count(by_node, slot);
            present[domain as usize] = true;
        }
    }
    (pods, present)
}
