//! Looking at what runs and at what went wrong: ephemeral containers, backtraces, core dumps, snapshots.

use bytes::Bytes;
use podium_agent::{LogOptions, streams::Tools};
use podium_api::{ObjectKey, kinds};
use podium_client::{Api as _, Patch};
use serde_json::{Value, json};

use crate::{
    cluster::{Cluster, hello},
    streams::{options, talk},
};

async fn with_tools() -> Cluster {
    Cluster::start_with(|config| {
        config.tools = Tools::Module(Bytes::from_static(include_bytes!("../../../../sdk/tools/tools.wasm")));
    })
    .await
}

/// Adds an ephemeral container, as `kubectl debug` does.
async fn debug(cluster: &Cluster, pod: &str, container: Value) {
    let patch = json!({ "spec": { "ephemeralContainers": [container] } });
    let kind = kinds::all().into_iter().find(|k| k.names().kind == "Pod").unwrap();
    let key = ObjectKey::new("default", pod);
    cluster.api.patch(&kind, &key, Patch::Strategic(patch), Some("ephemeralcontainers")).await.unwrap();
}

/// The state of an ephemeral container.
fn ephemeral<'a>(pod: &'a Value, name: &str) -> &'a Value {
    let all = pod["status"]["ephemeralContainerStatuses"].as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter().find(|status| status["name"] == name).map_or(&Value::Null, |status| &status["state"])
}

async fn log_of(cluster: &Cluster, pod: &str, container: &str) -> String {
    let options = LogOptions { container: Some(container.into()), follow: true, ..LogOptions::default() };
    cluster.logs(pod, options).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn ephemeral_containers_look_at_a_pod_that_runs() {
    let mut cluster = with_tools().await;
    let mut app = hello();
    app["env"] = json!([{ "name": "COLOR", "value": "blue" }]);
    app["volumeMounts"] = json!([{ "name": "data", "mountPath": "/data" }]);
    let spec = json!({ "containers": [app], "volumes": [{ "name": "data", "emptyDir": {} }] });
    cluster.pod("web", spec).await;
    cluster.until_ready("web").await;

    // Beside a container: its environment and its volumes.
    let look = "echo $COLOR > /data/x; cat /data/x; printenv HOSTNAME; exit 3";
    let near = json!({ "name": "near", "image": "podium.dev/tools", "command": ["sh", "-c", look],
        "targetContainerName": "app" });
    debug(&cluster, "web", near).await;
    let pod = cluster.until_pod("web", |pod| ephemeral(pod, "near")["terminated"]["exitCode"] == 3).await;
    assert_eq!(log_of(&cluster, "web", "near").await, "blue\nweb\n");
    let status = &pod["status"]["ephemeralContainerStatuses"][0];
    assert_eq!(
        (&status["restartCount"], &status["ready"], &status["started"]),
        (&json!(0), &json!(false), &Value::Null)
    );
    assert!(status["imageID"].as_str().unwrap().starts_with("podium.dev/tools@sha256:"));
    assert_eq!(
        (&pod["status"]["phase"], &pod["status"]["containerStatuses"][0]["ready"]),
        (&json!("Running"), &json!(true))
    );

    // With its own mounts, and a terminal.
    let shell = json!({ "name": "shell", "image": "podium.dev/tools", "command": ["sh"], "stdin": true, "tty": true,
        "volumeMounts": [{ "name": "data", "mountPath": "/mnt" }] });
    debug(&cluster, "web", shell).await;
    cluster.until_pod("web", |pod| ephemeral(pod, "shell")["running"].is_object()).await;
    let key = ObjectKey::new("default", "web");
    let of_shell = options("shell", false);
    let exec = cluster.streaming().exec(&key, of_shell, vec!["cat".into(), "/mnt/x".into()]).await.unwrap();
    assert_eq!(talk(exec, "").await, ("blue\n".to_owned(), String::new(), Ok(0)));
    let session = cluster.streaming().attach(&key, options("shell", true)).await.unwrap();
    let (out, _, end) = talk(session, "cat /mnt/x; echo ${COLOR:-none}; exit 4\n").await;
    assert!(out.contains("blue\r\nnone\r\n") && end == Ok(0), "{out:?} {end:?}");
    cluster.until_pod("web", |pod| ephemeral(pod, "shell")["terminated"]["exitCode"] == 4).await;

    // What answers requests is no such container: nothing of the pod is taken from it.
    debug(&cluster, "web", json!({ "name": "server", "image": "file://hello.wasm" })).await;
    let refused = |pod: &Value| ephemeral(pod, "server")["waiting"]["reason"] == "CreateContainerError";
    let pod = cluster.until_pod("web", refused).await;
    let message = ephemeral(&pod, "server")["waiting"]["message"].as_str().unwrap();
    assert_eq!(message, "an ephemeral container must be a command, but its image answers HTTP requests");
    let event = cluster.until_event("web", "Failed", message).await;
    assert_eq!(event["involvedObject"]["fieldPath"], "spec.ephemeralContainers{server}");
    assert!(cluster.get(pod["status"]["podIP"].as_str().unwrap()).await.contains("request"));

    // They outlive no agent and are not run again, and the pod goes on.
    debug(&cluster, "web", json!({ "name": "long", "image": "podium.dev/tools", "command": ["sleep", "9999"] })).await;
    cluster.until_pod("web", |pod| ephemeral(pod, "long")["running"].is_object()).await;
    cluster.stop_agent().await;
    cluster.start_agent().await;
    let lost = |pod: &Value| ephemeral(pod, "long")["terminated"]["reason"] == "ContainerStatusUnknown";
    cluster.until_pod("web", lost).await;
    let pod = cluster.until_pod("web", |pod| pod["status"]["containerStatuses"][0]["restartCount"] == 1).await;
    assert_eq!(ephemeral(&pod, "near")["terminated"]["exitCode"], 3, "as it was");
    cluster.delete("web").await;
    cluster.until("Pod", "default", "web", |pod| pod.is_none()).await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_ends_whoever_looks_at_it() {
    let cluster = with_tools().await;
    let waits = "while [ ! -e /data/go ]; do sleep 0.02; done";
    let container = json!({ "name": "app", "image": "podium.dev/tools", "args": ["-c", waits],
        "volumeMounts": [{ "name": "data", "mountPath": "/data" }] });
    let spec =
        json!({ "restartPolicy": "Never", "containers": [container], "volumes": [{ "name": "data", "emptyDir": {} }] });
    cluster.pod("job", spec).await;
    cluster.until_ready("job").await;
    let stays = json!({ "name": "stays", "image": "podium.dev/tools:latest", "targetContainerName": "app",
        "command": ["sh", "-c", "touch /data/go; sleep 9999"] });
    debug(&cluster, "job", stays).await;
    let pod = cluster.until_pod("job", |pod| pod["status"]["phase"] == "Succeeded").await;
    assert_eq!(ephemeral(&pod, "stays")["terminated"]["exitCode"], 137);
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn backtraces_have_names_and_lines() {
    let cluster = Cluster::start().await;
    for (guest, wanted) in [
        ("traps-names", &["traps::orders::price", "traps::divide"][..]),
        ("traps-lines", &["divide", "traps/src/lib.rs:14", "price", "traps/src/lib.rs:20"]),
    ] {
        cluster.guest(&format!("{guest}.wasm"));
        let container = json!({ "name": "app", "image": format!("file://{guest}.wasm") });
        cluster.pod(guest, json!({ "containers": [container] })).await;
        let event = cluster.until_event(guest, "Trapped", "Container app trapped: wasm trap: ").await;
        assert_eq!(event["involvedObject"]["fieldPath"], "spec.containers{app}");
        let again = |pod: &Value| pod["status"]["containerStatuses"][0]["restartCount"].as_i64() >= Some(1);
        let pod = cluster.until_pod(guest, again).await;
        let previous = LogOptions { previous: true, ..LogOptions::default() };
        let log = cluster.logs(guest, previous).await.unwrap();
        let state = &pod["status"]["containerStatuses"][0];
        let ended = [&state["lastState"], &state["state"]].map(|s| s["terminated"]["message"].as_str().unwrap_or(""));
        let ended = ended.concat();
        for words in wanted {
            let event = event["message"].as_str().unwrap();
            assert!(event.contains(words) && log.contains(words) && ended.contains(words), "{words}: {event}\n{log}");
        }
    }
    cluster.shutdown().await;
}

pub(crate) async fn annotated(cluster: &Cluster, name: &str, annotations: Value, image: &str) {
    let spec = json!({ "nodeName": "n1", "restartPolicy": "Never",
        "containers": [{ "name": "app", "image": format!("file://{image}") }] });
    let metadata = json!({ "name": name, "namespace": "default", "annotations": annotations });
    let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec });
    cluster.create("Pod", pod).await;
}

/// Fails unless `begin` was called before.
fn module(export: &str, begin: &str) -> String {
    format!(
        r#"(module (memory (export "memory") 1) (global $ready (mut i32) (i32.const 0))
            (func (export "{export}") {begin} (global.set $ready (i32.const 1)))
            (func (export "_start") (if (i32.eqz (global.get $ready)) (then unreachable))))"#
    )
}

/// The same as a component.
fn component(export: &str) -> String {
    format!(
        r#"(component
            (core module $m
                (global $ready (mut i32) (i32.const 0))
                (func (export "begin") (global.set $ready (i32.const 1)))
                (func (export "run") (result i32) (i32.eqz (global.get $ready))))
            (core instance $i (instantiate $m))
            (func (export "{export}") (canon lift (core func $i "begin")))
            (component $c (import "f" (func $f (result (result)))) (export "run" (func $f)))
            (type $r (func (result (result))))
            (func $run (type $r) (canon lift (core func $i "run")))
            (instance $c (instantiate $c (with "f" (func $run))))
            (export "wasi:cli/run@0.2.0" (instance $c)))"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_initialised_as_a_pod_says() {
    let cluster = Cluster::start().await;
    cluster.image("usual.wasm", &module("wizer-initialize", ""));
    cluster.image("other.wasm", &module("begin", ""));
    cluster.image("fails.wasm", &module("wizer-initialize", "unreachable"));
    cluster.image("component.wasm", &component("wizer-initialize"));
    cluster.image("component-other.wasm", &component("begin"));
    let (all, one) = ("podium.dev/initialize", "podium.dev/initialize.app");
    for (name, annotations, image, phase) in [
        ("usual", json!({}), "usual.wasm", "Succeeded"),
        ("off", json!({ all: "off" }), "usual.wasm", "Failed"),
        ("plain", json!({}), "other.wasm", "Failed"),
        ("named", json!({ all: "begin" }), "other.wasm", "Succeeded"),
        ("one", json!({ all: "off", one: "begin" }), "other.wasm", "Succeeded"),
        ("component", json!({}), "component.wasm", "Succeeded"),
        ("component-off", json!({ one: "off" }), "component.wasm", "Failed"),
        ("component-named", json!({ one: "begin" }), "component-other.wasm", "Succeeded"),
    ] {
        annotated(&cluster, name, annotations, image).await;
        let ends = |pod: &Value| pod["status"]["phase"] == "Succeeded" || pod["status"]["phase"] == "Failed";
        let pod = cluster.until_pod(name, ends).await;
        assert_eq!(pod["status"]["phase"], phase, "{name}: {}", pod["status"]);
    }
    for (name, annotations, image, words) in [
        ("fails", json!({}), "fails.wasm", "initialisation by wizer-initialize failed: wasm trap: wasm `unreachable`"),
        ("nowhere", json!({ all: "nowhere" }), "usual.wasm", "initialisation by nowhere failed"),
    ] {
        annotated(&cluster, name, annotations, image).await;
        let event = cluster.until_event(name, "Failed", words).await;
        assert_eq!(event["type"], "Warning");
        let waiting =
            |pod: &Value| pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == "CreateContainerError";
        cluster.until_pod(name, waiting).await;
    }
    cluster.shutdown().await;
}
