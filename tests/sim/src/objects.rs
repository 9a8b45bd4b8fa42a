//! What the simulated user and machines write.

use std::sync::Arc;

use podium_api::{Kind, KindRef, Object, kind_of};
use podium_client::ModelApi;
use serde_json::{Value, json};

/// An object from JSON; the simulation's own JSON is right.
pub(crate) fn object<K: Kind>(value: Value) -> Box<dyn Object> {
    let kind: KindRef = kind_of::<K>();
    kind.decode_value(value).expect("the simulation writes valid objects").object
}

pub(crate) fn deployment(name: &str, replicas: i32, surge: i32, unavailable: i32) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "main", "image": "image-0"}]},
            },
        },
    })
}

pub(crate) fn node(name: &str) -> Value {
    let capacity = json!({"cpu": "64", "memory": "64Gi", "pods": "110"});
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {"capacity": capacity, "allocatable": capacity},
    })
}

/// All objects of a kind, typed.
pub(crate) fn all<K: Kind>(model: &ModelApi) -> Vec<Arc<K>> {
    model.list(&kind_of::<K>()).into_iter().filter_map(<dyn Object>::downcast_arc).collect()
}
