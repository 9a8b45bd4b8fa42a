//! Pods: binding, grace, logs; and the API in this process.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions;
use podium_api::{ObjectKey, k8s_openapi::api::core::v1::Pod, kind_of};
use podium_apiserver::Identity;
use podium_client::{ApiExt as _, Delta, MirrorScope, Patch};
use serde_json::{Value, json};

use crate::{harness::Cluster, streaming::Node};

const PODS: &str = "/api/v1/namespaces/default/pods";

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "x"}]}})
}

fn binding(node: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Binding", "metadata": {}, "target": {"kind": "Node", "name": node}})
}

#[tokio::test(flavor = "multi_thread")]
async fn bound_once_logged_and_gone_with_grace() {
    let cluster = Cluster::start().await;
    cluster.post(PODS, pod("p")).await.ok(201);
    let log = format!("{PODS}/p/log?tailLines=5");
    let nothing = cluster.get(&log).await;
    assert_eq!((nothing.status.as_u16(), nothing.text.as_str()), (204, ""));
    cluster.post(&format!("{PODS}/p/binding"), binding("")).await.refused(422);
    cluster.post(&format!("{PODS}/p/binding"), binding("n1")).await.ok(201);
    let message = cluster.post(&format!("{PODS}/p/binding"), binding("n2")).await.refused(409);
    assert!(message.ends_with("pod p is already assigned to node \"n1\""), "{message}");
    let bound = cluster.get(&format!("{PODS}/p")).await.ok(200);
    assert_eq!(bound["spec"]["nodeName"], "n1");
    // Being bound is no new generation.
    assert_eq!(bound["metadata"]["generation"], 1);
    assert_eq!(bound["status"]["conditions"][0]["type"], "PodScheduled");

    cluster.server.connect_node(Arc::new(Node::default()));
    assert_eq!(cluster.get(&log).await.text, "p c Some(5)\n");

    let marked = cluster.delete(&format!("{PODS}/p")).await.ok(200);
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
    let again = cluster.delete(&format!("{PODS}/p")).await.ok(200);
    assert_eq!(again["metadata"]["resourceVersion"], marked["metadata"]["resourceVersion"]);
    cluster.delete(&format!("{PODS}/p?gracePeriodSeconds=0")).await.ok(200);
    cluster.get(&format!("{PODS}/p")).await.refused(404);

    cluster.post(PODS, pod("q")).await.ok(201);
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "q"}});
    cluster.post(&format!("{PODS}/q/eviction"), eviction).await.ok(201);
    cluster.get(&format!("{PODS}/q")).await.refused(404);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_in_process() {
    let cluster = Cluster::start().await;
    let api = cluster.server.api(Identity::component("kube-scheduler"));
    let kind = kind_of::<Pod>();
    let on_node = MirrorScope { namespace: None, fields: Some("spec.nodeName=n1".to_owned()) };
    let mirror = api.mirror(&kind, on_node).await.unwrap();
    let mut changes = mirror.subscribe();
    let mut new: Pod = serde_json::from_value({
        let mut pod = pod("p");
        pod["apiVersion"] = "v1".into();
        pod["kind"] = "Pod".into();
        pod
    })
    .unwrap();
    new.metadata.namespace = Some("default".to_owned());
    let made = api.create(Box::new(new)).await.unwrap();
    let key = ObjectKey::new("default", "p");
    assert!(mirror.get(&key).is_none() && mirror.revision() >= made.revision());
    assert!(api.bind(&key, "other", "n1").await.unwrap_err().is_conflict());
    api.bind(&key, made.uid(), "n1").await.unwrap();
    assert!(mirror.get(&key).is_some());
    assert!(matches!(changes.recv().await, Some(Delta::Put { old: None, .. })));
    let patch = Patch::Merge(json!({"status": {"phase": "Running"}}));
    api.patch(&kind, &key, patch, Some("status")).await.unwrap();
    let read = api.get_typed::<Pod>(&key).await.unwrap();
    assert_eq!(read.status.as_ref().unwrap().phase.as_deref(), Some("Running"));
    assert!(Arc::ptr_eq(&read, &api.get_typed::<Pod>(&key).await.unwrap()));
    assert!(matches!(changes.recv().await, Some(Delta::Put { old: Some(_), .. })));
    assert!(api.update(made.boxed_clone(), None).await.unwrap_err().is_conflict());
    let now = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
    api.delete(&kind, &key, now).await.unwrap();
    assert!(matches!(changes.recv().await, Some(Delta::Delete { .. })));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn evictions_ask_the_budget() {
    let cluster = Cluster::start().await;
    for name in ["a", "b"] {
        let mut pod = pod(name);
        pod["metadata"]["labels"] = json!({"app": "web"});
        cluster.post(PODS, pod).await.ok(201);
        let running = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
        cluster.patch(&format!("{PODS}/{name}/status"), "strategic-merge-patch", running).await.ok(200);
    }
    let kept = json!({"metadata": {"finalizers": ["a.io/b"]}});
    cluster.patch(&format!("{PODS}/a"), "merge-patch", kept).await.ok(200);
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let spec = json!({"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}});
    cluster.post(budgets, json!({"metadata": {"name": "b"}, "spec": spec})).await.ok(201);
    let evict = async |name: &str, query: &str| {
        let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}});
        cluster.post(&format!("{PODS}/{name}/eviction{query}"), eviction).await
    };
    let refused = "Cannot evict pod as it would violate the pod's disruption budget.";
    let cause = |answer: &crate::harness::Answer| answer.json()["details"]["causes"][0].clone();

    let answer = evict("a", "").await;
    assert_eq!(answer.refused(429), refused);
    assert_eq!(answer.headers["retry-after"], "10");
    let message = "The disruption budget b is still being processed by the server.";
    assert_eq!(cause(&answer), json!({"reason": "DisruptionBudget", "message": message}));

    let healthy = json!({"status": {"observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 2,
        "desiredHealthy": 1, "expectedPods": 2}});
    cluster.patch(&format!("{budgets}/b/status"), "merge-patch", healthy).await.ok(200);
    let other = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "b"}});
    cluster.post(&format!("{PODS}/a/eviction"), other).await.refused(400);
    evict("a", "?dryRun=All").await.ok(201);
    assert_eq!(cluster.get(&format!("{budgets}/b")).await.ok(200)["status"]["disruptionsAllowed"], 1);
    evict("a", "").await.ok(201);
    let status = cluster.get(&format!("{budgets}/b")).await.ok(200)["status"].clone();
    assert_eq!((&status["disruptionsAllowed"], &status["conditions"][0]["status"]), (&json!(0), &json!("False")));
    assert!(status["disruptedPods"]["a"].is_string(), "{status}");
    let going = cluster.get(&format!("{PODS}/a")).await.ok(200);
    let why =
        going["status"]["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "DisruptionTarget").unwrap();
    let said = [&why["status"], &why["reason"], &why["message"]];
    assert_eq!(said, ["True", "EvictionByEvictionAPI", "Eviction API: evicting"]);

    let answer = evict("b", "").await;
    assert_eq!(answer.refused(429), refused);
    assert_eq!(cause(&answer)["message"], "The disruption budget b needs 1 healthy pods and has 2 currently");
    // A pod that is not ready does not count.
    let unready = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
    cluster.patch(&format!("{PODS}/b/status"), "strategic-merge-patch", unready).await.ok(200);
    evict("b", "").await.ok(201);
    evict("nobody", "").await.refused(404);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_get_back_what_they_are_given() {
    let cluster = Cluster::start().await;
    let path = "/api/v1/namespaces/default/configmaps/kube-root-ca.crt";
    let certificate = |found: &Value| found["data"]["ca.crt"].as_str().is_some_and(|c| c.starts_with("-----BEGIN"));
    let there = || async {
        for _ in 0..500 {
            let answer = cluster.get(path).await;
            if answer.status == 200 && certificate(&answer.json()) {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("the certificate is not there");
    };
    there().await;
    cluster.delete(path).await.ok(200);
    there().await;
    cluster.put(path, json!({"metadata": {"name": "kube-root-ca.crt"}, "data": {"ca.crt": ""}})).await.ok(200);
    there().await;
    cluster.get("/apis/networking.k8s.io/v1/servicecidrs/kubernetes").await.ok(200);
}
