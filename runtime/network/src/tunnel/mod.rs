//! Pods of other nodes: one mutually authenticated HTTP/2 connection for each pair of nodes, made when it is first needed
//! and shared by all that goes between them.
//!
//! Requests to handlers are requests within it; connections are CONNECTs. The node that sends says for which of its pods
//! it does; it is believed for addresses of its own podCIDRs alone.

mod config;

use std::net::SocketAddr;

use http::{Request, Response};
use parking_lot::RwLock;

pub use self::config::{
    NodeHandler, NodeStream, RemoteNode, ServeStream, TunnelConfig, TunnelIdentity, TunnelLimits, TunnelPeer,
};
use crate::{Body, CallError, ListenError, Network};

/// The tunnels of one node.
#[derive(Default)]
pub(crate) struct Tunnels {
    config: RwLock<Option<TunnelConfig>>,
    nodes: RwLock<Vec<RemoteNode>>,
}

impl Network {
    /// Says who this node is to others: enough to reach them. What was said before is replaced.
    pub fn set_tunnel(&self, config: TunnelConfig) {
        *self.inner().tunnels.config.write() = Some(config);
    }

    /// The same, and takes connections of other nodes at an address; returns the one bound (port 0: any).
    ///
    /// # Errors
    /// The address is taken or not ours.
    pub async fn listen_tunnel(&self, config: TunnelConfig, address: SocketAddr) -> Result<SocketAddr, ListenError> {
        self.set_tunnel(config);
        Err(ListenError { address, reason: "this build has no tunnel".to_owned() })
    }

    /// Says which nodes there are: replaces what was known. This node itself may be among them.
    pub fn set_nodes(&self, nodes: Vec<RemoteNode>) {
        *self.inner().tunnels.nodes.write() = nodes;
    }

    /// Sends a request to a node itself: a kubelet's paths. The URI needs a path alone.
    ///
    /// # Errors
    /// `NameNotFound` when the node is not known; `Refused` or `TimedOut` when it cannot be reached.
    pub async fn send_to_node(&self, node: &str, request: Request<Body>) -> Result<Response<Body>, CallError> {
        drop(request);
        Err(CallError::NameNotFound(format!("node {node}")))
    }

    /// Asks a node itself for a stream of bytes: a kubelet's paths for exec, attach, port-forward. Method and body of the
    /// request mean nothing.
    ///
    /// # Errors
    /// As [`Network::send_to_node`].
    pub async fn connect_node(&self, node: &str, request: Request<()>) -> Result<NodeStream, CallError> {
        drop(request);
        Err(CallError::NameNotFound(format!("node {node}")))
    }
}
