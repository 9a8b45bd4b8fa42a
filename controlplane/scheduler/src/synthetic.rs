//! A synthetic workload: many equal nodes, many small pods. The benchmark measures it, the tests check its result.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        Affinity, Container, Node, NodeCondition, NodeStatus, Pod, PodAffinity, PodAffinityTerm, PodAntiAffinity,
        PodSpec, ResourceRequirements, Toleration, TopologySpreadConstraint,
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{LabelSelector, ObjectMeta},
    },
};

use crate::{Decision, PodInfo, Profile, Snapshot, schedule};

const HOSTNAME: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";
/// Zones that the nodes are in.
const ZONES: usize = 10;
/// Pods of one app.
const APP_PODS: usize = 100;

/// What the pods ask of each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// Nothing.
    Plain,
    /// To be in the zone of the others of their app.
    Affinity,
    /// To be on another node than the others of their app.
    AntiAffinity,
    /// To be spread evenly over zones, and over nodes as far as that goes.
    Spread,
}

fn amounts(list: &[(&str, &str)]) -> BTreeMap<String, Quantity> {
    list.iter().map(|(name, amount)| ((*name).to_owned(), Quantity((*amount).to_owned()))).collect()
}

/// A node with 32 cores, 64 GiB and room for 1,000 pods, in one of ten zones.
pub fn node(number: usize) -> Node {
    let name = format!("node-{number}");
    let allocatable = amounts(&[("cpu", "32"), ("memory", "64Gi"), ("pods", "1000")]);
    let zone = format!("zone-{}", number % ZONES);
    let labels = [(HOSTNAME.to_owned(), name.clone()), (ZONE.to_owned(), zone)].into();
    let ready = NodeCondition { type_: "Ready".to_owned(), status: "True".to_owned(), ..NodeCondition::default() };
    Node {
        metadata: ObjectMeta { name: Some(name), labels: Some(labels), ..ObjectMeta::default() },
        status: Some(NodeStatus {
            allocatable: Some(allocatable.clone()),
            capacity: Some(allocatable),
            conditions: Some(vec![ready]),
            ..NodeStatus::default()
        }),
        ..Node::default()
    }
}

/// A pod that asks for 10 m CPU and 16 MiB. It tolerates everything, since nobody renews its node's lease.
pub fn pod(number: usize, workload: Workload) -> Pod {
    let name = format!("pod-{number}");
    let app = format!("app-{}", number / APP_PODS);
    let labels: BTreeMap<String, String> = [("app".to_owned(), app)].into();
    let requests = Some(amounts(&[("cpu", "10m"), ("memory", "16Mi")]));
    let container = Container {
        name: "c".to_owned(),
        image: Some("hello".to_owned()),
        resources: Some(ResourceRequirements { requests, ..ResourceRequirements::default() }),
        ..Container::default()
    };
    let selector = LabelSelector { match_labels: Some(labels.clone()), ..LabelSelector::default() };
    let anything = Toleration { operator: Some("Exists".to_owned()), ..Toleration::default() };
    Pod {
        metadata: ObjectMeta {
            namespace: Some("default".to_owned()),
            uid: Some(name.clone()),
            name: Some(name),
            labels: Some(labels),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            containers: vec![container],
            tolerations: Some(vec![anything]),
            affinity: affinity(&selector, workload),
            topology_spread_constraints: spread(&selector, workload),
            ..PodSpec::default()
        }),
        status: None,
    }
}

fn affinity(selector: &LabelSelector, workload: Workload) -> Option<Affinity> {
    let terms = |key: &str| {
        let term = PodAffinityTerm {
            label_selector: Some(selector.clone()),
            topology_key: key.to_owned(),
            ..PodAffinityTerm::default()
        };
        Some(vec![term])
    };
    match workload {
        Workload::Plain | Workload::Spread => None,
        Workload::Affinity => {
            let near = PodAffinity {
                required_during_scheduling_ignored_during_execution: terms(ZONE),
                ..PodAffinity::default()
            };
            Some(Affinity { pod_affinity: Some(near), ..Affinity::default() })
        }
        Workload::AntiAffinity => {
            let far = PodAntiAffinity {
                required_during_scheduling_ignored_during_execution: terms(HOSTNAME),
                ..PodAntiAffinity::default()
            };
            Some(Affinity { pod_anti_affinity: Some(far), ..Affinity::default() })
        }
    }
}

fn spread(selector: &LabelSelector, workload: Workload) -> Option<Vec<TopologySpreadConstraint>> {
    let constraint = |key: &str, otherwise: &str| TopologySpreadConstraint {
        label_selector: Some(selector.clone()),
        max_skew: 1,
        topology_key: key.to_owned(),
        when_unsatisfiable: otherwise.to_owned(),
        ..TopologySpreadConstraint::default()
    };
    let constraints = || vec![constraint(ZONE, "DoNotSchedule"), constraint(HOSTNAME, "ScheduleAnyway")];
    (workload == Workload::Spread).then(constraints)
}

/// An empty cluster of so many nodes.
pub fn cluster(nodes: usize) -> Snapshot {
    let mut snapshot = Snapshot::new();
    for i in 0..nodes {
        snapshot.upsert_node(&node(i));
    }
    snapshot
}

/// Schedules and assumes one pod, read anew as a driver does; whether it found a node.
pub fn place(snapshot: &mut Snapshot, profile: &Profile, number: usize, workload: Workload) -> bool {
    let info = PodInfo::of(&pod(number, workload));
    match schedule(&info, snapshot, profile, number as u64) {
        Decision::Bind { node, .. } => {
            snapshot.assume(&info, &node);
            true
        }
        Decision::Unschedulable(_) => false,
    }
}

/// Schedules and assumes so many pods; returns how many found a node.
pub fn fill(snapshot: &mut Snapshot, profile: &Profile, pods: usize, workload: Workload) -> usize {
    (0..pods).filter(|number| place(snapshot, profile, *number, workload)).count()
}
