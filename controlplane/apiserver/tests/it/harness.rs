//! A server on a free port and ways to talk to it.

use std::{path::PathBuf, sync::Arc};

use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use podium_apiserver::{ApiServer, ServerConfig};
use podium_store::{MemoryStore, Store};
use serde_json::Value;
use tempfile::TempDir;

/// A running server.
pub(crate) struct Cluster {
    pub(crate) server: ApiServer,
    pub(crate) client: kube::Client,
    dir: TempDir,
}

/// An answer, read to the end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    /// The object, after checking the code.
    #[track_caller]
    pub(crate) fn ok(&self, code: u16) -> Value {
        assert_eq!(self.status.as_u16(), code, "{}", self.text);
        self.json()
    }

    /// The message of a `Status`, after checking the code.
    #[track_caller]
    pub(crate) fn refused(&self, code: u16) -> String {
        let status = self.ok(code);
        assert_eq!((&status["kind"], &status["code"]), (&"Status".into(), &code.into()));
        status["message"].as_str().unwrap().to_owned()
    }
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        Self::on(Arc::new(MemoryStore::new()), tempfile::tempdir().unwrap()).await
    }

    pub(crate) async fn on(store: Arc<dyn Store>, dir: TempDir) -> Self {
        Self::with(store, dir, |_| ()).await
    }

    /// A server that is set up in another way.
    pub(crate) async fn with(store: Arc<dyn Store>, dir: TempDir, change: impl FnOnce(&mut ServerConfig)) -> Self {
        let mut config = ServerConfig::new(dir.path(), "127.0.0.1:0".parse().unwrap());
        change(&mut config);
        let server = ApiServer::start(config, store).await.unwrap();
        let kubeconfig = server.admin_kubeconfig(&server.url());
        let kubeconfig = kube::config::Kubeconfig::from_yaml(&kubeconfig).unwrap();
        let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.unwrap();
        // Refusals are to be seen, not waited out.
        config.default_retry = false;
        let client = kube::Client::try_from(config).unwrap();
        Self { server, client, dir }
    }

    /// Stops the server; the folder stays.
    pub(crate) async fn stop(self) -> TempDir {
        drop(self.client);
        self.server.shutdown().await;
        self.dir
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        let path = self.dir.path().join("kubeconfig");
        self.server.write_kubeconfig(&path, &self.server.url()).unwrap();
        path
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    /// Sends a request with headers `name: value`.
    pub(crate) async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.client.send(request.body(body.into()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Answer { status: parts.status, headers: parts.headers, text }
    }

    /// The first line of a stream of JSON.
    pub(crate) async fn first_line(&self, path: &str) -> Value {
        let request = Request::builder().uri(path).body(Vec::new().into()).unwrap();
        let mut body = self.client.send(request).await.unwrap().into_body();
        let mut text = Vec::new();
        while !text.contains(&b'\n') {
            let frame = body.frame().await.unwrap_or_else(|| panic!("{path} ended without a line")).unwrap();
            text.extend_from_slice(&frame.into_data().unwrap_or_default());
        }
        serde_json::from_slice(text.split(|byte| *byte == b'\n').next().unwrap()).unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], Vec::new()).await
    }

    pub(crate) async fn get_as(&self, path: &str, accept: &str) -> Answer {
        self.send(Method::GET, path, &[("accept", accept)], Vec::new()).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(Method::POST, path, &[("content-type", "application/json")], body.to_string().into()).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Answer {
        self.send(Method::PUT, path, &[("content-type", "application/json")], body.to_string().into()).await
    }

    pub(crate) async fn patch(&self, path: &str, kind: &str, body: Value) -> Answer {
        let media = format!("application/{kind}+json");
        self.send(Method::PATCH, path, &[("content-type", &media)], body.to_string().into()).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, &[], Vec::new()).await
    }
}
