//! Which changes wake a pod that fits nowhere.

use serde_json::{Value, json};

use super::{both, cluster, labels, node, place, pod, refusal, requests, zone};
use crate::{Changes, Happened, Help, PodInfo, Snapshot};

/// Whether a pod that is refused now is woken by what `change` does.
pub(super) fn woken(snapshot: &mut Snapshot, more: &Value, change: impl FnOnce(&mut Snapshot) -> Happened) -> bool {
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

/// What a pod waits for after it was refused and after each change, until one wakes it.
fn waits(snapshot: &mut Snapshot, more: &Value, changes: &[Value]) -> Option<usize> {
    let pod = PodInfo::of(&pod("p", more));
    let mut unblocked_by = refusal(snapshot, more).unblocked_by;
    for (at, change) in changes.iter().enumerate() {
        let happened = snapshot.upsert_node(&node("a", change));
        if !unblocked_by.intersects(happened.changes) {
            continue;
        }
        match snapshot.help(&happened, &pod, unblocked_by) {
            Help::Now => return Some(at),
            Help::With(more) => unblocked_by |= more,
            Help::Never => {}
        }
    }
    None
}

#[test]
fn a_node_that_becomes_right_in_several_steps_wakes_at_the_last() {
    let taint = json!([{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]);
    let cordoned = json!({"spec": {"unschedulable": true, "taints": taint}});
    let uncordoned = json!({"spec": {"taints": taint}});
    let open = json!({"spec": {}});
    assert_eq!(waits(&mut cluster(&[("a", cordoned.clone())]), &json!({}), &[uncordoned, open.clone()]), Some(1));
    let no_taint_but_cordoned = json!({"spec": {"unschedulable": true}});
    let steps = [no_taint_but_cordoned, open];
    assert_eq!(waits(&mut cluster(&[("a", cordoned)]), &json!({}), &steps), Some(1));
    // A node that registers with a taint, which goes when the node is ready.
    let wants = json!({"spec": {"nodeSelector": {"disk": "ssd"}}});
    let tainted = json!({"spec": {"taints": [{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]}});
    let right = labels(&[("disk", "ssd")]);
    let steps = [both(tainted, &right), right];
    assert_eq!(waits(&mut cluster(&[("b", json!({}))]), &wants, &steps), Some(1));
    let another = json!({"spec": {"nodeName": "b"}});
    let mut snapshot = cluster(&[("c", json!({}))]);
    let happened = snapshot.upsert_node(&node("a", &json!({})));
    assert_eq!(snapshot.help(&happened, &PodInfo::of(&pod("p", &another)), Changes::NODE_ADDED), Help::Never);
}
