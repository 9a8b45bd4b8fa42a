//! API priority and fairness, as clients see it.

use std::sync::Arc;

use http::Method;
use podium_store::MemoryStore;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use crate::{
    harness::{Answer, Cluster},
    raw::{Raw, eventually, rest, until},
};

const GROUP: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";
const JANE: [(&str, &str); 2] = [("impersonate-user", "jane"), ("impersonate-group", "system:authenticated")];

fn level(name: &str, limited: Value) -> Value {
    json!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "PriorityLevelConfiguration",
        "metadata": {"name": name}, "spec": {"type": "Limited", "limited": limited},
    })
}

fn schema(name: &str, level: &str, user: &str) -> Value {
    let everything =
        json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true});
    json!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema", "metadata": {"name": name},
        "spec": {
            "priorityLevelConfiguration": {"name": level}, "matchingPrecedence": 500,
            "distinguisherMethod": {"type": "ByUser"},
            "rules": [{
                "subjects": [{"kind": "User", "user": {"name": user}}],
                "resourceRules": [everything], "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
            }],
        },
    })
}

impl Cluster {
    async fn as_jane(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &JANE, Vec::new()).await
    }

    async fn uid(&self, resource: &str, name: &str) -> String {
        let object = self.get(&format!("{GROUP}/{resource}/{name}")).await.ok(200);
        object["metadata"]["uid"].as_str().unwrap().to_owned()
    }

    /// Waits until requests of jane are of a schema.
    async fn sorted(&self, name: &str) {
        let uid = self.uid("flowschemas", name).await;
        eventually(name, || async { uids(&self.as_jane("/version").await)[0] == uid }).await;
    }
}

fn uids(answer: &Answer) -> [String; 2] {
    ["x-kubernetes-pf-flowschema-uid", "x-kubernetes-pf-prioritylevel-uid"]
        .map(|name| answer.headers.get(name).map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default())
}

fn dangling(schema: &Value) -> String {
    let conditions = schema["status"]["conditions"].as_array().into_iter().flatten();
    let dangling = conditions.into_iter().find(|c| c["type"] == "Dangling");
    dangling.map(|c| format!("{} {}", c["status"].as_str().unwrap(), c["reason"].as_str().unwrap())).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_cluster_has_levels_and_schemas() {
    let cluster = Cluster::start().await;
    let names = |list: Value| -> Vec<String> {
        let items = list["items"].as_array().unwrap().iter();
        items.map(|item| item["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    let levels = cluster.get(&format!("{GROUP}/prioritylevelconfigurations")).await.ok(200);
    let wanted = [
        "catch-all",
        "exempt",
        "global-default",
        "leader-election",
        "node-high",
        "system",
        "workload-high",
        "workload-low",
    ];
    assert_eq!(names(levels), wanted);
    let schemas = cluster.get(&format!("{GROUP}/flowschemas")).await.ok(200);
    assert!(schemas["items"].as_array().unwrap().iter().all(|s| dangling(s) == "False Found"), "{schemas}");
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let table = cluster.get_as(&format!("{GROUP}/flowschemas/service-accounts"), table).await.ok(200);
    let cells = table["rows"][0]["cells"].as_array().unwrap();
    assert_eq!(cells[..4], ["service-accounts".into(), "workload-low".into(), json!(9000), "ByUser".into()]);
    assert_eq!(cells[5], "False");
    let metrics = cluster.get("/metrics").await.text;
    for line in [
        "apiserver_flowcontrol_nominal_limit_seats{priority_level=\"workload-low\"} 245",
        "apiserver_flowcontrol_current_executing_requests{flow_schema=\"exempt\",priority_level=\"exempt\"} 1",
        "apiserver_flowcontrol_current_inqueue_requests{flow_schema=\"global-default\",priority_level=\"global-default\"} 0",
        "apiserver_current_inflight_requests{request_kind=\"readOnly\"} 1",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_sorted_by_what_is_stored_now() {
    let cluster = Cluster::start().await;
    let exempt =
        [cluster.uid("flowschemas", "exempt").await, cluster.uid("prioritylevelconfigurations", "exempt").await];
    assert_eq!(uids(&cluster.get("/api/v1/nodes/none").await), exempt, "what fails is sorted too");
    let global = cluster.uid("flowschemas", "global-default").await;
    for (path, code) in [("/version", 200), ("/apis", 200), ("/api/v1/secrets", 403)] {
        let answer = cluster.as_jane(path).await;
        assert_eq!((answer.status.as_u16(), &uids(&answer)[0]), (code, &global), "{path}");
    }
    let made = cluster.post(&format!("{GROUP}/flowschemas"), schema("janes", "janes", "jane")).await.ok(201);
    let path = format!("{GROUP}/flowschemas/janes");
    eventually("no level", || async { dangling(&cluster.get(&path).await.json()) == "True NotFound" }).await;
    assert_eq!(uids(&cluster.as_jane("/version").await)[0], global);
    let limited = json!({"nominalConcurrencyShares": 1, "limitResponse": {"type": "Reject"}});
    let its = cluster.post(&format!("{GROUP}/prioritylevelconfigurations"), level("janes", limited)).await.ok(201);
    cluster.sorted("janes").await;
    let wanted = [&made, &its].map(|o| o["metadata"]["uid"].as_str().unwrap().to_owned());
    for path in ["/version", "/metrics", "/apis"] {
        assert_eq!(uids(&cluster.as_jane(path).await), wanted, "{path}");
    }
    eventually("a level", || async { dangling(&cluster.get(&path).await.json()) == "False Found" }).await;
    cluster.delete(&path).await.ok(200);
    cluster.sorted("global-default").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_built_in_is_kept() {
    let cluster = Cluster::start().await;
    let path = |resource: &str, name: &str| format!("{GROUP}/{resource}/{name}");
    let levels = "prioritylevelconfigurations";
    let fixed =
        cluster.patch(&path("flowschemas", "exempt"), "merge-patch", json!({"spec": {"matchingPrecedence": 7}})).await;
    assert!(fixed.refused(422).contains("must equal the fixed value"));
    for (resource, name) in [("flowschemas", "exempt"), ("flowschemas", "global-default"), (levels, "system")] {
        let before = cluster.uid(resource, name).await;
        cluster.delete(&path(resource, name)).await.ok(200);
        eventually("it comes back", || async {
            let object = cluster.get(&path(resource, name)).await;
            object.status == 200 && object.json()["metadata"]["uid"] != before.as_str()
        })
        .await;
    }
    let other = json!({"spec": {"limited": {"nominalConcurrencyShares": 7}}});
    cluster.patch(&path(levels, "system"), "merge-patch", other.clone()).await.ok(200);
    let shares = || async {
        cluster.get(&path(levels, "system")).await.json()["spec"]["limited"]["nominalConcurrencyShares"].clone()
    };
    eventually("it is put right", || async { shares().await == 30 }).await;
    let mine =
        json!({"metadata": {"annotations": {"apf.kubernetes.io/autoupdate-spec": "false"}}, "spec": other["spec"]});
    cluster.patch(&path(levels, "system"), "merge-patch", mine).await.ok(200);
    // Something that is put right afterwards shows that this was not.
    cluster.delete(&path("flowschemas", "probes")).await.ok(200);
    eventually("it comes back", || async { cluster.get(&path("flowschemas", "probes")).await.status == 200 }).await;
    assert_eq!(shares().await, 7);
    cluster.stop().await;
}

/// A cluster where jane has one seat, and a request of hers that takes it until its body comes.
async fn taken(limited: Value) -> (Cluster, tokio_rustls::client::TlsStream<tokio::net::TcpStream>, Vec<u8>) {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::with(Arc::new(MemoryStore::new()), dir, |c| c.limits.requests_in_flight_max = 1).await;
    cluster.post(&format!("{GROUP}/prioritylevelconfigurations"), level("janes", limited)).await.ok(201);
    cluster.post(&format!("{GROUP}/flowschemas"), schema("janes", "janes", "jane")).await.ok(201);
    cluster.sorted("janes").await;
    let body = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}).to_string().into_bytes();
    let raw = Raw::of(&cluster.server);
    let lines = format!(
        "Impersonate-User: jane\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n",
        body.len()
    );
    let held = raw.ask(&raw.head("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", &lines)).await;
    executing(&cluster, 1).await;
    (cluster, held, body)
}

/// What is answered, without coming again.
async fn at_once(cluster: &Cluster) -> String {
    let raw = Raw::of(&cluster.server);
    let mut stream = raw.ask(&raw.head("GET", "/apis", "Impersonate-User: jane\r\nConnection: close\r\n")).await;
    rest(&mut stream).await.unwrap()
}

async fn metric(cluster: &Cluster, name: &str) -> Option<String> {
    let metrics = cluster.get("/metrics").await.text;
    let line = metrics.lines().find(|l| {
        l.starts_with(&format!("apiserver_flowcontrol_{name}{{"))
            && l.contains("flow_schema=\"janes\"")
            && !l.ends_with(" 0")
    });
    line.and_then(|l| l.rsplit(' ').next()).map(str::to_owned)
}

async fn executing(cluster: &Cluster, count: u32) {
    let text = count.to_string();
    eventually("so many are under way", || async {
        metric(cluster, "current_executing_requests").await == Some(text.clone())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_level_refuses() {
    let limited =
        json!({"nominalConcurrencyShares": 1, "borrowingLimitPercent": 0, "limitResponse": {"type": "Reject"}});
    let (cluster, mut held, body) = taken(limited).await;
    let answer = at_once(&cluster).await;
    let (head, status) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 429 ") && head.contains("retry-after: 1\r\n"), "{head}");
    let uid = cluster.uid("prioritylevelconfigurations", "janes").await;
    assert!(head.contains(&format!("x-kubernetes-pf-prioritylevel-uid: {uid}")), "{head}");
    let status: Value = serde_json::from_str(status).unwrap();
    assert_eq!((&status["reason"], &status["details"]["retryAfterSeconds"]), (&"TooManyRequests".into(), &1.into()));
    assert_eq!(metric(&cluster, "rejected_requests_total").await.as_deref(), Some("1"));
    // Neither others nor the system nor the question whether it lives are refused.
    assert_eq!(cluster.as_jane("/readyz").await.status, 200);
    assert_eq!(cluster.get("/apis").await.status, 200);
    held.write_all(&body).await.unwrap();
    assert!(rest(&mut held).await.unwrap().contains("201 Created"));
    assert_eq!(cluster.as_jane("/apis").await.status, 200);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_level_lets_wait() {
    let queuing = json!({"queues": 4, "handSize": 1, "queueLengthLimit": 1});
    let limited = json!({
        "nominalConcurrencyShares": 1, "borrowingLimitPercent": 0,
        "limitResponse": {"type": "Queue", "queuing": queuing},
    });
    let (cluster, mut held, body) = taken(limited).await;
    let raw = Raw::of(&cluster.server);
    let mut waits = raw.ask(&raw.head("GET", "/apis", "Impersonate-User: jane\r\n")).await;
    eventually("it waits", || async { metric(&cluster, "current_inqueue_requests").await.as_deref() == Some("1") })
        .await;
    assert!(at_once(&cluster).await.starts_with("HTTP/1.1 429 "), "no more than one may");
    held.write_all(&body).await.unwrap();
    assert!(rest(&mut held).await.unwrap().contains("201 Created"));
    assert!(until(&mut waits, "APIGroupList").await.contains("200 OK"));
    assert_eq!(metric(&cluster, "current_inqueue_requests").await, None);
    assert_eq!(metric(&cluster, "dispatched_requests_total").await.as_deref(), Some("2"));
    cluster.stop().await;
}

/// As the conformance suite does it, for both kinds.
#[tokio::test(flavor = "multi_thread")]
async fn objects_and_their_status_can_be_written() {
    let cluster = Cluster::start().await;
    let limited = json!({"nominalConcurrencyShares": 2, "limitResponse": {"type": "Reject"}});
    for (resource, made) in
        [("flowschemas", schema("a", "global-default", "e2e")), ("prioritylevelconfigurations", level("a", limited))]
    {
        let (all, one) = (format!("{GROUP}/{resource}"), format!("{GROUP}/{resource}/a"));
        let mut made = made;
        made["metadata"]["labels"] = json!({"e2e": "yes"});
        cluster.post(&all, made).await.ok(201);
        let patch = json!({"metadata": {"annotations": {"patched": "true"}}});
        assert_eq!(
            cluster.patch(&one, "merge-patch", patch).await.ok(200)["metadata"]["annotations"]["patched"],
            "true"
        );
        let condition = |reason: &str| json!({"type": "PatchStatusFailed", "status": "False", "reason": reason});
        let status = json!({"status": {"conditions": [condition("e2e")]}});
        let patched = cluster.patch(&format!("{one}/status"), "merge-patch", status).await.ok(200);
        let reasons = |object: &Value| -> Vec<String> {
            let conditions = object["status"]["conditions"].as_array().unwrap().iter();
            conditions.map(|c| c["reason"].as_str().unwrap().to_owned()).collect()
        };
        assert!(reasons(&patched).contains(&"e2e".to_owned()), "{patched}");
        // Its own condition comes back: writes go on from what is newest.
        eventually("the status is replaced", || async {
            let mut newest = cluster.get(&format!("{one}/status")).await.ok(200);
            newest["status"]["conditions"]
                .as_array_mut()
                .unwrap()
                .push(json!({"type": "More", "status": "False", "reason": "more"}));
            let put = cluster.put(&format!("{one}/status"), newest).await;
            put.status == 200 && reasons(&put.json()).contains(&"more".to_owned())
        })
        .await;
        if resource == "flowschemas" {
            eventually("and its own", || async { dangling(&cluster.get(&one).await.json()) == "False Found" }).await;
            let kept = cluster.get(&one).await.json();
            assert!(["e2e", "more", "Found"].iter().all(|r| reasons(&kept).contains(&(*r).to_owned())), "{kept}");
        }
        cluster.delete(&format!("{all}?labelSelector=e2e%3Dyes")).await.ok(200);
        assert_eq!(cluster.get(&one).await.status, 404);
    }
    cluster.stop().await;
}
