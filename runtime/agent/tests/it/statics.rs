//! Pods from files.

use serde_json::{Value, json};

use crate::cluster::{Cluster, hello};

fn annotation<'a>(pod: &'a Value, name: &str) -> Option<&'a str> {
    pod["metadata"]["annotations"][name].as_str()
}

fn put(cluster: &Cluster, greeting: &str) {
    let mut container = hello();
    container["env"].as_array_mut().unwrap().push(json!({ "name": "GREETING", "value": greeting }));
    let spec = json!({ "terminationGracePeriodSeconds": 1, "containers": [container] });
    let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "web" }, "spec": spec });
    let dir = cluster.dir().join("static");
    // As a whole: half a file is no pod.
    std::fs::write(dir.join(".web"), serde_json::to_vec(&pod).unwrap()).unwrap();
    std::fs::rename(dir.join(".web"), dir.join("web.yaml")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_pods_and_have_mirrors() {
    let mut cluster = Cluster::start().await;
    std::fs::write(cluster.dir().join("static/broken.yaml"), "kind: [").unwrap();
    put(&cluster, "Hi");
    let mirror = cluster.until_ready("web-n1").await;
    let hash = annotation(&mirror, "kubernetes.io/config.hash").unwrap().to_owned();
    assert_eq!(annotation(&mirror, "kubernetes.io/config.mirror"), Some(hash.as_str()));
    assert_eq!(annotation(&mirror, "kubernetes.io/config.source"), Some("file"));
    let owner = &mirror["metadata"]["ownerReferences"][0];
    assert_eq!((&owner["kind"], &owner["name"]), (&json!("Node"), &json!("n1")));
    let ip = mirror["status"]["podIP"].as_str().unwrap().to_owned();
    assert_eq!(cluster.get(&ip).await, "Hi from web-n1, request 1\n");
    assert!(cluster.logs("web-n1", Default::default()).await.unwrap().contains("request 1"));

    // Removing the mirror does nothing to the pod: there is a new one at once.
    let uid = mirror["metadata"]["uid"].clone();
    cluster.delete("web-n1").await;
    let again = |pod: &Value| pod["metadata"]["uid"] != uid && pod["status"]["phase"] == "Running";
    let mirror = cluster.until_pod("web-n1", again).await;
    assert_eq!(mirror["status"]["podIP"], json!(ip));
    assert_eq!(mirror["status"]["containerStatuses"][0]["restartCount"], 0);

    // Another agent takes it over.
    cluster.stop_agent().await;
    cluster.start_agent().await;
    let pod = cluster.until_pod("web-n1", |pod| pod["status"]["containerStatuses"][0]["restartCount"] == 1).await;
    assert_eq!(pod["status"]["podIP"], json!(ip));

    // A changed file is another pod.
    put(&cluster, "Hello");
    let changed = |pod: &Value| annotation(pod, "kubernetes.io/config.hash") != Some(&hash);
    cluster.until_pod("web-n1", changed).await;
    let mirror = cluster.until_ready("web-n1").await;
    assert_eq!(cluster.get(mirror["status"]["podIP"].as_str().unwrap()).await, "Hello from web-n1, request 1\n");

    std::fs::remove_file(cluster.dir().join("static/web.yaml")).unwrap();
    cluster.until("Pod", "default", "web-n1", |pod| pod.is_none()).await;
    cluster.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_of_nothing_goes() {
    let cluster = Cluster::start().await;
    let metadata = json!({ "name": "ghost", "namespace": "default",
        "annotations": { "kubernetes.io/config.mirror": "x", "kubernetes.io/config.source": "file" } });
    let spec = json!({ "nodeName": "n1", "containers": [hello()] });
    cluster.create("Pod", json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec })).await;
    cluster.until("Pod", "default", "ghost", |pod| pod.is_none()).await;
    cluster.shutdown().await;
}
