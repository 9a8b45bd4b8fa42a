//! What the plug-ins of Kubernetes make of objects, and what they refuse.

use serde_json::{Value, json};

use crate::harness::Cluster;

const PODS: &str = "/api/v1/namespaces/default/pods";
const ACCOUNTS: &str = "/api/v1/namespaces/default/serviceaccounts";
const MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

fn extended(mut base: Value, more: Value) -> Value {
    base.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    base
}

fn pod(name: &str, spec: Value) -> Value {
    let base = json!({"containers": [{"name": "c", "image": "registry.example/c:1"}]});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": extended(base, spec)})
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_run_as_accounts() {
    let cluster = Cluster::start().await;
    let made = cluster.post(PODS, pod("plain", json!({}))).await.ok(201);
    let spec = &made["spec"];
    assert_eq!((&spec["serviceAccountName"], &spec["serviceAccount"]), (&json!("default"), &json!("default")));
    let name = spec["volumes"][0]["name"].as_str().unwrap();
    assert!(name.starts_with("kube-api-access-") && name.len() == 21, "{name}");
    assert_eq!(spec["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"], 3607);
    let mounts = json!([{"name": name, "readOnly": true, "mountPath": MOUNT}]);
    assert_eq!(spec["containers"][0]["volumeMounts"], mounts);
    let keys: Vec<&Value> = spec["tolerations"].as_array().unwrap().iter().map(|t| &t["key"]).collect();
    assert_eq!(keys, ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"]);
    // What was filled in stays as it is.
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    let changed = cluster.patch(&format!("{PODS}/plain"), "merge-patch", label).await.ok(200);
    assert_eq!(changed["spec"]["volumes"], spec["volumes"]);

    let said = cluster.post(PODS, pod("lost", json!({"serviceAccountName": "nobody"}))).await.refused(403);
    assert_eq!(
        said,
        "pods \"lost\" is forbidden: error looking up service account default/nobody: serviceaccount \"nobody\" not found"
    );
    let robot = json!({
        "metadata": {"name": "robot", "annotations": {"kubernetes.io/enforce-mountable-secrets": "true"}},
        "automountServiceAccountToken": false, "secrets": [{"name": "s"}], "imagePullSecrets": [{"name": "pull"}],
    });
    cluster.post(ACCOUNTS, robot).await.ok(201);
    let as_robot = |more: Value| extended(json!({"serviceAccountName": "robot"}), more);
    let made = cluster.post(PODS, pod("robot", as_robot(json!({})))).await.ok(201);
    assert_eq!(made["spec"]["imagePullSecrets"], json!([{"name": "pull"}]));
    assert_eq!(made["spec"]["volumes"], Value::Null);
    let made =
        cluster.post(PODS, pod("opts-in", as_robot(json!({"automountServiceAccountToken": true})))).await.ok(201);
    assert_eq!(made["spec"]["volumes"].as_array().unwrap().len(), 1);
    let volumes = json!([{"name": "v", "secret": {"secretName": "other"}}]);
    let said = cluster.post(PODS, pod("thief", as_robot(json!({"volumes": volumes})))).await.refused(403);
    assert_eq!(
        said,
        "pods \"thief\" is forbidden: volume with secret.secretName=\"other\" is not allowed because service account robot \
         does not reference that secret"
    );
    let mut mirror = pod("mirror", json!({"serviceAccountName": "robot"}));
    mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
    let said = cluster.post(PODS, mirror).await.refused(403);
    assert_eq!(said, "pods \"mirror\" is forbidden: a mirror pod may not reference service accounts");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_waits_for_the_account_of_a_new_namespace() {
    let cluster = Cluster::start().await;
    for i in 0..20 {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": format!("n{i}")}});
        cluster.post("/api/v1/namespaces", namespace).await.ok(201);
        let made = cluster.post(&format!("/api/v1/namespaces/n{i}/pods"), pod("p", json!({}))).await.ok(201);
        assert_eq!(made["spec"]["serviceAccountName"], "default");
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_begin_tainted_and_lend_pods_their_place() {
    let cluster = Cluster::start().await;
    let labels = json!({"topology.kubernetes.io/zone": "z1", "other": "x"});
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n", "labels": labels}});
    let made = cluster.post("/api/v1/nodes", node).await.ok(201);
    assert_eq!(made["spec"]["taints"], json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]));
    cluster.post(PODS, pod("p", json!({}))).await.ok(201);
    let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}});
    cluster.post(&format!("{PODS}/p/binding"), binding).await.ok(201);
    let bound = cluster.get(&format!("{PODS}/p")).await.ok(200);
    assert_eq!(bound["metadata"]["labels"], json!({"topology.kubernetes.io/zone": "z1"}));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_get_what_their_runtime_class_says() {
    let cluster = Cluster::start().await;
    let said = cluster.post(PODS, pod("p", json!({"runtimeClassName": "fast"}))).await.refused(403);
    assert_eq!(said, "pods \"p\" is forbidden: pod rejected: RuntimeClass \"fast\" not found");
    let class = json!({
        "apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "fast"}, "handler": "fast",
        "overhead": {"podFixed": {"memory": "16Mi"}},
        "scheduling": {"nodeSelector": {"disk": "ssd"}, "tolerations": [{"key": "fast", "operator": "Exists"}]},
    });
    cluster.post("/apis/node.k8s.io/v1/runtimeclasses", class).await.ok(201);
    let made = cluster.post(PODS, pod("p", json!({"runtimeClassName": "fast"}))).await.ok(201);
    assert_eq!(made["spec"]["overhead"], json!({"memory": "16Mi"}));
    assert_eq!(made["spec"]["nodeSelector"], json!({"disk": "ssd"}));
    assert!(made["spec"]["tolerations"].as_array().unwrap().contains(&json!({"key": "fast", "operator": "Exists"})));
    for (name, spec, why) in [
        (
            "a",
            json!({"runtimeClassName": "fast", "nodeSelector": {"disk": "hdd"}}),
            "conflict: runtimeClass.scheduling.nodeSelector[disk] = ssd; pod.spec.nodeSelector[disk] = hdd",
        ),
        (
            "b",
            json!({"runtimeClassName": "fast", "overhead": {"memory": "1Mi"}}),
            "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead",
        ),
        (
            "c",
            json!({"overhead": {"memory": "1Mi"}}),
            "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead",
        ),
    ] {
        let said = cluster.post(PODS, pod(name, spec)).await.refused(403);
        assert_eq!(said, format!("pods \"{name}\" is forbidden: {why}"));
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_grow_only_where_their_class_allows_it() {
    let cluster = Cluster::start().await;
    let claims = "/api/v1/namespaces/default/persistentvolumeclaims";
    for (class, expands) in [("rigid", false), ("elastic", true)] {
        let object = json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": class},
            "provisioner": "example.com/p", "allowVolumeExpansion": expands,
        });
        cluster.post("/apis/storage.k8s.io/v1/storageclasses", object).await.ok(201);
        let claim = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": class},
            "spec": {"storageClassName": class, "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
        });
        let made = cluster.post(claims, claim).await.ok(201);
        assert_eq!(made["metadata"]["finalizers"], json!(["kubernetes.io/pvc-protection"]));
        let bound = json!({"status": {"phase": "Bound"}});
        cluster.patch(&format!("{claims}/{class}/status"), "merge-patch", bound).await.ok(200);
    }
    let more = json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}});
    let said = cluster.patch(&format!("{claims}/rigid"), "merge-patch", more.clone()).await.refused(403);
    assert_eq!(
        said,
        "persistentvolumeclaims \"rigid\" is forbidden: only dynamically provisioned pvc can be resized and the \
         storageclass that provisions the pvc must support resize"
    );
    cluster.patch(&format!("{claims}/elastic"), "merge-patch", more).await.ok(200);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_a_certificate_of_the_administrators() {
    use base64::Engine as _;
    let cluster = Cluster::start().await;
    let request = |groups: &[&str]| {
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        groups.iter().for_each(|g| params.distinguished_name.push(rcgen::DnType::OrganizationName, *g));
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = params.serialize_request(&key).unwrap().pem().unwrap();
        json!({
            "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
            "metadata": {"generateName": "csr-"}, "spec": {
                "request": base64::engine::general_purpose::STANDARD.encode(pem),
                "signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"],
            },
        })
    };
    let path = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let said = cluster.post(path, request(&["system:masters"])).await.refused(403);
    assert!(
        said.ends_with("use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed"),
        "{said}"
    );
    cluster.post(path, request(&["devs"])).await.ok(201);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plugins_are_timed() {
    let cluster = Cluster::start().await;
    cluster.post(PODS, pod("p", json!({}))).await.ok(201);
    let text = cluster.get("/metrics").await.text;
    let line = "apiserver_admission_controller_admission_duration_seconds_count{name=\"ServiceAccount\",operation=\"CREATE\",rejected=\"false\",type=\"admit\"} 1";
    assert!(text.contains(line), "{text}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_say_how_secure_their_pods_are() {
    let cluster = Cluster::start().await;
    let namespace = |name: &str, labels: Value| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}});
    let label = |mode: &str| format!("pod-security.kubernetes.io/{mode}");
    let said =
        cluster.post("/api/v1/namespaces", namespace("odd", json!({label("enforce"): "strict"}))).await.refused(422);
    assert_eq!(
        said,
        "Namespace \"odd\" is invalid: metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"strict\": must \
         be one of privileged, baseline, restricted"
    );
    cluster.post("/api/v1/namespaces", namespace("safe", json!({}))).await.ok(201);
    let pods = "/api/v1/namespaces/safe/pods";
    cluster.post(pods, pod("early", json!({"hostNetwork": true}))).await.ok(201);
    let labels = json!({"metadata": {"labels": {label("enforce"): "baseline", label("warn"): "restricted"}}});
    let changed = cluster.patch("/api/v1/namespaces/safe", "merge-patch", labels).await;
    changed.ok(200);
    let warnings: Vec<&str> = changed.headers.get_all("warning").iter().map(|w| w.to_str().unwrap()).collect();
    assert_eq!(
        warnings,
        [
            "299 - \"existing pods in namespace \\\"safe\\\" violate the new PodSecurity enforce level \\\"baseline:latest\\\"\"",
            "299 - \"early: host namespaces\"",
        ]
    );
    let said = cluster.post(pods, pod("late", json!({"hostNetwork": true}))).await.refused(403);
    assert_eq!(
        said,
        "pods \"late\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)"
    );
    let answer = cluster.post(pods, pod("plain", json!({}))).await;
    answer.ok(201);
    let warning = answer.headers["warning"].to_str().unwrap();
    assert!(
        warning.starts_with(
            "299 - \"would violate PodSecurity \\\"restricted:latest\\\": allowPrivilegeEscalation != false"
        )
    );
    // What makes pods is told of, not refused; a label on a pod that is there is no new pod.
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
            "spec": {"hostNetwork": true, "containers": [{"name": "main", "image": "registry.example/web:1"}]}}},
    });
    let answer = cluster.post("/apis/apps/v1/namespaces/safe/deployments", deployment).await;
    answer.ok(201);
    assert!(answer.headers["warning"].to_str().unwrap().contains("host namespaces (hostNetwork=true)"));
    let mark = json!({"metadata": {"labels": {"a": "b"}}});
    cluster.patch(&format!("{pods}/early"), "merge-patch", mark).await.ok(200);
    cluster.stop().await;
}
