//! What every kind that can be created does over HTTP, whatever it is: each verb of each resource that discovery names,
//! on the examples of all kinds.

use std::{
    panic::AssertUnwindSafe,
    time::{Duration, Instant},
};

use futures::FutureExt as _;
use http_body_util::BodyExt as _;
use serde::Deserialize as _;
use serde_json::{Value, json};

use crate::harness::{Answer, Cluster};

const EXAMPLES: &str = include_str!("../../../api/examples.yaml");
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";
const METADATA: &str = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// The server itself writes to them as soon as they are there: they have tests of their own.
const BUSY: [&str; 4] = ["APIService", "CustomResourceDefinition", "FlowSchema", "ValidatingAdmissionPolicy"];
/// Their labels are what others go by.
const GENERATION_COUNTS_LABELS: &str = "EndpointSlice";

/// A resource under test.
struct Kind<'a> {
    cluster: &'a Cluster,
    /// As discovery names it, for messages.
    id: String,
    verbs: Vec<String>,
    subresources: Vec<String>,
    collection: String,
    object: String,
    example: Value,
}

impl Kind<'_> {
    fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }

    #[track_caller]
    fn ok(&self, what: &str, answer: &Answer, code: u16) -> Value {
        assert_eq!(answer.status.as_u16(), code, "{}: {what}: {}", self.id, answer.text);
        answer.json()
    }

    async fn get(&self) -> Value {
        self.ok("get", &self.cluster.get(&self.object).await, 200)
    }

    async fn merge(&self, what: &str, patch: Value) -> Value {
        self.ok(what, &self.cluster.patch(&self.object, "merge-patch", patch).await, 200)
    }
}

fn name_of(example: &Value) -> &str {
    example["metadata"]["name"].as_str().unwrap()
}

fn revision(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

/// What an answer must share with another of the same object.
fn substance(object: &Value) -> Value {
    let mut object = object.clone();
    object["metadata"].as_object_mut().unwrap().remove("managedFields");
    object
}

async fn kinds<'a>(cluster: &'a Cluster) -> Vec<Kind<'a>> {
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let examples: Vec<Value> =
        serde_yaml::Deserializer::from_str(EXAMPLES).map(|d| Value::deserialize(d).unwrap()).collect();
    let mut kinds = Vec::new();
    for root in ["/api", "/apis"] {
        let groups = cluster.get_as(root, accept).await.ok(200);
        for group in groups["items"].as_array().unwrap() {
            for version in group["versions"].as_array().unwrap() {
                for resource in version["resources"].as_array().unwrap() {
                    kinds.extend(kind(cluster, root, (group, version, resource), &examples));
                }
            }
        }
    }
    kinds
}

fn texts(value: &Value, field: &str) -> Vec<String> {
    let text = |v: &Value| if field.is_empty() { v.clone() } else { v[field].clone() };
    value.as_array().into_iter().flatten().map(|v| text(v).as_str().unwrap().to_owned()).collect()
}

/// A resource that can be created, with its example; none for others.
fn kind<'a>(
    cluster: &'a Cluster,
    root: &str,
    (group, version, resource): (&Value, &Value, &Value),
    examples: &[Value],
) -> Option<Kind<'a>> {
    let group = group["metadata"]["name"].as_str().unwrap_or_default();
    let version = version["version"].as_str().unwrap();
    let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    let (plural, named) = (resource["resource"].as_str().unwrap(), &resource["responseKind"]["kind"]);
    let verbs = texts(&resource["verbs"], "");
    if BUSY.iter().any(|busy| named == busy)
        || !["create", "get"].iter().all(|needed| verbs.iter().any(|v| v == needed))
    {
        return None;
    }
    let of = |e: &&Value| e["apiVersion"] == *api_version && e["kind"] == *named;
    let example = examples.iter().find(of).unwrap_or_else(|| panic!("no example of {api_version} {named}")).clone();
    let namespace = example["metadata"]["namespace"].as_str();
    assert_eq!(namespace.is_some(), resource["scope"] == "Namespaced", "{api_version} {plural}");
    let namespace = namespace.map(|n| format!("/namespaces/{n}")).unwrap_or_default();
    let collection = format!("{root}/{api_version}{namespace}/{plural}");
    let object = format!("{collection}/{}", name_of(&example));
    let subresources = texts(&resource["subresources"], "subresource");
    Some(Kind { cluster, id: format!("{api_version} {plural}"), verbs, subresources, collection, object, example })
}

#[tokio::test]
async fn every_kind_keeps_it() {
    let cluster = Cluster::start().await;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}});
    cluster.post("/api/v1/namespaces", namespace).await.ok(201);
    let kinds = kinds(&cluster).await;
    assert!(kinds.len() > 55, "only {} kinds", kinds.len());
    let mut broken = Vec::new();
    for kind in &kinds {
        if AssertUnwindSafe(kept(kind)).catch_unwind().await.is_err() {
            broken.push(&kind.id);
        }
    }
    assert!(broken.is_empty(), "not kept by {broken:#?}");
    cluster.stop().await;
}

async fn kept(kind: &Kind<'_>) {
    created(kind).await;
    shown(kind).await;
    changed(kind).await;
    parts(kind).await;
    deleted(kind).await;
}

/// As a trial, for real, and not twice.
async fn created(kind: &Kind<'_>) {
    let trial = kind.cluster.post(&format!("{}?dryRun=All", kind.collection), kind.example.clone()).await;
    kind.ok("create as a trial", &trial, 201);
    assert_eq!(kind.cluster.get(&kind.object).await.status, 404, "{}: a trial is kept", kind.id);
    let strict = format!("{}?fieldValidation=Strict", kind.collection);
    let made = kind.ok("create", &kind.cluster.post(&strict, kind.example.clone()).await, 201);
    for field in ["uid", "creationTimestamp", "resourceVersion", "managedFields"] {
        assert!(!made["metadata"][field].is_null(), "{}: no {field}: {made}", kind.id);
    }
    assert_eq!(made, kind.get().await, "{}", kind.id);
    let again = kind.cluster.post(&kind.collection, kind.example.clone()).await;
    assert_eq!((again.status.as_u16(), &again.json()["reason"]), (409, &json!("AlreadyExists")), "{}", kind.id);
}

/// In every form, alone and in lists.
async fn shown(kind: &Kind<'_>) {
    let whole = kind.get().await;
    for form in [TABLE, METADATA] {
        let answer = kind.ok(form, &kind.cluster.get_as(&kind.object, form).await, 200);
        let meta = if form == TABLE { &answer["rows"][0]["object"]["metadata"] } else { &answer["metadata"] };
        assert_eq!(meta["uid"], whole["metadata"]["uid"], "{}: {answer}", kind.id);
    }
    let binary = kind.cluster.get_as(&kind.object, PROTOBUF).await;
    assert!(binary.status == 200 && binary.text.starts_with("k8s\0"), "{}: {}", kind.id, binary.text);
    let yaml = kind.cluster.get_as(&kind.object, "application/yaml").await;
    assert_eq!(serde_yaml::from_str::<Value>(&yaml.text).unwrap(), whole, "{}", kind.id);
    let selector = format!("{}?fieldSelector=metadata.name={}", kind.collection, name_of(&kind.example));
    let list = kind.ok("list", &kind.cluster.get(&selector).await, 200);
    let mut item = list["items"][0].clone();
    item["apiVersion"] = whole["apiVersion"].clone();
    item["kind"] = whole["kind"].clone();
    assert_eq!((list["items"].as_array().unwrap().len(), item), (1, whole.clone()), "{}", kind.id);
    // From before the object: the watch begins with it.
    let since = revision(&whole) - 1;
    let event = first_event(kind, &format!("{selector}&watch=1&resourceVersion={since}")).await;
    assert_eq!((&event["type"], &event["object"]), (&json!("ADDED"), &whole), "{}", kind.id);
}

async fn first_event(kind: &Kind<'_>, path: &str) -> Value {
    let request = http::Request::get(path).body(Vec::new().into()).unwrap();
    let mut body = kind.cluster.client.send(request).await.unwrap().into_body();
    let mut line = Vec::new();
    while !line.ends_with(b"\n") {
        line.extend_from_slice(&body.frame().await.expect("the watch ends").unwrap().into_data().unwrap());
    }
    serde_json::from_slice(&line).unwrap_or_else(|e| panic!("{}: {e}: {}", kind.id, String::from_utf8_lossy(&line)))
}

/// By every way of writing, at the revision that is given; nothing is written when nothing changes.
async fn changed(kind: &Kind<'_>) {
    let before = kind.get().await;
    let same = kind.ok("replace", &kind.cluster.put(&kind.object, before.clone()).await, 200);
    assert_eq!(same, before, "{}: writing the same is no change", kind.id);
    let label = |name: &str| json!({"metadata": {"labels": {name: "x"}}});
    let merged = kind.merge("merge patch", label("merge")).await;
    assert!(revision(&merged) > revision(&before), "{}", kind.id);
    if kind.example["kind"] != GENERATION_COUNTS_LABELS {
        assert_eq!(merged["metadata"]["generation"], before["metadata"]["generation"], "{}", kind.id);
    }
    let strategic = kind.cluster.patch(&kind.object, "strategic-merge-patch", label("strategic")).await;
    kind.ok("strategic patch", &strategic, 200);
    let json_patch = json!([{"op": "test", "path": "/metadata/labels/merge", "value": "x"},
                            {"op": "add", "path": "/metadata/labels/json", "value": "x"}]);
    let patched = kind.ok("JSON patch", &kind.cluster.patch(&kind.object, "json-patch", json_patch).await, 200);
    for label in ["merge", "strategic", "json"] {
        assert_eq!(patched["metadata"]["labels"][label], "x", "{}", kind.id);
    }
    let stale = kind.cluster.put(&kind.object, before).await;
    assert_eq!((stale.status.as_u16(), &stale.json()["reason"]), (409, &json!("Conflict")), "{}", kind.id);
    applied(kind).await;
}

/// Server-side apply: owned, refused to others, taken away.
async fn applied(kind: &Kind<'_>) {
    let config = |labels: Value| {
        json!({"apiVersion": kind.example["apiVersion"], "kind": kind.example["kind"],
               "metadata": {"name": name_of(&kind.example), "labels": labels}})
    };
    let apply = async |manager: &str, labels: Value| {
        let path = format!("{}?fieldManager={manager}", kind.object);
        let yaml = [("content-type", "application/apply-patch+yaml")];
        kind.cluster.send(http::Method::PATCH, &path, &yaml, config(labels).to_string().into()).await
    };
    let first = kind.ok("apply", &apply("one", json!({"applied": "one", "kept": "x"})).await, 200);
    let owners = first["metadata"]["managedFields"].as_array().unwrap();
    assert!(owners.iter().any(|o| o["manager"] == "one" && o["operation"] == "Apply"), "{}: {first}", kind.id);
    let conflict = apply("two", json!({"applied": "two"})).await;
    assert_eq!(conflict.status, 409, "{}: {}", kind.id, conflict.text);
    assert!(conflict.text.contains(r#"conflict with \"one\""#), "{}: {}", kind.id, conflict.text);
    let less = kind.ok("apply less", &apply("one", json!({"kept": "x"})).await, 200);
    assert!(less["metadata"]["labels"]["applied"].is_null(), "{}: what is applied no more stays: {less}", kind.id);
}

/// Status and scale are written by themselves, and the status not otherwise.
async fn parts(kind: &Kind<'_>) {
    let has = |name: &str| kind.subresources.iter().any(|s| s == name);
    if has("status") {
        let path = format!("{}/status", kind.object);
        let whole = kind.get().await;
        assert_eq!(kind.ok("get the status", &kind.cluster.get(&path).await, 200), whole, "{}", kind.id);
        let renamed = json!({"metadata": {"annotations": {"status": "x"}}});
        let written = kind.ok("patch the status", &kind.cluster.patch(&path, "merge-patch", renamed).await, 200);
        assert_eq!((&written["spec"], &written["status"]), (&whole["spec"], &whole["status"]), "{}", kind.id);
        let wiped = kind.merge("wipe the status", json!({"status": null})).await;
        assert_eq!(wiped["status"], written["status"], "{}: the status is not part of the object", kind.id);
    }
    if has("scale") {
        let path = format!("{}/scale", kind.object);
        let mut scale = kind.ok("get the scale", &kind.cluster.get(&path).await, 200);
        scale["spec"]["replicas"] = json!(7);
        let scaled = kind.ok("put the scale", &kind.cluster.put(&path, scale).await, 200);
        assert_eq!((&scaled["kind"], &scaled["spec"]["replicas"]), (&json!("Scale"), &json!(7)), "{}", kind.id);
        assert_eq!(kind.get().await["spec"]["replicas"], 7, "{}", kind.id);
    }
}

/// Not as another object, not while a finalizer is there, and then for good; in a collection by its labels.
async fn deleted(kind: &Kind<'_>) {
    let delete = async |body: Value| {
        let json = [("content-type", "application/json")];
        kind.cluster.send(http::Method::DELETE, &kind.object, &json, body.to_string().into()).await
    };
    let other = delete(json!({"preconditions": {"uid": "other"}})).await;
    assert_eq!(other.status, 409, "{}: {}", kind.id, other.text);
    let held = kind.merge("hold", json!({"metadata": {"finalizers": ["example.com/hold"]}})).await;
    let trial = kind.cluster.delete(&format!("{}?dryRun=All", kind.object)).await;
    kind.ok("delete as a trial", &trial, 200);
    assert_eq!(substance(&kind.get().await), substance(&held), "{}: a trial deletes", kind.id);
    kind.ok("delete", &delete(json!({"gracePeriodSeconds": 0, "propagationPolicy": "Background"})).await, 200);
    let going = kind.get().await;
    assert!(!going["metadata"]["deletionTimestamp"].is_null(), "{}: {going}", kind.id);
    let loosened = kind.cluster.patch(&kind.object, "merge-patch", json!({"metadata": {"finalizers": null}})).await;
    let left = kind.ok("let go", &loosened, 200);
    if kind.subresources.iter().any(|s| s == "finalize") {
        let mut left = left;
        left["spec"]["finalizers"] = json!([]);
        kind.ok("finalize", &kind.cluster.put(&format!("{}/finalize", kind.object), left).await, 200);
    }
    gone(kind).await;
    if kind.can("deletecollection") {
        kind.ok("create again", &kind.cluster.post(&kind.collection, kind.example.clone()).await, 201);
        kind.merge("label", json!({"metadata": {"labels": {"delete": "me"}, "finalizers": null}})).await;
        kind.ok(
            "delete others",
            &kind.cluster.delete(&format!("{}?labelSelector=delete=you", kind.collection)).await,
            200,
        );
        kind.get().await;
        let path =
            format!("{}?labelSelector=delete=me&gracePeriodSeconds=0&propagationPolicy=Background", kind.collection);
        kind.ok("delete collection", &kind.cluster.delete(&path).await, 200);
        gone(kind).await;
    }
}

/// At once, or as soon as what cleans up after a kind is done.
async fn gone(kind: &Kind<'_>) {
    until(kind, "it stays", |answer| answer.status == 404).await;
}

async fn until(kind: &Kind<'_>, otherwise: &str, holds: impl Fn(&Answer) -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let answer = kind.cluster.get(&kind.object).await;
        if holds(&answer) {
            return;
        }
        assert!(Instant::now() < end, "{}: {otherwise}: {}", kind.id, answer.text);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
