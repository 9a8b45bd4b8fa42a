//! Calls webhooks: one JSON document there, one back, over HTTPS, within a time and a size.
//!
//! A service is reached at one of its ready endpoints, under the name that its certificate must have
//! (`NAME.NAMESPACE.svc`). The certificate must come from the bundle that the configuration names. Knows nothing of what
//! the documents say and does not retry: how often, and what to do on failure, is for callers. Connections are kept by
//! [`crate::outbound`].
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apiserver/pkg/util/webhook/client.go`.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use serde_json::Value;

use crate::{
    outbound::{self, Destination, Place, Trust},
    registry::Registry,
};

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

    fn place(&self) -> Place<'_> {
        match self {
            Self::Url(_) => Place::Host,
            Self::Service { namespace, name, port, .. } => Place::Service { namespace, name, port: *port },
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
    ca_bundle: &Arc<[u8]>,
    body: &Value,
    timeout: Duration,
) -> Result<Value, WebhookError> {
    let separator = if target.url().contains('?') { '&' } else { '?' };
    let url = format!("{}{separator}timeout={}s", target.url(), timeout.as_secs());
    let to = Destination { place: target.place(), trust: Trust::Bundle(ca_bundle.clone()), authenticated: false };
    let answer = tokio::time::timeout(timeout, exchange(registry, to, body, &url)).await;
    let failure = match answer {
        Ok(Ok(answer)) => return Ok(answer),
        Ok(Err(failure)) => failure,
        Err(_) => Failure::from("context deadline exceeded".to_owned()),
    };
    Err(WebhookError { url, why: failure.why, code: failure.code })
}

struct Failure {
    why: String,
    code: Option<u16>,
}

impl From<String> for Failure {
    fn from(why: String) -> Self {
        Self { why, code: None }
    }
}

async fn exchange(registry: &Registry, to: Destination<'_>, body: &Value, url: &str) -> Result<Value, Failure> {
    let body = Full::new(Bytes::from(body.to_string())).map_err(|never| match never {}).boxed_unsync();
    let request = Request::post(url)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "application/json, */*")
        .header(header::USER_AGENT, "kube-apiserver-admission")
        .body(body)
        .map_err(|error| format!("parse: {error}"))?;
    let response = registry.outbound().send(registry, to, request).await?;
    let status = response.status();
    let answer = outbound::read(response.into_body(), ANSWER_BYTES_MAX).await?;
    if status != StatusCode::OK {
        let shown: String = String::from_utf8_lossy(&answer).chars().take(SHOWN_MAX).collect();
        let why = format!("unexpected response code {status}: {}", shown.trim());
        return Err(Failure { why, code: Some(status.as_u16()) });
    }
    serde_json::from_slice(&answer).map_err(|error| format!("the answer is no JSON: {error}").into())
}
