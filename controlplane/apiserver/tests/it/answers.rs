//! How answers look: indented for people, refusals by media type, deleted objects; what an apply says of fields.

use http::Method;
use serde_json::json;

use crate::harness::Cluster;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

#[tokio::test]
async fn json_is_indented_for_people() {
    let cluster = Cluster::start().await;
    let space = "/api/v1/namespaces/default";
    for (path, agent, indented) in [
        (space.to_owned(), "kubectl/v1.32", false),
        (format!("{space}?pretty=true"), "kubectl/v1.32", true),
        (space.to_owned(), "curl/8.5.0", true),
        (format!("{space}?pretty=false"), "curl/8.5.0", false),
        (format!("{MAPS}?limit=1"), "curl/8.5.0", true),
        (format!("{space}/nothing"), "Mozilla/5.0", true),
        ("/apis".to_owned(), "curl/8.5.0", true),
        ("/openapi/v3".to_owned(), "curl/8.5.0", false),
        ("/version".to_owned(), "kubectl/v1.32", true),
    ] {
        let answer = cluster.send(Method::GET, &path, &[("user-agent", agent)], Vec::new()).await;
        let wanted = serde_json::to_string_pretty(&answer.json()).unwrap().lines().count();
        assert_eq!(
            answer.text.trim_end().lines().count(),
            if indented { wanted } else { 1 },
            "{path}: {}",
            answer.text
        );
    }
    cluster.stop().await;
}

#[tokio::test]
async fn refusals_name_what_is_known() {
    let cluster = Cluster::start().await;
    let accepted = "only the following media types are accepted: ";
    let objects = "application/json, application/yaml, application/vnd.kubernetes.protobuf";
    let streams = "application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch";
    for (path, accept, known) in
        [(MAPS.to_owned(), "application/cbor", objects), (format!("{MAPS}?watch=true"), "application/yaml", streams)]
    {
        assert_eq!(cluster.get_as(&path, accept).await.refused(406), format!("{accepted}{known}"));
    }
    let format = "the body of the request was in an unknown format - accepted media types include: ";
    let sent = |method, path: &'static str, kind: &'static str| {
        let cluster = &cluster;
        async move { cluster.send(method, path, &[("content-type", kind)], b"{}".to_vec()).await.refused(415) }
    };
    assert_eq!(sent(Method::POST, MAPS, "application/cbor").await, format!("{format}{objects}"));
    let patches = "application/json-patch+json, application/merge-patch+json, \
                   application/strategic-merge-patch+json, application/apply-patch+yaml";
    let path = "/api/v1/namespaces/default/configmaps/kube-root-ca.crt";
    assert_eq!(sent(Method::PATCH, path, "application/json").await, format!("{format}{patches}"));
    cluster.stop().await;
}

#[tokio::test]
async fn deletions_answer_as_the_kind_does() {
    let cluster = Cluster::start().await;
    let pod = json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    cluster.post(PODS, pod).await.ok(201);
    let gone = cluster.delete(&format!("{PODS}/a?gracePeriodSeconds=0")).await.ok(200);
    assert_eq!((&gone["kind"], &gone["metadata"]["name"]), (&json!("Pod"), &json!("a")));
    let map = |name: &str| json!({"metadata": {"name": name, "finalizers": ["a.io/b"]}});
    cluster.post(MAPS, json!({"metadata": {"name": "a"}})).await.ok(201);
    assert_eq!(cluster.delete(&format!("{MAPS}/a")).await.ok(200)["status"], "Success");
    cluster.post(MAPS, map("b")).await.ok(201);
    let kept = cluster.delete(&format!("{MAPS}/b?orphanDependents=false")).await.ok(202);
    assert_eq!(kept["kind"], "ConfigMap");
    cluster.stop().await;
}

/// As the first versions of these kinds did.
#[tokio::test]
async fn jobs_and_replication_controllers_leave_their_pods_behind_unless_told_otherwise() {
    let cluster = Cluster::start().await;
    let pod = json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]});
    let jobs = "/apis/batch/v1/namespaces/default/jobs";
    for name in ["a", "b", "c"] {
        let job = json!({"metadata": {"name": name}, "spec": {"template": {"spec": pod}}});
        cluster.post(jobs, job).await.ok(201);
    }
    let left = cluster.delete(&format!("{jobs}/a")).await;
    assert_eq!(left.ok(200)["metadata"]["finalizers"], json!(["orphan"]));
    let warning = left.headers["warning"].to_str().unwrap();
    assert!(warning.starts_with("299 - \"child pods are preserved by default when jobs are deleted"), "{warning}");
    let gone = cluster.delete(&format!("{jobs}/b?propagationPolicy=Background")).await;
    assert_eq!((&gone.ok(200)["status"], gone.headers.get("warning")), (&json!("Success"), None));
    let waits = cluster.delete(&format!("{jobs}/c?propagationPolicy=Foreground")).await.ok(200);
    assert_eq!(waits["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    let again = cluster.delete(&format!("{jobs}/c")).await.ok(200);
    assert_eq!(again["metadata"]["finalizers"], json!(["foregroundDeletion"]), "what is there goes before the default");

    let controllers = "/api/v1/namespaces/default/replicationcontrollers";
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let controller = json!({"metadata": {"name": "a"}, "spec": {"replicas": 0, "template": template}});
    cluster.post(controllers, controller).await.ok(201);
    let left = cluster.delete(&format!("{controllers}/a")).await;
    assert_eq!((&left.ok(200)["metadata"]["finalizers"], left.headers.get("warning")), (&json!(["orphan"]), None));
    cluster.stop().await;
}

#[tokio::test]
async fn an_apply_names_fields_as_kubernetes_does() {
    let cluster = Cluster::start().await;
    let schema =
        json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"a": {"type": "string"}}}}});
    let version = json!({"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}});
    let definition = json!({"metadata": {"name": "things.example.com"}, "spec": {
        "group": "example.com", "scope": "Cluster", "versions": [version],
        "names": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"},
    }});
    cluster.post(DEFINITIONS, definition).await.ok(201);
    let strict = "?fieldManager=me&fieldValidation=Strict";
    let head = "apiVersion: example.com/v1\nkind: Thing\nmetadata:\n  name: x\n";
    let apply = |rest: &str| {
        let (cluster, body) = (&cluster, format!("{head}{rest}").into_bytes());
        let headers = [("content-type", "application/apply-patch+yaml")];
        async move { cluster.send(Method::PATCH, &format!("/apis/example.com/v1/things/x{strict}"), &headers, body).await }
    };
    let typed = "failed to create typed patch object (/x; example.com/v1, Kind=Thing): ";
    assert_eq!(
        apply("other: 1\nspec:\n  a: b\n").await.refused(500),
        format!("{typed}.other: field not declared in schema")
    );
    assert_eq!(
        apply("spec:\n  a: b\n  a: c\n").await.refused(400),
        "error strict decoding patch: yaml: unmarshal errors:\n  line 7: key \"a\" already set in map"
    );
    // Finalizers of custom resources need no domain, but it is better to have one.
    let made = apply("  finalizers:\n  - mine\nspec:\n  a: b\n").await;
    made.ok(201);
    assert!(made.headers["warning"].to_str().unwrap().contains("prefer a domain-qualified finalizer name"));
    let posted = cluster
        .send(
            Method::POST,
            &format!("/apis/example.com/v1/things{strict}"),
            &[("content-type", "application/json")],
            br#"{"metadata": {"name": "y"}, "z": 1, "spec": {"a": "b", "a": "c"}, "b": 2}"#.to_vec(),
        )
        .await;
    let wanted = "strict decoding error: unknown field \"z\", duplicate field \"spec.a\", unknown field \"b\"";
    assert!(posted.refused(400).ends_with(wanted), "{}", posted.text);
    cluster.stop().await;
}
