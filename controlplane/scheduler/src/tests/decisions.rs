//! Filters and scores that look at the node and the pod alone, and the snapshot's sums.

use expect_test::expect;
use serde_json::{Value, json};

use super::{check, cluster, decide, merge, node, pod, requests};
use crate::{
    Changes, Decision, PodInfo, Profile, Snapshot, schedule,
    synthetic::{self, Workload},
};

#[test]
fn says_why_no_node_fits() {
    check(&[], json!({}), expect!["no nodes available to schedule pods"]);
    let tainted = json!({"spec": {"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}});
    let three = [("a", json!({})), ("b", tainted.clone()), ("c", tainted)];
    check(
        &three,
        requests("3", "1Gi"),
        expect![
            "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint(s). preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."
        ],
    );
    check(
        &[("a", json!({})), ("b", json!({"spec": {"unschedulable": true}}))],
        requests("3", "5Gi"),
        expect![
            "0/2 nodes are available: 1 Insufficient cpu, 1 Insufficient memory, 1 node(s) were unschedulable. preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."
        ],
    );
    check(
        &[("a", json!({"status": {"allocatable": {"pods": "0"}}}))],
        json!({"spec": {"preemptionPolicy": "Never"}}),
        expect!["0/1 nodes are available: 1 Too many pods. preemption: not eligible due to preemptionPolicy=Never."],
    );
    check(
        &[("a", json!({}))],
        json!({"spec": {"nodeSelector": {"disk": "ssd"}}}),
        expect![
            "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
        ],
    );
    let gpu = json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"example.com/gpu": "1"}}}]}});
    check(
        &[("a", json!({}))],
        gpu,
        expect![
            "0/1 nodes are available: 1 Insufficient example.com/gpu. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
        ],
    );
}

#[test]
fn finds_the_node_that_fits() {
    let gpu = json!({"status": {"allocatable": {"example.com/gpu": "1"}}});
    let labelled = json!({"metadata": {"labels": {"zone": "z", "cores": "8"}}});
    let tainted = json!({"spec": {"taints": [{"key": "k", "value": "v", "effect": "NoExecute"}]}});
    let cordoned = json!({"spec": {"unschedulable": true}});
    let nodes = [("gpu", gpu), ("zone", labelled), ("tainted", tainted), ("cordoned", cordoned)];
    let affinity = |key: &str, operator: &str, values: Value| {
        let terms = json!([{"matchExpressions": [{"key": key, "operator": operator, "values": values}]}]);
        let required = json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}});
        json!({"spec": {"affinity": {"nodeAffinity": required}}})
    };
    let on = |name: &str, more: Value| {
        let mut pod = json!({"spec": {"nodeSelector": {"kubernetes.io/hostname": name}}});
        merge(&mut pod, &more);
        pod
    };
    let cases = [
        ("gpu", json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"example.com/gpu": "1"}}}]}})),
        ("zone", json!({"spec": {"nodeSelector": {"zone": "z"}}})),
        ("zone", affinity("zone", "In", json!(["y", "z"]))),
        ("zone", affinity("zone", "Exists", json!(null))),
        ("zone", affinity("cores", "Gt", json!(["7"]))),
        ("tainted", on("tainted", json!({"spec": {"tolerations": [{"key": "k", "operator": "Exists"}]}}))),
        (
            "tainted",
            on("tainted", json!({"spec": {"tolerations": [{"key": "k", "value": "v", "effect": "NoExecute"}]}})),
        ),
        ("cordoned", on("cordoned", json!({"spec": {"tolerations": [{"operator": "Exists"}]}}))),
    ];
    let mut snapshot = cluster(&nodes);
    for (expected, pod) in cases {
        assert_eq!(decide(&mut snapshot, &pod), expected, "{pod}");
    }
    let nowhere = on("tainted", json!({"spec": {"tolerations": [{"key": "k", "value": "w"}]}}));
    assert!(decide(&mut snapshot, &nowhere).contains("untolerated taint(s)"));
}

#[test]
fn prefers_the_emptier_node_and_the_one_with_the_image() {
    let mut snapshot = cluster(&[("a", json!({})), ("b", json!({}))]);
    snapshot.assume(&PodInfo::of(&pod("x", &json!({}))), "a");
    assert_eq!(decide(&mut snapshot, &json!({})), "b");
    let image = json!({"status": {"images": [{"names": ["hello"], "sizeBytes": 70_000}]}});
    assert_eq!(decide(&mut cluster(&[("a", image), ("b", json!({}))]), &json!({})), "a");
    let soft = json!({"spec": {"taints": [{"key": "k", "effect": "PreferNoSchedule"}]}});
    assert_eq!(decide(&mut cluster(&[("a", soft), ("b", json!({}))]), &json!({})), "b");
}

/// However small a module is: where it is, it is compiled.
#[test]
fn an_image_is_known_by_any_of_its_names() {
    let has = |name: &str| json!({"status": {"images": [{"names": [name], "sizeBytes": 1}]}});
    let runs = |image: &str| json!({"spec": {"containers": [{"name": "c", "image": image}]}});
    let first = json!({"spec": {"initContainers": [{"name": "i", "image": "first"}]}});
    let mounts = json!({"spec": {"volumes": [{"name": "v", "image": {"reference": "data:v1"}}]}});
    for (there, pod, draws) in [
        ("demo/app:v1", runs("demo/app:v1"), true),
        ("demo/app:v1", runs("demo/app:v2"), false),
        ("demo/app:latest", runs("demo/app"), true),
        ("demo/app", runs("demo/app:latest"), true),
        ("demo/app:v1", runs("demo/app"), false),
        ("localhost:5000/app:latest", runs("localhost:5000/app"), true),
        ("demo/app@sha256:ab", runs("demo/app@sha256:ab"), true),
        ("file://app.wasm", runs("file://app.wasm"), true),
        ("first:latest", first, true),
        ("data:v1", mounts, true),
    ] {
        let mut snapshot = cluster(&[("a", json!({})), ("b", has(there)), ("c", json!({}))]);
        let chosen = |tie| schedule(&PodInfo::of(&super::pod("p", &pod)), &mut snapshot, &Profile::default(), tie);
        let on_b = (0..8).map(chosen).filter(|d| matches!(d, Decision::Bind { node, .. } if &**node == "b")).count();
        assert_eq!(on_b == 8, draws, "{there} for {pod}: {on_b} of 8");
    }
}

#[test]
fn counts_each_pod_once() {
    let mut snapshot = cluster(&[("a", json!({}))]);
    let sums =
        |s: &Snapshot| s.node("a").map(|n| (n.requested.pods, n.requested.millicores, n.requested.memory_bytes >> 30));
    let bound = pod("x", &json!({"spec": {"nodeName": "a"}}));
    snapshot.assume(&PodInfo::of(&pod("x", &json!({}))), "a");
    snapshot.add_pod(&bound);
    assert_eq!(sums(&snapshot), Some((1, 500, 1)), "a confirmation adds nothing");
    snapshot.remove_node("a");
    assert!(snapshot.upsert_node(&node("a", &json!({}))).changes.intersects(Changes::NODE_ADDED));
    assert_eq!(sums(&snapshot), Some((1, 500, 1)), "pods outlive their node's absence");
    let finished = pod("x", &json!({"spec": {"nodeName": "a"}, "status": {"phase": "Succeeded"}}));
    assert!(snapshot.add_pod(&finished).changes.intersects(Changes::POD_REMOVED));
    assert_eq!(sums(&snapshot), Some((0, 0, 0)));
    assert!(snapshot.remove_pod("x").changes.is_empty());
}

#[test]
fn says_what_changed_on_a_node() {
    let mut snapshot = cluster(&[("a", json!({}))]);
    for (more, expected) in [
        (json!({}), Changes::NONE),
        (json!({"metadata": {"labels": {"x": "y"}}}), Changes::NODE_LABELS | Changes::DOMAINS),
        (
            json!({"spec": {"unschedulable": true}}),
            Changes::NODE_LABELS | Changes::DOMAINS | Changes::NODE_UNSCHEDULABLE,
        ),
        (json!({"status": {"allocatable": {"cpu": "8"}}}), Changes::NODE_UNSCHEDULABLE | Changes::NODE_ALLOCATABLE),
    ] {
        assert_eq!(snapshot.upsert_node(&node("a", &more)).changes, expected, "{more}");
    }
}

#[test]
fn sums_containers_and_takes_the_largest_init_container() {
    let container = |cpu: &str| json!({"name": "c", "resources": {"requests": {"cpu": cpu}}});
    let sidecar = |cpu: &str| {
        let mut c = container(cpu);
        c["restartPolicy"] = "Always".into();
        c
    };
    let millicores = |init: Value, containers: Value| {
        PodInfo::of(&pod("p", &json!({"spec": {"initContainers": init, "containers": containers}}))).requests.millicores
    };
    assert_eq!(millicores(json!([]), json!([container("1"), container("500m")])), 1500);
    assert_eq!(millicores(json!([container("2")]), json!([container("1")])), 2000);
    assert_eq!(millicores(json!([sidecar("1"), container("2")]), json!([container("1")])), 3000);
    assert_eq!(millicores(json!([sidecar("1")]), json!([container("1")])), 2000);
}

#[test]
fn spreads_equal_pods_over_equal_nodes() {
    let names: Vec<String> = (0..200).map(|i| format!("n{i}")).collect();
    let nodes: Vec<_> = names.iter().map(|n| (n.as_str(), json!({}))).collect();
    let mut snapshot = cluster(&nodes);
    let profile = Profile::default();
    for tie in 0..400_u64 {
        let info = PodInfo::of(&pod(&format!("p{tie}"), &json!({})));
        let Decision::Bind { node, .. } = schedule(&info, &mut snapshot, &profile, tie) else { panic!("it fits") };
        snapshot.assume(&info, &node);
    }
    let fullest = snapshot.nodes().map(|n| n.requested.pods).max();
    assert!(fullest <= Some(4), "{fullest:?} pods on one of 200 nodes for 400 pods");
}

#[test]
fn fills_a_large_cluster() {
    for (workload, most) in
        [(Workload::Plain, 20), (Workload::Affinity, 40), (Workload::AntiAffinity, 25), (Workload::Spread, 25)]
    {
        let mut snapshot = synthetic::cluster(1000);
        let bound = synthetic::fill(&mut snapshot, &Profile::default(), 5000, workload);
        assert_eq!((bound, snapshot.pods()), (5000, 5000));
        // Scores are whole percents, which 30 such pods do not move: it is chance that spreads them, five on average.
        let fullest = snapshot.nodes().map(|n| n.requested.pods).max();
        assert!(fullest <= Some(most), "{workload:?}: {fullest:?} pods on one of 1,000 nodes for 5,000 pods");
    }
}
