//! Admission webhooks, called over real TLS, and admission policies.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{
    harness::Cluster,
    webhook::{CONFIGS, MAPS, Webhook, answer, configure, map, patched},
};

/// Refuses what is called `bad`, warns of all else.
fn refusing(request: &Value) -> Option<String> {
    Some(match request["name"].as_str() {
        Some("bad") => answer(
            request,
            json!({"allowed": false, "status": {"message": "it is bad", "code": 403, "reason": "Forbidden"}}),
        ),
        Some("mute") => answer(request, json!({"allowed": false})),
        _ => answer(request, json!({"warnings": ["mind the gap"]})),
    })
}

#[tokio::test]
async fn a_validating_webhook_refuses_and_warns() {
    let cluster = Cluster::start().await;
    let webhook = Webhook::start(refusing).await;
    configure(&cluster, "Validating", json!([webhook.hook("judge.example.com", json!({}))])).await;

    let answer = cluster.post(MAPS, map("good")).await;
    answer.ok(201);
    assert_eq!(answer.headers["warning"], "299 - \"mind the gap\"");
    let said = cluster.post(MAPS, map("bad")).await.refused(403);
    assert_eq!(said, "admission webhook \"judge.example.com\" denied the request: it is bad");
    let said = cluster.post(MAPS, map("mute")).await.refused(400);
    assert_eq!(said, "admission webhook \"judge.example.com\" denied the request without explanation");
    cluster.get(&format!("{MAPS}/bad")).await.refused(404);

    let first = webhook.seen.lock().unwrap()[0].clone();
    assert_eq!(first["kind"], json!({"group": "", "version": "v1", "kind": "ConfigMap"}));
    assert_eq!(first["requestResource"], json!({"group": "", "version": "v1", "resource": "configmaps"}));
    assert_eq!((&first["operation"], &first["namespace"]), (&json!("CREATE"), &json!("default")));
    assert_eq!(first["userInfo"]["groups"][0], "system:masters");
    assert_eq!((&first["object"]["metadata"]["name"], &first["oldObject"]), (&json!("good"), &Value::Null));
    assert_eq!(first["options"]["kind"], "CreateOptions");

    cluster.delete(&format!("{MAPS}/good")).await.ok(200);
    let last = webhook.seen.lock().unwrap().last().unwrap().clone();
    assert_eq!((&last["operation"], &last["oldObject"]["metadata"]["name"]), (&json!("DELETE"), &json!("good")));
    cluster.stop().await;
}

/// Says in `data.seen` what `data` had.
fn appending(request: &Value) -> Option<String> {
    let seen = request["object"]["data"].as_object().map_or(0, serde_json::Map::len);
    let data = json!({"seen": seen.to_string(), "more": "x"});
    Some(patched(request, json!([{"op": "add", "path": "/data", "value": data}])))
}

#[tokio::test]
async fn mutating_webhooks_change_and_are_asked_again() {
    let cluster = Cluster::start().await;
    let webhook = Webhook::start(appending).await;
    let again = json!({"reinvocationPolicy": "IfNeeded"});
    let hooks = json!([webhook.hook("a.example.com", again), webhook.hook("b.example.com", json!({}))]);
    configure(&cluster, "Mutating", hooks).await;
    let made = cluster.post(MAPS, map("a")).await.ok(201);
    // The first saw nothing, the second what the first had put there, which changed it: so the first is asked again.
    assert_eq!(made["data"], json!({"seen": "2", "more": "x"}));
    assert_eq!(webhook.calls(), 3);
    cluster.stop().await;
}

#[tokio::test]
async fn webhooks_are_asked_only_about_what_they_select() {
    let cluster = Cluster::start().await;
    let webhook = Webhook::start(refusing).await;
    let no = "request.name != 'skipped' && object.metadata.name != 'other'";
    let hooks = json!([webhook.hook(
        "a.example.com",
        json!({
            "matchConditions": [{"name": "not-skipped", "expression": no}],
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "default"}},
        })
    )]);
    configure(&cluster, "Validating", hooks).await;
    for name in ["skipped", "other"] {
        cluster.post(MAPS, map(name)).await.ok(201);
    }
    cluster.post("/api/v1/namespaces/kube-public/configmaps", map("bad")).await.ok(201);
    let mut unlabelled = map("bad");
    unlabelled["metadata"]["labels"] = json!({});
    cluster.post(MAPS, unlabelled).await.ok(201);
    assert_eq!(webhook.calls(), 0);
    cluster.post(MAPS, map("mute")).await.refused(400);
    assert_eq!(webhook.calls(), 1);
    cluster.stop().await;
}

/// By name: hangs, lies about the uid, answers garbage, answers 10 MB, patches though it only validates.
fn broken(request: &Value) -> Option<String> {
    match request["name"].as_str().unwrap_or_default() {
        "hangs" => None,
        "lies" => Some(answer(request, json!({"uid": "another"}))),
        "garbage" => Some("<html>".to_owned()),
        "large" => Some(answer(request, json!({"warnings": ["x".repeat(10 * 1024 * 1024)]}))),
        _ => Some(patched(request, json!([]))),
    }
}

#[tokio::test]
async fn a_broken_webhook_fails_requests_or_is_ignored() {
    let cluster = Cluster::start().await;
    let webhook = Webhook::start(broken).await;
    configure(&cluster, "Validating", json!([webhook.hook("x.example.com", json!({"timeoutSeconds": 30}))])).await;
    let change = async |field: &str, value: Value| {
        let path = format!("{CONFIGS}/validatingwebhookconfigurations/test");
        let add = json!([{"op": "add", "path": format!("/webhooks/0/{field}"), "value": value}]);
        cluster.patch(&path, "json-patch", add).await.ok(200);
    };
    for (name, why) in [
        ("lies", "received invalid webhook response: expected response.uid="),
        ("garbage", "failed to call webhook: Post \"https://localhost:"),
        ("large", "length limit exceeded"),
        ("patches", "received invalid webhook response: expected no response.patch"),
        ("hangs", "/judge?timeout=1s\": context deadline exceeded"),
    ] {
        if name == "hangs" {
            change("timeoutSeconds", json!(1)).await;
        }
        let before = Instant::now();
        let said = cluster.post(MAPS, map(name)).await.refused(500);
        assert!(said.starts_with("Internal error occurred: failed calling webhook \"x.example.com\": "), "{said}");
        assert!(said.contains(why), "{name}: {said}");
        assert!(before.elapsed() < Duration::from_secs(20), "{name}");
    }
    change("failurePolicy", json!("Ignore")).await;
    cluster.post(MAPS, map("garbage")).await.ok(201);
    cluster.stop().await;
}

#[tokio::test]
async fn webhooks_judge_trials_too() {
    let cluster = Cluster::start().await;
    let webhook = Webhook::start(refusing).await;
    configure(&cluster, "Validating", json!([webhook.hook("x.example.com", json!({}))])).await;
    cluster.post(&format!("{MAPS}?dryRun=All"), map("a")).await.ok(201);
    assert_eq!(webhook.seen.lock().unwrap()[0]["dryRun"], true);
    cluster.get(&format!("{MAPS}/a")).await.refused(404);
    cluster.stop().await;
}

const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
const BINDINGS: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings";

fn policy(more: Value) -> Value {
    let mut spec = json!({
        "matchConstraints": {"resourceRules": [{
            "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["CREATE", "UPDATE"],
        }], "objectSelector": {"matchLabels": {"judged": "yes"}}},
    });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": "p"}, "spec": spec})
}

fn binding(more: Value) -> Value {
    let mut spec = json!({"policyName": "p", "validationActions": ["Deny"]});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": "b"}, "spec": spec})
}

#[tokio::test]
async fn a_policy_denies_with_variables_and_messages() {
    let cluster = Cluster::start().await;
    let spec = json!({
        "variables": [{"name": "length", "expression": "object.metadata.name.size()"}],
        "matchConditions": [{"name": "not-exempt", "expression": "object.metadata.name != 'exempt'"}],
        "validations": [
            {"expression": "variables.length < 4", "messageExpression": "'too long: ' + string(variables.length)"},
            {"expression": "object.metadata.name != 'no'", "message": "not this", "reason": "Forbidden"},
            {"expression": "namespaceObject.metadata.name == 'default'"},
        ],
    });
    cluster.post(POLICIES, policy(spec)).await.ok(201);
    cluster.post(MAPS, map("unbound")).await.ok(201);
    cluster.post(BINDINGS, binding(json!({}))).await.ok(201);

    cluster.post(MAPS, map("yes")).await.ok(201);
    cluster.post(MAPS, map("exempt")).await.ok(201);
    let by = "is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request";
    let said = cluster.post(MAPS, map("toolong")).await.refused(422);
    assert_eq!(said, format!("configmaps \"toolong\" {by}: too long: 7"));
    let said = cluster.post(MAPS, map("no")).await.refused(403);
    assert_eq!(said, format!("configmaps \"no\" {by}: not this"));
    let said = cluster.post("/api/v1/namespaces/kube-public/configmaps", map("yes")).await.refused(422);
    assert_eq!(said, format!("configmaps \"yes\" {by}: failed expression: namespaceObject.metadata.name == 'default'"));
    cluster.stop().await;
}

#[tokio::test]
async fn a_policy_takes_parameters_and_may_only_warn() {
    let cluster = Cluster::start().await;
    let spec = json!({
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "validations": [{"expression": "object.metadata.name == params.data.name", "message": "another name"}],
    });
    cluster.post(POLICIES, policy(spec)).await.ok(201);
    let by = json!({"name": "params", "namespace": "default", "parameterNotFoundAction": "Deny"});
    cluster.post(BINDINGS, binding(json!({"paramRef": by}))).await.ok(201);
    let said = cluster.post(MAPS, map("a")).await.refused(422);
    assert!(said.ends_with("no params found for policy binding with `Deny` parameterNotFoundAction"), "{said}");

    let params =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "params"}, "data": {"name": "a"}});
    cluster.post(MAPS, params).await.ok(201);
    cluster.post(MAPS, map("a")).await.ok(201);
    assert!(cluster.post(MAPS, map("b")).await.refused(422).ends_with("denied request: another name"));

    let warn = json!({"spec": {"validationActions": ["Warn", "Audit"]}});
    cluster.patch(&format!("{BINDINGS}/b"), "merge-patch", warn).await.ok(200);
    let answer = cluster.post(MAPS, map("b")).await;
    answer.ok(201);
    let warning = answer.headers["warning"].to_str().unwrap();
    assert!(warning.contains("Validation failed for ValidatingAdmissionPolicy 'p' with binding 'b': another name"));
    cluster.stop().await;
}

#[tokio::test]
async fn a_policy_that_cannot_be_compiled_is_refused() {
    let cluster = Cluster::start().await;
    let spec = json!({"validations": [{"expression": "object.metadata.name =="}, {"expression": "'text'"}]});
    let said = cluster.post(POLICIES, policy(spec)).await.refused(422);
    for part in
        ["spec.validations[0].expression: Invalid value", "spec.validations[1].expression", "must evaluate to bool"]
    {
        assert!(said.contains(part), "{said}");
    }
    // One that fails as it runs refuses, unless it is to be ignored.
    let spec = json!({"validations": [{"expression": "object.nothing.here == 1"}]});
    cluster.post(POLICIES, policy(spec)).await.ok(201);
    cluster.post(BINDINGS, binding(json!({}))).await.ok(201);
    let said = cluster.post(MAPS, map("a")).await.refused(422);
    assert!(said.contains("expression 'object.nothing.here == 1' resulted in error: no such key: nothing"), "{said}");
    let ignore = json!({"spec": {"failurePolicy": "Ignore"}});
    cluster.patch(&format!("{POLICIES}/p"), "merge-patch", ignore).await.ok(200);
    cluster.post(MAPS, map("a")).await.ok(201);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_says_what_it_gets_wrong_about_its_kinds() {
    let cluster = Cluster::start().await;
    let spec = |resource: &str, rules: Value| {
        let rule =
            json!({"apiGroups": ["apps"], "apiVersions": ["v1"], "resources": [resource], "operations": ["CREATE"]});
        policy(json!({
            "matchConstraints": {"resourceRules": [rule]}, "validations": rules,
            "variables": [{"name": "count", "expression": "object.spec.replicas"}],
        }))
    };
    let wrong = json!([
        {"expression": "object.spec.replicas > '1'", "messageExpression": "'wants replicas > 1, got ' + variables.count"},
        {"expression": "object.spec.missing == 1"},
        {"expression": "object.spec.replicas > 1 && has(object.spec.selector.matchLabels)"},
    ]);
    cluster.post(POLICIES, spec("deployments", wrong.clone())).await.ok(201);
    let path = format!("{POLICIES}/p");
    let checked = async |generation: i64| {
        for _ in 0..1000 {
            let seen = cluster.get(&path).await.ok(200);
            if seen["status"]["observedGeneration"] == generation {
                return seen;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("generation {generation} is never observed");
    };
    let seen = checked(1).await;
    assert_eq!(
        seen["status"]["typeChecking"]["expressionWarnings"],
        json!([
            {
                "fieldRef": "spec.validations[0].expression",
                "warning": "apps/v1, Kind=Deployment: ERROR: <input>:1:22: found no matching overload for '_>_' applied to \
                    '(int, string)'\n | object.spec.replicas > '1'\n | .....................^\n",
            },
            {
                "fieldRef": "spec.validations[0].messageExpression",
                "warning": "apps/v1, Kind=Deployment: ERROR: <input>:1:28: found no matching overload for '_+_' applied to \
                    '(string, int)'\n | 'wants replicas > 1, got ' + variables.count\n | ...........................^\n",
            },
            {
                "fieldRef": "spec.validations[1].expression",
                "warning": "apps/v1, Kind=Deployment: ERROR: <input>:1:12: undefined field 'missing'\n | \
                    object.spec.missing == 1\n | ...........^\n",
            },
        ])
    );
    assert_eq!(seen["metadata"]["managedFields"][0]["manager"], "validatingadmissionpolicy-status");
    // What names everything cannot be checked; the warnings go.
    let mut all = spec("*", wrong);
    all["metadata"]["resourceVersion"] = seen["metadata"]["resourceVersion"].clone();
    cluster.put(&path, all).await.ok(200);
    assert_eq!(checked(2).await["status"]["typeChecking"], json!({}));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_are_checked_against_custom_resources() {
    let cluster = Cluster::start().await;
    let text = json!({"type": "string"});
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
        "replicas": {"type": "integer"}, "cron": text, "labels": {"type": "object", "additionalProperties": text},
    }}}});
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "crontabs.stable.example.com"},
        "spec": {
            "group": "stable.example.com", "scope": "Namespaced", "names": {"plural": "crontabs", "kind": "CronTab"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
    });
    cluster.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition).await.ok(201);
    while !cluster.get("/apis/stable.example.com/v1/crontabs").await.status.is_success() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let rule = json!({
        "apiGroups": ["stable.example.com"], "apiVersions": ["v1"], "resources": ["crontabs"], "operations": ["CREATE"],
    });
    let rules = json!([
        {"expression": "object.spec.replicas > 1 && object.metadata.name != '' && 'a' in object.spec.labels"},
        {"expression": "object.spec.replicas > '1'"}, {"expression": "object.spec.every == 1"},
    ]);
    let spec = json!({"matchConstraints": {"resourceRules": [rule]}, "validations": rules});
    cluster.post(POLICIES, policy(spec)).await.ok(201);
    let seen = loop {
        let seen = cluster.get(&format!("{POLICIES}/p")).await.ok(200);
        if seen["status"]["observedGeneration"] == 1 {
            break seen;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let warnings = seen["status"]["typeChecking"]["expressionWarnings"].as_array().unwrap();
    let shown: Vec<(&str, bool)> = warnings
        .iter()
        .zip(["applied to '(int, string)'", "undefined field 'every'"])
        .map(|(w, part)| {
            let text = w["warning"].as_str().unwrap();
            let right =
                text.starts_with("stable.example.com/v1, Kind=CronTab: ERROR: <input>:1:") && text.contains(part);
            (w["fieldRef"].as_str().unwrap(), right)
        })
        .collect();
    assert_eq!(shown, [("spec.validations[1].expression", true), ("spec.validations[2].expression", true)], "{seen}");
    cluster.stop().await;
}

#[tokio::test]
async fn pods_get_the_priority_of_their_class() {
    let cluster = Cluster::start().await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod = |name: &str, more: Value| {
        let mut spec = json!({"containers": [{"name": "a", "image": "registry.example/a:1"}]});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
    };
    let class = |name: &str, value: i32, default: bool| {
        json!({
            "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name},
            "value": value, "globalDefault": default, "preemptionPolicy": "Never",
        })
    };
    let plain = cluster.post(pods, pod("plain", json!({}))).await.ok(201);
    assert_eq!(
        (&plain["spec"]["priority"], &plain["spec"]["preemptionPolicy"]),
        (&json!(0), &json!("PreemptLowerPriority"))
    );
    let mut unsaid = plain.clone();
    unsaid["spec"]
        .as_object_mut()
        .unwrap()
        .retain(|field, _| !matches!(field.as_str(), "priority" | "preemptionPolicy"));
    let replaced = cluster.put(&format!("{pods}/plain"), unsaid).await.ok(200);
    assert_eq!(replaced["spec"]["priority"], 0);
    cluster.post("/apis/scheduling.k8s.io/v1/priorityclasses", class("high", 1000, false)).await.ok(201);
    cluster.post("/apis/scheduling.k8s.io/v1/priorityclasses", class("usual", 10, true)).await.ok(201);
    for (name, asked, wanted, value) in [
        ("high", json!({"priorityClassName": "high"}), "high", 1000),
        ("system", json!({"priorityClassName": "system-node-critical"}), "system-node-critical", 2_000_001_000),
        ("usual", json!({}), "usual", 10),
    ] {
        let made = cluster.post(pods, pod(name, asked)).await.ok(201);
        assert_eq!((&made["spec"]["priorityClassName"], &made["spec"]["priority"]), (&json!(wanted), &json!(value)));
    }
    let said = cluster.post(pods, pod("none", json!({"priorityClassName": "none"}))).await.refused(403);
    assert_eq!(said, "pods \"none\" is forbidden: no PriorityClass with name none was found");
    let said = cluster.post(pods, pod("own", json!({"priorityClassName": "high", "priority": 5}))).await.refused(403);
    assert!(said.contains("the integer value of priority (5) must not be provided in pod spec"), "{said}");
    cluster.stop().await;
}
