//! Quotas: nothing beyond them, however many ask at once.

use serde_json::{Value, json};

use crate::harness::Cluster;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

async fn limit(cluster: &Cluster, name: &str, spec: Value) {
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": name}, "spec": spec});
    cluster.post("/api/v1/namespaces/default/resourcequotas", quota).await.ok(201);
}

fn pod(name: &str, resources: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "image": "registry.example/c:1", "resources": resources}]},
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn creations_side_by_side_never_exceed() {
    let cluster = Cluster::start().await;
    // The CA's certificate is made in the background and counts.
    while cluster.get(&format!("{MAPS}/kube-root-ca.crt")).await.status != 200 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    limit(&cluster, "maps", json!({"hard": {"configmaps": "11", "count/secrets": "1"}})).await;
    let create = |i: usize| {
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("m{i}")}});
        cluster.post(MAPS, map)
    };
    let answers = futures::future::join_all((0..50).map(create)).await;
    let made = answers.iter().filter(|a| a.status == 201).count();
    assert_eq!(made, 10);
    let refused = answers.iter().find(|a| a.status == 403).unwrap().json();
    let message = refused["message"].as_str().unwrap();
    let why = "exceeded quota: maps, requested: configmaps=1, used: configmaps=11, limited: configmaps=11";
    assert!(message.ends_with(why), "{message}");
    let first = answers.iter().position(|a| a.status == 201).unwrap();
    cluster.delete(&format!("{MAPS}/m{first}")).await.ok(200);
    cluster.post(MAPS, json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "again"}})).await.ok(201);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_must_say_what_they_need() {
    let cluster = Cluster::start().await;
    limit(&cluster, "cpu", json!({"hard": {"requests.cpu": "1", "limits.memory": "1Gi"}})).await;
    let message = cluster.post(PODS, pod("a", json!({}))).await.refused(403);
    assert!(message.contains("failed quota: cpu: must specify limits.memory for: c; requests.cpu for: c"), "{message}");
    let resources = |cpu: &str| json!({"requests": {"cpu": cpu}, "limits": {"memory": "1Mi"}});
    cluster.post(PODS, pod("a", resources("600m"))).await.ok(201);
    let message = cluster.post(PODS, pod("b", resources("600m"))).await.refused(403);
    let why = "exceeded quota: cpu, requested: requests.cpu=600m, used: requests.cpu=600m, limited: requests.cpu=1";
    assert!(message.ends_with(why), "{message}");
    cluster.post(&format!("{PODS}?dryRun=All"), pod("c", resources("400m"))).await.ok(201);
    cluster.post(PODS, pod("c", resources("400m"))).await.ok(201);
    cluster.stop().await;
}
