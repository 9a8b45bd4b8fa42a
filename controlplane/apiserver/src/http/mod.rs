//! HTTP: from a request to an answer. Who asks, whether there is room, whether they may, then the registry.
//!
//! Invariants: whatever goes wrong is answered with a `Status`, panics included; nothing secret is logged. Knows no kind.

use std::{
    borrow::Cow,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::FutureExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIServiceSpec;
use parking_lot::RwLock;
use podium_api::{ApiError, FieldSelector, Reason, names, openapi};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use self::{
    metrics::Metrics,
    notes::Notes,
    path::{Query, Route},
    respond::Answer,
};
use crate::{
    accounts::Accounts,
    aggregate::Aggregator,
    audit::Audit,
    auth::{self, Attributes, Authorizer, Identity, Tokens},
    bootstrap_tokens,
    config::Limits,
    flow::{self, Flow},
    gateway::{ImageRegistry, NodeGateway},
    registry::Registry,
    usage::Usage,
};

mod about;
pub(crate) mod body;
mod connect;
mod core_dumps;
mod documents;
mod images;
mod list_options;
mod logs;
pub(crate) mod metrics;
mod negotiate;
mod notes;
pub(crate) mod path;
mod pretty;
mod proxy;
mod resources;
pub(crate) mod respond;
pub(crate) mod reviews;
mod verbs;
mod watch;
pub(crate) mod websocket;

const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
/// A longer one is not taken over.
const AUDIT_ID_BYTES_MAX: usize = 64;

pub(crate) use self::notes::Peer;

/// Counts a stream for as long as it lives.
pub(crate) type Permit = OwnedSemaphorePermit;

/// Everything that answers requests.
pub(crate) struct Frontend {
    pub(crate) registry: Arc<Registry>,
    pub(crate) tokens: Tokens,
    pub(crate) accounts: Arc<Accounts>,
    pub(crate) authorizer: Arc<dyn Authorizer>,
    pub(crate) limits: Limits,
    pub(crate) metrics: Metrics,
    pub(crate) gateway: RwLock<Option<Arc<dyn NodeGateway>>>,
    pub(crate) usage: Usage,
    pub(crate) images: RwLock<Option<Arc<dyn ImageRegistry>>>,
    pub(crate) audit: Option<Arc<Audit>>,
    pub(crate) openapi: Arc<openapi::OpenApi>,
    pub(crate) aggregator: Arc<Aggregator>,
    pub(crate) flow: Arc<Flow>,
    pub(crate) streams: Arc<Semaphore>,
    /// Cancelled first when the server shuts down: `/readyz` fails.
    pub(crate) closing: CancellationToken,
    /// Cancelled then: streams end, connections are closed.
    pub(crate) stop: CancellationToken,
    /// Host and port, as discovery shows them.
    pub(crate) address: String,
}

/// A request, taken apart.
#[derive(Clone, Copy)]
pub(crate) struct Call<'a> {
    method: &'a Method,
    headers: &'a HeaderMap,
    query: &'a Query,
    uri: &'a Uri,
    /// Who asks; nobody until that is known.
    who: &'a Identity,
    /// The connection, when the client wants to speak something else on it.
    upgrade: Option<&'a OnUpgrade>,
    notes: &'a Notes,
}

impl Call<'_> {
    fn header(&self, name: header::HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    fn accept(&self) -> Option<&str> {
        self.header(header::ACCEPT)
    }
}

impl Frontend {
    /// Answers a request. `peer`: who is at the other end of the connection.
    pub(crate) async fn answer(self: Arc<Self>, request: Request<Incoming>, peer: Peer) -> Answer {
        let started = Instant::now();
        let (parts, incoming) = request.into_parts();
        let own = path::passed_on(parts.uri.path()).map_or(parts.uri.path(), |(own, _)| own);
        let path = path::decode_path(own);
        let query = Query::parse(parts.uri.query());
        let route = Route::parse(&path);
        let nobody = Identity::default();
        let id = audit_id(&parts.headers);
        let notes = Notes::new(String::from_utf8_lossy(id.as_bytes()).into_owned(), peer.address);
        let (method, headers, uri) = (&parts.method, &parts.headers, &parts.uri);
        let upgrade = parts.extensions.get();
        let call = Call { method, headers, query: &query, uri, who: &nobody, upgrade, notes: &notes };
        let selected = selected_name(&query);
        let what = attributes(&route, &call, (&path, &selected));
        let span = tracing::debug_span!(
            "request",
            verb = what.verb,
            resource = what.resource,
            namespace = what.namespace,
            name = what.name
        );
        let work = AssertUnwindSafe(self.admit(&route, &what, &call, incoming, peer.identity.as_deref()));
        let result = work.catch_unwind().instrument(span).await;
        let panicked = result.is_err();
        let answer = match result {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => respond::error(&error),
            Err(_) => {
                tracing::error!(verb = what.verb, path = %path, "a request handler panicked");
                respond::error(&ApiError::internal("the request could not be completed: this is a bug in the server"))
            }
        };
        let known = matches!(route, Route::Resource(_)) && answer.status() != http::StatusCode::NOT_FOUND;
        let resource = if known { what.resource } else { "" };
        self.metrics.answered(what.verb, what.group, resource, answer.status().as_u16(), started.elapsed());
        let mut answer = pretty::arranged(answer, &route, &call);
        answer.headers_mut().insert(AUDIT_ID, id);
        if let Some(schema) = notes.flow.get() {
            schema.headers(answer.headers_mut());
        }
        if self.audit.is_some() {
            // Whoever was not asked for: what anybody may read, and credentials that were refused.
            let unknown = || if answer.status() == 401 { Identity::default() } else { auth::anonymous() };
            let who = peer.identity.as_deref().filter(|_| answer.status() != 401).cloned().unwrap_or_else(unknown);
            self.begin_audit(&who, &route, &what, &call);
        }
        match notes.record() {
            Some(record) => notes::finish(record, answer, panicked),
            None => answer,
        }
    }

    async fn admit(
        &self,
        route: &Route<'_>,
        what: &Attributes<'_>,
        call: &Call<'_>,
        incoming: Incoming,
        peer: Option<&Identity>,
    ) -> Result<Answer, ApiError> {
        if let Some(answer) = self.public(route, call) {
            self.sort_public(what, call, peer);
            return Ok(answer);
        }
        let found = self.identity(call, peer).or_else(|error| self.as_anybody(call, what).ok_or(error))?;
        self.begin_audit(&found, route, what, call);
        let other = auth::impersonated(&found, call.headers, &*self.authorizer)?;
        let who = other.as_ref().unwrap_or(&found);
        if let (Some(record), Some(other)) = (call.notes.record(), &other) {
            record.impersonated(other);
        }
        let call = &Call { who, ..*call };
        let (_seat, permit) = self.seat(who, what, call).await?;
        // Who may not do all with a node may be granted some of it.
        let finer = proxy::finer(what, call)
            .filter(|finer| !self.authorizer.allows(who, what) && self.authorizer.allows(who, finer));
        let what = finer.as_ref().unwrap_or(what);
        self.note_decision(who, what, call);
        self.authorizer.check(who, what)?;
        if let Some(remote) = self.remote(route) {
            let call = (call.method, call.uri, call.headers);
            let answer = self.aggregator.forward(&remote, call, incoming, who).await?;
            return Ok(answer.map(|body| body.holding(permit)));
        }
        if matches!(route, Route::Images) {
            return self.image(call, incoming).await;
        }
        match (route, permit) {
            (Route::Resource(target), Some(permit)) if target.subresource == "proxy" => {
                self.pass_on(target, call, incoming, permit).await
            }
            (Route::Resource(target), Some(permit)) => self.stream(target, call, permit).await,
            (route, _) => self.whole(route, call, incoming).await,
        }
    }

    /// Every request but streams.
    async fn whole(&self, route: &Route<'_>, call: &Call<'_>, incoming: Incoming) -> Result<Answer, ApiError> {
        match route {
            Route::Resource(target) => {
                let timeout = list_options::timeout(call.query.get("timeout"), self.limits.request_timeout)?;
                let body = self.body(call, incoming).await?;
                if let Some(record) = call.notes.record() {
                    record.request_body(&body);
                }
                let work = self.resource(target, call, &body);
                tokio::time::timeout(timeout, work)
                    .await
                    .map_err(|_| ApiError::new(Reason::Timeout, "the request did not complete within its time"))?
            }
            other => self.about(other, call).await,
        }
    }

    /// The seat of a request at its priority level, which a stream has until it has begun, and a stream's place among all.
    /// Logs and taken-over connections need no seat.
    async fn seat(
        &self,
        who: &Identity,
        what: &Attributes<'_>,
        call: &Call<'_>,
    ) -> Result<(Option<flow::Seat>, Option<Permit>), ApiError> {
        let long = matches!(what.subresource, "log" | "coredump" | "exec" | "attach" | "portforward" | "proxy");
        let place = || self.streams.clone().try_acquire_owned().map_err(|_| flow::too_many());
        let permit = (long || what.verb == "watch").then(place).transpose()?;
        let schema = self.flow.classify(who, what).filter(|_| !long);
        let Some(schema) = schema else { return Ok((None, permit)) };
        let schema = call.notes.flow.get_or_init(|| schema);
        Ok((Some(self.flow.seat(schema, who, what).await?), permit))
    }

    /// Says of what anybody may read how it would be sorted. It takes no seat: a full server is still healthy.
    fn sort_public(&self, what: &Attributes<'_>, call: &Call<'_>, peer: Option<&Identity>) {
        let found = self.identity(call, peer).unwrap_or_else(|_| Cow::Owned(auth::anonymous()));
        let other = auth::impersonated(&found, call.headers, &*self.authorizer).ok().flatten();
        if let Some(schema) = self.flow.classify(other.as_ref().unwrap_or(&found), what) {
            call.notes.flow.get_or_init(|| schema);
        }
    }

    /// The APIService of another server that a path belongs to. What is served here is served here.
    fn remote(&self, route: &Route<'_>) -> Option<APIServiceSpec> {
        let (group, version) = match route {
            Route::Resource(target) => (target.group, target.version),
            Route::Resources { group, version } => (*group, *version),
            _ => return None,
        };
        let local = self.registry.served().all().iter().any(|r| r.names.group == group && r.names.version == version);
        if local { None } else { self.aggregator.remote(group, version) }
    }

    /// Who asks: a bearer token counts before a certificate.
    fn identity<'a>(&'a self, call: &Call<'_>, peer: Option<&'a Identity>) -> Result<Cow<'a, Identity>, ApiError> {
        match call.header(header::AUTHORIZATION) {
            None => peer.map(Cow::Borrowed).ok_or_else(auth::unauthorized),
            Some(value) => {
                let token = value.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
                token.and_then(|(_, token)| self.token_identity(token.trim())).ok_or_else(auth::unauthorized)
            }
        }
    }

    /// Who shows nothing is nobody in particular, where that is enough.
    fn as_anybody<'a>(&'a self, call: &Call<'_>, what: &Attributes<'_>) -> Option<Cow<'a, Identity>> {
        let anybody = auth::anonymous();
        let shown = call.header(header::AUTHORIZATION).is_some();
        (!shown && self.authorizer.allows(&anybody, what)).then_some(Cow::Owned(anybody))
    }

    /// Whose token it is.
    pub(crate) fn token_identity(&self, token: &str) -> Option<Cow<'_, Identity>> {
        let known = self.tokens.identity(token).map(Cow::Borrowed);
        let found = || self.accounts.identity(&self.registry, token);
        known.or_else(|| found().or_else(|| bootstrap_tokens::identity(&self.registry, token)).map(Cow::Owned))
    }

    async fn body(&self, call: &Call<'_>, incoming: Incoming) -> Result<bytes::Bytes, ApiError> {
        if matches!(call.method, &Method::GET | &Method::HEAD) {
            return Ok(bytes::Bytes::new());
        }
        let max = self.limits.body_bytes_max;
        let too_large = || {
            let message = format!("Request entity too large: limit is {max}");
            ApiError::new(Reason::RequestEntityTooLarge, message)
        };
        if call.header(header::CONTENT_LENGTH).and_then(|l| l.parse::<usize>().ok()).is_some_and(|l| l > max) {
            self.discard(incoming).await;
            return Err(too_large());
        }
        let collect = tokio::time::timeout(self.limits.read_timeout, Limited::new(incoming, max).collect());
        match collect.await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(too_large()),
            Ok(Err(error)) => Err(ApiError::bad_request(format!("reading the request body: {error}"))),
            Err(_) => Err(ApiError::new(Reason::Timeout, "the request body did not come within its time")),
        }
    }

    /// Reads over a body that is refused, up to some size: a client that still writes when its connection closes sees
    /// a broken pipe and not the answer.
    async fn discard(&self, mut incoming: Incoming) {
        let mut left = self.limits.body_bytes_max.saturating_mul(4);
        let drain = async {
            while let Some(Ok(frame)) = incoming.frame().await {
                let Some(rest) = left.checked_sub(frame.data_ref().map_or(0, bytes::Bytes::len)) else { return };
                left = rest;
            }
        };
        // However it ends, the answer is the same.
        let _ended = tokio::time::timeout(self.limits.read_timeout, drain).await;
    }

    pub(crate) fn drained_after(&self) -> Duration {
        self.limits.drain_timeout
    }
}

/// What a request is known by in logs: as its client says, or made up.
fn audit_id(headers: &HeaderMap) -> HeaderValue {
    let given = headers.get(AUDIT_ID).filter(|id| (1..=AUDIT_ID_BYTES_MAX).contains(&id.len()));
    let made = || HeaderValue::from_str(&uuid::Uuid::new_v4().to_string());
    given.cloned().or_else(|| made().ok()).unwrap_or(HeaderValue::from_static("unknown"))
}

/// The one object that a list or a watch is about by its field selector: whoever may only see that one may list it.
fn selected_name(query: &Query) -> String {
    let fields = query.get("fieldSelector");
    if !fields.contains("metadata.name") {
        return String::new();
    }
    let parsed = FieldSelector::parse(fields).ok();
    let name = parsed.as_ref().and_then(|fields| fields.exact("metadata.name"));
    name.filter(|name| names::is_path_segment(name).is_empty()).unwrap_or_default().to_owned()
}

fn attributes<'a>(route: &Route<'a>, call: &Call<'_>, (path, selected): (&'a str, &'a str)) -> Attributes<'a> {
    let mut what = Attributes { verb: "", group: "", resource: "", subresource: "", namespace: "", name: "", path };
    let Route::Resource(target) = route else {
        what.verb = match *call.method {
            Method::GET | Method::HEAD => "get",
            Method::POST => "post",
            Method::PUT => "put",
            Method::DELETE => "delete",
            _ => "patch",
        };
        return what;
    };
    let collection = target.name.is_empty();
    what.verb = match *call.method {
        Method::GET | Method::HEAD if target.watch || (call.query.flag("watch") && target.subresource.is_empty()) => {
            "watch"
        }
        Method::GET | Method::HEAD if collection => "list",
        Method::GET | Method::HEAD => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE if collection => "deletecollection",
        Method::DELETE => "delete",
        _ => "",
    };
    what.group = target.group;
    what.resource = target.resource;
    what.subresource = target.subresource;
    what.namespace = target.namespace;
    what.name = match what.verb {
        "list" | "watch" if collection => selected,
        _ => target.name,
    };
    if (target.group, target.resource) == ("", "namespaces") {
        // A namespace is in itself: who may read all in it may read it.
        what.namespace = target.name;
    }
    what
}
