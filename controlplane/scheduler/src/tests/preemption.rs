//! Who ends so that a pod of higher priority fits, and how nominations are respected.

use std::sync::Arc;

use expect_test::{Expect, expect};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde_json::{Value, json};

use super::{both, cluster, decide, labels, place, pod, refusal, requests};
use crate::{PodInfo, Snapshot};

fn of(priority: i32, cpu: &str) -> Value {
    both(requests(cpu, "1Mi"), &json!({"spec": {"priority": priority}}))
}

fn started(minute: u32) -> Value {
    json!({"status": {"startTime": format!("2026-01-01T00:{minute:02}:00Z")}})
}

fn budget(snapshot: &mut Snapshot, app: &str, allowed: i32) {
    let budget: PodDisruptionBudget = serde_json::from_value(json!({
        "metadata": {"name": app, "namespace": "d"},
        "spec": {"selector": {"matchLabels": {"app": app}}},
        "status": {"disruptionsAllowed": allowed, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1},
    }))
    .unwrap();
    snapshot.upsert_budget(&budget);
}

#[expect(clippy::needless_pass_by_value, reason = "reads better in tables")]
fn check(placed: &[(&str, &str, Value)], budgets: &[(&str, i32)], pod: Value, expected: Expect) {
    let mut snapshot = cluster(&[("a", json!({})), ("b", json!({}))]);
    place(&mut snapshot, placed);
    budgets.iter().for_each(|(app, allowed)| budget(&mut snapshot, app, *allowed));
    let before = format!("{:?}", snapshot.nodes().collect::<Vec<_>>());
    expected.assert_eq(&decide(&mut snapshot, &pod));
    let after = format!("{:?}", snapshot.nodes().collect::<Vec<_>>());
    assert_eq!(before, after, "what was thought away is back");
}

#[test]
fn the_fewest_and_least_important_end() {
    // The lowest of the highest priorities.
    check(
        &[("x", "a", of(5, "2")), ("y", "b", of(3, "2"))],
        &[],
        of(10, "1"),
        expect!["0/2 nodes are available: 2 Insufficient cpu. nominated: b; ends y"],
    );
    // More important pods are reprieved first.
    check(
        &[("x", "a", of(1, "1")), ("y", "a", of(2, "1")), ("z", "b", of(9, "2"))],
        &[],
        of(10, "1"),
        expect!["0/2 nodes are available: 2 Insufficient cpu. nominated: a; ends x"],
    );
    // A smaller sum, then fewer, then the youngest.
    check(
        &[("x1", "a", of(1, "1")), ("x2", "a", of(1, "1")), ("y", "b", of(1, "2"))],
        &[],
        of(10, "2"),
        expect!["0/2 nodes are available: 2 Insufficient cpu. nominated: b; ends y"],
    );
    check(
        &[("x", "a", both(of(1, "2"), &started(7))), ("y", "b", both(of(1, "2"), &started(3)))],
        &[],
        of(10, "2"),
        expect!["0/2 nodes are available: 2 Insufficient cpu. nominated: a; ends x"],
    );
    // Of equals on one node the one that ran longest stays.
    check(
        &[
            ("x", "a", both(of(1, "1"), &started(7))),
            ("y", "a", both(of(1, "1"), &started(3))),
            ("z", "b", of(20, "2")),
        ],
        &[],
        of(10, "1"),
        expect!["0/2 nodes are available: 2 Insufficient cpu. nominated: a; ends x"],
    );
}

#[test]
fn disruption_budgets_are_broken_last() {
    let guarded = |priority| both(of(priority, "2"), &labels(&[("app", "guarded")]));
    check(
        &[("x", "a", guarded(1)), ("y", "b", of(5, "2"))],
        &[("guarded", 0)],
        of(10, "2"),
        expect!["0/2 nodes are available: 2 Insufficient cpu. nominated: b; ends y"],
    );
    check(
        &[("x", "a", guarded(1)), ("y", "b", of(5, "2"))],
        &[("guarded", 1)],
        of(10, "2"),
        expect!["0/2 nodes are available: 2 Insufficient cpu. nominated: a; ends x"],
    );
    check(
        &[("x", "a", guarded(1)), ("y", "b", of(11, "2"))],
        &[("guarded", 0)],
        of(10, "2"),
        expect!["0/2 nodes are available: 2 Insufficient cpu. nominated: a; ends x"],
    );
}

#[test]
fn says_why_nobody_ends() {
    check(
        &[("x", "a", of(10, "2")), ("y", "b", of(11, "2"))],
        &[],
        of(10, "1"),
        expect![
            "0/2 nodes are available: 2 Insufficient cpu. preemption: 0/2 nodes are available: 2 No preemption victims found for incoming pod."
        ],
    );
    check(
        &[("x", "a", of(10, "1")), ("x2", "a", of(1, "1")), ("y", "b", of(11, "2"))],
        &[],
        of(10, "2"),
        expect![
            "0/2 nodes are available: 2 Insufficient cpu. preemption: 0/2 nodes are available: 1 Insufficient cpu, 1 No preemption victims found for incoming pod."
        ],
    );
    check(
        &[("x", "a", of(1, "2")), ("y", "b", of(1, "2"))],
        &[],
        both(of(10, "1"), &json!({"spec": {"preemptionPolicy": "Never"}})),
        expect!["0/2 nodes are available: 2 Insufficient cpu. preemption: not eligible due to preemptionPolicy=Never."],
    );
    check(
        &[("x", "a", of(1, "2")), ("y", "b", of(1, "2"))],
        &[],
        of(10, "3"),
        expect![
            "0/2 nodes are available: 2 Insufficient cpu. preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."
        ],
    );
}

#[test]
fn ports_anti_affinity_and_spread_find_victims_too() {
    let port = json!({"spec": {"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}]}]}});
    let low = |more: &Value| both(more.clone(), &json!({"spec": {"priority": 1}}));
    let high = |more: &Value| both(more.clone(), &json!({"spec": {"priority": 9}}));
    let mut snapshot = cluster(&[("a", json!({}))]);
    place(&mut snapshot, &[("x", "a", low(&port)), ("y", "a", low(&json!({})))]);
    assert!(decide(&mut snapshot, &high(&port)).ends_with("nominated: a; ends x"));
    let far = json!({"spec": {"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "web"}}}]}}}});
    let mut snapshot = cluster(&[("a", json!({}))]);
    place(&mut snapshot, &[("x", "a", low(&labels(&[("app", "web")]))), ("y", "a", low(&json!({})))]);
    assert!(decide(&mut snapshot, &high(&far)).ends_with("nominated: a; ends x"));
    let mut snapshot = cluster(&[("a", json!({}))]);
    place(&mut snapshot, &[("x", "a", low(&far)), ("y", "a", low(&json!({})))]);
    assert!(decide(&mut snapshot, &high(&labels(&[("app", "web")]))).ends_with("nominated: a; ends x"));
}

/// sig-scheduling, "PodTopologySpread Preemption validates proper pods are preempted".
#[test]
fn spread_asks_for_more_victims_than_room_does() {
    let named =
        |name: &str| both(labels(&[("zone", name)]), &json!({"status": {"allocatable": {"example.com/r": "10"}}}));
    let mut snapshot = cluster(&[("a", named("a")), ("b", named("b"))]);
    let of = |priority: i32, amount: &str| {
        json!({"metadata": {"labels": {"e2e": ""}}, "spec": {"priority": priority, "containers": [
            {"name": "c", "resources": {"requests": {"example.com/r": amount}}}]}})
    };
    place(&mut snapshot, &[("high", "a", of(1000, "9"))]);
    place(&mut snapshot, &[("low1", "b", of(1, "3")), ("low2", "b", of(1, "3")), ("low3", "b", of(1, "3"))]);
    let constraint = json!({"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchExpressions": [{"key": "e2e", "operator": "Exists"}]}});
    let medium = both(of(100, "3"), &json!({"spec": {"topologySpreadConstraints": [constraint]}}));
    let refused = refusal(&mut snapshot, &medium);
    let preemption = refused.preemption.expect("two of the three may end");
    assert_eq!((&*preemption.node, preemption.victims.len()), ("b", 2));
}

#[test]
fn a_nominated_pod_keeps_its_room_from_lesser_pods() {
    let mut snapshot = cluster(&[("a", json!({}))]);
    let waiting = Arc::new(PodInfo::of(&pod("waiting", &of(5, "2"))));
    snapshot.nominate(&waiting, "a");
    assert!(decide(&mut snapshot, &of(4, "1")).starts_with("0/1 nodes are available: 1 Insufficient cpu."));
    assert!(decide(&mut snapshot, &of(5, "1")).starts_with("0/1 nodes are available: 1 Insufficient cpu."));
    assert_eq!(decide(&mut snapshot, &of(6, "1")), "a");
    let own = both(of(5, "2"), &json!({"metadata": {"uid": "waiting", "name": "waiting"}}));
    assert_eq!(decide(&mut snapshot, &own), "a", "it is not in its own way");
    assert!(!snapshot.withdraw_nomination("waiting").changes.is_empty());
    assert_eq!(decide(&mut snapshot, &of(4, "1")), "a");
}

#[test]
fn whoever_waits_for_victims_preempts_no_others() {
    let mut snapshot = cluster(&[("a", json!({})), ("b", json!({}))]);
    place(&mut snapshot, &[("x", "a", of(1, "2")), ("y", "b", of(1, "2"))]);
    let preemptor = both(of(5, "2"), &json!({"status": {"nominatedNodeName": "a"}}));
    assert!(decide(&mut snapshot, &preemptor).contains("nominated: "), "x was not told yet");
    snapshot.mark_preempted("x");
    assert!(
        decide(&mut snapshot, &preemptor).ends_with("not eligible due to a terminating pod on the nominated node.")
    );
    snapshot.remove_pod("x");
    assert_eq!(decide(&mut snapshot, &preemptor), "a");
}
