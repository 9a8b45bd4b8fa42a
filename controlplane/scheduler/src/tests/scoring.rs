//! What makes one node better than another.

use serde_json::{Value, json};

use super::{both, cluster, decide, labels, place, pod, requests, zone};
use crate::{
    Config, Decision, PodInfo, Profile, Snapshot, Weighted, schedule,
    scores::{Allocated, BalancedAllocation, Strategy, WeightedResource},
};

fn two() -> Snapshot {
    cluster(&[("a", zone("a")), ("b", zone("b"))])
}

/// The node that is chosen whatever the tie.
#[track_caller]
fn always(snapshot: &mut Snapshot, more: &Value, node: &str) {
    for tie in 0..8 {
        match schedule(&PodInfo::of(&pod("p", more)), snapshot, &Profile::default(), tie) {
            Decision::Bind { node: chosen, .. } => assert_eq!(&*chosen, node),
            Decision::Unschedulable(refusal) => panic!("{}", refusal.message),
        }
    }
}

#[test]
fn preferred_node_affinity_is_weighed() {
    let prefer = |terms: Value| json!({"spec": {"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": terms}}}});
    let term = |zone: &str, weight: i32| json!({"weight": weight, "preference": {"matchExpressions": [{"key": "zone", "operator": "In", "values": [zone]}]}});
    always(&mut two(), &prefer(json!([term("b", 1)])), "b");
    always(&mut two(), &prefer(json!([term("b", 1), term("a", 9)])), "a");
}

#[test]
fn preferred_pods_attract_and_repel_in_both_directions() {
    let prefer = |kind: &str, app: &str| {
        json!({"spec": {"affinity": {kind: {"preferredDuringSchedulingIgnoredDuringExecution": [
            {"weight": 100, "podAffinityTerm": {"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": app}}}}]}}}})
    };
    let app = |name: &str| labels(&[("app", name)]);
    let mut snapshot = two();
    place(&mut snapshot, &[("db", "b", app("db")), ("x", "a", app("x"))]);
    always(&mut snapshot, &prefer("podAffinity", "db"), "b");
    always(&mut snapshot, &prefer("podAntiAffinity", "db"), "a");
    let mut snapshot = two();
    place(&mut snapshot, &[("fan", "b", prefer("podAffinity", "web")), ("x", "a", app("x"))]);
    always(&mut snapshot, &app("web"), "b");
    let mut snapshot = two();
    place(&mut snapshot, &[("foe", "b", prefer("podAntiAffinity", "web")), ("x", "a", app("x"))]);
    always(&mut snapshot, &app("web"), "a");
    // Whoever is required to be near counts a little, too.
    let mut snapshot = two();
    let needs = json!({"spec": {"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "web"}}}]}}}});
    place(&mut snapshot, &[("needs", "b", needs), ("x", "a", app("x"))]);
    always(&mut snapshot, &app("web"), "b");
}

#[test]
fn soft_spread_prefers_the_emptier_domain_and_defaults_spread_replicas() {
    let soft = json!({"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {"app": "web"}}});
    let web = both(labels(&[("app", "web")]), &json!({"spec": {"topologySpreadConstraints": [soft]}}));
    let mut snapshot = cluster(&[("a1", zone("a")), ("a2", zone("a")), ("b", zone("b"))]);
    let app = labels(&[("app", "web")]);
    // The pod on b of another kind makes b fuller than a2.
    place(&mut snapshot, &[("w", "a1", app), ("other", "b", json!({}))]);
    always(&mut snapshot, &web, "b");
    let replica = json!({"metadata": {"ownerReferences": [
        {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rs", "uid": "rs", "controller": true}]}});
    let mut snapshot = two();
    let tiny = |more: &Value| both(requests("1m", "1Mi"), more);
    place(&mut snapshot, &[("r1", "a", tiny(&replica))]);
    always(&mut snapshot, &tiny(&replica), "b");
}

fn with(strategy: Strategy, resources: &[(&str, i64)]) -> Profile {
    let resources =
        resources.iter().map(|(name, weight)| WeightedResource { name: (*name).to_owned(), weight: *weight });
    let score = Box::new(Allocated { strategy, resources: resources.collect() });
    Profile { scores: vec![Weighted { score, weight: 1 }], ..Profile::default() }
}

#[test]
fn strategies_spread_gather_or_follow_a_line() {
    let usual = [("cpu", 1), ("memory", 1)];
    let chosen = |profile: &Profile| {
        let mut snapshot = cluster(&[("empty", json!({})), ("half", json!({})), ("full", json!({}))]);
        place(&mut snapshot, &[("x", "half", requests("800m", "1600Mi")), ("y", "full", requests("1400m", "2800Mi"))]);
        match schedule(&PodInfo::of(&pod("p", &requests("200m", "400Mi"))), &mut snapshot, profile, 1) {
            Decision::Bind { node, .. } => node.to_string(),
            Decision::Unschedulable(refusal) => refusal.message,
        }
    };
    assert_eq!(chosen(&with(Strategy::Least, &usual)), "empty");
    assert_eq!(chosen(&with(Strategy::Most, &usual)), "full");
    assert_eq!(chosen(&with(Strategy::Ratio(vec![(0, 0), (50, 100), (100, 0)]), &usual)), "half");
    assert_eq!(chosen(&with(Strategy::Ratio(vec![(0, 0), (100, 100)]), &[("cpu", 3)])), "full");
}

#[test]
fn what_runs_out_together_is_preferred() {
    let score = Box::new(BalancedAllocation::default());
    let profile = Profile { scores: vec![Weighted { score, weight: 1 }], ..Profile::default() };
    let mut snapshot = cluster(&[("cpu", json!({})), ("empty", json!({})), ("memory", json!({}))]);
    place(&mut snapshot, &[("x", "cpu", requests("1", "0")), ("y", "memory", requests("0", "2Gi"))]);
    for (more, best) in [
        (requests("0", "2Gi"), "cpu"),
        (requests("1", "0"), "memory"),
        (requests("1", "2Gi"), "empty"),
        (requests("400m", "1200Mi"), "empty"),
    ] {
        for tie in 0..8 {
            match schedule(&PodInfo::of(&pod("p", &more)), &mut snapshot, &profile, tie) {
                Decision::Bind { node, .. } => assert_eq!(&*node, best, "{more}"),
                Decision::Unschedulable(refusal) => panic!("{}", refusal.message),
            }
        }
    }
}

#[test]
fn the_configuration_says_what_is_preferred() {
    let chosen = |strategy: Value, pod: &Value| {
        let score = json!({"disabled": [{"name": "*"}], "enabled": [{"name": "NodeResourcesFit"}]});
        let args = json!([{"name": "NodeResourcesFit", "args": {"scoringStrategy": strategy}}]);
        let config = Config::from_value(json!({
            "apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration",
            "profiles": [{"plugins": {"score": score}, "pluginConfig": args}],
        }));
        let gpus = |n: &str| json!({"status": {"allocatable": {"example.com/gpu": n}}});
        let mut snapshot = cluster(&[("empty", gpus("8")), ("half", gpus("4")), ("full", gpus("2"))]);
        place(&mut snapshot, &[("x", "half", requests("800m", "1600Mi")), ("y", "full", requests("1400m", "2800Mi"))]);
        match schedule(&PodInfo::of(&super::pod("p", pod)), &mut snapshot, &config.unwrap().profiles[0], 1) {
            Decision::Bind { node, .. } => node.to_string(),
            Decision::Unschedulable(refusal) => refusal.message,
        }
    };
    let small = requests("200m", "400Mi");
    let points = |points: &[(i64, i64)]| {
        let shape: Vec<_> = points.iter().map(|(at, score)| json!({"utilization": at, "score": score})).collect();
        json!({"shape": shape})
    };
    let ratio = |points| json!({"type": "RequestedToCapacityRatio", "requestedToCapacityRatio": points});
    assert_eq!(chosen(json!({"type": "LeastAllocated"}), &small), "empty");
    assert_eq!(chosen(json!({"type": "MostAllocated"}), &small), "full");
    assert_eq!(chosen(ratio(points(&[(0, 0), (50, 10), (100, 0)])), &small), "half");
    assert_eq!(chosen(ratio(points(&[(0, 10), (100, 0)])), &small), "empty");
    // By something else than CPU and memory.
    let gpu = json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"example.com/gpu": "1"}}}]}});
    let by_gpu = |kind: &str| json!({"type": kind, "resources": [{"name": "example.com/gpu", "weight": 3}]});
    assert_eq!(chosen(by_gpu("MostAllocated"), &gpu), "full");
    assert_eq!(chosen(by_gpu("LeastAllocated"), &gpu), "empty");
}

#[test]
fn extended_resources_count_for_pods_that_ask_for_them() {
    let gpus = |n: &str| json!({"status": {"allocatable": {"example.com/gpu": n}}});
    let wants = json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"example.com/gpu": "1"}}}]}});
    let mut snapshot = cluster(&[("few", gpus("2")), ("many", gpus("8"))]);
    let profile = with(Strategy::Most, &[("example.com/gpu", 1)]);
    let Decision::Bind { node, .. } = schedule(&PodInfo::of(&pod("p", &wants)), &mut snapshot, &profile, 1) else {
        panic!("it fits")
    };
    assert_eq!(&*node, "few");
}

#[test]
fn daemon_pods_are_looked_for_on_their_node_only() {
    let mut snapshot = two();
    let on = |name: &str| {
        json!({"spec": {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]}]}}}}})
    };
    assert_eq!(decide(&mut snapshot, &on("b")), "b");
    place(&mut snapshot, &[("x", "b", requests("2", "1Gi"))]);
    assert_eq!(
        decide(&mut snapshot, &on("b")),
        "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) didn't satisfy plugin(s) [NodeAffinity]. preemption: 0/2 nodes are available: 1 No preemption victims found for incoming pod, 1 Preemption is not helpful for scheduling."
    );
}
