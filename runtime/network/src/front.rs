//! Listeners for clients outside the sandbox: one for all Ingresses, one for each port of Gateways (see `gateways`), one for
//! each node port. HTTP/1.1 and h2c, WebSockets where the pods listen themselves, or whatever a node port's pods speak then.
//! Node ports of UDP are in `udp_front`.
//!
//! Connections and bodies are bounded; a client that does not send its head in time is cut off; at shutdown requests under
//! way finish.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use http::{Request, Response, StatusCode, header};
use http_body::Body as _;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_util::sync::CancellationToken;

use crate::{
    Body, CallTimeouts, Network,
    access_log::Line,
    bodies::{Hears, bounded, heard},
    forwarded::{self, Came},
    gateways::{self, SharedPort},
    hello, http_server,
    metrics::RouteMetrics,
    proxy::{self, Client, Served},
    routes,
    services::{Lookup, NodePort},
    spans::{Of, Span},
    splice::splice,
    stream::ByteStream,
    table::{Name, Protocol},
    trace, udp_front,
};

/// Why an address cannot be listened on.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot listen on {address}: {reason}")]
pub struct ListenError {
    /// Which address.
    pub address: SocketAddr,
    /// What the system says.
    pub reason: String,
}

impl ListenError {
    pub(crate) fn new(address: SocketAddr, error: &std::io::Error) -> Self {
        let reason = match error.kind() {
            std::io::ErrorKind::AddrInUse => "the port is already in use".to_owned(),
            std::io::ErrorKind::PermissionDenied => {
                "this process may not listen at ports as low as this one".to_owned()
            }
            _ => error.to_string(),
        };
        Self { address, reason }
    }
}

/// What a listener leads to.
#[derive(Clone)]
pub(crate) enum Entrance {
    Ingress {
        /// Whether its clients speak TLS.
        secure: bool,
    },
    Gateway(SharedPort),
    NodePort {
        service: Name,
        port: u16,
    },
}

#[derive(Default)]
pub(crate) struct NodePorts(Mutex<HashMap<(Protocol, u16), Open>>);

struct Open {
    to: NodePort,
    stop: CancellationToken,
}

/// Opens and closes node ports so that they are those wanted.
pub(crate) fn sync_node_ports(network: &Network, wanted: Vec<NodePort>) {
    let mut open = network.inner().node_ports.0.lock();
    let wanted: HashMap<_, NodePort> = wanted.into_iter().map(|p| ((p.protocol, p.node_port), p)).collect();
    open.retain(|port, o| {
        let keep = wanted.get(port) == Some(&o.to);
        if !keep {
            o.stop.cancel();
        }
        keep
    });
    for (port, to) in wanted {
        open.entry(port).or_insert_with(|| {
            let stop = network.inner().stopping.child_token();
            open_node_port(network.clone(), to.clone(), stop.clone());
            Open { to, stop }
        });
    }
}

fn open_node_port(network: Network, to: NodePort, stop: CancellationToken) {
    let address = SocketAddr::new(network.inner().config.node_port_address, to.node_port);
    let tasks = network.inner().tasks.clone();
    tasks.spawn(async move {
        if let Err(error) = serve_node_port(&network, &to, address, stop).await {
            tracing::warn!(service = %to.service, %error, "the node port does not listen");
            network.inner().node_ports.0.lock().remove(&(to.protocol, to.node_port));
        }
    });
}

async fn serve_node_port(
    network: &Network,
    to: &NodePort,
    address: SocketAddr,
    stop: CancellationToken,
) -> Result<(), ListenError> {
    match to.protocol {
        Protocol::Tcp => {
            let entrance = Entrance::NodePort { service: to.service.clone(), port: to.port };
            serve(network.clone(), bind(address).await?.0, entrance, stop).await;
        }
        Protocol::Udp => {
            let socket = UdpSocket::bind(address).await.map_err(|error| refused(address, &error))?;
            udp_front::serve(network.clone(), socket, (to.clone(), Arc::default()), stop).await;
        }
    }
    Ok(())
}

pub(crate) async fn listen_ingress(
    network: &Network,
    address: SocketAddr,
    secure: bool,
) -> Result<SocketAddr, ListenError> {
    let (listener, bound) = bind(address).await?;
    let stop = network.inner().stopping.child_token();
    network.inner().tasks.spawn(serve(network.clone(), listener, Entrance::Ingress { secure }, stop));
    Ok(bound)
}

/// Listens, and tells where.
pub(crate) async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), ListenError> {
    let listener = TcpListener::bind(address).await.map_err(|error| refused(address, &error))?;
    let bound = listener.local_addr().map_err(|error| refused(address, &error))?;
    Ok((listener, bound))
}

fn refused(address: SocketAddr, error: &std::io::Error) -> ListenError {
    ListenError::new(address, error)
}

pub(crate) async fn serve(network: Network, listener: TcpListener, entrance: Entrance, stop: CancellationToken) {
    loop {
        let Ok(permit) = network.inner().connections.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                let connection = connection(network.clone(), stream, peer, entrance.clone(), stop.clone());
                network.inner().tasks.spawn(async move {
                    connection.await;
                    drop(permit);
                });
            }
            // Out of file descriptors, most likely: let connections end before trying again.
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

pub(crate) async fn connection(
    network: Network,
    stream: TcpStream,
    peer: SocketAddr,
    entrance: Entrance,
    stop: CancellationToken,
) {
    // Small messages are sent at once.
    let _ = stream.set_nodelay(true);
    let port = match &entrance {
        Entrance::Gateway(port) => return gateways::connection(&network, port.clone(), (stream, peer), &stop).await,
        Entrance::NodePort { service, port } => {
            // Who listens speaks with the client itself, in the cluster or outside; pods that are called are spoken for.
            if let Lookup::Found(port) = network.inner().services.outer_port(service, *port, Protocol::Tcp)
                && network.behind_now(&port).await.listens()
            {
                return splice(&network, stream, peer, port).await;
            }
            *port
        }
        Entrance::Ingress { .. } => stream.local_addr().map_or(80, |address| address.port()),
    };
    let secure = matches!(entrance, Entrance::Ingress { secure: true });
    let client = Client { peer: peer.ip(), from: network.visitor(peer.ip()), secure, port };
    if !secure {
        return speak(&network, &entrance, client, stream, &stop).await;
    }
    let limit = network.inner().config.header_timeout;
    match hello::accept(stream, limit, |name| network.inner().routes.tls(name)).await {
        Ok(stream) => speak(&network, &entrance, client, stream, &stop).await,
        Err(error) => tracing::debug!(%peer, %error, "TLS with a client failed"),
    }
}

/// Speaks HTTP with a client.
async fn speak(
    network: &Network,
    entrance: &Entrance,
    client: Client,
    stream: impl ByteStream,
    stop: &CancellationToken,
) {
    let answer = |request| {
        let (network, entrance) = (network.clone(), entrance.clone());
        async move { answer(&network, &entrance, (client, None), request).await }
    };
    if let Err(error) = http_server::serve(&network.inner().config, stream, stop, answer).await {
        tracing::debug!(peer = %client.peer, error, "a connection ended early");
    }
}

/// Answers one request of a client outside. `name`: the host that it named when it began TLS.
pub(crate) async fn answer(
    network: &Network,
    entrance: &Entrance,
    (client, name): (Client, Option<&str>),
    mut request: Request<Body>,
) -> Response<Body> {
    let config = &network.inner().config;
    let hosts = request.headers().get_all(header::HOST).iter().count();
    forwarded::settle(&mut request);
    let host = proxy::host(&request).to_owned();
    let since = Instant::now();
    let mut line = config.access_log.as_ref().map(|log| log.begin(client.peer, client.scheme(), &host, &request));
    let trusted = config.trusted_proxies.iter().any(|range| range.contains(client.peer));
    let came = Came { peer: client.peer, trusted, scheme: client.scheme(), host: &host, port: client.port };
    forwarded::say(request.headers_mut(), came);
    let begun = trace::pass_on(request.headers_mut());
    let mut span = network.span(Of::Server, request.headers_mut(), begun);
    if let Some(span) = &mut span {
        span.name(request.method().to_string());
        span.say("http.request.method", request.method().as_str());
        span.say("url.path", request.uri().path());
        span.say("url.scheme", client.scheme());
        span.say("server.address", routes::without_port(&host));
        span.say("client.address", client.peer.to_string());
    }
    let ((answer, service), route) = match checked(request, hosts, config.request_body_bytes_max) {
        Ok((request, passed)) => {
            // Boxed: a connection keeps room for what answers.
            let served = Box::pin(routed(network, entrance, (client, name), request)).await;
            // However the pod took it.
            match passed.load(Ordering::Relaxed) {
                true => ((proxy::text(TOO_LARGE.0, TOO_LARGE.1), served.0.1), served.1),
                false => served,
            }
        }
        Err((status, why)) => ((proxy::text(status, why), None), None),
    };
    let series = route.as_ref().map(|route| network.metrics().route(route));
    if let Some(series) = &series {
        series.answered(answer.status(), since.elapsed().as_secs_f64());
    }
    if let Some(span) = &mut span {
        span.answered(Some(answer.status()));
        if let Some(route) = &route {
            span.say("http.route", &**route);
        }
        if let Some(service) = &service {
            span.say("podium.service", service.to_string());
        }
    }
    if let Some(line) = &mut line {
        (line.found, line.service, line.status) = (route, service, Some(answer.status()));
    }
    match (line, span, series) {
        (None, None, None) => answer,
        (line, span, series) => answer.map(|body| heard(body, Noted { line, span, series })),
    }
}

/// What is told of an answer, until its body has ended.
struct Noted {
    line: Option<Line>,
    span: Option<Box<Span>>,
    series: Option<Arc<RouteMetrics>>,
}

impl Hears for Noted {
    fn bytes(&mut self, count: u64) {
        self.line.iter_mut().for_each(|line| line.bytes(count));
        self.span.iter_mut().for_each(|span| span.bytes(count));
        self.series.iter_mut().for_each(|series| series.bytes(count));
    }
}

/// What a client hears whose request goes nowhere.
type Refusal = (StatusCode, &'static str);

const TOO_LARGE: Refusal = (StatusCode::PAYLOAD_TOO_LARGE, "The request's body is larger than may be.\n");

/// What of a request can be judged before it goes anywhere: one host, and not too much of it.
fn checked(request: Request<Body>, hosts: usize, bytes_max: u64) -> Result<(Request<Body>, Arc<AtomicBool>), Refusal> {
    if hosts > 1 {
        return Err((StatusCode::BAD_REQUEST, "The request names several hosts.\n"));
    }
    if request.body().size_hint().lower() > bytes_max {
        return Err(TOO_LARGE);
    }
    if request.body().size_hint().exact().is_some() {
        return Ok((request, Arc::default()));
    }
    let (head, body) = request.into_parts();
    let (body, passed) = bounded(body, bytes_max);
    Ok((Request::from_parts(head, body), passed))
}

/// Where a request goes, and what that is called.
async fn routed(
    network: &Network,
    entrance: &Entrance,
    (client, name): (Client, Option<&str>),
    request: Request<Body>,
) -> (Served, Option<Arc<str>>) {
    match entrance {
        Entrance::Gateway(port) => gateways::answer(network, port, (client, name), request).await,
        Entrance::Ingress { .. } => match network.inner().routes.find(proxy::host(&request), &request) {
            Some(found) => (proxy::serve(network, &found, client, request).await, Some(found.route)),
            None => (nobody(), None),
        },
        Entrance::NodePort { service, port } => {
            let lookup = network.inner().services.outer_port(service, *port, Protocol::Tcp);
            match proxy::call(network, lookup, client.from, request, CallTimeouts::default()).await {
                Some(answer) => ((answer, Some(service.clone())), None),
                None => (nobody(), None),
            }
        }
    }
}

fn nobody() -> Served {
    (proxy::text(StatusCode::NOT_FOUND, "No route leads from here to a service.\n"), None)
}
