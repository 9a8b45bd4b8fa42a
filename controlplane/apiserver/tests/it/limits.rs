//! Limit ranges: what is filled in, and what is refused.

use serde_json::{Value, json};

use crate::harness::Cluster;

const PODS: &str = "/api/v1/namespaces/default/pods";

async fn bounds(cluster: &Cluster, name: &str, item: Value) {
    let range =
        json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": name}, "spec": {"limits": [item]}});
    cluster.post("/api/v1/namespaces/default/limitranges", range).await.ok(201);
}

fn pod(name: &str, resources: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "image": "registry.example/c:1", "resources": resources}]},
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_and_claims_stay_within_bounds() {
    let cluster = Cluster::start().await;
    let container = json!({"type": "Container", "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "200m"},
        "min": {"cpu": "100m"}, "max": {"cpu": "1"}, "maxLimitRequestRatio": {"cpu": "4"}});
    bounds(&cluster, "containers", container).await;
    let made = cluster.post(PODS, pod("a", json!({}))).await.ok(201);
    let resources = &made["spec"]["containers"][0]["resources"];
    assert_eq!(*resources, json!({"limits": {"cpu": "500m"}, "requests": {"cpu": "200m"}}));
    assert_eq!(
        made["metadata"]["annotations"]["kubernetes.io/limit-ranger"],
        "LimitRanger plugin set: cpu request for container c; cpu limit for container c"
    );
    for (name, resources, why) in [
        ("b", json!({"limits": {"cpu": "2"}}), "maximum cpu usage per Container is 1, but limit is 2"),
        (
            "c",
            json!({"requests": {"cpu": "50m"}, "limits": {"cpu": "150m"}}),
            "minimum cpu usage per Container is 100m, but request is 50m",
        ),
        (
            "d",
            json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "1"}}),
            "cpu max limit to request ratio per Container is 4, but provided ratio is 10.000000",
        ),
    ] {
        let message = cluster.post(PODS, pod(name, resources)).await.refused(403);
        assert!(message.ends_with(why), "{message}");
    }
    bounds(&cluster, "claims", json!({"type": "PersistentVolumeClaim", "max": {"storage": "1Gi"}})).await;
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "2Gi"}}},
    });
    let message = cluster.post("/api/v1/namespaces/default/persistentvolumeclaims", claim).await.refused(403);
    assert!(
        message.ends_with("maximum storage usage per PersistentVolumeClaim is 1Gi, but request is 2Gi"),
        "{message}"
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_default_class_is_named() {
    let cluster = Cluster::start().await;
    let claims = "/api/v1/namespaces/default/persistentvolumeclaims";
    let claim = |name: &str| {
        json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        })
    };
    let made = cluster.post(claims, claim("before")).await.ok(201);
    assert_eq!(made["spec"]["storageClassName"], Value::Null);
    let class = |name: &str, mark: &str| {
        json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": "example.com/p",
            "metadata": {"name": name, "annotations": {"storageclass.kubernetes.io/is-default-class": mark}},
        })
    };
    for (name, mark) in [("plain", "false"), ("best", "true")] {
        cluster.post("/apis/storage.k8s.io/v1/storageclasses", class(name, mark)).await.ok(201);
    }
    let made = cluster.post(claims, claim("after")).await.ok(201);
    assert_eq!(made["spec"]["storageClassName"], "best");
    let mut none = claim("none");
    none["spec"]["storageClassName"] = json!("");
    assert_eq!(cluster.post(claims, none).await.ok(201)["spec"]["storageClassName"], "");
    cluster.stop().await;
}
