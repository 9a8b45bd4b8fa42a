//! CustomResourceDefinitions and the objects that they define.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{harness::Cluster, watches::Watch};

pub(crate) const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
pub(crate) const WIDGETS: &str = "/apis/example.com/v1/namespaces/default/widgets";

pub(crate) fn definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget", "shortNames": ["wd"], "categories": ["all"]},
            "versions": [
                {
                    "name": "v1", "served": true, "storage": true,
                    "subresources": {
                        "status": {},
                        "scale": {
                            "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas",
                            "labelSelectorPath": ".status.selector",
                        },
                    },
                    "additionalPrinterColumns": [
                        {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas"},
                        {"name": "Color", "type": "string", "jsonPath": ".spec.color", "priority": 1},
                        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
                    ],
                    "selectableFields": [{"jsonPath": ".spec.color"}],
                    "schema": {"openAPIV3Schema": schema()},
                },
                {"name": "v2", "served": true, "storage": false, "schema": {"openAPIV3Schema": schema()}},
            ],
        },
    })
}

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "spec": {
                "type": "object",
                "required": ["color"],
                "x-kubernetes-validations": [
                    {"rule": "self.replicas <= self.max", "message": "replicas must not exceed max"},
                    {"rule": "self.color == oldSelf.color", "message": "color is immutable"},
                ],
                "properties": {
                    "replicas": {"type": "integer", "default": 1, "minimum": 0},
                    "max": {"type": "integer", "default": 10},
                    "color": {"type": "string", "description": "What it looks like.", "enum": ["red", "blue"], "maxLength": 10},
                    "ports": {
                        "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port"],
                        "items": {"type": "object", "required": ["port"], "properties": {
                            "port": {"type": "integer"}, "name": {"type": "string"},
                        }},
                    },
                },
            },
            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        },
    })
}

pub(crate) fn widget(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec})
}

pub(crate) fn condition<'v>(definition: &'v Value, kind: &str) -> &'v Value {
    let conditions = definition["status"]["conditions"].as_array().unwrap();
    conditions.iter().find(|c| c["type"] == kind).unwrap_or(&Value::Null)
}

/// Waits until a definition is as it should be.
pub(crate) async fn settled(cluster: &Cluster, name: &str, done: impl Fn(&Value) -> bool) -> Value {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let answer = cluster.get(&format!("{DEFINITIONS}/{name}")).await;
        let found = answer.json();
        if done(&found) {
            return found;
        }
        assert!(Instant::now() < until, "{found}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) async fn define(cluster: &Cluster, definition: Value) -> Value {
    let name = definition["metadata"]["name"].as_str().unwrap().to_owned();
    cluster.post(DEFINITIONS, definition).await.ok(201);
    settled(cluster, &name, |d| d["status"]["conditions"].is_array() && condition(d, "Established")["status"] == "True")
        .await
}

#[tokio::test]
async fn a_definition_is_usable_at_once() {
    let cluster = Cluster::start().await;
    let before = Instant::now();
    let defined = define(&cluster, definition()).await;
    let created = cluster.post(WIDGETS, widget("a", json!({"color": "red"}))).await.ok(201);
    assert!(before.elapsed() < Duration::from_secs(5), "{:?}", before.elapsed());

    assert_eq!(condition(&defined, "NamesAccepted")["reason"], "NoConflicts");
    assert_eq!(defined["status"]["storedVersions"], json!(["v1"]));
    assert_eq!(defined["status"]["acceptedNames"]["listKind"], "WidgetList");
    assert_eq!(created["spec"], json!({"color": "red", "max": 10, "replicas": 1}));
    assert_eq!(created["metadata"]["generation"], 1);

    let groups = cluster.get("/apis/example.com/v1").await.ok(200);
    let names: Vec<_> = groups["resources"].as_array().unwrap().iter().map(|r| r["name"].as_str().unwrap()).collect();
    assert!(
        names.contains(&"widgets") && names.contains(&"widgets/status") && names.contains(&"widgets/scale"),
        "{names:?}"
    );
    let listed = cluster.get(WIDGETS).await.ok(200);
    assert_eq!((&listed["kind"], &listed["items"][0]["metadata"]["name"]), (&json!("WidgetList"), &json!("a")));
    cluster.stop().await;
}

#[tokio::test]
async fn objects_are_pruned_defaulted_and_checked() {
    let cluster = Cluster::start().await;
    define(&cluster, definition()).await;

    let extra = widget("a", json!({"color": "red", "unknown": {"deep": 1}, "replicas": 3}));
    let path = format!("{WIDGETS}?fieldValidation=Warn");
    let answer = cluster.post(&path, extra.clone()).await;
    assert_eq!(answer.ok(201)["spec"], json!({"color": "red", "max": 10, "replicas": 3}));
    assert_eq!(answer.headers["warning"], "299 - \"unknown field \\\"spec.unknown\\\"\"");
    let strict = cluster.post(&format!("{WIDGETS}?fieldValidation=Strict"), extra).await;
    assert!(strict.refused(400).contains("unknown field \"spec.unknown\""), "{}", strict.text);

    for (spec, expected) in [
        (json!({}), "spec.color: Required value"),
        (json!({"color": "green"}), "spec.color: Unsupported value: \"green\": supported values: \"red\", \"blue\""),
        (
            json!({"color": "red", "replicas": "many"}),
            "spec.replicas: Invalid value: \"string\": spec.replicas in body must be of type integer: \"string\"",
        ),
        (
            json!({"color": "red", "replicas": -1}),
            "spec.replicas: Invalid value: -1: spec.replicas in body should be greater than or equal to 0",
        ),
        (json!({"color": "red", "replicas": 11}), "spec: Invalid value: replicas must not exceed max"),
        (json!({"color": "red", "ports": [{"port": 1}, {"port": 1}]}), "spec.ports[1]: Duplicate value: {\"port\":1}"),
    ] {
        let message = cluster.post(WIDGETS, widget("b", spec.clone())).await.refused(422);
        assert!(message.starts_with("Widget.example.com \"b\" is invalid: "), "{message}");
        assert!(message.contains(expected), "{spec}: {message}");
    }
    let immutable = cluster.patch(&format!("{WIDGETS}/a"), "merge-patch", json!({"spec": {"color": "blue"}})).await;
    assert!(immutable.refused(422).contains("spec: Invalid value: color is immutable"), "{}", immutable.text);
    cluster.stop().await;
}

#[tokio::test]
async fn status_and_scale_are_parts_of_their_own() {
    let cluster = Cluster::start().await;
    define(&cluster, definition()).await;
    let mut new = widget("a", json!({"color": "red"}));
    new["status"] = json!({"replicas": 7});
    let created = cluster.post(WIDGETS, new).await.ok(201);
    assert_eq!(created.get("status"), None);

    let path = format!("{WIDGETS}/a/status");
    let patch = json!({"status": {"replicas": 1, "selector": "app=a"}, "spec": {"max": 99}});
    let written = cluster.patch(&path, "merge-patch", patch).await.ok(200);
    assert_eq!((&written["status"]["replicas"], &written["spec"]["max"]), (&json!(1), &json!(10)));
    assert_eq!(written["metadata"]["generation"], 1);

    let scale = cluster.get(&format!("{WIDGETS}/a/scale")).await.ok(200);
    assert_eq!((&scale["kind"], &scale["spec"]["replicas"]), (&json!("Scale"), &json!(1)));
    assert_eq!(scale["status"], json!({"replicas": 1, "selector": "app=a"}));
    let patch = json!({"spec": {"replicas": 5}});
    cluster.patch(&format!("{WIDGETS}/a/scale"), "merge-patch", patch).await.ok(200);
    let scaled = cluster.get(&format!("{WIDGETS}/a")).await.ok(200);
    assert_eq!((&scaled["spec"]["replicas"], &scaled["metadata"]["generation"]), (&json!(5), &json!(2)));
    cluster.stop().await;
}

#[tokio::test]
async fn versions_selectors_and_tables() {
    let cluster = Cluster::start().await;
    let mut old = definition();
    old["spec"]["versions"][0]["deprecated"] = json!(true);
    define(&cluster, old).await;
    cluster.post(WIDGETS, widget("a", json!({"color": "red"}))).await.ok(201);
    cluster.post(WIDGETS, widget("b", json!({"color": "blue", "replicas": 2}))).await.ok(201);

    let other = cluster.get("/apis/example.com/v2/namespaces/default/widgets/a").await.ok(200);
    assert_eq!((&other["apiVersion"], &other["spec"]["color"]), (&json!("example.com/v2"), &json!("red")));
    let mut changed = other.clone();
    changed["spec"]["replicas"] = json!(4);
    cluster.put("/apis/example.com/v2/namespaces/default/widgets/a", changed).await.ok(200);
    let read = cluster.get(&format!("{WIDGETS}/a")).await;
    assert_eq!(read.headers["warning"], "299 - \"example.com/v1 Widget is deprecated\"");
    let back = read.ok(200);
    assert_eq!((&back["apiVersion"], &back["spec"]["replicas"]), (&json!("example.com/v1"), &json!(4)));

    let blue = cluster.get(&format!("{WIDGETS}?fieldSelector=spec.color%3Dblue")).await.ok(200);
    assert_eq!(blue["items"].as_array().unwrap().len(), 1);
    assert_eq!(blue["items"][0]["metadata"]["name"], "b");
    cluster.get(&format!("{WIDGETS}?fieldSelector=spec.max%3D1")).await.refused(400);

    let table = cluster.get_as(WIDGETS, "application/json;as=Table;v=v1;g=meta.k8s.io").await.ok(200);
    let columns = table["columnDefinitions"].as_array().unwrap();
    let columns: Vec<_> = columns.iter().map(|c| (c["name"].as_str().unwrap(), c["type"].as_str().unwrap())).collect();
    assert_eq!(columns, [("Name", "string"), ("Replicas", "integer"), ("Color", "string"), ("Age", "date")]);
    assert_eq!(table["rows"][1]["cells"].as_array().unwrap()[..3], [json!("b"), json!(2), json!("blue")]);
    cluster.stop().await;
}

#[tokio::test]
async fn a_default_shows_while_it_is_defined() {
    let cluster = Cluster::start().await;
    define(&cluster, definition()).await;
    cluster.post(WIDGETS, widget("a", json!({"color": "red"}))).await.ok(201);
    let path = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/size";
    for (change, shown) in [
        (json!({"op": "add", "path": path, "value": {"type": "string", "default": "small"}}), json!("small")),
        (json!({"op": "remove", "path": format!("{path}/default")}), json!(null)),
    ] {
        cluster.patch(&format!("{DEFINITIONS}/widgets.example.com"), "json-patch", json!([change])).await.ok(200);
        let until = Instant::now() + Duration::from_secs(60);
        while cluster.get(&format!("{WIDGETS}/a")).await.ok(200)["spec"]["size"] != shown {
            assert!(Instant::now() < until, "{shown} is not shown");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    cluster.stop().await;
}

#[tokio::test]
async fn a_definition_can_change() {
    let cluster = Cluster::start().await;
    let mut defined = define(&cluster, definition()).await;
    cluster.post(WIDGETS, widget("a", json!({"color": "red"}))).await.ok(201);

    defined["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["size"] =
        json!({"type": "string", "default": "small"});
    defined["spec"]["versions"][1]["served"] = json!(false);
    let changed = cluster.put(&format!("{DEFINITIONS}/widgets.example.com"), defined).await.ok(200);
    assert_eq!(changed["metadata"]["generation"], 2);
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let found = cluster.get(&format!("{WIDGETS}/a")).await.ok(200);
        let gone = cluster.get("/apis/example.com/v2/namespaces/default/widgets").await;
        if gone.status.as_u16() == 404 {
            assert_eq!(found["spec"]["color"], "red");
            break;
        }
        assert!(Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let new = cluster.post(WIDGETS, widget("b", json!({"color": "red"}))).await.ok(201);
    assert_eq!(new["spec"]["size"], "small");
    let old = cluster
        .patch(&format!("{WIDGETS}/a"), "merge-patch", json!({"metadata": {"labels": {"a": "b"}}}))
        .await
        .ok(200);
    assert_eq!(old["spec"]["size"], "small");
    cluster.stop().await;
}

#[tokio::test]
async fn a_deletion_takes_the_objects_along() {
    let cluster = Cluster::start().await;
    define(&cluster, definition()).await;
    let mut held = widget("held", json!({"color": "red"}));
    held["metadata"]["finalizers"] = json!(["example.com/held"]);
    cluster.post(WIDGETS, held).await.ok(201);
    cluster.post(WIDGETS, widget("free", json!({"color": "red"}))).await.ok(201);

    let path = format!("{DEFINITIONS}/widgets.example.com");
    let going = cluster.delete(&path).await.ok(200);
    assert_eq!(going["metadata"]["finalizers"], json!(["customresourcecleanup.apiextensions.k8s.io"]));
    settled(&cluster, "widgets.example.com", |d| condition(d, "Terminating")["reason"] == "InstanceDeletionInProgress")
        .await;
    cluster.get(&format!("{WIDGETS}/free")).await.refused(404);
    let refused = cluster.post(WIDGETS, widget("new", json!({"color": "red"}))).await.refused(405);
    assert!(refused.contains("create not allowed while custom resource definition is terminating"), "{refused}");

    cluster.patch(&format!("{WIDGETS}/held"), "merge-patch", json!({"metadata": {"finalizers": null}})).await;
    let until = Instant::now() + Duration::from_secs(60);
    while cluster.get(&path).await.status.as_u16() != 404 {
        assert!(Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // At once: whoever saw the definition go may rely on it.
    cluster.get(WIDGETS).await.refused(404);
    // The same again, with nothing left of before.
    define(&cluster, definition()).await;
    assert_eq!(cluster.get(WIDGETS).await.ok(200)["items"], json!([]));
    cluster.stop().await;
}

#[tokio::test]
async fn groups_of_kubernetes_say_whether_they_are_approved() {
    let cluster = Cluster::start().await;
    let mut unapproved = definition();
    unapproved["metadata"] = json!({"name": "widgets.example.k8s.io"});
    unapproved["spec"]["group"] = json!("example.k8s.io");
    let refused = cluster.post(DEFINITIONS, unapproved.clone()).await.refused(422);
    assert!(refused.contains("protected groups must have approval annotation"), "{refused}");
    unapproved["metadata"]["annotations"] = json!({"api-approved.kubernetes.io": "unapproved, a test"});
    cluster.post(DEFINITIONS, unapproved).await.ok(201);
    let said = |d: &Value| condition(d, "KubernetesAPIApprovalPolicyConformant")["reason"] == "UnapprovedAnnotation";
    settled(&cluster, "widgets.example.k8s.io", said).await;
    cluster.stop().await;
}

#[tokio::test]
async fn names_belong_to_one_definition() {
    let cluster = Cluster::start().await;
    define(&cluster, definition()).await;
    let mut other = definition();
    other["metadata"]["name"] = json!("gadgets.example.com");
    other["spec"]["names"] = json!({"plural": "gadgets", "kind": "Widget"});
    cluster.post(DEFINITIONS, other).await.ok(201);
    let refused = settled(&cluster, "gadgets.example.com", |d| d["status"]["conditions"].is_array()).await;
    let accepted = condition(&refused, "NamesAccepted");
    assert_eq!(
        (&accepted["status"], &accepted["message"]),
        (&json!("False"), &json!("\"WidgetList\" is already in use"))
    );
    assert_eq!(condition(&refused, "Established")["reason"], "NotAccepted");
    cluster.delete(&format!("{DEFINITIONS}/widgets.example.com")).await.ok(200);
    settled(&cluster, "gadgets.example.com", |d| condition(d, "Established")["status"] == "True").await;
    cluster.stop().await;
}

#[tokio::test]
async fn definitions_are_checked() {
    let cluster = Cluster::start().await;
    let spec = "/spec/versions/0/schema/openAPIV3Schema/properties/spec";
    for (pointer, value, expected) in [
        (
            "/metadata/name",
            json!("x.example.com"),
            "metadata.name: Invalid value: \"x.example.com\": must be spec.names.plural+\".\"+spec.group",
        ),
        (
            "/spec/group",
            json!("example"),
            "spec.group: Invalid value: \"example\": should be a domain with at least one dot",
        ),
        ("/spec/versions/0/storage", json!(false), "must have exactly one version marked as storage version"),
        (
            &format!("{spec}/type"),
            json!(""),
            "spec.versions[0].schema.openAPIV3Schema.properties[spec].type: Required value: must not be empty for specified object fields",
        ),
        (
            &format!("{spec}/properties/max/default"),
            json!("ten"),
            "properties[spec].properties[max].default: Invalid value: \"string\"",
        ),
        (&format!("{spec}/x-kubernetes-validations/0/rule"), json!("self.missing > 1"), "undefined field 'missing'"),
        (&format!("{spec}/x-kubernetes-validations/0/rule"), json!("self.replicas +"), "Syntax error"),
        (
            &format!("{spec}/x-kubernetes-validations/0/rule"),
            json!("self.replicas"),
            "cel expression must evaluate to a bool",
        ),
        (
            "/spec/versions/0/additionalPrinterColumns/0/type",
            json!("what"),
            "must be one of boolean,date,integer,number,string",
        ),
        (
            "/spec/versions/0/selectableFields/0/jsonPath",
            json!(".spec.ports"),
            "must point to a field of type string, boolean or integer",
        ),
        (
            "/spec/versions/0/subresources/scale/specReplicasPath",
            json!(".status.x"),
            "should be a json path under .spec",
        ),
    ] {
        let mut wrong = definition();
        *wrong.pointer_mut(pointer).unwrap() = value;
        let message = cluster.post(DEFINITIONS, wrong).await.refused(422);
        assert!(message.contains(expected), "{pointer}: {message}");
    }
    let mut costly = definition();
    costly.pointer_mut(spec).unwrap()["properties"]["ports"]["x-kubernetes-validations"] =
        json!([{"rule": "self.all(a, self.all(b, a.name.contains(b.name)))"}]);
    let message = cluster.post(DEFINITIONS, costly).await.refused(422);
    assert!(message.contains("estimated rule cost exceeds budget by factor of more than 100x"), "{message}");
    cluster.stop().await;
}

#[tokio::test]
async fn watches_and_applies() {
    let cluster = Cluster::start().await;
    let mut defined = define(&cluster, definition()).await;
    let mut watch = Watch::open(&cluster, &format!("{WIDGETS}?watch=1")).await;
    let other = "/apis/example.com/v2/namespaces/default/widgets";
    let mut second = Watch::open(&cluster, &format!("{other}?watch=1")).await;
    let apply = |manager: &str, spec: Value| {
        let path = format!("{WIDGETS}/a?fieldManager={manager}");
        (path, widget("a", spec).to_string().into_bytes())
    };
    let send = async |(path, body): (String, Vec<u8>)| {
        let headers = [("content-type", "application/apply-patch+yaml")];
        cluster.send(http::Method::PATCH, &path, &headers, body).await
    };
    send(apply("one", json!({"color": "red", "ports": [{"port": 1, "name": "x"}]}))).await.ok(201);
    let merged = send(apply("two", json!({"color": "red", "ports": [{"port": 2}]}))).await.ok(200);
    assert_eq!(merged["spec"]["ports"], json!([{"port": 1, "name": "x"}, {"port": 2}]));
    let conflict = send(apply("two", json!({"color": "blue"}))).await.refused(409);
    assert!(conflict.contains(".spec.color"), "{conflict}");
    let left = send(apply("one", json!({"color": "red"}))).await.ok(200);
    assert_eq!(left["spec"]["ports"], json!([{"port": 2}]));
    watch.expect("ADDED", "a").await;
    let seen = second.expect("ADDED", "a").await;
    assert_eq!(seen["apiVersion"], "example.com/v2");

    // Another schema: the watch goes on.
    defined["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["size"] =
        json!({"type": "string"});
    cluster.put(&format!("{DEFINITIONS}/widgets.example.com"), defined).await.ok(200);
    watch.expect("MODIFIED", "a").await;
    watch.expect("MODIFIED", "a").await;
    cluster.post(WIDGETS, widget("b", json!({"color": "red"}))).await.ok(201);
    watch.expect("ADDED", "b").await;
    cluster.delete(&format!("{DEFINITIONS}/widgets.example.com")).await.ok(200);
    watch.expect("DELETED", "a").await;
    watch.expect("DELETED", "b").await;
    assert!(watch.next().await.is_none());
    cluster.stop().await;
}

#[tokio::test]
async fn schemas_may_be_deep_and_rules_long() {
    let cluster = Cluster::start().await;
    let nested = |levels: usize| {
        let mut schema = json!({"type": "string", "x-kubernetes-validations": [{"rule": "self != 'x'"}]});
        for _ in 0..levels {
            schema = json!({"type": "object", "properties": {"a": schema}});
        }
        schema
    };
    let mut deep = definition();
    deep["spec"]["versions"] =
        json!([{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": nested(50)}}]);
    define(&cluster, deep.clone()).await;
    let mut value = json!("x");
    (0..49).for_each(|_| value = json!({"a": value}));
    let mut object = widget("a", json!({}));
    object["a"] = value;
    let message = cluster.post(WIDGETS, object).await.refused(422);
    assert!(message.contains("failed rule: self != 'x'"), "{message}");
    let mut wrong = deep.clone();
    wrong["metadata"]["name"] = json!("gadgets.example.com");
    wrong["spec"]["names"] = json!({"plural": "gadgets", "kind": "Gadget"});
    for rule in ["(".repeat(90_000), format!("{}true", "!".repeat(50_001)), "a.".repeat(40_000) + "b"] {
        wrong["spec"]["versions"][0]["schema"]["openAPIV3Schema"] =
            json!({"type": "object", "x-kubernetes-validations": [{"rule": rule, "message": "m"}]});
        let refused = cluster.post(&format!("{DEFINITIONS}?dryRun=All"), wrong.clone()).await;
        assert!(matches!(refused.status.as_u16(), 201 | 422), "{}", refused.text);
    }
    // Deeper than any JSON that is read.
    wrong["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = nested(200);
    assert_eq!(cluster.post(DEFINITIONS, wrong).await.status, 400);
    cluster.stop().await;
}

#[tokio::test]
async fn what_is_defined_survives_a_restart() {
    let store = std::sync::Arc::new(podium_store::MemoryStore::new());
    let cluster = Cluster::on(store.clone(), tempfile::tempdir().unwrap()).await;
    define(&cluster, definition()).await;
    cluster.post(WIDGETS, widget("a", json!({"color": "red"}))).await.ok(201);
    let dir = cluster.stop().await;
    let cluster = Cluster::on(store, dir).await;
    assert_eq!(cluster.get(&format!("{WIDGETS}/a")).await.ok(200)["spec"]["color"], "red");
    cluster.stop().await;
}
