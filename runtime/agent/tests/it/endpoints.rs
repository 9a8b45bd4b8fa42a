//! What the node says of itself over HTTP, as a kubelet does.

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Empty};
use podium_agent::Endpoints;
use serde_json::{Value, json};

use crate::cluster::{Cluster, hello};

async fn ask(endpoints: &Endpoints, method: Method, path: &str) -> (u16, String, String) {
    let body = Empty::<Bytes>::new().map_err(|never| match never {}).boxed_unsync();
    let answer = endpoints.serve(Request::builder().method(method).uri(path).body(body).unwrap()).await;
    let (parts, body) = answer.into_parts();
    let kind = parts.headers.get("content-type").map(|kind| kind.to_str().unwrap().to_owned());
    let bytes = body.collect().await.unwrap().to_bytes();
    (parts.status.as_u16(), kind.unwrap_or_default(), String::from_utf8(bytes.to_vec()).unwrap())
}

async fn get(endpoints: &Endpoints, path: &str) -> String {
    let (code, _, text) = ask(endpoints, Method::GET, path).await;
    assert_eq!(code, 200, "{path}: {text}");
    text
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// A series' value.
fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    let line = line.unwrap_or_else(|| panic!("there is no {series} in\n{text}"));
    line.split(' ').next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_tells_what_a_kubelet_tells() {
    let cluster = Cluster::start().await;
    let mut app = hello();
    app["resources"] = json!({ "limits": { "cpu": "250m", "memory": "64Mi" } });
    app["readinessProbe"] = json!({ "httpGet": { "path": "/", "port": 8080 }, "periodSeconds": 1 });
    cluster.pod("web", json!({ "containers": [app] })).await;
    let pod = cluster.until_ready("web").await;
    cluster.get(pod["status"]["podIP"].as_str().unwrap()).await;
    let node = cluster.endpoints();
    assert_eq!(node.node_name(), "n1");

    let summary = parsed(&get(&node, "/stats/summary").await);
    assert_eq!((&summary["node"]["nodeName"], &summary["pods"][0]["podRef"]["name"]), (&"n1".into(), &"web".into()));
    assert!(summary["pods"][0]["containers"][0]["cpu"]["usageCoreNanoSeconds"].as_u64().unwrap() > 0);
    assert!(summary["node"]["fs"]["capacityBytes"].as_u64().unwrap() > 0);
    let brief = ask(&node, Method::POST, "/stats/summary?only_cpu_and_memory=true").await.2;
    assert!(parsed(&brief)["pods"][0].get("network").is_none() && parsed(&brief)["node"].get("fs").is_none());

    let labels = r#"{container="app",namespace="default",pod="web"}"#;
    let resource = get(&node, "/metrics/resource").await;
    assert!(value(&resource, &format!("container_cpu_usage_seconds_total{labels}")) > 0.0);
    assert!(value(&resource, r#"pod_memory_working_set_bytes{namespace="default",pod="web"}"#) >= 0.0);
    assert!(value(&resource, "node_memory_working_set_bytes") > 0.0);
    assert_eq!(value(&resource, "resource_scrape_error"), 0.0);

    let uid = pod["metadata"]["uid"].as_str().unwrap();
    let labels = |extra: &str| {
        format!(
            r#"{{container="app",{extra}id="/kubepods/pod{uid}/app",image="file://hello.wasm",name="app",namespace="default",pod="web"}}"#
        )
    };
    let cadvisor = get(&node, "/metrics/cadvisor").await;
    let cpu = labels(r#"cpu="total","#);
    assert!(value(&cadvisor, &format!("container_cpu_usage_seconds_total{cpu}")) > 0.0);
    for (name, wanted) in [
        ("container_spec_cpu_quota", 25_000.0),
        ("container_spec_cpu_period", 100_000.0),
        ("container_spec_cpu_shares", 256.0),
        ("container_spec_memory_limit_bytes", 67_108_864.0),
    ] {
        assert_eq!(value(&cadvisor, &format!("{name}{}", labels(""))), wanted, "{name}");
    }
    let network = format!(
        r#"container_network_transmit_bytes_total{{container="",id="/kubepods/pod{uid}",image="",interface="eth0",name="",namespace="default",pod="web"}}"#
    );
    assert!(value(&cadvisor, &network) > 0.0);

    let probes = get(&node, "/metrics/probes").await;
    let probe = format!(
        r#"prober_probe_total{{container="app",namespace="default",pod="web",pod_uid="{uid}",probe_type="Readiness",result="successful"}}"#
    );
    assert!(value(&probes, &probe) >= 1.0);
    let own = get(&node, "/metrics").await;
    assert_eq!(value(&own, r#"kubelet_node_name{node="n1"}"#), 1.0);
    assert_eq!((value(&own, "kubelet_running_pods"), value(&own, "podium_agent_pods")), (1.0, 1.0));
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_shows_its_pods_logs_and_settings() {
    let cluster = Cluster::start().await;
    cluster.image(
        "say.wasm",
        r#"(module
            (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 1)
            (data (i32.const 0) "\10\00\00\00\06\00\00\00")
            (data (i32.const 16) "hello\n")
            (func (export "_start") (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#,
    );
    let say = json!({ "name": "say", "image": "file://say.wasm" });
    cluster.pod("job", json!({ "containers": [say], "restartPolicy": "Never" })).await;
    cluster.until_pod("job", |pod| pod["status"]["phase"] == "Succeeded").await;
    cluster.pod("web", json!({ "containers": [hello()] })).await;
    cluster.until_ready("web").await;
    let node = cluster.endpoints();

    let pods = parsed(&get(&node, "/pods/").await);
    let mut names: Vec<&str> =
        pods["items"].as_array().unwrap().iter().map(|pod| pod["metadata"]["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!((pods["kind"].as_str(), names), (Some("PodList"), vec!["job", "web"]));
    let running = parsed(&get(&node, "/runningpods/").await);
    assert_eq!(running["items"].as_array().unwrap().len(), 1);
    assert_eq!(running["items"][0]["spec"]["containers"][0]["image"], "file://hello.wasm");
    let settings = &parsed(&get(&node, "/configz").await)["kubeletconfig"];
    assert_eq!((&settings["maxPods"], &settings["containerLogMaxSize"]), (&10_000.into(), &"10Mi".into()));

    assert_eq!(get(&node, "/containerLogs/default/job/say").await, "hello\n");
    assert_eq!(get(&node, "/containerLogs/default/job/say?limitBytes=2&tailLines=1").await, "he");
    for (method, path, code, wanted) in [
        (Method::GET, "/healthz", 200, "ok"),
        (Method::GET, "/healthz/syncloop", 200, "ok"),
        (Method::GET, "/containerLogs/default/none/say", 404, "pod does not exist\n"),
        (Method::GET, "/containerLogs/default/job/x", 404, "container \"x\" not found in pod \"job\"\n"),
        (Method::GET, "/containerLogs/default/job/say?tailLines=x", 400, "tailLines: \"x\" is not a whole number"),
        (Method::GET, "/logs/", 405, "logs endpoint is disabled.\n"),
        (Method::GET, "/debug/pprof/heap", 405, "profiling endpoint is disabled.\n"),
        (Method::POST, "/pods", 405, "405: Method Not Allowed"),
        (Method::GET, "/run/default/job/say", 404, "404 page not found\n"),
        (Method::GET, "/metrics%2fcadvisor", 404, "404 page not found\n"),
        (Method::GET, "/metrics/../pods", 404, "404 page not found\n"),
        (Method::GET, "/", 404, "404 page not found\n"),
    ] {
        let (found, _, text) = ask(&node, method, path).await;
        assert_eq!((found, text.as_str()), (code, wanted), "{path}");
    }
    cluster.shutdown().await;
}
