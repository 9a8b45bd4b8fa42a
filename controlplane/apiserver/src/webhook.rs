//! Calls webhooks: one JSON document there, one back, over HTTPS, within a time and a size.
//!
//! A service is reached at one of its ready endpoints, under the name that its certificate must have
//! (`NAME.NAMESPACE.svc`). The certificate must come from the bundle that the configuration names. Knows nothing of what
//! the documents say, does not retry and keeps no connection: how often and what to do on failure is for callers.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apiserver/pkg/util/webhook/client.go`.

use std::{sync::Arc, time::Duration};

use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use podium_api::Kind as _;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::registry::{Registry, cache::Filter};

/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes of an answer that says what went wrong, as errors show them.
const SHOWN_MAX: usize = 512;

/// Where a webhook is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// Anywhere.
    Url(String),
    /// In the cluster.
    Service {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The path of the request, with its slash, or empty.
        path: String,
        /// The port of the service.
        port: i32,
    },
}

impl Target {
    /// `https://...`, as errors show it.
    pub(crate) fn url(&self) -> String {
        match self {
            Self::Url(url) => url.clone(),
            Self::Service { namespace, name, path, port } => format!("https://{name}.{namespace}.svc:{port}{path}"),
        }
    }
}

/// Why there is no answer: `Post "https://...": ...`.
#[derive(Debug, thiserror::Error)]
#[error("Post {url:?}: {why}")]
pub(crate) struct WebhookError {
    url: String,
    why: String,
    /// The code of an answer that was not 200.
    pub(crate) code: Option<u16>,
}

/// Posts a document; answers with that of the webhook.
///
/// `ca_bundle`: PEM; the certificates from which that of the webhook must come.
///
/// # Errors
/// When there is no answer in time, or it is not JSON, or not 200.
pub(crate) async fn call(
    registry: &Registry,
    target: &Target,
    ca_bundle: &[u8],
    body: &Value,
    timeout: Duration,
) -> Result<Value, WebhookError> {
    let separator = if target.url().contains('?') { '&' } else { '?' };
    let url = format!("{}{separator}timeout={}s", target.url(), timeout.as_secs());
    let answer = tokio::time::timeout(timeout, exchange(registry, target, ca_bundle, body, &url)).await;
    let (why, code) = match answer {
        Ok(Ok(answer)) => return Ok(answer),
        Ok(Err(why)) => (why, None),
        Err(_) => ("context deadline exceeded".to_owned(), None),
    };
    Err(WebhookError { url, why, code })
}

async fn exchange(
    registry: &Registry,
    target: &Target,
    ca_bundle: &[u8],
    body: &Value,
    url: &str,
) -> Result<Value, String> {
    let uri: Uri = url.parse().map_err(|error| format!("parse: {error}"))?;
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = uri.port_u16().unwrap_or(443);
    let stream = match target {
        Target::Url(_) => dial(&format!("{host}:{port}"), (host.as_str(), port)).await?,
        Target::Service { namespace, name, port, .. } => {
            let (host, port) = endpoint(registry, namespace, name, *port)?;
            dial(&format!("{host}:{port}"), (host.as_str(), port)).await?
        }
    };
    let tls = TlsConnector::from(Arc::new(client(ca_bundle)?));
    let name = ServerName::try_from(host.clone()).map_err(|error| format!("tls: {error}"))?;
    let stream = tls.connect(name, stream).await.map_err(|error| format!("tls: {error}"))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    // Ends with the sender, at the latest when the caller's time is over.
    let connection = tokio::spawn(connection);
    let path = uri.path_and_query().map_or("/", |p| p.as_str());
    let request = Request::post(path)
        .header(header::HOST, format!("{host}:{port}"))
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "application/json, */*")
        .header(header::USER_AGENT, "kube-apiserver-admission")
        .body(Full::new(bytes::Bytes::from(body.to_string())))
        .map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let status = response.status();
    let answer = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    connection.abort();
    let answer = answer.map_err(|error| error.to_string())?.to_bytes();
    if status != StatusCode::OK {
        let shown: String = String::from_utf8_lossy(&answer).chars().take(SHOWN_MAX).collect();
        return Err(format!("unexpected response code {status}: {}", shown.trim()));
    }
    serde_json::from_slice(&answer).map_err(|error| format!("the answer is no JSON: {error}"))
}

async fn dial(shown: &str, address: impl tokio::net::ToSocketAddrs) -> Result<TcpStream, String> {
    TcpStream::connect(address).await.map_err(|error| format!("dial tcp {shown}: {error}"))
}

/// Trusts what the bundle has.
fn client(ca_bundle: &[u8]) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_bundle) {
        let certificate = certificate.map_err(|error| format!("caBundle: {error}"))?;
        roots.add(certificate).map_err(|error| format!("caBundle: {error}"))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| format!("tls: {error}"))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// Where a service is reached: the address of a ready endpoint and its port, or the name outside that it stands for.
///
/// # Errors
/// Why it cannot be reached, in Kubernetes' words.
pub(crate) fn endpoint(registry: &Registry, namespace: &str, name: &str, port: i32) -> Result<(String, u16), String> {
    let services = registry.of(&Service::NAMES).map_err(|error| error.to_string())?;
    let found = services.cache.get(namespace, name);
    let service = found.as_ref().and_then(|e| e.object.downcast_ref::<Service>());
    let service = service.ok_or_else(|| format!("service {name:?} not found"))?;
    if let Some(spec) = service.spec.as_ref().filter(|s| s.type_.as_deref() == Some("ExternalName")) {
        let number = u16::try_from(port).map_err(|_| format!("no service port {port} found for service {name:?}"))?;
        return Ok((spec.external_name.clone().unwrap_or_default(), number));
    }
    let ports = service.spec.iter().flat_map(|s| s.ports.iter().flatten());
    let wanted = ports.into_iter().find(|p| p.port == port);
    let wanted = wanted.ok_or_else(|| format!("no service port {port} found for service {name:?}"))?;
    let slices = registry.of(&EndpointSlice::NAMES).map_err(|error| error.to_string())?;
    let filter = Filter { namespace: namespace.to_owned(), ..Filter::default() };
    for entry in slices.cache.list(&filter).entries {
        let Some(slice) = entry.object.downcast_ref::<EndpointSlice>() else { continue };
        let of = slice.metadata.labels.iter().flatten().find(|(k, _)| *k == "kubernetes.io/service-name");
        if of.is_none_or(|(_, of)| of != name) {
            continue;
        }
        let port_name = wanted.name.as_deref().unwrap_or_default();
        let ports = slice.ports.iter().flatten();
        let number =
            ports.into_iter().find(|p| p.name.as_deref().unwrap_or_default() == port_name).and_then(|p| p.port);
        let ready = |e: &&k8s_openapi::api::discovery::v1::Endpoint| {
            e.conditions.as_ref().is_none_or(|c| c.ready != Some(false))
        };
        let address = slice.endpoints.iter().flatten().filter(ready).find_map(|e| e.addresses.first().cloned());
        if let (Some(address), Some(number)) = (address, number.and_then(|n| u16::try_from(n).ok())) {
            return Ok((address, number));
        }
    }
    Err(format!("no endpoints available for service {name:?}"))
}
