//! Where a DaemonSet's pods may run, and how a pod is made for one node.
//!
//! # Source
//! Kubernetes `NodeShouldRunDaemonPod` in `pkg/controller/daemon/daemon_controller.go`,
//! `pkg/controller/daemon/util/daemonset_util.go`, `staging/src/k8s.io/component-helpers/scheduling/corev1/nodeaffinity`.

use k8s_openapi::{
    api::{
        apps::v1::{DaemonSet, DaemonSetSpec},
        core::v1::{
            Affinity, Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, Taint, Toleration,
        },
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use crate::{controller_history::REVISION_HASH, node_lifecycle::tolerates, owners::controller_ref, pods::node_name};

/// Annotation of a pod that replaces a failed one: how many have failed on its node in a row.
pub(super) const FAILURES: &str = "podium.dev/daemon-pod-failures";
/// Annotation of a DaemonSet and label of its pods, from old versions of the API: how often the template has changed.
const SET_GENERATION: &str = "deprecated.daemonset.template.generation";
const POD_GENERATION: &str = "pod-template-generation";
const NAME_FIELD: &str = "metadata.name";

/// Whether a node gets a pod, and whether it keeps the one that it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Placement {
    pub(super) runs: bool,
    pub(super) keeps: bool,
}

/// What a DaemonSet's template says of nodes.
pub(super) struct Rules<'a> {
    spec: Option<&'a PodSpec>,
    tolerations: Vec<Toleration>,
}

impl<'a> Rules<'a> {
    pub(super) fn of(set: &'a DaemonSetSpec) -> Self {
        let spec = set.template.spec.as_ref();
        let mut tolerations = spec.and_then(|s| s.tolerations.clone()).unwrap_or_default();
        tolerate(&mut tolerations, spec.is_some_and(|s| s.host_network == Some(true)));
        Self { spec, tolerations }
    }

    pub(super) fn on(&self, node: &Node) -> Placement {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let wanted_name = self.spec.and_then(|s| s.node_name.as_deref()).unwrap_or_default();
        if !(wanted_name.is_empty() || wanted_name == name) || !self.selects(node) {
            return Placement { runs: false, keeps: false };
        }
        let taints = || node.spec.iter().flat_map(|s| s.taints.iter().flatten());
        let tolerated = |taint: &Taint| self.tolerations.iter().any(|t| tolerates(t, taint));
        let runs = taints().filter(|t| t.effect != "PreferNoSchedule").all(tolerated);
        let keeps = taints().filter(|t| t.effect == "NoExecute").all(tolerated);
        Placement { runs, keeps }
    }

    fn selects(&self, node: &Node) -> bool {
        let labels = |key: &str| node.metadata.labels.as_ref().and_then(|l| l.get(key)).map(String::as_str);
        let selector = self.spec.and_then(|s| s.node_selector.as_ref());
        let affinity = self.spec.and_then(required);
        selector.into_iter().flatten().all(|(k, v)| labels(k) == Some(v))
            && affinity.is_none_or(|a| a.node_selector_terms.iter().any(|term| matches(term, node)))
    }
}

fn required(spec: &PodSpec) -> Option<&NodeSelector> {
    spec.affinity.as_ref()?.node_affinity.as_ref()?.required_during_scheduling_ignored_during_execution.as_ref()
}

/// A term without requirements matches nothing.
fn matches(term: &NodeSelectorTerm, node: &Node) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let label = |key: &str| node.metadata.labels.as_ref().and_then(|l| l.get(key)).map(String::as_str);
    let field = |key: &str| node.metadata.name.as_deref().filter(|_| key == NAME_FIELD);
    !(expressions.is_empty() && fields.is_empty())
        && expressions.iter().all(|r| is_met(r, label(&r.key)))
        && fields.iter().all(|r| is_met(r, field(&r.key)))
}

fn is_met(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = value.is_some_and(|v| values.iter().any(|w| w == v));
    let compared = |holds: fn(i64, i64) -> bool| {
        let (actual, bound) = (value.and_then(|v| v.parse().ok()), values.first().and_then(|v| v.parse().ok()));
        actual.zip(bound).is_some_and(|(a, b)| holds(a, b))
    };
    match requirement.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compared(|a, b| a > b),
        "Lt" => compared(|a, b| a < b),
        _ => false,
    }
}

/// Adds what every daemon tolerates: it is there to the last.
fn tolerate(tolerations: &mut Vec<Toleration>, host_network: bool) {
    let always = [
        ("not-ready", "NoExecute"),
        ("unreachable", "NoExecute"),
        ("disk-pressure", "NoSchedule"),
        ("memory-pressure", "NoSchedule"),
        ("pid-pressure", "NoSchedule"),
        ("unschedulable", "NoSchedule"),
    ];
    let network = host_network.then_some(("network-unavailable", "NoSchedule"));
    for (key, effect) in always.into_iter().chain(network) {
        let added = Toleration {
            key: Some(format!("node.kubernetes.io/{key}")),
            operator: Some("Exists".to_owned()),
            effect: Some(effect.to_owned()),
            ..Toleration::default()
        };
        let same = |t: &&mut Toleration| {
            let value = |t: &Toleration| t.value.clone().unwrap_or_default();
            t.key == added.key && t.operator == added.operator && t.effect == added.effect && value(t) == value(&added)
        };
        match tolerations.iter_mut().find(same) {
            Some(known) => *known = added,
            None => tolerations.push(added),
        }
    }
}

/// The pod that a DaemonSet makes for a node.
pub(super) fn new_pod(set: &DaemonSet, spec: &DaemonSetSpec, hash: &str, node: &str, failures: u32) -> Pod {
    let given = spec.template.metadata.clone().unwrap_or_default();
    let mut labels = given.labels.unwrap_or_default();
    labels.insert(REVISION_HASH.to_owned(), hash.to_owned());
    let generation = set.metadata.annotations.as_ref().and_then(|a| a.get(SET_GENERATION)?.parse::<i64>().ok());
    labels.extend(generation.map(|generation| (POD_GENERATION.to_owned(), generation.to_string())));
    let mut annotations = given.annotations;
    if failures > 0 {
        annotations.get_or_insert_default().insert(FAILURES.to_owned(), failures.to_string());
    }
    let mut pod_spec = spec.template.spec.clone().unwrap_or_default();
    let host_network = pod_spec.host_network == Some(true);
    tolerate(pod_spec.tolerations.get_or_insert_default(), host_network);
    pin(pod_spec.affinity.get_or_insert_default(), node);
    Pod {
        metadata: ObjectMeta {
            generate_name: set.metadata.name.as_ref().map(|name| format!("{name}-")),
            namespace: set.metadata.namespace.clone(),
            labels: Some(labels),
            annotations,
            finalizers: given.finalizers,
            owner_references: Some(vec![controller_ref(set)]),
            ..ObjectMeta::default()
        },
        spec: Some(pod_spec),
        status: None,
    }
}

/// Replaces what is required of the node by its name: what was required is known to hold.
fn pin(affinity: &mut Affinity, node: &str) {
    let name = NodeSelectorRequirement {
        key: NAME_FIELD.to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let term = NodeSelectorTerm { match_fields: Some(vec![name]), ..NodeSelectorTerm::default() };
    let required =
        &mut affinity.node_affinity.get_or_insert_default().required_during_scheduling_ignored_during_execution;
    *required = Some(NodeSelector { node_selector_terms: vec![term] });
}

/// The node that a pod is on or is made for.
pub(super) fn target(pod: &Pod) -> Option<&str> {
    let bound = node_name(pod);
    if !bound.is_empty() {
        return Some(bound);
    }
    let terms = &required(pod.spec.as_ref()?)?.node_selector_terms;
    let mut fields = terms.iter().flat_map(|term| term.match_fields.iter().flatten());
    let pinned = fields.find(|f| f.key == NAME_FIELD && f.operator == "In")?;
    match pinned.values.as_deref().unwrap_or_default() {
        [node] => Some(node),
        _ => None,
    }
}

/// Order of the pods of one node: bound ones first, then the oldest; the name decides between equals.
pub(super) fn rank(pod: &Pod) -> (bool, Option<jiff::Timestamp>, String) {
    let meta = &pod.metadata;
    let created = meta.creation_timestamp.as_ref().map(|t| t.0);
    (node_name(pod).is_empty(), created, meta.name.clone().unwrap_or_default())
}
