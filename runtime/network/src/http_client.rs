//! Speaking HTTP with whoever is behind a stream: a pod that listens, or a host outside. Connections are kept for the
//! next request, a bounded number for a bounded time.
//!
//! A request that finds its kept connection closed before a byte of it was taken goes over another; no other is sent twice.

use std::{
    collections::HashMap,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Uri, Version, header, uri};
use http_body_util::BodyExt as _;
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::time::{Instant, Sleep};

use crate::{
    Body, BoxError, CallError, Network, SocketError,
    policy::Source,
    stream::PodStream,
    tcp::{self, Visit},
};

/// Idle connections that a pod keeps.
const OF_POD: Kept = Kept { per_host: 32, all: 256 };
/// Idle connections that the node keeps to pods that listen and to endpoints outside, for whoever calls them.
const OF_NODE: Kept = Kept { per_host: 256, all: 4096 };
/// How long one is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an answer may take when nobody says.
pub(crate) const PATIENCE: Duration = Duration::from_secs(600);

/// How long a call may take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CallTimeouts {
    /// Until there is a connection.
    pub connect: Option<Duration>,
    /// From there to the head of the response.
    pub first_byte: Option<Duration>,
    /// Between two pieces of its body.
    pub between_bytes: Option<Duration>,
    /// For one of several tries of a Service's endpoints, to the head of the response.
    pub one_try: Option<Duration>,
}

/// A fresh connection.
pub(crate) struct Opened {
    pub(crate) stream: PodStream,
    /// Whether HTTP/2 is spoken.
    pub(crate) h2: bool,
}

/// How many idle connections are kept at most.
#[derive(Clone, Copy)]
struct Kept {
    /// To one host.
    per_host: usize,
    all: usize,
}

/// Connections kept for later requests.
#[derive(Clone)]
pub(crate) struct HttpPool(Arc<Mutex<Idle>>);

impl Default for HttpPool {
    fn default() -> Self {
        Self::keeping(OF_POD)
    }
}

struct Idle {
    most: Kept,
    h1: HashMap<Arc<str>, Vec<(http1::SendRequest<Body>, Instant)>>,
    h2: HashMap<Arc<str>, (http2::SendRequest<Body>, Instant)>,
    count: usize,
    swept: bool,
}

enum Sender {
    H1(http1::SendRequest<Body>),
    H2(http2::SendRequest<Body>),
}

impl HttpPool {
    fn keeping(most: Kept) -> Self {
        let (h1, h2) = (HashMap::new(), HashMap::new());
        Self(Arc::new(Mutex::new(Idle { most, h1, h2, count: 0, swept: false })))
    }

    /// Sends a request, over a kept connection of this key or over one that `connect` opens.
    pub(crate) async fn send<F>(
        &self,
        key: &str,
        mut request: Request<Body>,
        timeouts: CallTimeouts,
        connect: impl Fn() -> F,
    ) -> Result<Response<Body>, CallError>
    where
        F: Future<Output = Result<Opened, CallError>>,
    {
        let key: Arc<str> = key.into();
        let deadline = timeouts.first_byte.unwrap_or(PATIENCE);
        loop {
            let (mut sender, kept) = match self.take(&key) {
                Some(sender) => (sender, true),
                None => (open(&timeouts, connect()).await?, false),
            };
            let sent = tokio::time::timeout(deadline, sender.send(request, key.starts_with("https:"))).await;
            let sent = sent.map_err(|_| CallError::TimedOut(format!("{key}: no response within {deadline:?}")))?;
            match sent {
                Ok(response) => {
                    self.keep(key, sender);
                    return Ok(answer(response, timeouts.between_bytes.unwrap_or(PATIENCE)));
                }
                Err((_, Some(back))) if kept => request = back,
                Err((error, _)) => return Err(CallError::Failed(format!("{key}: {}", chain(&error)))),
            }
        }
    }

    fn take(&self, key: &str) -> Option<Sender> {
        let mut idle = self.0.lock();
        if let Some((sender, used)) = idle.h2.get_mut(key) {
            if sender.is_closed() {
                idle.h2.remove(key);
            } else {
                *used = Instant::now();
                return Some(Sender::H2(sender.clone()));
            }
        }
        let kept = idle.h1.get_mut(key)?;
        let (mut found, mut gone) = (None, 0);
        while let Some((sender, _)) = kept.pop() {
            gone += 1;
            if sender.is_ready() {
                found = Some(Sender::H1(sender));
                break;
            }
        }
        if kept.is_empty() {
            idle.h1.remove(key);
        }
        idle.count -= gone;
        found
    }

    /// Keeps a connection: at once when it takes several requests, else when its response has been read.
    fn keep(&self, key: Arc<str>, sender: Sender) {
        match sender {
            Sender::H2(sender) => {
                let mut idle = self.0.lock();
                if idle.h2.len() < idle.most.all || idle.h2.contains_key(&key) {
                    idle.h2.insert(key, (sender, Instant::now()));
                }
                drop(idle);
                self.sweep();
            }
            Sender::H1(mut sender) => {
                let pool = Arc::downgrade(&self.0);
                tokio::spawn(async move {
                    if sender.ready().await.is_ok()
                        && let Some(pool) = pool.upgrade()
                    {
                        Self(pool).put(key, sender);
                    }
                });
            }
        }
    }

    fn put(&self, key: Arc<str>, sender: http1::SendRequest<Body>) {
        let mut idle = self.0.lock();
        let most = idle.most;
        if idle.count >= most.all || idle.h1.get(&key).is_some_and(|kept| kept.len() >= most.per_host) {
            return;
        }
        idle.count += 1;
        idle.h1.entry(key).or_default().push((sender, Instant::now()));
        drop(idle);
        self.sweep();
    }

    /// Sees to it that idle connections go: one task while there are any.
    fn sweep(&self) {
        if std::mem::replace(&mut self.0.lock().swept, true) {
            return;
        }
        let pool = Arc::downgrade(&self.0);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(IDLE_TIMEOUT / 2).await;
                let Some(pool) = pool.upgrade() else { return };
                if pool.lock().forget_old() {
                    return;
                }
            }
        });
    }
}

impl Idle {
    /// Returns whether nothing is left.
    fn forget_old(&mut self) -> bool {
        let old = |used: &Instant| used.elapsed() >= IDLE_TIMEOUT;
        self.h2.retain(|_, (sender, used)| !old(used) && !sender.is_closed());
        self.h1.retain(|_, kept| {
            kept.retain(|(sender, used)| !old(used) && !sender.is_closed());
            !kept.is_empty()
        });
        self.count = self.h1.values().map(Vec::len).sum();
        self.swept = !(self.h1.is_empty() && self.h2.is_empty());
        !self.swept
    }
}

async fn open(
    timeouts: &CallTimeouts,
    connecting: impl Future<Output = Result<Opened, CallError>>,
) -> Result<Sender, CallError> {
    let opening = async {
        let Opened { stream, h2 } = connecting.await?;
        let io = TokioIo::new(stream);
        let failed = |error: hyper::Error| CallError::Failed(format!("cannot speak HTTP: {}", chain(&error)));
        if h2 {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            let (sender, connection) = builder.timer(TokioTimer::new()).handshake(io).await.map_err(failed)?;
            tokio::spawn(connection);
            return Ok(Sender::H2(sender));
        }
        let (sender, connection) = http1::handshake(io).await.map_err(failed)?;
        tokio::spawn(connection);
        Ok(Sender::H1(sender))
    };
    match timeouts.connect {
        None => opening.await,
        Some(limit) => {
            let opened = tokio::time::timeout(limit, opening).await;
            opened.map_err(|_| CallError::TimedOut(format!("no connection within {limit:?}")))?
        }
    }
}

type NotSent = (hyper::Error, Option<Request<Body>>);

impl Sender {
    async fn send(&mut self, request: Request<Body>, secure: bool) -> Result<Response<Incoming>, NotSent> {
        let sent = match self {
            Self::H1(sender) => sender.try_send_request(for_h1(request)).await,
            Self::H2(sender) => sender.try_send_request(for_h2(request, secure)).await,
        };
        sent.map_err(|mut error| {
            let back = error.take_message();
            (error.into_error(), back)
        })
    }
}

/// What is only between two ends of one connection.
const HOP: [HeaderName; 5] =
    [header::CONNECTION, header::UPGRADE, header::TRANSFER_ENCODING, HeaderName::from_static("keep-alive"), PROXY];
const PROXY: HeaderName = HeaderName::from_static("proxy-connection");

pub(crate) fn strip_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in HOP.iter().chain(&named) {
        headers.remove(name);
    }
}

/// Authority into the `Host` header, path alone into the request line.
fn for_h1(mut request: Request<Body>) -> Request<Body> {
    strip_hop(request.headers_mut());
    relative(request)
}

pub(crate) fn relative(mut request: Request<Body>) -> Request<Body> {
    if let Some(authority) = request.uri().authority().filter(|_| !request.headers().contains_key(header::HOST))
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        request.headers_mut().insert(header::HOST, host);
    }
    if request.uri().authority().is_some() {
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = path.unwrap_or_else(|| uri::PathAndQuery::from_static("/")).into();
    }
    *request.version_mut() = Version::HTTP_11;
    request
}

/// The `Host` header into the authority.
pub(crate) fn for_h2<B>(mut request: Request<B>, secure: bool) -> Request<B> {
    strip_hop(request.headers_mut());
    let host = request.headers_mut().remove(header::HOST);
    let authority = host.as_ref().and_then(|host| host.to_str().ok()).and_then(|host| host.parse().ok());
    let mut parts = request.uri().clone().into_parts();
    parts.authority = authority.or(parts.authority);
    parts.scheme = Some(if secure { uri::Scheme::HTTPS } else { uri::Scheme::HTTP });
    parts.path_and_query = parts.path_and_query.or(Some(uri::PathAndQuery::from_static("/")));
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    *request.version_mut() = Version::HTTP_2;
    request
}

pub(crate) fn answer(response: Response<Incoming>, patience: Duration) -> Response<Body> {
    let (mut head, body) = response.into_parts();
    strip_hop(&mut head.headers);
    Response::from_parts(head, paced(body, patience))
}

/// An answer's body that ends with an error when nothing comes for too long.
pub(crate) fn paced<B>(body: B, patience: Duration) -> Body
where
    B: http_body::Body<Data = Bytes, Error: std::error::Error + Send + Sync + 'static> + Send + Unpin + 'static,
{
    Paced { body, patience, of: "response", waiting: None }.boxed_unsync()
}

/// The same for the body of a request.
pub(crate) fn paced_request(body: Incoming, patience: Duration) -> Body {
    Paced { body, patience, of: "request", waiting: None }.boxed_unsync()
}

struct Paced<B> {
    body: B,
    patience: Duration,
    of: &'static str,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<B> http_body::Body for Paced<B>
where
    B: http_body::Body<Data = Bytes, Error: std::error::Error + Send + Sync + 'static> + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            self.waiting = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(|e| Box::new(e) as BoxError)));
        }
        let patience = self.patience;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        if waiting.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        let late = CallError::TimedOut(format!("nothing more of the {} within {patience:?}", self.of));
        Poll::Ready(Some(Err(Box::new(late))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

/// An error with its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Goes with a request to a pod that speaks HTTP/2 with prior knowledge, as its Service says.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PriorKnowledge;

/// Requests to pods that listen, and to endpoints outside.
pub(crate) struct PodHttp(HttpPool);

impl Default for PodHttp {
    fn default() -> Self {
        Self(HttpPool::keeping(OF_NODE))
    }
}

impl PodHttp {
    /// Sends a request to a pod's port.
    pub(crate) async fn call(
        &self,
        network: &Network,
        address: SocketAddr,
        request: Request<Body>,
        timeouts: CallTimeouts,
    ) -> Result<Response<Body>, CallError> {
        let connect = || async move {
            let refused = || SocketError::Refused(format!("nobody listens at {address}"));
            let attached = network.inner().attachments.get(address).ok_or_else(refused)?;
            // Who is served over it has been asked for each request.
            let from = Source::Node;
            let visit = Visit { from, client: network.node_side(), server: address, held: (), counted: false };
            Ok(tcp::visit(network, &attached, visit).await?)
        };
        self.send(address, request, timeouts, connect).await
    }

    /// Sends a request to an address that `connect` connects to: over HTTP/2 when it is a call of gRPC or the Service says
    /// so, else over HTTP/1.1.
    pub(crate) async fn send<F>(
        &self,
        address: impl std::fmt::Display,
        request: Request<Body>,
        timeouts: CallTimeouts,
        connect: impl Fn() -> F,
    ) -> Result<Response<Body>, CallError>
    where
        F: Future<Output = Result<PodStream, CallError>>,
    {
        let grpc = request.headers().get(header::CONTENT_TYPE);
        let grpc = grpc.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        let h2 = grpc || request.extensions().get::<PriorKnowledge>().is_some();
        let key = if h2 { format!("grpc://{address}") } else { format!("http://{address}") };
        let connect = || async { Ok(Opened { stream: connect().await?, h2 }) };
        self.0.send(&key, request, timeouts, connect).await
    }
}
