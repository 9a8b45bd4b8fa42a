//! Pods that listen themselves, and what a pod's spec grants of the way out.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use podium_agent::LogOptions;
use podium_network::Caller;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::cluster::Cluster;

/// Sends back what comes, one connection after the other.
const ECHO: &str = r#"(module
    (import "wasi_snapshot_preview1" "sock_accept" (func $accept (param i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "sock_recv" (func $recv (param i32 i32 i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "sock_send" (func $send (param i32 i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_close" (func $close (param i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 0) "\40\00\00\00")
    (func (export "_start") (local $fd i32) (local $listener i32)
        (local.set $listener (i32.const 3)) ;; mounts come after
        (loop $next
            (if (call $accept (local.get $listener) (i32.const 0) (i32.const 16)) (then (return)))
            (local.set $fd (i32.load (i32.const 16)))
            (block $done
                (loop $more
                    (i32.store (i32.const 4) (i32.const 4096))
                    (br_if $done
                        (call $recv (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 20) (i32.const 24)))
                    (br_if $done (i32.eqz (i32.load (i32.const 20))))
                    (i32.store (i32.const 4) (i32.load (i32.const 20)))
                    (br_if $done
                        (call $send (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 20)))
                    (br $more)))
            (drop (call $close (local.get $fd)))
            (br $next))))"#;

fn echo() -> Value {
    json!({ "name": "echo", "image": "file://echo.wasm", "ports": [{ "containerPort": 7777 }],
        "readinessProbe": { "tcpSocket": { "port": 7777 }, "periodSeconds": 1 } })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_core_module_that_accepts_connections_is_a_pod() {
    let cluster = Cluster::start().await;
    cluster.image("echo.wasm", ECHO);
    cluster.pod("echo", json!({ "containers": [echo()], "terminationGracePeriodSeconds": 60 })).await;
    let pod = cluster.until_ready("echo").await;
    let ip = pod["status"]["podIP"].as_str().unwrap().parse().unwrap();
    let mut stream = cluster.network.connect_pod(ip, 7777).await.unwrap();
    let mut answer = [0; 5];
    for words in ["hello", "again"] {
        stream.write_all(words.as_bytes()).await.unwrap();
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer, words.as_bytes());
    }
    // It goes when its last connection is closed, long before its grace is over.
    cluster.delete("echo").await;
    cluster.until_pod("echo", |pod| !pod["metadata"]["deletionTimestamp"].is_null()).await;
    stream.write_all(b"still").await.unwrap();
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"still");
    drop(stream);
    cluster.until("Pod", "default", "echo", |pod| pod.is_none()).await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_calls_one_that_listens_and_hears_why_it_may_not_call_others() {
    let cluster = Cluster::start().await;
    cluster.guest("http-p2.wasm");
    cluster.image("echo.wasm", ECHO);
    cluster.pod("web", json!({ "containers": [{ "name": "web", "image": "file://http-p2.wasm" }, echo()] })).await;
    let pod = cluster.until_ready("web").await;
    let ip = pod["status"]["podIP"].as_str().unwrap().to_owned();
    // The guest knows only a code; its author reads the rest in the log.
    for _ in 0..3 {
        let answer = fetch(&cluster, &ip, "api.example.com/").await;
        assert!(answer.contains("HttpRequestDenied"), "{answer}");
    }
    let options = LogOptions { container: Some("web".into()), ..LogOptions::default() };
    let log = cluster.logs("web", options).await.unwrap();
    let expected = "podium: not allowed: api.example.com:80 is outside the cluster: the pod's annotation \
        podium.dev/allowed-outbound-hosts would grant it\n";
    assert_eq!(log, expected, "said once");
    // A sibling that listens is reached at localhost, with HTTP although it only echoes: it is no server of HTTP.
    let answer = fetch(&cluster, &ip, "localhost:7777/").await;
    assert!(!answer.contains("HttpRequestDenied") && !answer.contains("ConnectionRefused"), "{answer}");
    cluster.shutdown().await;
}

pub(crate) async fn fetch(cluster: &Cluster, ip: &str, url: &str) -> String {
    let caller = Caller { namespace: "default".into(), pod: "test".into(), service_account: String::new(), ip: None };
    let body = Empty::<Bytes>::new().map_err(|never| match never {}).boxed_unsync();
    let request = http::Request::get(format!("http://{ip}:8080/fetch?url={url}")).body(body).unwrap();
    let answer = cluster.network.dialer(caller).send(request).await.unwrap();
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_annotation_that_is_no_list_of_hosts_is_said() {
    let cluster = Cluster::start().await;
    cluster.image("echo.wasm", ECHO);
    let annotations = json!({ "podium.dev/allowed-outbound-hosts": "https://api.example.com example.com" });
    let metadata = json!({ "name": "bad", "namespace": "default", "annotations": annotations });
    let spec = json!({ "nodeName": "n1", "containers": [echo()] });
    cluster.create("Pod", json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec })).await;
    let waiting = |pod: &Value| pod["status"]["containerStatuses"][0]["state"]["waiting"].clone();
    let pod = cluster.until_pod("bad", |pod| waiting(pod)["reason"] == "CreateContainerConfigError").await;
    let message = waiting(&pod)["message"].as_str().unwrap().to_owned();
    assert!(message.contains("\"example.com\" is no pattern of hosts: name a port"), "{message}");
    cluster.shutdown().await;
}
