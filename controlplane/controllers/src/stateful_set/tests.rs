//! Plans of StatefulSets. `REV1` is the revision of image `v1`, `REV2` that of `v2`.

use expect_test::{Expect, expect};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::StatusDetails;
use podium_api::ObjectKey;

use super::*;
use crate::{
    controller_history::{data_of, hash},
    test_support::{NOW, World, show},
};

/// The name of the revision of an image.
fn revision(image: &str) -> String {
    let template = serde_json::json!({
        "metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]},
    });
    format!("web-{}", hash(&data_of(&serde_json::from_value(template).unwrap()), 0))
}

/// With the names of revisions in place of `REV1` and `REV2`.
fn world(text: &str) -> World {
    World::of(&text.replace("REV1", &revision("v1")).replace("REV2", &revision("v2")))
}

/// A plan's text with `REV1` and `REV2` again, and without what revisions hold.
fn readable(plan: &str) -> String {
    let line = |line: &str| match line.split_once("{\"data\":") {
        Some((before, after)) => format!("{before}{}", after.rsplit_once(',').unwrap().1.trim_end_matches('}')),
        None => line.to_owned(),
    };
    let lines: Vec<String> = plan.lines().map(line).collect();
    lines.join("\n").replace(&revision("v1"), "REV1").replace(&revision("v2"), "REV2")
}

#[expect(clippy::needless_pass_by_value, reason = "reads better in tables")]
fn check(text: &str, plan: Expect) {
    plan.assert_eq(&readable(&world(text).plan(&StatefulSets, &StatefulSet::NAMES, "web")));
}

/// A set that has its first revision, with these words and these counts of pods, all of them well.
fn set(words: &str, pods: u32) -> String {
    let counts = match pods {
        0 => String::new(),
        n => format!(
            "status=replicas:{n},readyReplicas:{n},availableReplicas:{n},currentReplicas:{n},updatedReplicas:{n}"
        ),
    };
    format!("sts web current=REV1 update=REV1 {counts} {words}; revision REV1 image=v1 rev=1 owner=sts/web")
}

/// A pod that is well.
fn well(ordinal: u32, revision: &str) -> String {
    format!("member web-{ordinal} owner=sts/web at={revision} node=n1 ready")
}

fn all_well(ordinals: std::ops::Range<u32>, revision: &str) -> String {
    ordinals.map(|n| well(n, revision)).collect::<Vec<_>>().join("; ")
}

#[test]
fn makes_revision_claims_and_pods_in_order() {
    check(
        "sts web replicas=2 claims=v",
        expect![[r#"
        create controllerrevision REV1 "revision":1
        create persistentvolumeclaim v-web-0 {"spec":{"accessModes":["ReadWriteOnce"]}}; tell SuccessfulCreate: create Claim v-web-0 Pod web-0 in StatefulSet web success…
        create pod web-0 {"spec":{"hostname":"web-0","subdomain":"db","volumes":[{"name":"v","persistentVolumeClaim":{"claimName":"v-web-0"}}]}}; tell SuccessfulCreate: create Pod web-0 in StatefulSet web successful…
        status statefulset web {"availableReplicas":0,"collisionCount":0,"currentRevision":"REV1","replicas":0,"updateRevision":"REV1"}"#]],
    );
    let one = all_well(0..1, "REV1");
    check(
        &format!("{}; {one}", set("replicas=2", 1)),
        expect![[
            r#"create pod web-1 {"spec":{"hostname":"web-1","subdomain":"db"}}; tell SuccessfulCreate: create Pod web-1 in StatefulSet web successful…"#
        ]],
    );
    check(
        &format!("{}; {}", set("replicas=2", 1), one.replace("ready", "")),
        expect![[
            r#"status statefulset web {"availableReplicas":0,"collisionCount":0,"currentReplicas":1,"currentRevision":"REV1","replicas":1,"updateRevision":"REV1","updatedReplicas":1}"#
        ]],
    );
    check(
        &format!("{}; {}", set("replicas=2 min-ready=40", 1), one),
        expect![[r#"
        status statefulset web {"availableReplicas":0,"collisionCount":0,"currentReplicas":1,"currentRevision":"REV1","readyReplicas":1,"replicas":1,"updateRevision":"REV1","updatedReplicas":1}
        look again after 10s"#]],
    );
    check(
        &format!("{}; {one} deleting", set("replicas=2", 1)),
        expect![[
            r#"status statefulset web {"availableReplicas":1,"collisionCount":0,"currentRevision":"REV1","readyReplicas":1,"replicas":1,"updateRevision":"REV1"}"#
        ]],
    );
}

#[test]
fn nothing_is_done_when_all_is_well() {
    check(&format!("{}; {}", set("replicas=3", 3), all_well(0..3, "REV1")), expect![[""]]);
}

#[test]
fn makes_all_at_once_when_told_so() {
    check(
        &format!("{}; {}", set("replicas=3 parallel", 1), well(1, "REV1")),
        expect![[r#"
        create pod web-0 {"spec":{"hostname":"web-0","subdomain":"db"}}; tell SuccessfulCreate: create Pod web-0 in StatefulSet web successful…
        create pod web-2 {"spec":{"hostname":"web-2","subdomain":"db"}}; tell SuccessfulCreate: create Pod web-2 in StatefulSet web successful…"#]],
    );
    let plan = world(&set("replicas=2000 parallel", 0)).plan(&StatefulSets, &StatefulSet::NAMES, "web");
    let creates = plan.lines().filter(|line| line.starts_with("create pod")).count();
    let told = plan.lines().filter(|line| line.contains("tell")).count();
    assert_eq!((creates, told), (replicas::BURST_MAX, replicas::EVENTS_MAX));
}

#[test]
fn ordinals_start_where_told() {
    check(
        &format!("{}; {}", set("replicas=2 start=5", 2), all_well(4..6, "REV1")),
        expect![[
            r#"create pod web-6 {"spec":{"hostname":"web-6","subdomain":"db"}}; tell SuccessfulCreate: create Pod web-6 in StatefulSet web successful…"#
        ]],
    );
}

#[test]
fn makes_anew_what_has_ended() {
    let two = all_well(0..2, "REV1");
    check(
        &format!("{}; {}", set("replicas=2", 2), two.replacen("ready", "phase=Failed", 1)),
        expect![[r#"
        delete pod web-0
        event Normal SuccessfulDelete: delete Pod web-0 in StatefulSet web successful
        status statefulset web {"availableReplicas":1,"collisionCount":0,"currentReplicas":2,"currentRevision":"REV1","readyReplicas":1,"replicas":2,"updateRevision":"REV1","updatedReplicas":2}"#]],
    );
    check(
        &format!("{}; {}", set("replicas=2 parallel", 2), two.replace("ready", "phase=Succeeded")),
        expect![[r#"
        delete pod web-0
        delete pod web-1
        event Normal SuccessfulDelete: delete Pod web-0 in StatefulSet web successful
        event Normal SuccessfulDelete: delete Pod web-1 in StatefulSet web successful
        status statefulset web {"availableReplicas":0,"collisionCount":0,"currentReplicas":2,"currentRevision":"REV1","replicas":2,"updateRevision":"REV1","updatedReplicas":2}"#]],
    );
    check(
        &format!("{}; {}", set("replicas=2", 2), well(1, "REV1")),
        expect![[r#"
        create pod web-0 {"spec":{"hostname":"web-0","subdomain":"db"}}; tell SuccessfulCreate: create Pod web-0 in StatefulSet web successful…
        status statefulset web {"availableReplicas":1,"collisionCount":0,"currentReplicas":1,"currentRevision":"REV1","readyReplicas":1,"replicas":1,"updateRevision":"REV1","updatedReplicas":1}"#]],
    );
}

/// Whoever deletes a pod and waits must see that it is gone.
#[test]
fn a_name_rests() {
    let two = format!("{}; {}", set("replicas=2 parallel", 1), well(1, "REV1"));
    let plan = |millis| readable(&world(&two).freed("web-0", millis).plan(&StatefulSets, &StatefulSet::NAMES, "web"));
    let rests = plan(50);
    assert!(!rests.contains("web-0") && rests.ends_with("look again after 250ms"), "{rests}");
    // Rested, or seen to go by a clock that was set back since.
    for millis in [300, -50] {
        assert!(plan(millis).starts_with("create pod web-0"), "{millis}: {}", plan(millis));
    }
}

#[test]
fn shrinks_from_the_end() {
    let three = all_well(0..3, "REV1");
    check(
        &format!("{}; {three}", set("replicas=1", 3)),
        expect![[r#"
        delete pod web-2
        event Normal SuccessfulDelete: delete Pod web-2 in StatefulSet web successful"#]],
    );
    check(
        &format!("{}; {three}", set("replicas=1 parallel", 3)),
        expect![[r#"
        delete pod web-2
        delete pod web-1
        event Normal SuccessfulDelete: delete Pod web-2 in StatefulSet web successful
        event Normal SuccessfulDelete: delete Pod web-1 in StatefulSet web successful"#]],
    );
    check(
        &format!("{}; {three} deleting", set("replicas=1", 3)),
        expect![[
            r#"status statefulset web {"availableReplicas":3,"collisionCount":0,"currentReplicas":2,"currentRevision":"REV1","readyReplicas":3,"replicas":3,"updateRevision":"REV1","updatedReplicas":2}"#
        ]],
    );
    let (two, last) = (all_well(0..2, "REV1"), well(2, "REV1"));
    // The last one is not ready: it goes when no other is in the same state.
    let sick = last.replace("ready", "");
    check(
        &format!("{}; {two}; {sick}", set("replicas=1", 3)),
        expect![[r#"
        delete pod web-2
        event Normal SuccessfulDelete: delete Pod web-2 in StatefulSet web successful
        status statefulset web {"availableReplicas":2,"collisionCount":0,"currentReplicas":3,"currentRevision":"REV1","readyReplicas":2,"replicas":3,"updateRevision":"REV1","updatedReplicas":3}"#]],
    );
    let both = format!("{}; {}", well(0, "REV1"), all_well(1..3, "REV1").replace("ready", ""));
    check(
        &format!("{}; {both}", set("replicas=1", 3)),
        expect![[
            r#"status statefulset web {"availableReplicas":1,"collisionCount":0,"currentReplicas":3,"currentRevision":"REV1","readyReplicas":1,"replicas":3,"updateRevision":"REV1","updatedReplicas":3}"#
        ]],
    );
}

#[test]
fn updates_from_the_end() {
    let new = set("image=v2 replicas=3", 3);
    check(
        &format!("{new}; {}", all_well(0..3, "REV1")),
        expect![[r#"
        create controllerrevision REV2 "revision":2
        delete pod web-2
        event Normal SuccessfulDelete: delete Pod web-2 in StatefulSet web successful
        status statefulset web {"availableReplicas":3,"collisionCount":0,"currentReplicas":2,"currentRevision":"REV1","readyReplicas":3,"replicas":3,"updateRevision":"REV2"}"#]],
    );
    let after = format!("{new}; revision REV2 image=v2 rev=2 owner=sts/web");
    check(
        &format!("{after}; {}; {} deleting", all_well(0..2, "REV1"), well(2, "REV1")),
        expect![[
            r#"status statefulset web {"availableReplicas":3,"collisionCount":0,"currentReplicas":2,"currentRevision":"REV1","readyReplicas":3,"replicas":3,"updateRevision":"REV2"}"#
        ]],
    );
    check(
        &format!("{after}; {}; {}", all_well(0..2, "REV1"), well(2, "REV2").replace("ready", "")),
        expect![[
            r#"status statefulset web {"availableReplicas":2,"collisionCount":0,"currentReplicas":2,"currentRevision":"REV1","readyReplicas":2,"replicas":3,"updateRevision":"REV2","updatedReplicas":1}"#
        ]],
    );
    check(
        &format!("{after}; {}; {}", all_well(0..2, "REV1"), well(2, "REV2")),
        expect![[r#"
        delete pod web-1
        event Normal SuccessfulDelete: delete Pod web-1 in StatefulSet web successful
        status statefulset web {"availableReplicas":3,"collisionCount":0,"currentReplicas":1,"currentRevision":"REV1","readyReplicas":3,"replicas":3,"updateRevision":"REV2","updatedReplicas":1}"#]],
    );
    check(
        &format!("{after}; {}", all_well(0..3, "REV2")),
        expect![[
            r#"status statefulset web {"availableReplicas":3,"collisionCount":0,"currentReplicas":3,"currentRevision":"REV2","readyReplicas":3,"replicas":3,"updateRevision":"REV2","updatedReplicas":3}"#
        ]],
    );
}

#[test]
fn a_partition_keeps_the_old_below_it() {
    let after = format!("{}; revision REV2 image=v2 rev=2 owner=sts/web", set("image=v2 replicas=3 partition=2", 3));
    check(
        &format!("{after}; {}; {}", all_well(0..2, "REV1"), well(2, "REV2")),
        expect![[
            r#"status statefulset web {"availableReplicas":3,"collisionCount":0,"currentReplicas":2,"currentRevision":"REV1","readyReplicas":3,"replicas":3,"updateRevision":"REV2","updatedReplicas":1}"#
        ]],
    );
    // One below the partition is lost: it comes back as it was.
    check(
        &format!("{after}; {}; {}", well(0, "REV1"), well(2, "REV2")),
        expect![[r#"
        create pod web-1 {"spec":{"hostname":"web-1","subdomain":"db"}}; tell SuccessfulCreate: create Pod web-1 in StatefulSet web successful…
        status statefulset web {"availableReplicas":2,"collisionCount":0,"currentReplicas":1,"currentRevision":"REV1","readyReplicas":2,"replicas":2,"updateRevision":"REV2","updatedReplicas":1}"#]],
    );
    check(
        &format!("{after}; {}", all_well(0..2, "REV1")),
        expect![[r#"
        create pod web-2 {"spec":{"hostname":"web-2","subdomain":"db"}}; tell SuccessfulCreate: create Pod web-2 in StatefulSet web successful…
        status statefulset web {"availableReplicas":2,"collisionCount":0,"currentReplicas":2,"currentRevision":"REV1","readyReplicas":2,"replicas":2,"updateRevision":"REV2"}"#]],
    );
}

#[test]
fn waits_for_the_user_when_told_so() {
    let after = format!("{}; revision REV2 image=v2 rev=2 owner=sts/web", set("image=v2 replicas=2 ondelete", 2));
    check(
        &format!("{after}; {}", all_well(0..2, "REV1")),
        expect![[
            r#"status statefulset web {"availableReplicas":2,"collisionCount":0,"currentReplicas":2,"currentRevision":"REV1","readyReplicas":2,"replicas":2,"updateRevision":"REV2"}"#
        ]],
    );
    check(
        &format!("{after}; {}", well(0, "REV1")),
        expect![[r#"
        create pod web-1 {"spec":{"hostname":"web-1","subdomain":"db"}}; tell SuccessfulCreate: create Pod web-1 in StatefulSet web successful…
        status statefulset web {"availableReplicas":1,"collisionCount":0,"currentReplicas":1,"currentRevision":"REV1","readyReplicas":1,"replicas":1,"updateRevision":"REV2"}"#]],
    );
}

#[test]
fn takes_away_no_more_than_allowed() {
    let parallel = |words: &str| {
        let set = set(&format!("image=v2 replicas=5 parallel {words}"), 5);
        format!("{set}; revision REV2 image=v2 rev=2 owner=sts/web")
    };
    check(
        &format!("{}; {}", parallel("unavailable=2"), all_well(0..5, "REV1")),
        expect![[r#"
        delete pod web-4
        delete pod web-3
        event Normal SuccessfulDelete: delete Pod web-4 in StatefulSet web successful
        event Normal SuccessfulDelete: delete Pod web-3 in StatefulSet web successful
        status statefulset web {"availableReplicas":5,"collisionCount":0,"currentReplicas":3,"currentRevision":"REV1","readyReplicas":5,"replicas":5,"updateRevision":"REV2"}"#]],
    );
    check(
        &format!("{}; {}", parallel("unavailable=50%"), all_well(0..5, "REV1")),
        expect![[r#"
        delete pod web-4
        delete pod web-3
        event Normal SuccessfulDelete: delete Pod web-4 in StatefulSet web successful
        event Normal SuccessfulDelete: delete Pod web-3 in StatefulSet web successful
        status statefulset web {"availableReplicas":5,"collisionCount":0,"currentReplicas":3,"currentRevision":"REV1","readyReplicas":5,"replicas":5,"updateRevision":"REV2"}"#]],
    );
    check(
        &format!("{}; {}", parallel("unavailable=10%"), all_well(0..5, "REV1")),
        expect![[r#"
        delete pod web-4
        event Normal SuccessfulDelete: delete Pod web-4 in StatefulSet web successful
        status statefulset web {"availableReplicas":5,"collisionCount":0,"currentReplicas":4,"currentRevision":"REV1","readyReplicas":5,"replicas":5,"updateRevision":"REV2"}"#]],
    );
    let one_comes = format!("{}; {}", all_well(0..4, "REV1"), well(4, "REV2").replace("ready", ""));
    check(
        &format!("{}; {one_comes}", parallel("unavailable=2")),
        expect![[r#"
        delete pod web-3
        event Normal SuccessfulDelete: delete Pod web-3 in StatefulSet web successful
        status statefulset web {"availableReplicas":4,"collisionCount":0,"currentReplicas":3,"currentRevision":"REV1","readyReplicas":4,"replicas":5,"updateRevision":"REV2","updatedReplicas":1}"#]],
    );
    // A sick old one costs nothing, and takes none of what is allowed.
    let sick = format!("{}; {}; {}", well(0, "REV1").replace("ready", ""), all_well(1..4, "REV1"), well(4, "REV2"));
    check(
        &format!("{}; {sick}", parallel("")),
        expect![[r#"
        delete pod web-0
        event Normal SuccessfulDelete: delete Pod web-0 in StatefulSet web successful
        status statefulset web {"availableReplicas":4,"collisionCount":0,"currentReplicas":3,"currentRevision":"REV1","readyReplicas":4,"replicas":5,"updateRevision":"REV2","updatedReplicas":1}"#]],
    );
}

#[test]
fn goes_back_to_a_known_template() {
    let back = "sts web image=v1 replicas=1 current=REV2 update=REV2; revision REV1 image=v1 rev=1 owner=sts/web; \
                revision REV2 image=v2 rev=2 owner=sts/web";
    check(
        &format!("{back}; {}", well(0, "REV2")),
        expect![[r#"
        patch controllerrevision REV1 {"metadata":{},"revision":3}
        delete pod web-0
        event Normal SuccessfulDelete: delete Pod web-0 in StatefulSet web successful
        status statefulset web {"availableReplicas":1,"collisionCount":0,"currentRevision":"REV2","readyReplicas":1,"replicas":1,"updateRevision":"REV1"}"#]],
    );
}

#[test]
fn forgets_old_revisions() {
    let old = |n: u32| format!("revision web-{n} image=old{n} rev={n} owner=sts/web");
    let many: Vec<String> = (1..6).map(old).collect();
    let now = "sts web replicas=2 history=1 current=REV1 update=REV1; revision REV1 image=v1 rev=9 owner=sts/web";
    let pods = format!("{}; {}", well(0, "REV1"), well(1, "web-2"));
    check(
        &format!("{now}; {pods}; {}", many.join("; ")),
        expect![[r#"
        delete pod web-1
        event Normal SuccessfulDelete: delete Pod web-1 in StatefulSet web successful
        status statefulset web {"availableReplicas":2,"collisionCount":0,"currentRevision":"REV1","readyReplicas":2,"replicas":2,"updateRevision":"REV1","updatedReplicas":1}
        delete controllerrevision web-1
        delete controllerrevision web-3
        delete controllerrevision web-4"#]],
    );
}

#[test]
fn avoids_names_of_others() {
    check(
        "sts web replicas=0; revision REV1 image=other owner=sts/other",
        expect![[r#"
        create controllerrevision web-69b6fd9684 "revision":1
        status statefulset web {"availableReplicas":0,"collisionCount":1,"currentRevision":"web-69b6fd9684","replicas":0,"updateRevision":"web-69b6fd9684"}"#]],
    );
    // Its own from before, which lost its labels: no second one is made.
    check(
        "sts web replicas=0; revision REV1 image=v1 labels=x:y owner=sts/web",
        expect![[r#"
        patch controllerrevision REV1 {"metadata":{"ownerReferences":[]}}
        status statefulset web {"availableReplicas":0,"collisionCount":0,"currentRevision":"REV1","replicas":0,"updateRevision":"REV1"}"#]],
    );
}

#[test]
fn adopts_and_releases() {
    check(
        &format!("{}; member web-0 at=REV1 node=n1 ready nameless", set("replicas=1", 1)),
        expect![[r#"
        patch pod web-0 {"metadata":{"ownerReferences":[{"apiVersion":"apps/v1","blockOwnerDeletion":true,"controller":true,"kind":"StatefulSet","name":"web"}]}}
        patch pod web-0 {"metadata":{"labels":{"apps.kubernetes.io/pod-index":"0","statefulset.kubernetes.io/pod-name":"web-0"}}}
        event Normal SuccessfulUpdate: update Pod web-0 in StatefulSet web successful"#]],
    );
    check(
        &format!("{}; pod web-0 labels=app:web node=n1 ready", set("replicas=1 claims=v", 1)),
        expect![[r#"
        patch pod web-0 {"metadata":{"ownerReferences":[{"apiVersion":"apps/v1","blockOwnerDeletion":true,"controller":true,"kind":"StatefulSet","name":"web"}]}}
        update pod web-0 {"spec":{"nodeName":"n1","volumes":[{"name":"v","persistentVolumeClaim":{"claimName":"v-web-0"}}]}}
        delete pod web-0
        event Normal SuccessfulUpdate: update Pod web-0 in StatefulSet web successful
        event Normal SuccessfulDelete: delete Pod web-0 in StatefulSet web successful
        status statefulset web {"availableReplicas":1,"collisionCount":0,"currentRevision":"REV1","readyReplicas":1,"replicas":1,"updateRevision":"REV1"}"#]],
    );
    check(
        &format!("{}; {}; pod other owner=sts/web", set("replicas=1", 1), well(0, "REV1")),
        expect![[r#"patch pod other {"metadata":{"ownerReferences":[]}}"#]],
    );
    check(&format!("{}; {}; pod web-00 labels=app:web", set("replicas=1", 1), well(0, "REV1")), expect![[""]]);
    check("sts web replicas=1 deleting; member web-0 node=n1 ready at=x", expect![[""]]);
}

#[test]
fn claims_go_with_whom_they_should() {
    let pods = |n| all_well(0..n, "REV1").replace("ready", "ready claims=v");
    let claims = "claim v-web-0; claim v-web-1";
    check(&format!("{}; {}; {claims}", set("replicas=2 claims=v", 2), pods(2)), expect![[""]]);
    check(
        &format!("{}; {}; {claims}", set("replicas=2 claims=v deleted=Delete", 2), pods(2)),
        expect![[r#"
        patch persistentvolumeclaim v-web-0 {"metadata":{"ownerReferences":[{"apiVersion":"apps/v1","blockOwnerDeletion":true,"controller":true,"kind":"StatefulSet","name":"web"}]}}
        patch persistentvolumeclaim v-web-1 {"metadata":{"ownerReferences":[{"apiVersion":"apps/v1","blockOwnerDeletion":true,"controller":true,"kind":"StatefulSet","name":"web"}]}}"#]],
    );
    let owned = "claim v-web-0 owner=sts/web; claim v-web-1 owner=sts/web";
    let both = "claims=v deleted=Delete scaled=Delete";
    check(&format!("{}; {}; {owned}", set(&format!("replicas=2 {both}"), 2), pods(2)), expect![[""]]);
    check(
        &format!("{}; {}; {owned}", set(&format!("replicas=1 {both}"), 2), pods(2)),
        expect![[r#"
        patch persistentvolumeclaim v-web-1 {"metadata":{"ownerReferences":[{"apiVersion":"v1","blockOwnerDeletion":true,"controller":true,"kind":"Pod","name":"web-1"}]}}
        delete pod web-1
        event Normal SuccessfulDelete: delete Pod web-1 in StatefulSet web successful"#]],
    );
    check(
        &format!("{}; {}; {owned}", set("replicas=2 claims=v", 2), pods(2)),
        expect![[r#"
        patch persistentvolumeclaim v-web-0 {"metadata":{"ownerReferences":[]}}
        patch persistentvolumeclaim v-web-1 {"metadata":{"ownerReferences":[]}}"#]],
    );
    let foreign = "claim v-web-0 owner=sts/web; claim v-web-1 owner=deployment/x";
    check(&format!("{}; {}; {foreign}", set(&format!("replicas=2 {both}"), 2), pods(2)), expect![[""]]);
}

#[test]
fn pods_wait_for_claims_on_their_way_out() {
    check(
        &format!("{}; claim v-web-0 deleting", set("replicas=1 claims=v", 0)),
        expect![
            "event Warning FailedCreate: create Pod web-0 in StatefulSet web failed error: pvc v-web-0 is being deleted"
        ],
    );
    // Of the pod that had this name before: it goes with it.
    check(&format!("{}; claim v-web-0 owner=pod/web-0", set("replicas=1 claims=v scaled=Delete", 0)), expect![[""]]);
    let pending = "member web-0 owner=sts/web at=REV1 claims=v,w";
    check(
        &format!("{}; {pending}; claim v-web-0", set("replicas=1 claims=v,w", 1)),
        expect![[r#"
        create persistentvolumeclaim w-web-0 {"spec":{"accessModes":["ReadWriteOnce"]}}; tell SuccessfulCreate: create Claim w-web-0 Pod web-0 in StatefulSet web success…
        status statefulset web {"availableReplicas":0,"collisionCount":0,"currentReplicas":1,"currentRevision":"REV1","replicas":1,"updateRevision":"REV1","updatedReplicas":1}"#]],
    );
}

#[test]
fn says_what_was_refused() {
    let refused = |text: &str, about: &str| {
        let details = StatusDetails { name: Some(about.to_owned()), ..StatusDetails::default() };
        let error =
            ApiError { details: Some(Box::new(details)), ..ApiError::new(Reason::Forbidden, "exceeded quota: few") };
        let key = Key::new(&StatefulSet::NAMES, ObjectKey::new("d", "web"));
        let now = Timestamp::from_second(NOW).unwrap();
        readable(&show(&StatefulSets.refused(&key, &error, &world(text), now)))
    };
    expect!["event Warning FailedCreate: create Pod web-0 in StatefulSet web failed error: exceeded quota: few"]
        .assert_eq(&refused(&set("replicas=1 claims=v", 0), "web-0"));
    expect![[r#"
        event Warning FailedCreate: create Claim v-web-0 for Pod web-0 in StatefulSet web failed error: exceeded quota: few
        event Warning FailedCreate: create Pod web-0 in StatefulSet web failed error: failed to create PVC v-web-0: exceeded quota: few"#]].assert_eq(&refused(&set("replicas=1 claims=v", 0), "v-web-0"));
    expect!["event Warning FailedDelete: delete Pod web-0 in StatefulSet web failed error: exceeded quota: few"]
        .assert_eq(&refused(&format!("{}; {}", set("replicas=0", 1), well(0, "REV1")), "web-0"));
}

#[test]
fn hears_of_its_own() {
    let sets = World::of("sts web claims=v; sts other claims=v labels=app:no");
    for (changed, expected) in [
        ("member web-0 owner=sts/web", "statefulsets.apps d/web"),
        ("member web-0 owner=ds/web", ""),
        ("pod x labels=app:web", "statefulsets.apps d/web, statefulsets.apps d/other"),
        ("pod x labels=app:none", ""),
        ("claim v-web-3", "statefulsets.apps d/web"),
        ("claim v-web-x", ""),
        ("claim w-web-3", ""),
        ("claim v-other-0", "statefulsets.apps d/other"),
        ("revision r owner=sts/web", "statefulsets.apps d/web"),
        ("sts new", "statefulsets.apps d/new"),
    ] {
        assert_eq!(sets.keys(&StatefulSets, changed), expected, "{changed}");
    }
}
