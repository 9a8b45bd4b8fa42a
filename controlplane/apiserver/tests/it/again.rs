//! What is asked again after a change, connections that are used again, and what is counted of both.

use std::{net::SocketAddr, sync::Arc};

use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use parking_lot::Mutex;
use podium_apiserver::{AuditConfig, AuditPolicy, ServiceBody, ServiceDialer};
use podium_store::MemoryStore;
use serde_json::{Value, json};

use crate::{
    harness::Cluster,
    webhook::{MAPS, Webhook, answer, configure, map, patched},
};

const PODS: &str = "/api/v1/namespaces/default/pods";

fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"judged": "yes"}},
        "spec": {"containers": [{"name": "c", "image": "registry.example/c:1"}]},
    })
}

/// A container that came in beside those of the user.
fn sidecar(request: &Value) -> Option<String> {
    let containers = request["object"]["spec"]["containers"].as_array().unwrap();
    if containers.iter().any(|c| c["name"] == "side") {
        return Some(answer(request, json!({})));
    }
    let side = json!({"name": "side", "image": "registry.example/side:1"});
    Some(patched(request, json!([{"op": "add", "path": "/spec/containers/-", "value": side}])))
}

#[tokio::test(flavor = "multi_thread")]
async fn plugins_see_what_a_webhook_added() {
    let cluster = Cluster::start().await;
    let webhook = Webhook::start(sidecar).await;
    let pods = json!([{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"]}]);
    let again = json!({"rules": pods, "reinvocationPolicy": "IfNeeded"});
    configure(&cluster, "Mutating", json!([webhook.hook("side.example.com", again)])).await;
    let made = cluster.post(PODS, pod("p")).await.ok(201);
    let mounts = |i: usize| made["spec"]["containers"][i]["volumeMounts"].clone();
    assert_eq!(made["spec"]["containers"][1]["name"], "side");
    assert_eq!(mounts(1), mounts(0), "the container that came later has the token, too");
    assert_eq!(made["spec"]["volumes"].as_array().unwrap().len(), 1);
    // Its own change is none after it; that of the plug-ins is.
    assert_eq!(webhook.calls(), 2);
    cluster.stop().await;
}

/// Counts in an annotation how often it was asked.
fn counting(request: &Value) -> Option<String> {
    let before = request["object"]["data"]["calls"].as_str().map_or(0, |c| c.parse::<u32>().unwrap());
    Some(patched(request, json!([{"op": "add", "path": "/data", "value": {"calls": (before + 1).to_string()}}])))
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_want_it_is_not_asked_again() {
    let cluster = Cluster::start().await;
    let (once, twice) = (Webhook::start(counting).await, Webhook::start(counting).await);
    let again = json!({"reinvocationPolicy": "IfNeeded"});
    let hooks = json!([
        once.hook("a.example.com", json!({})),
        twice.hook("b.example.com", again),
        once.hook("c.example.com", json!({}))
    ]);
    configure(&cluster, "Mutating", hooks).await;
    let made = cluster.post(MAPS, map("m")).await.ok(201);
    assert_eq!((once.calls(), twice.calls()), (2, 2));
    assert_eq!(made["data"]["calls"], "4");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn policies_are_asked_again_when_they_want_it() {
    let cluster = Cluster::start().await;
    let group = "/apis/admissionregistration.k8s.io/v1";
    for (name, again) in [("once", "Never"), ("twice", "IfNeeded")] {
        let patch = format!(
            "[JSONPatch{{op: 'add', path: '/data/{name}', value: string(has(object.data.{name}) ? int(object.data.{name}) + 1 : 1)}}]"
        );
        let policy = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicy", "metadata": {"name": name},
            "spec": {
                "reinvocationPolicy": again, "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": patch}}],
                "matchConstraints": {
                    "objectSelector": {"matchLabels": {"judged": "yes"}},
                    "resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}],
                },
            },
        });
        cluster.post(&format!("{group}/mutatingadmissionpolicies"), policy).await.ok(201);
        let binding = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicyBinding",
            "metadata": {"name": name}, "spec": {"policyName": name},
        });
        cluster.post(&format!("{group}/mutatingadmissionpolicybindings"), binding).await.ok(201);
    }
    let mut object = map("m");
    object["data"] = json!({"a": "b"});
    let made = cluster.post(MAPS, object).await.ok(201);
    // Nothing was changed after `twice`: policies run in the order of their names.
    assert_eq!(made["data"], json!({"a": "b", "once": "1", "twice": "1"}));
    // A webhook comes after all policies: what it changes, those see that want to.
    let webhook = Webhook::start(|request| {
        Some(patched(request, json!([{"op": "add", "path": "/data/hooked", "value": "yes"}])))
    })
    .await;
    configure(&cluster, "Mutating", json!([webhook.hook("a.example.com", json!({}))])).await;
    let mut object = map("n");
    object["data"] = json!({"a": "b"});
    let made = cluster.post(MAPS, object).await.ok(201);
    assert_eq!(made["data"], json!({"a": "b", "hooked": "yes", "once": "1", "twice": "2"}));
    assert_eq!(webhook.calls(), 1);
    cluster.stop().await;
}

fn passing(request: &Value) -> Option<String> {
    Some(answer(request, json!({})))
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_to_webhooks_are_used_again() {
    for protocols in [&[][..], &["h2"], &["http/1.1"]] {
        let cluster = Cluster::start().await;
        let webhook = Webhook::speaking(passing, protocols).await;
        configure(&cluster, "Validating", json!([webhook.hook("a.example.com", json!({}))])).await;
        for i in 0..10 {
            cluster.post(MAPS, map(&format!("m{i}"))).await.ok(201);
        }
        assert_eq!((webhook.calls(), webhook.connections()), (10, 1), "{protocols:?}");
        cluster.stop().await;
    }
}

fn refusing(request: &Value) -> Option<String> {
    Some(answer(request, json!({"allowed": request["name"] != "bad", "status": {"code": 418}})))
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_webhooks_are_counted() {
    let cluster = Cluster::start().await;
    let webhook = Webhook::start(refusing).await;
    let mut gone = webhook.hook("gone.example.com", json!({"failurePolicy": "Ignore"}));
    gone["clientConfig"]["url"] = json!("https://127.0.0.1:1/");
    configure(&cluster, "Validating", json!([webhook.hook("a.example.com", json!({})), gone])).await;
    cluster.post(MAPS, map("good")).await.ok(201);
    assert!(!cluster.post(MAPS, map("bad")).await.status.is_success());
    let text = cluster.get("/metrics").await.text;
    for line in [
        "webhook_request_total{code=\"200\",name=\"a.example.com\",operation=\"CREATE\",rejected=\"false\",type=\"validating\"} 1",
        "webhook_request_total{code=\"503\",name=\"gone.example.com\",operation=\"CREATE\",rejected=\"false\",type=\"validating\"} 2",
        "webhook_rejection_count{error_type=\"no_error\",name=\"a.example.com\",operation=\"CREATE\",rejection_code=\"418\",type=\"validating\"} 1",
        "webhook_fail_open_count{name=\"gone.example.com\",type=\"validating\"} 2",
        "webhook_admission_duration_seconds_count{name=\"a.example.com\",operation=\"CREATE\",rejected=\"true\",type=\"validating\"} 1",
    ] {
        assert!(text.contains(&format!("apiserver_admission_{line}")), "{line}\n{text}");
    }
    cluster.stop().await;
}

/// A pod without sockets that takes everything but what is called `bad`.
struct Pods(SocketAddr, Mutex<Vec<String>>);

impl ServiceDialer for Pods {
    fn serves(&self, address: SocketAddr) -> bool {
        address == self.0
    }

    fn send(
        &self,
        _address: SocketAddr,
        request: Request<ServiceBody>,
    ) -> BoxFuture<'_, Result<Response<ServiceBody>, String>> {
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let host = parts.headers["host"].to_str().unwrap();
            self.1.lock().push(format!("{host} {}", parts.uri));
            let body = body.collect().await.map_err(|e| e.to_string())?.to_bytes();
            let review: Value = serde_json::from_slice(&body).unwrap();
            let said = refusing(&review["request"]).unwrap();
            Ok(Response::new(Full::from(said).map_err(|never| match never {}).boxed_unsync()))
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_of_this_process_is_a_webhook() {
    let cluster = Cluster::start().await;
    let pods = Arc::new(Pods("10.128.0.7:8080".parse().unwrap(), Mutex::default()));
    cluster.server.connect_services(pods.clone());
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "judge"},
        "spec": {"ports": [{"port": 443, "targetPort": 8080}]},
    });
    cluster.post("/api/v1/namespaces/default/services", service).await.ok(201);
    let hook = json!([{
        "name": "a.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "clientConfig": {"service": {"namespace": "default", "name": "judge", "path": "/judge"}},
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["CREATE"]}],
        "objectSelector": {"matchLabels": {"judged": "yes"}},
    }]);
    configure(&cluster, "Validating", hook).await;
    let said = cluster.post(MAPS, map("good")).await.refused(500);
    assert_eq!(
        said,
        "Internal error occurred: failed calling webhook \"a.example.com\": failed to call webhook: Post \
         \"https://judge.default.svc:443/judge?timeout=10s\": no endpoints available for service \"judge\""
    );
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "judge-1", "labels": {"kubernetes.io/service-name": "judge"}},
        "endpoints": [{"addresses": ["10.128.0.7"], "conditions": {"ready": true}}],
        "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
    });
    cluster.post("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", slice).await.ok(201);
    cluster.post(MAPS, map("good")).await.ok(201);
    assert!(!cluster.post(MAPS, map("bad")).await.status.is_success());
    assert_eq!(pods.1.lock()[0], "judge.default.svc:443 /judge?timeout=10s");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_tells_of_webhooks() {
    let dir = tempfile::tempdir().unwrap();
    let (file, log) = (dir.path().join("policy.yaml"), dir.path().join("audit.log"));
    let rules =
        "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: [{level: Metadata}]\n";
    std::fs::write(&file, rules).unwrap();
    let policy = AuditPolicy::read(&file).unwrap();
    let audit = AuditConfig { policy, log_path: log.clone(), max_bytes: u64::MAX, max_backups: 2 };
    let cluster = Cluster::with(Arc::new(MemoryStore::new()), dir, |config| config.audit = Some(audit)).await;
    let webhook = Webhook::start(counting).await;
    let mut gone = webhook.hook("gone.example.com", json!({"failurePolicy": "Ignore"}));
    gone["clientConfig"]["url"] = json!("https://127.0.0.1:1/");
    configure(&cluster, "Mutating", json!([webhook.hook("a.example.com", json!({})), gone])).await;
    cluster.post(MAPS, map("m")).await.ok(201);
    let _dir = cluster.stop().await;
    let text = std::fs::read_to_string(&log).unwrap();
    let all: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let made = all.iter().find(|l| l["verb"] == "create" && l["objectRef"]["resource"] == "configmaps").unwrap();
    let note = |key: &str| made["annotations"][key].as_str().unwrap_or_default().to_owned();
    let first: Value = serde_json::from_str(&note("mutation.webhook.admission.k8s.io/round_0_index_0")).unwrap();
    assert_eq!(first, json!({"configuration": "test", "webhook": "a.example.com", "mutated": true}));
    for round in 0..2 {
        let key = format!("failed-open.mutation.webhook.admission.k8s.io/round_{round}_index_1");
        assert_eq!(note(&key), if round == 0 { "gone.example.com" } else { "" }, "{made}");
    }
}
