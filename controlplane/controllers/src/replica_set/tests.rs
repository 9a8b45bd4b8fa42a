//! Plans of ReplicaSets.

use expect_test::{Expect, expect};
use k8s_openapi::api::apps::v1::ReplicaSet;
use podium_api::Kind;

use super::*;
use crate::test_support::{NOW, World, show};

#[expect(clippy::needless_pass_by_value, reason = "reads better in tables")]
fn check(world: &str, plan: Expect) {
    plan.assert_eq(&World::of(world).plan(&ReplicaSets, &ReplicaSet::NAMES, "web"));
}

#[test]
fn creates_what_is_missing() {
    check(
        "rs web replicas=2 there=0 ready=0",
        expect![[r#"
            create pod web-* {"spec":{}}; tell SuccessfulCreate: Created pod: …
            create pod web-* {"spec":{}}; tell SuccessfulCreate: Created pod: …
            status replicaset web {"replicas":0,"terminatingReplicas":0}"#]],
    );
    check(
        "rs web replicas=2 there=1; pod a owner=rs/web ready node=n1",
        expect![[r#"
            create pod web-* {"spec":{}}; tell SuccessfulCreate: Created pod: …
            status replicaset web {"availableReplicas":1,"fullyLabeledReplicas":1,"readyReplicas":1,"replicas":1,"terminatingReplicas":0}"#]],
    );
    check(
        "rs web replicas=1; pod a owner=rs/web ready node=n1 deleting",
        expect![[r#"
            create pod web-* {"spec":{}}; tell SuccessfulCreate: Created pod: …
            status replicaset web {"replicas":0,"terminatingReplicas":1}"#]],
    );
    check(
        "rs web replicas=1; pod a owner=rs/web phase=Failed node=n1",
        expect![[r#"
            create pod web-* {"spec":{}}; tell SuccessfulCreate: Created pod: …
            status replicaset web {"replicas":0,"terminatingReplicas":0}"#]],
    );
    check(
        "rs web replicas=1 there=0 deleting",
        expect![[r#"status replicaset web {"replicas":0,"terminatingReplicas":0}"#]],
    );
}

#[test]
fn bounds_a_plan() {
    let plan = World::of("rs web replicas=2000 there=0").plan(&ReplicaSets, &ReplicaSet::NAMES, "web");
    let creates = plan.lines().filter(|line| line.starts_with("create")).count();
    let told = plan.lines().filter(|line| line.contains("tell")).count();
    assert_eq!((creates, told), (BURST_MAX, EVENTS_MAX));
}

#[test]
fn deletes_what_is_missed_least() {
    let pods = "pod old owner=rs/web node=n1 ready age=90; pod young owner=rs/web node=n2 ready age=50";
    let delete = |more: &str, plan: Expect| check(&format!("rs web replicas=2 there=3; {pods}; {more}"), plan);
    delete(
        "pod x owner=rs/web ready age=99",
        expect![[r#"
            delete pod x
            event Normal SuccessfulDelete: Deleted pod: x
            status replicaset web {"availableReplicas":3,"fullyLabeledReplicas":3,"readyReplicas":3,"replicas":3,"terminatingReplicas":0}"#]],
    );
    delete(
        "pod x owner=rs/web node=n3 age=99",
        expect![[r#"
            delete pod x
            event Normal SuccessfulDelete: Deleted pod: x
            status replicaset web {"availableReplicas":2,"fullyLabeledReplicas":3,"readyReplicas":2,"replicas":3,"terminatingReplicas":0}"#]],
    );
    delete(
        "pod x owner=rs/web node=n3 ready age=99 annotations=controller.kubernetes.io/pod-deletion-cost:-1",
        expect![[r#"
            delete pod x
            event Normal SuccessfulDelete: Deleted pod: x
            status replicaset web {"availableReplicas":3,"fullyLabeledReplicas":3,"readyReplicas":3,"replicas":3,"terminatingReplicas":0}"#]],
    );
    delete(
        "pod x owner=rs/web node=n1 ready age=99",
        expect![[r#"
            delete pod old
            event Normal SuccessfulDelete: Deleted pod: old
            status replicaset web {"availableReplicas":3,"fullyLabeledReplicas":3,"readyReplicas":3,"replicas":3,"terminatingReplicas":0}"#]],
    );
    delete(
        "pod x owner=rs/web node=n3 ready=5 age=99",
        expect![[r#"
            delete pod x
            event Normal SuccessfulDelete: Deleted pod: x
            status replicaset web {"availableReplicas":3,"fullyLabeledReplicas":3,"readyReplicas":3,"replicas":3,"terminatingReplicas":0}"#]],
    );
    delete(
        "pod x owner=rs/web node=n3 ready restarts=3 age=99",
        expect![[r#"
            delete pod x
            event Normal SuccessfulDelete: Deleted pod: x
            status replicaset web {"availableReplicas":3,"fullyLabeledReplicas":3,"readyReplicas":3,"replicas":3,"terminatingReplicas":0}"#]],
    );
    delete(
        "pod x owner=rs/web node=n3 ready age=99",
        expect![[r#"
            delete pod young
            event Normal SuccessfulDelete: Deleted pod: young
            status replicaset web {"availableReplicas":3,"fullyLabeledReplicas":3,"readyReplicas":3,"replicas":3,"terminatingReplicas":0}"#]],
    );
}

#[test]
fn adopts_and_releases() {
    check(
        "rs web replicas=1; pod a ready node=n1",
        expect![[r#"
            patch pod a {"metadata":{"ownerReferences":[{"apiVersion":"apps/v1","blockOwnerDeletion":true,"controller":true,"kind":"ReplicaSet","name":"web"}]}}
            status replicaset web {"availableReplicas":1,"fullyLabeledReplicas":1,"readyReplicas":1,"replicas":1,"terminatingReplicas":0}"#]],
    );
    check(
        "rs web replicas=1; pod a ready node=n1 labels=app:other owner=rs/web",
        expect![[r#"
            patch pod a {"metadata":{"ownerReferences":[]}}
            create pod web-* {"spec":{}}; tell SuccessfulCreate: Created pod: …
            status replicaset web {"replicas":0,"terminatingReplicas":0}"#]],
    );
    check(
        "rs web replicas=1 there=0 ready=0; pod a node=n1 owner=rs/other",
        expect![[r#"
            create pod web-* {"spec":{}}; tell SuccessfulCreate: Created pod: …
            status replicaset web {"replicas":0,"terminatingReplicas":0}"#]],
    );
}

#[test]
fn an_orphan_that_has_ended_is_left_alone() {
    let plan =
        World::of("rs web replicas=1; pod a phase=Succeeded node=n1").plan(&ReplicaSets, &ReplicaSet::NAMES, "web");
    assert!(plan.starts_with("create pod web-*"), "{plan}");
}

#[test]
fn counts_pods_available_after_their_wait() {
    let pods = "pod a owner=rs/web ready=30 node=n1; pod b owner=rs/web ready=4 node=n1";
    check(
        &format!("rs web replicas=2 min-ready=10; {pods}"),
        expect![[r#"
            status replicaset web {"availableReplicas":1,"fullyLabeledReplicas":2,"readyReplicas":2,"replicas":2,"terminatingReplicas":0}
            look again after 6s"#]],
    );
}

#[test]
fn says_when_pods_are_refused() {
    let refused = |world: &str| {
        let names = podium_api::kind_of::<Pod>().names();
        let error = ApiError::forbidden(&names, "web-x", "exceeded quota");
        let key = Key::new(&ReplicaSet::NAMES, podium_api::ObjectKey::new("d", "web"));
        show(&ReplicaSets.refused(&key, &error, &World::of(world), Timestamp::from_second(NOW).unwrap()))
    };
    expect![[r#"
        event Warning FailedCreate: Error creating: pods "web-x" is forbidden: exceeded quota
        status replicaset web {"availableReplicas":1,"conditions":[{"reason":"FailedCreate","status":"True","type":"ReplicaFailure"}],"fullyLabeledReplicas":1,"readyReplicas":1,"replicas":1,"terminatingReplicas":0}"#]].assert_eq(&refused("rs web replicas=2 there=0; pod a owner=rs/web ready node=n1"));
    expect![[r#"
        event Warning FailedDelete: Error deleting: pods "web-x" is forbidden: exceeded quota
        status replicaset web {"availableReplicas":1,"conditions":[{"reason":"FailedDelete","status":"True","type":"ReplicaFailure"}],"fullyLabeledReplicas":1,"readyReplicas":1,"replicas":1,"terminatingReplicas":0}"#]].assert_eq(&refused("rs web replicas=0 there=1; pod a owner=rs/web ready node=n1"));
}

#[test]
fn wakes_for_its_pods() {
    let world = World::of("rs web; rs other labels=app:x");
    let keys = |pod: &str| world.keys(&ReplicaSets, pod);
    assert_eq!(keys("pod a owner=rs/web"), "replicasets.apps d/web");
    assert_eq!(keys("pod a labels=app:nobody"), "");
    expect!["replicasets.apps d/web, replicasets.apps d/other"].assert_eq(&keys("pod orphan"));
}

#[test]
fn replication_controllers_go_the_same_way() {
    let plan = |world: &str| World::of(world).plan(&ReplicationControllers, &ReplicationController::NAMES, "web");
    expect![[r#"
        patch pod a {"metadata":{"ownerReferences":[{"apiVersion":"v1","blockOwnerDeletion":true,"controller":true,"kind":"ReplicationController","name":"web"}]}}
        create pod web-* {"spec":{}}; tell SuccessfulCreate: Created pod: …
        status replicationcontroller web {"availableReplicas":1,"fullyLabeledReplicas":1,"readyReplicas":1,"replicas":1}"#]]
    .assert_eq(&plan("rc web replicas=2; pod a ready node=n1; pod theirs owner=rs/web"));
    expect![[r#"
        delete pod b
        event Normal SuccessfulDelete: Deleted pod: b
        status replicationcontroller web {"availableReplicas":1,"fullyLabeledReplicas":2,"readyReplicas":1,"replicas":2}"#]]
    .assert_eq(&plan("rc web replicas=1; pod a owner=rc/web ready node=n1; pod b owner=rc/web"));
    let world = World::of("rc web; rc other labels=app:x; rs web");
    assert_eq!(world.keys(&ReplicationControllers, "pod a owner=rc/web"), "replicationcontrollers d/web");
    assert_eq!(world.keys(&ReplicationControllers, "pod a owner=rs/web"), "");
}
