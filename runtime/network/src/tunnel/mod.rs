//! Pods of other nodes: one mutually authenticated HTTP/2 connection for each pair of nodes, made when it is first needed
//! and shared by all that goes between them.
//!
//! Requests to pods are requests within it; connections are CONNECTs. The node that sends says for which of its pods it
//! does; it is believed for addresses of its own podCIDRs alone. Policies are asked at both ends.

mod client;
mod config;
pub(crate) mod count;
pub(crate) mod datagrams;
mod flow;
pub(crate) mod line;
mod nodes;
mod replay;
mod server;
mod tls;
pub(crate) mod wire;
mod workloads;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use http::{Request, Response};

pub use self::config::{
    NodeHandler, NodeStream, RemoteNode, ServeStream, TunnelConfig, TunnelIdentity, TunnelLimits, TunnelPeer,
};
use self::tls::Role;
pub use self::workloads::{Claim, Workloads};
pub(crate) use self::{client::Missed, line::Peer, nodes::Tunnels};
use crate::{
    Body, CallError, CallTimeouts, ListenError, Network, PodStream, SocketError,
    attach::reined,
    leash::{Leashed, Rein, watched},
    policy::{Opened, Source},
    stream::Held,
    table::Protocol,
};

/// Goes with a request of this process itself, not of a pod or of a client outside.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ByHost;

impl Network {
    /// Says who this node is to others: enough to reach them. What was said before is replaced.
    pub fn set_tunnel(&self, config: TunnelConfig) {
        self.inner().tunnels.configure(config);
    }

    /// The same, and takes connections of other nodes at an address; returns the one bound (port 0: any).
    ///
    /// # Errors
    /// The address is taken or not ours, or the cluster's CA is none.
    pub async fn listen_tunnel(&self, config: TunnelConfig, address: SocketAddr) -> Result<SocketAddr, ListenError> {
        self.set_tunnel(config.clone());
        server::listen(self, config, address).await
    }

    /// Says which nodes there are: replaces what was known. This node itself may be among them.
    pub fn set_nodes(&self, nodes: Vec<RemoteNode>) {
        self.inner().services.nodes(|at| at.others = nodes.iter().map(|node| node.address.ip()).collect());
        self.inner().tunnels.put(nodes);
    }

    /// Whether an address is a pod's of another node.
    pub fn is_elsewhere(&self, ip: IpAddr) -> bool {
        self.inner().tunnels.has(ip)
    }

    /// Sends a request to a node itself: a kubelet's paths. The URI needs a path alone.
    ///
    /// # Errors
    /// `NameNotFound` when the node is not known; `NotAccepted` when it cannot be reached.
    pub async fn send_to_node(&self, node: &str, request: Request<Body>) -> Result<Response<Body>, CallError> {
        self.call_node(&self.node_peer(node)?, request).await
    }

    /// Asks a node itself for a stream of bytes: a kubelet's paths for exec, attach, port-forward. The request's method
    /// means nothing.
    ///
    /// # Errors
    /// As [`Network::send_to_node`].
    pub async fn connect_node(&self, node: &str, request: Request<()>) -> Result<NodeStream, CallError> {
        self.stream_node(&self.node_peer(node)?, request).await
    }

    /// A node as the API server goes to it.
    fn node_peer(&self, node: &str) -> Result<Arc<Peer>, CallError> {
        if !self.is_api_server() {
            return Err(CallError::Failed("only the API server asks nodes themselves".to_owned()));
        }
        let peer = self.inner().tunnels.peer(&Arc::downgrade(&self.0), node, Role::ApiServer);
        peer.ok_or_else(|| CallError::NameNotFound(format!("node {node}")))
    }

    /// The other node that an address is a pod's of.
    pub(crate) fn elsewhere(&self, ip: IpAddr) -> Option<Arc<Peer>> {
        self.inner().tunnels.of(&Arc::downgrade(&self.0), ip, Role::Node)
    }

    /// Opens a connection to a pod of another node for this node or the API server on it.
    pub(crate) async fn connect_pod_elsewhere(&self, server: SocketAddr) -> Result<Option<PodStream>, CallError> {
        let Some(peer) = self.as_host(server.ip()) else { return Ok(None) };
        let stream = Box::pin(self.connect_elsewhere(&peer, (Source::Node, server), self.node_side(), ())).await;
        Ok(Some(stream.map_err(|(error, ())| error)?))
    }

    /// The other node that an address is a pod's of, as this process itself goes to it.
    pub(crate) fn as_host(&self, ip: IpAddr) -> Option<Arc<Peer>> {
        let tunnels = &self.inner().tunnels;
        if !tunnels.has(ip) {
            return None;
        }
        tunnels.of(&Arc::downgrade(&self.0), ip, if self.is_api_server() { Role::ApiServer } else { Role::Node })
    }

    /// Whether an API server is in this process.
    fn is_api_server(&self) -> bool {
        let config = self.inner().tunnels.config();
        config.is_some_and(|config| config.identity.api_server().is_some())
    }

    /// A node as who asks goes to it: the API server does not ask as a node.
    fn as_whom(&self, peer: &Arc<Peer>, by_host: bool) -> Arc<Peer> {
        if !by_host || !self.is_api_server() {
            return peer.clone();
        }
        let api_server = self.inner().tunnels.peer(&Arc::downgrade(&self.0), &peer.node.name, Role::ApiServer);
        api_server.unwrap_or_else(|| peer.clone())
    }

    /// Sends a request to a pod of another node. Policies have been asked whether it may go; when they come to forbid
    /// it, it is cut.
    pub(crate) async fn call_elsewhere(
        &self,
        peer: &Arc<Peer>,
        (from, to): (Source, SocketAddr),
        request: Request<Body>,
        timeouts: CallTimeouts,
    ) -> Result<Response<Body>, Missed> {
        let watch = self.watch(from, to);
        let mut back = None;
        let peer = &self.as_whom(peer, request.extensions().get::<ByHost>().is_some());
        let called = async {
            let answer = self.call_there(peer, (from, to), request, timeouts).await;
            answer.map_err(|missed| {
                back = missed.back;
                missed.error
            })
        };
        let (answer, leash) = watched(watch.as_ref(), called).await;
        match answer {
            Ok(answer) => Ok(answer.map(|body| reined(body, Rein::new(watch, leash), ()))),
            Err(error) => Err(Missed { error, back }),
        }
    }

    /// Connects to a pod of another node; `held` comes back when there is no connection.
    pub(crate) async fn connect_elsewhere<H: Send + Unpin + 'static>(
        &self,
        peer: &Arc<Peer>,
        (from, to): (Source, SocketAddr),
        client: SocketAddr,
        held: H,
    ) -> Result<PodStream, (SocketError, H)> {
        if from == Source::Node {
            return match self.connect_there(peer, (from, to), client).await {
                Ok(stream) => Ok(Box::new(Held::new(stream, held))),
                Err(error) => Err((error, held)),
            };
        }
        let policies = &self.inner().policies;
        let leash = policies.flows.leash(Opened::Within { from, to, protocol: Protocol::Tcp });
        if let Err(error) = policies.judge(from, to, Protocol::Tcp) {
            return Err((error, held));
        }
        match self.connect_there(peer, (from, to), client).await {
            Ok(stream) => Ok(Box::new(Held::new(Leashed::new(stream, leash), held))),
            Err(error) => Err((error, held)),
        }
    }
}
