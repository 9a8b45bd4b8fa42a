//! Patches of all formats: what they do, what they refuse, and that they never panic.

//! Tables of patches and what they make of objects, with Kubernetes' own cases.

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Pod, Service},
};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{KindRef, kind_of};

fn strategic(kind: &KindRef, current: Value, patch: Value) -> Result<Value, ApiError> {
    apply(&**kind, current, &PatchBody::Strategic(patch))
}

fn pod(spec: Value) -> Value {
    json!({"spec": spec})
}

#[test]
fn strategic_merges_by_key() {
    let kind = kind_of::<Pod>();
    for (what, current, patch, expected) in [
        (
            "an item is merged",
            json!({"containers": [{"name": "a", "image": "1"}, {"name": "b"}]}),
            json!({"containers": [{"name": "a", "image": "2"}]}),
            json!({"containers": [{"name": "a", "image": "2"}, {"name": "b"}]}),
        ),
        (
            "a new item goes first, as in Kubernetes",
            json!({"containers": [{"name": "a"}]}),
            json!({"containers": [{"name": "b"}]}),
            json!({"containers": [{"name": "b"}, {"name": "a"}]}),
        ),
        (
            "an item is deleted",
            json!({"containers": [{"name": "a"}, {"name": "b"}]}),
            json!({"containers": [{"name": "a", "$patch": "delete"}]}),
            json!({"containers": [{"name": "b"}]}),
        ),
        (
            "a list is replaced",
            json!({"containers": [{"name": "a"}, {"name": "b"}]}),
            json!({"containers": [{"$patch": "replace"}, {"name": "c"}]}),
            json!({"containers": [{"name": "c"}]}),
        ),
        (
            "nested keys",
            json!({"containers": [{"name": "a", "env": [{"name": "X", "value": "1"}, {"name": "Y"}]}]}),
            json!({"containers": [{"name": "a", "env": [{"name": "X", "value": "2"}]}]}),
            json!({"containers": [{"name": "a", "env": [{"name": "X", "value": "2"}, {"name": "Y"}]}]}),
        ),
        (
            "null deletes a field",
            json!({"nodeName": "n", "hostname": "h"}),
            json!({"nodeName": null}),
            json!({"hostname": "h"}),
        ),
        (
            "atomic lists are replaced",
            json!({"tolerations": [{"key": "a"}]}),
            json!({"tolerations": [{"key": "b"}]}),
            json!({"tolerations": [{"key": "b"}]}),
        ),
    ] {
        assert_eq!(strategic(&kind, pod(current), pod(patch)).unwrap(), pod(expected), "{what}");
    }
}

#[test]
fn strategic_directives_and_whole_values() {
    let kind = kind_of::<Pod>();
    for (what, current, patch, expected) in [
        (
            "order",
            json!({"containers": [{"name": "a"}, {"name": "b"}, {"name": "c"}]}),
            json!({"$setElementOrder/containers": [{"name": "c"}, {"name": "a"}]}),
            json!({"containers": [{"name": "b"}, {"name": "c"}, {"name": "a"}]}),
        ),
        (
            "retain keys",
            json!({"volumes": [{"name": "v", "emptyDir": {}}]}),
            json!({"volumes": [{"name": "v", "$retainKeys": ["name", "hostPath"], "hostPath": {"path": "/"}}]}),
            json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}),
        ),
        (
            "an object is replaced",
            json!({"securityContext": {"runAsUser": 1}}),
            json!({"securityContext": {"$patch": "replace", "fsGroup": 2}}),
            json!({"securityContext": {"fsGroup": 2}}),
        ),
        (
            "an object is emptied",
            json!({"securityContext": {"runAsUser": 1}}),
            json!({"securityContext": {"$patch": "delete"}}),
            json!({"securityContext": {}}),
        ),
        (
            "new values hold no directives",
            json!({}),
            json!({"containers": [{"name": "a", "image": null, "$patch": "delete"}, {"name": "b", "tty": null}]}),
            json!({"containers": [{"name": "b"}]}),
        ),
        (
            "maps are merged",
            json!({"nodeSelector": {"a": "1", "b": "2"}}),
            json!({"nodeSelector": {"a": null, "c": "3"}}),
            json!({"nodeSelector": {"b": "2", "c": "3"}}),
        ),
    ] {
        assert_eq!(strategic(&kind, pod(current), pod(patch)).unwrap(), pod(expected), "{what}");
    }
}

#[test]
fn strategic_lists_of_plain_values_and_metadata() {
    let kind = kind_of::<ConfigMap>();
    let current = json!({"metadata": {"finalizers": ["a", "b"], "ownerReferences": [{"uid": "1", "name": "x"}]}});
    let patch = json!({"metadata": {
        "$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"],
        "ownerReferences": [{"uid": "1", "$patch": "delete"}],
    }});
    let expected = json!({"metadata": {"finalizers": ["c", "b"], "ownerReferences": []}});
    let mut sorted = strategic(&kind, current, patch).unwrap();
    if let Some(list) = sorted.pointer_mut("/metadata/finalizers").and_then(Value::as_array_mut) {
        list.sort_by_key(|v| std::cmp::Reverse(v.to_string()));
    }
    assert_eq!(sorted, expected);
    let service = kind_of::<Service>();
    let ports = strategic(
        &service,
        json!({"spec": {"ports": [{"port": 80, "name": "a"}]}}),
        json!({"spec": {"ports": [{"port": 80, "targetPort": 8080}]}}),
    );
    assert_eq!(ports.unwrap(), json!({"spec": {"ports": [{"port": 80, "name": "a", "targetPort": 8080}]}}));
}

#[test]
fn refused_patches_say_why() {
    let kind = kind_of::<Pod>();
    let current = || json!({"spec": {"containers": [{"name": "a"}]}});
    for (patch, code, message) in [
        (
            PatchBody::Strategic(json!({"spec": {"$patch": "explode"}})),
            500,
            "unknown patch type: explode in map: map[$patch:explode]",
        ),
        (
            PatchBody::Strategic(json!({"spec": {"containers": [{"image": "x"}]}})),
            500,
            "map: map[image:x] does not contain declared merge key: name",
        ),
        (
            PatchBody::Strategic(json!({"spec": {"containers": ["x"]}})),
            500,
            "list element types are not identical: [[map[name:a]] [x]]",
        ),
        (PatchBody::Strategic(json!([])), 400, "error decoding patch: it must be a JSON object"),
        (
            PatchBody::Json(json!([{"op": "test", "path": "/spec/x", "value": 1}])),
            422,
            "the server rejected our request due to an error in our request: testing value /spec/x failed: test failed",
        ),
        (
            PatchBody::Json(json!([{"op": "add", "path": "/a", "value": 1}, {"op": "remove", "path": "/nope"}])),
            422,
            "the server rejected our request due to an error in our request: error in remove for path: '/nope': Unable to remove nonexistent key: nope: missing value",
        ),
        (
            PatchBody::Json(json!([{"op": "bounce", "path": "/a"}])),
            400,
            "error decoding patch: unknown variant `bounce`, expected one of `add`, `remove`, `replace`, `move`, `copy`, `test`",
        ),
    ] {
        let error = apply(&*kind, current(), &patch).unwrap_err();
        assert_eq!((error.reason.code(), error.message.as_str()), (code, message));
    }
    assert_eq!(PatchBody::read("text/plain", b"").unwrap_err().reason.code(), 415);
    assert_eq!(PatchBody::read("application/merge-patch+json", b"{").unwrap_err().reason.code(), 400);
}

#[test]
fn failing_json_patches_say_what_kubernetes_says() {
    let kind = kind_of::<ConfigMap>();
    let current = || json!({"data": {"a": "1"}, "list": [1]});
    for (operation, why) in [
        (json!({"op": "test", "path": "/data/a", "value": "2"}), "testing value /data/a failed: test failed"),
        (
            json!({"op": "test", "path": "/x/y", "value": null}),
            "test operation does not apply: is missing path: /x/y: missing value",
        ),
        (
            json!({"op": "add", "path": "/x/y", "value": 1}),
            "add operation does not apply: doc is missing path: \"/x/y\": missing value",
        ),
        (
            json!({"op": "replace", "path": "/data/b", "value": 1}),
            "replace operation does not apply: doc is missing key: /data/b: missing value",
        ),
        (
            json!({"op": "replace", "path": "/x/y", "value": 1}),
            "replace operation does not apply: doc is missing path: /x/y: missing value",
        ),
        (
            json!({"op": "remove", "path": "/x/y"}),
            "remove operation does not apply: doc is missing path: \"/x/y\": missing value",
        ),
        (
            json!({"op": "move", "from": "/x/y", "path": "/z"}),
            "move operation does not apply: doc is missing from path: /x/y: missing value",
        ),
        (
            json!({"op": "copy", "from": "/x/y", "path": "/z"}),
            "copy operation does not apply: doc is missing from path: /x/y: missing value",
        ),
    ] {
        let error = apply(&*kind, current(), &PatchBody::Json(json!([operation]))).unwrap_err();
        let expected = format!("the server rejected our request due to an error in our request: {why}");
        assert_eq!((error.reason.code(), error.message), (422, expected));
    }
    let absent =
        json!([{"op": "test", "path": "/data/b", "value": null}, {"op": "add", "path": "/data/b", "value": "2"}]);
    let done = apply(&*kind, current(), &PatchBody::Json(absent)).unwrap();
    assert_eq!(done, json!({"data": {"a": "1", "b": "2"}, "list": [1]}));
}

#[test]
fn json_patches_are_bounded() {
    let kind = kind_of::<ConfigMap>();
    let many = vec![json!({"op": "test", "path": "", "value": {}}); JSON_PATCH_OPERATIONS_MAX + 1];
    assert_eq!(apply(&*kind, json!({}), &PatchBody::Json(many.into())).unwrap_err().reason.code(), 413);
    let doubling: Vec<Value> = (0..64).map(|i| json!({"op": "copy", "from": "", "path": format!("/k{i}")})).collect();
    assert_eq!(apply(&*kind, json!({"a": 1}), &PatchBody::Json(doubling.into())).unwrap_err().reason.code(), 413);
    let deep: Vec<Value> =
        (0..=DEPTH_MAX).map(|i| json!({"op": "add", "path": "/a".repeat(i + 1), "value": {}})).collect();
    assert_eq!(apply(&*kind, json!({}), &PatchBody::Json(deep.into())).unwrap_err().reason.code(), 422);
    let ok = json!([{"op": "add", "path": "/data/x", "value": "1"}, {"op": "test", "path": "/data/x", "value": "1"}]);
    let done = apply(&*kind, json!({"data": {}}), &PatchBody::Json(ok)).unwrap();
    assert_eq!(done, json!({"data": {"x": "1"}}));
}

#[test]
fn three_way_patches_bring_about_what_is_wanted() {
    let kind = kind_of::<Deployment>();
    let meta = PatchMeta::of(&*kind).unwrap();
    let spec = |v: Value| json!({"spec": {"template": {"spec": v}}});
    for (what, original, modified, current, expected) in [
        (
            "nothing to do",
            json!({"containers": [{"name": "a"}]}),
            json!({"containers": [{"name": "a"}]}),
            json!({"containers": [{"name": "a", "image": "defaulted"}]}),
            json!({"containers": [{"name": "a", "image": "defaulted"}]}),
        ),
        (
            "change one, keep what others set",
            json!({"containers": [{"name": "a", "image": "1"}]}),
            json!({"containers": [{"name": "a", "image": "2"}]}),
            json!({"containers": [{"name": "a", "image": "1", "tty": true}, {"name": "sidecar"}]}),
            json!({"containers": [{"name": "a", "image": "2", "tty": true}, {"name": "sidecar"}]}),
        ),
        (
            "delete what was applied",
            json!({"hostname": "h", "containers": [{"name": "a"}, {"name": "b"}]}),
            json!({"containers": [{"name": "a"}]}),
            json!({"hostname": "h", "nodeName": "n", "containers": [{"name": "a"}, {"name": "b"}]}),
            json!({"nodeName": "n", "containers": [{"name": "a"}]}),
        ),
        (
            "reorder",
            json!({"containers": [{"name": "a"}, {"name": "b"}]}),
            json!({"containers": [{"name": "b"}, {"name": "a"}]}),
            json!({"containers": [{"name": "a"}, {"name": "b"}]}),
            json!({"containers": [{"name": "b"}, {"name": "a"}]}),
        ),
        (
            "volumes change their source",
            json!({"volumes": [{"name": "v", "emptyDir": {}}]}),
            json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}),
            json!({"volumes": [{"name": "v", "emptyDir": {}}]}),
            json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}),
        ),
    ] {
        let (original, modified, current) = (spec(original), spec(modified), spec(current));
        let patch = three_way(Some(&meta), &original, &modified, &current);
        assert_eq!(patch == json!({}), current == spec(expected.clone()), "{what}: {patch}");
        assert_eq!(strategic(&kind, current, patch).unwrap(), spec(expected), "{what}");
    }
}

#[test]
fn every_kind_has_patch_metadata() {
    for kind in crate::kinds::all() {
        assert!(PatchMeta::of(&*kind).is_some(), "{}", kind.schema_name());
    }
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i8>().prop_map(Value::from),
        "[a-c]{0,2}".prop_map(Value::from)
    ];
    let key = prop_oneof![
        "[a-c]",
        Just("spec".to_owned()),
        Just("containers".to_owned()),
        Just("name".to_owned()),
        Just("$patch".to_owned()),
        Just("$retainKeys".to_owned()),
        Just("$setElementOrder/containers".to_owned()),
        Just("$deleteFromPrimitiveList/a".to_owned()),
    ];
    leaf.prop_recursive(5, 32, 4, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::hash_map(key.clone(), inner, 0..4)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn merge_patches_are_idempotent(mut target in json_value(), patch in json_value()) {
        merge(&mut target, &patch);
        let once = target.clone();
        merge(&mut target, &patch);
        prop_assert_eq!(once, target);
    }

    #[test]
    fn patches_never_panic(current in json_value(), patch in json_value()) {
        let kind = kind_of::<Pod>();
        for body in [PatchBody::Json(patch.clone()), PatchBody::Merge(patch.clone()), PatchBody::Strategic(patch)] {
            let _ = apply(&*kind, current.clone(), &body);
        }
    }
}
