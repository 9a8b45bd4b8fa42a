//! Being asked by other nodes: who they are, for whom they speak, and what is done for them.
//!
//! A node is believed when it speaks for pods of its own podCIDRs, and for clients outside the cluster, whom nobody else
//! can know. The policies of this node decide with what it says. Only the API server gets to the node itself.

use std::{
    future::poll_fn,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use h2::{RecvStream, server::SendResponse};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body::Body as _;
use http_body_util::{BodyExt as _, Empty};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use super::{
    NodeHandler, TunnelConfig, TunnelLimits, TunnelPeer,
    count::{Kind, Tallied, Way, tallied},
    datagrams::{self, Datagram, Speaker},
    flow::{self, Bytestream, Received},
    line::keep_alive,
    nodes::acceptor,
    wire::{self, Identity},
    workloads::Register,
};
use crate::{
    Body, CallError, CallTimeouts, ListenError, Network, SocketError,
    attach::Attached,
    http_client::{PriorKnowledge, chain, strip_hop},
    policy::Source,
    splice::carry,
    table::Protocol,
    tcp::{self, Visit},
};

/// Longest time until a certificate is looked at again.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Listens; returns the address bound.
pub(crate) async fn listen(
    network: &Network,
    config: TunnelConfig,
    address: SocketAddr,
) -> Result<SocketAddr, ListenError> {
    let failed = |reason: String| ListenError { address, reason };
    let tls = acceptor(&config).map_err(failed)?;
    let listener = TcpListener::bind(address).await.map_err(|error| failed(error.to_string()))?;
    let bound = listener.local_addr().map_err(|error| failed(error.to_string()))?;
    let connections = Arc::new(Semaphore::new(config.limits.connections_max));
    let register = config.workloads.clone().map(|workloads| Arc::new(Register::new(workloads)));
    let entrance = Entrance { network: network.clone(), tls, config: Arc::new(config), register };
    network.inner().tasks.spawn(entrance.accept(listener, connections));
    Ok(bound)
}

#[derive(Clone)]
struct Entrance {
    network: Network,
    tls: TlsAcceptor,
    config: Arc<TunnelConfig>,
    register: Option<Arc<Register>>,
}

impl Entrance {
    async fn accept(self, listener: TcpListener, connections: Arc<Semaphore>) {
        let stop = self.network.inner().stopping.clone();
        loop {
            let Ok(permit) = connections.clone().acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stop.cancelled() => return,
            };
            match accepted {
                Ok((stream, address)) => {
                    let connection = self.clone().connection(stream, address, permit);
                    self.network.inner().tasks.spawn(connection);
                }
                // Out of file descriptors, most likely: let connections end before trying again.
                Err(error) => {
                    tracing::warn!(%error, "a node's connection could not be accepted");
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn connection(self, stream: TcpStream, address: SocketAddr, _permit: OwnedSemaphorePermit) {
        let tunnels = &self.network.inner().metrics.tunnels;
        match self.shake_hands(stream, address).await {
            Ok((connection, visitor, expires)) => {
                let open = tunnels.connections.with_label_values(&[Way::In.word()]);
                open.inc();
                let user = visitor.peer.user.clone();
                tracing::debug!(user, %address, "a tunnel stands");
                if let Err(why) = self.serve(connection, Arc::new(visitor), expires).await {
                    tracing::debug!(user, %address, why, "a tunnel ended early");
                }
                open.dec();
            }
            Err(why) => {
                tunnels.failures.with_label_values(&["handshake"]).inc();
                tracing::info!(%address, why, "a connection of no node was refused");
            }
        }
    }

    async fn shake_hands(
        &self,
        stream: TcpStream,
        address: SocketAddr,
    ) -> Result<(Connection, Visitor, Duration), String> {
        // Small messages are sent at once.
        let _ = stream.set_nodelay(true);
        let stream = tallied(stream, Some(&self.network.inner().metrics.tunnels.bytes));
        let limits = &self.config.limits;
        let shaken = timeout(limits.connect_timeout, async {
            let stream = self.tls.accept(stream).await.map_err(|error| chain(&error))?;
            let certificate = stream.get_ref().1.peer_certificates().and_then(|all| all.first());
            let peer = certificate.and_then(TunnelPeer::read).ok_or("its certificate cannot be read")?;
            let connection = builder(limits).handshake(stream).await.map_err(|error| chain(&error))?;
            Ok::<_, String>((connection, peer))
        });
        let late = |_| format!("it took longer than {:?}", limits.connect_timeout);
        let (connection, (peer, expires)) = shaken.await.map_err(late)??;
        if peer.node().is_none() && !peer.is_master() {
            return Err(format!("{} is no node", peer.user));
        }
        let visitor = Visitor {
            network: self.network.clone(),
            peer,
            address: address.ip(),
            node_requests: self.config.node_requests.clone(),
            register: self.register.clone(),
            head_bytes_max: limits.header_bytes_max,
        };
        Ok((connection, visitor, expires))
    }

    /// Until the other end closes it, or its certificate expires, or this node goes down: then what is under way ends.
    async fn serve(&self, mut connection: Connection, visitor: Arc<Visitor>, expires: Duration) -> Result<(), String> {
        let pings = connection.ping_pong();
        let silence = keep_alive(pings, &self.config.limits);
        let expiry = sleep(expires.min(DAY));
        tokio::pin!(silence, expiry);
        let (stop, mut ending) = (self.network.inner().stopping.clone(), false);
        loop {
            let accepted = tokio::select! {
                accepted = connection.accept() => accepted,
                silent = &mut silence => return Err(silent),
                () = stop.cancelled(), if !ending => {
                    (ending, _) = (true, connection.graceful_shutdown());
                    continue;
                }
                () = &mut expiry, if !ending => {
                    (ending, _) = (true, connection.graceful_shutdown());
                    continue;
                }
            };
            match accepted {
                None => return Ok(()),
                Some(Err(error)) => return Err(chain(&error)),
                Some(Ok((request, respond))) => {
                    self.network.inner().tasks.spawn(visitor.clone().stream(request, respond));
                }
            }
        }
    }
}

type Connection = h2::server::Connection<tokio_rustls::server::TlsStream<Tallied<TcpStream>>, Bytes>;

fn builder(limits: &TunnelLimits) -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(limits.stream_window_bytes)
        .initial_connection_window_size(limits.connection_window())
        .max_header_list_size(limits.header_bytes_max)
        .max_send_buffer_size(limits.stream_window_bytes as usize)
        .max_concurrent_streams(limits.streams_max)
        // Clients that give up are no attack here: whoever comes has a certificate.
        .max_pending_accept_reset_streams(limits.streams_max as usize)
        .max_concurrent_reset_streams(limits.streams_max as usize);
    builder
}

/// Who has come, over one connection.
struct Visitor {
    network: Network,
    peer: TunnelPeer,
    address: IpAddr,
    node_requests: Option<Arc<dyn NodeHandler>>,
    register: Option<Arc<Register>>,
    head_bytes_max: u32,
}

/// For whom something is asked.
struct Asker {
    from: Source,
    /// What the pod sees as the other end of a connection.
    client: SocketAddr,
    who: Option<Identity>,
}

impl Visitor {
    async fn stream(self: Arc<Self>, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        if request.method() == Method::CONNECT {
            return self.connect(request, respond).await;
        }
        let answer = tokio::select! {
            answer = self.answer(request) => answer,
            // Nobody waits for it any more.
            _ = poll_fn(|cx| respond.poll_reset(cx)) => return,
        };
        reply(answer.unwrap_or_else(|error| wire::refusal(&error)), respond, self.head_bytes_max).await;
    }

    async fn answer(&self, request: Request<RecvStream>) -> Result<Response<Body>, CallError> {
        let metrics = &self.network.inner().metrics.tunnels;
        let Some(to) = wire::read_address(request.headers(), &wire::TO)? else {
            let under_way = metrics.stream(Way::In, Kind::Node);
            return self.answer_itself(request.map(|stream| Received::body(stream, Hold(under_way)))).await;
        };
        let under_way = metrics.stream(Way::In, Kind::Request);
        if request.headers().contains_key(wire::SIDE) {
            return self.side(to);
        }
        let asker = self.asker(request.headers(), to).await?;
        let attached = self.attached(to)?;
        let inner = self.network.inner();
        inner.policies.judge(asker.from, attached.address, Protocol::Tcp)?;
        let refused = || CallError::NotAccepted(format!("{to} takes no requests now"));
        let ticket = attached.admit().ok_or_else(refused)?;
        let mut request = request.map(|stream| Received::body(stream, Hold(under_way)));
        if request.headers().contains_key(wire::H2) {
            request.extensions_mut().insert(PriorKnowledge);
        }
        wire::strip(request.headers_mut());
        request.headers_mut().remove(wire::CALLER);
        if let Some(who) = &asker.who {
            request.headers_mut().insert(wire::CALLER, who.spiffe.clone());
        }
        let watch = self.network.watch(asker.from, attached.address);
        let answer = attached.call(&self.network, request, ticket, (CallTimeouts::default(), watch)).await?;
        Ok(clean(answer))
    }

    /// Whoever listens at a pod's port of this node.
    fn attached(&self, to: SocketAddr) -> Result<Arc<Attached>, CallError> {
        let attached = self.network.inner().attachments.get(to);
        attached.ok_or_else(|| CallError::Refused(format!("nobody listens at {to}")))
    }

    fn side(&self, to: SocketAddr) -> Result<Response<Body>, CallError> {
        let side = if self.attached(to)?.is_socket() { "socket" } else { "handler" };
        let mut answer = Response::new(empty());
        answer.headers_mut().insert(wire::SIDE, HeaderValue::from_static(side));
        Ok(answer)
    }

    /// For whom the other end speaks.
    ///
    /// # Errors
    /// `Denied`: it may not; `NotAccepted`: nobody knows yet.
    async fn asker(&self, headers: &http::HeaderMap, to: SocketAddr) -> Result<Asker, CallError> {
        let inner = self.network.inner();
        let said = wire::read_address(headers, &wire::SOURCE)?;
        let Some(name) = self.peer.node() else {
            return match said {
                None => Ok(Asker { from: Source::Node, client: self.network.node_side(), who: None }),
                Some(client) if self.is_outside(client.ip()) => {
                    Ok(Asker { from: Source::Ip(client.ip()), client, who: None })
                }
                Some(client) => Err(self.spoofed(format_args!("{} is no node of {}", self.peer.user, client.ip()))),
            };
        };
        let Some(source) = said else {
            let port = inner.attachments.tcp.ephemeral();
            let client = SocketAddr::new(self.network.node_side().ip(), port);
            return Ok(Asker { from: Source::Ip(self.address.to_canonical()), client, who: None });
        };
        let own = self.owns(name, source.ip())?;
        let who = match Identity::read(&inner.config.cluster_domain, headers).filter(|_| own) {
            Some(who) => self.confirmed(name, source.ip(), who).await?,
            None => None,
        };
        if let Some(who) = &who {
            inner.metrics.tunnels.heard_of(who);
        }
        let workload = who.as_ref().map(|who| (who.spiffe.to_str().unwrap_or_default(), &*who.pod));
        tracing::trace!(node = name, %source, %to, ?workload, "another node asks for a pod of its own");
        let port = if source.port() == 0 { inner.attachments.tcp.ephemeral() } else { source.port() };
        Ok(Asker { from: Source::Ip(source.ip()), client: SocketAddr::new(source.ip(), port), who })
    }

    /// A pod of another node, if it is who its node says; `None` while nobody can say.
    ///
    /// # Errors
    /// `Denied`: it is another.
    async fn confirmed(&self, node: &str, ip: IpAddr, who: Identity) -> Result<Option<Identity>, CallError> {
        let Some(register) = &self.register else { return Ok(Some(who)) };
        match register.judge(node, ip, &who).await {
            Some(true) => Ok(Some(who)),
            Some(false) => {
                let spiffe = who.spiffe.to_str().unwrap_or_default();
                Err(self.spoofed(format_args!(
                    "node {node} says of {ip} that it is {} with {spiffe}, which it is not",
                    who.pod
                )))
            }
            None => Ok(None),
        }
    }

    /// Whether an address that a node speaks for is one of its pods', or else one outside.
    ///
    /// # Errors
    /// `Denied`: it is neither; `NotAccepted`: nobody knows the node yet.
    fn owns(&self, node: &str, ip: IpAddr) -> Result<bool, CallError> {
        let inner = self.network.inner();
        let owns = inner.tunnels.owns(node, ip);
        let own = owns.ok_or_else(|| CallError::NotAccepted(format!("node {node} is not known here yet")))?;
        if own || self.is_outside(ip) {
            return Ok(own);
        }
        Err(self.spoofed(format_args!("node {node} speaks for {ip}, which is not its own")))
    }

    fn is_outside(&self, ip: IpAddr) -> bool {
        let inner = self.network.inner();
        !inner.is_cluster(ip) && !inner.outside.is_host(ip)
    }

    fn spoofed(&self, why: std::fmt::Arguments<'_>) -> CallError {
        self.network.inner().metrics.tunnels.failures.with_label_values(&["spoofed"]).inc();
        tracing::warn!(user = self.peer.user, address = %self.address, %why, "a request of another node was refused");
        CallError::Denied(why.to_string())
    }

    /// What is for the node itself.
    async fn answer_itself(&self, mut request: Request<Body>) -> Result<Response<Body>, CallError> {
        let handler = self.node_requests()?;
        wire::strip(request.headers_mut());
        Ok(clean(handler.call(&self.peer, request).await?))
    }

    fn node_requests(&self) -> Result<&Arc<dyn NodeHandler>, CallError> {
        if !self.peer.is_master() {
            return Err(self.spoofed(format_args!("{} may not ask the node itself", self.peer.user)));
        }
        self.node_requests.as_ref().ok_or_else(|| CallError::Refused("the node answers nothing itself".to_owned()))
    }

    async fn connect(&self, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
        if request.headers().contains_key(wire::PATH) {
            return self.connect_itself(request, respond).await;
        }
        if request.headers().contains_key(wire::PROTOCOL) {
            return self.datagrams(request, respond).await;
        }
        let under_way = self.network.inner().metrics.tunnels.stream(Way::In, Kind::Bytes);
        let mut pod = match self.visit(&request).await {
            Ok(pod) => pod,
            Err(error) => return reply(wire::refusal(&error), respond, self.head_bytes_max).await,
        };
        let Some(mut tunnel) = stands(request, respond) else { return };
        if carry(&self.network, &mut tunnel, &mut pod).await.is_err() {
            pod.stream().cutter().cut();
            tunnel.abort();
        }
        drop(under_way);
    }

    async fn datagrams(&self, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
        let under_way = self.network.inner().metrics.tunnels.stream(Way::In, Kind::Datagrams);
        if self.peer.node().is_none() {
            let error = self.spoofed(format_args!("{} is no node", self.peer.user));
            return reply(wire::refusal(&error), respond, self.head_bytes_max).await;
        }
        if let Some(stream) = stands(request, respond) {
            tokio::select! {
                () = datagrams::deliver(&self.network, self, stream) => {}
                () = self.network.inner().stopping.cancelled() => {}
            }
        }
        drop(under_way);
    }

    async fn visit(&self, request: &Request<RecvStream>) -> Result<tcp::NearEnd<()>, CallError> {
        let bad = || CallError::Failed(format!("{} is no address", request.uri()));
        let to = request.uri().authority().and_then(|to| to.as_str().parse::<SocketAddr>().ok()).ok_or_else(bad)?;
        let to = SocketAddr::new(to.ip().to_canonical(), to.port());
        let asker = self.asker(request.headers(), to).await?;
        let attached = self.attached(to)?;
        let visit = Visit { from: asker.from, client: asker.client, server: to, held: (), counted: true };
        let visited = tcp::visit_near(&self.network, &attached, visit).await;
        visited.map_err(|error: SocketError| error.into())
    }

    async fn connect_itself(&self, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
        let under_way = self.network.inner().metrics.tunnels.stream(Way::In, Kind::Node);
        let serve = match self.serve_stream(&request).await {
            Ok(serve) => serve,
            Err(answer) => return reply(answer, respond, self.head_bytes_max).await,
        };
        if let Some(tunnel) = stands(request, respond) {
            serve(Box::new(tunnel)).await;
        }
        drop(under_way);
    }

    async fn serve_stream(&self, request: &Request<RecvStream>) -> Result<super::ServeStream, Response<Body>> {
        let handler = self.node_requests().map_err(|error| wire::refusal(&error))?;
        let path = wire::single(request.headers(), &wire::PATH).and_then(|path| path.parse::<Uri>().ok());
        let bad = || wire::refusal(&CallError::Failed("the stream's path is none".to_owned()));
        let mut asked = Request::new(());
        *asked.uri_mut() = path.ok_or_else(bad)?;
        *asked.method_mut() = Method::CONNECT;
        *asked.headers_mut() = request.headers().clone();
        wire::strip(asked.headers_mut());
        handler.connect(&self.peer, asked).await.map_err(clean)
    }
}

impl Speaker for Visitor {
    fn source(&self, datagram: &Datagram) -> Option<Source> {
        let node = self.peer.node()?;
        // What pods answer to is the node's own in any case.
        let own = self.owns(node, datagram.from.ip()).ok()?;
        let asker = datagram.asker.map(|asker| self.owns(node, asker).map(|_| asker)).transpose().ok()?;
        own.then(|| Source::Ip(asker.unwrap_or_else(|| self.address.to_canonical())))
    }
}

/// Holds something with a body.
struct Hold<T>(#[allow(dead_code)] T);

fn empty() -> Body {
    Empty::new().map_err(|never| match never {}).boxed_unsync()
}

/// An answer of a pod: it does not speak for the node.
fn clean(mut answer: Response<Body>) -> Response<Body> {
    wire::strip(answer.headers_mut());
    strip_hop(answer.headers_mut());
    answer
}

/// Says that a stream stands.
fn stands(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) -> Option<Bytestream<()>> {
    // It fails when the other end has given up.
    let out = respond.send_response(Response::new(()), false).ok()?;
    Some(Bytestream::new(request.into_body(), out, ()))
}

/// Sends an answer.
async fn reply(mut answer: Response<Body>, mut respond: SendResponse<Bytes>, head_bytes_max: u32) {
    if wire::is_too_large(answer.headers(), 0, head_bytes_max) {
        let why = format!("the answer's head is larger than the {head_bytes_max} bytes that come from other nodes");
        answer = wire::refusal(&CallError::Failed(why));
    }
    let (mut head, body) = answer.into_parts();
    head.version = http::Version::HTTP_2;
    head.extensions.clear();
    let end = body.is_end_stream();
    // Nothing of these can be an answer here.
    if head.status.is_informational() {
        head.status = StatusCode::BAD_GATEWAY;
    }
    // It fails when the other end has given up.
    if let Ok(out) = respond.send_response(Response::from_parts(head, ()), end)
        && !end
    {
        flow::send(body, out, head_bytes_max).await;
    }
}
