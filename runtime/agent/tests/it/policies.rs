//! Policies as the API has them, felt by guests; what Services tell of themselves.

use podium_agent::LogOptions;
use podium_api::ObjectKey;
use podium_client::{Api as _, Patch};
use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, hello, kind},
    sockets::fetch,
};

async fn labelled(cluster: &Cluster, name: &str, container: Value) -> String {
    let metadata = json!({ "name": name, "namespace": "default", "labels": { "app": name } });
    let spec = json!({ "nodeName": "n1", "containers": [container] });
    cluster.create("Pod", json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec })).await;
    let pod = cluster.until_ready(name).await;
    pod["status"]["podIP"].as_str().unwrap().to_owned()
}

async fn policy(cluster: &Cluster, name: &str, spec: Value) {
    let meta = json!({ "name": name, "namespace": "default" });
    let object =
        json!({ "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta, "spec": spec });
    cluster.create("NetworkPolicy", object).await;
}

/// Asks until the answer is as wanted: the agent hears of changes when it does.
async fn until_answers(cluster: &Cluster, ip: &str, url: &str, wanted: &str) -> String {
    let ask = async {
        loop {
            let answer = fetch(cluster, ip, url).await;
            if answer.contains(wanted) {
                return answer;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(crate::PATIENCE, ask).await.unwrap_or_else(|_| panic!("{url} never answers {wanted}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn network_policies_hold_for_guests() {
    let mut cluster = Cluster::start().await;
    cluster.guest("http-p2.wasm");
    let to_hello = json!({ "podSelector": { "matchLabels": { "app": "hello" } }, "ingress": [
        { "from": [{ "podSelector": { "matchLabels": { "tier": "front" } } }], "ports": [{ "port": 8080 }] }] });
    policy(&cluster, "hello", to_hello).await;
    // Policies that are there before the agent are in force before the first pod.
    cluster.stop_agent().await;
    cluster.start_agent().await;
    let web = labelled(&cluster, "web", json!({ "name": "web", "image": "file://http-p2.wasm" })).await;
    let hello = labelled(&cluster, "hello", hello()).await;
    let url = format!("{hello}:8080/");
    let answer = fetch(&cluster, &web, &url).await;
    assert!(answer.contains("HttpRequestDenied"), "{answer}");
    assert!(cluster.get(&hello).await.contains("hello"), "the node reaches its pods");
    let patch = Patch::Merge(json!({ "metadata": { "labels": { "tier": "front" } } }));
    cluster.api.patch(&kind("Pod"), &ObjectKey::new("default", "web"), patch, None).await.unwrap();
    let answer = until_answers(&cluster, &web, &url, "200").await;
    assert!(!answer.contains("Denied"), "{answer}");
    policy(&cluster, "web", json!({ "podSelector": { "matchLabels": { "app": "web" } }, "policyTypes": ["Egress"] }))
        .await;
    until_answers(&cluster, &web, &url, "HttpRequestDenied").await;
    let log = cluster.logs("web", LogOptions::default()).await.unwrap();
    let expected = format!(
        "podium: not allowed: {hello}:8080 by TCP: a NetworkPolicy there does not let this one in\n\
         podium: not allowed: {hello}:8080 by TCP: NetworkPolicy web does not let this pod go there\n"
    );
    assert_eq!(log, expected);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn services_tell_of_what_is_wrong_with_them() {
    let cluster = Cluster::start().await;
    cluster.guest("http-p2.wasm");
    let metadata = json!({ "name": "lonely", "namespace": "default", "annotations": { "podium.dev/retries": "many" } });
    let spec = json!({ "selector": { "app": "nobody" }, "clusterIP": "10.96.0.77", "ports": [{ "port": 80 }] });
    cluster
        .create("Service", json!({ "apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec }))
        .await;
    let words = "annotation podium.dev/retries: \"many\" is not a number from 0 to 10; the default holds";
    cluster.until_event("lonely", "InvalidAnnotation", words).await;
    let web = labelled(&cluster, "web", json!({ "name": "web", "image": "file://http-p2.wasm" })).await;
    let answer = fetch(&cluster, &web, "lonely/").await;
    assert!(answer.contains("ConnectionRefused"), "{answer}");
    let words = "port 80 was called, and there is nobody behind it: no pod with the labels app=nobody is ready";
    cluster.until_event("lonely", "NoEndpoints", words).await;
    cluster.shutdown().await;
}
