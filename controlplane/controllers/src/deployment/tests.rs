//! Plans of Deployments.

use expect_test::{Expect, expect};
use k8s_openapi::api::apps::v1::Deployment;
use podium_api::Kind;

use super::*;
use crate::test_support::World;

#[expect(clippy::needless_pass_by_value, reason = "reads better in tables")]
fn check(world: &str, plan: Expect) {
    plan.assert_eq(&World::of(world).plan(&Deployments, &Deployment::NAMES, "web"));
}

/// A ReplicaSet of the Deployment: name, image, and the rest.
fn rs(name: &str, image: &str, rest: &str) -> String {
    format!("rs {name} image={image} hash={name} labels=app:web,pod-template-hash:{name} owner=deployment/web {rest}")
}

#[test]
fn makes_the_first_replica_set() {
    check(
        "deployment web replicas=3 deadline=600",
        expect![[r#"
        create replicaset web-548df6b887 {"annotations":{"deployment.kubernetes.io/desired-replicas":"3","deployment.kubernetes.io/max-replicas":"4","deployment.kubernetes.io/revision":"1"},"spec":{"replicas":3}}
        event Normal ScalingReplicaSet: Scaled up replica set web-548df6b887 from 0 to 3
        status deployment web {"conditions":[{"reason":"NewReplicaSetCreated","status":"True","type":"Progressing"},{"reason":"MinimumReplicasUnavailable","status":"False","type":"Available"}],"unavailableReplicas":3}
        patch deployment web {"metadata":{"annotations":{"deployment.kubernetes.io/revision":"1"}}}
        look again after 601s"#]],
    );
}

#[test]
fn copies_annotations_but_not_its_own() {
    let annotations = "annotations=kubernetes.io/change-cause:why,kubectl.kubernetes.io/last-applied-configuration:x";
    check(
        &format!("deployment web replicas=0 {annotations}"),
        expect![[r#"
        create replicaset web-548df6b887 {"annotations":{"deployment.kubernetes.io/desired-replicas":"0","deployment.kubernetes.io/max-replicas":"0","deployment.kubernetes.io/revision":"1","kubernetes.io/change-cause":"why"},"spec":{"replicas":0}}
        status deployment web {"conditions":[{"reason":"MinimumReplicasAvailable","status":"True","type":"Available"}]}
        patch deployment web {"metadata":{"annotations":{"deployment.kubernetes.io/revision":"1"}}}"#]],
    );
}

#[test]
fn settles() {
    let set = rs("a", "v1", "replicas=3 rev=1 desired=3 max=4");
    check(
        &format!("deployment web replicas=3 rev=1 deadline=600 progressing=ReplicaSetUpdated; {set}"),
        expect![[
            r#"status deployment web {"availableReplicas":3,"conditions":[{"reason":"MinimumReplicasAvailable","status":"True","type":"Available"},{"reason":"NewReplicaSetAvailable","status":"True","type":"Progressing"}],"readyReplicas":3,"replicas":3,"updatedReplicas":3}"#
        ]],
    );
}

#[test]
fn rolls_up_then_down() {
    let old = rs("a", "v1", "replicas=4 rev=1 desired=4 max=5 age=90");
    check(
        &format!("deployment web replicas=4 rev=1 image=v2; {old}"),
        expect![[r#"
        create replicaset web-756f99f4f8 {"annotations":{"deployment.kubernetes.io/desired-replicas":"4","deployment.kubernetes.io/max-replicas":"5","deployment.kubernetes.io/revision":"2"},"spec":{"replicas":1}}
        event Normal ScalingReplicaSet: Scaled up replica set web-756f99f4f8 from 0 to 1
        status deployment web {"availableReplicas":4,"conditions":[{"reason":"MinimumReplicasAvailable","status":"True","type":"Available"}],"readyReplicas":4,"replicas":4,"unavailableReplicas":1}
        patch deployment web {"metadata":{"annotations":{"deployment.kubernetes.io/revision":"2"}}}"#]],
    );
    let new = rs("b", "v2", "replicas=1 there=1 ready=0 rev=2 desired=4 max=5");
    check(
        &format!("deployment web replicas=4 rev=2 image=v2; {old}; {new}"),
        expect![[r#"
        patch replicaset a {"metadata":{"annotations":{"deployment.kubernetes.io/desired-replicas":"4","deployment.kubernetes.io/max-replicas":"5"}},"spec":{"replicas":3}}
        event Normal ScalingReplicaSet: Scaled down replica set a from 4 to 3
        status deployment web {"availableReplicas":4,"conditions":[{"reason":"MinimumReplicasAvailable","status":"True","type":"Available"}],"readyReplicas":4,"replicas":5,"updatedReplicas":1}"#]],
    );
    let old = rs("a", "v1", "replicas=3 rev=1 desired=4 max=5 age=90");
    let new = rs("b", "v2", "replicas=1 rev=2 desired=4 max=5");
    check(
        &format!("deployment web replicas=4 rev=2 image=v2; {old}; {new}"),
        expect![[r#"
        patch replicaset b {"metadata":{"annotations":{"deployment.kubernetes.io/desired-replicas":"4","deployment.kubernetes.io/max-replicas":"5"}},"spec":{"replicas":2}}
        event Normal ScalingReplicaSet: Scaled up replica set b from 1 to 2
        status deployment web {"availableReplicas":4,"conditions":[{"reason":"MinimumReplicasAvailable","status":"True","type":"Available"}],"readyReplicas":4,"replicas":4,"unavailableReplicas":1,"updatedReplicas":1}"#]],
    );
}

#[test]
fn never_goes_below_the_minimum() {
    let old = rs("a", "v1", "replicas=3 rev=1 desired=3 max=4 age=90");
    let new = rs("b", "v2", "replicas=1 ready=0 rev=2 desired=3 max=4");
    check(
        &format!("deployment web replicas=3 rev=2 image=v2 surge=1 unavailable=0; {old}; {new}"),
        expect![[
            r#"status deployment web {"availableReplicas":3,"conditions":[{"reason":"MinimumReplicasAvailable","status":"True","type":"Available"}],"readyReplicas":3,"replicas":4,"unavailableReplicas":1,"updatedReplicas":1}"#
        ]],
    );
}

#[test]
fn drops_unhealthy_old_pods_first() {
    let old = rs("a", "v1", "replicas=4 ready=2 rev=1 desired=4 max=5 age=90");
    let new = rs("b", "v2", "replicas=1 ready=1 rev=2 desired=4 max=5");
    check(
        &format!("deployment web replicas=4 rev=2 image=v2; {old}; {new}"),
        expect![[r#"
        patch replicaset a {"metadata":{"annotations":{"deployment.kubernetes.io/desired-replicas":"4","deployment.kubernetes.io/max-replicas":"5"}},"spec":{"replicas":2}}
        event Normal ScalingReplicaSet: Scaled down replica set a from 4 to 2
        status deployment web {"availableReplicas":3,"conditions":[{"reason":"MinimumReplicasAvailable","status":"True","type":"Available"}],"readyReplicas":3,"replicas":5,"updatedReplicas":1}"#]],
    );
}

/// A ReplicaSet that was scaled down a moment ago still counts the pod that it is about to delete.
#[test]
fn pods_that_are_about_to_go_are_not_counted_as_available() {
    let old = rs("a", "v1", "replicas=3 there=4 ready=4 rev=1 desired=6 max=6 age=90");
    let new = rs("b", "v2", "replicas=3 ready=3 rev=2 desired=6 max=6");
    check(
        &format!("deployment web replicas=6 rev=2 image=v2 surge=0 unavailable=1; {old}; {new}"),
        expect![[r#"
        patch replicaset a {"metadata":{"annotations":{"deployment.kubernetes.io/desired-replicas":"6","deployment.kubernetes.io/max-replicas":"6"}},"spec":{"replicas":2}}
        event Normal ScalingReplicaSet: Scaled down replica set a from 3 to 2
        status deployment web {"availableReplicas":7,"conditions":[{"reason":"MinimumReplicasAvailable","status":"True","type":"Available"}],"readyReplicas":7,"replicas":7,"updatedReplicas":3}"#]],
    );
}

#[test]
fn recreates() {
    let web = "deployment web replicas=2 rev=1 image=v2 recreate";
    check(
        &format!("{web}; {}", rs("a", "v1", "replicas=2 rev=1 desired=2 max=2")),
        expect![[r#"
        patch replicaset a {"metadata":{"annotations":{"deployment.kubernetes.io/desired-replicas":"2","deployment.kubernetes.io/max-replicas":"2"}},"spec":{"replicas":0}}
        event Normal ScalingReplicaSet: Scaled down replica set a from 2 to 0
        status deployment web {"availableReplicas":2,"conditions":[{"reason":"MinimumReplicasAvailable","status":"True","type":"Available"}],"readyReplicas":2,"replicas":2}"#]],
    );
    let old = rs("a", "v1", "replicas=0 there=0 rev=1");
    check(
        &format!("{web}; {old}; pod p owner=rs/a node=n1 deleting"),
        expect![[
            r#"status deployment web {"conditions":[{"reason":"MinimumReplicasUnavailable","status":"False","type":"Available"}]}"#
        ]],
    );
    check(
        &format!("{web}; {old}"),
        expect![[r#"
        create replicaset web-756f99f4f8 {"annotations":{"deployment.kubernetes.io/desired-replicas":"2","deployment.kubernetes.io/max-replicas":"2","deployment.kubernetes.io/revision":"2"},"spec":{"replicas":2}}
        event Normal ScalingReplicaSet: Scaled up replica set web-756f99f4f8 from 0 to 2
        status deployment web {"conditions":[{"reason":"MinimumReplicasUnavailable","status":"False","type":"Available"}],"unavailableReplicas":2}
        patch deployment web {"metadata":{"annotations":{"deployment.kubernetes.io/revision":"2"}}}"#]],
    );
}

#[test]
fn rolls_back_to_a_known_template() {
    let current = rs("b", "v2", "replicas=1 rev=2 desired=1 max=2");
    let before = rs("a", "v1", "replicas=0 there=0 ready=0 rev=1 age=90");
    check(
        &format!("deployment web replicas=1 rev=2 image=v1; {before}; {current}"),
        expect![[r#"
        patch replicaset a {"metadata":{"annotations":{"deployment.kubernetes.io/revision":"3","deployment.kubernetes.io/revision-history":"1"}}}
        patch replicaset a {"metadata":{"annotations":{"deployment.kubernetes.io/desired-replicas":"1","deployment.kubernetes.io/max-replicas":"2"}},"spec":{"replicas":1}}
        event Normal ScalingReplicaSet: Scaled up replica set a from 0 to 1
        status deployment web {"availableReplicas":1,"conditions":[{"reason":"MinimumReplicasAvailable","status":"True","type":"Available"}],"readyReplicas":1,"replicas":1,"unavailableReplicas":1}
        patch deployment web {"metadata":{"annotations":{"deployment.kubernetes.io/revision":"3"}}}"#]],
    );
}

#[test]
fn scales() {
    let one = rs("a", "v1", "replicas=2 rev=1 desired=2 max=3");
    check(
        &format!("deployment web replicas=5 rev=1; {one}"),
        expect![[r#"
        patch replicaset a {"metadata":{"annotations":{"deployment.kubernetes.io/desired-replicas":"5","deployment.kubernetes.io/max-replicas":"7"}},"spec":{"replicas":5}}
        event Normal ScalingReplicaSet: Scaled up replica set a from 2 to 5
        status deployment web {"availableReplicas":2,"conditions":[{"reason":"MinimumReplicasUnavailable","status":"False","type":"Available"}],"readyReplicas":2,"replicas":2,"unavailableReplicas":3,"updatedReplicas":2}"#]],
    );
    let old = rs("a", "v1", "replicas=8 rev=1 desired=10 max=13 age=90");
    let new = rs("b", "v2", "replicas=5 ready=0 rev=2 desired=10 max=13");
    check(
        &format!("deployment web replicas=20 rev=2 image=v2; {old}; {new}"),
        expect![[r#"
        patch replicaset a {"metadata":{"annotations":{"deployment.kubernetes.io/desired-replicas":"20","deployment.kubernetes.io/max-replicas":"25"}},"spec":{"replicas":15}}
        event Normal ScalingReplicaSet: Scaled up replica set a from 8 to 15
        patch replicaset b {"metadata":{"annotations":{"deployment.kubernetes.io/desired-replicas":"20","deployment.kubernetes.io/max-replicas":"25"}},"spec":{"replicas":10}}
        event Normal ScalingReplicaSet: Scaled up replica set b from 5 to 10
        status deployment web {"availableReplicas":8,"conditions":[{"reason":"MinimumReplicasUnavailable","status":"False","type":"Available"}],"readyReplicas":8,"replicas":13,"unavailableReplicas":17,"updatedReplicas":5}"#]],
    );
    check(
        &format!("deployment web replicas=0 rev=2 image=v2; {old}; {new}"),
        expect![[r#"
        patch replicaset a {"metadata":{"annotations":{"deployment.kubernetes.io/desired-replicas":"0","deployment.kubernetes.io/max-replicas":"0"}},"spec":{"replicas":0}}
        event Normal ScalingReplicaSet: Scaled down replica set a from 8 to 0
        patch replicaset b {"metadata":{"annotations":{"deployment.kubernetes.io/desired-replicas":"0","deployment.kubernetes.io/max-replicas":"0"}},"spec":{"replicas":0}}
        event Normal ScalingReplicaSet: Scaled down replica set b from 5 to 0
        status deployment web {"availableReplicas":8,"conditions":[{"reason":"MinimumReplicasAvailable","status":"True","type":"Available"}],"readyReplicas":8,"replicas":13,"updatedReplicas":5}"#]],
    );
}

#[test]
fn pauses() {
    let old = rs("a", "v1", "replicas=2 rev=1 desired=2 max=3");
    check(
        &format!("deployment web replicas=3 rev=1 image=v2 paused deadline=600; {old}"),
        expect![[r#"
        patch replicaset a {"metadata":{"annotations":{"deployment.kubernetes.io/desired-replicas":"3","deployment.kubernetes.io/max-replicas":"4"}},"spec":{"replicas":3}}
        event Normal ScalingReplicaSet: Scaled up replica set a from 2 to 3
        status deployment web {"availableReplicas":2,"conditions":[{"reason":"DeploymentPaused","status":"Unknown","type":"Progressing"},{"reason":"MinimumReplicasUnavailable","status":"False","type":"Available"}],"readyReplicas":2,"replicas":2,"unavailableReplicas":1}"#]],
    );
}

#[test]
fn notices_that_nothing_moves() {
    let new = rs("a", "v1", "replicas=1 ready=0 rev=1 desired=1 max=2");
    let web = "deployment web replicas=1 rev=1 deadline=60 progressing=ReplicaSetUpdated";
    let check = |status: &str, plan: Expect| check(&format!("{web} {status}; {new}"), plan);
    // Pods that were not counted before are progress, however late.
    check(
        "since=61",
        expect![[r#"
        status deployment web {"conditions":[{"reason":"MinimumReplicasUnavailable","status":"False","type":"Available"},{"reason":"ReplicaSetUpdated","status":"True","type":"Progressing"}],"replicas":1,"unavailableReplicas":1,"updatedReplicas":1}
        look again after 61s"#]],
    );
    check(
        "there=1 since=20",
        expect![[r#"
        status deployment web {"conditions":[{"reason":"ReplicaSetUpdated","status":"True","type":"Progressing"},{"reason":"MinimumReplicasUnavailable","status":"False","type":"Available"}],"replicas":1,"unavailableReplicas":1,"updatedReplicas":1}
        look again after 41s"#]],
    );
    check(
        "there=1 since=61",
        expect![[
            r#"status deployment web {"conditions":[{"reason":"MinimumReplicasUnavailable","status":"False","type":"Available"},{"reason":"ProgressDeadlineExceeded","status":"False","type":"Progressing"}],"replicas":1,"unavailableReplicas":1,"updatedReplicas":1}"#
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
        status deployment web {"availableReplicas":1,"conditions":[{"reason":"MinimumReplicasAvailable","status":"True","type":"Available"}],"readyReplicas":1,"replicas":1,"updatedReplicas":1}"#]],
    );
}

#[test]
fn adopts_and_avoids_names_of_others() {
    check(
        "deployment web replicas=1; rs a image=v1",
        expect![[r#"
        patch replicaset a {"metadata":{"ownerReferences":[{"apiVersion":"apps/v1","blockOwnerDeletion":true,"controller":true,"kind":"Deployment","name":"web"}]}}
        patch replicaset a {"metadata":{"annotations":{"deployment.kubernetes.io/revision":"1"}}}
        patch replicaset a {"metadata":{"annotations":{"deployment.kubernetes.io/desired-replicas":"1","deployment.kubernetes.io/max-replicas":"2"}},"spec":{"replicas":1}}
        status deployment web {"availableReplicas":1,"conditions":[{"reason":"MinimumReplicasAvailable","status":"True","type":"Available"}],"readyReplicas":1,"replicas":1,"updatedReplicas":1}
        patch deployment web {"metadata":{"annotations":{"deployment.kubernetes.io/revision":"1"}}}"#]],
    );
    let hash = hash::template_hash(&template(), None);
    check(
        &format!("deployment web replicas=1; rs web-{hash} image=v9 owner=deployment/other"),
        expect![[
            r#"status deployment web {"collisionCount":1,"conditions":[{"reason":"MinimumReplicasUnavailable","status":"False","type":"Available"}]}"#
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
