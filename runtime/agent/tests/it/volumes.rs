//! Volumes as guests see them.

use podium_agent::LogOptions;
use podium_api::{ObjectKey, kinds};
use podium_client::{Api as _, Patch};
use serde_json::{Value, json};

use crate::cluster::Cluster;

/// A container that does one file operation after the other and logs what each found.
fn files(name: &str, operations: &str, mounts: Value) -> Value {
    let args: Vec<&str> = operations.split(' ').collect();
    json!({ "name": name, "image": "file://files-p2.wasm", "args": args, "volumeMounts": mounts })
}

fn named(kind: &str, name: &str, mut rest: Value) -> Value {
    rest["apiVersion"] = "v1".into();
    rest["kind"] = kind.into();
    rest["metadata"] = json!({ "namespace": "default", "name": name });
    rest
}

async fn cluster() -> Cluster {
    let cluster = Cluster::start().await;
    cluster.guest("files-p2.wasm");
    cluster.create("ConfigMap", named("ConfigMap", "cfg", json!({ "data": { "a": "one", "b": "two" } }))).await;
    cluster.create("Secret", named("Secret", "sec", json!({ "data": { "key": "c2VjcmV0" } }))).await;
    cluster.create("ServiceAccount", named("ServiceAccount", "default", json!({}))).await;
    cluster
}

/// What a pod logs that runs to its end.
async fn log_of(cluster: &Cluster, name: &str) -> String {
    cluster.until_pod(name, |pod| pod["status"]["phase"] == "Succeeded").await;
    cluster.logs(name, LogOptions::default()).await.unwrap()
}

fn mount(name: &str, path: &str) -> Value {
    json!({ "name": name, "mountPath": path })
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_of_the_api_are_files() {
    let cluster = cluster().await;
    let operations = "list /cfg -- read /cfg/a -- read /sec/key -- read /one/file -- read /all/labels/name -- read /all/cfg/b \
        -- read /all/token -- write /cfg/a x -- write /cfg/c x -- read /host";
    let file = json!({ "name": "cfg", "mountPath": "/one/file", "subPath": "b" });
    let mounts = json!([mount("cfg", "/cfg"), mount("sec", "/sec"), mount("all", "/all"), file]);
    let name = json!({ "path": "labels/name", "fieldRef": { "fieldPath": "metadata.name" } });
    cluster
        .pod(
            "p",
            json!({ "restartPolicy": "Never", "containers": [files("c", operations, mounts)], "volumes": [
                { "name": "cfg", "configMap": { "name": "cfg" } },
                { "name": "sec", "secret": { "secretName": "sec" } },
                { "name": "all", "projected": { "sources": [
                    { "configMap": { "name": "cfg", "items": [{ "key": "b", "path": "cfg/b" }] } },
                    { "downwardAPI": { "items": [name] } },
                    { "serviceAccountToken": { "path": "token", "audience": "vault" } },
                ] } },
            ] }),
        )
        .await;
    let log = log_of(&cluster, "p").await;
    let lines: Vec<&str> = log.lines().collect();
    assert!(lines[0].ends_with(" ..data a b"), "{log}");
    assert_eq!(lines[1..6], ["one", "secret", "two", "p", "two"], "{log}");
    assert!(lines[6].starts_with("default/default vault "), "{log}");
    for refused in &lines[7..9] {
        assert!(["PermissionDenied", "ReadOnlyFilesystem"].contains(refused), "{log}");
    }
    assert_eq!(lines[9], "NotFound", "{log}");
    let pods = || std::fs::read_dir(cluster.dir().join("data/pods")).into_iter().flatten().count();
    assert_eq!(pods(), 1);
    cluster.delete("p").await;
    cluster.until("Pod", "default", "p", |pod| pod.is_none()).await;
    for _ in 0..500 {
        if pods() == 0 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(pods(), 0, "its folders are gone with it");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_share_a_folder_that_outlives_them() {
    let cluster = cluster().await;
    let mounts = json!([mount("work", "/work"), { "name": "work", "mountPath": "/part", "subPathExpr": "$(PART)" }]);
    let mut first =
        files("first", "write /work/a 1 -- mkdir /work/sub -- write /work/sub/b 2", json!([mount("work", "/work")]));
    first["resources"] = json!({ "limits": { "memory": "64Mi" } });
    let mut second = files("second", "read /work/a -- read /part/b -- write /part/c 3 -- list /work/sub", mounts);
    second["env"] = json!([{ "name": "PART", "value": "sub" }]);
    cluster
        .pod(
            "p",
            json!({ "restartPolicy": "Never", "initContainers": [first], "containers": [second],
                "volumes": [{ "name": "work", "emptyDir": {} }] }),
        )
        .await;
    assert_eq!(log_of(&cluster, "p").await, "1\n2\nok\nb c\n");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_waits_for_what_its_volumes_show() {
    let cluster = cluster().await;
    let container = files("c", "read /late/key", json!([mount("late", "/late")]));
    let volume = json!({ "name": "late", "configMap": { "name": "late" } });
    cluster.pod("p", json!({ "restartPolicy": "Never", "containers": [container], "volumes": [volume] })).await;
    let waiting = |pod: &Value| pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"].is_string();
    let pod = cluster.until_pod("p", waiting).await;
    let state = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
    assert_eq!(state["reason"], "ContainerCreating");
    assert_eq!(state["message"], "MountVolume.SetUp failed for volume \"late\" : configmap \"late\" not found");
    cluster.create("ConfigMap", named("ConfigMap", "late", json!({ "data": { "key": "here" } }))).await;
    assert_eq!(log_of(&cluster, "p").await, "here\n");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mounted_maps_follow_their_objects() {
    let cluster = cluster().await;
    // Looks until it sees the change.
    let look = "read /cfg/a -- sleep 100 -- ".repeat(100);
    let container = files("c", &format!("{look}exit 0"), json!([mount("cfg", "/cfg")]));
    let volume = json!({ "name": "cfg", "configMap": { "name": "cfg" } });
    cluster.pod("p", json!({ "restartPolicy": "Never", "containers": [container], "volumes": [volume] })).await;
    let started = |pod: &Value| pod["status"]["containerStatuses"][0]["state"]["running"].is_object();
    cluster.until_pod("p", started).await;
    let follow = LogOptions { follow: true, ..LogOptions::default() };
    let seen = async {
        loop {
            let log = cluster.logs("p", LogOptions::default()).await.unwrap();
            if log.contains("changed") {
                return log;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let kind = kinds::all().into_iter().find(|k| k.names().kind == "ConfigMap").unwrap();
    let patch = Patch::Merge(json!({ "data": { "a": "changed" } }));
    while !cluster.logs("p", LogOptions::default()).await.unwrap().contains("one") {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    cluster.api.patch(&kind, &ObjectKey::new("default", "cfg"), patch, None).await.unwrap();
    let log = tokio::time::timeout(crate::PATIENCE, seen).await.unwrap();
    let words: Vec<&str> = log.lines().filter(|line| *line != "slept").collect();
    assert!(words.iter().all(|word| ["one", "changed"].contains(word)), "never a mix: {log}");
    cluster.delete("p").await;
    assert!(cluster.logs("p", follow).await.is_ok());
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_granted_folders_of_the_host() {
    let cluster = cluster().await;
    let host = cluster.dir().join("host").canonicalize().unwrap();
    std::fs::write(host.join("f"), "granted").unwrap();
    let pod = |path: &std::path::Path| {
        json!({ "restartPolicy": "Never", "containers": [files("c", "read /host/f", json!([mount("h", "/host")]))],
            "volumes": [{ "name": "h", "hostPath": { "path": path } }] })
    };
    cluster.pod("good", pod(&host)).await;
    assert_eq!(log_of(&cluster, "good").await, "granted\n");
    cluster.pod("bad", pod(std::path::Path::new("/etc"))).await;
    let bad = cluster
        .until_pod("bad", |pod| pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"].is_string())
        .await;
    let message = bad["status"]["containerStatuses"][0]["state"]["waiting"]["message"].as_str().unwrap();
    assert!(message.contains("hostPath /etc is not below a folder that this node grants"), "{message}");
    cluster.shutdown().await;
}

/// A container that calls interfaces, one operation after the other.
fn calls(name: &str, operations: &str, mounts: Value) -> Value {
    let args: Vec<&str> = operations.split(' ').collect();
    json!({ "name": name, "image": "file://interfaces-p2.wasm", "args": args, "volumeMounts": mounts })
}

#[tokio::test(flavor = "multi_thread")]
async fn stores_are_volumes_and_configuration_is_the_environment() {
    let cluster = cluster().await;
    cluster.guest("interfaces-p2.wasm");
    let host = cluster.dir().join("host").canonicalize().unwrap();
    let mounts = json!([mount("cache", "/cache"), mount("kept", "/kept")]);
    let volumes = json!([{ "name": "cache", "emptyDir": { "sizeLimit": "1Ti" } },
        { "name": "kept", "hostPath": { "path": host } }]);
    let first = calls("first", "set cache a 1 -- set kept b 2 -- get other a", mounts.clone());
    let mut second = calls("second", "get cache a -- get kept b -- config COLOR -- config a", mounts.clone());
    second["env"] = json!([{ "name": "COLOR", "value": "blue" }]);
    second["envFrom"] = json!([{ "configMapRef": { "name": "cfg" } }]);
    let spec =
        json!({ "restartPolicy": "Never", "initContainers": [first], "containers": [second], "volumes": volumes });
    cluster.pod("p", spec).await;
    assert_eq!(log_of(&cluster, "p").await, "1\n2\nSome(\"blue\")\nSome(\"one\")\n");
    let of_first = LogOptions { container: Some("first".into()), ..LogOptions::default() };
    assert_eq!(cluster.logs("p", of_first).await.unwrap(), "ok\nok\nno such store\n");
    // Another pod finds what was kept, and no more memory than it may have.
    let large = (0..20).map(|n| format!("large cache k{n} 1000000")).collect::<Vec<_>>().join(" -- ");
    let mut third = calls("third", &format!("get cache a -- get kept b -- {large}"), mounts);
    third["resources"] = json!({ "limits": { "memory": "16Mi" } });
    cluster.pod("q", json!({ "restartPolicy": "Never", "containers": [third], "volumes": volumes })).await;
    let log = log_of(&cluster, "q").await;
    assert!(log.starts_with("none\n2\nok\nok\n"), "{log}");
    assert!(log.ends_with("bytes\n") && log.contains("the store is full: there is no memory left for its 1"), "{log}");
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_outgrows_its_limit_costs_the_pod_its_place() {
    let cluster = Cluster::start().await;
    cluster.image("writes.wasm", crate::memory::WRITES);
    let container = json!({ "name": "app", "image": "file://writes.wasm", "volumeMounts": [mount("v", "/v")] });
    for (name, limit) in [("greedy", "1Mi"), ("modest", "1Gi")] {
        let volumes = json!([{ "name": "v", "emptyDir": { "sizeLimit": limit } }]);
        let spec = json!({ "restartPolicy": "Never", "terminationGracePeriodSeconds": 1, "containers": [container], "volumes": volumes });
        cluster.pod(name, spec).await;
    }
    let pod = cluster.until_pod("greedy", |pod| pod["status"]["phase"] == "Failed").await;
    let words = "Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". ";
    assert_eq!((&pod["status"]["reason"], &pod["status"]["message"]), (&json!("Evicted"), &json!(words)));
    assert_eq!(cluster.json("Pod", "default", "modest").await.unwrap()["status"]["phase"], "Running");
    cluster.shutdown().await;
}
