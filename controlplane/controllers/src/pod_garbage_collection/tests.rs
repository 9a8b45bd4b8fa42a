//! Plans for pods that nobody ends.

use expect_test::{Expect, expect};

use super::*;
use crate::test_support::{NOW, World, show};

#[expect(clippy::needless_pass_by_value, reason = "reads better in tables")]
fn check_node(world: &World, expected: Expect) {
    expected.assert_eq(&world.plan(&PodGarbageCollection, &Node::NAMES, "n"));
}

#[test]
fn pods_of_a_node_that_is_gone() {
    let pods = "pod a node=n ready; pod b node=n phase=Succeeded; pod c node=other";
    check_node(
        &World::of(pods),
        expect![[r#"
        status pod a {"conditions":[{"status":"True","type":"Ready"},{"reason":"DeletionByPodGC","status":"True","type":"DisruptionTarget"}],"phase":"Failed"}
        delete pod a
        delete pod b"#]],
    );
    check_node(&World::of(&format!("{pods}; node n")), expect![]);
    // It may be about to register, or just not have been heard of.
    check_node(&World::of(pods).watched_for(10), expect!["look again after 30s"]);
    check_node(&World::of(pods).at(6), expect!["look again after 1s"]);
    check_node(&World::of("pod c node=other"), expect![]);
}

#[test]
fn pods_that_go_from_a_node_out_of_service() {
    let pods = "pod a node=n deleting; pod b node=n";
    let taint = "taints=node.kubernetes.io/out-of-service:NoExecute";
    check_node(
        &World::of(&format!("{pods}; node n ready=Unknown {taint}")),
        expect![[r#"
        status pod a {"conditions":[{"status":"False","type":"Ready"}],"phase":"Failed"}
        delete pod a"#]],
    );
    check_node(&World::of(&format!("{pods}; node n {taint}")), expect![]);
    check_node(&World::of(&format!("{pods}; node n ready=Unknown")), expect![]);
}

#[test]
fn pods_that_go_without_a_node() {
    let plan = |world: &str| World::of(world).plan(&PodGarbageCollection, &Pod::NAMES, "a");
    expect![[r#"
        status pod a {"conditions":[{"status":"False","type":"Ready"}],"phase":"Failed"}
        delete pod a"#]]
    .assert_eq(&plan("pod a deleting"));
    assert_eq!(plan("pod a"), "");
    assert_eq!(plan("pod a node=n deleting"), "");
}

#[test]
fn pods_that_ended_long_ago() {
    let world = World::of(
        "pod a phase=Succeeded age=10; pod b phase=Failed age=30; pod c phase=Failed age=20; pod d node=n age=90",
    );
    let plan = |max| {
        let mut plan = Plan::default();
        ended(&world, max, &mut plan);
        show(&plan)
    };
    expect![[r#"
        delete pod b
        delete pod c
        look again after 20s"#]]
    .assert_eq(&plan(1));
    expect!["look again after 20s"].assert_eq(&plan(3));
    let key = all_ended();
    let now = Timestamp::from_second(NOW).unwrap();
    assert_eq!(show(&PodGarbageCollection.reconcile(&key, &world, now)), plan(ENDED_MAX));
}

#[test]
fn wakes_for_what_concerns_it() {
    let world = World::of("node there; node off ready=Unknown taints=node.kubernetes.io/out-of-service:NoExecute");
    for (changed, keys) in [
        ("pod a", ""),
        ("pod a deleting", "pods d/a"),
        ("pod a node=there deleting", ""),
        ("pod a node=gone", "nodes gone"),
        ("pod a node=off", ""),
        ("pod a node=off deleting", "nodes off"),
        ("node gone", "nodes gone"),
        ("node there", ""),
        ("node off", "nodes off"),
        ("namespace d", "pods "),
    ] {
        assert_eq!(world.keys(&PodGarbageCollection, changed), keys, "{changed}");
    }
}
