//! Groups that another API server serves: availability, discovery, and requests with the caller's name.

use std::{sync::Arc, time::Duration};

use base64::Engine as _;
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::harness::Cluster;

const SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const WARDLE: &str = "v1.wardle.example.com";
const FLUNDERS: &str = "/apis/wardle.example.com/v1/namespaces/default/flunders";

/// An API server that answers with what it was asked.
async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (parts, body) = request.into_parts();
    let text = |name: &str| parts.headers.get(name).map(|v| v.to_str().unwrap().to_owned());
    let document = match parts.uri.path() {
        "/apis/wardle.example.com/v1" => json!({
            "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "wardle.example.com/v1",
            "resources": [{"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder",
                "verbs": ["create", "get", "list"]}],
        }),
        path => {
            let groups: Vec<_> =
                parts.headers.get_all("x-remote-group").iter().map(|v| v.to_str().unwrap().to_owned()).collect();
            let body = body.collect().await?.to_bytes();
            json!({
                "kind": "Flunder", "apiVersion": "wardle.example.com/v1", "method": parts.method.as_str(),
                "path": path, "query": parts.uri.query(), "user": text("x-remote-user"), "groups": groups,
                "credentials": text("authorization"), "body": String::from_utf8_lossy(&body),
            })
        }
    };
    let answer = Response::builder().header("content-type", "application/json");
    Ok(answer.body(Full::new(document.to_string().into())).unwrap())
}

async fn other_server() -> (u16, String) {
    let key = rcgen::generate_simple_self_signed(vec!["api.wardle.svc".to_owned()]).unwrap();
    let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.signing_key.serialize_der()));
    let tls = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![key.cert.der().clone()], private)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let connection = hyper::server::conn::http1::Builder::new();
                let _ = connection.serve_connection(TokioIo::new(stream), service_fn(answer)).await;
            });
        }
    });
    (port, key.cert.pem())
}

/// A Service that stands for a server outside the cluster.
async fn serve(cluster: &Cluster) {
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "wardle"}});
    cluster.post("/api/v1/namespaces", namespace).await.ok(201);
    let spec = json!({"type": "ExternalName", "externalName": "localhost"});
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "api"}, "spec": spec});
    cluster.post("/api/v1/namespaces/wardle/services", service).await.ok(201);
}

async fn condition(cluster: &Cluster, name: &str, wanted: &str) -> Value {
    for _ in 0..1000 {
        let service = cluster.get(&format!("{SERVICES}/{name}")).await.json();
        let conditions = service["status"]["conditions"].as_array().cloned().unwrap_or_default();
        if let Some(found) = conditions.iter().find(|c| c["type"] == "Available" && c["status"] == wanted) {
            return found.clone();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the APIService {name} never became Available={wanted}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_server_serves_a_group() {
    let cluster = Cluster::start().await;
    assert_eq!(condition(&cluster, "v1.apps", "True").await["reason"], "Local");
    let (port, certificate) = other_server().await;
    let bundle = base64::engine::general_purpose::STANDARD.encode(certificate);
    let registration = json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": "v1.wardle.example.com"},
        "spec": {"group": "wardle.example.com", "version": "v1", "groupPriorityMinimum": 1000, "versionPriority": 10,
            "service": {"namespace": "wardle", "name": "api", "port": port}, "caBundle": bundle},
    });
    cluster.post(SERVICES, registration).await.ok(201);
    assert_eq!(condition(&cluster, WARDLE, "False").await["reason"], "ServiceNotFound");
    serve(&cluster).await;
    assert_eq!(condition(&cluster, WARDLE, "True").await["reason"], "Passed");

    let groups = cluster.get("/apis").await.ok(200);
    assert!(groups["groups"].as_array().unwrap().iter().any(|g| g["name"] == "wardle.example.com"));
    let list = cluster.get("/apis/wardle.example.com/v1").await.ok(200);
    assert_eq!(list["resources"][0]["kind"], "Flunder");

    let headers = [("content-type", "application/json"), ("x-remote-user", "forged")];
    let answer =
        cluster.send(Method::POST, &format!("{FLUNDERS}?dryRun=All"), &headers, b"{\"a\":1}".to_vec()).await.ok(200);
    assert_eq!((&answer["method"], &answer["path"]), (&json!("POST"), &json!(FLUNDERS)));
    assert_eq!((&answer["query"], &answer["body"]), (&json!("dryRun=All"), &json!("{\"a\":1}")));
    assert_eq!(answer["user"], "kubernetes-admin");
    assert_eq!(answer["credentials"], Value::Null);
    assert!(answer["groups"].as_array().unwrap().contains(&json!("system:masters")));

    cluster.delete(&format!("{SERVICES}/v1.wardle.example.com")).await.ok(200);
    assert_eq!(cluster.get(FLUNDERS).await.status, 404);
    cluster.stop().await;
}
