//! The registry over real sockets: the distribution specification's flows as a table, and a client that others wrote.

#![allow(clippy::unwrap_used)]

mod flows;
mod foreign;
mod keeping;

use std::{sync::Arc, time::Duration};

use podium_registry::{Anonymous, Listener, Registry, RegistryConfig};
use reqwest::{Client, Method, Response};
use sha2::{Digest as _, Sha256};

/// A registry in a folder of its own.
struct Served {
    registry: Registry,
    listener: Listener,
    client: Client,
    folder: tempfile::TempDir,
}

impl Served {
    async fn start() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut RegistryConfig)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = RegistryConfig::new(folder.path());
        config.disk_reserve_bytes = 0;
        change(&mut config);
        Self::open(folder, config).await
    }

    async fn open(folder: tempfile::TempDir, config: RegistryConfig) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let registry = Registry::open(config).unwrap();
        let router = registry.router(Arc::new(Anonymous));
        let listener = Listener::start(([127, 0, 0, 1], 0).into(), router).await.unwrap();
        Self { registry, listener, client: Client::builder().no_proxy().build().unwrap(), folder }
    }

    fn host(&self) -> String {
        self.listener.address().to_string()
    }

    async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Response {
        let url = if path.starts_with('/') { format!("http://{}{path}", self.host()) } else { path.to_owned() };
        let mut request = self.client.request(method, url).body(body.into());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap()
    }

    async fn get(&self, path: &str) -> Response {
        self.send(Method::GET, path, &[], "").await
    }

    /// Puts a blob there with one request; its digest.
    async fn blob(&self, repository: &str, bytes: &[u8]) -> String {
        let digest = digest(bytes);
        let path = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
        let answer = self.send(Method::POST, &path, &[], bytes).await;
        assert_eq!(answer.status(), 201);
        digest
    }

    /// Puts a manifest with a config and one layer there; its digest and bytes.
    async fn manifest(&self, repository: &str, reference: &str, layer: &[u8]) -> (String, Vec<u8>) {
        let config = self.blob(repository, b"{}").await;
        let layer_digest = self.blob(repository, layer).await;
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": { "mediaType": "application/vnd.wasm.config.v0+json", "digest": config, "size": 2 },
            "layers": [{ "mediaType": "application/wasm", "digest": layer_digest, "size": layer.len() }],
        });
        let bytes = manifest.to_string().into_bytes();
        let path = format!("/v2/{repository}/manifests/{reference}");
        let answer = self.send(Method::PUT, &path, &[("content-type", MANIFEST)], bytes.clone()).await;
        assert_eq!(answer.status(), 201);
        (digest(&bytes), bytes)
    }
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

fn header(response: &Response, name: &str) -> String {
    response.headers().get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned()
}

/// Status and error code of an answer.
async fn refusal(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let body: serde_json::Value = serde_json::from_slice(&response.bytes().await.unwrap()).unwrap_or_default();
    (status, body["errors"][0]["code"].as_str().unwrap_or_default().to_owned())
}

const MOMENT: Duration = Duration::ZERO;
