//! Writing objects: create, update, patch, delete, and what is refused.

use http::Method;
use serde_json::{Value, json};

use crate::harness::Cluster;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

#[tokio::test(flavor = "multi_thread")]
async fn the_life_of_an_object() {
    let cluster = Cluster::start().await;
    let made = cluster.post(MAPS, map("a", json!({"k": "1"}))).await.ok(201);
    assert_eq!(made["metadata"]["namespace"], "default");
    assert!(made["metadata"]["uid"].is_string() && made["metadata"]["creationTimestamp"].is_string());
    let path = format!("{MAPS}/a");
    assert_eq!(cluster.get(&path).await.ok(200), made);
    assert_eq!(cluster.post(MAPS, map("a", json!({}))).await.refused(409), "configmaps \"a\" already exists");

    let mut new = made.clone();
    new["data"]["k"] = "2".into();
    let changed = cluster.put(&path, new.clone()).await.ok(200);
    assert_ne!(changed["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
    new["data"]["k"] = "3".into();
    assert!(cluster.put(&path, new).await.refused(409).contains("the object has been modified"));
    let same = cluster.put(&path, map("a", json!({"k": "2"}))).await.ok(200);
    assert_eq!(same["metadata"]["resourceVersion"], changed["metadata"]["resourceVersion"]);
    assert_eq!(cluster.put(&format!("{MAPS}/x"), map("x", json!({}))).await.refused(404), "configmaps \"x\" not found");
    let message = cluster.put(&path, map("b", json!({}))).await.refused(400);
    assert_eq!(message, "the name of the object (b) does not match the name on the URL (a)");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn patches_and_preconditions() {
    let cluster = Cluster::start().await;
    let made = cluster.post(MAPS, map("a", json!({"k": "1"}))).await.ok(201);
    let path = format!("{MAPS}/a");
    for (kind, patch, data) in [
        ("merge-patch", json!({"data": {"k": null, "m": "1"}}), json!({"m": "1"})),
        ("json-patch", json!([{"op": "add", "path": "/data/j", "value": "2"}]), json!({"m": "1", "j": "2"})),
        ("strategic-merge-patch", json!({"data": {"m": null, "s": "3"}}), json!({"j": "2", "s": "3"})),
    ] {
        assert_eq!(cluster.patch(&path, kind, patch).await.ok(200)["data"], data, "{kind}");
    }
    let stale = json!({"metadata": {"resourceVersion": "1"}, "data": {"x": "1"}});
    cluster.patch(&path, "merge-patch", stale).await.refused(409);
    cluster.patch(&path, "apply-patch", json!({})).await.refused(415);

    let options = json!({"preconditions": {"uid": "other"}});
    let headers = [("content-type", "application/json")];
    cluster.send(Method::DELETE, &path, &headers, options.to_string().into()).await.refused(409);
    assert_eq!(cluster.delete(&format!("{path}?dryRun=All")).await.ok(200)["status"], "Success");
    let gone = cluster.delete(&path).await.ok(200);
    assert_eq!((&gone["status"], &gone["details"]["uid"]), (&"Success".into(), &made["metadata"]["uid"]));
    assert_eq!(cluster.get(&path).await.refused(404), "configmaps \"a\" not found");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_says_why() {
    let cluster = Cluster::start().await;
    let mut unknown = map("a", json!({}));
    unknown["spec"] = json!({"x": 1});
    let strict = format!("{MAPS}?fieldValidation=Strict");
    let message = cluster.post(&strict, unknown.clone()).await.refused(400);
    assert!(message.ends_with("strict decoding error: unknown field \"spec\""), "{message}");
    cluster.post(MAPS, map("patched", json!({}))).await.ok(201);
    let patched = format!("{MAPS}/patched?fieldValidation=Strict");
    for kind in ["merge-patch", "strategic-merge-patch"] {
        let message = cluster.patch(&patched, kind, json!({"spec": {"x": 1}})).await.refused(422);
        assert!(message.starts_with(" \"\" is invalid: patch: Invalid value: "), "{message}");
        assert!(message.ends_with(": strict decoding error: unknown field \"spec\""), "{message}");
        let twice = br#"{"data": {"a": "1", "a": "2"}}"#.to_vec();
        let media = format!("application/{kind}+json");
        let answer = cluster.send(Method::PATCH, &patched, &[("content-type", &media)], twice).await;
        assert!(answer.refused(422).ends_with("strict decoding error: duplicate field \"data.a\""), "{}", answer.text);
    }
    let warned = cluster.post(MAPS, unknown).await;
    assert_eq!(warned.status, 201);
    assert_eq!(warned.headers["warning"].to_str().unwrap(), "299 - \"unknown field \\\"spec\\\"\"");

    for (path, body, code, message) in [
        (MAPS, map("A", json!({})), 422, "ConfigMap \"A\" is invalid: metadata.name: Invalid value: \"A\""),
        (MAPS, json!({"metadata": {}}), 422, "ConfigMap \"\" is invalid: metadata.name: Required value"),
        (MAPS, map("b", json!({"k": 1})), 400, "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: data.k"),
        (MAPS, json!({"kind": "Secret"}), 400, "the kind in the data (Secret) does not match"),
        (MAPS, json!({"metadata": {"name": "c", "namespace": "x"}}), 400, "the namespace of the provided object"),
        ("/api/v1/namespaces/none/configmaps", map("a", json!({})), 404, "namespaces \"none\" not found"),
        ("/api/v1/namespaces/default/nones", json!({}), 404, "the server could not find the requested resource"),
        ("/api/v1/configmaps", map("a", json!({})), 405, "the server does not allow this method"),
    ] {
        let got = cluster.post(path, body).await.refused(code);
        assert!(got.starts_with(message), "{got}");
    }
    let json = [("content-type", "application/json")];
    let long = "x".repeat(3 * 1024 * 1024 + 1);
    let too_much = cluster.send(Method::POST, MAPS, &json, long.into_bytes()).await;
    assert!(too_much.refused(413).starts_with("Request entity too large"));
    let protobuf = [("content-type", "application/vnd.kubernetes.protobuf")];
    cluster.send(Method::POST, MAPS, &protobuf, b"k8s".to_vec()).await.refused(400);
    cluster.send(Method::POST, MAPS, &[("content-type", "text/plain")], b"x".to_vec()).await.refused(415);
    let yaml = [("content-type", "application/yaml")];
    let bad = cluster.send(Method::POST, MAPS, &yaml, b"a: b: c\n".to_vec()).await.refused(400);
    assert!(bad.contains("line 1 column 5"), "{bad}");
    let good = b"metadata:\n  name: yaml\ndata: {a: b}\n".to_vec();
    assert_eq!(cluster.send(Method::POST, MAPS, &yaml, good).await.ok(201)["data"]["a"], "b");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn generated_names_dry_runs_and_collections() {
    let cluster = Cluster::start().await;
    let generated = json!({"metadata": {"generateName": "m-", "labels": {"a": "b"}}});
    for _ in 0..3 {
        let made = cluster.post(MAPS, generated.clone()).await.ok(201);
        assert!(made["metadata"]["name"].as_str().is_some_and(|n| n.starts_with("m-") && n.len() == 7));
    }
    cluster.post(&format!("{MAPS}?dryRun=All"), map("dry", json!({}))).await.ok(201);
    cluster.get(&format!("{MAPS}/dry")).await.refused(404);
    let deleted = cluster.delete(&format!("{MAPS}?labelSelector=a%3Db")).await.ok(200);
    assert_eq!(deleted["items"].as_array().unwrap().len(), 3);
    assert_eq!(cluster.get(&format!("{MAPS}?labelSelector=a")).await.ok(200)["items"], json!([]));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn finalizers_keep_an_object_until_the_last_goes() {
    let cluster = Cluster::start().await;
    let mut held = map("a", json!({}));
    held["metadata"]["finalizers"] = json!(["a.b/c"]);
    cluster.post(MAPS, held).await.ok(201);
    let path = format!("{MAPS}/a");
    let marked = cluster.delete(&path).await.ok(200);
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    cluster.patch(&path, "merge-patch", json!({"metadata": {"finalizers": ["a.b/c", "d.e/f"]}})).await.refused(422);
    cluster.patch(&path, "merge-patch", json!({"metadata": {"finalizers": null}})).await.ok(200);
    cluster.get(&path).await.refused(404);

    cluster.post(MAPS, map("b", json!({}))).await.ok(201);
    let path = format!("{MAPS}/b?propagationPolicy=Foreground");
    assert_eq!(cluster.delete(&path).await.ok(200)["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_goes_when_it_is_finalized() {
    let cluster = Cluster::start().await;
    let made = cluster.post("/api/v1/namespaces", json!({"metadata": {"name": "n"}})).await.ok(201);
    assert_eq!(made["status"]["phase"], "Active");
    assert_eq!(made["metadata"]["labels"]["kubernetes.io/metadata.name"], "n");
    let marked = cluster.delete("/api/v1/namespaces/n").await.ok(200);
    assert_eq!(marked["status"]["phase"], "Terminating");
    let message = cluster.post("/api/v1/namespaces/n/configmaps", map("a", json!({}))).await.refused(403);
    assert!(message.ends_with("unable to create new content in namespace n because it is being terminated"));
    let done = json!({"metadata": {"name": "n"}, "spec": {"finalizers": []}});
    cluster.put("/api/v1/namespaces/n/finalize", done).await.ok(200);
    cluster.get("/api/v1/namespaces/n").await.refused(404);
    assert!(cluster.delete("/api/v1/namespaces/default").await.refused(403).contains("may not be deleted"));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn status_and_scale() {
    let cluster = Cluster::start().await;
    let path = "/apis/apps/v1/namespaces/default/replicasets";
    let labels = json!({"app": "a"});
    let set = json!({"metadata": {"name": "r"}, "status": {"replicas": 9}, "spec": {"replicas": 2,
        "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
        "spec": {"containers": [{"name": "c", "image": "x"}]}}}});
    let made = cluster.post(path, set).await.ok(201);
    assert_eq!(made["metadata"]["generation"], 1);
    assert_ne!(made["status"]["replicas"], 9);
    let status = json!({"status": {"replicas": 2}, "spec": {"replicas": 7}});
    let changed = cluster.patch(&format!("{path}/r/status"), "merge-patch", status).await.ok(200);
    assert_eq!((&changed["status"]["replicas"], &changed["spec"]["replicas"]), (&2.into(), &2.into()));
    assert_eq!(changed["metadata"]["generation"], 1);

    let scale = cluster.get(&format!("{path}/r/scale")).await.ok(200);
    assert_eq!(scale["kind"], "Scale");
    assert_eq!((&scale["status"]["selector"], &scale["spec"]["replicas"]), (&"app=a".into(), &2.into()));
    let mut more = scale.clone();
    more["spec"]["replicas"] = 5.into();
    assert_eq!(cluster.put(&format!("{path}/r/scale"), more.clone()).await.ok(200)["spec"]["replicas"], 5);
    cluster.put(&format!("{path}/r/scale"), more).await.refused(409);
    let patch = json!({"spec": {"replicas": 1}});
    cluster.patch(&format!("{path}/r/scale"), "merge-patch", patch).await.ok(200);
    let bad = json!({"spec": {"replicas": -1}});
    cluster.patch(&format!("{path}/r/scale"), "merge-patch", bad).await.refused(422);
    let now = cluster.get(&format!("{path}/r")).await.ok(200);
    assert_eq!((&now["spec"]["replicas"], &now["metadata"]["generation"]), (&1.into(), &3.into()));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_do_not_stay() {
    let ttl = std::time::Duration::from_millis(1500);
    let store = std::sync::Arc::new(podium_store::MemoryStore::new());
    let cluster = Cluster::with(store, tempfile::tempdir().unwrap(), |config| config.event_ttl = ttl).await;
    let events = "/api/v1/namespaces/default/events";
    let object = json!({"namespace": "default", "kind": "Pod", "name": "p"});
    let event = json!({"metadata": {"name": "e"}, "involvedObject": object, "reason": "R", "message": "m"});
    let seen = cluster.post(events, event).await.ok(201)["metadata"]["resourceVersion"].clone();
    let version = seen.as_str().unwrap();
    // Whoever watches hears of it; the watch ends by itself when nothing comes.
    let watch =
        format!("{events}?watch=true&resourceVersion={version}&timeoutSeconds=10&fieldSelector=metadata.name=e");
    let line = cluster.first_line(&watch).await;
    assert_eq!((&line["type"], &line["object"]["metadata"]["name"]), (&json!("DELETED"), &json!("e")));
    cluster.get(&format!("{events}/e")).await.refused(404);
    cluster.stop().await;
}
