//! Proxies requests for groups that another API server serves.
//!
//! Who asks goes along in `X-Remote-*` headers, which the other server believes because of this one's certificate; the
//! client's own credentials do not. Bodies stream both ways. Does not proxy upgrades (WebSocket, SPDY).
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/kube-aggregator/pkg/apiserver/handler_proxy.go`.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::StreamExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::{APIService, APIServiceSpec};
use parking_lot::RwLock;
use podium_api::{ApiError, Kind as _};
use serde_json::Value;

use crate::{
    auth::Identity,
    http::body::Body,
    outbound::{self, BoxError, Destination, Place, ServiceBody, Trust},
    registry::{Registry, cache::Filter},
};

/// How long the other server may take to begin its answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// What is of one connection only, or of this server only.
const DROPPED: [HeaderName; 9] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::AUTHORIZATION,
    header::HOST,
];

/// The proxy to other API servers.
pub(crate) struct Aggregator {
    pub(super) registry: Arc<Registry>,
    /// The resource list of each group version that another server serves, by the name of its APIService.
    pub(super) resources: RwLock<BTreeMap<String, Value>>,
}

impl Aggregator {
    pub(crate) fn new(registry: Arc<Registry>) -> Self {
        Self { registry, resources: RwLock::default() }
    }

    /// The APIService of a group version, when it is another server's.
    pub(crate) fn remote(&self, group: &str, version: &str) -> Option<APIServiceSpec> {
        if group.is_empty() || version.is_empty() {
            return None;
        }
        let resource = self.registry.of(&APIService::NAMES).ok()?;
        let entry = resource.cache.get("", &format!("{version}.{group}"))?;
        let spec = entry.object.downcast_ref::<APIService>()?.spec.as_ref()?;
        spec.service.as_ref().map(|_| spec.clone())
    }

    /// The group versions of other servers that can be reached, with their resource lists.
    pub(crate) fn reachable(&self) -> Vec<(String, String, Value)> {
        let Ok(resource) = self.registry.of(&APIService::NAMES) else { return Vec::new() };
        let known = self.resources.read();
        let entries = resource.cache.list(&Filter::default()).entries;
        let one = |service: &APIService| {
            let spec = service.spec.as_ref().filter(|s| s.service.is_some())?;
            let list = known.get(service.metadata.name.as_deref()?)?;
            Some((spec.group.clone()?, spec.version.clone()?, list.clone()))
        };
        entries.iter().filter_map(|entry| one(entry.object.downcast_ref()?)).collect()
    }

    /// Sends a request on and answers with what comes back.
    ///
    /// # Errors
    /// 503 when the other server cannot be reached or does not answer in time.
    pub(crate) async fn forward(
        &self,
        spec: &APIServiceSpec,
        (method, uri, headers): (&Method, &Uri, &HeaderMap),
        body: Incoming,
        who: &Identity,
    ) -> Result<Response<Body>, ApiError> {
        let mut request = Request::new(body.map_err(BoxError::from).boxed_unsync());
        *request.method_mut() = method.clone();
        *request.uri_mut() = uri.path_and_query().map_or_else(|| Uri::from_static("/"), |p| p.clone().into());
        *request.headers_mut() = outgoing(headers, who);
        let (parts, incoming) = self.send(spec, request).await.map_err(|why| outbound::unavailable(&why))?.into_parts();
        let stream = incoming.into_data_stream().map(|chunk| chunk.map_err(std::io::Error::other));
        let mut answer = Response::new(Body::Stream(stream.boxed()));
        *answer.status_mut() = parts.status;
        for (name, value) in parts.headers.iter().filter(|(name, _)| !DROPPED.contains(name)) {
            answer.headers_mut().append(name, value.clone());
        }
        Ok(answer)
    }

    /// `request`: its URI is a path.
    pub(super) async fn send(
        &self,
        spec: &APIServiceSpec,
        mut request: Request<ServiceBody>,
    ) -> Result<Response<ServiceBody>, String> {
        let service = spec.service.as_ref().ok_or("the APIService names no service")?;
        let text = |t: &Option<String>| t.clone().unwrap_or_default();
        let (namespace, name) = (text(&service.namespace), text(&service.name));
        let port = service.port.unwrap_or(443);
        let trust = match &spec.ca_bundle {
            _ if spec.insecure_skip_tls_verify == Some(true) => Trust::Anybody,
            bundle => Trust::Bundle(bundle.as_ref().map(|b| b.0.as_slice().into()).unwrap_or_default()),
        };
        let path = request.uri().path_and_query().map_or("/", |p| p.as_str());
        let uri = format!("https://{name}.{namespace}.svc:{port}{path}");
        *request.uri_mut() = uri.parse().map_err(|error| format!("parse {uri:?}: {error}"))?;
        let place = Place::Service { namespace: &namespace, name: &name, port };
        let to = Destination { place, trust, authenticated: true };
        let answer = self.registry.outbound().send(&self.registry, to, request);
        tokio::time::timeout(ANSWER_TIMEOUT, answer).await.map_err(|_| "no answer in time".to_owned())?
    }
}

/// What goes along: everything but credentials and what concerns this connection; and who asks.
fn outgoing(headers: &HeaderMap, who: &Identity) -> HeaderMap {
    let kept = |name: &HeaderName| {
        !DROPPED.contains(name) && !name.as_str().starts_with("x-remote-") && !name.as_str().starts_with("impersonate-")
    };
    let mut out: HeaderMap = HeaderMap::new();
    for (name, value) in headers.iter().filter(|(name, _)| kept(name)) {
        out.append(name, value.clone());
    }
    let mut add = |name: &str, value: &str| {
        let name = HeaderName::from_bytes(name.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value)) {
            out.append(name, value);
        }
    };
    add("x-remote-user", &who.user);
    if !who.uid.is_empty() {
        add("x-remote-uid", &who.uid);
    }
    who.groups.iter().for_each(|group| add("x-remote-group", group));
    for (key, values) in &who.extra {
        let key: String = key.bytes().map(header_escape).collect();
        values.iter().for_each(|value| add(&format!("x-remote-extra-{key}"), value));
    }
    out
}

/// A byte of a key, as it may stand in a header's name.
fn header_escape(byte: u8) -> String {
    match byte {
        b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
        b'A'..=b'Z' => char::from(byte.to_ascii_lowercase()).to_string(),
        other => format!("%{other:02x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_stay_here_and_names_cannot_be_forged() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Bearer secret"),
            ("x-remote-user", "root"),
            ("impersonate-user", "root"),
            ("accept", "application/json"),
            ("connection", "upgrade"),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let mut who = Identity::new("jane", &["devs", "ops"]);
        who.extra.insert("example.com/Scopes".to_owned(), vec!["view".to_owned()]);
        let out = outgoing(&headers, &who);
        let mut shown: Vec<String> = out.iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
        shown.sort();
        assert_eq!(
            shown,
            [
                "accept: application/json",
                "x-remote-extra-example.com%2fscopes: view",
                "x-remote-group: devs",
                "x-remote-group: ops",
                "x-remote-user: jane",
            ]
        );
    }
}
