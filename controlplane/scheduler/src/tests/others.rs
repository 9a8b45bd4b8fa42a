//! What pods say of each other: affinity, anti-affinity, topology spread, host ports.

use expect_test::expect;
use serde_json::{Value, json};

use super::{both, cluster, decide, labels, place, zone};
use crate::{Changes, Snapshot};

fn three() -> Snapshot {
    cluster(&[("a1", zone("a")), ("a2", zone("a")), ("b1", zone("b"))])
}

fn term(key: &str, app: &str) -> Value {
    json!({"topologyKey": key, "labelSelector": {"matchLabels": {"app": app}}})
}

fn required(kind: &str, terms: Value) -> Value {
    json!({"spec": {"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": terms}}}})
}

fn app(name: &str) -> Value {
    labels(&[("app", name)])
}

#[test]
fn required_affinity_goes_to_the_domain_of_a_match() {
    let near = required("podAffinity", json!([term("zone", "db")]));
    let mut snapshot = three();
    expect!["0/3 nodes are available: 3 node(s) didn't match pod affinity rules. preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."]
        .assert_eq(&decide(&mut snapshot, &near));
    place(&mut snapshot, &[("db", "b1", app("db"))]);
    assert_eq!(decide(&mut snapshot, &near), "b1");
    snapshot.remove_pod("db");
    assert!(decide(&mut snapshot, &near).contains("pod affinity rules"), "what is gone does not count");
    // The first of those that want each other goes anywhere, but where there is a domain.
    let itself = both(near.clone(), &app("db"));
    snapshot.upsert_node(&super::node("b1", &json!({})));
    snapshot.upsert_node(&super::node("b1", &zone("b")));
    assert!(["a1", "a2", "b1"].contains(&decide(&mut snapshot, &itself).as_str()));
    let nowhere = both(required("podAffinity", json!([term("rack", "db")])), &app("db"));
    assert!(decide(&mut snapshot, &nowhere).contains("3 node(s) didn't match pod affinity rules"));
    // All terms together: one pod must match them all.
    let two = required(
        "podAffinity",
        json!([term("zone", "db"), {"topologyKey": "zone", "labelSelector": {"matchLabels": {"tier": "x"}}}]),
    );
    place(&mut snapshot, &[("db", "b1", app("db")), ("x", "b1", labels(&[("tier", "x")]))]);
    assert!(decide(&mut snapshot, &two).contains("pod affinity rules"));
    place(&mut snapshot, &[("dbx", "a2", labels(&[("app", "db"), ("tier", "x")]))]);
    assert!(decide(&mut snapshot, &two).starts_with('a'));
}

#[test]
fn anti_affinity_holds_in_both_directions() {
    let far = required("podAntiAffinity", json!([term("zone", "web")]));
    let mut snapshot = three();
    place(&mut snapshot, &[("w", "a1", app("web"))]);
    assert_eq!(decide(&mut snapshot, &far), "b1");
    place(&mut snapshot, &[("w2", "b1", app("web"))]);
    expect!["0/3 nodes are available: 3 node(s) didn't match pod anti-affinity rules. preemption: 0/3 nodes are available: 3 No preemption victims found for incoming pod."]
        .assert_eq(&decide(&mut snapshot, &far));
    let mut snapshot = three();
    place(
        &mut snapshot,
        &[
            ("loner", "a1", far),
            ("other", "b1", required("podAntiAffinity", json!([term("kubernetes.io/hostname", "web")]))),
        ],
    );
    expect!["0/3 nodes are available: 3 node(s) didn't satisfy existing pods anti-affinity rules. preemption: 0/3 nodes are available: 3 No preemption victims found for incoming pod."]
        .assert_eq(&decide(&mut snapshot, &app("web")));
    assert!(["a1", "a2", "b1"].contains(&decide(&mut snapshot, &app("db")).as_str()));
    snapshot.remove_pod("other");
    assert_eq!(decide(&mut snapshot, &app("web")), "b1");
    // A node that moves to another zone takes its pods with it.
    snapshot.upsert_node(&super::node("a1", &zone("b")));
    assert_eq!(decide(&mut snapshot, &app("web")), "a2");
}

#[test]
fn terms_choose_namespaces_by_name_and_by_label() {
    let far = |more: Value| required("podAntiAffinity", json!([both(term("zone", "web"), &more)]));
    let mut snapshot = cluster(&[("a1", zone("a"))]);
    place(&mut snapshot, &[("w", "a1", both(app("web"), &json!({"metadata": {"namespace": "other"}})))]);
    let refused = |snapshot: &mut Snapshot, more: Value| decide(snapshot, &far(more)).starts_with("0/1");
    assert!(!refused(&mut snapshot, json!({})), "another namespace");
    assert!(refused(&mut snapshot, json!({"namespaces": ["other"]})));
    assert!(refused(&mut snapshot, json!({"namespaceSelector": {}})), "all namespaces");
    let blue = json!({"namespaceSelector": {"matchLabels": {"team": "blue"}}});
    assert!(!refused(&mut snapshot, blue.clone()));
    let team = [("team".to_owned(), "blue".to_owned())].into();
    assert!(!snapshot.namespace("other", Some(&team)).changes.is_empty());
    assert!(refused(&mut snapshot, blue.clone()));
    assert!(snapshot.namespace("other", Some(&team)).changes.is_empty(), "nothing new");
    snapshot.namespace("other", None);
    assert!(!refused(&mut snapshot, blue));
    // matchLabelKeys: only pods of the same revision; mismatchLabelKeys: only of others.
    let mine = |key: &str| both(far(json!({key: ["rev"], "namespaces": ["other"]})), &labels(&[("rev", "2")]));
    assert!(!decide(&mut snapshot, &mine("matchLabelKeys")).starts_with("0/1"));
    assert!(decide(&mut snapshot, &mine("mismatchLabelKeys")).starts_with("0/1"));
}

fn spread(more: &Value) -> Value {
    let constraint = json!({
        "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "web"}},
    });
    both(json!({"spec": {"topologySpreadConstraints": [both(constraint, more)]}}), &app("web"))
}

#[test]
fn hard_spread_fills_the_emptiest_domain() {
    let mut snapshot = three();
    place(&mut snapshot, &[("w1", "a1", app("web")), ("w2", "b1", app("web")), ("w3", "a2", app("web"))]);
    assert_eq!(decide(&mut snapshot, &spread(&json!({}))), "b1");
    assert!(decide(&mut snapshot, &spread(&json!({"maxSkew": 2}))).len() == 2);
    let full = both(spread(&json!({})), &json!({"spec": {"nodeSelector": {"kubernetes.io/hostname": "a1"}}}));
    // Only the nodes that the selector matches count, so the zone is alone and even.
    assert_eq!(decide(&mut snapshot, &full), "a1");
    let ignoring = both(
        spread(&json!({"nodeAffinityPolicy": "Ignore"})),
        &json!({"spec": {"nodeSelector": {"kubernetes.io/hostname": "a1"}}}),
    );
    expect!["0/3 nodes are available: 1 node(s) didn't match pod topology spread constraints, 2 node(s) didn't match Pod's node affinity/selector. preemption: 0/3 nodes are available: 1 No preemption victims found for incoming pod, 2 Preemption is not helpful for scheduling."]
        .assert_eq(&decide(&mut snapshot, &ignoring));
    let few = spread(&json!({"minDomains": 3}));
    expect!["0/3 nodes are available: 3 node(s) didn't match pod topology spread constraints. preemption: 0/3 nodes are available: 3 No preemption victims found for incoming pod."]
        .assert_eq(&decide(&mut snapshot, &few));
    snapshot.upsert_node(&super::node("x", &json!({})));
    let message = decide(
        &mut snapshot,
        &both(spread(&json!({})), &json!({"spec": {"nodeSelector": {"kubernetes.io/hostname": "x"}}})),
    );
    assert!(
        message.contains("1 node(s) didn't match pod topology spread constraints (missing required label)"),
        "{message}"
    );
}

/// Where an equal pod goes, or that it goes nowhere, by the fields of the constraint.
#[test]
fn each_field_of_a_spread_constraint_has_its_say() {
    let taint = json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}});
    let on = |name: &str| json!({"spec": {"nodeSelector": {"kubernetes.io/hostname": name}}});
    let full = "didn't match pod topology spread constraints";
    // Two pods in zone a, one in b, none in c, whose only node is tainted.
    let cases = [
        (json!({}), json!({}), full),
        (json!({"maxSkew": 2}), json!({}), "b1"),
        (json!({"nodeTaintsPolicy": "Honor"}), json!({}), "b1"),
        (json!({"nodeTaintsPolicy": "Honor", "minDomains": 2}), json!({}), "b1"),
        (json!({"nodeTaintsPolicy": "Honor", "minDomains": 3}), json!({}), full),
        (json!({"nodeTaintsPolicy": "Honor", "minDomains": 3, "maxSkew": 2}), json!({}), "b1"),
        (json!({}), on("a1"), "a1"),
        (json!({"minDomains": 2}), on("a1"), full),
        (json!({"nodeAffinityPolicy": "Ignore", "nodeTaintsPolicy": "Honor"}), on("a1"), full),
        (
            json!({"labelSelector": {"matchLabels": {"app": "other"}}, "topologyKey": "kubernetes.io/hostname"}),
            on("b1"),
            "b1",
        ),
        (json!({"matchLabelKeys": ["rev"]}), both(labels(&[("rev", "2")]), &on("b1")), "b1"),
        (json!({"matchLabelKeys": ["absent"]}), json!({}), full),
        (json!({"topologyKey": "rack"}), json!({}), "(missing required label)"),
    ];
    for (constraint, pod, expected) in cases {
        let mut snapshot = cluster(&[("a1", zone("a")), ("b1", zone("b")), ("c1", both(zone("c"), &taint))]);
        place(&mut snapshot, &[("w1", "a1", app("web")), ("w2", "a1", app("web")), ("w3", "b1", app("web"))]);
        let decision = decide(&mut snapshot, &both(spread(&constraint), &pod));
        assert!(decision.contains(expected), "{constraint} {pod}: {decision}");
    }
}

#[test]
fn spread_minds_taints_labels_of_revisions_and_the_end_of_pods() {
    let taint = json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}});
    let mut snapshot = cluster(&[("a1", zone("a")), ("b1", both(zone("b"), &taint))]);
    place(&mut snapshot, &[("w1", "a1", app("web"))]);
    assert!(decide(&mut snapshot, &spread(&json!({}))).starts_with("0/2"), "the tainted zone is empty");
    assert_eq!(decide(&mut snapshot, &spread(&json!({"nodeTaintsPolicy": "Honor"}))), "a1");
    let revision = |n: &str| both(spread(&json!({"matchLabelKeys": ["rev"]})), &labels(&[("rev", n)]));
    assert_eq!(decide(&mut snapshot, &revision("2")), "a1", "pods of other revisions do not count");
    snapshot.remove_pod("w1");
    let ending = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
    place(&mut snapshot, &[("w1", "a1", both(app("web"), &ending))]);
    assert_eq!(decide(&mut snapshot, &spread(&json!({}))), "a1", "pods that end do not count");
}

#[test]
fn a_host_port_is_given_once() {
    let port = |ip: &str, protocol: &str| json!({"spec": {"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80, "hostIP": ip, "protocol": protocol}]}]}});
    let mut snapshot = cluster(&[("a", json!({}))]);
    place(&mut snapshot, &[("x", "a", port("127.0.0.1", "TCP"))]);
    assert_eq!(decide(&mut snapshot, &port("127.0.0.2", "TCP")), "a");
    assert_eq!(decide(&mut snapshot, &port("127.0.0.1", "UDP")), "a");
    for ip in ["0.0.0.0", "", "127.0.0.1"] {
        expect!["0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."]
            .assert_eq(&decide(&mut snapshot, &port(ip, "TCP")));
    }
    assert!(snapshot.remove_pod("x").changes.intersects(Changes::POD_REMOVED));
    assert_eq!(decide(&mut snapshot, &port("", "TCP")), "a");
}
