//! What a pod says about other pods: affinity, anti-affinity and topology spread, read once when the pod is first seen.
//!
//! # Source
//! Kubernetes `pkg/scheduler/framework/types.go` (`newAffinityTerm`) and `plugins/podtopologyspread/common.go`.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::{
    api::core::v1::{Pod, PodAffinityTerm, PodSpec, TopologySpreadConstraint},
    apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement},
};
use podium_api::Selector;

/// Labels, as objects carry them.
pub(crate) type Labels = BTreeMap<String, String>;

/// Which pods are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Scope {
    /// In these namespaces,
    pub namespaces: BTreeSet<String>,
    /// or in namespaces with such labels,
    pub namespace_selector: Option<Selector>,
    /// with such labels,
    pub selector: Selector,
    /// of this controller (its uid; any when empty),
    pub owner: String,
    /// and not terminating, when this is set.
    pub living: bool,
}

/// Pods that are meant, and what counts as one place.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AffinityTerm {
    /// Which pods.
    pub scope: Scope,
    /// The label of nodes whose values are the places.
    pub topology_key: String,
}

/// One topology spread constraint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpreadConstraint {
    /// Which pods count, and by which label of nodes.
    pub term: AffinityTerm,
    /// By how many pods a domain may exceed the emptiest.
    pub max_skew: i64,
    /// With fewer domains than this, the emptiest counts as empty.
    pub domains_min: usize,
    /// `DoNotSchedule`; otherwise it only scores.
    pub hard: bool,
    /// Only nodes that the pod's node affinity and selector match count.
    pub honor_affinity: bool,
    /// Only nodes whose taints the pod tolerates count.
    pub honor_taints: bool,
}

/// Everything that a pod says about others. Most pods say nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodTerms {
    /// Required affinity.
    pub affinity: Vec<AffinityTerm>,
    /// Required anti-affinity.
    pub anti: Vec<AffinityTerm>,
    /// Preferred affinity, and anti-affinity with negative weights.
    pub preferred: Vec<(i32, AffinityTerm)>,
    /// Topology spread.
    pub spread: Vec<SpreadConstraint>,
}

impl PodTerms {
    /// Reads a pod; `None` when it says nothing about others.
    pub(crate) fn of(pod: &Pod, spec: &PodSpec) -> Option<Box<Self>> {
        let affinity = spec.affinity.as_ref();
        let near = affinity.and_then(|a| a.pod_affinity.as_ref());
        let far = affinity.and_then(|a| a.pod_anti_affinity.as_ref());
        let spread = spec.topology_spread_constraints.as_deref().unwrap_or_default();
        if near.is_none() && far.is_none() && spread.is_empty() {
            return None;
        }
        let term = |term: &PodAffinityTerm| affinity_term(pod, term);
        let all = |terms: Option<&Vec<PodAffinityTerm>>| terms.into_iter().flatten().map(term).collect();
        let mut preferred = Vec::new();
        for weighted in
            near.iter().flat_map(|a| a.preferred_during_scheduling_ignored_during_execution.iter().flatten())
        {
            preferred.push((weighted.weight, term(&weighted.pod_affinity_term)));
        }
        for weighted in far.iter().flat_map(|a| a.preferred_during_scheduling_ignored_during_execution.iter().flatten())
        {
            preferred.push((-weighted.weight, term(&weighted.pod_affinity_term)));
        }
        Some(Box::new(Self {
            affinity: all(near.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref())),
            anti: all(far.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref())),
            preferred,
            spread: spread.iter().map(|constraint| spread_constraint(pod, constraint)).collect(),
        }))
    }

    /// Every term, in no particular order.
    pub(crate) fn all(&self) -> impl Iterator<Item = &AffinityTerm> {
        let preferred = self.preferred.iter().map(|(_, term)| term);
        self.affinity.iter().chain(&self.anti).chain(preferred).chain(self.spread.iter().map(|s| &s.term))
    }
}

fn affinity_term(pod: &Pod, term: &PodAffinityTerm) -> AffinityTerm {
    let mut namespaces: BTreeSet<String> = term.namespaces.iter().flatten().cloned().collect();
    if namespaces.is_empty() && term.namespace_selector.is_none() {
        namespaces.extend(pod.metadata.namespace.clone());
    }
    let keys = [(&term.match_label_keys, "In"), (&term.mismatch_label_keys, "NotIn")];
    let namespace_selector = term.namespace_selector.as_ref().map(|s| selector(Some(s)));
    let selector = selector(with_keys(term.label_selector.as_ref(), pod, &keys).as_ref());
    let scope = Scope { namespaces, namespace_selector, selector, ..Scope::default() };
    AffinityTerm { scope, topology_key: term.topology_key.clone() }
}

fn spread_constraint(pod: &Pod, constraint: &TopologySpreadConstraint) -> SpreadConstraint {
    let keys = [(&constraint.match_label_keys, "In")];
    let scope = Scope {
        namespaces: pod.metadata.namespace.clone().into_iter().collect(),
        selector: selector(with_keys(constraint.label_selector.as_ref(), pod, &keys).as_ref()),
        living: true,
        ..Scope::default()
    };
    SpreadConstraint {
        term: AffinityTerm { scope, topology_key: constraint.topology_key.clone() },
        max_skew: i64::from(constraint.max_skew),
        domains_min: constraint.min_domains.and_then(|n| usize::try_from(n).ok()).unwrap_or(1),
        hard: constraint.when_unsatisfiable == "DoNotSchedule",
        honor_affinity: constraint.node_affinity_policy.as_deref() != Some("Ignore"),
        honor_taints: constraint.node_taints_policy.as_deref() == Some("Honor"),
    }
}

/// Adds what `matchLabelKeys` and `mismatchLabelKeys` mean for this pod. The API server may have done so already; a
/// condition twice is the same condition.
fn with_keys(base: Option<&LabelSelector>, pod: &Pod, keys: &[(&Option<Vec<String>>, &str)]) -> Option<LabelSelector> {
    let mut selector = base?.clone();
    for (keys, operator) in keys {
        for key in keys.iter().flatten() {
            let Some(value) = pod.metadata.labels.as_ref().and_then(|l| l.get(key)) else { continue };
            selector.match_expressions.get_or_insert_default().push(LabelSelectorRequirement {
                key: key.clone(),
                operator: (*operator).to_owned(),
                values: Some(vec![value.clone()]),
            });
        }
    }
    Some(selector)
}

/// Validation keeps malformed selectors out; one that came in nevertheless matches nothing.
pub(crate) fn selector(selector: Option<&LabelSelector>) -> Selector {
    Selector::from_label_selector(selector).unwrap_or_else(|_| Selector::nothing())
}
