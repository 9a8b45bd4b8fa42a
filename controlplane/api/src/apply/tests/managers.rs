//! The managers: how many are kept, what came before them, what was applied on the client's side, other versions.

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Pod},
};
use serde_json::{Value, json};

use super::{
    super::{ManagedFields, Reset, Schemas, Versions, Writer, apply, set::Set, update},
    kinds::{shown, types, writer},
};
use crate::schema::RootType;

const STATUS: Reset<'static> = Reset(&["status"]);

fn entry(manager: &str, version: &str, second: i64, fields: &[&str]) -> Value {
    let fields: serde_json::Map<String, Value> = fields.iter().map(|f| (format!("f:{f}"), json!({}))).collect();
    json!({
        "manager": manager, "operation": "Update", "apiVersion": version,
        "time": jiff::Timestamp::from_second(second).unwrap().to_string(), "fieldsType": "FieldsV1", "fieldsV1": fields,
    })
}

fn managed(entries: &[Value]) -> ManagedFields {
    ManagedFields::from_json(&serde_json::to_vec(entries).unwrap()).unwrap()
}

#[test]
fn the_oldest_updates_are_put_together() {
    let e = entry;
    let old = "ancient-changes";
    for (what, before, after) in [
        (
            "one version",
            vec![e("1", "v1", 1, &["a"]), e("2", "v1", 2, &["b"]), e("3", "v1", 3, &["c"]), e("4", "v1", 4, &["d"])],
            vec![e(old, "v1", 2, &["a", "b"]), e("3", "v1", 3, &["c"]), e("4", "v1", 4, &["d"])],
        ),
        (
            "one version, with old changes",
            vec![
                e(old, "v1", 2, &["a", "b"]),
                e("3", "v1", 3, &["c"]),
                e("4", "v1", 4, &["d"]),
                e("5", "v1", 5, &["e"]),
            ],
            vec![e(old, "v1", 3, &["a", "b", "c"]), e("4", "v1", 4, &["d"]), e("5", "v1", 5, &["e"])],
        ),
        (
            "two versions",
            vec![
                e("1", "v1", 1, &["a"]),
                e("2", "v2", 2, &["b"]),
                e("3", "v1", 3, &["c"]),
                e("4", "v1", 4, &["d"]),
                e("5", "v1", 5, &["e"]),
            ],
            vec![e("2", "v2", 2, &["b"]), e(old, "v1", 4, &["a", "c", "d"]), e("5", "v1", 5, &["e"])],
        ),
        (
            "three versions",
            vec![
                e("2", "v2", 2, &["b"]),
                e(old, "v1", 4, &["a", "c", "d"]),
                e("5", "v1", 5, &["e"]),
                e("6", "v3", 6, &["f"]),
                e("7", "v2", 7, &["g"]),
            ],
            vec![e(old, "v1", 5, &["a", "c", "d", "e"]), e("6", "v3", 6, &["f"]), e(old, "v2", 7, &["b", "g"])],
        ),
        (
            "four versions",
            vec![e(old, "v1", 5, &["a"]), e("6", "v3", 6, &["f"]), e(old, "v2", 7, &["b"]), e("8", "v4", 8, &["h"])],
            vec![e(old, "v1", 5, &["a"]), e("6", "v3", 6, &["f"]), e(old, "v2", 7, &["b"]), e("8", "v4", 8, &["h"])],
        ),
    ] {
        let mut capped = managed(&before);
        capped.cap_updates_to(3);
        assert_eq!(shown(&capped), shown(&managed(&after)), "{what}");
    }
}

#[test]
fn no_more_than_ten_managers_update() {
    let kind = types::<ConfigMap>();
    let map = |n: i64| {
        let data: serde_json::Map<String, Value> = (0..n).map(|i| (format!("k{i:02}"), json!("v"))).collect();
        json!({"metadata": {"name": "a"}, "data": data})
    };
    let mut managed = ManagedFields::default();
    for n in 1..=30 {
        let name = format!("m{n}");
        managed = update(&kind, Some(&map(n - 1)), &map(n), managed, &writer(&name, "v1", n), &STATUS).unwrap();
    }
    let shown = shown(&managed);
    assert_eq!(shown.len(), 10);
    assert!(shown[0].starts_with("ancient-changes Update @21 {\"f:data\":{\"f:k00\":{},"), "{}", shown[0]);
}

#[test]
fn entries_that_are_none_are_refused() {
    for (change, message) in [
        (json!({"operation": "Look"}), "operation must be `Apply` or `Update`"),
        (json!({"apiVersion": ""}), "apiVersion must not be empty"),
        (json!({"fieldsType": ""}), "missing fieldsType in managed fields entry 0"),
        (json!({"fieldsType": "F"}), "invalid fieldsType \"F\" in managed fields entry 0"),
    ] {
        let mut bad = entry("m", "v1", 1, &[]);
        crate::patch::merge(&mut bad, &change);
        let json = serde_json::to_vec(&[bad.clone()]).unwrap();
        assert_eq!(ManagedFields::from_json(&json).unwrap_err().message, message);
        let typed = vec![serde_json::from_value(bad).unwrap()];
        assert_eq!(ManagedFields::from_entries(typed).unwrap_err().message, message);
    }
    assert_eq!(ManagedFields::from_json(b"{}").unwrap_err().reason.code(), 400);
}

#[test]
fn what_clients_send_is_put_in_order() {
    let mut sent = entry("m", "v1", 1, &[]);
    sent["fieldsV1"] = serde_json::from_str(r#"{"f:b": {}, "f:a": {".": {}, "f:c": {}}, "q:x": {}}"#).unwrap();
    let read = ManagedFields::from_entries(vec![serde_json::from_value(sent.clone()).unwrap()]).unwrap();
    assert!(String::from_utf8(read.to_json()).unwrap().contains(r#""fieldsV1":{"f:a":{".":{},"f:c":{}},"f:b":{}}"#));
    sent["fieldsV1"] = json!({"f:a": 1});
    assert!(ManagedFields::from_entries(vec![serde_json::from_value(sent).unwrap()]).is_err());
}

#[test]
fn a_hundred_thousand_fields_in_the_wrong_order() {
    let fields: String = (0..100_000).rev().map(|n| format!("\"f:x{n:06}\":{{}},")).collect();
    let text = format!("{{{}}}", fields.trim_end_matches(','));
    let set = Set::from_fields(&mut serde_json::Deserializer::from_str(&text)).unwrap();
    assert_eq!((set.nodes().len(), set.to_fields().len()), (100_000, text.len()));
}

#[test]
fn what_was_there_before_the_first_apply_has_an_owner() {
    let kind = types::<Pod>();
    let pod = |label: &str, uid: Value| json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "uid": uid, "labels": {"app": label}}});
    let (live, config) = (pod("mine", json!("1")), pod("new", Value::Null));
    let me = writer("me", "v1", 5);
    let refused = apply(&kind, Some(&live), &config, ManagedFields::default(), &me, &STATUS, false).unwrap_err();
    assert_eq!(
        refused.message,
        "Apply failed with 1 conflict: conflict with \"before-first-apply\" using v1: .metadata.labels.app"
    );
    let (_, managed) = apply(&kind, Some(&live), &config, ManagedFields::default(), &me, &STATUS, true).unwrap();
    assert_eq!(
        shown(&managed),
        [
            r#"me Apply @5 {"f:metadata":{"f:labels":{"f:app":{}}}}"#,
            r#"before-first-apply Update @5 {"f:metadata":{"f:labels":{}}}"#,
        ]
    );
}

fn deployment(labels: Value, replicas: i64, last: Option<&Value>) -> Value {
    let mut metadata = json!({"name": "d", "labels": labels});
    if let Some(last) = last {
        metadata["annotations"] = json!({"kubectl.kubernetes.io/last-applied-configuration": last.to_string()});
    }
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": {"replicas": replicas}})
}

#[test]
fn kubectl_takes_over_what_it_applied_on_the_clients_side() {
    let kind = types::<Deployment>();
    let last = deployment(json!({"a": "1"}), 3, None);
    let live = deployment(json!({"a": "1"}), 3, Some(&last));
    let scaled = deployment(json!({"a": "1"}), 9, Some(&last));
    let wanted = deployment(json!({"a": "2"}), 4, None);
    let client = writer("kubectl-client-side-apply", "apps/v1", 1);
    let owned = |live: &Value| update(&kind, None, live, ManagedFields::default(), &client, &STATUS).unwrap();
    let (object, managed) =
        apply(&kind, Some(&live), &wanted, owned(&live), &writer("kubectl", "apps/v1", 2), &STATUS, false).unwrap();
    assert_eq!(object["spec"], json!({"replicas": 4}));
    assert_eq!(
        object["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"],
        "{\"apiVersion\":\"apps/v1\",\"kind\":\"Deployment\",\"metadata\":{\"labels\":{\"a\":\"2\"},\"name\":\"d\"},\"spec\":{\"replicas\":4}}\n"
    );
    assert!(shown(&managed)[0].starts_with("kubectl Apply @2 "));
    for (manager, live, fields) in [
        ("kubectl", &scaled, vec![".spec.replicas"]),
        ("somebody", &live, vec![".metadata.labels.a", ".spec.replicas"]),
    ] {
        let refused =
            apply(&kind, Some(live), &wanted, owned(live), &writer(manager, "apps/v1", 2), &STATUS, false).unwrap_err();
        let causes = refused.details.and_then(|d| d.causes).unwrap_or_default();
        assert_eq!(causes.iter().filter_map(|c| c.field.as_deref()).collect::<Vec<_>>(), fields, "{manager}");
    }
}

#[test]
fn the_time_moves_with_the_object() {
    let kind = types::<ConfigMap>();
    let map = |value: &str| json!({"apiVersion": "v1", "metadata": {"name": "m"}, "data": {"a": value}});
    let step = |live: Option<&Value>, value: &str, managed: ManagedFields, second: i64| {
        apply(&kind, live, &map(value), managed, &writer("me", "v1", second), &STATUS, false).unwrap()
    };
    let (live, managed) = step(None, "1", ManagedFields::default(), 1);
    let (live, managed) = step(Some(&live), "1", managed, 2);
    assert_eq!(shown(&managed), [r#"me Apply @1 {"f:data":{"f:a":{}}}"#]);
    let (live, managed) = step(Some(&live), "2", managed, 3);
    assert_eq!(shown(&managed), [r#"me Apply @3 {"f:data":{"f:a":{}}}"#]);
    assert_eq!(live, map("2"));
}

#[test]
fn what_is_reset_is_not_owned() {
    let kind = types::<Deployment>();
    let config = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "labels": {"a": "1"}},
        "spec": {"replicas": 1}, "status": {"replicas": 1},
    });
    let me = writer("me", "apps/v1", 1);
    let owned = |reset: &Reset<'_>| {
        shown(&apply(&kind, None, &config, ManagedFields::default(), &me, reset, false).unwrap().1).join("\n")
    };
    assert_eq!(owned(&STATUS), r#"me Apply @1 {"f:metadata":{"f:labels":{"f:a":{}}},"f:spec":{"f:replicas":{}}}"#);
    assert_eq!(owned(&Reset(&["spec", "metadata.labels"])), r#"me Apply @1 {"f:status":{"f:replicas":{}}}"#);
}

/// Two versions, of which `v2` calls `old` `new`; there was a `v0` once.
struct Renamed(RootType);

impl Versions for Renamed {
    fn convert(&self, value: &Value, to_api_version: &str) -> Option<Value> {
        let (from, to) = match to_api_version {
            "v1" => ("new", "old"),
            "v2" => ("old", "new"),
            _ => return None,
        };
        let mut value = value.clone();
        let spec = value.get_mut("spec").and_then(Value::as_object_mut);
        if let Some((spec, moved)) = spec.and_then(|spec| spec.remove(from).map(|moved| (spec, moved))) {
            spec.insert(to.to_owned(), moved);
        }
        value["apiVersion"] = to_api_version.into();
        Some(value)
    }

    fn types(&self, api_version: &str) -> Option<RootType> {
        matches!(api_version, "v1" | "v2").then(|| self.0.clone())
    }
}

#[test]
fn managers_of_other_versions_keep_and_lose_their_fields() {
    let versions = Renamed(RootType::any());
    let schemas = Schemas { types: &versions.0, versions: Some(&versions) };
    let me = |version| Writer { manager: "me", ..writer("", version, 1) };
    let v1 = |value: i64| json!({"apiVersion": "v1", "metadata": {}, "spec": {"old": value}});
    let v2 = |value: i64| json!({"apiVersion": "v2", "metadata": {}, "spec": {"new": value}});
    let before = managed(&[entry("gone", "v0", 1, &["spec"])]);
    let (live, owned) =
        apply(schemas, Some(&json!({"apiVersion": "v1", "metadata": {}})), &v1(1), before, &me("v1"), &STATUS, false)
            .unwrap();
    assert_eq!(shown(&owned), [r#"me Apply @1 {"f:spec":{".":{},"f:old":{}}}"#]);
    assert_eq!(live, v1(1));
    let other = Writer { manager: "other", ..me("v2") };
    let live = versions.convert(&live, "v2").unwrap();
    let refused = apply(schemas, Some(&live), &v2(2), owned.clone(), &other, &STATUS, false).unwrap_err();
    assert_eq!(refused.message, "Apply failed with 1 conflict: conflict with \"me\": .spec.old");
    let (object, taken) = apply(schemas, Some(&live), &v2(2), owned.clone(), &other, &STATUS, true).unwrap();
    assert_eq!(object, v2(2));
    assert_eq!(shown(&taken), [r#"me Apply @1 {"f:spec":{}}"#, r#"other Apply @1 {"f:spec":{".":{},"f:new":{}}}"#]);
    let nothing = json!({"apiVersion": "v2", "metadata": {}});
    let (object, left) = apply(schemas, Some(&live), &nothing, owned, &me("v2"), &STATUS, false).unwrap();
    assert_eq!(object, nothing);
    assert_eq!(shown(&left).len(), 0);
}
