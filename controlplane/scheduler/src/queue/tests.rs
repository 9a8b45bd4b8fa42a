//! The queue under virtual time.

use std::{sync::Arc, time::Duration};

use crate::{Changes, Help, PodInfo, Queue, queue::Pending};

fn always(_: &PodInfo, _: Changes) -> bool {
    true
}

fn pod(uid: &str, priority: i32) -> Arc<PodInfo> {
    Arc::new(PodInfo { uid: uid.to_owned(), priority, ..PodInfo::default() })
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn pop(queue: &mut Queue, now: u64) -> Option<String> {
    queue.pop(seconds(now)).map(|q| q.pod.uid.clone())
}

#[test]
fn pops_by_priority_then_arrival() {
    let mut queue = Queue::new();
    for (uid, priority) in [("a", 0), ("b", 5), ("c", 0), ("d", 5)] {
        queue.add(pod(uid, priority), seconds(0));
    }
    queue.add(pod("c", 9), seconds(0));
    let order: Vec<_> = std::iter::from_fn(|| pop(&mut queue, 0)).collect();
    assert_eq!(order, ["c", "b", "d", "a"]);
}

#[test]
fn backs_off_from_1_to_10_seconds() {
    let mut queue = Queue::new();
    queue.add(pod("a", 0), seconds(0));
    let mut now = seconds(0);
    for wait in [1, 2, 4, 8, 10, 10] {
        let queued = queue.pop(now).expect("its time has come");
        queue.failed(queued, now);
        assert_eq!(queue.next_at(), Some(now + seconds(wait)));
        assert!(queue.pop(now + seconds(wait) - Duration::from_millis(1)).is_none());
        now += seconds(wait);
    }
}

#[test]
fn an_unschedulable_pod_waits_for_the_rest_of_what_it_needs() {
    let mut queue = Queue::new();
    queue.add(pod("a", 0), seconds(0));
    let queued = queue.pop(seconds(0)).expect("active");
    queue.unschedulable(queued, Changes::NODE_UNSCHEDULABLE, seconds(0));
    queue.wake(Changes::NODE_TAINTS, seconds(5), always);
    queue.wake(Changes::NODE_UNSCHEDULABLE, seconds(5), |_, _| Help::With(Changes::NODE_TAINTS));
    assert_eq!(queue.pending(), Pending { unschedulable: 1, ..Pending::default() });
    queue.wake(Changes::NODE_TAINTS, seconds(5), always);
    assert_eq!(pop(&mut queue, 5).as_deref(), Some("a"));
}

#[test]
fn an_unschedulable_pod_waits_for_what_helps() {
    let mut queue = Queue::new();
    queue.add(pod("a", 0), seconds(0));
    let queued = queue.pop(seconds(0)).expect("active");
    queue.unschedulable(queued, Changes::NODE_LABELS, seconds(0));
    queue.wake(Changes::POD_REMOVED, seconds(5), always);
    assert_eq!(queue.pending(), Pending { unschedulable: 1, ..Pending::default() });
    queue.wake(Changes::NODE_LABELS | Changes::NODE_TAINTS, seconds(5), always);
    assert_eq!(pop(&mut queue, 5).as_deref(), Some("a"));
}

#[test]
fn a_woken_pod_that_backs_off_is_tried_after_the_others() {
    let mut queue = Queue::new();
    queue.add(pod("a", 0), seconds(0));
    let queued = queue.pop(seconds(0)).expect("active");
    queue.unschedulable(queued, Changes::NODE_ADDED, seconds(0));
    queue.wake(Changes::NODE_ADDED, seconds(0), |_, _| false);
    assert_eq!(queue.pending(), Pending { unschedulable: 1, ..Pending::default() }, "a hint said no");
    queue.wake(Changes::NODE_ADDED, seconds(0), always);
    queue.add(pod("b", 0), seconds(0));
    assert_eq!(queue.pending(), Pending { active: 1, backoff: 1, ..Pending::default() });
    assert_eq!(pop(&mut queue, 0).as_deref(), Some("b"));
    assert_eq!(pop(&mut queue, 0).as_deref(), Some("a"));
}

#[test]
fn a_pod_whose_binding_failed_is_not_tried_early() {
    let mut queue = Queue::with_backoff(seconds(3), seconds(5));
    queue.add(pod("a", 0), seconds(0));
    let queued = queue.pop(seconds(0)).expect("active");
    queue.failed(queued, seconds(0));
    assert_eq!((pop(&mut queue, 2), queue.next_at()), (None, Some(seconds(3))));
    let queued = queue.pop(seconds(3)).expect("its time has come");
    assert_eq!((queued.attempts, queued.since), (2, seconds(0)));
    queue.failed(queued, seconds(3));
    assert_eq!(queue.next_at(), Some(seconds(8)), "at most five seconds");
}

#[test]
fn a_change_while_it_was_tried_is_not_missed() {
    let mut queue = Queue::new();
    queue.add(pod("a", 0), seconds(0));
    let queued = queue.pop(seconds(0)).expect("active");
    queue.wake(Changes::NODE_ADDED, seconds(0), always);
    queue.unschedulable(queued, Changes::NODE_ADDED, seconds(0));
    assert_eq!(pop(&mut queue, 1).as_deref(), Some("a"));
}

#[test]
fn an_unschedulable_pod_is_tried_again_after_five_minutes() {
    let mut queue = Queue::new();
    queue.add(pod("a", 0), seconds(0));
    let queued = queue.pop(seconds(0)).expect("active");
    queue.unschedulable(queued, Changes::NODE_ADDED, seconds(0));
    assert_eq!(queue.next_at(), Some(seconds(300)));
    assert_eq!(pop(&mut queue, 299), None);
    assert_eq!(pop(&mut queue, 300).as_deref(), Some("a"));
    assert_eq!(queue.next_at(), None);
}

#[test]
fn a_gated_pod_waits_for_its_gates() {
    let mut queue = Queue::new();
    queue.add(Arc::new(PodInfo { uid: "a".to_owned(), gated: true, ..PodInfo::default() }), seconds(0));
    assert_eq!(queue.pending(), Pending { gated: 1, ..Pending::default() });
    queue.wake(Changes::NODE_ADDED, seconds(0), always);
    assert_eq!(pop(&mut queue, 1000), None);
    queue.add(pod("a", 0), seconds(0));
    assert_eq!(pop(&mut queue, 1000).as_deref(), Some("a"));
}

#[test]
fn a_removed_pod_is_gone_from_every_part() {
    let mut queue = Queue::new();
    for uid in ["a", "b", "c"] {
        queue.add(pod(uid, 0), seconds(0));
    }
    let first = queue.pop(seconds(0)).expect("active");
    queue.failed(first, seconds(0));
    let second = queue.pop(seconds(0)).expect("active");
    queue.unschedulable(second, Changes::NODE_ADDED, seconds(0));
    for uid in ["a", "b", "c"] {
        queue.remove(uid);
    }
    assert_eq!(queue.pending(), Pending::default());
    assert_eq!(queue.next_at(), None);
}
