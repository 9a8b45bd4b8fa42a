//! Writes and applies of real kinds, as Kubernetes records them.

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Pod, Service},
};
use serde_json::{Value, json};

use super::super::{ManagedFields, Reset, Writer, apply, update};
use crate::{ApiError, Kind, kind_of, schema::RootType};

const STATUS: Reset<'static> = Reset(&["status"]);

pub(super) fn types<K: Kind>() -> RootType {
    kind_of::<K>().types()
}

pub(super) fn writer<'a>(manager: &'a str, api_version: &'a str, second: i64) -> Writer<'a> {
    Writer { manager, subresource: "", api_version, time: jiff::Timestamp::from_second(second).unwrap() }
}

/// `manager operation[/subresource] @second {fields}` for each entry.
pub(super) fn shown(managed: &ManagedFields) -> Vec<String> {
    let entries: Vec<Value> = serde_json::from_slice(&managed.to_json()).unwrap();
    let text = |e: &Value, name: &str| e[name].as_str().unwrap_or_default().to_owned();
    let shown = |e: &Value| {
        let time = e["time"].as_str().map(|t| t.parse::<jiff::Timestamp>().unwrap().as_second());
        let time = time.map_or_else(|| "-".to_owned(), |t| t.to_string());
        let sub = text(e, "subresource");
        let sub = if sub.is_empty() { sub } else { format!("/{sub}") };
        format!("{} {}{sub} @{time} {}", text(e, "manager"), text(e, "operation"), e["fieldsV1"])
    };
    entries.iter().map(shown).collect()
}

fn deployment(spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "default"}, "spec": spec})
}

#[test]
fn a_created_pod_is_owned_by_its_creator() {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "a", "namespace": "default", "uid": "1", "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app": "x"}, "finalizers": ["f"],
        },
        "spec": {
            "containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}], "args": ["x"]}],
            "initContainers": [{"name": "i"}],
            "nodeSelector": {"a": "b"}, "restartPolicy": "Always", "securityContext": {},
        },
        "status": {"phase": "Pending"},
    });
    let managed =
        update(&types::<Pod>(), None, &pod, ManagedFields::default(), &writer("kubectl", "v1", 1), &STATUS).unwrap();
    let fields = concat!(
        r#"{"f:metadata":{"f:finalizers":{".":{},"v:\"f\"":{}},"f:labels":{".":{},"f:app":{}}},"#,
        r#""f:spec":{"f:containers":{"k:{\"name\":\"c\"}":{".":{},"f:args":{},"f:image":{},"f:name":{},"#,
        r#""f:ports":{".":{},"k:{\"containerPort\":80,\"protocol\":\"TCP\"}":{".":{},"f:containerPort":{}}}}},"#,
        r#""f:initContainers":{".":{},"k:{\"name\":\"i\"}":{".":{},"f:name":{}}},"#,
        r#""f:nodeSelector":{},"f:restartPolicy":{},"f:securityContext":{}}}"#,
    );
    let text = String::from_utf8(managed.to_json()).unwrap();
    let expected = format!(
        r#"[{{"manager":"kubectl","operation":"Update","apiVersion":"v1","time":"1970-01-01T00:00:01Z","fieldsType":"FieldsV1","fieldsV1":{fields}}}]"#
    );
    assert_eq!(text, expected);
    let again = ManagedFields::from_json(text.as_bytes()).unwrap();
    assert_eq!(String::from_utf8(again.to_json()).unwrap(), text);
    let typed = ManagedFields::from_entries(again.into_entries()).unwrap();
    assert_eq!(String::from_utf8(typed.to_json()).unwrap(), text);
}

#[test]
fn a_status_is_owned_by_who_writes_it() {
    let kind = types::<Pod>();
    let pod = |status: Value| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "uid": "1"}, "spec": {"nodeName": "n"}, "status": status});
    let managed =
        update(&kind, None, &pod(json!({})), ManagedFields::default(), &writer("k", "v1", 1), &STATUS).unwrap();
    let kubelet = Writer { subresource: "status", ..writer("kubelet", "v1", 2) };
    let ready = |value: &str| json!({"phase": "Running", "conditions": [{"type": "Ready", "status": value}]});
    let managed =
        update(&kind, Some(&pod(json!({}))), &pod(ready("False")), managed, &kubelet, &Reset(&["spec"])).unwrap();
    let conditions = r#"{"f:status":{"f:conditions":{".":{},"k:{\"type\":\"Ready\"}":{".":{},"f:status":{},"f:type":{}}},"f:phase":{}}}"#;
    let expected = vec![
        r#"k Update @1 {"f:spec":{"f:nodeName":{}}}"#.to_owned(),
        format!("kubelet Update/status @2 {conditions}"),
    ];
    assert_eq!(shown(&managed), expected);
    let later = Writer { time: jiff::Timestamp::from_second(9).unwrap(), ..kubelet };
    let same = update(&kind, Some(&pod(ready("False"))), &pod(ready("False")), managed.clone(), &later, &STATUS);
    assert_eq!(shown(&same.unwrap()), expected);
    let other = Writer { manager: "other", ..later };
    let taken =
        update(&kind, Some(&pod(ready("False"))), &pod(ready("True")), managed, &other, &Reset(&["spec"])).unwrap();
    assert_eq!(
        shown(&taken)[1..],
        [
            format!("kubelet Update/status @2 {}", conditions.replace(r#""f:status":{},"#, "")),
            r#"other Update/status @9 {"f:status":{"f:conditions":{"k:{\"type\":\"Ready\"}":{"f:status":{}}}}}"#
                .to_owned(),
        ]
    );
}

#[test]
fn nobody_is_tracked_where_nobody_was() {
    let kind = types::<ConfigMap>();
    let old = json!({"metadata": {"name": "a", "uid": "1"}, "data": {"a": "1"}});
    let new = json!({"metadata": {"name": "a", "uid": "1"}, "data": {"a": "2"}});
    let managed = update(&kind, Some(&old), &new, ManagedFields::default(), &writer("x", "v1", 1), &STATUS).unwrap();
    assert!(managed.is_empty());
}

#[test]
fn conflicts_name_who_owns_what() {
    let kind = types::<Deployment>();
    let live = deployment(json!({"replicas": 1, "paused": false}));
    let managed =
        update(&kind, None, &live, ManagedFields::default(), &writer("kubectl-create", "apps/v1", 1), &STATUS).unwrap();
    let one = writer("me", "apps/v1", 2);
    let try_apply =
        |spec: Value, force: bool| apply(&kind, Some(&live), &deployment(spec), managed.clone(), &one, &STATUS, force);
    let shown_error = |e: ApiError| {
        let causes = e.details.and_then(|d| d.causes).unwrap_or_default();
        let cause = |c: k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusCause| {
            format!(
                "{}|{}|{}",
                c.reason.unwrap_or_default(),
                c.message.unwrap_or_default(),
                c.field.unwrap_or_default()
            )
        };
        (e.reason.code(), e.message, causes.into_iter().map(cause).collect::<Vec<_>>())
    };
    assert_eq!(
        shown_error(try_apply(json!({"replicas": 3}), false).unwrap_err()),
        (
            409,
            "Apply failed with 1 conflict: conflict with \"kubectl-create\" using apps/v1: .spec.replicas".to_owned(),
            vec!["FieldManagerConflict|conflict with \"kubectl-create\" using apps/v1|.spec.replicas".to_owned()],
        )
    );
    assert_eq!(
        try_apply(json!({"replicas": 3, "paused": true}), false).unwrap_err().message,
        "Apply failed with 2 conflicts: conflicts with \"kubectl-create\" using apps/v1:\n- .spec.paused\n- .spec.replicas"
    );
    let (object, managed) = try_apply(json!({"replicas": 3}), true).unwrap();
    assert_eq!(object, deployment(json!({"replicas": 3, "paused": false})));
    assert_eq!(
        shown(&managed),
        [r#"me Apply @2 {"f:spec":{"f:replicas":{}}}"#, r#"kubectl-create Update @1 {"f:spec":{"f:paused":{}}}"#,]
    );
}

#[test]
fn what_is_applied_no_more_goes_unless_others_own_it() {
    let kind = types::<Deployment>();
    let container = |items: Value| json!({"template": {"spec": {"containers": items}}});
    let full = deployment(container(json!([
        {"name": "a", "image": "1", "env": [{"name": "X", "value": "1"}], "ports": [{"containerPort": 80, "name": "http"}]},
        {"name": "b", "image": "2"},
    ])));
    let me = writer("me", "apps/v1", 1);
    let (live, managed) = apply(&kind, None, &full, ManagedFields::default(), &me, &STATUS, false).unwrap();
    assert_eq!(live, full);
    let with = deployment(container(json!([
        {"name": "a", "image": "1", "tty": true, "env": [{"name": "X", "value": "1"}], "ports": [{"containerPort": 80, "name": "http"}]},
        {"name": "b", "image": "2"}, {"name": "injected"},
    ])));
    let managed = update(&kind, Some(&live), &with, managed, &writer("mesh", "apps/v1", 2), &STATUS).unwrap();
    let less = deployment(container(json!([{"name": "a", "image": "1"}])));
    let (left, managed) = apply(&kind, Some(&with), &less, managed, &me, &STATUS, false).unwrap();
    assert_eq!(left, deployment(container(json!([{"name": "a", "image": "1", "tty": true}, {"name": "injected"}]))));
    assert_eq!(shown(&managed).len(), 2);
    let nothing = deployment(json!({}));
    let (left, managed) = apply(&kind, Some(&left), &nothing, managed, &me, &STATUS, false).unwrap();
    // An item goes with the last who owns it as such, whatever others set in it.
    assert_eq!(left, deployment(container(json!([{"name": "injected"}]))));
    let injected =
        r#"{"f:spec":{"f:template":{"f:spec":{"f:containers":{"k:{\"name\":\"injected\"}":{".":{},"f:name":{}}}}}}}"#;
    let spec = r#"me Apply @1 {"f:spec":{}}"#.to_owned();
    assert_eq!(shown(&managed), [spec, format!("mesh Update @2 {injected}")]);
}

#[test]
fn lists_without_marks_and_sets() {
    let kind = types::<Service>();
    let service = |metadata: Value, ports: Value| json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": ports}});
    let me = writer("me", "v1", 1);
    let first = service(
        json!({"name": "s", "finalizers": ["a", "b"]}),
        json!([{"port": 80}, {"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]),
    );
    let (live, managed) = apply(&kind, None, &first, ManagedFields::default(), &me, &STATUS, false).unwrap();
    let second = service(json!({"name": "s", "finalizers": ["c", "b"]}), json!([{"port": 53, "protocol": "UDP"}]));
    let (live, _) = apply(&kind, Some(&live), &second, managed, &me, &STATUS, false).unwrap();
    assert_eq!(live, second);
}

#[test]
fn configurations_that_do_not_fit_are_refused() {
    let kind = types::<Deployment>();
    let me = writer("me", "apps/v1", 1);
    let containers = |c: Value| deployment(json!({"template": {"spec": {"containers": c}}}));
    let prefix = "failed to create typed patch object (default/web; apps/v1, Kind=Deployment): ";
    for (config, code, message) in [
        (deployment(json!({"foo": 1})), 500, format!("{prefix}.spec.foo: field not declared in schema")),
        (
            containers(json!([{"name": "a"}, {"name": "a"}])),
            500,
            format!("{prefix}.spec.template.spec.containers: duplicate entries for key [name=\"a\"]"),
        ),
        (
            containers(json!([null])),
            500,
            format!(
                "{prefix}.spec.template.spec.containers: element 0: associative list with keys may not have a null element"
            ),
        ),
        (
            deployment(json!({"template": 1, "x": 2})),
            500,
            format!(
                "{prefix}errors:\n  .spec.template: expected map, got &{{1}}\n  .spec.x: field not declared in schema"
            ),
        ),
        (
            json!({"apiVersion": "apps/v2", "kind": "Deployment"}),
            400,
            "Incorrect version specified in apply patch. Specified patch version: apps/v2, expected: apps/v1"
                .to_owned(),
        ),
        (
            json!({"apiVersion": "apps/v1", "metadata": {"managedFields": []}}),
            400,
            "metadata.managedFields must be nil".to_owned(),
        ),
    ] {
        let error = apply(&kind, None, &config, ManagedFields::default(), &me, &STATUS, false).unwrap_err();
        assert_eq!((error.reason.code(), error.message), (code, message));
    }
}
