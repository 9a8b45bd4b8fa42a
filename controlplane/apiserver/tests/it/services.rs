//! What Services and Nodes are given, and what every cluster has.

use serde_json::json;

use crate::harness::Cluster;

#[tokio::test(flavor = "multi_thread")]
async fn addresses_ports_and_networks() {
    let cluster = Cluster::start().await;
    let path = "/api/v1/namespaces/default/services";
    let kubernetes = cluster.get(&format!("{path}/kubernetes")).await.ok(200);
    assert_eq!(kubernetes["spec"]["clusterIP"], "10.96.0.1");
    let endpoints = cluster.get("/api/v1/namespaces/default/endpoints/kubernetes").await.ok(200);
    assert_eq!(endpoints["subsets"][0]["ports"][0]["port"], cluster.server.addr().port());
    let service = json!({"metadata": {"name": "s"}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}});
    let made = cluster.post(path, service).await.ok(201);
    assert!(made["spec"]["clusterIP"].as_str().unwrap().starts_with("10.96."));
    let port = made["spec"]["ports"][0]["nodePort"].as_i64().unwrap();
    assert!((30_000..32_768).contains(&port));
    let same_port = json!({"metadata": {"name": "t"}, "spec": {"type": "NodePort",
        "ports": [{"port": 80, "nodePort": port}]}});
    assert!(cluster.post(path, same_port.clone()).await.refused(422).contains("provided port is already allocated"));
    cluster.delete(&format!("{path}/s")).await.ok(200);
    cluster.post(path, same_port).await.ok(201);
    for (name, cidr) in [("a", "10.128.0.0/18"), ("b", "10.128.64.0/18")] {
        let node = cluster.post("/api/v1/nodes", json!({"metadata": {"name": name}})).await.ok(201);
        assert_eq!(node["spec"]["podCIDR"], cidr);
    }
    cluster.stop().await;
}

/// As Kubernetes' conformance test of a Service's status has it, in Go's words.
#[tokio::test(flavor = "multi_thread")]
async fn a_condition_without_a_time() {
    let cluster = Cluster::start().await;
    let path = "/api/v1/namespaces/default/services";
    let mut service =
        cluster.post(path, json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}})).await.ok(201);
    service["status"]["conditions"] = json!([{"type": "StatusUpdate", "status": "True", "reason": "E2E",
        "message": "Set from e2e test", "lastTransitionTime": null}]);
    let put = cluster.put(&format!("{path}/s/status"), service).await.ok(200);
    assert_eq!(put["status"]["conditions"][0]["lastTransitionTime"], "0001-01-01T00:00:00Z");
    let patch = json!({"status": {"conditions": [{"type": "StatusPatched", "status": "True", "reason": "E2E"}]}});
    let patched = cluster.patch(&format!("{path}/s/status"), "strategic-merge-patch", patch).await.ok(200);
    let types: Vec<_> = patched["status"]["conditions"].as_array().unwrap().iter().map(|c| &c["type"]).collect();
    assert_eq!(types, ["StatusPatched", "StatusUpdate"]);
    cluster.stop().await;
}
