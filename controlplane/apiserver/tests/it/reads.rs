//! Reading: pages, forms, selectors, discovery; and what a restart keeps.

use std::sync::Arc;

use podium_store::{MemoryStore, Store as _};
use serde_json::{Value, json};

use crate::harness::Cluster;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn fill(cluster: &Cluster, count: usize) {
    for i in 0..count {
        let map = json!({"metadata": {"name": format!("m{i}"), "labels": {"n": (i % 2).to_string()}}});
        cluster.post(MAPS, map).await.ok(201);
    }
}

fn names(list: &Value) -> Vec<String> {
    let name = |item: &Value| item["metadata"]["name"].as_str().unwrap().to_owned();
    list["items"].as_array().unwrap().iter().map(name).filter(|n| n.starts_with('m')).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_show_one_moment() {
    let cluster = Cluster::start().await;
    fill(&cluster, 4).await;
    let url = format!("{MAPS}?limit=2&labelSelector=n");
    let first = cluster.get(&url).await.ok(200);
    assert_eq!(
        (first["kind"].as_str(), names(&first)),
        (Some("ConfigMapList"), vec!["m0".to_owned(), "m1".to_owned()])
    );
    cluster.delete(&format!("{MAPS}/m3")).await.ok(200);
    cluster.post(MAPS, json!({"metadata": {"name": "m9", "labels": {"n": "1"}}})).await.ok(201);
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = cluster.get(&format!("{url}&continue={token}")).await.ok(200);
    assert_eq!(names(&second), ["m2", "m3"]);
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    cluster.get(&format!("{MAPS}?limit=2&continue=nonsense")).await.refused(400);

    let then = first["metadata"]["resourceVersion"].as_str().unwrap();
    let exact = format!("{MAPS}?resourceVersion={then}&resourceVersionMatch=Exact");
    assert_eq!(names(&cluster.get(&exact).await.ok(200)), ["m0", "m1", "m2", "m3"]);
    assert_eq!(names(&cluster.get(&format!("{MAPS}?labelSelector=n%3D1")).await.ok(200)), ["m1", "m9"]);
    assert_eq!(names(&cluster.get(&format!("{MAPS}?fieldSelector=metadata.name%3Dm2")).await.ok(200)), ["m2"]);
    let message = cluster.get(&format!("{MAPS}?fieldSelector=data%3Dm2")).await.refused(400);
    assert_eq!(message, "field label not supported: data");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_goes_on_from_its_last_key_past_compaction() {
    let store = Arc::new(MemoryStore::new());
    let cluster = Cluster::on(store.clone(), tempfile::tempdir().unwrap()).await;
    fill(&cluster, 4).await;
    let url = format!("{MAPS}?limit=2&labelSelector=n");
    let first = cluster.get(&url).await.ok(200);
    let then = first["metadata"]["resourceVersion"].as_str().unwrap();
    // Of another kind: a revision expires for all kinds alike.
    cluster.post("/api/v1/namespaces", json!({"metadata": {"name": "other"}})).await.ok(201);
    store.compact(store.revision()).await.unwrap();
    let token = first["metadata"]["continue"].as_str().unwrap();
    let expired = cluster.get(&format!("{url}&continue={token}")).await.ok(410);
    assert_eq!((&expired["kind"], &expired["reason"]), (&"Status".into(), &"Expired".into()));
    let message = expired["message"].as_str().unwrap();
    assert!(message.starts_with("The provided continue parameter is too old to display a consistent"), "{message}");
    let token = expired["metadata"]["continue"].as_str().unwrap();
    cluster.post(MAPS, json!({"metadata": {"name": "m9", "labels": {"n": "1"}}})).await.ok(201);
    let second = cluster.get(&format!("{url}&continue={token}")).await.ok(200);
    assert_eq!(names(&second), ["m2", "m3"]);
    assert_ne!(second["metadata"]["resourceVersion"], then);
    let token = second["metadata"]["continue"].as_str().unwrap();
    let third = cluster.get(&format!("{url}&continue={token}")).await.ok(200);
    assert_eq!(names(&third), ["m9"]);
    assert_eq!(third["metadata"]["resourceVersion"], second["metadata"]["resourceVersion"]);
    let exact = format!("{MAPS}?resourceVersion={then}&resourceVersionMatch=Exact");
    assert_eq!(cluster.get(&exact).await.refused(410), "The resourceVersion for the provided list is too old.");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn revisions_of_gets_and_names_of_requests() {
    let cluster = Cluster::start().await;
    fill(&cluster, 1).await;
    let url = format!("{MAPS}/m0");
    let now = cluster.get(&url).await.ok(200)["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    for (version, code) in [("", 200), ("0", 200), ("1", 200), (now.as_str(), 200), ("x", 400)] {
        let answer = cluster.get(&format!("{url}?resourceVersion={version}")).await;
        assert_eq!(answer.status.as_u16(), code, "{version}: {}", answer.text);
    }
    let audit = async |given: &str| {
        let answer = cluster.send(http::Method::GET, &url, &[("audit-id", given)], Vec::new()).await;
        answer.headers["audit-id"].to_str().unwrap().to_owned()
    };
    assert_eq!(audit("mine").await, "mine");
    assert_eq!(audit(&"x".repeat(65)).await.len(), 36);
    assert_eq!(cluster.get("/nope").await.headers["audit-id"].len(), 36);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forms() {
    let cluster = Cluster::start().await;
    fill(&cluster, 2).await;
    let table = "application/json;as=Table;g=meta.k8s.io;v=v1,application/json";
    let list = cluster.get_as(&format!("{MAPS}?labelSelector=n"), table).await.ok(200);
    assert_eq!((&list["kind"], &list["rows"][1]["cells"][0]), (&"Table".into(), &"m1".into()));
    let one = cluster.get_as(&format!("{MAPS}/m0"), table).await.ok(200);
    assert_eq!(one["rows"][0]["object"]["metadata"]["name"], "m0");
    let partial = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
    let list = cluster.get_as(MAPS, partial).await.ok(200);
    assert_eq!((&list["kind"], &list["items"][0]["data"]), (&"PartialObjectMetadataList".into(), &Value::Null));
    let yaml = cluster.get_as(&format!("{MAPS}/m0"), "application/yaml").await;
    assert_eq!(yaml.headers["content-type"], "application/yaml");
    assert!(yaml.text.contains("name: m0"), "{}", yaml.text);
    cluster.get_as(MAPS, "application/cbor").await.refused(406);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn discovery_and_documents() {
    let cluster = Cluster::start().await;
    assert_eq!(cluster.get("/api").await.ok(200)["kind"], "APIVersions");
    assert_eq!(cluster.get("/apis").await.ok(200)["kind"], "APIGroupList");
    assert_eq!(cluster.get("/apis/apps/v1").await.ok(200)["groupVersion"], "apps/v1");
    let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let groups = cluster.get_as("/apis", aggregated).await;
    assert_eq!(groups.ok(200)["kind"], "APIGroupDiscoveryList");
    assert!(groups.headers["content-type"].to_str().unwrap().contains("apidiscovery.k8s.io"));
    let index = cluster.get("/openapi/v3").await.ok(200);
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap();
    let document = cluster.get(url).await;
    assert_eq!(document.ok(200)["openapi"], "3.0.0");
    assert_eq!(document.headers["cache-control"], "public, immutable");
    let tag = document.headers["etag"].to_str().unwrap().trim_matches('"');
    assert!(url.ends_with(&format!("?hash={tag}")), "{url}");
    let moved = cluster.get("/openapi/v3/apis/apps/v1?hash=old").await;
    assert_eq!((moved.status.as_u16(), moved.headers["location"].to_str().unwrap()), (301, url));
    let beta = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";
    assert_eq!(cluster.get_as("/api", beta).await.ok(200)["apiVersion"], "apidiscovery.k8s.io/v2beta1");
    assert!(cluster.get("/").await.ok(200)["paths"].as_array().unwrap().contains(&"/apis/apps/v1".into()));
    assert_eq!(cluster.get("/openapi/v2").await.ok(200)["swagger"], "2.0");
    let old = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    let v2 = cluster.get_as("/openapi/v2", old).await;
    assert_eq!(v2.headers["content-type"], "application/com.github.proto-openapi.spec.v2.v1.0+protobuf");
    cluster.get_as("/openapi/v3/apis/apps/v1", old).await.refused(406);
    for path in ["/nope", "/apis/none", "/apis/none/v1", "/openapi/v3/none", "/api/v1/namespaces/default/pods/p/exec"] {
        cluster.get(path).await.refused(404);
    }
    let metrics = cluster.get("/metrics").await.text;
    assert!(metrics.contains("apiserver_request_total{") && metrics.contains("apiserver_storage_objects{"));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_objects_addresses_and_keys() {
    let store = Arc::new(MemoryStore::new());
    let cluster = Cluster::on(store.clone(), tempfile::tempdir().unwrap()).await;
    let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}});
    let made = cluster.post("/api/v1/namespaces/default/services", service.clone()).await.ok(201);
    let ca = cluster.server.ca_pem().to_owned();
    let dir = cluster.stop().await;
    let cluster = Cluster::on(store, dir).await;
    assert_eq!(cluster.server.ca_pem(), ca);
    assert_eq!(cluster.get("/api/v1/namespaces/default/services/s").await.ok(200), made);
    let mut other = service;
    other["metadata"]["name"] = "t".into();
    other["spec"]["clusterIP"] = made["spec"]["clusterIP"].clone();
    let message = cluster.post("/api/v1/namespaces/default/services", other).await.refused(422);
    assert!(message.contains("provided IP is already allocated"), "{message}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn component_statuses_are_only_read() {
    let cluster = Cluster::start().await;
    let list = cluster.get("/api/v1/componentstatuses").await.ok(200);
    assert_eq!(list["items"][0]["conditions"][0]["status"], "True");
    let status = serde_json::json!({"apiVersion": "v1", "kind": "ComponentStatus", "metadata": {"name": "x"}});
    assert_eq!(cluster.post("/api/v1/componentstatuses", status).await.status, 405);
    assert_eq!(cluster.delete("/api/v1/componentstatuses/etcd-0").await.status, 405);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_one_store_under_two_names() {
    let cluster = Cluster::start().await;
    let event = |name: &str, about: &str| {
        serde_json::json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": name, "namespace": "default"},
            "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "example.com/c", "reportingInstance": "i",
            "action": "Do", "reason": "Done", "type": "Normal", "note": "n",
            "regarding": {"kind": "Pod", "namespace": "default", "name": about},
        })
    };
    let new = "/apis/events.k8s.io/v1/namespaces/default/events";
    cluster.post(new, event("a", "web")).await.ok(201);
    cluster.post(new, event("b", "db")).await.ok(201);
    let old = cluster.get("/api/v1/namespaces/default/events/a").await.ok(200);
    assert_eq!((&old["message"], &old["involvedObject"]["name"]), (&"n".into(), &"web".into()));
    for (path, selector) in
        [(new, "regarding.name=db"), ("/api/v1/namespaces/default/events", "involvedObject.name=db")]
    {
        let list = cluster.get(&format!("{path}?fieldSelector={selector}")).await.ok(200);
        let names: Vec<_> = list["items"].as_array().unwrap().iter().map(|e| &e["metadata"]["name"]).collect();
        assert_eq!(names, ["b"], "{selector}");
    }
    cluster.delete(&format!("{new}?fieldSelector=regarding.name%3Ddb")).await.ok(200);
    assert_eq!(cluster.get(new).await.ok(200)["items"].as_array().unwrap().len(), 1);
    cluster.stop().await;
}
