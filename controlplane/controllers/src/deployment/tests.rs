//! Plans of Deployments.

use expect_test::{Expect, expect};
use k8s_openapi::api::apps::v1::Deployment;
use podium_api::Kind;
use serde_json::Value;

use super::*;
use crate::test_support::World;

#[expect(clippy::needless_pass_by_value, reason = "reads better in tables")]
fn check(world: &str, plan: Expect) {
    let lines = World::of(world).plan(&Deployments, &Deployment::NAMES, "web");
    plan.assert_eq(&lines.lines().map(readable).collect::<Vec<_>>().join("\n"));
}

/// A line of a plan in fewer words: conditions as three words each, our annotations without where they are from.
fn readable(line: &str) -> String {
    let Some((what, json)) = line.split_once(" {") else { return line.to_owned() };
    let mut content: Value = serde_json::from_str(&format!("{{{json}")).unwrap();
    if let Some(conditions) = content.get_mut("conditions").and_then(Value::as_array_mut) {
        let words = |c: &Value| format!("{} {} {}", c["type"], c["status"], c["reason"]).replace('"', "").into();
        *conditions = conditions.iter().map(words).collect();
    }
    format!("{what} {content}").replace("deployment.kubernetes.io/", "")
}

/// A ReplicaSet of the Deployment: name, image, and the rest.
fn rs(name: &str, image: &str, rest: &str) -> String {
    format!("rs {name} image={image} hash={name} labels=app:web,pod-template-hash:{name} owner=deployment/web {rest}")
}

/// The first one: `a`, of image `v1`.
fn first(words: &str) -> String {
    rs("a", "v1", &format!("rev=1 age=90 {words}"))
}

/// The Deployment with its first ReplicaSet alone.
fn check_first(web: &str, words: &str, plan: Expect) {
    check(&format!("deployment web rev=1 {web}; {}", first(words)), plan);
}

/// The Deployment on its way from the first to `b`, of image `v2`.
fn check_update(web: &str, old: &str, new: &str, plan: Expect) {
    let new = rs("b", "v2", &format!("rev=2 {new}"));
    check(&format!("deployment web rev=2 image=v2 {web}; {}; {new}", first(old)), plan);
}

/// What four replicas were meant for, with one of surge.
const OF_FOUR: &str = "desired=4 max=5";

#[test]
fn makes_the_first_replica_set() {
    check(
        "deployment web replicas=3 deadline=600",
        expect![[r#"
            create replicaset web-548df6b887 {"annotations":{"desired-replicas":"3","max-replicas":"4","revision":"1"},"spec":{"replicas":3}}
            event Normal ScalingReplicaSet: Scaled up replica set web-548df6b887 from 0 to 3
            status deployment web {"conditions":["Progressing True NewReplicaSetCreated","Available False MinimumReplicasUnavailable"],"unavailableReplicas":3}
            patch deployment web {"metadata":{"annotations":{"revision":"1"}}}
            look again after 601s"#]],
    );
}

#[test]
fn copies_annotations_but_not_its_own() {
    let annotations = "annotations=kubernetes.io/change-cause:why,kubectl.kubernetes.io/last-applied-configuration:x";
    check(
        &format!("deployment web replicas=0 {annotations}"),
        expect![[r#"
            create replicaset web-548df6b887 {"annotations":{"desired-replicas":"0","max-replicas":"0","revision":"1","kubernetes.io/change-cause":"why"},"spec":{"replicas":0}}
            status deployment web {"conditions":["Available True MinimumReplicasAvailable"]}
            patch deployment web {"metadata":{"annotations":{"revision":"1"}}}"#]],
    );
}

#[test]
fn settles() {
    check_first(
        "replicas=3 deadline=600 progressing=ReplicaSetUpdated",
        "replicas=3 desired=3 max=4",
        expect![[
            r#"status deployment web {"availableReplicas":3,"conditions":["Available True MinimumReplicasAvailable","Progressing True NewReplicaSetAvailable"],"readyReplicas":3,"replicas":3,"updatedReplicas":3}"#
        ]],
    );
}

#[test]
fn rolls_up_then_down() {
    let sizes = |replicas: &str| format!("{replicas} {OF_FOUR}");
    check_first(
        "replicas=4 image=v2",
        &sizes("replicas=4"),
        expect![[r#"
            create replicaset web-756f99f4f8 {"annotations":{"desired-replicas":"4","max-replicas":"5","revision":"2"},"spec":{"replicas":1}}
            event Normal ScalingReplicaSet: Scaled up replica set web-756f99f4f8 from 0 to 1
            status deployment web {"availableReplicas":4,"conditions":["Available True MinimumReplicasAvailable"],"readyReplicas":4,"replicas":4,"unavailableReplicas":1}
            patch deployment web {"metadata":{"annotations":{"revision":"2"}}}"#]],
    );
    check_update(
        "replicas=4",
        &sizes("replicas=4"),
        &sizes("replicas=1 there=1 ready=0"),
        expect![[r#"
            patch replicaset a {"metadata":{"annotations":{"desired-replicas":"4","max-replicas":"5"}},"spec":{"replicas":3}}
            event Normal ScalingReplicaSet: Scaled down replica set a from 4 to 3
            status deployment web {"availableReplicas":4,"conditions":["Available True MinimumReplicasAvailable"],"readyReplicas":4,"replicas":5,"updatedReplicas":1}"#]],
    );
    check_update(
        "replicas=4",
        &sizes("replicas=3"),
        &sizes("replicas=1"),
        expect![[r#"
            patch replicaset b {"metadata":{"annotations":{"desired-replicas":"4","max-replicas":"5"}},"spec":{"replicas":2}}
            event Normal ScalingReplicaSet: Scaled up replica set b from 1 to 2
            status deployment web {"availableReplicas":4,"conditions":["Available True MinimumReplicasAvailable"],"readyReplicas":4,"replicas":4,"unavailableReplicas":1,"updatedReplicas":1}"#]],
    );
}

#[test]
fn never_goes_below_the_minimum() {
    check_update(
        "replicas=3 surge=1 unavailable=0",
        "replicas=3 desired=3 max=4",
        "replicas=1 ready=0 desired=3 max=4",
        expect![[
            r#"status deployment web {"availableReplicas":3,"conditions":["Available True MinimumReplicasAvailable"],"readyReplicas":3,"replicas":4,"unavailableReplicas":1,"updatedReplicas":1}"#
        ]],
    );
}

#[test]
fn drops_unhealthy_old_pods_first() {
    check_update(
        "replicas=4",
        &format!("replicas=4 ready=2 {OF_FOUR}"),
        &format!("replicas=1 ready=1 {OF_FOUR}"),
        expect![[r#"
            patch replicaset a {"metadata":{"annotations":{"desired-replicas":"4","max-replicas":"5"}},"spec":{"replicas":2}}
            event Normal ScalingReplicaSet: Scaled down replica set a from 4 to 2
            status deployment web {"availableReplicas":3,"conditions":["Available True MinimumReplicasAvailable"],"readyReplicas":3,"replicas":5,"updatedReplicas":1}"#]],
    );
}

/// A ReplicaSet that was scaled down a moment ago still counts the pod that it is about to delete.
#[test]
fn pods_that_are_about_to_go_are_not_counted_as_available() {
    check_update(
        "replicas=6 surge=0 unavailable=1",
        "replicas=3 there=4 ready=4 desired=6 max=6",
        "replicas=3 ready=3 desired=6 max=6",
        expect![[r#"
            patch replicaset a {"metadata":{"annotations":{"desired-replicas":"6","max-replicas":"6"}},"spec":{"replicas":2}}
            event Normal ScalingReplicaSet: Scaled down replica set a from 3 to 2
            status deployment web {"availableReplicas":7,"conditions":["Available True MinimumReplicasAvailable"],"readyReplicas":7,"replicas":7,"updatedReplicas":3}"#]],
    );
}

#[test]
fn recreates() {
    let web = "replicas=2 image=v2 recreate";
    check_first(
        web,
        "replicas=2 desired=2 max=2",
        expect![[r#"
            patch replicaset a {"metadata":{"annotations":{"desired-replicas":"2","max-replicas":"2"}},"spec":{"replicas":0}}
            event Normal ScalingReplicaSet: Scaled down replica set a from 2 to 0
            status deployment web {"availableReplicas":2,"conditions":["Available True MinimumReplicasAvailable"],"readyReplicas":2,"replicas":2}"#]],
    );
    let old = "replicas=0 there=0";
    check_first(
        web,
        &format!("{old}; pod p owner=rs/a node=n1 deleting"),
        expect![[r#"status deployment web {"conditions":["Available False MinimumReplicasUnavailable"]}"#]],
    );
    check_first(
        web,
        old,
        expect![[r#"
            create replicaset web-756f99f4f8 {"annotations":{"desired-replicas":"2","max-replicas":"2","revision":"2"},"spec":{"replicas":2}}
            event Normal ScalingReplicaSet: Scaled up replica set web-756f99f4f8 from 0 to 2
            status deployment web {"conditions":["Available False MinimumReplicasUnavailable"],"unavailableReplicas":2}
            patch deployment web {"metadata":{"annotations":{"revision":"2"}}}"#]],
    );
}

#[test]
fn rolls_back_to_a_known_template() {
    check_update(
        "replicas=1 image=v1",
        "replicas=0 there=0 ready=0",
        "replicas=1 desired=1 max=2",
        expect![[r#"
            patch replicaset a {"metadata":{"annotations":{"revision":"3","revision-history":"1"}}}
            patch replicaset a {"metadata":{"annotations":{"desired-replicas":"1","max-replicas":"2"}},"spec":{"replicas":1}}
            event Normal ScalingReplicaSet: Scaled up replica set a from 0 to 1
            status deployment web {"availableReplicas":1,"conditions":["Available True MinimumReplicasAvailable"],"readyReplicas":1,"replicas":1,"unavailableReplicas":1}
            patch deployment web {"metadata":{"annotations":{"revision":"3"}}}"#]],
    );
}

#[test]
fn scales() {
    check_first(
        "replicas=5",
        "replicas=2 desired=2 max=3",
        expect![[r#"
            patch replicaset a {"metadata":{"annotations":{"desired-replicas":"5","max-replicas":"7"}},"spec":{"replicas":5}}
            event Normal ScalingReplicaSet: Scaled up replica set a from 2 to 5
            status deployment web {"availableReplicas":2,"conditions":["Available False MinimumReplicasUnavailable"],"readyReplicas":2,"replicas":2,"unavailableReplicas":3,"updatedReplicas":2}"#]],
    );
    let (old, new) = ("replicas=8 desired=10 max=13", "replicas=5 ready=0 desired=10 max=13");
    check_update(
        "replicas=20",
        old,
        new,
        expect![[r#"
            patch replicaset a {"metadata":{"annotations":{"desired-replicas":"20","max-replicas":"25"}},"spec":{"replicas":15}}
            event Normal ScalingReplicaSet: Scaled up replica set a from 8 to 15
            patch replicaset b {"metadata":{"annotations":{"desired-replicas":"20","max-replicas":"25"}},"spec":{"replicas":10}}
            event Normal ScalingReplicaSet: Scaled up replica set b from 5 to 10
            status deployment web {"availableReplicas":8,"conditions":["Available False MinimumReplicasUnavailable"],"readyReplicas":8,"replicas":13,"unavailableReplicas":17,"updatedReplicas":5}"#]],
    );
    check_update(
        "replicas=0",
        old,
        new,
        expect![[r#"
            patch replicaset a {"metadata":{"annotations":{"desired-replicas":"0","max-replicas":"0"}},"spec":{"replicas":0}}
            event Normal ScalingReplicaSet: Scaled down replica set a from 8 to 0
            patch replicaset b {"metadata":{"annotations":{"desired-replicas":"0","max-replicas":"0"}},"spec":{"replicas":0}}
            event Normal ScalingReplicaSet: Scaled down replica set b from 5 to 0
            status deployment web {"availableReplicas":8,"conditions":["Available True MinimumReplicasAvailable"],"readyReplicas":8,"replicas":13,"updatedReplicas":5}"#]],
    );
}

#[test]
fn pauses() {
    check_first(
        "replicas=3 image=v2 paused deadline=600",
        "replicas=2 desired=2 max=3",
        expect![[r#"
            patch replicaset a {"metadata":{"annotations":{"desired-replicas":"3","max-replicas":"4"}},"spec":{"replicas":3}}
            event Normal ScalingReplicaSet: Scaled up replica set a from 2 to 3
            status deployment web {"availableReplicas":2,"conditions":["Progressing Unknown DeploymentPaused","Available False MinimumReplicasUnavailable"],"readyReplicas":2,"replicas":2,"unavailableReplicas":1}"#]],
    );
}

#[test]
fn resumes() {
    check_first(
        "replicas=2 deadline=600 progressing=DeploymentPaused there=2",
        "replicas=2 ready=0 desired=2 max=3",
        expect![[r#"
            status deployment web {"conditions":["Progressing Unknown DeploymentResumed","Available False MinimumReplicasUnavailable"],"replicas":2,"unavailableReplicas":2,"updatedReplicas":2}
            look again after 601s"#]],
    );
}

#[test]
fn a_wait_that_changes_is_passed_on() {
    check_first(
        "replicas=1 min-ready=10",
        "replicas=1 desired=1 max=2 min-ready=5",
        expect![[r#"
        patch replicaset a {"metadata":{"annotations":{}},"spec":{"minReadySeconds":10}}
        status deployment web {"availableReplicas":1,"conditions":["Available True MinimumReplicasAvailable"],"readyReplicas":1,"replicas":1,"updatedReplicas":1}"#]],
    );
}

#[test]
fn notices_that_nothing_moves() {
    let web = "replicas=1 deadline=60 progressing=ReplicaSetUpdated";
    let check = |status: &str, plan: Expect| {
        check_first(&format!("{web} {status}"), "replicas=1 ready=0 desired=1 max=2", plan);
    };
    // Pods that were not counted before are progress, however late.
    check(
        "since=61",
        expect![[r#"
            status deployment web {"conditions":["Available False MinimumReplicasUnavailable","Progressing True ReplicaSetUpdated"],"replicas":1,"unavailableReplicas":1,"updatedReplicas":1}
            look again after 61s"#]],
    );
    check(
        "there=1 since=20",
        expect![[r#"
            status deployment web {"conditions":["Progressing True ReplicaSetUpdated","Available False MinimumReplicasUnavailable"],"replicas":1,"unavailableReplicas":1,"updatedReplicas":1}
            look again after 41s"#]],
    );
    check(
        "there=1 since=61",
        expect![[
            r#"status deployment web {"conditions":["Available False MinimumReplicasUnavailable","Progressing False ProgressDeadlineExceeded"],"replicas":1,"unavailableReplicas":1,"updatedReplicas":1}"#
        ]],
    );
}

#[test]
fn forgets_old_revisions() {
    let set = |name: &str, rev: u32| rs(name, name, &format!("replicas=0 there=0 ready=0 rev={rev} age={}", 100 - rev));
    let new = rs("d", "v1", "replicas=1 rev=4 desired=1 max=2");
    let world =
        format!("deployment web replicas=1 rev=4 history=1; {}; {}; {}; {new}", set("a", 1), set("b", 2), set("c", 3));
    check(
        &world,
        expect![[r#"
            delete replicaset a
            delete replicaset b
            status deployment web {"availableReplicas":1,"conditions":["Available True MinimumReplicasAvailable"],"readyReplicas":1,"replicas":1,"updatedReplicas":1}"#]],
    );
}

#[test]
fn counts_what_is_on_its_way_out_when_all_tell() {
    let of_two = "desired=2 max=3";
    let check = |old: &str, new: &str, plan: Expect| {
        check_update(
            "replicas=2 surge=1 unavailable=0",
            &format!("replicas=2 {of_two} {old}"),
            &format!("replicas=1 ready=0 {of_two} {new}"),
            plan,
        );
    };
    check(
        "terminating=2",
        "terminating=1",
        expect![[
            r#"status deployment web {"availableReplicas":2,"conditions":["Available True MinimumReplicasAvailable"],"readyReplicas":2,"replicas":3,"terminatingReplicas":3,"unavailableReplicas":1,"updatedReplicas":1}"#
        ]],
    );
    check(
        "terminating=2",
        "",
        expect![[
            r#"status deployment web {"availableReplicas":2,"conditions":["Available True MinimumReplicasAvailable"],"readyReplicas":2,"replicas":3,"unavailableReplicas":1,"updatedReplicas":1}"#
        ]],
    );
}

#[test]
fn adopts_and_avoids_names_of_others() {
    check(
        "deployment web replicas=1; rs a image=v1",
        expect![[r#"
            patch replicaset a {"metadata":{"ownerReferences":[{"apiVersion":"apps/v1","blockOwnerDeletion":true,"controller":true,"kind":"Deployment","name":"web"}]}}
            patch replicaset a {"metadata":{"annotations":{"revision":"1"}}}
            patch replicaset a {"metadata":{"annotations":{"desired-replicas":"1","max-replicas":"2"}},"spec":{"replicas":1}}
            status deployment web {"availableReplicas":1,"conditions":["Available True MinimumReplicasAvailable"],"readyReplicas":1,"replicas":1,"updatedReplicas":1}
            patch deployment web {"metadata":{"annotations":{"revision":"1"}}}"#]],
    );
    let hash = hash::template_hash(&template(), None);
    check(
        &format!("deployment web replicas=1; rs web-{hash} image=v9 owner=deployment/other"),
        expect![[
            r#"status deployment web {"collisionCount":1,"conditions":["Available False MinimumReplicasUnavailable"],"terminatingReplicas":0}"#
        ]],
    );
}

fn template() -> k8s_openapi::api::core::v1::PodTemplateSpec {
    let value = serde_json::json!({
        "metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "v1"}]},
    });
    serde_json::from_value(value).unwrap()
}

#[test]
fn rounds_as_kubernetes_does() {
    let bounds = |text: &str| {
        let world = World::of(text);
        let key = podium_api::ObjectKey::new("d", "web");
        let deployment = world.get_as::<Deployment>(&key).unwrap();
        (set::max_surge(&deployment), set::max_unavailable(&deployment))
    };
    for (text, expected) in [
        ("replicas=3", (1, 0)),
        ("replicas=10", (3, 2)),
        ("replicas=10 surge=30% unavailable=25%", (3, 2)),
        ("replicas=1 surge=0 unavailable=0", (0, 1)),
        ("replicas=2 surge=0% unavailable=10%", (0, 1)),
        ("replicas=2 surge=5 unavailable=9", (5, 2)),
        ("replicas=0 surge=1 unavailable=1", (1, 0)),
        ("replicas=4 recreate", (0, 0)),
    ] {
        assert_eq!(bounds(&format!("deployment web {text}")), expected, "{text}");
    }
}
