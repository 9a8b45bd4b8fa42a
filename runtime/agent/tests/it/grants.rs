//! Which interfaces of the host a pod may use: what it asks for, within what its namespace and the node allow.

use podium_agent::LogOptions;
use serde_json::{Value, json};

use crate::cluster::Cluster;

async fn namespace(cluster: &Cluster, name: &str, annotations: Value) {
    let metadata = json!({ "name": name, "annotations": annotations });
    cluster.create("Namespace", json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": metadata })).await;
}

async fn pod(cluster: &Cluster, namespace: &str, name: &str, annotations: Value, container: Value) {
    let metadata = json!({ "name": name, "namespace": namespace, "annotations": annotations });
    let spec = json!({ "nodeName": "n1", "restartPolicy": "Never", "containers": [container] });
    cluster.create("Pod", json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec })).await;
}

/// Looks a name up over `wasi:sockets`, and prints what it heard.
fn lookup() -> Value {
    json!({ "name": "app", "image": "file://sockets-p2.wasm", "args": ["lookup", "localhost"] })
}

/// Why its container waits, once it does for this reason.
async fn waiting(cluster: &Cluster, namespace: &str, name: &str, reason: &str) -> String {
    let state = |pod: &Value| pod["status"]["containerStatuses"][0]["state"]["waiting"].clone();
    let wanted = |pod: Option<&Value>| pod.is_some_and(|pod| state(pod)["reason"] == reason);
    let pod = cluster.until("Pod", namespace, name, wanted).await.unwrap();
    state(&pod)["message"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_granted_refuses_while_the_guest_runs() {
    let cluster = Cluster::start().await;
    cluster.guest("sockets-p2.wasm");
    let allowed = |groups: &str| json!({ "podium.dev/allowed-interfaces": groups });
    pod(&cluster, "default", "open", json!({}), lookup()).await;
    pod(&cluster, "default", "closed", allowed("wasi:http"), lookup()).await;
    for name in ["open", "closed"] {
        cluster.until_pod(name, |pod| pod["status"]["phase"] == "Succeeded").await;
    }
    let log = cluster.logs("open", LogOptions::default()).await.unwrap();
    assert!(log.contains("127, 0, 0, 1"), "{log}");
    let log = cluster.logs("closed", LogOptions::default()).await.unwrap();
    let why = "podium: not allowed: wasi:sockets is not granted: annotation podium.dev/allowed-interfaces of the pod leaves it \
        out\n";
    assert!(log.contains(why) && log.to_lowercase().contains("access-denied"), "{log}");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_imports_what_is_refused_is_not_started() {
    let cluster = Cluster::start_with(|config| {
        config.interfaces.refused = "wasi:keyvalue".parse().unwrap();
    })
    .await;
    cluster.guest("sockets-p2.wasm");
    cluster.guest("interfaces-p2.wasm");
    namespace(&cluster, "strict", json!({ "podium.dev/refused-interfaces": "wasi:sockets/ip-name-lookup" })).await;
    pod(&cluster, "strict", "lookup", json!({}), lookup()).await;
    let refused = json!({ "podium.dev/refused-interfaces": "wasi:sockets@0.2" });
    pod(&cluster, "default", "own", refused, lookup()).await;
    let store = json!({ "name": "app", "image": "file://interfaces-p2.wasm", "args": ["get", "default", "a"] });
    pod(&cluster, "default", "store", json!({}), store).await;
    for (namespace, name, image, interface, by) in [
        (
            "strict",
            "lookup",
            "file://sockets-p2.wasm",
            "wasi:sockets/ip-name-lookup@0.2.",
            ": annotation podium.dev/refused-interfaces of namespace strict refuses wasi:sockets/ip-name-lookup",
        ),
        (
            "default",
            "own",
            "file://sockets-p2.wasm",
            "wasi:sockets/",
            ": annotation podium.dev/refused-interfaces refuses wasi:sockets@0.2",
        ),
        (
            "default",
            "store",
            "file://interfaces-p2.wasm",
            "wasi:keyvalue/",
            ": the node (--refused-interfaces) refuses wasi:keyvalue",
        ),
    ] {
        let message = waiting(&cluster, namespace, name, "CreateContainerError").await;
        assert!(message.starts_with(&format!("the image {image} (sha256:")), "{message}");
        assert!(message.contains(&format!(") imports {interface}")) && message.ends_with(by), "{message}");
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_cannot_widen_what_its_namespace_allows() {
    let cluster = Cluster::start_with(|config| {
        config.interfaces.max_allowed = Some("wasi:http wasi:sockets".parse().unwrap());
    })
    .await;
    cluster.guest("sockets-p2.wasm");
    namespace(&cluster, "web", json!({ "podium.dev/max-allowed-interfaces": "wasi:http wasi:keyvalue" })).await;
    let allowed = |groups: &str| json!({ "podium.dev/allowed-interfaces": groups });
    pod(&cluster, "web", "asks", allowed("wasi:sockets"), lookup()).await;
    let message = waiting(&cluster, "web", "asks", "CreateContainerConfigError").await;
    let wanted = "annotation podium.dev/allowed-interfaces: wasi:sockets is not allowed by annotation \
        podium.dev/max-allowed-interfaces of namespace web: leave it out";
    assert_eq!(message, wanted);
    // The namespace allows it, the node does not.
    pod(&cluster, "web", "store", allowed("wasi:keyvalue"), lookup()).await;
    let message = waiting(&cluster, "web", "store", "CreateContainerConfigError").await;
    assert!(message.contains("wasi:keyvalue is not allowed by the node (--max-allowed-interfaces)"), "{message}");
    // `*` is all that there is.
    pod(&cluster, "web", "all", allowed("*"), lookup()).await;
    let done = |pod: Option<&Value>| pod.is_some_and(|pod| pod["status"]["phase"] == "Succeeded");
    cluster.until("Pod", "web", "all", done).await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_annotation_that_cannot_be_read_grants_nothing_and_is_said() {
    let cluster = Cluster::start().await;
    cluster.guest("sockets-p2.wasm");
    for (place, annotation, text, wanted) in [
        (
            "pod",
            "allowed-interfaces",
            "wasi:sokets",
            "annotation podium.dev/allowed-interfaces: \"wasi:sokets\" is no group",
        ),
        (
            "pod",
            "refused-interfaces",
            "sockets",
            "annotation podium.dev/refused-interfaces: \"sockets\" names no interface",
        ),
        (
            "broken-max",
            "max-allowed-interfaces",
            "wasi:http/types",
            "annotation podium.dev/max-allowed-interfaces of namespace broken-max: \"wasi:http/types\" is a part of wasi:http",
        ),
        (
            "broken-default",
            "default-allowed-interfaces",
            "http",
            "annotation podium.dev/default-allowed-interfaces of namespace broken-default: \"http\" is no group",
        ),
    ] {
        let annotations = json!({ format!("podium.dev/{annotation}"): text });
        let (of_pod, of_namespace) = if place == "pod" { (annotations, None) } else { (json!({}), Some(annotations)) };
        let home = if of_namespace.is_some() { place } else { "default" };
        if let Some(annotations) = of_namespace {
            namespace(&cluster, home, annotations).await;
        }
        pod(&cluster, home, annotation, of_pod, lookup()).await;
        let message = waiting(&cluster, home, annotation, "CreateContainerConfigError").await;
        assert!(message.starts_with(wanted), "{message}");
    }
    cluster.shutdown().await;
}
