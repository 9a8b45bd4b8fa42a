//! `nodeSelector` and required node affinity: labels (and the name) that a node must have.
//!
//! # Source
//! Kubernetes `plugins/nodeaffinity/node_affinity.go`.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm};

use crate::{Changes, Filter, NodeInfo, PodInfo, Prepared, PreparedFilter, Snapshot, Verdict, subject::Subject};

const UNMET: Verdict = Verdict::never("node(s) didn't match Pod's node affinity/selector");
const UNMET_ADDED: Verdict = Verdict::never("node(s) didn't match scheduler-enforced node affinity");

/// Compares labels.
#[derive(Debug, Default)]
pub struct NodeAffinity {
    /// What the configuration demands of the nodes of all pods.
    pub added: Option<NodeSelector>,
}

struct Wanted<'p> {
    pod: &'p PodInfo,
    added: Option<NodeSelector>,
}

impl Filter for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn unblocked_by(&self) -> Changes {
        Changes::NODE_ADDED | Changes::NODE_LABELS
    }

    fn prepare<'p>(&self, subject: &Subject<'p>, _snapshot: &Snapshot) -> Prepared<'p> {
        let pod = subject.pod;
        if pod.node_selector.is_empty() && pod.required_affinity.is_none() && self.added.is_none() {
            return Prepared::Skip;
        }
        let wanted = Box::new(Wanted { pod, added: self.added.clone() });
        match pod.required_affinity.as_ref().and_then(named_nodes) {
            Some(names) if names.is_empty() => {
                Prepared::Refuse { reason: "pod affinity terms conflict".to_owned(), preemption_helps: false }
            }
            Some(names) => Prepared::Only(names.into_iter().collect(), wanted),
            None => Prepared::Check(wanted),
        }
    }
}

impl PreparedFilter for Wanted<'_> {
    fn check(&self, _snapshot: &Snapshot, _slot: u32, node: &NodeInfo) -> Verdict {
        if self.added.as_ref().is_some_and(|added| !selector_matches(added, node)) {
            return UNMET_ADDED;
        }
        if affinity_matches(self.pod, node) { Verdict::Fits } else { UNMET }
    }
}

/// The nodes that a selector names, when each of its terms names some.
fn named_nodes(selector: &NodeSelector) -> Option<BTreeSet<&str>> {
    let mut all = BTreeSet::new();
    for term in &selector.node_selector_terms {
        let mut of_term: Option<BTreeSet<&str>> = None;
        for field in term.match_fields.iter().flatten() {
            if field.key == "metadata.name" && field.operator == "In" {
                let names = field.values.iter().flatten().map(String::as_str).collect();
                of_term = Some(match of_term {
                    Some(before) => before.intersection(&names).copied().collect(),
                    None => names,
                });
            }
        }
        all.extend(of_term?);
    }
    Some(all)
}

/// Whether a node has what a pod's selector and required affinity demand.
pub(crate) fn affinity_matches(pod: &PodInfo, node: &NodeInfo) -> bool {
    pod.node_selector.iter().all(|(k, v)| node.labels.get(k) == Some(v))
        && pod.required_affinity.as_ref().is_none_or(|affinity| selector_matches(affinity, node))
}

/// Whether one of the terms matches.
pub(crate) fn selector_matches(selector: &NodeSelector, node: &NodeInfo) -> bool {
    selector.node_selector_terms.iter().any(|term| term_matches(term, node))
}

/// A term without requirements matches nothing. `matchFields` knows `metadata.name` only, as in Kubernetes.
pub(crate) fn term_matches(term: &NodeSelectorTerm, node: &NodeInfo) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let name = |r: &NodeSelectorRequirement| (r.key == "metadata.name").then_some(&*node.name);
    expressions.iter().all(|r| requirement_matches(r, node.labels.get(&r.key).map(String::as_str)))
        && fields.iter().all(|r| requirement_matches(r, name(r)))
}

fn requirement_matches(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = || value.is_some_and(|v| values.iter().any(|w| w == v));
    let compared = |holds: fn(i64, i64) -> bool| {
        let actual = value.and_then(|v| v.parse().ok());
        let bound = values.first().and_then(|v| v.parse().ok());
        actual.zip(bound).is_some_and(|(a, b)| holds(a, b))
    };
    match requirement.operator.as_str() {
        "In" => listed(),
        "NotIn" => !listed(),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compared(|a, b| a > b),
        "Lt" => compared(|a, b| a < b),
        _ => false,
    }
}
