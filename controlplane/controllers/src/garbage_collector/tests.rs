//! What the garbage collector plans.

use expect_test::{Expect, expect};
use k8s_openapi::api::{
    apps::v1::ReplicaSet,
    core::v1::{ConfigMap, Node, Pod},
};

use super::*;
use crate::test_support::World;

#[expect(clippy::needless_pass_by_value, reason = "reads better in tables")]
fn pod(world: &str, expected: Expect) {
    expected.assert_eq(&World::of(world).plan(&GarbageCollector, &Pod::NAMES, "p"));
}

#[expect(clippy::needless_pass_by_value, reason = "reads better in tables")]
fn set(world: &str, expected: Expect) {
    expected.assert_eq(&World::of(world).plan(&GarbageCollector, &ReplicaSet::NAMES, "r"));
}

#[test]
fn deletes_what_nobody_owns() {
    pod("pod p owner=rs/r", expect!["delete pod p Background"]);
    pod("pod p owner=rs/r; rs r", expect![[""]]);
    pod(
        "pod p owner=rs/r,configmap/c loosely; configmap c",
        expect![[
            r#"patch pod p {"metadata":{"ownerReferences":[{"apiVersion":"v1","blockOwnerDeletion":false,"controller":false,"kind":"ConfigMap","name":"c"}]}}"#
        ]],
    );
    pod("pod p owner=rs/r,configmap/c loosely", expect!["delete pod p Background"]);
    pod("pod p owner=Foo/x", expect![[""]]);
    pod("pod p owner=rs/r deleting", expect![[""]]);
    pod("pod p", expect![[""]]);
}

#[test]
fn an_owner_of_another_namespace_is_none() {
    let there = serde_json::json!({"metadata": {"name": "c", "namespace": "other", "uid": "configmap/c"}});
    let plan = |world: &str, names: &podium_api::Names, name: &str| {
        World::of(world).plus::<ConfigMap>(there.clone()).plan(&GarbageCollector, names, name)
    };
    expect![[r#"
        event Warning OwnerRefInvalidNamespace: ownerRef [v1/ConfigMap, namespace: d, name: c, uid: configmap/c] does not exist in namespace "d"
        delete pod p Background"#]]
    .assert_eq(&plan("pod p owner=configmap/c age=5", &Pod::NAMES, "p"));
    assert_eq!(plan("pod p owner=configmap/c", &Pod::NAMES, "p"), "delete pod p Background", "it was told before");
    assert_eq!(plan("pod p owner=configmap/gone age=5", &Pod::NAMES, "p"), "delete pod p Background");
    // What lives in no namespace stays for ever.
    expect![[r#"event Warning OwnerRefInvalidNamespace: ownerRef [v1/ConfigMap, namespace: , name: c, uid: configmap/c] does not exist in namespace """#]]
        .assert_eq(&plan("node n owner=configmap/c age=5", &Node::NAMES, "n"));
}

#[test]
fn waits_for_a_mirror_that_lags() {
    let plan = |age: u32| {
        let world = World::of(&format!("pod p owner=rs/r age={age}")).at(6);
        world.plan(&GarbageCollector, &Pod::NAMES, "p")
    };
    assert_eq!(plan(10), "look again after 1s");
    assert_eq!(plan(31), "delete pod p Background");
}

#[test]
fn deletes_dependents_first_in_the_foreground() {
    let owner = "rs r deleting finalizers=foregroundDeletion";
    pod(&format!("{owner}; pod p owner=rs/r"), expect!["delete pod p Background"]);
    set(&format!("{owner}; pod p owner=rs/r"), expect![[""]]);
    set(
        &format!("{owner}; pod p owner=rs/r loosely"),
        expect![[r#"patch replicaset r {"metadata":{"finalizers":[]}}"#]],
    );
    set(owner, expect![[r#"patch replicaset r {"metadata":{"finalizers":[]}}"#]]);
    let above = "deployment d deleting finalizers=foregroundDeletion";
    set(&format!("{above}; rs r owner=deployment/d; pod p owner=rs/r"), expect!["delete replicaset r Foreground"]);
}

#[test]
fn circles_do_not_block() {
    // p <- q <- r <- p, p deleted in the foreground: q and r go in the foreground too, and the last unblocks the others.
    let circle = |p: &str, q: &str| format!("pod p owner=pod/r {p}; pod q owner=pod/p {q}; pod r owner=pod/q");
    let plan = |world: &str, name: &str| World::of(world).plan(&GarbageCollector, &Pod::NAMES, name);
    let going = "deleting finalizers=foregroundDeletion";
    assert_eq!(plan(&circle(going, ""), "q"), "delete pod q Foreground");
    assert_eq!(plan(&circle(going, ""), "r"), "");
    expect![[r#"patch pod r {"metadata":{"ownerReferences":[{"apiVersion":"v1","blockOwnerDeletion":false,"controller":true,"kind":"Pod","name":"q"}]}}"#]]
    .assert_eq(&plan(&circle(going, going), "r"));
    assert_eq!(plan(&format!("{} loosely", circle(going, going)), "r"), "delete pod r Foreground");
    let last = format!("{} loosely {going}", circle(going, going));
    expect![[r#"patch pod q {"metadata":{"finalizers":[]}}"#]].assert_eq(&plan(&last, "q"));
}

#[test]
fn orphans() {
    set(
        "rs r deleting finalizers=orphan,x; pod p owner=rs/r",
        expect![[r#"
        patch pod p {"metadata":{"ownerReferences":[]}}
        patch replicaset r {"metadata":{"finalizers":["x"]}}"#]],
    );
}

#[test]
fn wakes_owners_and_dependents() {
    let check = |world: &str, changed: &str, expected: &str| {
        assert_eq!(World::of(world).keys(&GarbageCollector, changed), expected, "{world} / {changed}");
    };
    check("pod p", "pod p", "");
    check("pod p owner=rs/r; rs r", "pod p owner=rs/r", "pods d/p");
    check("pod p owner=rs/r", "rs r", "pods d/p");
    check("rs r deleting finalizers=foregroundDeletion", "pod p owner=rs/r", "replicasets.apps d/r");
    let going = "rs r deleting finalizers=foregroundDeletion";
    check(&format!("{going}; pod p owner=rs/r"), going, "replicasets.apps d/r, pods d/p");
}
