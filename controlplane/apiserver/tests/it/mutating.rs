//! Mutating admission policies: configurations merged in, JSON patches, parameters, and what fails.

use serde_json::{Value, json};

use crate::harness::Cluster;

const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicies";
const BINDINGS: &str = "/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicybindings";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn policy(name: &str, resources: &str, mutations: Value) -> Value {
    let (group, resource) = resources.split_once('/').unwrap();
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicy", "metadata": {"name": name},
        "spec": {
            "failurePolicy": "Fail", "reinvocationPolicy": "Never",
            "matchConstraints": {"resourceRules": [{
                "apiGroups": [group], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": [resource],
            }]},
            "variables": [{"name": "who", "expression": "request.userInfo.username"}],
            "matchConditions": [{"name": "not-skipped", "expression": "object.metadata.name != 'skip'"}],
            "mutations": mutations,
        },
    })
}

async fn bind(cluster: &Cluster, name: &str) {
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicyBinding",
        "metadata": {"name": name}, "spec": {"policyName": name},
    });
    cluster.post(BINDINGS, binding).await.ok(201);
}

fn merge(expression: &str) -> Value {
    json!([{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}])
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_changed_as_policies_say() {
    let cluster = Cluster::start().await;
    let sidecar =
        "Object{spec: Object.spec{template: Object.spec.template{spec: Object.spec.template.spec{containers: [
        Object.spec.template.spec.containers{name: 'side', image: 'registry.example/side:1'}]}}}}";
    cluster.post(POLICIES, policy("sidecar", "apps/deployments", merge(sidecar))).await.ok(201);
    bind(&cluster, "sidecar").await;
    let patches = json!([
        {"patchType": "JSONPatch", "jsonPatch": {"expression":
            "has(object.data) ? [] : [JSONPatch{op: 'add', path: '/data', value: {}}]"}},
        {"patchType": "JSONPatch", "jsonPatch": {"expression":
            "[JSONPatch{op: 'add', path: '/data/' + jsonpatch.escapeKey('by/whom'), value: variables.who}]"}},
    ]);
    cluster.post(POLICIES, policy("signed", "/configmaps", patches)).await.ok(201);
    bind(&cluster, "signed").await;

    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "main", "image": "registry.example/web:1"}]}}},
    });
    let made = cluster.post("/apis/apps/v1/namespaces/default/deployments", deployment).await.ok(201);
    let containers = made["spec"]["template"]["spec"]["containers"].as_array().unwrap();
    let names: Vec<&str> = containers.iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["main", "side"]);
    assert_eq!(containers[1]["imagePullPolicy"], "IfNotPresent", "what a policy adds is defaulted");

    let map = |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
    // A slash is no key of a ConfigMap: the change is made, and then judged as if the client had made it.
    let refused = cluster.post(MAPS, map("a")).await.refused(422);
    assert!(refused.contains("by/whom"), "{refused}");
    cluster.post(MAPS, map("skip")).await.ok(201);
    cluster.delete(&format!("{BINDINGS}/signed")).await.ok(200);
    cluster.post(MAPS, map("a")).await.ok(201);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_policies_are_refused_and_failing_ones_deny() {
    let cluster = Cluster::start().await;
    let refused = cluster.post(POLICIES, policy("broken", "/configmaps", merge("Object{"))).await.refused(422);
    assert!(refused.contains("spec.mutations[0].applyConfiguration.expression: Invalid value"), "{refused}");
    let failing = policy("failing", "/configmaps", merge("Object{data: {'a': object.data.missing}}"));
    cluster.post(POLICIES, failing).await.ok(201);
    bind(&cluster, "failing").await;
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}});
    let refused = cluster.post(MAPS, map.clone()).await.refused(422);
    assert!(refused.contains("policy 'failing' with binding 'failing' denied request"), "{refused}");
    let ignore = json!({"spec": {"failurePolicy": "Ignore"}});
    cluster.patch(&format!("{POLICIES}/failing"), "merge-patch", ignore).await.ok(200);
    cluster.post(MAPS, map).await.ok(201);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_with_broken_conditions_are_refused() {
    let cluster = Cluster::start().await;
    for (resource, kind) in [
        ("mutatingwebhookconfigurations", "MutatingWebhookConfiguration"),
        ("validatingwebhookconfigurations", "ValidatingWebhookConfiguration"),
    ] {
        let hooks = |expression: &str| {
            json!({
                "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": "hooks"},
                "webhooks": [{
                    "name": "a.example.com", "clientConfig": {"url": "https://a.example.com/"}, "sideEffects": "None",
                    "admissionReviewVersions": ["v1"], "rules": [],
                    "matchConditions": [{"name": "c", "expression": expression}],
                }],
            })
        };
        let path = format!("/apis/admissionregistration.k8s.io/v1/{resource}");
        let refused = cluster.post(&path, hooks("... [] bad expression")).await.refused(422);
        assert!(refused.contains("webhooks[0].matchConditions[0].expression: Invalid value"), "{refused}");
        cluster.post(&path, hooks("object.metadata.name != 'skip'")).await.ok(201);
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_changes_objects_in_its_own_version() {
    let cluster = Cluster::start().await;
    // It is about version 1, and so about all that can be shown as that.
    let fifty = "Object{spec: Object.spec{targetCPUUtilizationPercentage: object.spec.maxReplicas * 10}}";
    cluster.post(POLICIES, policy("fifty", "autoscaling/horizontalpodautoscalers", merge(fifty))).await.ok(201);
    bind(&cluster, "fifty").await;
    let scaler = json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "web"},
        "spec": {"maxReplicas": 5, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}},
    });
    let path = "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers";
    let made = cluster.post(path, scaler).await.ok(201);
    let target = json!({"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}});
    assert_eq!(made["spec"]["metrics"], json!([{"type": "Resource", "resource": target}]));
    cluster.stop().await;
}
