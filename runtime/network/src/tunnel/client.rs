//! Asking another node: requests to its pods, connections to them, and what is for the node itself.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, header, uri};
use http_body::Body as _;
use tokio::sync::OwnedSemaphorePermit;

use super::{
    NodeStream,
    count::{Kind, UnderWay, Way},
    flow::{self, Bytestream, Received, Task},
    line::{Line, Peer, is_unprocessed},
    replay::Replay,
    wire,
};
use crate::{
    Body, CallError, CallTimeouts, Network, SocketError,
    http_client::{PATIENCE, PriorKnowledge, chain, for_h2, paced, strip_hop},
    policy::Source,
};

/// Connections tried for one request: one that stood may have been closed in peace just now.
const LINES_MAX: usize = 3;
/// What is read of a node's words on why there is no answer.
const WHY_BYTES_MAX: usize = 4096;

/// A request that has no answer.
pub(crate) struct Missed {
    pub(crate) error: CallError,
    /// The request, when no pod has begun it: another may have it.
    pub(crate) back: Option<Request<Body>>,
}

/// What is held while a stream is under way.
pub(crate) type Held = (OwnedSemaphorePermit, Option<UnderWay>);

/// A stream that has been opened.
struct Opened {
    answer: h2::client::ResponseFuture,
    out: SendStream<Bytes>,
    held: Held,
}

/// Why a stream was not opened, or has no answer.
pub(crate) enum Failure {
    /// The other end has not looked at it.
    Unbegun(CallError),
    Broken(CallError),
}

impl Failure {
    fn of(peer: &Peer, error: &h2::Error) -> Self {
        let why = format!("node {}: {}", peer.node.name, chain(error));
        if is_unprocessed(error) {
            Self::Unbegun(CallError::NotAccepted(why))
        } else {
            Self::Broken(CallError::Failed(why))
        }
    }

    fn error(self) -> CallError {
        match self {
            Self::Unbegun(error) | Self::Broken(error) => error,
        }
    }
}

impl Network {
    /// Says for whom a request is.
    fn sign(&self, headers: &mut http::HeaderMap, from: Source, client: Option<SocketAddr>) {
        wire::strip(headers);
        headers.remove(wire::CALLER);
        let Source::Ip(ip) = from else { return };
        let port = client.map_or(0, |client| client.port());
        headers.insert(wire::SOURCE, wire::address(SocketAddr::new(ip, port)));
        if let Some(who) = self.inner().pods.identity(ip) {
            headers.insert(wire::CALLER, who.spiffe.clone());
            headers.insert(wire::POD, HeaderValue::from_str(&who.pod).unwrap_or(HeaderValue::from_static("")));
        }
    }

    /// Opens a stream within the connection to a node.
    async fn open(&self, peer: &Arc<Peer>, head: Request<()>, (end, kind): (bool, Kind)) -> Result<Opened, Failure> {
        let mut head = Some(head);
        for _ in 0..LINES_MAX {
            let line = peer.line().await.map_err(Failure::Unbegun)?;
            let permit = self.permit(peer, &line).await.map_err(Failure::Unbegun)?;
            let mut requests = match line.requests.clone().ready().await {
                Ok(requests) => requests,
                Err(error) => {
                    peer.retire(&line, &error);
                    continue;
                }
            };
            let Some(head) = head.take() else { break };
            let (answer, out) = requests.send_request(head, end).map_err(|error| Failure::of(peer, &error))?;
            let under_way = self.inner().metrics.tunnels.stream(Way::Out, kind);
            return Ok(Opened { answer, out, held: (permit, Some(under_way)) });
        }
        let closing = format!("node {} closes its connections", peer.node.name);
        Err(Failure::Unbegun(CallError::NotAccepted(closing)))
    }

    async fn permit(&self, peer: &Peer, line: &Line) -> Result<OwnedSemaphorePermit, CallError> {
        if let Ok(permit) = line.streams.clone().try_acquire_owned() {
            return Ok(permit);
        }
        let waited = tokio::time::timeout(peer.limits().connect_timeout, line.streams.clone().acquire_owned()).await;
        waited.ok().and_then(Result::ok).ok_or_else(|| {
            self.inner().metrics.tunnels.failures.with_label_values(&["too_many"]).inc();
            let (node, most) = (&peer.node.name, peer.limits().streams_max);
            CallError::NotAccepted(format!("{most} requests and connections to node {node} are under way"))
        })
    }

    /// Sends a request to a pod of another node.
    pub(crate) async fn call_there(
        &self,
        peer: &Arc<Peer>,
        (from, to): (Source, SocketAddr),
        request: Request<Body>,
        timeouts: CallTimeouts,
    ) -> Result<Response<Body>, Missed> {
        if request.method() == Method::CONNECT {
            let error = CallError::Failed("CONNECT does not go to pods of other nodes".to_owned());
            return Err(Missed { error, back: None });
        }
        let line_bytes = request.uri().to_string().len();
        if wire::is_too_large(request.headers(), line_bytes, peer.limits().header_bytes_max) {
            let most = peer.limits().header_bytes_max;
            let error =
                CallError::Failed(format!("the request's head is larger than the {most} bytes that go to other nodes"));
            return Err(Missed { error, back: None });
        }
        let (original, body) = request.into_parts();
        let (mut head, copy) = (Request::from_parts(original.clone(), ()), original);
        if head.uri().authority().is_none() && !head.headers().contains_key(header::HOST) {
            head.headers_mut().insert(header::HOST, wire::address(to));
        }
        let secure = head.uri().scheme() == Some(&uri::Scheme::HTTPS);
        let mut head = for_h2(head, secure);
        let prior_knowledge = head.extensions_mut().remove::<PriorKnowledge>();
        head.extensions_mut().clear();
        self.sign(head.headers_mut(), from, None);
        head.headers_mut().insert(wire::TO, wire::address(to));
        if prior_knowledge.is_some() {
            head.headers_mut().insert(wire::H2, HeaderValue::from_static("1"));
        }
        let end = body.is_end_stream();
        let (lent, replay) = Replay::lend(body);
        let answered = self.exchange(peer, (head, Kind::Request), (!end).then_some(lent), timeouts).await;
        answered.map_err(|failure| match failure {
            Failure::Broken(error) => Missed { error, back: None },
            Failure::Unbegun(error) => {
                Missed { error, back: replay.back().map(|body| Request::from_parts(copy, body)) }
            }
        })
    }

    async fn exchange(
        &self,
        peer: &Arc<Peer>,
        (head, kind): (Request<()>, Kind),
        body: Option<Body>,
        timeouts: CallTimeouts,
    ) -> Result<Response<Body>, Failure> {
        let Opened { answer, out, held } = self.open(peer, head, (body.is_none(), kind)).await?;
        let sending = body.map(|body| Task::spawn(flow::send(body, out, peer.limits().header_bytes_max)));
        let deadline = timeouts.first_byte.unwrap_or(PATIENCE);
        let late = |_| {
            Failure::Broken(CallError::TimedOut(format!("node {}: no response within {deadline:?}", peer.node.name)))
        };
        let answer = tokio::time::timeout(deadline, answer).await.map_err(late)?;
        let answer = answer.map_err(|error| Failure::of(peer, &error))?;
        let mut answer = heard(answer).await?;
        wire::strip(answer.headers_mut());
        let patience = timeouts.between_bytes.unwrap_or(PATIENCE);
        Ok(answer.map(|stream| paced(Received::new(stream, (held, sending)), patience)))
    }

    /// Opens a connection to a pod of another node. `client`: what the pod sees as the other end's port.
    pub(crate) async fn connect_there(
        &self,
        peer: &Arc<Peer>,
        (from, to): (Source, SocketAddr),
        client: SocketAddr,
    ) -> Result<Bytestream<Held>, SocketError> {
        let mut head = Request::new(());
        *head.method_mut() = Method::CONNECT;
        let authority = to.to_string().parse::<uri::Authority>();
        *head.uri_mut() = authority.map(Uri::from).map_err(|error| SocketError::Failed(error.to_string()))?;
        self.sign(head.headers_mut(), from, Some(client));
        let limit = self.inner().config.connect_timeout;
        let stood = tokio::time::timeout(limit, self.stream(peer, (head, Kind::Bytes))).await;
        let stood = stood.map_err(|_| SocketError::TimedOut(format!("{to}: no answer within {limit:?}")))?;
        match stood.map_err(|failure| socket_error(failure.error()))? {
            Ok((incoming, out, held)) => Ok(Bytestream::new(incoming, out, held)),
            Err(answer) => Err(SocketError::Failed(format!("{to}: the node answered {}", answer.status()))),
        }
    }

    /// Opens a stream of bytes; the answer when the other end has another.
    pub(crate) async fn stream(
        &self,
        peer: &Arc<Peer>,
        (head, kind): (Request<()>, Kind),
    ) -> Result<Result<(RecvStream, SendStream<Bytes>, Held), Response<Body>>, Failure> {
        let Opened { answer, out, held } = self.open(peer, head, (false, kind)).await?;
        let answer = answer.await.map_err(|error| Failure::of(peer, &error))?;
        let answer = heard(answer).await?;
        if answer.status() == StatusCode::OK {
            return Ok(Ok((answer.into_body(), out, held)));
        }
        Ok(Err(answer.map(|stream| Received::body(stream, (held, out)))))
    }

    /// Whether it is a socket that listens at a pod's port of another node, and no handler; `None`: nobody knows.
    pub(crate) async fn asks_whether_socket(&self, peer: &Arc<Peer>, to: SocketAddr) -> Option<bool> {
        let mut head = Request::new(());
        *head.method_mut() = Method::OPTIONS;
        *head.uri_mut() = format!("http://{to}/").parse().ok()?;
        head.headers_mut().insert(wire::TO, wire::address(to));
        head.headers_mut().insert(wire::SIDE, HeaderValue::from_static("?"));
        let Opened { answer, held, .. } = self.open(peer, head, (true, Kind::Request)).await.ok()?;
        let limit = self.inner().config.connect_timeout;
        let answer = tokio::time::timeout(limit, answer).await.ok()?.ok()?;
        drop(held);
        let side = wire::single(answer.headers(), &wire::SIDE)?;
        Some(side == "socket")
    }

    /// Sends a request to a node itself.
    pub(crate) async fn call_node(
        &self,
        peer: &Arc<Peer>,
        request: Request<Body>,
    ) -> Result<Response<Body>, CallError> {
        let (head, body) = request.into_parts();
        let mut head = node_head(peer, Request::from_parts(head, ()))?;
        strip_hop(head.headers_mut());
        let body = (!body.is_end_stream()).then_some(body);
        let answer = self.exchange(peer, (head, Kind::Node), body, CallTimeouts::default()).await;
        answer.map_err(Failure::error)
    }

    /// Asks a node itself for a stream.
    pub(crate) async fn stream_node(&self, peer: &Arc<Peer>, request: Request<()>) -> Result<NodeStream, CallError> {
        let mut head = node_head(peer, request)?;
        let path = head.uri().path_and_query().map_or("/", uri::PathAndQuery::as_str).to_owned();
        let bad = |_| CallError::Failed(format!("{path:?} is no path"));
        let path = HeaderValue::from_str(&path).map_err(bad)?;
        head.headers_mut().insert(wire::PATH, path);
        *head.method_mut() = Method::CONNECT;
        *head.uri_mut() = Uri::from_static("node:0");
        let limit = self.inner().config.connect_timeout;
        let stood = tokio::time::timeout(limit, self.stream(peer, (head, Kind::Node))).await;
        let late = |_| CallError::TimedOut(format!("node {} does not answer within {limit:?}", peer.node.name));
        match stood.map_err(late)?.map_err(Failure::error)? {
            Ok((incoming, out, held)) => Ok(NodeStream::Open(Box::new(Bytestream::new(incoming, out, held)))),
            Err(answer) => Ok(NodeStream::Answer(answer)),
        }
    }
}

/// A head for the node itself.
fn node_head(peer: &Peer, mut head: Request<()>) -> Result<Request<()>, CallError> {
    let path = head.uri().path_and_query().cloned().unwrap_or(uri::PathAndQuery::from_static("/"));
    let built = Uri::builder().scheme("https").authority(peer.node.address.to_string()).path_and_query(path).build();
    *head.uri_mut() = built.map_err(|error| CallError::Failed(error.to_string()))?;
    *head.version_mut() = http::Version::HTTP_2;
    head.extensions_mut().clear();
    head.headers_mut().remove(header::HOST);
    wire::strip(head.headers_mut());
    head.headers_mut().remove(wire::CALLER);
    Ok(head)
}

/// An answer, unless it is the node that says why there is none.
async fn heard(answer: Response<RecvStream>) -> Result<Response<RecvStream>, Failure> {
    let Some(word) = answer.headers().get(wire::ERROR).cloned() else { return Ok(answer) };
    let (mut stream, mut why) = (answer.into_body(), Vec::new());
    while let Some(Ok(piece)) = stream.data().await {
        why.extend_from_slice(&piece[..piece.len().min(WHY_BYTES_MAX - why.len())]);
    }
    let error = wire::read_refusal(&word, String::from_utf8_lossy(&why).into_owned());
    Err(if wire::is_unbegun(&error) { Failure::Unbegun(error) } else { Failure::Broken(error) })
}

fn socket_error(error: CallError) -> SocketError {
    match error {
        CallError::NotAccepted(why) | CallError::Refused(why) => SocketError::Refused(why),
        CallError::Denied(why) => SocketError::Denied(why),
        CallError::TimedOut(why) => SocketError::TimedOut(why),
        CallError::NameNotFound(why) | CallError::Failed(why) => SocketError::Failed(why),
    }
}
