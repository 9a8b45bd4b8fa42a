//! What budgets allow.

use expect_test::{Expect, expect};

use super::*;
use crate::test_support::World;

#[expect(clippy::needless_pass_by_value, reason = "reads better in tables")]
fn check(world: &str, expected: Expect) {
    let plan = World::of(world).plan(&PodDisruptionBudgets, &PodDisruptionBudget::NAMES, "b");
    // The condition says what the numbers say.
    expected.assert_eq(&plan.replace("\"conditions\":[{", "[").replace(",\"type\":\"DisruptionAllowed\"}]", "]"));
}

const PODS: &str = "pod x owner=rs/web ready; pod y owner=rs/web ready; pod z owner=rs/web";

#[test]
fn counts_what_is_healthy() {
    check(
        &format!("pdb b min=1; {PODS}"),
        expect![[
            r#"status poddisruptionbudget b {["reason":"SufficientPods","status":"True"],"currentHealthy":2,"desiredHealthy":1,"disruptionsAllowed":1,"expectedPods":3}"#
        ]],
    );
    check(
        &format!("pdb b min=2; {PODS}"),
        expect![[
            r#"status poddisruptionbudget b {["reason":"InsufficientPods","status":"False"],"currentHealthy":2,"desiredHealthy":2,"disruptionsAllowed":0,"expectedPods":3}"#
        ]],
    );
    check(
        "pdb b min=1",
        expect![[r#"
            event Normal NoPods: No matching pods found
            status poddisruptionbudget b {["reason":"InsufficientPods","status":"False"],"currentHealthy":0,"desiredHealthy":1,"disruptionsAllowed":0,"expectedPods":0}"#]],
    );
    check(
        "pdb b min=0; pod x ready deleting; pod y ready",
        expect![[
            r#"status poddisruptionbudget b {["reason":"SufficientPods","status":"True"],"currentHealthy":1,"desiredHealthy":0,"disruptionsAllowed":1,"expectedPods":2}"#
        ]],
    );
}

#[test]
fn percentages_are_of_what_is_wanted() {
    check(
        &format!("pdb b min=50%; rs web replicas=3; {PODS}"),
        expect![[
            r#"status poddisruptionbudget b {["reason":"InsufficientPods","status":"False"],"currentHealthy":2,"desiredHealthy":2,"disruptionsAllowed":0,"expectedPods":3}"#
        ]],
    );
    check(
        &format!("pdb b max=1; rs web replicas=3; {PODS}"),
        expect![[
            r#"status poddisruptionbudget b {["reason":"InsufficientPods","status":"False"],"currentHealthy":2,"desiredHealthy":2,"disruptionsAllowed":0,"expectedPods":3}"#
        ]],
    );
    check(
        &format!("pdb b max=1; deployment d replicas=2; rs web replicas=3 owner=deployment/d; {PODS}"),
        expect![[
            r#"status poddisruptionbudget b {["reason":"SufficientPods","status":"True"],"currentHealthy":2,"desiredHealthy":1,"disruptionsAllowed":1,"expectedPods":2}"#
        ]],
    );
    // Whoever has a scale says it by that.
    check(
        "pdb b max=1; deployment d replicas=2; pod x owner=deployment/d ready; pod y owner=deployment/d ready",
        expect![[
            r#"status poddisruptionbudget b {["reason":"SufficientPods","status":"True"],"currentHealthy":2,"desiredHealthy":1,"disruptionsAllowed":1,"expectedPods":2}"#
        ]],
    );
    // A Deployment that is gone says nothing; its ReplicaSet does.
    check(
        &format!("pdb b max=1; rs web replicas=3 owner=deployment/gone; {PODS}"),
        expect![[
            r#"status poddisruptionbudget b {["reason":"InsufficientPods","status":"False"],"currentHealthy":2,"desiredHealthy":2,"disruptionsAllowed":0,"expectedPods":3}"#
        ]],
    );
}

#[test]
fn says_why_nobody_knows_how_many_there_should_be() {
    for (owner, why) in [
        ("rs/gone", r#"found no controllers for pod "x""#),
        ("configmap/c", "configmaps does not implement the scale subresource"),
        ("Foo/f", r#"no matches for kind "Foo" in version "example.com/v1""#),
    ] {
        let plan = World::of(&format!("pdb b max=1; configmap c; pod x owner={owner} ready")).plan(
            &PodDisruptionBudgets,
            &PodDisruptionBudget::NAMES,
            "b",
        );
        let failed = "event Warning CalculateExpectedPodCountFailed: Failed to calculate the number of expected pods:";
        let status = r#"status poddisruptionbudget b {"conditions":[{"reason":"SyncFailed","status":"False","type":"DisruptionAllowed"}],"disruptedPods":{},"disruptionsAllowed":0}"#;
        assert_eq!(plan, format!("{failed} {why}\n{status}"), "{owner}");
    }
}

#[test]
fn pods_that_nobody_wants_so_many_of_are_told_of() {
    check(
        "pdb b max=1; pod x ready",
        expect![[r#"
        event Warning UnmanagedPods: Pods selected by this PodDisruptionBudget (selector: &LabelSelector{MatchLabels:map[string]string{app: web,},MatchExpressions:[]LabelSelectorRequirement{},}) were found to be unmanaged. As a result, the status of the PDB cannot be calculated correctly, which may result in undefined behavior. To account for these pods please set ".spec.minAvailable" field of the PDB to an integer value.
        status poddisruptionbudget b {["reason":"InsufficientPods","status":"False"],"currentHealthy":1,"desiredHealthy":0,"disruptionsAllowed":0,"expectedPods":0}"#]],
    );
}

#[test]
fn selectors_as_go_prints_them() {
    let shown = |selector: serde_json::Value| as_go(&serde_json::from_value(selector).unwrap());
    assert_eq!(
        shown(serde_json::json!({"matchLabels": {"a": "b", "c": "d"}})),
        "&LabelSelector{MatchLabels:map[string]string{a: b,c: d,},MatchExpressions:[]LabelSelectorRequirement{},}"
    );
    assert_eq!(
        shown(serde_json::json!({"matchExpressions": [{"key": "a", "operator": "In", "values": ["b", "c"]}]})),
        "&LabelSelector{MatchLabels:map[string]string{},MatchExpressions:[]LabelSelectorRequirement{\
         LabelSelectorRequirement{Key:a,Operator:In,Values:[b c],},},}"
    );
}

#[test]
fn whoever_is_to_go_does_not_count() {
    check(
        &format!("pdb b min=1 going=x; {PODS}"),
        expect![[r#"
        status poddisruptionbudget b {["reason":"InsufficientPods","status":"False"],"currentHealthy":1,"desiredHealthy":1,"disruptedPods":{"x":"1970-01-12T13:46:40Z"},"disruptionsAllowed":0,"expectedPods":3}
        look again after 120s"#]],
    );
    check(
        &format!("pdb b min=1 going=x since=121; {PODS}"),
        expect![[
            r#"status poddisruptionbudget b {["reason":"SufficientPods","status":"True"],"currentHealthy":2,"desiredHealthy":1,"disruptionsAllowed":1,"expectedPods":3}"#
        ]],
    );
    check(
        &format!("pdb b min=1 going=gone; {PODS}"),
        expect![[
            r#"status poddisruptionbudget b {["reason":"SufficientPods","status":"True"],"currentHealthy":2,"desiredHealthy":1,"disruptionsAllowed":1,"expectedPods":3}"#
        ]],
    );
}

#[test]
fn hears_of_its_pods() {
    let world = World::of("pdb b min=1; rs web");
    assert_eq!(world.keys(&PodDisruptionBudgets, "pod x"), "poddisruptionbudgets.policy d/b");
    assert_eq!(world.keys(&PodDisruptionBudgets, "pod x labels=app:other"), "");
    assert_eq!(world.keys(&PodDisruptionBudgets, "rs web"), "");
}

#[test]
fn who_is_not_gone_after_a_while_is_not_going() {
    let plan = |pod: &str| World::of(pod).plan(&PodDisruptionBudgets, &Pod::NAMES, "x");
    assert_eq!(plan("pod x ready said-to-go=20"), "look again after 100s");
    expect![[r#"status pod x {"conditions":[{"status":"True","type":"Ready"},{"status":"False","type":"DisruptionTarget"}],"phase":"Pending"}"#]].assert_eq(&plan("pod x ready said-to-go=120"));
    for stays_so in [
        "pod x ready",
        "pod x ready deleting said-to-go=200",
        "pod x phase=Failed said-to-go=200",
        "pod x ready said-to-go=200 by=TerminationByKubelet",
    ] {
        assert_eq!(plan(stays_so), "", "{stays_so}");
    }
    assert_eq!(World::of("").keys(&PodDisruptionBudgets, "pod x said-to-go=1"), "pods d/x");
    assert_eq!(World::of("").keys(&PodDisruptionBudgets, "pod x"), "");
}
