//! Plans of namespaces on their way out.

use expect_test::{Expect, expect};

use super::*;
use crate::test_support::World;

fn plan(world: &str, revision: u64) -> String {
    let world = World::of(world).at(revision);
    world.plan(&Namespaces, &Namespace::NAMES, "d")
}

#[test]
fn leaves_living_namespaces_alone() {
    assert_eq!(plan("namespace d; pod a", 100), "");
}

#[test]
fn deletes_everything_first() {
    let plan = plan("namespace d deleting; rs b finalizers=x", 100);
    let kinds = plan.lines().filter(|line| line.starts_with("delete all")).count();
    assert_eq!(kinds, content_kinds(&World::of("")).len(), "whatever the mirrors show");
    expect![[r#"status namespace d {"conditions":[{"reason":"SomeResourcesRemain","status":"True","type":"NamespaceContentRemaining"},{"reason":"SomeFinalizersRemain","status":"True","type":"NamespaceFinalizersRemaining"},{"reason":"ResourcesDiscovered","status":"False","type":"NamespaceDeletionDiscoveryFailure"},{"reason":"ParsedGroupVersions","status":"False","type":"NamespaceDeletionGroupVersionParsingFailure"},{"reason":"ContentDeleted","status":"False","type":"NamespaceDeletionContentFailure"}]}"#]].assert_eq(plan.lines().last().unwrap());
}

#[test]
fn pods_go_before_what_they_use() {
    let doomed = |world| -> Vec<String> {
        plan(world, 100).lines().filter(|line| line.starts_with("delete all")).map(str::to_owned).collect()
    };
    assert_eq!(doomed("namespace d deleting; pod a; rs b"), ["delete all pods in d"]);
    assert!(doomed("namespace d deleting; pod a deleting; rs b").is_empty(), "the last pod is on its way");
}

#[test]
fn then_waits_and_goes_itself() {
    let check = |world: &str, revision: u64, expected: Expect| expected.assert_eq(&plan(world, revision));
    check(
        "namespace d deleting reported; pod a; pod b deleting",
        100,
        expect![[r#"
        delete all pods in d
        status namespace d {"conditions":[{"reason":"SomeResourcesRemain","status":"True","type":"NamespaceContentRemaining"},{"reason":"ContentHasNoFinalizers","status":"False","type":"NamespaceFinalizersRemaining"},{"reason":"ResourcesDiscovered","status":"False","type":"NamespaceDeletionDiscoveryFailure"},{"reason":"ParsedGroupVersions","status":"False","type":"NamespaceDeletionGroupVersionParsingFailure"},{"reason":"ContentDeleted","status":"False","type":"NamespaceDeletionContentFailure"}]}"#]],
    );
    check("namespace d deleting reported", 100, expect![[r#"patch namespace/finalize d {"spec":{"finalizers":[]}}"#]]);
    check("namespace d deleting reported", 6, expect!["look again after 1s"]);
    check(
        "namespace d deleting reported deleting-for=31",
        6,
        expect![[r#"patch namespace/finalize d {"spec":{"finalizers":[]}}"#]],
    );
}

#[test]
fn wakes_for_content_of_terminating_namespaces_only() {
    assert_eq!(World::of("namespace d deleting").keys(&Namespaces, "pod a"), "namespaces d");
    assert_eq!(World::of("namespace d").keys(&Namespaces, "pod a"), "");
}
