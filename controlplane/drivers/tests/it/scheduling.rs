//! The scheduler's driver.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use podium_api::{
    Object, ObjectKey,
    k8s_openapi::{
        api::core::v1::{Event, Node, Pod},
        apimachinery::pkg::apis::meta::v1::DeleteOptions,
    },
    kind_of,
};
use podium_client::{Api, ApiRef, ModelApi};
use podium_drivers::{Handle, Scheduler, SchedulerConfig};
use podium_scheduler::Config;
use serde_json::json;

use crate::{clock, eventually};

pub(crate) struct Cluster {
    pub(crate) api: Arc<ModelApi>,
}

impl Cluster {
    pub(crate) fn new() -> Self {
        Self { api: Arc::new(ModelApi::new(clock())) }
    }

    pub(crate) fn start(&self) -> Handle {
        self.start_with(Arc::clone(&self.api) as ApiRef, Config::default())
    }

    pub(crate) fn start_with(&self, api: ApiRef, config: Config) -> Handle {
        let config =
            SchedulerConfig { config: Arc::new(config), clock: clock(), seed: 7, ..SchedulerConfig::default() };
        Scheduler::start(api, config)
    }

    pub(crate) async fn make(&self, kind: podium_api::KindRef, value: serde_json::Value) {
        self.api.create(kind.decode_value(value).unwrap().object).await.unwrap();
    }

    pub(crate) async fn node(&self, name: &str, pods: u32) {
        let capacity = json!({"cpu": "64", "memory": "256Gi", "pods": pods.to_string()});
        let status = json!({"allocatable": capacity, "capacity": capacity});
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "status": status});
        let object = kind_of::<Node>().decode_value(node).unwrap().object;
        let status = object.boxed_clone();
        self.api.create(object).await.unwrap();
        self.api.update(status, Some("status")).await.unwrap();
    }

    pub(crate) async fn pod(&self, name: &str, scheduler: &str) {
        let spec = json!({"schedulerName": scheduler, "containers": [{"name": "c", "image": "i"}]});
        let metadata = json!({"name": name, "namespace": "d"});
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec});
        self.make(kind_of::<Pod>(), pod).await;
    }

    /// Node name -> how many pods.
    pub(crate) fn placed(&self) -> BTreeMap<String, usize> {
        let mut placed = BTreeMap::new();
        for pod in self.api.list(&kind_of::<Pod>()) {
            let pod = pod.downcast_ref::<Pod>().unwrap();
            let node = pod.spec.as_ref().and_then(|s| s.node_name.clone()).unwrap_or_default();
            *placed.entry(node).or_default() += 1;
        }
        placed
    }

    pub(crate) fn show(&self) -> String {
        self.placed().into_iter().map(|(node, pods)| format!("{node}:{pods} ")).collect()
    }

    pub(crate) fn events(&self, reason: &str) -> Vec<String> {
        let events = self.api.list(&kind_of::<Event>()).into_iter();
        let events = events.filter_map(<dyn Object>::downcast_arc::<Event>);
        let mut said: Vec<_> =
            events.filter(|e| e.reason.as_deref() == Some(reason)).filter_map(|e| e.message.clone()).collect();
        said.sort();
        said
    }

    pub(crate) async fn condition(&self, pod: &str) -> String {
        let pod = self.api.get(&kind_of::<Pod>(), &ObjectKey::new("d", pod)).await.unwrap();
        let conditions = pod.downcast_ref::<Pod>().unwrap().status.clone().unwrap_or_default().conditions;
        let condition = conditions.into_iter().flatten().find(|c| c.type_ == "PodScheduled");
        let condition = condition.unwrap_or_default();
        let text = |t: Option<String>| t.unwrap_or_default();
        format!("{} {} {}", condition.status, text(condition.reason), text(condition.message))
    }
}

#[tokio::test(start_paused = true)]
async fn pods_spread_and_those_that_fit_nowhere_say_why_and_wait() {
    let cluster = Cluster::new();
    cluster.node("n1", 10).await;
    cluster.node("n2", 10).await;
    for n in 0..20 {
        cluster.pod(&format!("p{n}"), "default-scheduler").await;
    }
    let handle = cluster.start();
    eventually("all bound", || cluster.show() == "n1:10 n2:10 ").await;
    eventually("events", || cluster.events("Scheduled").len() == 20).await;
    assert!(cluster.events("Scheduled")[0].starts_with("Successfully assigned d/p0 to n"));

    cluster.pod("late", "default-scheduler").await;
    cluster.pod("foreign", "another").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let condition = cluster.condition("late").await;
    assert!(condition.starts_with("False Unschedulable 0/2 nodes are available: 2 Too many pods."), "{condition}");
    assert_eq!(cluster.events("FailedScheduling").len(), 1);
    let revision = cluster.api.revision();
    tokio::time::sleep(Duration::from_secs(200)).await;
    assert_eq!(cluster.api.revision(), revision, "its own condition does not wake it");

    cluster.node("n3", 10).await;
    eventually("bound to the new node", || cluster.show() == ":1 n1:10 n2:10 n3:1 ").await;
    assert_eq!(cluster.condition("late").await, "True  ");
    assert_eq!(cluster.condition("foreign").await, "  ");
    handle.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn room_that_a_pod_leaves_is_given_to_another() {
    let cluster = Cluster::new();
    cluster.node("n1", 3).await;
    let handle = cluster.start();
    for n in 0..5 {
        cluster.pod(&format!("p{n}"), "default-scheduler").await;
    }
    eventually("three bound", || cluster.show() == ":2 n1:3 ").await;
    for pod in cluster.api.list(&kind_of::<Pod>()) {
        let bound = pod.downcast_ref::<Pod>().and_then(|p| p.spec.as_ref()).is_some_and(|s| s.node_name.is_some());
        if bound {
            let now = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
            cluster.api.delete(&kind_of::<Pod>(), &pod.key(), now).await.unwrap();
        }
    }
    eventually("the others bound", || cluster.show() == "n1:2 ").await;
    handle.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_pods_are_bound_on_a_thousand_nodes() {
    let cluster = Cluster::new();
    for n in 0..1_000 {
        cluster.node(&format!("n{n}"), 110).await;
    }
    let handle = cluster.start();
    for n in 0..10_000 {
        cluster.pod(&format!("p{n}"), "default-scheduler").await;
    }
    eventually("all bound", || !cluster.placed().contains_key("")).await;
    let placed = cluster.placed();
    assert_eq!(placed.values().sum::<usize>(), 10_000);
    assert!(placed.values().all(|pods| *pods <= 40), "spread: {:?}", placed.values().max());
    handle.shutdown().await;
}
