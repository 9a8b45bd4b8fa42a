//! Which changes wake a pod that fits nowhere.

use serde_json::{Value, json};

use super::{both, cluster, labels, node, place, pod, refusal, requests, zone};
use crate::{Happened, PodInfo, Snapshot};

/// Whether a pod that is refused now is woken by what `change` does.
fn woken(snapshot: &mut Snapshot, more: &Value, change: impl FnOnce(&mut Snapshot) -> Happened) -> bool {
    let refused = refusal(snapshot, more);
    let happened = change(snapshot);
    refused.unblocked_by.intersects(happened.changes)
        && snapshot.may_help(&happened, &PodInfo::of(&pod("p", more)), refused.unblocked_by)
}

#[test]
fn a_pod_that_lacks_room_wakes_for_room() {
    let full = || {
        let mut snapshot = cluster(&[("a", json!({}))]);
        place(&mut snapshot, &[("cpu", "a", requests("2", "0")), ("memory", "a", requests("0", "1Gi"))]);
        snapshot
    };
    let wants = requests("1", "0");
    assert!(woken(&mut full(), &wants, |s| s.remove_pod("cpu")));
    assert!(!woken(&mut full(), &wants, |s| s.remove_pod("memory")), "that pod had no CPU");
    assert!(woken(&mut full(), &wants, |s| s.upsert_node(&node("b", &json!({})))));
    let small = json!({"status": {"allocatable": {"cpu": "500m"}}});
    assert!(!woken(&mut full(), &wants, |s| s.upsert_node(&node("b", &small))), "too small in any case");
    let tainted = json!({"spec": {"taints": [{"key": "k", "effect": "NoSchedule"}]}});
    assert!(!woken(&mut full(), &wants, |s| s.upsert_node(&node("b", &tainted))));
    assert!(!woken(&mut full(), &wants, |s| s.upsert_node(&node("a", &labels(&[("x", "y")])))));
    let larger = json!({"status": {"allocatable": {"cpu": "4"}}});
    assert!(woken(&mut full(), &wants, |s| s.upsert_node(&node("a", &larger))));
}

#[test]
fn a_pod_that_lacks_a_label_wakes_for_labels() {
    let wants = json!({"spec": {"nodeSelector": {"disk": "ssd"}}});
    let mut snapshot = cluster(&[("a", json!({}))]);
    place(&mut snapshot, &[("x", "a", json!({}))]);
    assert!(!woken(&mut snapshot, &wants, |s| s.remove_pod("x")));
    assert!(!woken(&mut snapshot, &wants, |s| s.upsert_node(&node("a", &labels(&[("disk", "hdd")])))));
    assert!(woken(&mut snapshot, &wants, |s| s.upsert_node(&node("a", &labels(&[("disk", "ssd")])))));
}

#[test]
fn a_pod_that_lacks_a_neighbour_wakes_for_one() {
    let near = json!({"spec": {"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "db"}}}]}}}});
    let arrives =
        |app: &'static str| move |s: &mut Snapshot| s.assume(&PodInfo::of(&pod("n", &labels(&[("app", app)]))), "a");
    assert!(woken(&mut cluster(&[("a", zone("a"))]), &near, arrives("db")));
    assert!(!woken(&mut cluster(&[("a", zone("a"))]), &near, arrives("web")));
}

#[test]
fn a_pod_that_is_unwanted_wakes_when_the_others_leave() {
    let far = json!({"spec": {"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "web"}}}]}}}});
    let web = labels(&[("app", "web")]);
    let mut snapshot = cluster(&[("a", zone("a"))]);
    place(&mut snapshot, &[("loner", "a", far.clone()), ("idle", "a", requests("0", "0"))]);
    assert!(!woken(&mut snapshot, &both(requests("0", "0"), &web), |s| s.remove_pod("idle")));
    assert!(woken(&mut snapshot, &both(requests("0", "0"), &web), |s| s.remove_pod("loner")));
    place(&mut snapshot, &[("w", "a", web), ("idle", "a", requests("0", "0"))]);
    assert!(!woken(&mut snapshot, &both(requests("0", "0"), &far), |s| s.remove_pod("idle")));
    assert!(woken(&mut snapshot, &both(requests("0", "0"), &far), |s| s.remove_pod("w")));
}
