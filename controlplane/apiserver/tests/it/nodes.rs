//! How machines become nodes, and what nodes may do.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::Method;
use podium_api::{KindRef, ObjectKey, Reason, k8s_openapi::api::core::v1::Node, kind_of, kinds};
use podium_client::{
    Api as _, RemoteApi,
    remote::{Access, Shown, ca_hashes, discover_ca},
};
use rcgen::KeyPair;
use serde_json::{Value, json};

use crate::{
    certificates::{PATH, pem_of, request, status_with},
    harness::Cluster,
    rbac::As,
};

const CLIENT: (&str, [&str; 2]) = ("kube-apiserver-client-kubelet", ["client auth", "digital signature"]);
const SERVING: (&str, [&str; 2]) = ("kubelet-serving", ["digital signature", "server auth"]);
const NODES: &[&str] = &["system:nodes", "system:authenticated"];

async fn secret(cluster: &Cluster, name: &str, kind: &str, data: Value) {
    let secret =
        json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "type": kind, "stringData": data });
    cluster.post("/api/v1/namespaces/kube-system/secrets", secret).await.ok(201);
}

fn decode(object: Value) -> Box<dyn podium_api::Object> {
    let kind: KindRef = kinds::all().into_iter().find(|k| k.names().kind == object["kind"]).unwrap();
    kind.decode_value(object).unwrap().object
}

fn node(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name } })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bootstrap_token_is_worth_a_nodes_certificates_and_nothing_else() {
    let cluster = Cluster::start().await;
    let token =
        json!({ "token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true" });
    secret(&cluster, "bootstrap-token-abcdef", "bootstrap.kubernetes.io/token", token).await;
    let server = cluster.server.url();
    let wrong = format!("sha256:{}", "0".repeat(64));
    let refused = discover_ca(&server, &[wrong]).await.unwrap_err();
    let hashes = ca_hashes(cluster.server.ca_pem()).unwrap();
    assert!(refused.message.contains(&hashes[0]), "{refused}");
    let ca_pem = discover_ca(&server, &hashes).await.unwrap();
    assert_eq!(ca_pem, cluster.server.ca_pem());

    let access = |shown| Access { server: server.clone(), ca_pem: ca_pem.clone(), shown };
    let wrong = RemoteApi::connect(&access(Shown::Token("abcdef.0123456789abcdeX".to_owned()))).unwrap();
    let get = async |api: &RemoteApi, name: &str| api.get(&kind_of::<Node>(), &ObjectKey::cluster(name)).await;
    assert_eq!(get(&wrong, "n").await.unwrap_err().reason, Reason::Unauthorized);
    let joining = RemoteApi::connect(&access(Shown::Token("abcdef.0123456789abcdef".to_owned()))).unwrap();
    assert_eq!(get(&joining, "n").await.unwrap_err().reason, Reason::Forbidden);
    let key = KeyPair::generate().unwrap();
    let asked = pem_of(&key, "system:node:n", "system:nodes", &[]);
    joining.create(decode(request("client", &asked, CLIENT.0, &CLIENT.1))).await.unwrap();
    let status = status_with(&cluster, "client", "certificate").await;
    let certificate = STANDARD.decode(status["certificate"].as_str().unwrap()).unwrap();
    let certificate = String::from_utf8(certificate).unwrap();

    let own = access(Shown::Certificate { certificate, key: key.serialize_pem() });
    joining.reconnect(&own).unwrap();
    joining.create(decode(node("n"))).await.unwrap();
    let refused = joining.create(decode(node("m"))).await.unwrap_err();
    assert!(refused.message.contains("node \"n\" is not allowed to modify node \"m\""), "{refused}");
    for (name, names) in [("kubernetes", &["kubernetes"][..]), ("address", &["n", "127.0.0.1"]), ("own", &["n"])] {
        let asked = pem_of(&key, "system:node:n", "system:nodes", names);
        joining.create(decode(request(name, &asked, SERVING.0, &SERVING.1))).await.unwrap();
    }
    // They are looked at in order.
    status_with(&cluster, "own", "certificate").await;
    for name in ["kubernetes", "address"] {
        let other = cluster.get(&format!("{PATH}/{name}")).await.ok(200);
        assert!(other["status"]["conditions"].is_null(), "{other}");
    }
    cluster.stop().await;
}

fn pod(name: &str, node: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name },
        "spec": { "nodeName": node, "containers": [{ "name": "c", "image": "i", "envFrom": [{ "secretRef": { "name": name } }] }] },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_has_its_own_pods_and_what_they_name() {
    let cluster = Cluster::start().await;
    let system = "/api/v1/namespaces/kube-system";
    for name in ["a", "b"] {
        secret(&cluster, name, "Opaque", json!({ "k": "v" })).await;
        cluster.post("/api/v1/nodes", node(name)).await.ok(201);
        let path = format!("{system}/serviceaccounts/default");
        crate::raw::eventually("the default account", || async { cluster.get(&path).await.status == 200 }).await;
        cluster.post(&format!("{system}/pods"), pod(name, name)).await.ok(201);
    }
    let a = As(&cluster, "system:node:a", NODES);
    a.get(&format!("{system}/secrets/a")).await.ok(200);
    a.get(&format!("{system}/secrets?fieldSelector=metadata.name%3Da")).await.ok(200);
    for path in ["secrets/b", "secrets", "secrets?fieldSelector=metadata.name%3Db", "configmaps/other"] {
        let refused = a.get(&format!("{system}/{path}")).await.refused(403);
        assert!(
            refused.contains("no relationship found between node 'a' and this object") || !path.contains('b'),
            "{refused}"
        );
    }
    for path in ["/api/v1/pods", "/api/v1/services", "/apis/discovery.k8s.io/v1/endpointslices"] {
        a.get(path).await.ok(200);
    }
    let token = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {} });
    a.post(&format!("{system}/serviceaccounts/default/token"), token.clone()).await.ok(201);
    let none = As(&cluster, "system:node:c", NODES);
    none.post(&format!("{system}/serviceaccounts/default/token"), token).await.refused(403);

    for (name, code) in [("a", 200), ("b", 403)] {
        let path = format!("{system}/pods/{name}");
        let mut status = cluster.get(&path).await.ok(200);
        status["status"] = json!({ "phase": "Running" });
        assert_eq!(a.put(&format!("{path}/status"), status).await.status, code, "{name}");
        assert_eq!(a.send(Method::DELETE, &path, "application/json", String::new()).await.status, code, "{name}");
        let path = format!("/api/v1/nodes/{name}");
        let mut labelled = cluster.get(&path).await.ok(200);
        labelled["metadata"]["labels"]["own"] = "yes".into();
        assert_eq!(a.put(&path, labelled).await.status, code, "{name}");
    }
    let path = "/api/v1/nodes/a";
    let mut trusted = cluster.get(path).await.ok(200);
    trusted["metadata"]["labels"]["x.node-restriction.kubernetes.io/y"] = "yes".into();
    a.put(path, trusted).await.refused(403);
    let refused = a.post(&format!("{system}/pods"), pod("new", "a")).await.refused(403);
    assert!(refused.contains("can only create mirror pods"), "{refused}");
    cluster.stop().await;
}
