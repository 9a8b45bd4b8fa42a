//! Plans of nodes.

use expect_test::{Expect, expect};

use super::*;
use crate::test_support::World;

#[expect(clippy::needless_pass_by_value, reason = "reads better in tables")]
fn check(world: &str, expected: Expect) {
    // Another node is well: it is not this side that is cut off.
    expected.assert_eq(&World::of(&format!("{world}; node well")).plan(&NodeLifecycle::default(), &Node::NAMES, "n"));
}

#[test]
fn hears_of_life() {
    check("node n; lease n renewed=10", expect!["look again after 31s"]);
    check("node n age=5", expect!["look again after 36s"]);
    check(
        "node n cordoned; lease n",
        expect![[r#"
        patch node n {"metadata":{},"spec":{"taints":[{"effect":"NoSchedule","key":"node.kubernetes.io/unschedulable"}]}}
        look again after 41s"#]],
    );
}

#[test]
fn an_operator_says_how_long_silence_is_borne() {
    let plan = |grace_seconds: i64| {
        World::of("node n; lease n renewed=10").plan(&NodeLifecycle { grace_seconds }, &Node::NAMES, "n")
    };
    assert_eq!(plan(12), "look again after 3s");
    assert!(plan(9).starts_with("status node n"), "{}", plan(9));
}

#[test]
fn does_not_blame_a_node_for_silence_that_nobody_heard() {
    let plan = |watched: i64| {
        World::of("node n; lease n renewed=4000").watched_for(watched).plan(
            &NodeLifecycle::default(),
            &Node::NAMES,
            "n",
        )
    };
    assert_eq!(plan(1), "look again after 40s");
    assert!(plan(41).starts_with("status node n"), "{}", plan(41));
}

#[test]
fn notes_silence_then_taints() {
    check(
        "node n; lease n renewed=41",
        expect![[r#"
        status node n {"conditions":[{"reason":"NodeStatusUnknown","status":"Unknown","type":"Ready"},{"reason":"NodeStatusNeverUpdated","status":"Unknown","type":"MemoryPressure"},{"reason":"NodeStatusNeverUpdated","status":"Unknown","type":"DiskPressure"},{"reason":"NodeStatusNeverUpdated","status":"Unknown","type":"PIDPressure"}]}
        event Normal NodeNotReady: Node n status is now: NodeNotReady"#]],
    );
    check(
        "node n",
        expect![[r#"
        status node n {"conditions":[{"reason":"NodeStatusUnknown","status":"Unknown","type":"Ready"},{"reason":"NodeStatusNeverUpdated","status":"Unknown","type":"MemoryPressure"},{"reason":"NodeStatusNeverUpdated","status":"Unknown","type":"DiskPressure"},{"reason":"NodeStatusNeverUpdated","status":"Unknown","type":"PIDPressure"}]}
        event Normal NodeNotReady: Node n status is now: NodeNotReady"#]],
    );
    check(
        "node n ready=Unknown; lease n renewed=41",
        expect![[
            r#"patch node n {"metadata":{},"spec":{"taints":[{"effect":"NoSchedule","key":"node.kubernetes.io/unreachable"},{"effect":"NoExecute","key":"node.kubernetes.io/unreachable"}]}}"#
        ]],
    );
    check(
        "node n ready=False; lease n renewed=1",
        expect![[r#"
        patch node n {"metadata":{},"spec":{"taints":[{"effect":"NoSchedule","key":"node.kubernetes.io/not-ready"},{"effect":"NoExecute","key":"node.kubernetes.io/not-ready"}]}}
        look again after 40s"#]],
    );
    check(
        "node n taints=node.kubernetes.io/unreachable:NoExecute,mine:NoSchedule; lease n renewed=1",
        expect![[r#"
        patch node n {"metadata":{},"spec":{"taints":[{"effect":"NoSchedule","key":"mine"}]}}
        look again after 40s"#]],
    );
}

#[test]
fn pods_leave_in_the_end() {
    let node =
        |rest: &str| format!("node n ready=False {rest}; lease n renewed=1; pod p node=n ready; pod q node=m ready");
    // Both taints are there: nothing to do about the node itself.
    let taints = "taints=node.kubernetes.io/not-ready:NoExecute,node.kubernetes.io/not-ready:NoSchedule";
    check(
        &node(taints),
        expect![[r#"
        status pod p {"conditions":[{"status":"False","type":"Ready"}],"phase":"Running"}
        event Warning NodeNotReady: Node is not ready
        look again after 40s"#]],
    );
    check(
        "node n taints=mine:NoExecute; lease n renewed=1; pod p node=n ready",
        expect![[r#"
        event Normal TaintManagerEviction: Marking for deletion Pod d/p
        status pod p {"conditions":[{"status":"True","type":"Ready"},{"reason":"DeletionByTaintManager","status":"True","type":"DisruptionTarget"}],"phase":"Running"}
        delete pod p
        look again after 40s"#]],
    );
    let plan = |tainted: u32| {
        let (key, executes, schedules) = ("node.kubernetes.io/not-ready", "NoExecute", "NoSchedule");
        let mut node = Node::default();
        let since = Some(Time(Timestamp::from_second(crate::test_support::NOW - i64::from(tainted)).unwrap()));
        let taint = |effect: &str| Taint {
            key: key.to_owned(),
            effect: effect.to_owned(),
            time_added: since.clone(),
            value: None,
        };
        node.spec.get_or_insert_default().taints = Some(vec![taint(executes), taint(schedules)]);
        leaves_in(&Pod::default(), &node, Timestamp::from_second(crate::test_support::NOW).unwrap())
    };
    assert_eq!([plan(0), plan(299), plan(300)], [Some(300), Some(1), Some(0)]);
}

#[test]
fn nobody_is_driven_away_when_it_may_be_this_side_that_is_cut_off() {
    let lost = |n: &str| format!("node {n} ready=Unknown; lease {n} renewed=41");
    let plan = |world: &str| World::of(world).plan(&NodeLifecycle::default(), &Node::NAMES, "n");
    let many = |lost_ones: usize, rest: &str| {
        // They were given up long ago: nobody is before this one.
        let gone = "taints=node.kubernetes.io/unreachable:NoExecute tainted=1000";
        let others: Vec<String> = (1..lost_ones)
            .map(|at| format!("node lost-{at} ready=Unknown {gone}; lease lost-{at} renewed=41"))
            .collect();
        plan(&format!("{}; {}; {rest}", lost("n"), others.join("; ")))
    };
    expect![[r#"
        patch node n {"metadata":{},"spec":{"taints":[{"effect":"NoSchedule","key":"node.kubernetes.io/unreachable"}]}}
        look again after 5s"#]]
    .assert_eq(&plan(&lost("n")));
    // What was there goes.
    let tainted = "taints=node.kubernetes.io/unreachable:NoExecute,node.kubernetes.io/unreachable:NoSchedule";
    expect![[r#"
        patch node n {"metadata":{},"spec":{"taints":[{"effect":"NoSchedule","key":"node.kubernetes.io/unreachable"}]}}
        look again after 5s"#]]
    .assert_eq(&plan(&format!("node n ready=Unknown {tainted}; lease n renewed=41; pod p node=n")));
    let well = |count: usize| (0..count).map(|at| format!("node well-{at}")).collect::<Vec<_>>().join("; ");
    let gives_up = |plan: String| plan.contains("NoExecute");
    assert!(gives_up(many(2, &well(1))), "two are few");
    assert!(!gives_up(many(3, &well(2))), "most of a small cluster");
    assert!(gives_up(many(3, &well(3))), "half of it");
    assert!(gives_up(many(40, &well(20))), "a large cluster");
}

#[test]
fn lost_nodes_of_a_zone_are_given_up_one_after_the_other() {
    let given_up = |seconds: i64| format!("taints={UNREACHABLE}:NoExecute tainted={seconds}");
    // When its turn is, beside `m` and others.
    let check = |m: &str, others: &str, expected: Option<i64>| {
        let world = format!("node n ready=Unknown since=20; lease n renewed=41; node m ready=Unknown {m}; {others}");
        let plan = World::of(&world).plan(&NodeLifecycle::default(), &Node::NAMES, "n");
        let wait = plan.rsplit_once("look again after ").map(|(_, wait)| wait.to_owned());
        assert_eq!(wait, expected.map(|seconds| format!("{seconds}s")), "{world}");
        assert_eq!(plan.contains("NoExecute"), expected.is_none(), "{world}");
    };
    let few = "node well; node fine; node good";
    check("since=10", few, None);
    check("since=30", few, Some(10));
    check(&given_up(4), few, Some(6));
    check(&given_up(10), few, None);
    check(&given_up(4), &format!("node k ready=Unknown since=30; {few}"), Some(16));
    check("since=30 labels=topology.kubernetes.io/zone:other", few, None);
    // The clock was set back.
    check(&given_up(-20), few, None);
    let lost: String = (0..48).map(|at| format!("node lost-{at} ready=Unknown {}; ", given_up(800))).collect();
    let most_of_a_large_zone = format!("{lost}node well");
    check(&given_up(40), &most_of_a_large_zone, Some(30));
    check(&given_up(75), &most_of_a_large_zone, Some(25));
    check(&given_up(100), &most_of_a_large_zone, None);
}

#[test]
fn tolerations_say_how_long() {
    let taint = |key: &str| Taint { key: key.to_owned(), effect: "NoExecute".to_owned(), ..Taint::default() };
    let toleration = |key: &str, seconds: Option<i64>| Toleration {
        key: Some(key.to_owned()),
        operator: Some("Exists".to_owned()),
        toleration_seconds: seconds,
        ..Toleration::default()
    };
    assert_eq!(tolerated_seconds(&taint(UNREACHABLE), &[]), Some(300));
    assert_eq!(tolerated_seconds(&taint("mine"), &[]), Some(0));
    assert_eq!(tolerated_seconds(&taint(UNREACHABLE), &[toleration(UNREACHABLE, Some(5))]), Some(5));
    assert_eq!(tolerated_seconds(&taint(UNREACHABLE), &[toleration(UNREACHABLE, None)]), None);
    assert_eq!(tolerated_seconds(&taint(UNREACHABLE), &[toleration("other", None)]), Some(300));
}

#[test]
fn wakes_for_pods_of_troubled_nodes_only() {
    assert_eq!(World::of("node n").keys(&NodeLifecycle::default(), "pod p node=n"), "");
    assert_eq!(World::of("node n ready=Unknown").keys(&NodeLifecycle::default(), "pod p node=n"), "nodes n");
    assert_eq!(World::of("node n").keys(&NodeLifecycle::default(), "lease n"), "nodes n");
}
