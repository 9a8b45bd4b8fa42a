//! Decisions over small clusters as tables, and the indices beside a naive model.

mod decisions;
mod hints;
mod model;
mod others;
mod preemption;
mod scoring;
mod storage;

use expect_test::Expect;
use k8s_openapi::api::core::v1::{Node, Pod};
use serde_json::{Value, json};

use crate::{Changes, Decision, PodInfo, Profile, Refusal, Snapshot, schedule};

/// Two cores, 4 GiB, ten pods.
fn node(name: &str, more: &Value) -> Node {
    let mut node = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {"allocatable": {"cpu": "2", "memory": "4Gi", "pods": "10"}},
    });
    merge(&mut node, more);
    serde_json::from_value(node).unwrap()
}

/// Half a core, 1 GiB.
fn pod(name: &str, more: &Value) -> Pod {
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "d", "uid": name},
        "spec": {"containers": [{"name": "c", "image": "hello", "resources": {"requests": {"cpu": "500m", "memory": "1Gi"}}}]},
    });
    merge(&mut pod, more);
    serde_json::from_value(pod).unwrap()
}

fn merge(into: &mut Value, more: &Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            more.iter().for_each(|(k, v)| merge(into.entry(k.clone()).or_insert(Value::Null), v));
        }
        (into, more) => *into = more.clone(),
    }
}

fn both(mut one: Value, other: &Value) -> Value {
    merge(&mut one, other);
    one
}

fn cluster(nodes: &[(&str, Value)]) -> Snapshot {
    let mut snapshot = Snapshot::new();
    for (name, more) in nodes {
        let happened = snapshot.upsert_node(&node(name, more));
        assert_eq!(happened.changes, Changes::NODE_ADDED | Changes::DOMAINS);
    }
    snapshot
}

/// Puts pods on nodes: name, node, and what is special.
fn place(snapshot: &mut Snapshot, pods: &[(&str, &str, Value)]) {
    for (name, node, more) in pods {
        snapshot.assume(&PodInfo::of(&pod(name, more)), node);
    }
}

fn decision(snapshot: &mut Snapshot, more: &Value) -> Decision {
    schedule(&PodInfo::of(&pod("p", more)), snapshot, &Profile::default(), 1)
}

fn refusal(snapshot: &mut Snapshot, more: &Value) -> Refusal {
    match decision(snapshot, more) {
        Decision::Unschedulable(refusal) => refusal,
        Decision::Bind { node, .. } => panic!("it fits on {node}"),
    }
}

fn decide(snapshot: &mut Snapshot, more: &Value) -> String {
    match decision(snapshot, more) {
        Decision::Bind { node, .. } => node.to_string(),
        Decision::Unschedulable(refusal) => match refusal.preemption {
            Some(preemption) => {
                let victims: Vec<_> = preemption.victims.iter().map(|(key, _)| key.name.as_str()).collect();
                format!("{} nominated: {}; ends {}", refusal.message, preemption.node, victims.join(", "))
            }
            None => refusal.message,
        },
    }
}

#[expect(clippy::needless_pass_by_value, reason = "reads better in tables")]
fn check(nodes: &[(&str, Value)], pod: Value, decision: Expect) {
    decision.assert_eq(&decide(&mut cluster(nodes), &pod));
}

fn requests(cpu: &str, memory: &str) -> Value {
    json!({"spec": {"containers": [{"name": "c", "image": "hello", "resources": {"requests": {"cpu": cpu, "memory": memory}}}]}})
}

fn labels(pairs: &[(&str, &str)]) -> Value {
    let labels: serde_json::Map<_, _> = pairs.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect();
    json!({"metadata": {"labels": labels}})
}

fn zone(name: &str) -> Value {
    labels(&[("zone", name)])
}
