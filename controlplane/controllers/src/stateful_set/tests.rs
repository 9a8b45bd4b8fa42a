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
    check("sts web replicas=2 claims=v", expect![[""]]);
    let one = all_well(0..1, "REV1");
    check(&format!("{}; {one}", set("replicas=2", 1)), expect![[""]]);
    check(&format!("{}; {}", set("replicas=2", 1), one.replace("ready", "")), expect![[""]]);
    check(&format!("{}; {}", set("replicas=2 min-ready=40", 1), one), expect![[""]]);
    check(&format!("{}; {one} deleting", set("replicas=2", 1)), expect![[""]]);
}

#[test]
fn nothing_is_done_when_all_is_well() {
    check(&format!("{}; {}", set("replicas=3", 3), all_well(0..3, "REV1")), expect![[""]]);
}

#[test]
fn makes_all_at_once_when_told_so() {
    check(&format!("{}; {}", set("replicas=3 parallel", 1), well(1, "REV1")), expect![[""]]);
    let plan = world(&set("replicas=2000 parallel", 0)).plan(&StatefulSets, &StatefulSet::NAMES, "web");
    let creates = plan.lines().filter(|line| line.starts_with("create pod")).count();
    let told = plan.lines().filter(|line| line.contains("tell")).count();
    assert_eq!((creates, told), (replicas::BURST_MAX, replicas::EVENTS_MAX));
}

#[test]
fn ordinals_start_where_told() {
    check(&format!("{}; {}", set("replicas=2 start=5", 2), all_well(4..6, "REV1")), expect![[""]]);
}

#[test]
fn makes_anew_what_has_ended() {
    let two = all_well(0..2, "REV1");
    check(&format!("{}; {}", set("replicas=2", 2), two.replacen("ready", "phase=Failed", 1)), expect![[""]]);
    check(&format!("{}; {}", set("replicas=2 parallel", 2), two.replace("ready", "phase=Succeeded")), expect![[""]]);
    check(&format!("{}; {}", set("replicas=2", 2), well(1, "REV1")), expect![[""]]);
}

#[test]
fn shrinks_from_the_end() {
    let three = all_well(0..3, "REV1");
    check(&format!("{}; {three}", set("replicas=1", 3)), expect![[""]]);
    check(&format!("{}; {three}", set("replicas=1 parallel", 3)), expect![[""]]);
    check(&format!("{}; {three} deleting", set("replicas=1", 3)), expect![[""]]);
    let (two, last) = (all_well(0..2, "REV1"), well(2, "REV1"));
    // The last one is not ready: it goes when no other is in the same state.
    let sick = last.replace("ready", "");
    check(&format!("{}; {two}; {sick}", set("replicas=1", 3)), expect![[""]]);
    let both = format!("{}; {}", well(0, "REV1"), all_well(1..3, "REV1").replace("ready", ""));
    check(&format!("{}; {both}", set("replicas=1", 3)), expect![[""]]);
}

#[test]
fn updates_from_the_end() {
    let new = set("image=v2 replicas=3", 3);
    check(&format!("{new}; {}", all_well(0..3, "REV1")), expect![[""]]);
    let after = format!("{new}; revision REV2 image=v2 rev=2 owner=sts/web");
    check(&format!("{after}; {}; {} deleting", all_well(0..2, "REV1"), well(2, "REV1")), expect![[""]]);
    check(&format!("{after}; {}; {}", all_well(0..2, "REV1"), well(2, "REV2").replace("ready", "")), expect![[""]]);
    check(&format!("{after}; {}; {}", all_well(0..2, "REV1"), well(2, "REV2")), expect![[""]]);
    check(&format!("{after}; {}", all_well(0..3, "REV2")), expect![[""]]);
}

#[test]
fn a_partition_keeps_the_old_below_it() {
    let after = format!("{}; revision REV2 image=v2 rev=2 owner=sts/web", set("image=v2 replicas=3 partition=2", 3));
    check(&format!("{after}; {}; {}", all_well(0..2, "REV1"), well(2, "REV2")), expect![[""]]);
    // One below the partition is lost: it comes back as it was.
    check(&format!("{after}; {}; {}", well(0, "REV1"), well(2, "REV2")), expect![[""]]);
    check(&format!("{after}; {}", all_well(0..2, "REV1")), expect![[""]]);
}

#[test]
fn waits_for_the_user_when_told_so() {
    let after = format!("{}; revision REV2 image=v2 rev=2 owner=sts/web", set("image=v2 replicas=2 ondelete", 2));
    check(&format!("{after}; {}", all_well(0..2, "REV1")), expect![[""]]);
    check(&format!("{after}; {}", well(0, "REV1")), expect![[""]]);
}

#[test]
fn takes_away_no_more_than_allowed() {
    let parallel = |words: &str| {
        let set = set(&format!("image=v2 replicas=5 parallel {words}"), 5);
        format!("{set}; revision REV2 image=v2 rev=2 owner=sts/web")
    };
    check(&format!("{}; {}", parallel("unavailable=2"), all_well(0..5, "REV1")), expect![[""]]);
    check(&format!("{}; {}", parallel("unavailable=50%"), all_well(0..5, "REV1")), expect![[""]]);
    check(&format!("{}; {}", parallel("unavailable=10%"), all_well(0..5, "REV1")), expect![[""]]);
    let one_comes = format!("{}; {}", all_well(0..4, "REV1"), well(4, "REV2").replace("ready", ""));
    check(&format!("{}; {one_comes}", parallel("unavailable=2")), expect![[""]]);
    // A sick old one costs nothing, and takes none of what is allowed.
    let sick = format!("{}; {}; {}", well(0, "REV1").replace("ready", ""), all_well(1..4, "REV1"), well(4, "REV2"));
    check(&format!("{}; {sick}", parallel("")), expect![[""]]);
}

#[test]
fn goes_back_to_a_known_template() {
    let back = "sts web image=v1 replicas=1 current=REV2 update=REV2; revision REV1 image=v1 rev=1 owner=sts/web; \
                revision REV2 image=v2 rev=2 owner=sts/web";
    check(&format!("{back}; {}", well(0, "REV2")), expect![[""]]);
}

#[test]
fn forgets_old_revisions() {
    let old = |n: u32| format!("revision web-{n} image=old{n} rev={n} owner=sts/web");
    let many: Vec<String> = (1..6).map(old).collect();
    let now = "sts web replicas=2 history=1 current=REV1 update=REV1; revision REV1 image=v1 rev=9 owner=sts/web";
    let pods = format!("{}; {}", well(0, "REV1"), well(1, "web-2"));
    check(&format!("{now}; {pods}; {}", many.join("; ")), expect![[""]]);
}

#[test]
fn avoids_names_of_others() {
    check("sts web replicas=0; revision REV1 image=other owner=sts/other", expect![[""]]);
    // Its own from before, which lost its labels: no second one is made.
    check("sts web replicas=0; revision REV1 image=v1 labels=x:y owner=sts/web", expect![[""]]);
}

#[test]
fn adopts_and_releases() {
    check(&format!("{}; member web-0 at=REV1 node=n1 ready nameless", set("replicas=1", 1)), expect![[""]]);
    check(&format!("{}; pod web-0 labels=app:web node=n1 ready", set("replicas=1 claims=v", 1)), expect![[""]]);
    check(&format!("{}; {}; pod other owner=sts/web", set("replicas=1", 1), well(0, "REV1")), expect![[""]]);
    check(&format!("{}; {}; pod web-00 labels=app:web", set("replicas=1", 1), well(0, "REV1")), expect![[""]]);
    check("sts web replicas=1 deleting; member web-0 node=n1 ready at=x", expect![[""]]);
}

#[test]
fn claims_go_with_whom_they_should() {
    let pods = |n| all_well(0..n, "REV1").replace("ready", "ready claims=v");
    let claims = "claim v-web-0; claim v-web-1";
    check(&format!("{}; {}; {claims}", set("replicas=2 claims=v", 2), pods(2)), expect![[""]]);
    check(&format!("{}; {}; {claims}", set("replicas=2 claims=v deleted=Delete", 2), pods(2)), expect![[""]]);
    let owned = "claim v-web-0 owner=sts/web; claim v-web-1 owner=sts/web";
    let both = "claims=v deleted=Delete scaled=Delete";
    check(&format!("{}; {}; {owned}", set(&format!("replicas=2 {both}"), 2), pods(2)), expect![[""]]);
    check(&format!("{}; {}; {owned}", set(&format!("replicas=1 {both}"), 2), pods(2)), expect![[""]]);
    check(&format!("{}; {}; {owned}", set("replicas=2 claims=v", 2), pods(2)), expect![[""]]);
    let foreign = "claim v-web-0 owner=sts/web; claim v-web-1 owner=deployment/x";
    check(&format!("{}; {}; {foreign}", set(&format!("replicas=2 {both}"), 2), pods(2)), expect![[""]]);
}

#[test]
fn pods_wait_for_claims_on_their_way_out() {
    check(&format!("{}; claim v-web-0 deleting", set("replicas=1 claims=v", 0)), expect![[""]]);
    // Of the pod that had this name before: it goes with it.
    check(&format!("{}; claim v-web-0 owner=pod/web-0", set("replicas=1 claims=v scaled=Delete", 0)), expect![[""]]);
    let pending = "member web-0 owner=sts/web at=REV1 claims=v,w";
    check(&format!("{}; {pending}; claim v-web-0", set("replicas=1 claims=v,w", 1)), expect![[""]]);
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
    expect![[""]].assert_eq(&refused(&set("replicas=1 claims=v", 0), "web-0"));
    expect![[""]].assert_eq(&refused(&set("replicas=1 claims=v", 0), "v-web-0"));
    expect![[""]].assert_eq(&refused(&format!("{}; {}", set("replicas=0", 1), well(0, "REV1")), "web-0"));
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
