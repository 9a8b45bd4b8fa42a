//! Claims and volumes: where they can be reached, and what is written before a pod is bound.

use expect_test::expect;
use podium_api::ObjectKey;
use serde_json::{Value, json};

use super::{both, cluster, decide, decision, hints::woken, labels, place, refusal};
use crate::{Changes, Decision, Happened, Snapshot, VolumePlan};

fn two() -> Snapshot {
    let mut snapshot = cluster(&[("a", json!({})), ("b", json!({}))]);
    for (name, mode, provisioner) in [
        ("local", "WaitForFirstConsumer", "podium.dev/local"),
        ("static", "WaitForFirstConsumer", "kubernetes.io/no-provisioner"),
        ("now", "Immediate", "example.com/x"),
    ] {
        let class = json!({"metadata": {"name": name}, "volumeBindingMode": mode, "provisioner": provisioner});
        assert_eq!(snapshot.upsert_class(&serde_json::from_value(class).unwrap()).changes, Changes::VOLUMES);
    }
    snapshot
}

fn claim(snapshot: &mut Snapshot, class: &str, more: &Value) -> Happened {
    let claim = json!({
        "metadata": {"name": "data", "namespace": "d", "uid": "c1"},
        "spec": {"storageClassName": class, "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    });
    snapshot.upsert_claim(&serde_json::from_value(both(claim, more)).unwrap())
}

fn volume(snapshot: &mut Snapshot, name: &str, size: &str, node: Option<&str>, more: &Value) -> Happened {
    let volume = json!({
        "metadata": {"name": name},
        "spec": {"storageClassName": "static", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": size}},
        "status": {"phase": "Available"},
    });
    let affinity = node.map_or(json!({}), |node| {
        let hostname = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": [node]});
        json!({"spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [hostname]}]}}}})
    });
    snapshot.upsert_volume(&serde_json::from_value(both(both(volume, &affinity), more)).unwrap())
}

fn user() -> Value {
    json!({"spec": {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]}})
}

fn bound_to(volume: &str) -> Value {
    json!({"metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}}, "spec": {"volumeName": volume}})
}

#[test]
fn says_what_keeps_claims_from_being_used() {
    let mut snapshot = two();
    expect![[r#"0/2 nodes are available: persistentvolumeclaim "data" not found. preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."#]]
        .assert_eq(&decide(&mut snapshot, &user()));
    let ephemeral = json!({"spec": {"volumes": [{"name": "v", "ephemeral": {}}]}});
    expect![[r#"0/2 nodes are available: waiting for ephemeral volume controller to create the persistentvolumeclaim "p-v". preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling."#]]
        .assert_eq(&decide(&mut snapshot, &ephemeral));
    claim(&mut snapshot, "now", &json!({}));
    assert!(decide(&mut snapshot, &user()).contains("available: pod has unbound immediate PersistentVolumeClaims. "));
    claim(&mut snapshot, "now", &bound_to("gone"));
    let message = decide(&mut snapshot, &user());
    assert!(
        message.contains("2 node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"),
        "{message}"
    );
    claim(&mut snapshot, "now", &json!({"status": {"phase": "Lost"}, "spec": {"volumeName": "gone"}}));
    assert!(decide(&mut snapshot, &user()).contains(r#"claim "data" bound to non-existent persistentvolume "gone""#));
    claim(&mut snapshot, "static", &json!({}));
    let refused = refusal(&mut snapshot, &user());
    assert!(refused.message.contains("2 node(s) didn't find available persistent volumes to bind"));
    assert!(refused.unblocked_by.intersects(Changes::VOLUMES));
    assert_eq!(refused.plugins, ["VolumeBinding"]);
}

#[test]
fn goes_where_the_bound_volume_is() {
    let mut snapshot = two();
    volume(&mut snapshot, "pv", "1Gi", Some("b"), &json!({}));
    claim(&mut snapshot, "static", &bound_to("pv"));
    assert_eq!(decide(&mut snapshot, &user()), "b");
    let elsewhere = both(user(), &json!({"spec": {"nodeSelector": {"kubernetes.io/hostname": "a"}}}));
    assert!(decide(&mut snapshot, &elsewhere).contains("1 node(s) had volume node affinity conflict"));
    let zoned = labels(&[("topology.kubernetes.io/zone", "z1")]);
    volume(&mut snapshot, "pv", "1Gi", None, &zoned);
    let there = |zone: &str| both(labels(&[("topology.kubernetes.io/zone", zone)]), &json!({}));
    snapshot.upsert_node(&super::node("a", &there("z1")));
    snapshot.upsert_node(&super::node("b", &there("z2")));
    assert_eq!(decide(&mut snapshot, &user()), "a");
    snapshot.upsert_node(&super::node("a", &there("z3")));
    assert!(decide(&mut snapshot, &user()).contains("2 node(s) had no available volume zone"));
}

#[test]
fn plans_what_a_pod_needs_before_it_is_bound() {
    let plan = |snapshot: &mut Snapshot| match decision(snapshot, &user()) {
        Decision::Bind { node, volumes } => (node.to_string(), volumes),
        Decision::Unschedulable(refusal) => panic!("{}", refusal.message),
    };
    let key = || ObjectKey::new("d", "data");
    let mut snapshot = two();
    claim(&mut snapshot, "local", &json!({}));
    let provision = VolumePlan { bind: Vec::new(), provision: vec![key()] };
    assert_eq!(plan(&mut snapshot).1, provision);
    claim(&mut snapshot, "local", &json!({"metadata": {"annotations": {"volume.kubernetes.io/selected-node": "b"}}}));
    assert_eq!(plan(&mut snapshot), ("b".to_owned(), provision), "given to a node before");
    claim(&mut snapshot, "static", &json!({}));
    volume(&mut snapshot, "big", "9Gi", Some("a"), &json!({}));
    volume(&mut snapshot, "fits", "2Gi", Some("a"), &json!({}));
    volume(&mut snapshot, "small", "500Mi", Some("b"), &json!({}));
    let bind = VolumePlan { bind: vec![("fits".to_owned(), key())], provision: Vec::new() };
    assert_eq!(plan(&mut snapshot), ("a".to_owned(), bind.clone()));
    // While it is promised to one claim no other gets it.
    place(&mut snapshot, &[("first", "a", user())]);
    snapshot.promise("first", bind);
    let other = json!({"metadata": {"name": "other", "uid": "c2"}});
    claim(&mut snapshot, "static", &other);
    let second = json!({"spec": {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "other"}}]}});
    let Decision::Bind { volumes, .. } = decision(&mut snapshot, &second) else { panic!("the big one is left") };
    assert_eq!(volumes.bind[0].0, "big");
    snapshot.forget("first");
    let Decision::Bind { volumes, .. } = decision(&mut snapshot, &second) else { panic!("both are left") };
    assert_eq!(volumes.bind[0].0, "fits");
}

#[test]
fn a_claim_for_one_pod_has_one_pod() {
    let mut snapshot = two();
    volume(&mut snapshot, "pv", "1Gi", None, &json!({}));
    claim(&mut snapshot, "static", &both(bound_to("pv"), &json!({"spec": {"accessModes": ["ReadWriteOncePod"]}})));
    place(&mut snapshot, &[("first", "a", user())]);
    let message = decide(&mut snapshot, &user());
    assert!(message.contains("2 node has pod using PersistentVolumeClaim with the same name"), "{message}");
    snapshot.remove_pod("first");
    assert_eq!(decide(&mut snapshot, &user()).len(), 1);
}

#[test]
fn a_node_attaches_only_so_many_volumes_of_a_driver() {
    let mut snapshot = two();
    let limits = |name: &str, count: i32| {
        let driver = json!({"name": "disk.example.com", "nodeID": name, "allocatable": {"count": count}});
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"drivers": [driver]}})).unwrap()
    };
    assert_eq!(snapshot.upsert_csi_node(&limits("a", 1)).changes, Changes::VOLUMES);
    assert_eq!(snapshot.upsert_csi_node(&limits("a", 1)).changes, Changes::NONE);
    snapshot.upsert_csi_node(&limits("b", 1));
    for n in 1..=3 {
        let disk = json!({"spec": {"csi": {"driver": "disk.example.com", "volumeHandle": format!("h{n}")}}});
        volume(&mut snapshot, &format!("v{n}"), "1Gi", None, &disk);
        let named = json!({"metadata": {"name": format!("c{n}"), "uid": format!("c{n}")}});
        claim(&mut snapshot, "static", &both(named, &bound_to(&format!("v{n}"))));
    }
    let uses =
        |n: u32| json!({"spec": {"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": format!("c{n}")}}]}});
    place(&mut snapshot, &[("p1", "a", uses(1)), ("p2", "b", uses(2))]);
    expect!["0/2 nodes are available: 2 node(s) exceed max volume count. preemption: 0/2 nodes are available: 2 No preemption victims found for incoming pod."].assert_eq(&decide(&mut snapshot, &uses(3)));
    // A volume that is attached already costs nothing.
    assert_eq!(decide(&mut snapshot, &uses(2)), "b");
    snapshot.upsert_csi_node(&limits("a", 2));
    assert_eq!(decide(&mut snapshot, &uses(3)), "a");
}

#[test]
fn a_pod_waits_for_what_concerns_its_claims() {
    let other = json!({"metadata": {"name": "other", "uid": "c2"}});
    assert!(woken(&mut two(), &user(), |s| claim(s, "local", &json!({}))));
    assert!(!woken(&mut two(), &user(), |s| claim(s, "local", &other)), "somebody else's");
    let unbound = || {
        let mut snapshot = two();
        claim(&mut snapshot, "static", &json!({}));
        snapshot
    };
    let dear = json!({"spec": {"storageClassName": "dear"}});
    assert!(woken(&mut unbound(), &user(), |s| volume(s, "pv", "1Gi", None, &json!({}))));
    assert!(!woken(&mut unbound(), &user(), |s| volume(s, "pv", "1Gi", None, &dear)), "of another class");
    assert!(!woken(&mut unbound(), &user(), |s| claim(s, "static", &json!({}))), "nothing new");
    let class = |name: &str| {
        let class =
            json!({"metadata": {"name": name}, "volumeBindingMode": "WaitForFirstConsumer", "provisioner": "x"});
        serde_json::from_value(class).unwrap()
    };
    assert!(woken(&mut unbound(), &user(), |s| s.upsert_class(&class("static"))));
    assert!(!woken(&mut unbound(), &user(), |s| s.upsert_class(&class("another"))));
    let bound = || {
        let mut snapshot = two();
        claim(&mut snapshot, "static", &bound_to("gone"));
        snapshot
    };
    assert!(woken(&mut bound(), &user(), |s| volume(s, "gone", "1Gi", None, &json!({}))));
    assert!(!woken(&mut bound(), &user(), |s| volume(s, "pv", "1Gi", None, &json!({}))), "not its volume");
}
