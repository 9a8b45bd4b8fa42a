//! What the simulated user and machines write.

use std::sync::Arc;

use podium_api::{
    Kind, KindRef, Object,
    k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::ObjectMeta},
    kind_of,
};
use podium_client::ModelApi;
use serde_json::{Value, json};

/// An object from JSON; the simulation's own JSON is right.
pub(crate) fn object<K: Kind>(value: Value) -> Box<dyn Object> {
    let kind: KindRef = kind_of::<K>();
    kind.decode_value(value).expect("the simulation writes valid objects").object
}

/// The cores of a node.
pub(crate) const NODE_CORES: u32 = 64;

/// Each Deployment has a priority of its own, and its pods are so large that a few nodes cannot hold those of all: the more
/// important ones take the others' place while machines are down.
///
/// `rolling`: `maxSurge` and `maxUnavailable`; none: all pods go before new ones come.
pub(crate) fn deployment(name: &str, replicas: i32, rolling: Option<(i32, i32)>) -> Value {
    let strategy = match rolling {
        Some((surge, unavailable)) => {
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}})
        }
        None => json!({"type": "Recreate"}),
    };
    let priority = name.bytes().map(i32::from).sum::<i32>() % 3 * 10;
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "strategy": strategy,
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    "priority": priority,
                    "containers": [{"name": "main", "image": "image-0", "resources": {"requests": {"cpu": "7"}}}],
                },
            },
        },
    })
}

fn set(kind: &str, name: &str, mut spec: Value) -> Value {
    let containers = json!([{"name": "main", "image": "image-0"}]);
    spec["selector"] = json!({"matchLabels": {"app": name}});
    spec["revisionHistoryLimit"] = 2.into();
    spec["template"] = json!({"metadata": {"labels": {"app": name}}, "spec": {"containers": containers}});
    json!({
        "apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name, "namespace": "default"}, "spec": spec,
    })
}

pub(crate) fn stateful_set(name: &str, replicas: i32, parallel: bool, unavailable: i32) -> Value {
    let policy = if parallel { "Parallel" } else { "OrderedReady" };
    let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0, "maxUnavailable": unavailable}});
    let spec = json!({"replicas": replicas, "podManagementPolicy": policy, "updateStrategy": strategy});
    set("StatefulSet", name, spec)
}

pub(crate) fn daemon_set(name: &str, surge: i32, unavailable: i32) -> Value {
    let rolling = json!({"maxSurge": surge, "maxUnavailable": unavailable});
    set("DaemonSet", name, json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": rolling}}))
}

pub(crate) fn node(name: &str) -> Value {
    let capacity = json!({"cpu": NODE_CORES.to_string(), "memory": "64Gi", "pods": "110"});
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {"capacity": capacity, "allocatable": capacity},
    })
}

/// Which of the user's sets or Deployments something belongs to.
pub(crate) fn app_of(meta: &ObjectMeta) -> Option<&str> {
    meta.labels.as_ref()?.get("app").map(String::as_str)
}

/// Whether a pod runs and serves.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    let mut conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.any(|c| c.type_ == "Ready" && c.status == "True")
}

/// All objects of a kind, typed.
pub(crate) fn all<K: Kind>(model: &ModelApi) -> Vec<Arc<K>> {
    model.list(&kind_of::<K>()).into_iter().filter_map(<dyn Object>::downcast_arc).collect()
}
