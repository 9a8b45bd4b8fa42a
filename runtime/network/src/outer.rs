//! Ports of Services at addresses of their own: those of load balancers, `externalIPs`; and the port at which a load balancer
//! in front of several nodes asks whether this one has endpoints.
//!
//! Whoever asks for a listener has it until it is closed or dropped. Clients outside the ranges that are let in are cut off
//! before anything of theirs is read.
//!
//! # Source
//! Kubernetes `pkg/proxy/healthcheck/service_health.go` for what that port answers.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use parking_lot::RwLock;
use tokio::{
    net::{TcpListener, TcpStream, UdpSocket},
    sync::OwnedSemaphorePermit,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::{
    Body, ListenError, Network,
    front::{self, Entrance},
    http_server,
    ranges::IpRange,
    services::NodePort,
    table::{Name, Protocol},
    udp_front,
};

/// A port of a Service at an address of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OuterPort {
    /// Where.
    pub address: SocketAddr,
    /// What is spoken.
    pub protocol: Protocol,
    /// The Service.
    pub service: Name,
    /// Its port.
    pub port: u16,
}

/// Who is let in: those of these ranges; all when there are none.
#[derive(Debug, Default)]
pub(crate) struct Allowed(RwLock<Vec<IpRange>>);

impl Allowed {
    pub(crate) fn has(&self, ip: IpAddr) -> bool {
        let ranges = self.0.read();
        ranges.is_empty() || ranges.iter().any(|range| range.contains(ip.to_canonical()))
    }
}

/// Something that listens, until this is closed or dropped.
#[derive(Debug)]
pub struct OuterListener {
    address: SocketAddr,
    allowed: Arc<Allowed>,
    stop: CancellationToken,
    listening: Option<JoinHandle<()>>,
}

impl OuterListener {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets in clients of these ranges only, from now on; all when there are none.
    pub fn allow(&self, ranges: Vec<IpRange>) {
        *self.allowed.0.write() = ranges;
    }

    /// Listens no more; when this returns the address is free. Requests under way finish.
    pub async fn close(mut self) {
        self.stop.cancel();
        if let Some(listening) = self.listening.take() {
            // It only ends early when the runtime does.
            let _ = listening.await;
        }
    }
}

impl Drop for OuterListener {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Network {
    /// Gives a Service's port an address of this host.
    ///
    /// # Errors
    /// The address is taken, not ours, or needs a right that this process has not.
    pub async fn listen_service(&self, port: OuterPort, ranges: Vec<IpRange>) -> Result<OuterListener, ListenError> {
        let refused = |error: std::io::Error| ListenError::new(port.address, &error);
        let (allowed, stop) = (Arc::new(Allowed(RwLock::new(ranges))), self.inner().stopping.child_token());
        let (address, listening) = match port.protocol {
            Protocol::Tcp => {
                let listener = TcpListener::bind(port.address).await.map_err(refused)?;
                let address = listener.local_addr().map_err(refused)?;
                let entrance = Entrance::NodePort { service: port.service, port: port.port };
                let (network, allowed, stop) = (self.clone(), allowed.clone(), stop.clone());
                (address, tokio::spawn(accept(network, listener, (entrance, allowed), stop)))
            }
            Protocol::Udp => {
                let socket = UdpSocket::bind(port.address).await.map_err(refused)?;
                let address = socket.local_addr().map_err(refused)?;
                let OuterPort { protocol, service, port, .. } = port;
                let to = NodePort { protocol, node_port: address.port(), service, port };
                let serving = udp_front::serve(self.clone(), socket, (to, allowed.clone()), stop.clone());
                (address, tokio::spawn(serving))
            }
        };
        Ok(OuterListener { address, allowed, stop, listening: Some(listening) })
    }

    /// Answers at an address whether this node has endpoints of a Service: 200, or 503 when it has none.
    ///
    /// # Errors
    /// The address is taken or not ours.
    pub async fn listen_health(&self, address: SocketAddr, service: Name) -> Result<OuterListener, ListenError> {
        let refused = |error: std::io::Error| ListenError::new(address, &error);
        let listener = TcpListener::bind(address).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let (allowed, stop) = (Arc::default(), self.inner().stopping.child_token());
        let (network, stopping) = (self.clone(), stop.clone());
        let listening = tokio::spawn(async move {
            let inner = network.inner();
            loop {
                let Some((permit, accepted)) = next(&network, &listener, &stopping).await else { return };
                let Some((stream, _)) = accepted else { continue };
                let (network, service, stopping) = (network.clone(), service.clone(), stopping.clone());
                inner.tasks.spawn(async move {
                    let answer = |_request: Request<Body>| std::future::ready(health(&network, &service));
                    // A client that breaks off has its answer, or does not want it.
                    let _ = http_server::serve(&network.inner().config, stream, &stopping, answer).await;
                    drop(permit);
                });
            }
        });
        Ok(OuterListener { address, allowed, stop, listening: Some(listening) })
    }
}

async fn accept(
    network: Network,
    listener: TcpListener,
    (entrance, allowed): (Entrance, Arc<Allowed>),
    stop: CancellationToken,
) {
    let inner = network.inner();
    loop {
        let Some((permit, accepted)) = next(&network, &listener, &stop).await else { return };
        match accepted {
            Some((stream, peer)) if !allowed.has(peer.ip()) => refuse(&stream, peer),
            Some((stream, peer)) => {
                let serving = front::connection(network.clone(), stream, peer, entrance.clone(), stop.clone());
                inner.tasks.spawn(async move {
                    serving.await;
                    drop(permit);
                });
            }
            None => {}
        }
    }
}

/// The next client, when there is room for one; `None` when nobody is to be waited for any more. Stopping waits for neither.
async fn next(
    network: &Network,
    listener: &TcpListener,
    stop: &CancellationToken,
) -> Option<(OwnedSemaphorePermit, Option<(TcpStream, SocketAddr)>)> {
    let accepting = async {
        let permit = network.inner().connections.clone().acquire_owned().await.ok()?;
        match listener.accept().await {
            Ok(accepted) => Some((permit, Some(accepted))),
            // Out of file descriptors, most likely: let connections end before trying again.
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                Some((permit, None))
            }
        }
    };
    tokio::select! {
        accepted = accepting => accepted,
        () = stop.cancelled() => None,
    }
}

/// Resets a connection.
fn refuse(stream: &TcpStream, peer: SocketAddr) {
    tracing::debug!(%peer, "a client is outside loadBalancerSourceRanges");
    // What cannot be reset is closed.
    let _ = stream.set_zero_linger();
}

fn health(network: &Network, service: &Name) -> Response<Body> {
    let local = network.inner().services.local_endpoints(service);
    let text = format!(
        "{{\n\t\"service\": {{\n\t\t\"namespace\": \"{}\",\n\t\t\"name\": \"{}\"\n\t}},\n\t\"localEndpoints\": {local},\n\t\
         \"serviceProxyHealthy\": true\n}}",
        service.namespace, service.name
    );
    let mut answer = Response::new(Full::from(Bytes::from(text)).map_err(|never| match never {}).boxed_unsync());
    *answer.status_mut() = if local > 0 { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    headers.insert("x-load-balancing-endpoint-weight", HeaderValue::from(local));
    answer
}
