//! Webhooks over real TLS, and how they are configured.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use base64::Engine as _;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use crate::harness::Cluster;

pub(crate) const CONFIGS: &str = "/apis/admissionregistration.k8s.io/v1";
pub(crate) const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// What a webhook does with a request of a review: the body of its answer, `None` to never answer.
pub(crate) type Judge = fn(&Value) -> Option<String>;

/// A webhook that runs.
pub(crate) struct Webhook {
    port: u16,
    bundle: String,
    /// The requests that it was sent.
    pub(crate) seen: Arc<Mutex<Vec<Value>>>,
    connections: Arc<AtomicUsize>,
}

impl Webhook {
    /// One that speaks HTTP/1.1.
    pub(crate) async fn start(judge: Judge) -> Self {
        Self::speaking(judge, &[]).await
    }

    /// `protocols`: what it offers by ALPN.
    pub(crate) async fn speaking(judge: Judge, protocols: &[&str]) -> Self {
        let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let private = rustls_pki_types::PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut tls = tls.with_no_client_auth().with_single_cert(vec![key.cert.der().clone()], private).unwrap();
        tls.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let noted = seen.clone();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = connections.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(stream) = acceptor.accept(stream).await else { continue };
                counted.fetch_add(1, Ordering::SeqCst);
                let noted = noted.clone();
                let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
                    let noted = noted.clone();
                    async move {
                        let body = request.into_body().collect().await.unwrap().to_bytes();
                        let review: Value = serde_json::from_slice(&body).unwrap();
                        noted.lock().unwrap().push(review["request"].clone());
                        let Some(answer) = judge(&review["request"]) else { return std::future::pending().await };
                        let answer = http_body_util::Full::new(bytes::Bytes::from(answer));
                        Ok::<_, std::convert::Infallible>(http::Response::new(answer))
                    }
                });
                let stream = hyper_util::rt::TokioIo::new(stream);
                tokio::spawn(async move {
                    let server = hyper_util::server::conn::auto::Builder::new(hyper_util::rt::TokioExecutor::new());
                    let _ = server.serve_connection(stream, service).await;
                });
            }
        });
        let bundle = base64::engine::general_purpose::STANDARD.encode(key.cert.pem());
        Self { port, bundle, seen, connections }
    }

    /// A webhook of a configuration that is about ConfigMaps, with more fields.
    pub(crate) fn hook(&self, name: &str, more: Value) -> Value {
        let mut hook = json!({
            "name": name, "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"url": format!("https://localhost:{}/judge", self.port), "caBundle": self.bundle},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["CREATE", "DELETE"]}],
            // The server furnishes other namespaces at the same time.
            "objectSelector": {"matchLabels": {"judged": "yes"}},
        });
        hook.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        hook
    }

    /// How many connections were made to it.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn calls(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

pub(crate) async fn configure(cluster: &Cluster, kind: &str, hooks: Value) {
    let config = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": format!("{kind}WebhookConfiguration"),
        "metadata": {"name": "test"}, "webhooks": hooks,
    });
    let path = format!("{CONFIGS}/{}webhookconfigurations", kind.to_lowercase());
    cluster.post(&path, config).await.ok(201);
}

pub(crate) fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"judged": "yes"}}})
}

pub(crate) fn answer(request: &Value, more: Value) -> String {
    let mut response = json!({"uid": request["uid"], "allowed": true});
    response.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}).to_string()
}

pub(crate) fn patched(request: &Value, operations: Value) -> String {
    let patch = base64::engine::general_purpose::STANDARD.encode(operations.to_string());
    answer(request, json!({"patch": patch, "patchType": "JSONPatch"}))
}
