//! Watches on the wire.

use http::Request;
use http_body_util::BodyExt as _;
use podium_store::Store as _;
use serde_json::{Value, json};

use crate::harness::Cluster;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

pub(crate) struct Watch {
    body: kube::client::Body,
    text: String,
}

impl Watch {
    pub(crate) async fn open(cluster: &Cluster, path: &str) -> Self {
        Self::open_as(cluster, path, "application/json").await
    }

    async fn open_as(cluster: &Cluster, path: &str, accept: &str) -> Self {
        let request = Request::get(path).header("accept", accept).body(Vec::new().into()).unwrap();
        let response = cluster.client.send(request).await.unwrap();
        assert_eq!(response.status(), 200);
        Self { body: response.into_body(), text: String::new() }
    }

    /// The next event; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some((line, rest)) = self.text.split_once('\n') {
                let event = serde_json::from_str(line).unwrap();
                self.text = rest.to_owned();
                return Some(event);
            }
            let frame = self.body.frame().await?.unwrap();
            self.text.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
        }
    }

    pub(crate) async fn expect(&mut self, kind: &str, name: &str) -> Value {
        let event = self.next().await.expect("the watch has ended");
        let got = (event["type"].as_str().unwrap(), event["object"]["metadata"]["name"].as_str().unwrap_or_default());
        assert_eq!(got, (kind, name), "{event}");
        event["object"].clone()
    }
}

fn map(name: &str, label: &str) -> Value {
    json!({"metadata": {"name": name, "labels": {"l": label}}})
}

#[tokio::test(flavor = "multi_thread")]
async fn events_from_a_revision_and_through_a_selector() {
    let cluster = Cluster::start().await;
    let first = cluster.post(MAPS, map("a", "x")).await.ok(201);
    let from = first["metadata"]["resourceVersion"].as_str().unwrap();
    cluster.post(MAPS, map("b", "x")).await.ok(201);
    let mut watch = Watch::open(&cluster, &format!("{MAPS}?watch=1&resourceVersion={from}&labelSelector=l%3Dx")).await;
    watch.expect("ADDED", "b").await;
    cluster.patch(&format!("{MAPS}/b"), "merge-patch", json!({"data": {"k": "v"}})).await.ok(200);
    assert_eq!(watch.expect("MODIFIED", "b").await["data"]["k"], "v");
    cluster.post(MAPS, map("c", "y")).await.ok(201);
    let relabel = |label: &str| json!({"metadata": {"labels": {"l": label}}});
    cluster.patch(&format!("{MAPS}/b"), "merge-patch", relabel("y")).await.ok(200);
    watch.expect("DELETED", "b").await;
    cluster.patch(&format!("{MAPS}/c"), "merge-patch", relabel("x")).await.ok(200);
    watch.expect("ADDED", "c").await;
    let before = cluster.get(&format!("{MAPS}/c")).await.ok(200);
    cluster.delete(&format!("{MAPS}/c")).await.ok(200);
    let gone = watch.expect("DELETED", "c").await;
    let revision = |v: &Value| v["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
    assert!(revision(&gone) > revision(&before));
    cluster.stop().await;
    assert_eq!(watch.next().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn initial_state_bookmarks_and_tables() {
    let cluster = Cluster::start().await;
    cluster.post(MAPS, map("a", "x")).await.ok(201);
    let only = "labelSelector=l";
    let url = format!("{MAPS}?watch=1&{only}&timeoutSeconds=1&allowWatchBookmarks=true");
    let mut watch = Watch::open(&cluster, &url).await;
    watch.expect("ADDED", "a").await;
    watch.expect("BOOKMARK", "").await;
    assert_eq!(watch.next().await, None);
    let url = format!("{url}&sendInitialEvents=true&resourceVersionMatch=NotOlderThan");
    let mut watch = Watch::open(&cluster, &url).await;
    watch.expect("ADDED", "a").await;
    let end = watch.expect("BOOKMARK", "").await;
    assert_eq!(end["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    let table = "application/json;as=Table;g=meta.k8s.io;v=v1";
    let mut watch = Watch::open_as(&cluster, &format!("{MAPS}?watch=1&{only}"), table).await;
    let event = watch.next().await.unwrap();
    assert_eq!(event["object"]["rows"][0]["cells"][0], "a");
    assert_eq!(event["object"]["columnDefinitions"][0]["name"], "Name");
    cluster.get(&format!("{MAPS}?watch=1&resourceVersion=x")).await.refused(400);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_resumes_from_before_the_server_started() {
    let store = std::sync::Arc::new(podium_store::MemoryStore::new());
    let cluster = Cluster::on(store.clone(), tempfile::tempdir().unwrap()).await;
    let first = cluster.post(MAPS, map("a", "x")).await.ok(201);
    cluster.post(MAPS, map("b", "x")).await.ok(201);
    cluster.patch(&format!("{MAPS}/b"), "merge-patch", json!({"metadata": {"labels": {"l": "y"}}})).await.ok(200);
    cluster.delete(&format!("{MAPS}/a")).await.ok(200);
    let dir = cluster.stop().await;
    let cluster = Cluster::on(store, dir).await;
    cluster.post(MAPS, map("c", "x")).await.ok(201);
    let from = first["metadata"]["resourceVersion"].as_str().unwrap();
    let mut watch = Watch::open(&cluster, &format!("{MAPS}?watch=1&resourceVersion={from}&labelSelector=l%3Dx")).await;
    watch.expect("ADDED", "b").await;
    watch.expect("DELETED", "b").await;
    watch.expect("DELETED", "a").await;
    watch.expect("ADDED", "c").await;
    cluster.post(MAPS, map("d", "x")).await.ok(201);
    watch.expect("ADDED", "d").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_old_a_revision_is_told() {
    let store = std::sync::Arc::new(podium_store::MemoryStore::new());
    let cluster = Cluster::on(store.clone(), tempfile::tempdir().unwrap()).await;
    cluster.post(MAPS, map("a", "x")).await.ok(201);
    let dir = cluster.stop().await;
    store.compact(store.revision()).await.unwrap();
    let cluster = Cluster::on(store, dir).await;
    let mut watch = Watch::open(&cluster, &format!("{MAPS}?watch=1&resourceVersion=1")).await;
    let event = watch.next().await.unwrap();
    assert_eq!((&event["type"], &event["object"]["code"]), (&"ERROR".into(), &410.into()));
    assert_eq!(watch.next().await, None);
    cluster.stop().await;
}
