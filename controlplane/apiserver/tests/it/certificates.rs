//! Requests for certificates of Kubernetes' own signers: approved or not, signed or refused.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::Method;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use serde_json::{Value, json};
use x509_parser::{parse_x509_certificate, pem::parse_x509_pem};

use crate::{harness::Cluster, raw::eventually};

pub(crate) const PATH: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

/// A request of this subject for names, in base64.
fn pem(common_name: &str, organization: &str, names: &[&str]) -> String {
    pem_of(&KeyPair::generate().unwrap(), common_name, organization, names)
}

/// The same for a key.
pub(crate) fn pem_of(key: &KeyPair, common_name: &str, organization: &str, names: &[&str]) -> String {
    let mut params = CertificateParams::new(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.distinguished_name.push(DnType::OrganizationName, organization);
    let request = params.serialize_request(key).unwrap();
    STANDARD.encode(request.pem().unwrap())
}

pub(crate) fn request(name: &str, pem: &str, signer: &str, usages: &[&str]) -> Value {
    json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": name},
        "spec": {
            "request": pem, "usages": usages, "signerName": format!("kubernetes.io/{signer}"), "expirationSeconds": 3600,
        },
    })
}

async fn approve(cluster: &Cluster, mut request: Value) {
    let name = request["metadata"]["name"].as_str().unwrap().to_owned();
    request["status"] = json!({"conditions": [{"type": "Approved", "status": "True", "reason": "ByHand"}]});
    cluster.put(&format!("{PATH}/{name}/approval"), request).await.ok(200);
}

pub(crate) async fn status_with(cluster: &Cluster, name: &str, wanted: &str) -> Value {
    let path = format!("{PATH}/{name}");
    eventually(wanted, || async {
        let status = cluster.get(&path).await.json()["status"].clone();
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        status.get(wanted).is_some() || conditions.iter().any(|c| c["type"] == wanted)
    })
    .await;
    cluster.get(&path).await.ok(200)["status"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approved_request_is_signed_for_as_long_as_asked() {
    let cluster = Cluster::start().await;
    let asked = pem("jane", "devs", &[]);
    let usages = ["client auth", "digital signature"];
    let created = cluster.post(PATH, request("jane", &asked, "kube-apiserver-client", &usages)).await.ok(201);
    approve(&cluster, created).await;
    let status = status_with(&cluster, "jane", "certificate").await;
    let signed = STANDARD.decode(status["certificate"].as_str().unwrap()).unwrap();
    let (_, pem) = parse_x509_pem(&signed).unwrap();
    let (_, certificate) = parse_x509_certificate(&pem.contents).unwrap();
    assert!(certificate.subject().to_string().contains("CN=jane"), "{}", certificate.subject());
    let validity = certificate.validity();
    assert_eq!(validity.not_after.timestamp() - validity.not_before.timestamp(), 3600 + 300);
    let extended = certificate.extended_key_usage().unwrap().unwrap().value;
    assert!(extended.client_auth && !extended.server_auth);
    let config = std::fs::read_to_string(cluster.kubeconfig()).unwrap();
    let ca = config.lines().find_map(|l| l.trim().strip_prefix("certificate-authority-data: ")).unwrap();
    let ca = STANDARD.decode(ca).unwrap();
    let (_, ca) = parse_x509_pem(&ca).unwrap();
    let (_, ca) = parse_x509_certificate(&ca.contents).unwrap();
    certificate.verify_signature(Some(ca.public_key())).unwrap();
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_signer_does_not_sign_has_failed() {
    let cluster = Cluster::start().await;
    for (name, asked, signer, usages, why) in [
        (
            "a",
            pem("jane", "devs", &[]),
            "kube-apiserver-client",
            vec!["server auth"],
            "invalid usage for client certificate: server auth",
        ),
        (
            "b",
            pem("system:node:n", "devs", &[]),
            "kube-apiserver-client-kubelet",
            vec!["client auth", "digital signature"],
            "subject organization is not system:nodes",
        ),
        (
            "c",
            pem("system:node:n", "system:nodes", &[]),
            "kubelet-serving",
            vec!["server auth", "digital signature"],
            "DNS or IP subjectAltName is required",
        ),
        (
            "d",
            pem("system:node:n", "system:nodes", &["n.example"]),
            "kubelet-serving",
            vec!["server auth"],
            "usages did not match [digital signature key encipherment server auth]",
        ),
    ] {
        let created = cluster.post(PATH, request(name, &asked, signer, &usages)).await.ok(201);
        approve(&cluster, created).await;
        let status = status_with(&cluster, name, "Failed").await;
        let failed = &status["conditions"][1];
        assert_eq!((&failed["reason"], &failed["message"]), (&json!("SignerValidationFailure"), &json!(why)), "{name}");
        assert!(status.get("certificate").is_none());
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_gets_its_own_certificate_unasked() {
    let cluster = Cluster::start().await;
    let granted = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "nodes-renew"},
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
            "name": "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
        },
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:nodes"}],
    });
    cluster.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", granted).await.ok(201);
    let asks = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "asks"},
        "rules": [{"apiGroups": ["certificates.k8s.io"], "resources": ["certificatesigningrequests"], "verbs": ["create"]}],
    });
    cluster.post("/apis/rbac.authorization.k8s.io/v1/clusterroles", asks).await.ok(201);
    let may_ask = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "nodes-ask"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "asks"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:nodes"}],
    });
    cluster.post("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", may_ask).await.ok(201);
    let usages = ["client auth", "digital signature"];
    let node = [
        ("content-type", "application/json"),
        ("impersonate-user", "system:node:n"),
        ("impersonate-group", "system:nodes"),
        ("impersonate-group", "system:authenticated"),
    ];
    for (name, of) in [("own", "system:node:n"), ("other", "system:node:m")] {
        let asked = pem(of, "system:nodes", &[]);
        let body = request(name, &asked, "kube-apiserver-client-kubelet", &usages).to_string();
        cluster.send(Method::POST, PATH, &node, body.into()).await.ok(201);
    }
    let status = status_with(&cluster, "own", "certificate").await;
    assert_eq!(status["conditions"][0]["reason"], "AutoApproved");
    // They come in order: the other one has been looked at too once a later one is signed.
    let asked = pem("system:node:n", "system:nodes", &[]);
    let body = request("again", &asked, "kube-apiserver-client-kubelet", &usages).to_string();
    cluster.send(Method::POST, PATH, &node, body.into()).await.ok(201);
    status_with(&cluster, "again", "certificate").await;
    let other = cluster.get(&format!("{PATH}/other")).await.ok(200);
    assert!(other["status"]["conditions"].is_null(), "{other}");
    cluster.stop().await;
}
