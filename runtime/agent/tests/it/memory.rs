//! Files in memory are memory of their pod.

use serde_json::json;

use crate::cluster::Cluster;

/// Writes 32 MiB to a file of its first mount, and then computes for ever.
pub(crate) const WRITES: &str = r#"(module
    (import "wasi_snapshot_preview1" "path_open"
        (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 3)
    (data (i32.const 0) "file")
    (func (export "_start") (local $i i32)
        (if (call $open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 4) (i32.const 1)
            (i64.const 66) (i64.const 0) (i32.const 0) (i32.const 16)) (then unreachable))
        (i32.store (i32.const 32) (i32.const 65536))
        (i32.store (i32.const 36) (i32.const 65536))
        (loop $more
            (if (call $write (i32.load (i32.const 16)) (i32.const 32) (i32.const 1) (i32.const 40)) (then unreachable))
            (br_if $more (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 512))))
        (loop $for-ever (br $for-ever))))"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_in_memory_counts_towards_the_pods_limit() {
    let cluster = Cluster::start().await;
    cluster.image("writes.wasm", WRITES);
    let container = json!({ "name": "app", "image": "file://writes.wasm",
        "resources": { "limits": { "memory": "16Mi" } }, "volumeMounts": [{ "name": "v", "mountPath": "/v" }] });
    for (name, medium) in [("memory", "Memory"), ("disk", "")] {
        let volumes = json!([{ "name": "v", "emptyDir": { "medium": medium } }]);
        let spec = json!({ "restartPolicy": "Never", "containers": [container], "volumes": volumes });
        cluster.pod(name, spec).await;
    }
    let pod = cluster.until_pod("memory", |pod| pod["status"]["phase"] == "Failed").await;
    let state = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!((&state["reason"], &state["exitCode"]), (&json!("OOMKilled"), &json!(137)));
    let disk = cluster.json("Pod", "default", "disk").await.unwrap();
    assert_eq!(disk["status"]["phase"], "Running", "{disk:#}");
    cluster.shutdown().await;
}
