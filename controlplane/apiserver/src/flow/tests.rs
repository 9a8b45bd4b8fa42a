//! Levels under load, on a virtual clock.

use std::{sync::Arc, time::Duration};

use serde_json::json;

use super::*;

fn flow(seats: usize) -> Flow {
    let limits = FlowLimits { seats, exempt_max: 3, wait_max: Duration::from_secs(15) };
    let flow = Flow::new(limits, &prometheus::Registry::new()).unwrap();
    let all = (
        [objects::schemas(true), objects::schemas(false)].concat(),
        [objects::levels(true), objects::levels(false)].concat(),
    );
    flow.set(all.0, all.1);
    flow
}

fn pods<'a>(verb: &'a str, namespace: &'a str) -> Attributes<'a> {
    Attributes { verb, resource: "pods", namespace, ..Attributes::default() }
}

fn user(name: &str, groups: &[&str]) -> Identity {
    Identity::new(name, &[groups, &["system:authenticated"]].concat())
}

fn account(name: &str) -> Identity {
    user(&format!("system:serviceaccount:default:{name}"), &["system:serviceaccounts"])
}

#[test]
fn who_is_of_which_level() {
    let flow = flow(600);
    let lease = Attributes {
        verb: "update",
        group: "coordination.k8s.io",
        resource: "leases",
        namespace: "kube-system",
        ..Attributes::default()
    };
    let node =
        Attributes { verb: "patch", resource: "nodes", subresource: "status", name: "n", ..Attributes::default() };
    let probe = Attributes { verb: "get", path: "/readyz", ..Attributes::default() };
    let node_user = || user("system:node:n", &["system:nodes"]);
    for (who, what, wanted) in [
        (user("admin", &["system:masters"]), pods("list", ""), "exempt exempt"),
        (Identity::new("system:anonymous", &["system:unauthenticated"]), probe, "probes exempt"),
        (user("system:kube-scheduler", &[]), lease, "system-leader-election leader-election"),
        (
            user("system:serviceaccount:kube-system:gc", &["system:serviceaccounts"]),
            lease,
            "system-leader-election leader-election",
        ),
        (node_user(), node, "system-node-high node-high"),
        (node_user(), pods("list", "a"), "system-nodes system"),
        (user("system:kube-controller-manager", &[]), pods("list", "a"), "kube-controller-manager workload-high"),
        (user("system:kube-scheduler", &[]), pods("list", ""), "kube-scheduler workload-high"),
        (
            user("system:serviceaccount:kube-system:gc", &["system:serviceaccounts"]),
            pods("list", "a"),
            "kube-system-service-accounts workload-high",
        ),
        (account("web"), pods("list", "a"), "service-accounts workload-low"),
        (user("jane", &[]), pods("get", "a"), "global-default global-default"),
        (Identity::new("nobody", &[]), pods("get", "a"), "catch-all catch-all"),
    ] {
        let schema = flow.classify(&who, &what).unwrap();
        assert_eq!(format!("{} {}", schema.name, schema.level.name), wanted, "{who:?}");
    }
}

async fn seat(flow: &Flow, who: &Identity) -> Result<Seat, ApiError> {
    let what = pods("get", "default");
    let schema = flow.classify(who, &what).unwrap();
    flow.seat(&schema, who, &what).await
}

/// Fills a level and gives back its seats.
async fn fill(flow: &Flow, who: &Identity) -> Vec<Seat> {
    let count = flow.classify(who, &pods("get", "default")).unwrap().level.seats();
    let mut seats = Vec::new();
    for _ in 0..count {
        seats.push(seat(flow, who).await.unwrap());
    }
    seats
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_workloads_leaves_the_system_alone() {
    let flow = Arc::new(flow(100));
    let mut flood = Vec::new();
    for i in 0..2000 {
        let (flow, who) = (flow.clone(), account(&format!("a{}", i % 50)));
        flood.push(tokio::spawn(async move {
            let seat = seat(&flow, &who).await;
            tokio::time::sleep(Duration::from_secs(3600)).await;
            seat.is_ok()
        }));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    for who in [
        user("system:node:n", &["system:nodes"]),
        user("system:kube-scheduler", &[]),
        user("jane", &[]),
        user("admin", &["system:masters"]),
    ] {
        let before = Instant::now();
        assert!(seat(&flow, &who).await.is_ok(), "{who:?}");
        assert_eq!(before.elapsed(), Duration::ZERO);
    }
    // Levels that are not asked for much have lent some, but nobody has more seats than there are.
    for _ in 0..30 {
        flow.divide();
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    assert!(seat(&flow, &user("system:node:n", &["system:nodes"])).await.is_ok());
    let [reads, _] = flow.under_way();
    assert!((30..=100).contains(&reads), "{reads}");
    flood.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(start_paused = true)]
async fn waiting_is_bounded_in_number_and_time() {
    let flow = Arc::new(flow(100));
    let limited = |queues: u32, hand: u32, length: u32| -> PriorityLevelConfiguration {
        let queuing = json!({"queues": queues, "handSize": hand, "queueLengthLimit": length});
        let response = json!({"type": "Queue", "queuing": queuing});
        let limited = json!({"nominalConcurrencyShares": 1, "borrowingLimitPercent": 0, "limitResponse": response});
        serde_json::from_value(
            json!({"metadata": {"name": "global-default"}, "spec": {"type": "Limited", "limited": limited}}),
        )
        .unwrap()
    };
    flow.set([objects::schemas(true), objects::schemas(false)].concat(), vec![limited(2, 2, 50)]);
    let jane = user("jane", &[]);
    let held = fill(&flow, &jane).await;
    let since = Instant::now();
    let one = || {
        let (flow, jane) = (flow.clone(), jane.clone());
        tokio::spawn(
            async move { seat(&flow, &jane).await.map(|_| ()).map_err(|e| (e.reason, since.elapsed().as_secs())) },
        )
    };
    let mut outcomes = Vec::new();
    for outcome in futures::future::join_all((0..150).map(|_| one())).await {
        outcomes.push(outcome.unwrap().unwrap_err());
    }
    let after = |seconds| outcomes.iter().filter(|o| **o == (Reason::TooManyRequests, seconds)).count();
    assert_eq!((after(0), after(15)), (50, 100));
    let schema = flow.classify(&jane, &pods("get", "default")).unwrap();
    let rejected = schema.counted.rejected.each_ref().map(prometheus::IntCounter::get);
    assert_eq!((rejected, schema.counted.waiting.get()), ([0, 50, 100], 0));
    drop(held);
    assert_eq!(schema.counted.executing.get(), 0);
    assert!(seat(&flow, &jane).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn whoever_goes_away_leaves_nothing_behind() {
    let flow = Arc::new(flow(100));
    let jane = user("jane", &[]);
    let held = fill(&flow, &jane).await;
    let (mut gone, mut stays) = (Vec::new(), Vec::new());
    for i in 0..20 {
        let (flow, jane) = (flow.clone(), jane.clone());
        let task = tokio::spawn(async move { seat(&flow, &jane).await.is_ok() });
        if i % 2 == 0 { gone.push(task) } else { stays.push(task) }
    }
    tokio::task::yield_now().await;
    gone.iter().for_each(tokio::task::JoinHandle::abort);
    // Seats and departures at the same time.
    drop(held);
    for task in stays {
        assert!(task.await.unwrap());
    }
    assert_eq!(flow.under_way(), [0, 0]);
    assert_eq!(fill(&flow, &jane).await.len(), flow.classify(&jane, &pods("get", "default")).unwrap().level.seats());
}

#[tokio::test(start_paused = true)]
async fn what_is_exempt_is_bounded_too() {
    let flow = flow(100);
    let admin = user("admin", &["system:masters"]);
    let mut seats = Vec::new();
    for _ in 0..3 {
        seats.push(seat(&flow, &admin).await.unwrap());
    }
    let error = seat(&flow, &admin).await.err().unwrap();
    assert_eq!((error.reason, error.details.unwrap().retry_after_seconds), (Reason::TooManyRequests, Some(1)));
    seats.pop();
    assert!(seat(&flow, &admin).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn changes_of_objects_keep_those_who_are_in() {
    let flow = flow(100);
    let jane = user("jane", &[]);
    let held = fill(&flow, &jane).await;
    // Without its schema and level requests fall to the one that is always there, and seats of the old one still count.
    flow.set(Vec::new(), Vec::new());
    assert_eq!(flow.classify(&jane, &pods("get", "a")).unwrap().level.name, "catch-all");
    assert_eq!(flow.under_way(), [held.len(), 0]);
    drop(held);
    assert_eq!(flow.under_way(), [0, 0]);
    let text = |flow: &Flow| flow.setup.read().levels.keys().cloned().collect::<std::collections::BTreeSet<_>>();
    assert_eq!(text(&flow).into_iter().collect::<Vec<_>>(), ["catch-all", "exempt"]);
}
