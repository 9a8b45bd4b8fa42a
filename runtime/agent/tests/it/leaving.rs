//! Pods that the node does not take, that have to leave it, or that get more of it.

use serde_json::{Value, json};

use crate::cluster::{Cluster, hello};

fn state(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]["state"]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_turned_away() {
    let cluster = Cluster::start_with(|config| config.pods_max = 3).await;
    let spec = |more: Value| {
        let mut spec = json!({ "containers": [hello()] });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    };
    let mut large = hello();
    large["resources"] = json!({ "requests": { "cpu": "100000" } });
    for (name, more, reason, message) in [
        ("os", json!({ "os": { "name": "windows" } }), "PodOSNotSupported", "Failed to admit pod as the OS field"),
        ("labels", json!({ "nodeSelector": { "disk": "ssd" } }), "NodeAffinity", "Predicate NodeAffinity failed"),
        ("large", json!({ "containers": [large] }), "OutOfcpu", "cpu, requested: 100000000, used: 0, capacity: "),
    ] {
        cluster.pod(name, spec(more)).await;
        let pod = cluster.until_pod(name, |pod| pod["status"]["phase"] == "Failed").await;
        assert_eq!(pod["status"]["reason"], reason);
        let found = pod["status"]["message"].as_str().unwrap();
        assert!(found.starts_with("Pod was rejected: ") && found.contains(message), "{found}");
    }
    for name in ["a", "b", "c"] {
        cluster.pod(name, spec(json!({}))).await;
        cluster.until_ready(name).await;
    }
    cluster.pod("d", spec(json!({}))).await;
    let pod = cluster.until_pod("d", |pod| pod["status"]["phase"] == "Failed").await;
    assert_eq!(pod["status"]["reason"], "OutOfpods");
    cluster.delete("a").await;
    cluster.until("Pod", "default", "a", |pod| pod.is_none()).await;
    cluster.pod("e", spec(json!({}))).await;
    cluster.until_ready("e").await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_that_guests_cannot_have_are_refused() {
    let cluster = Cluster::start().await;
    let mut privileged = hello();
    privileged["securityContext"] = json!({ "privileged": true });
    cluster.pod("privileged", json!({ "containers": [privileged] })).await;
    let pod =
        cluster.until_pod("privileged", |pod| state(pod)["waiting"]["reason"] == "CreateContainerConfigError").await;
    let message = state(&pod)["waiting"]["message"].as_str().unwrap();
    assert!(message.starts_with("securityContext.privileged: true cannot be granted"), "{message}");
    cluster.pod("shared", json!({ "containers": [hello()], "shareProcessNamespace": true })).await;
    cluster.until_ready("shared").await;
    cluster.until_event("shared", "FieldsIgnored", "spec.shareProcessNamespace").await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_short_evicts_and_says_so() {
    // More than any machine has: the node is short from the first look on.
    let cluster = Cluster::start_with(|config| {
        config.eviction_memory_bytes = 1 << 60;
        config.memory_reserved_bytes = 0;
    })
    .await;
    let mut critical = json!({ "containers": [hello()] });
    critical["priority"] = 2_000_000_000.into();
    cluster.pod("critical", critical).await;
    let mut burstable = hello();
    burstable["resources"] = json!({ "requests": { "cpu": "1m" } });
    cluster.pod("web", json!({ "terminationGracePeriodSeconds": 5, "containers": [burstable] })).await;
    let pod = cluster.until_pod("web", |pod| pod["status"]["phase"] == "Failed").await;
    assert_eq!(pod["status"]["reason"], "Evicted");
    let message = pod["status"]["message"].as_str().unwrap();
    assert!(message.starts_with("The node was low on resource: memory. Threshold quantity: 1Ei, "), "{message}");
    let pressed = |node: Option<&Value>| {
        let conditions = node.and_then(|n| n["status"]["conditions"].as_array()).cloned().unwrap_or_default();
        conditions.iter().any(|c| c["type"] == "MemoryPressure" && c["status"] == "True")
    };
    cluster.until("Node", "", "n1", pressed).await;
    cluster.until_event("n1", "EvictionThresholdMet", "Attempting to reclaim memory").await;

    cluster.pod("late", json!({ "containers": [hello()] })).await;
    let pod = cluster.until_pod("late", |pod| pod["status"]["phase"] == "Failed").await;
    assert_eq!(pod["status"]["message"], "Pod was rejected: The node had condition: [MemoryPressure]. ");
    cluster.until_ready("critical").await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn running_containers_get_other_amounts() {
    let cluster = Cluster::start().await;
    let resources = |cpu: &str, memory: &str| {
        let amounts = json!({ "cpu": cpu, "memory": memory });
        json!({ "requests": amounts, "limits": amounts })
    };
    let mut container = hello();
    container["resources"] = resources("100m", "64Mi");
    container["resizePolicy"] = json!([{ "resourceName": "memory", "restartPolicy": "RestartContainer" }]);
    cluster.pod("web", json!({ "terminationGracePeriodSeconds": 1, "containers": [container] })).await;
    cluster.until_ready("web").await;
    let has = |pod: &Value, cpu: &str, restarts: u64| {
        let status = &pod["status"]["containerStatuses"][0];
        status["resources"]["limits"]["cpu"] == cpu && status["restartCount"] == restarts
    };
    let set = |cpu: &str, memory: &str| cluster.resize("web", resources(cpu, memory));
    set("200m", "64Mi").await;
    cluster.until_pod("web", |pod| has(pod, "200m", 0)).await;
    set("200m", "96Mi").await;
    cluster.until_pod("web", |pod| has(pod, "200m", 1)).await;
    cluster.until_event("web", "Killing", "Container app resize requires restart").await;

    set("100000", "96Mi").await;
    let pending = |pod: &Value| {
        let conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.into_iter().find(|c| c["type"] == "PodResizePending")
    };
    let pod = cluster.until_pod("web", |pod| pending(pod).is_some()).await;
    assert_eq!(pending(&pod).unwrap()["reason"], "Infeasible");
    assert!(has(&pod, "200m", 1), "what it has stays");
    set("300m", "96Mi").await;
    cluster.until_pod("web", |pod| has(pod, "300m", 1) && pending(pod).is_none()).await;
    cluster.shutdown().await;
}
