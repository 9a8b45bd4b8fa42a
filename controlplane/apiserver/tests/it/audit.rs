//! The audit log, and a stop that is announced.

use std::{path::PathBuf, sync::Arc, time::Duration};

use http::Method;
use podium_apiserver::{AuditConfig, AuditPolicy};
use podium_store::MemoryStore;
use serde_json::{Value, json};

use crate::harness::Cluster;

const POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
rules:
- level: Metadata
  resources: [{group: '', resources: [secrets]}]
- level: RequestResponse
  resources: [{group: '', resources: [configmaps]}]
  omitManagedFields: true
- level: Metadata
  nonResourceURLs: [/metrics]
";

async fn audited(max_bytes: u64) -> (Cluster, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let (file, log_path) = (dir.path().join("policy.yaml"), dir.path().join("audit.log"));
    std::fs::write(&file, POLICY).unwrap();
    let policy = AuditPolicy::read(&file).unwrap();
    let audit = AuditConfig { policy, log_path: log_path.clone(), max_bytes, max_backups: 2 };
    (Cluster::with(Arc::new(MemoryStore::new()), dir, |config| config.audit = Some(audit)).await, log_path)
}

fn lines(path: &std::path::Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn stages(lines: &[Value], of: impl Fn(&Value) -> bool) -> Vec<&str> {
    lines.iter().filter(|l| of(l)).map(|l| l["stage"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn lines_of_a_create_a_refusal_and_a_secret() {
    let (cluster, log) = audited(u64::MAX).await;
    let headers = [("content-type", "application/json"), ("audit-id", "mine"), ("user-agent", "tester/1")];
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": "v"}});
    let path = "/api/v1/namespaces/default/configmaps";
    cluster.send(Method::POST, path, &headers, map.to_string().into()).await.ok(201);
    let headers = [("impersonate-user", "jane"), ("audit-id", "refused")];
    cluster.send(Method::GET, path, &headers, vec![]).await.refused(403);
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"},
        "stringData": {"password": "correct horse"}});
    cluster.post("/api/v1/namespaces/default/secrets", secret).await.ok(201);
    cluster.get("/api/v1/namespaces/default/secrets/s").await.ok(200);
    cluster.get("/api/v1/namespaces/default/pods").await.ok(200);
    let _dir = cluster.stop().await;

    let all = lines(&log);
    let made: Vec<&Value> = all.iter().filter(|l| l["auditID"] == "mine").collect();
    assert_eq!(made.len(), 2, "{made:?}");
    assert_eq!((&made[0]["stage"], &made[0]["requestObject"]), (&"RequestReceived".into(), &Value::Null));
    let done = made[1];
    assert_eq!((&done["kind"], &done["apiVersion"]), (&"Event".into(), &"audit.k8s.io/v1".into()));
    assert_eq!((&done["stage"], &done["level"]), (&"ResponseComplete".into(), &"RequestResponse".into()));
    assert_eq!((&done["verb"], &done["requestURI"]), (&"create".into(), &path.into()));
    assert_eq!((&done["user"]["username"], &done["userAgent"]), (&"kubernetes-admin".into(), &"tester/1".into()));
    assert_eq!(done["sourceIPs"], json!(["127.0.0.1"]));
    let at = json!({"resource": "configmaps", "namespace": "default", "name": "a", "apiVersion": "v1"});
    assert_eq!(done["objectRef"], at);
    assert_eq!(done["requestObject"]["data"]["k"], "v");
    assert!(done["responseObject"]["metadata"]["uid"].is_string());
    assert_eq!(done["responseObject"]["metadata"]["managedFields"], Value::Null);
    assert_eq!(done["responseStatus"], json!({"metadata": {}, "code": 201}));
    assert_eq!(done["annotations"]["authorization.k8s.io/decision"], "allow");
    assert_eq!(done["annotations"]["authorization.k8s.io/reason"], "", "administrators need no reason");
    for stamp in ["requestReceivedTimestamp", "stageTimestamp"] {
        let stamp = done[stamp].as_str().unwrap();
        assert_eq!((stamp.len(), stamp.ends_with('Z')), ("2026-01-01T00:00:00.000000Z".len(), true), "{stamp}");
    }

    let refused = all.iter().rfind(|l| l["auditID"] == "refused").unwrap();
    assert_eq!(refused["impersonatedUser"]["username"], "jane");
    assert_eq!(
        (&refused["responseStatus"]["code"], &refused["responseStatus"]["reason"]),
        (&403.into(), &"Forbidden".into())
    );
    assert_eq!(refused["annotations"]["authorization.k8s.io/decision"], "forbid");

    let text = std::fs::read_to_string(&log).unwrap();
    assert!(!text.contains("correct horse") && !text.contains("Y29ycmVjdCBob3JzZQ"), "a secret was written");
    assert_eq!(stages(&all, |l| l["objectRef"]["name"] == "s").len(), 3, "the name comes with the body");
    assert!(stages(&all, |l| l["objectRef"]["resource"] == "pods").is_empty());
}

#[tokio::test]
async fn a_watch_has_a_start_and_an_end() {
    let (cluster, log) = audited(u64::MAX).await;
    cluster.get("/api/v1/configmaps?watch=true&timeoutSeconds=1").await;
    let _dir = cluster.stop().await;
    let all = lines(&log);
    let got = stages(&all, |l| l["verb"] == "watch");
    assert_eq!(got, ["RequestReceived", "ResponseStarted", "ResponseComplete"]);
}

#[tokio::test]
async fn full_files_are_put_aside() {
    let (cluster, log) = audited(2000).await;
    for _ in 0..20 {
        cluster.get("/metrics").await;
    }
    let dir = cluster.stop().await;
    let mut names: Vec<String> =
        std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|n| n.starts_with("audit.log"));
    names.sort();
    assert_eq!(names, ["audit.log", "audit.log.1", "audit.log.2"]);
    for name in &names {
        let path = log.with_file_name(name);
        assert!(std::fs::metadata(&path).unwrap().len() <= 2000 && !lines(&path).is_empty());
    }
}

#[tokio::test]
async fn a_stop_is_announced_while_requests_are_still_served() {
    let delay = Duration::from_secs(5);
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::with(Arc::new(MemoryStore::new()), dir, |config| config.limits.shutdown_delay = delay).await;
    assert_eq!(cluster.get("/readyz").await.status, 200);
    let Cluster { server, client, .. } = cluster;
    let get = async |path: &str| {
        let request = http::Request::get(path).body(kube::client::Body::empty()).unwrap();
        client.send(request).await.map(|answer| answer.status().as_u16())
    };
    let began = std::time::Instant::now();
    let stopped = tokio::spawn(server.shutdown());
    while get("/readyz").await.unwrap() == 200 {
        tokio::task::yield_now().await;
    }
    assert!(began.elapsed() < delay, "readyz fails at once");
    assert_eq!(get("/api/v1/namespaces").await.unwrap(), 200);
    assert_eq!(get("/livez").await.unwrap(), 200);
    stopped.await.unwrap();
    assert!(began.elapsed() >= delay);
    assert!(get("/api/v1/namespaces").await.is_err(), "nothing is served any more");
}
