//! Hooks, probes of every kind, and what containers leave to say.

use serde_json::{Value, json};

use crate::cluster::{Cluster, hello};

const TOOL: &str = "file://files-p1.wasm";

/// A command that goes on, of the guest that knows many.
fn sleeper(name: &str) -> Value {
    json!({ "name": name, "image": TOOL, "args": ["sleep", "600000"] })
}

fn exec(args: &[&str]) -> Value {
    let command: Vec<_> = ["files-p1"].iter().chain(args).collect();
    json!({ "exec": { "command": command } })
}

fn container(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]
}

/// Once, or more often on a machine that is slow to look.
fn is_restarted(pod: &Value) -> bool {
    container(pod)["restartCount"].as_u64() >= Some(1)
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_are_probes() {
    let cluster = Cluster::start().await;
    cluster.guest("files-p1.wasm");
    let probed = |kind: &str, args: &[&str]| {
        let mut container = sleeper("a");
        container[kind] = exec(args);
        container[kind]["periodSeconds"] = 1.into();
        container[kind]["failureThreshold"] = 1.into();
        json!({ "terminationGracePeriodSeconds": 1, "containers": [container] })
    };
    cluster.pod("ready", probed("readinessProbe", &["exit", "0"])).await;
    cluster.pod("never", probed("readinessProbe", &["env", "HOSTNAME", "--", "exit", "7"])).await;
    cluster.pod("dead", probed("livenessProbe", &["exit", "1"])).await;
    cluster.pod("slow", probed("livenessProbe", &["sleep", "60000"])).await;
    cluster.until_ready("ready").await;
    // The probe runs in the container's environment, and what it prints is told.
    cluster.until_event("never", "Unhealthy", "Readiness probe failed: never\n").await;
    let words = "Liveness probe failed: command timed out: \"files-p1 sleep 60000\" timed out after 1s";
    cluster.until_event("slow", "Unhealthy", words).await;
    cluster.until_event("dead", "Killing", "Container a failed liveness probe, will be restarted").await;
    let pod = cluster.until_pod("dead", is_restarted).await;
    assert_eq!(container(&pod)["lastState"]["terminated"]["exitCode"], 137);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_are_probed() {
    let cluster = Cluster::start().await;
    let probed = |probe: Value| {
        let mut container = hello();
        container["ports"][0]["name"] = "web".into();
        container["readinessProbe"] = probe;
        container["readinessProbe"]["periodSeconds"] = 1.into();
        json!({ "containers": [container] })
    };
    for (name, probe) in [
        ("named", json!({ "httpGet": { "path": "/healthz", "port": "web" } })),
        ("socket", json!({ "tcpSocket": { "port": 8080 } })),
    ] {
        cluster.pod(name, probed(probe)).await;
        cluster.until_ready(name).await;
    }
    for (name, probe, words) in [
        ("closed", json!({ "tcpSocket": { "port": 81 } }), ":81: connect: connection refused"),
        ("tls", json!({ "httpGet": { "port": 8080, "scheme": "HTTPS" } }), "Get \"https://10.244."),
        ("grpc", json!({ "grpc": { "port": 8080 } }), "Readiness probe failed: error: "),
        ("nobody", json!({ "httpGet": { "port": 81 } }), ":81/\": "),
        (
            "unnamed",
            json!({ "httpGet": { "port": "none" } }),
            "Readiness probe errored and resulted in unknown state: couldn't find port: \"none\"",
        ),
    ] {
        cluster.pod(name, probed(probe)).await;
        cluster.until_event(name, "Unhealthy", words).await;
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hooks_run_and_fail() {
    let cluster = Cluster::start().await;
    cluster.guest("files-p1.wasm");
    let hooked = |hook: &str, handler: Value| {
        let mut container = sleeper("a");
        container["lifecycle"] = json!({ hook: handler });
        container["volumeMounts"] = json!([{ "name": "out", "mountPath": "/out" }]);
        let path = cluster.dir().join("host");
        let volume = json!({ "name": "out", "hostPath": { "path": path } });
        json!({ "terminationGracePeriodSeconds": 2, "containers": [container], "volumes": [volume] })
    };
    cluster.pod("begun", hooked("postStart", exec(&["write", "/out/begun", "yes"]))).await;
    cluster.until_ready("begun").await;
    // The container runs when its hook has run.
    assert_eq!(std::fs::read_to_string(cluster.dir().join("host/begun")).unwrap(), "yes");

    // A hook that goes on for long holds nobody up who wants the pod gone.
    cluster.pod("slow", hooked("postStart", exec(&["sleep", "600000"]))).await;
    cluster.until_event("slow", "Started", "").await;
    cluster.delete("slow").await;
    cluster.until("Pod", "default", "slow", |pod| pod.is_none()).await;

    cluster.pod("fails", hooked("postStart", exec(&["exit", "3"]))).await;
    cluster.until_event("fails", "FailedPostStartHook", "PostStartHook failed").await;
    cluster.until_event("fails", "Killing", "FailedPostStartHook").await;
    let pod = cluster.until_pod("fails", is_restarted).await;
    assert_eq!(container(&pod)["lastState"]["terminated"]["exitCode"], 137);

    cluster.pod("ends", hooked("preStop", exec(&["write", "/out/ended", "yes"]))).await;
    cluster.pod("mute", hooked("preStop", json!({ "tcpSocket": { "port": 1 } }))).await;
    for name in ["ends", "mute"] {
        cluster.until_ready(name).await;
        cluster.delete(name).await;
    }
    cluster.until_event("mute", "FailedPreStopHook", "PreStopHook failed").await;
    cluster.until("Pod", "default", "ends", |pod| pod.is_none()).await;
    assert_eq!(std::fs::read_to_string(cluster.dir().join("host/ended")).unwrap(), "yes");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_leave_messages() {
    let cluster = Cluster::start().await;
    cluster.guest("files-p1.wasm");
    let spec = |args: &[&str], more: Value| {
        let mut container = json!({ "name": "a", "image": TOOL, "args": args });
        container.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let volumes = json!([{ "name": "v", "emptyDir": {} }]);
        json!({ "restartPolicy": "Never", "containers": [container], "volumes": volumes })
    };
    let fall_back = json!({ "terminationMessagePolicy": "FallbackToLogsOnError" });
    let in_volume = json!({ "terminationMessagePath": "/v/last",
        "volumeMounts": [{ "name": "v", "mountPath": "/v" }] });
    for (name, args, more, message) in [
        ("file", vec!["write", "/dev/termination-log", "why"], json!({}), Some("why")),
        ("volume", vec!["write", "/v/last", "there"], in_volume, Some("there")),
        ("silent", vec!["env", "HOSTNAME", "--", "exit", "1"], json!({}), None),
        ("log", vec!["env", "HOSTNAME", "--", "exit", "1"], fall_back.clone(), Some("log\n")),
        ("well", vec!["env", "HOSTNAME"], fall_back, None),
    ] {
        cluster.pod(name, spec(&args, more)).await;
        let pod = cluster.until_pod(name, |pod| !container(pod)["state"]["terminated"].is_null()).await;
        assert_eq!(container(&pod)["state"]["terminated"]["message"].as_str(), message, "{name}");
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_that_computes_for_ever_costs_its_request_and_nothing_else() {
    let cluster = Cluster::start().await;
    cluster.guest("http-p2.wasm");
    let probe =
        json!({ "httpGet": { "path": "/spin?n=600000", "port": 8080 }, "periodSeconds": 1, "failureThreshold": 1000 });
    let app = |probes: Value| {
        let mut app = json!({ "name": "a", "image": "file://http-p2.wasm" });
        app.as_object_mut().unwrap().extend(probes.as_object().unwrap().clone());
        json!({ "terminationGracePeriodSeconds": 1, "containers": [app] })
    };
    cluster.pod("spins", app(json!({ "livenessProbe": probe, "readinessProbe": probe }))).await;
    cluster.pod("beside", app(json!({}))).await;
    let beside = cluster.until_ready("beside").await;
    for kind in ["Liveness", "Readiness"] {
        let words = format!("{kind} probe failed: Get \"http://");
        cluster.until_event("spins", "Unhealthy", &words).await;
    }
    let pod = cluster.json("Pod", "default", "spins").await.unwrap();
    for pod in [&pod, &beside] {
        assert_eq!(cluster.get_path(pod["status"]["podIP"].as_str().unwrap(), "/count").await, "1");
    }
    assert_eq!(container(&pod)["restartCount"], 0);
    cluster.shutdown().await;
}
