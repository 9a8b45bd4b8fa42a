//! Questions that are answered, tokens of ServiceAccounts, and acting as somebody else.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::Method;
use serde_json::{Value, json};

use crate::{
    harness::{Answer, Cluster},
    raw::eventually,
};

const AUTHENTICATION: &str = "/apis/authentication.k8s.io/v1";
const AUTHORIZATION: &str = "/apis/authorization.k8s.io/v1";

fn review(group: &str, kind: &str, spec: Value) -> Value {
    json!({"apiVersion": format!("{group}.k8s.io/v1"), "kind": kind, "spec": spec})
}

async fn post_as(cluster: &Cluster, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
    let mut all = vec![("content-type", "application/json")];
    all.extend(headers);
    cluster.send(Method::POST, path, &all, body.to_string().into()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn who_and_whether() {
    let cluster = Cluster::start().await;
    let who = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"});
    let path = format!("{AUTHENTICATION}/selfsubjectreviews");
    let answer = cluster.post(&path, who.clone()).await.ok(201);
    assert_eq!(answer["status"]["userInfo"]["username"], "kubernetes-admin");
    let jane = [("impersonate-user", "jane"), ("impersonate-group", "devs"), ("impersonate-extra-scopes", "view")];
    let path = format!("{AUTHORIZATION}/selfsubjectaccessreviews");
    let ask = review(
        "authorization",
        "SelfSubjectAccessReview",
        json!({"resourceAttributes": {"verb": "create", "resource": "pods", "namespace": "default"}}),
    );
    assert_eq!(cluster.post(&path, ask.clone()).await.ok(201)["status"]["allowed"], true);
    // Nobody but administrators may do anything; everybody may ask.
    assert_eq!(post_as(&cluster, &path, &jane, &ask).await.ok(201)["status"]["allowed"], false);
    let pods = "/api/v1/namespaces/default/pods";
    let refused = post_as(&cluster, pods, &jane, &json!({})).await.refused(403);
    assert!(refused.contains("User \"jane\" cannot create"), "{refused}");
    let refused = post_as(&cluster, &path, &[("impersonate-group", "devs")], &ask).await.refused(400);
    assert_eq!(refused, "requested impersonation without impersonating a user");
    let both = json!({"resourceAttributes": {"verb": "get"}, "nonResourceAttributes": {"verb": "get", "path": "/"}});
    let refused = cluster.post(&path, review("authorization", "SelfSubjectAccessReview", both)).await.refused(422);
    assert!(refused.contains("cannot be specified in combination with resourceAttributes"), "{refused}");
    let path = format!("{AUTHORIZATION}/subjectaccessreviews");
    let spec = json!({"user": "jane", "nonResourceAttributes": {"verb": "get", "path": "/metrics"}});
    let answer = cluster.post(&path, review("authorization", "SubjectAccessReview", spec)).await.ok(201);
    assert_eq!(answer["status"]["allowed"], false);
    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let path = format!("{AUTHORIZATION}/selfsubjectaccessreviews");
    assert_eq!(post_as(&cluster, &path, &table, &ask).await.status, 406, "a question has no table");
    assert_eq!(cluster.get(&path).await.status, 405);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_service_accounts() {
    let cluster = Cluster::start().await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let robot = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}});
    cluster.post(accounts, robot).await.ok(201);
    let ask = review("authentication", "TokenRequest", json!({"expirationSeconds": 600}));
    let answer = cluster.post(&format!("{accounts}/robot/token"), ask).await.ok(201);
    let token = answer["status"]["token"].as_str().unwrap().to_owned();
    let path = format!("{AUTHENTICATION}/tokenreviews");
    let check = review("authentication", "TokenReview", json!({"token": token}));
    let status = cluster.post(&path, check.clone()).await.ok(201)["status"].clone();
    assert_eq!(status["authenticated"], true);
    assert_eq!(status["user"]["username"], "system:serviceaccount:default:robot");
    assert_eq!(status["user"]["groups"][1], "system:serviceaccounts:default");
    let refused = cluster
        .send(Method::GET, "/api/v1/pods", &[("authorization", &format!("Bearer {token}"))], Vec::new())
        .await
        .refused(403);
    assert!(refused.contains("User \"system:serviceaccount:default:robot\" cannot list"), "{refused}");
    let short = review("authentication", "TokenRequest", json!({"expirationSeconds": 10}));
    let refused = cluster.post(&format!("{accounts}/robot/token"), short).await.refused(422);
    assert!(refused.contains("may not specify a duration less than 10 minutes"), "{refused}");
    cluster.delete(&format!("{accounts}/robot")).await.ok(200);
    assert_eq!(cluster.post(&path, check).await.ok(201)["status"]["authenticated"], false, "the account is gone");
    let keys = cluster.get("/openid/v1/jwks").await.ok(200);
    assert_eq!(keys["keys"][0]["alg"], "ES256");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_holds_a_token_for_as_long_as_its_account_is_there() {
    let cluster = Cluster::start().await;
    let (accounts, secrets) = ("/api/v1/namespaces/default/serviceaccounts", "/api/v1/namespaces/default/secrets");
    let robot = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}});
    let secret = |name: &str, account: &str| {
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
            "metadata": {"name": name, "annotations": {"kubernetes.io/service-account.name": account}},
        })
    };
    let made = cluster.post(accounts, robot.clone()).await.ok(201);
    cluster.post(secrets, secret("robot", "robot")).await.ok(201);
    let path = format!("{secrets}/robot");
    eventually("the token is there", || async { cluster.get(&path).await.json()["data"]["token"].is_string() }).await;
    let kept = cluster.get(&path).await.ok(200);
    assert_eq!(kept["metadata"]["annotations"]["kubernetes.io/service-account.uid"], made["metadata"]["uid"]);
    let plain = |key: &str| {
        let bytes = STANDARD.decode(kept["data"][key].as_str().unwrap()).unwrap();
        String::from_utf8(bytes).unwrap()
    };
    assert_eq!(plain("namespace"), "default");
    assert!(plain("ca.crt").starts_with("-----BEGIN CERTIFICATE-----"));
    let check = review("authentication", "TokenReview", json!({"token": plain("token")}));
    let reviews = format!("{AUTHENTICATION}/tokenreviews");
    let status = cluster.post(&reviews, check.clone()).await.ok(201)["status"].clone();
    assert_eq!(status["user"]["username"], "system:serviceaccount:default:robot");
    assert_eq!(status["user"]["groups"][1], "system:serviceaccounts:default");
    // What was taken back is no longer good, though it is signed.
    let label = json!({"metadata": {"labels": {"kubernetes.io/legacy-token-invalid-since": "2026-01-01"}}});
    cluster.patch(&path, "merge-patch", label).await.ok(200);
    assert_eq!(cluster.post(&reviews, check.clone()).await.ok(201)["status"]["authenticated"], false);
    cluster.delete(&format!("{accounts}/robot")).await.ok(200);
    eventually("the secret goes with its account", || async { cluster.get(&path).await.status == 404 }).await;
    cluster.post(secrets, secret("stray", "nobody")).await.ok(201);
    let stray = format!("{secrets}/stray");
    eventually("a secret of nobody goes", || async { cluster.get(&stray).await.status == 404 }).await;
    // Another account of the same name does not bring the token back.
    cluster.post(accounts, robot).await.ok(201);
    assert_eq!(cluster.post(&reviews, check).await.ok(201)["status"]["authenticated"], false);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_asked_for_under_ones_own_name_and_approved_apart() {
    let cluster = Cluster::start().await;
    let path = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let pem = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KQUFBQQotLS0tLUVORCBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0K";
    let request = json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": "Me:1"},
        "spec": {"request": pem, "usages": ["client auth"], "signerName": "a.b/c", "username": "somebody-else"},
    });
    let mut created = cluster.post(path, request).await.ok(201);
    assert_eq!(created["spec"]["username"], "kubernetes-admin");
    let own = format!("{path}/Me:1");
    created["status"] = json!({"conditions": [{"type": "Approved", "status": "True"}]});
    let refused = cluster.put(&format!("{own}/status"), created.clone()).await.refused(422);
    assert!(refused.contains("updates may not add a condition of type \"Approved\""), "{refused}");
    let approved = cluster.put(&format!("{own}/approval"), created).await.ok(200);
    assert_eq!(approved["status"]["conditions"][0]["type"], "Approved");
    assert_eq!(approved["spec"]["username"], "kubernetes-admin");
}
