//! A synthetic workload: many equal nodes, many small pods. The benchmark measures it, the tests check its result.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Container, Node, NodeStatus, Pod, PodSpec, ResourceRequirements},
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta},
};

use crate::{Decision, PodInfo, Profile, Snapshot, schedule};

fn amounts(list: &[(&str, &str)]) -> BTreeMap<String, Quantity> {
    list.iter().map(|(name, amount)| ((*name).to_owned(), Quantity((*amount).to_owned()))).collect()
}

/// A node with 32 cores, 64 GiB and room for 1,000 pods.
pub fn node(name: &str) -> Node {
    let allocatable = amounts(&[("cpu", "32"), ("memory", "64Gi"), ("pods", "1000")]);
    Node {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
        status: Some(NodeStatus { allocatable: Some(allocatable), ..NodeStatus::default() }),
        ..Node::default()
    }
}

/// A pod that asks for 10 m CPU and 16 MiB.
pub fn pod(name: &str) -> Pod {
    let requests = Some(amounts(&[("cpu", "10m"), ("memory", "16Mi")]));
    let container = Container {
        name: "c".to_owned(),
        image: Some("hello".to_owned()),
        resources: Some(ResourceRequirements { requests, ..ResourceRequirements::default() }),
        ..Container::default()
    };
    Pod {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some("default".to_owned()),
            uid: Some(name.to_owned()),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec { containers: vec![container], ..PodSpec::default() }),
        status: None,
    }
}

/// An empty cluster of so many nodes.
pub fn cluster(nodes: usize) -> Snapshot {
    let mut snapshot = Snapshot::new();
    for i in 0..nodes {
        snapshot.upsert_node(&node(&format!("node-{i}")));
    }
    snapshot
}

/// Schedules and assumes so many pods, each read anew as a driver does; returns how many found a node.
pub fn fill(snapshot: &mut Snapshot, profile: &Profile, pods: usize) -> usize {
    let mut bound = 0;
    for i in 0..pods {
        let info = PodInfo::of(&pod(&format!("pod-{i}")));
        if let Decision::Bind { node, .. } = schedule(&info, snapshot, profile, i as u64) {
            snapshot.assume(&info, &node);
            bound += 1;
        }
    }
    bound
}
