//! The agent with real guests in a real sandbox and network, against the reference model of the API.

#![allow(clippy::unwrap_used, clippy::panic)]

mod cluster;
mod debugging;
mod endpoints;
mod grants;
mod hooks;
mod leaving;
mod lives;
mod memory;
mod policies;
mod shell;
mod sockets;
mod statics;
mod streams;
mod volumes;

use std::time::Duration;

use cluster::Cluster;
use podium_api::ObjectKey;
use podium_client::{Api as _, Patch};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn the_node_registers_and_beats() {
    let cluster = Cluster::start().await;
    let node = cluster.json("Node", "", "n1").await.unwrap();
    assert_eq!(node["metadata"]["labels"]["kubernetes.io/arch"], "wasm32");
    assert_eq!(node["spec"]["podCIDR"], "10.244.0.0/16");
    assert_eq!(node["status"]["capacity"]["pods"], "10000");
    // Of the machine's own memory, less what is kept for others.
    let kib = |list: &str| {
        node["status"][list]["memory"].as_str().unwrap().strip_suffix("Ki").unwrap().parse::<u64>().unwrap()
    };
    let machine = std::fs::read_to_string("/proc/meminfo").unwrap();
    let machine: u64 = machine.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(0 < kib("allocatable") && kib("allocatable") < kib("capacity") && kib("capacity") <= machine, "{node:#}");
    let conditions = node["status"]["conditions"].as_array().unwrap();
    assert!(conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "True"), "{conditions:?}");
    let lease = cluster.until("Lease", "kube-node-lease", "n1", |lease| lease.is_some()).await.unwrap();
    assert_eq!(lease["spec"]["leaseDurationSeconds"], 40);
    cluster.shutdown().await;
}

/// As Kubernetes' own tests do it: they put something into the capacity alone, and expect the node's agent to follow.
#[tokio::test(flavor = "multi_thread")]
async fn what_others_offer_on_the_node_can_be_had() {
    let cluster = Cluster::start().await;
    for amount in [json!("3"), json!("5"), json!(null)] {
        let patch = Patch::Strategic(json!({ "status": { "capacity": { "example.com/foo": amount } } }));
        let (node, key) = (cluster::kind("Node"), ObjectKey::cluster("n1"));
        cluster.api.patch(&node, &key, patch, Some("status")).await.unwrap();
        let allocatable = |node: &Value| node["status"]["allocatable"]["example.com/foo"].clone();
        let said = cluster.until("Node", "", "n1", |n| n.is_some_and(|n| allocatable(n) == amount)).await.unwrap();
        assert_eq!(said["status"]["capacity"]["example.com/foo"], amount);
        assert_eq!(said["status"]["allocatable"]["pods"], "10000");
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_pods_become_ready_soon() {
    let cluster = Cluster::start().await;
    cluster.pod("first", json!({ "containers": [cluster::hello()] })).await;
    cluster.until_ready("first").await;
    let since = std::time::Instant::now();
    for i in 0..1000 {
        cluster.pod(&format!("web-{i}"), json!({ "containers": [cluster::hello()] })).await;
    }
    for i in 0..1000 {
        cluster.until_ready(&format!("web-{i}")).await;
    }
    eprintln!("1,000 pods ready after {:?}", since.elapsed());
    // Seconds, or minutes on a slow machine; far more if each cost as much as there are others.
    assert!(since.elapsed() < Duration::from_secs(120), "{:?}", since.elapsed());
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_has_changed_is_another_image() {
    let cluster = Cluster::start().await;
    let mut images = Vec::new();
    for (pod, memory) in [("a", ""), ("b", ""), ("c", "(memory 1)")] {
        cluster.image("some.wasm", &format!("(module {memory} (func (export \"_start\")))"));
        let container = json!({ "name": "app", "image": "file://some.wasm", "imagePullPolicy": "IfNotPresent" });
        cluster.pod(pod, json!({ "restartPolicy": "Never", "containers": [container] })).await;
        let ended = cluster.until_pod(pod, |pod| pod["status"]["phase"] == "Succeeded").await;
        images.push(ended["status"]["containerStatuses"][0]["imageID"].clone());
    }
    assert!(images[0] == images[1] && images[1] != images[2], "{images:?}");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ordinary_server_in_c_is_a_pod() {
    let cluster = Cluster::start().await;
    let wasm = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/c-hello/c-hello.wasm");
    std::fs::copy(wasm, cluster.dir().join("images/c-hello.wasm")).unwrap();
    let probe = json!({ "httpGet": { "path": "/healthz", "port": 8080 }, "periodSeconds": 1 });
    let container = json!({ "name": "app", "image": "file://c-hello.wasm", "ports": [{ "containerPort": 8080 }],
        "readinessProbe": probe, "resources": { "limits": { "memory": "16Mi" } } });
    cluster.pod("c", json!({ "containers": [container] })).await;
    cluster.until_ready("c").await;
    cluster.shutdown().await;
}
