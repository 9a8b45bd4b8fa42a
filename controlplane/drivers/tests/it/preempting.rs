//! The scheduler's driver where more is written than a binding: preemption, volumes, several schedulers; and where
//! writes fail.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use async_trait::async_trait;
use podium_api::{
    ApiError, KindRef, Object, ObjectKey, Reason,
    k8s_openapi::{
        api::{
            core::v1::{PersistentVolume, PersistentVolumeClaim, Pod},
            storage::v1::StorageClass,
        },
        apimachinery::pkg::apis::meta::v1::DeleteOptions,
    },
    kind_of,
};
use podium_client::{Api, ApiRef, Mirror, MirrorScope, ModelApi, Patch};
use podium_scheduler::Config;
use serde_json::{Value, json};

use crate::{eventually, scheduling::Cluster};

impl Cluster {
    /// A pod that takes so many cores of 64.
    async fn pod_of(&self, name: &str, priority: i32, cores: u32, more: Value) {
        let requests = json!({"requests": {"cpu": cores.to_string()}});
        let mut spec =
            json!({"priority": priority, "containers": [{"name": "c", "image": "i", "resources": requests}]});
        for (key, value) in more.as_object().into_iter().flatten() {
            spec[key] = value.clone();
        }
        let metadata = json!({"name": name, "namespace": "d"});
        self.make(kind_of::<Pod>(), json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}))
            .await;
    }

    fn get(&self, name: &str) -> Option<Pod> {
        let pods = self.api.list(&kind_of::<Pod>()).into_iter();
        pods.filter(|p| p.key().name == name).find_map(|p| p.downcast_ref::<Pod>().cloned())
    }

    fn node_of(&self, name: &str) -> String {
        self.get(name).and_then(|p| p.spec?.node_name).unwrap_or_default()
    }

    fn nominated(&self, name: &str) -> String {
        self.get(name).and_then(|p| p.status?.nominated_node_name).unwrap_or_default()
    }

    /// Ends a pod, as its node does when its grace is over.
    async fn end(&self, name: &str) {
        let now = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
        self.api.delete(&kind_of::<Pod>(), &ObjectKey::new("d", name), now).await.unwrap();
    }
}

fn is_ending(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
    let mut told = conditions.filter(|c| c.type_ == "DisruptionTarget" && c.status == "True");
    pod.metadata.deletion_timestamp.is_some()
        && told.any(|c| {
            c.reason.as_deref() == Some("PreemptionByScheduler")
                && c.message.as_deref() == Some("default-scheduler: preempting to accommodate a higher priority pod")
        })
}

#[tokio::test(start_paused = true)]
async fn a_pod_of_higher_priority_takes_the_place_of_another_when_that_has_ended() {
    let cluster = Cluster::new();
    cluster.node("n1", 10).await;
    cluster.node("n2", 10).await;
    let handle = cluster.start();
    cluster.pod_of("low", 1, 60, json!({})).await;
    cluster.pod_of("middle", 5, 60, json!({})).await;
    eventually("both bound", || !cluster.placed().contains_key("")).await;
    cluster.pod_of("high", 9, 60, json!({})).await;
    eventually("low is told to end", || cluster.get("low").is_some_and(|p| is_ending(&p))).await;
    eventually("high is nominated", || cluster.nominated("high") == cluster.node_of("low")).await;
    assert_eq!(cluster.node_of("high"), "", "the victim has its grace");
    assert!(cluster.get("middle").is_some_and(|p| p.metadata.deletion_timestamp.is_none()));
    let condition = cluster.condition("high").await;
    assert_eq!(condition, "False Unschedulable 0/2 nodes are available: 2 Insufficient cpu.");

    // A lesser pod that would fit meanwhile does not get the room.
    cluster.pod_of("lesser", 3, 3, json!({})).await;
    cluster.pod_of("greedy", 3, 60, json!({})).await;
    eventually("lesser bound", || !cluster.node_of("lesser").is_empty()).await;
    cluster.end("low").await;
    eventually("high is bound", || !cluster.node_of("high").is_empty()).await;
    assert_eq!(cluster.node_of("greedy"), "");
    let uid = cluster.get("high").and_then(|p| p.metadata.uid).unwrap();
    let node = cluster.node_of("high");
    eventually("said", || cluster.events("Preempted") == [format!("Preempted by pod {uid} on node {node}")]).await;
    handle.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_victim_that_is_gone_at_once_makes_room_at_once() {
    let cluster = Cluster::new();
    cluster.node("n1", 10).await;
    let handle = cluster.start();
    cluster.pod_of("low", 1, 60, json!({"terminationGracePeriodSeconds": 0})).await;
    eventually("bound", || cluster.node_of("low") == "n1").await;
    cluster.pod_of("polite", 9, 60, json!({"preemptionPolicy": "Never"})).await;
    eventually("refused", || !cluster.events("FailedScheduling").is_empty()).await;
    assert!(cluster.condition("polite").await.ends_with("not eligible due to preemptionPolicy=Never."));
    cluster.pod_of("high", 10, 60, json!({})).await;
    eventually("high is bound", || cluster.node_of("high") == "n1").await;
    assert!(cluster.get("low").is_none());
    handle.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn each_scheduler_name_has_its_profile() {
    let cluster = Cluster::new();
    cluster.node("n1", 10).await;
    cluster.node("n2", 10).await;
    let pack = json!({"name": "NodeResourcesFit", "args": {"scoringStrategy": {"type": "MostAllocated"}}});
    let weights = json!({"score": {"disabled": [{"name": "*"}], "enabled": [{"name": "NodeResourcesFit"}]}});
    let file = json!({
        "apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration",
        "profiles": [{}, {"schedulerName": "packing", "plugins": weights, "pluginConfig": [pack]}],
    });
    let handle = cluster.start_with(Arc::clone(&cluster.api) as ApiRef, Config::from_value(file).unwrap());
    for n in 0..6 {
        cluster.pod_of(&format!("p{n}"), 0, 4, json!({"schedulerName": "packing"})).await;
        eventually("bound", || !cluster.node_of(&format!("p{n}")).is_empty()).await;
    }
    assert_eq!(cluster.placed().len(), 1, "all on one node: {}", cluster.show());
    cluster.pod_of("spread", 0, 4, json!({})).await;
    cluster.pod_of("foreign", 0, 4, json!({"schedulerName": "nobody"})).await;
    eventually("on the other", || cluster.placed().len() == 3).await;
    assert_eq!(cluster.node_of("foreign"), "");
    handle.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_waits_for_its_gates_and_for_its_volume() {
    let cluster = Cluster::new();
    cluster.node("n1", 10).await;
    let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "local"},
        "provisioner": "podium.dev/local", "volumeBindingMode": "WaitForFirstConsumer"});
    cluster.make(kind_of::<StorageClass>(), class).await;
    let handle = cluster.start();
    let volumes = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]);
    cluster.pod_of("p", 0, 1, json!({"volumes": volumes, "schedulingGates": [{"name": "x.dev/wait"}]})).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(cluster.events("FailedScheduling").is_empty(), "gated pods are not tried");
    let key = ObjectKey::new("d", "p");
    let open = Patch::Merge(json!({"spec": {"schedulingGates": null}}));
    cluster.api.patch(&kind_of::<Pod>(), &key, open, None).await.unwrap();
    let missing = "0/1 nodes are available: persistentvolumeclaim \"data\" not found.";
    eventually("refused", || cluster.events("FailedScheduling").iter().any(|e| e.starts_with(missing))).await;

    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data", "namespace": "d"},
        "spec": {"storageClassName": "local", "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    cluster.make(kind_of::<PersistentVolumeClaim>(), claim).await;
    let selected = || {
        let claims = cluster.api.list(&kind_of::<PersistentVolumeClaim>());
        claims[0].meta().annotations.as_ref().and_then(|a| a.get("volume.kubernetes.io/selected-node").cloned())
    };
    eventually("given to the node", || selected().as_deref() == Some("n1")).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(cluster.node_of("p"), "", "its volume is not there yet");
    let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pv"}, "spec": {
        "storageClassName": "local", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
        "hostPath": {"path": "/x"}}});
    cluster.make(kind_of::<PersistentVolume>(), volume).await;
    let bound =
        json!({"metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}}, "spec": {"volumeName": "pv"}});
    let claim = ObjectKey::new("d", "data");
    cluster.api.patch(&kind_of::<PersistentVolumeClaim>(), &claim, Patch::Merge(bound), None).await.unwrap();
    eventually("bound", || cluster.node_of("p") == "n1").await;
    handle.shutdown().await;
}

/// An API whose bindings fail in turn: not done, done but not answered, done.
struct Faulty {
    inner: Arc<ModelApi>,
    calls: AtomicU32,
}

#[async_trait]
impl Api for Faulty {
    async fn mirror(&self, kind: &KindRef, scope: MirrorScope) -> Result<Arc<dyn Mirror>, ApiError> {
        self.inner.mirror(kind, scope).await
    }
    async fn get(&self, kind: &KindRef, key: &ObjectKey) -> Result<Arc<dyn Object>, ApiError> {
        self.inner.get(kind, key).await
    }
    async fn create(&self, object: Box<dyn Object>) -> Result<Arc<dyn Object>, ApiError> {
        self.inner.create(object).await
    }
    async fn update(&self, object: Box<dyn Object>, sub: Option<&str>) -> Result<Arc<dyn Object>, ApiError> {
        self.inner.update(object, sub).await
    }
    async fn patch(
        &self,
        kind: &KindRef,
        key: &ObjectKey,
        patch: Patch,
        sub: Option<&str>,
    ) -> Result<Arc<dyn Object>, ApiError> {
        let answer = self.inner.patch(kind, key, patch, sub).await;
        if self.calls.fetch_add(1, Relaxed).is_multiple_of(3) { Err(lost()) } else { answer }
    }
    async fn delete(&self, kind: &KindRef, key: &ObjectKey, options: DeleteOptions) -> Result<(), ApiError> {
        if self.calls.fetch_add(1, Relaxed).is_multiple_of(3) {
            return Err(lost());
        }
        self.inner.delete(kind, key, options).await
    }
    async fn bind(&self, pod: &ObjectKey, uid: &str, node: &str) -> Result<(), ApiError> {
        match self.calls.fetch_add(1, Relaxed) % 3 {
            0 => Err(lost()),
            1 => self.inner.bind(pod, uid, node).await.and(Err(lost())),
            _ => self.inner.bind(pod, uid, node).await,
        }
    }
}

fn lost() -> ApiError {
    ApiError::new(Reason::Timeout, "no answer")
}

#[tokio::test(start_paused = true)]
async fn whatever_fails_every_pod_is_bound_once_and_nodes_are_never_too_full() {
    let cluster = Cluster::new();
    for n in 0..4 {
        cluster.node(&format!("n{n}"), 20).await;
    }
    let mut history = cluster.api.mirror(&kind_of::<Pod>(), MirrorScope::default()).await.unwrap().subscribe();
    let api = Faulty { inner: Arc::clone(&cluster.api), calls: AtomicU32::new(0) };
    let handle = cluster.start_with(Arc::new(api), Config::default());
    for n in 0..60 {
        cluster.pod_of(&format!("p{n}"), 1, 4, json!({"terminationGracePeriodSeconds": 0})).await;
    }
    eventually("all bound", || cluster.placed().values().sum::<usize>() == 60 && !cluster.placed().contains_key(""))
        .await;
    for n in 0..8 {
        cluster.pod_of(&format!("high{n}"), 9, 8, json!({})).await;
    }
    let high = || (0..8).all(|n| !cluster.node_of(&format!("high{n}")).is_empty());
    eventually("the high ones bound", high).await;
    for node in ["n0", "n1", "n2", "n3"] {
        let cores = |name: &str, each: usize| {
            let pods = cluster.api.list(&kind_of::<Pod>());
            pods.iter().filter(|p| p.key().name.starts_with(name) && cluster.node_of(&p.key().name) == node).count()
                * each
        };
        assert!(cores("p", 4) + cores("high", 8) <= 64, "{node} is too full");
    }
    // 240 of 256 cores were taken, and 64 are wanted: no more than two victims for each.
    let left = cluster.placed().values().sum::<usize>();
    assert!((8 + 60 - 16..=8 + 60 - 12).contains(&left), "{left} pods are left");
    while let Ok(delta) = history.try_recv() {
        let podium_client::Delta::Put { old: Some(old), new } = delta else { continue };
        let node = |o: &dyn Object| o.downcast_ref::<Pod>().and_then(|p| p.spec.as_ref()?.node_name.clone());
        assert!(node(&*old).is_none() || node(&*old) == node(&*new), "{} moved", new.key());
    }
    handle.shutdown().await;
}
