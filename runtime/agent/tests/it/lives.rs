//! Pods from their creation to their end.

use podium_agent::LogOptions;
use podium_network::CallError;
use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, hello},
    debugging::annotated,
};

const SAY_HELLO: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 0) "\10\00\00\00\06\00\00\00")
    (data (i32.const 16) "hello\n")
    (func (export "_start") (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#;

const EXIT_3: &str = r#"(module
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (memory (export "memory") 1)
    (func (export "_start") (call $exit (i32.const 3))))"#;

const UNKNOWN_IMPORT: &str = r#"(module
    (import "nowhere" "nothing" (func))
    (memory (export "memory") 1)
    (func (export "_start")))"#;

fn state(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]["state"]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_pod_answers_until_it_goes() {
    let cluster = Cluster::start().await;
    let mut container = hello();
    container["envFrom"] = json!([{ "configMapRef": { "name": "settings" } }]);
    container["readinessProbe"] = json!({ "httpGet": { "path": "/healthz", "port": 8080 } });
    let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "settings", "namespace": "default" },
        "data": { "GREETING": "Welcome" } });
    cluster.create("ConfigMap", map).await;
    cluster.pod("web", json!({ "containers": [container] })).await;
    let pod = cluster.until_ready("web").await;
    let status = &pod["status"];
    assert_eq!(
        (&status["phase"], &status["hostIP"], &status["qosClass"]),
        (&json!("Running"), &json!("127.0.0.1"), &json!("BestEffort"))
    );
    let container = &status["containerStatuses"][0];
    assert!(container["containerID"].as_str().unwrap().starts_with("podium://"));
    assert!(container["imageID"].as_str().unwrap().starts_with("file://hello.wasm@sha256:"));
    let ip = status["podIP"].as_str().unwrap();
    assert_eq!(cluster.get(ip).await, "Welcome from web, request 1\n");
    assert!(cluster.logs("web", LogOptions::default()).await.unwrap().contains("request 1\n"));
    assert_eq!(cluster.log_folders(), 1);

    cluster.delete("web").await;
    cluster.until("Pod", "default", "web", |pod| pod.is_none()).await;
    assert!(cluster.get(ip).await.contains("nobody listens"));
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_end_and_are_started_again() {
    let cluster = Cluster::start().await;
    cluster.image("hi.wasm", SAY_HELLO);
    cluster.image("exit.wasm", EXIT_3);
    cluster
        .pod("once", json!({ "restartPolicy": "Never", "containers": [{ "name": "a", "image": "file://hi.wasm" }] }))
        .await;
    let spec = json!({
        "initContainers": [{ "name": "init", "image": "file://hi.wasm" }],
        "containers": [{ "name": "a", "image": "file://exit.wasm" }],
    });
    cluster.pod("again", spec).await;

    let pod = cluster.until_pod("once", |pod| pod["status"]["phase"] == "Succeeded").await;
    assert_eq!(state(&pod)["terminated"]["reason"], "Completed");
    assert_eq!(cluster.logs("once", LogOptions::default()).await.unwrap(), "hello\n");

    let pod = cluster.until_pod("again", |pod| state(pod)["waiting"]["reason"] == "CrashLoopBackOff").await;
    let container = &pod["status"]["containerStatuses"][0];
    // More often on a machine that is slow to look.
    assert!(container["restartCount"].as_u64() >= Some(1), "{container}");
    assert_eq!(container["lastState"]["terminated"]["exitCode"], 3);
    assert_eq!(pod["status"]["initContainerStatuses"][0]["state"]["terminated"]["exitCode"], 0);
    let init = LogOptions { container: Some("init".into()), follow: true, ..LogOptions::default() };
    assert_eq!(cluster.logs("again", init).await.unwrap(), "hello\n");
    let previous = LogOptions { previous: true, ..LogOptions::default() };
    assert_eq!(cluster.logs("again", previous).await.unwrap(), "");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_said() {
    let cluster = Cluster::start().await;
    cluster.image("unknown.wasm", UNKNOWN_IMPORT);
    let from_map = json!([{ "name": "X", "valueFrom": { "configMapKeyRef": { "name": "none", "key": "x" } } }]);
    for (name, container, reason, message) in [
        ("image", json!({ "name": "a", "image": "file://none.wasm" }), "ErrImagePull", "no file none.wasm"),
        ("scheme", json!({ "name": "a", "image": "http://x/y" }), "ErrImagePull", "images from http are not supported"),
        ("name", json!({ "name": "a", "image": "UPPER/case:1" }), "InvalidImageName", "couldn't parse image name"),
        ("registry", json!({ "name": "a", "image": "127.0.0.1:1/a:b" }), "ErrImagePull", "failed to pull a:b"),
        (
            "never",
            json!({ "name": "a", "image": "file://none.wasm", "imagePullPolicy": "Never" }),
            "ErrImageNeverPull",
            "is not present with pull policy of Never",
        ),
        (
            "config",
            json!({ "name": "a", "image": "file://hello.wasm", "env": from_map }),
            "CreateContainerConfigError",
            "configmap \"none\" not found",
        ),
        ("import", json!({ "name": "a", "image": "file://unknown.wasm" }), "CreateContainerError", "nowhere"),
    ] {
        cluster.pod(name, json!({ "containers": [container] })).await;
        let pod = cluster.until_pod(name, |pod| state(pod)["waiting"]["reason"] == reason).await;
        let found = state(&pod)["waiting"]["message"].as_str().unwrap();
        assert!(found.contains(message), "{name}: {found}");
        assert!(cluster.logs(name, LogOptions::default()).await.unwrap_err().contains("is waiting to start"));
    }
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_agent_finds_its_pods_again() {
    let mut cluster = Cluster::start().await;
    cluster.pod("web", json!({ "containers": [hello()] })).await;
    let before = cluster.until_ready("web").await;
    let ip = before["status"]["podIP"].as_str().unwrap().to_owned();
    cluster.stop_agent().await;
    assert!(cluster.get(&ip).await.contains("nobody listens"));

    cluster.start_agent().await;
    let after = cluster.until_pod("web", |pod| pod["status"]["containerStatuses"][0]["restartCount"] == 1).await;
    assert_eq!(after["status"]["podIP"], json!(ip));
    let last = &after["status"]["containerStatuses"][0]["lastState"]["terminated"];
    assert_eq!(last["reason"], "ContainerStatusUnknown");
    assert!(cluster.get(&ip).await.contains("from web"));
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trapped_instance_is_an_event_and_the_pod_goes_on() {
    let cluster = Cluster::start().await;
    cluster.guest("http-p2.wasm");
    let container = json!({ "name": "app", "image": "file://http-p2.wasm" });
    cluster.pod("web", json!({ "containers": [container] })).await;
    let pod = cluster.until_ready("web").await;
    let ip = pod["status"]["podIP"].as_str().unwrap().to_owned();
    let answer = cluster.get_path(&ip, "/trap?n=7").await;
    assert!(answer.contains("trapped"), "{answer}");
    let event = cluster.until_event("web", "Trapped", "An instance of container app trapped: wasm trap: ").await;
    assert_eq!(
        (&event["type"], &event["involvedObject"]["fieldPath"]),
        (&json!("Warning"), &json!("spec.containers{app}"))
    );
    let message = event["message"].as_str().unwrap();
    assert!(message.contains("deep_in_here"), "{message}");
    assert!(cluster.logs("web", LogOptions::default()).await.unwrap().contains("deep_in_here"));
    assert_eq!(cluster.get(&ip).await, "hello");
    let pod = cluster.json("Pod", "default", "web").await.unwrap();
    assert_eq!(pod["status"]["containerStatuses"][0]["restartCount"], 0);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_past_what_a_pod_takes_are_refused_and_nothing_else_is() {
    let cluster = Cluster::start().await;
    cluster.guest("http-p2.wasm");
    let limits = json!({ "podium.dev/concurrency": "1", "podium.dev/request-queue": "0" });
    annotated(&cluster, "web", limits, "http-p2.wasm").await;
    let pod = cluster.until_ready("web").await;
    let ip = pod["status"]["podIP"].as_str().unwrap();
    let is_refused = |error: &CallError| matches!(error, CallError::NotAccepted(_) | CallError::Refused(_));
    // One of both is there first, and the other has to ask again.
    let first = async {
        loop {
            let error = cluster.ask(ip, "/sleep?n=600000").await.err();
            assert!(error.as_ref().is_some_and(is_refused), "{error:?}");
            tokio::task::yield_now().await;
        }
    };
    let refused = async {
        loop {
            match cluster.ask(ip, "/count").await {
                Ok(answer) => assert_eq!(answer.status(), 200),
                Err(error) => return error,
            }
        }
    };
    let error = tokio::select! {
        () = first => None,
        error = tokio::time::timeout(crate::PATIENCE, refused) => error.ok(),
    };
    assert!(error.as_ref().is_some_and(is_refused), "{error:?}");
    // Who waited so long has gone: there is room again.
    let answered = async { while cluster.ask(ip, "/count").await.is_err() {} };
    tokio::time::timeout(crate::PATIENCE, answered).await.unwrap();
    cluster.shutdown().await;
}
