//! What a node's tunnel is told: who the node is, whom it believes, which other nodes there are, and its bounds.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use http::{Request, Response, StatusCode};
use rustls::{RootCertStore, sign::CertifiedKey};

use super::Workloads;
use crate::{Body, CallError, IpRange, PodStream, proxy};

/// Certificates and keys, asked for at each new connection: they may change while the node runs.
///
/// A connection takes nothing new once the certificate that its client showed has expired: another is made, with what is
/// current then.
pub trait TunnelIdentity: Send + Sync + 'static {
    /// Shown to whoever connects to this node: CN `system:node:NAME`, O `system:nodes`, good for servers.
    fn server(&self) -> Option<Arc<CertifiedKey>>;

    /// Shown to other nodes: CN `system:node:NAME`, O `system:nodes`, good for clients.
    fn client(&self) -> Option<Arc<CertifiedKey>>;

    /// Shown to nodes where the API server asks them something, in O `system:masters`. `None`: no API server is here.
    fn api_server(&self) -> Option<Arc<CertifiedKey>> {
        None
    }
}

/// Who came through the tunnel: what its certificate says, which one of the cluster's CA has signed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TunnelPeer {
    /// Common name.
    pub user: String,
    /// Organizations.
    pub groups: Vec<String>,
}

/// What a node answers itself: the paths of a kubelet. Only peers in `system:masters` get here.
pub trait NodeHandler: Send + Sync + 'static {
    /// Answers a request.
    ///
    /// # Errors
    /// When no response could be made.
    fn call<'a>(
        &'a self,
        peer: &'a TunnelPeer,
        request: Request<Body>,
    ) -> BoxFuture<'a, Result<Response<Body>, CallError>>;

    /// Takes a stream of bytes in both directions (exec, attach, port-forward), or answers why not. The request is a
    /// CONNECT that says where to by its path and query.
    fn connect<'a>(
        &'a self,
        _peer: &'a TunnelPeer,
        _request: Request<()>,
    ) -> BoxFuture<'a, Result<ServeStream, Response<Body>>> {
        Box::pin(async move { Err(proxy::text(StatusCode::NOT_FOUND, "nothing here takes a stream\n")) })
    }
}

/// Serves a stream once its client has heard that it stands.
pub type ServeStream = Box<dyn FnOnce(PodStream) -> BoxFuture<'static, ()> + Send>;

/// What became of a stream that a node was asked for.
pub enum NodeStream {
    /// It stands.
    Open(PodStream),
    /// The node answered something else.
    Answer(Response<Body>),
}

/// Bounds of the tunnel. All have defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelLimits {
    /// Connections of other nodes and of API servers at once.
    pub connections_max: usize,
    /// Requests and streams within one connection at once, in each direction of asking.
    pub streams_max: u32,
    /// Bytes that may be on their way, unread, in one direction of a stream. A connection has room for `streams_max` of
    /// these, so that one who does not read holds up nobody else.
    pub stream_window_bytes: u32,
    /// Bytes of a request's or an answer's head.
    pub header_bytes_max: u32,
    /// How long until a connection stands, TLS included.
    pub connect_timeout: Duration,
    /// How often the other end is asked whether it is there.
    pub keep_alive_interval: Duration,
    /// How long it may take to answer that.
    pub keep_alive_timeout: Duration,
    /// How long until a node that could not be reached is tried again, at first; doubled each time.
    pub backoff_min: Duration,
    /// The same at most.
    pub backoff_max: Duration,
}

impl TunnelLimits {
    /// Room for all streams of a connection, as much as HTTP/2 has.
    pub(crate) fn connection_window(&self) -> u32 {
        self.streams_max.saturating_mul(self.stream_window_bytes).clamp(65_535, (1 << 31) - 1)
    }
}

impl Default for TunnelLimits {
    fn default() -> Self {
        Self {
            connections_max: 4096,
            streams_max: 2048,
            stream_window_bytes: 128 << 10,
            header_bytes_max: 128 << 10,
            connect_timeout: Duration::from_secs(5),
            keep_alive_interval: Duration::from_secs(5),
            keep_alive_timeout: Duration::from_secs(5),
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(10),
        }
    }
}

/// What a node shows to others, and whom it believes.
#[derive(Clone)]
pub struct TunnelConfig {
    /// This node's name.
    pub node: String,
    /// Its certificates.
    pub identity: Arc<dyn TunnelIdentity>,
    /// The cluster's CA: whoever it has not signed is refused in the handshake.
    pub roots: RootCertStore,
    /// Bounds.
    pub limits: TunnelLimits,
    /// What it answers itself.
    pub node_requests: Option<Arc<dyn NodeHandler>>,
    /// Who pods of other nodes are. `None`: who their node says.
    pub workloads: Option<Arc<dyn Workloads>>,
}

/// A node and what it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteNode {
    /// Its name: its certificate says `system:node:NAME`.
    pub name: String,
    /// Where its tunnel listens.
    pub address: SocketAddr,
    /// Addresses of its pods: it speaks for no others.
    pub pod_cidrs: Vec<IpRange>,
}
