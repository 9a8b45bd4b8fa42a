//! Listeners for clients outside the sandbox: one for all Ingresses, one for each node port. HTTP/1.1 and h2c, WebSockets
//! where the pods listen themselves, or whatever a node port's pods speak then. Node ports of UDP are in `udp_front`.
//!
//! Connections are bounded; a client that does not send its head in time is cut off; at shutdown requests under way
//! finish.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_util::sync::CancellationToken;

use crate::{
    Body, CallError, CallTimeouts, Network,
    calls::Behind,
    http_server,
    policy::Source,
    services::{Lookup, NodePort},
    splice::splice,
    table::{Name, Protocol},
    trace, udp_front, upgrade,
};

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
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
            _ => error.to_string(),
        };
        Self { address, reason }
    }
}

/// What a listener leads to.
#[derive(Clone)]
enum Entrance {
    Ingress,
    NodePort { service: Name, port: u16 },
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
            serve(network.clone(), bind(address).await?, entrance, stop).await;
        }
        Protocol::Udp => {
            let socket = UdpSocket::bind(address).await.map_err(|error| refused(address, &error))?;
            udp_front::serve(network.clone(), socket, to.clone(), stop).await;
        }
    }
    Ok(())
}

pub(crate) async fn listen_ingress(network: &Network, address: SocketAddr) -> Result<SocketAddr, ListenError> {
    let listener = bind(address).await?;
    let bound = listener.local_addr().map_err(|e| ListenError { address, reason: e.to_string() })?;
    let stop = network.inner().stopping.child_token();
    network.inner().tasks.spawn(serve(network.clone(), listener, Entrance::Ingress, stop));
    Ok(bound)
}

async fn bind(address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address).await.map_err(|error| refused(address, &error))
}

fn refused(address: SocketAddr, error: &std::io::Error) -> ListenError {
    ListenError::new(address, error)
}

async fn serve(network: Network, listener: TcpListener, entrance: Entrance, stop: CancellationToken) {
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

async fn connection(
    network: Network,
    stream: TcpStream,
    peer: SocketAddr,
    entrance: Entrance,
    stop: CancellationToken,
) {
    // Small messages are sent at once.
    let _ = stream.set_nodelay(true);
    // Pods that listen speak with the client themselves; those that are called are spoken for.
    if let Entrance::NodePort { service, port } = &entrance
        && let Lookup::Found(port) = network.inner().services.outer_port(service, *port, Protocol::Tcp)
        && network.behind(&port) == Behind::Listeners
    {
        return splice(&network, stream, peer, port).await;
    }
    let peer = peer.ip();
    let from = network.visitor(peer);
    let answer = |request| {
        let (network, entrance) = (network.clone(), entrance.clone());
        async move { answer(&network, &entrance, (peer, from), request).await }
    };
    if let Err(error) = http_server::serve(&network.inner().config, stream, &stop, answer).await {
        tracing::debug!(%peer, error, "a connection ended early");
    }
}

async fn answer(
    network: &Network,
    entrance: &Entrance,
    (peer, from): (IpAddr, Source),
    request: Request<Body>,
) -> Response<Body> {
    let request = forwarded(request, peer);
    match route(network, entrance, &request) {
        // Another protocol needs a connection; pods that are called have none.
        Lookup::Found(port) if upgrade::is_wanted(&request) && network.behind(&port) == Behind::Listeners => {
            upgrade::pass_on(network, port, from, request).await.unwrap_or_else(|e| failure(&e))
        }
        Lookup::Found(port) => {
            network.call_port(port, from, request, CallTimeouts::default()).await.unwrap_or_else(|e| failure(&e))
        }
        Lookup::NoPort => text(StatusCode::SERVICE_UNAVAILABLE, "The service has no such port.\n"),
        Lookup::NoService => text(StatusCode::NOT_FOUND, "No route leads from here to a service.\n"),
    }
}

fn route(network: &Network, entrance: &Entrance, request: &Request<Body>) -> Lookup {
    let services = &network.inner().services;
    match entrance {
        Entrance::NodePort { service, port } => services.outer_port(service, *port, Protocol::Tcp),
        Entrance::Ingress => match network.inner().routes.find(host(request), request.uri().path()) {
            Some(to) => match services.backend(&to.service, &to.port) {
                Lookup::NoService => Lookup::NoPort,
                found => found,
            },
            None => Lookup::NoService,
        },
    }
}

fn host<B>(request: &Request<B>) -> &str {
    let by_header = || request.headers().get(header::HOST).and_then(|h| h.to_str().ok());
    request.uri().host().or_else(by_header).unwrap_or_default()
}

/// Says who asked and how. What a client claims of this is replaced.
fn forwarded(request: Request<Body>, peer: IpAddr) -> Request<Body> {
    let (mut head, body) = request.into_parts();
    if let Ok(peer) = HeaderValue::from_str(&peer.to_string()) {
        head.headers.insert("x-forwarded-for", peer);
    }
    head.headers.insert("x-forwarded-proto", HeaderValue::from_static("http"));
    trace::pass_on(&mut head.headers);
    Request::from_parts(head, body)
}

/// The answer for a request that no pod answered.
pub(crate) fn failure(error: &CallError) -> Response<Body> {
    let status = match error {
        CallError::Refused(_) | CallError::NotAccepted(_) => StatusCode::SERVICE_UNAVAILABLE,
        CallError::TimedOut(_) => StatusCode::GATEWAY_TIMEOUT,
        CallError::Denied(_) => StatusCode::FORBIDDEN,
        CallError::NameNotFound(_) | CallError::Failed(_) => StatusCode::BAD_GATEWAY,
    };
    tracing::debug!(%status, %error, "a request has no answer");
    let mut response = text(status, &format!("{error}\n"));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

fn text(status: StatusCode, message: &str) -> Response<Body> {
    let body = Full::new(Bytes::copy_from_slice(message.as_bytes())).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
