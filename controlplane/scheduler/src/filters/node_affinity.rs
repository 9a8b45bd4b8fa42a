//! `nodeSelector` and required node affinity: labels (and the name) that a node must have.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm};

use crate::{Changes, Filter, NodeInfo, PodInfo, PreparedFilter, Unmet, Verdict};

/// Compares labels.
pub struct NodeAffinity;

struct Wanted<'p> {
    labels: &'p BTreeMap<String, String>,
    affinity: Option<&'p NodeSelector>,
}

impl Filter for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn unblocked_by(&self) -> Changes {
        Changes::NODE_ADDED | Changes::NODE_LABELS
    }

    fn prepare<'p>(&self, pod: &'p PodInfo) -> Option<Box<dyn PreparedFilter + 'p>> {
        if pod.node_selector.is_empty() && pod.required_affinity.is_none() {
            return None;
        }
        Some(Box::new(Wanted { labels: &pod.node_selector, affinity: pod.required_affinity.as_ref() }))
    }
}

impl PreparedFilter for Wanted<'_> {
    fn check<'n>(&self, node: &'n NodeInfo) -> Verdict<'n> {
        let labels = self.labels.iter().all(|(k, v)| node.labels.get(k) == Some(v));
        let affinity = self.affinity.is_none_or(|a| a.node_selector_terms.iter().any(|t| term_matches(t, node)));
        if labels && affinity {
            return Verdict::Fits;
        }
        let reason = Unmet::Text("node(s) didn't match Pod's node affinity/selector");
        Verdict::Unfit { reason, preemption_helps: false }
    }
}

/// A term without requirements matches nothing. `matchFields` knows `metadata.name` only, as in Kubernetes.
fn term_matches(term: &NodeSelectorTerm, node: &NodeInfo) -> bool {
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
