//! `pods/proxy`, `services/proxy`, `nodes/proxy`: HTTP requests that are passed on, to a port of a pod, to one of the pods of
//! a Service, or to the endpoints that a node has for itself.
//!
//! Invariants: bodies stream both ways and nothing of them is gathered; a request counts among the streams for as long as
//! its answer lasts; the client's credentials go no further than this server.
//!
//! # Source
//! Kubernetes `pkg/registry/core/{pod,service,node}/rest` and
//! `staging/src/k8s.io/apimachinery/pkg/util/proxy/upgradeaware.go`.

mod backend;
mod container;
mod content;
mod html;
mod place;
mod rewrite;

use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use k8s_openapi::api::core::v1::{Node, Pod};
use podium_api::{ApiError, Kind as _, Reason, Verb, object::SubresourceBehaviour};
use serde_json::json;

use self::{
    backend::{Backend, Life, Upgraded},
    container::Streamed,
    content::Encoding,
    place::{Named, unreachable},
    rewrite::Links,
};
use super::{
    Call, Frontend, Permit, about,
    path::{self, Target},
    resources::not_allowed,
    respond::{self, Answer},
    websocket,
};
use crate::{
    auth::Attributes,
    outbound::{BoxError, ServiceBody},
    registry::Resource,
};

const METHODS: [Method; 7] =
    [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::HEAD, Method::OPTIONS];
/// Where a kubelet listens when its node does not say.
const KUBELET_PORT: i32 = 10_250;

/// A request that is passed on.
struct Asked<'a> {
    /// Up to `/proxy`.
    own: &'a str,
    /// What follows, clean; empty when nothing does.
    path: String,
}

impl Frontend {
    /// Passes a request on.
    pub(super) async fn pass_on(
        &self,
        target: &Target<'_>,
        call: &Call<'_>,
        incoming: Incoming,
        permit: Permit,
    ) -> Result<Answer, ApiError> {
        let resource = &*self.find(target)?;
        let (own, rest) = path::passed_on(call.uri.path()).ok_or_else(about::unknown)?;
        if resource.subresource("proxy") != Some(SubresourceBehaviour::Verb(Verb::Proxy)) {
            return Err(about::unknown());
        }
        if !METHODS.contains(call.method) {
            return Err(not_allowed());
        }
        let options = json!({ "path": path::decode_path(rest) });
        let warnings = self.admit_connection(resource, target, call, options).await?;
        let asked = Asked { own, path: rewrite::clean(rest) };
        let life = Life { permit, stop: self.stop.clone() };
        let mut answer = if resource.names.kind == Node::NAMES.kind {
            self.to_node_itself((resource, target), (call, &asked), incoming, life).await?
        } else {
            let place = self.place(resource, target)?;
            let services = self.registry.outbound().services();
            let services = services.ok_or_else(|| unreachable("there are no pods in this process"))?;
            to_pod(Backend { services, place }, (call, &asked), incoming, life).await?
        };
        respond::warn(&mut answer, &warnings);
        Ok(answer)
    }

    fn place(&self, resource: &Resource, target: &Target<'_>) -> Result<place::Place, ApiError> {
        if resource.names.kind != Pod::NAMES.kind {
            let named = Named::read(target.name, "service")?;
            return place::of_service(&self.registry, target.namespace, named);
        }
        let named = Named::read(target.name, "pod")?;
        let entry = resource.cache.get(target.namespace, named.name);
        let entry = entry.ok_or_else(|| resource.not_found(named.name))?;
        place::of_pod(entry.object.downcast_ref().ok_or_else(about::unknown)?, named)
    }

    /// To the node's own endpoints. Other ports of its machine are nobody's business.
    async fn to_node_itself(
        &self,
        (resource, target): (&Resource, &Target<'_>),
        (call, asked): (&Call<'_>, &Asked<'_>),
        incoming: Incoming,
        life: Life,
    ) -> Result<Answer, ApiError> {
        let named = Named::read(target.name, "node")?;
        let entry = resource.cache.get("", named.name).ok_or_else(|| resource.not_found(named.name))?;
        let node: &Node = entry.object.downcast_ref().ok_or_else(about::unknown)?;
        if !named.port.is_empty() && named.port != kubelet_port(node).to_string() {
            return Err(ApiError::bad_request("address not allowed"));
        }
        if let Some(redirect) = asked.redirect(call) {
            return Ok(redirect);
        }
        if let Some(streamed) = Streamed::of(&asked.path) {
            return self.stream_from_node(named.name, streamed, (target, call), life).await;
        }
        let gateway = self.gateway.read().clone().ok_or_else(|| {
            ApiError::new(Reason::ServiceUnavailable, "the node agent is not connected yet").retry_after(1)
        })?;
        let answer = gateway.node(named.name, asked.request(call, incoming, false)?).await?;
        let host = format!("{}:{}", named.name, kubelet_port(node));
        Ok(asked.answer(call, answer, host).map(|body| body.holding(life.permit)))
    }
}

fn kubelet_port(node: &Node) -> i32 {
    let endpoints = node.status.as_ref().and_then(|status| status.daemon_endpoints.as_ref());
    let port = endpoints.and_then(|endpoints| endpoints.kubelet_endpoint.as_ref()).map(|kubelet| kubelet.port);
    port.filter(|port| *port > 0).unwrap_or(KUBELET_PORT)
}

async fn to_pod(
    backend: Backend,
    (call, asked): (&Call<'_>, &Asked<'_>),
    incoming: Incoming,
    life: Life,
) -> Result<Answer, ApiError> {
    let host = backend.place.host.clone();
    let wanted = websocket::words(call.headers, header::CONNECTION).any(|word| word.eq_ignore_ascii_case("upgrade"));
    if let Some(client) = call.upgrade.filter(|_| wanted) {
        let request = asked.request(call, incoming, true)?;
        return Ok(match backend.upgrade(request, client.clone(), life).await? {
            Upgraded::Switched(answer) => answer,
            Upgraded::Refused(answer, life) => asked.answer(call, answer, host).map(|body| body.holding(life.permit)),
        });
    }
    if let Some(redirect) = asked.redirect(call) {
        return Ok(redirect);
    }
    let answer = backend.send(asked.request(call, incoming, false)?).await?;
    Ok(asked.answer(call, answer, host).map(|body| body.holding(life.permit)))
}

impl Asked<'_> {
    /// Whoever asks for the root without its slash is sent to it: relative links would lead elsewhere.
    fn redirect(&self, call: &Call<'_>) -> Option<Answer> {
        if !self.path.is_empty() || !matches!(*call.method, Method::GET | Method::HEAD) {
            return None;
        }
        let query = call.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        let location = HeaderValue::from_str(&format!("{}/{query}", self.own)).ok()?;
        let mut answer = respond::text(StatusCode::MOVED_PERMANENTLY, String::new());
        answer.headers_mut().remove(header::CONTENT_TYPE);
        answer.headers_mut().insert(header::LOCATION, location);
        Some(answer)
    }

    /// The request as whoever is behind sees it.
    fn request(&self, call: &Call<'_>, incoming: Incoming, upgrade: bool) -> Result<Request<ServiceBody>, ApiError> {
        let root = if self.path.is_empty() { "/" } else { &self.path };
        let query = call.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        let uri: Uri = format!("{root}{query}").parse().map_err(|_| ApiError::bad_request("the path is no path"))?;
        let through = format!("{}{}", self.own, self.path);
        let mut request = Request::new(incoming.map_err(BoxError::from).boxed_unsync());
        *request.method_mut() = call.method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = rewrite::outgoing(call.headers, call.notes.address, &through, upgrade);
        if let Ok(host) = HeaderValue::from_str(host(call)) {
            request.headers_mut().insert(header::HOST, host);
        }
        Ok(request)
    }

    /// The answer as the client sees it. `host`: whoever is behind, as its own links name it.
    fn answer(&self, call: &Call<'_>, answer: Response<ServiceBody>, host: String) -> Answer {
        let links = Links { prefix: self.own.to_owned(), host, asked: self::host(call).to_owned() };
        let (mut parts, body) = answer.into_parts();
        rewrite::incoming(&mut parts.headers);
        let location = parts.headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
        let encoding = Encoding::of_html(&parts.headers).filter(|_| location.is_none() && call.method != Method::HEAD);
        if let Some(Ok(other)) = location.and_then(|link| links.through(link)).map(|link| HeaderValue::from_str(&link))
        {
            parts.headers.insert(header::LOCATION, other);
        }
        let body = match encoding {
            None => content::plain(body),
            Some(encoding) => {
                parts.headers.remove(header::CONTENT_LENGTH);
                content::rewritten(body, encoding, links)
            }
        };
        let mut answer = Response::new(body);
        *answer.status_mut() = parts.status;
        *answer.headers_mut() = parts.headers;
        answer
    }
}

/// The host that the client asked for.
fn host<'a>(call: &Call<'a>) -> &'a str {
    let by_header = || call.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    call.uri.authority().map(|authority| authority.as_str()).or_else(by_header).unwrap_or_default()
}

/// The part of `nodes/proxy` that a request needs: whoever may not do all with a node may be granted its figures alone.
///
/// # Source
/// Kubernetes `pkg/kubelet/server/auth.go`.
pub(super) fn finer<'a>(what: &Attributes<'a>, call: &Call<'_>) -> Option<Attributes<'a>> {
    if (what.group, what.resource, what.subresource) != ("", "nodes", "proxy") {
        return None;
    }
    let (_, rest) = path::passed_on(call.uri.path())?;
    // Not decoded: an encoded slash is no slash to whoever is behind either.
    let path = rewrite::clean(rest);
    let below = |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let subresource = match () {
        () if below("/stats") => "stats",
        () if below("/metrics") => "metrics",
        () if below("/logs") => "log",
        () if below("/pods") || below("/runningpods") => "pods",
        () if below("/healthz") => "healthz",
        () if below("/configz") => "configz",
        () => return None,
    };
    let name = Named::read(what.name, "node").ok()?.name;
    Some(Attributes { subresource, name, ..*what })
}
