//! The pod network: no kernel addresses, no sockets between pods of one node.
//!
//! Every call that a guest makes or receives goes through here: resolve a name, pick an endpoint, call it. A pod on
//! this node is a function call. This crate knows nothing of Kubernetes' types or of wasmtime.

mod attach;
mod balance;
mod dialer;
mod error;
mod front;
mod http_server;
mod ingress;
mod metrics;
mod services;
mod stream;
pub mod table;

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use attach::Attachment;
pub use dialer::{Caller, Dialer};
pub use error::{CallError, SocketError};
pub use front::ListenError;
pub use metrics::Metrics;
pub use stream::{ByteStream, PodStream};

use crate::{attach::Attachments, front::NodePorts, ingress::Routes, services::Services};

/// Any error, boxed.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A streamed HTTP body.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// A pod's side of the network: answers the requests sent to one of its ports.
#[async_trait]
pub trait HttpHandler: Send + Sync + 'static {
    /// Whether a request would be begun now. Asked before each call, so that a full or ending pod is passed over while
    /// the request can still go elsewhere.
    fn accepts(&self) -> bool {
        true
    }

    /// Answers one request. Returns when the head of the response is known; the body streams on.
    ///
    /// # Errors
    /// When no response could be made.
    async fn call(&self, request: Request<Body>) -> Result<Response<Body>, CallError>;
}

/// Bounds and addresses of the network. All have defaults.
#[derive(Debug, Clone)]
pub struct NetworkConfig {
    /// Where node ports listen.
    pub node_port_address: IpAddr,
    /// The cluster's domain.
    pub cluster_domain: String,
    /// Connections from outside at once, over all listeners; more wait in the kernel's queue.
    pub connections_max: usize,
    /// How long a client may take to send the head of a request.
    pub header_timeout: Duration,
    /// Bytes of one request's head.
    pub header_bytes_max: usize,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            node_port_address: IpAddr::from([127, 0, 0, 1]),
            cluster_domain: "cluster.local".to_owned(),
            connections_max: 16_384,
            header_timeout: Duration::from_secs(30),
            header_bytes_max: 64 << 10,
        }
    }
}

/// A handle on the network of one node. Clones share it.
#[derive(Clone)]
pub struct Network(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) config: NetworkConfig,
    pub(crate) attachments: Attachments,
    pub(crate) services: Services,
    pub(crate) routes: Routes,
    pub(crate) node_ports: NodePorts,
    pub(crate) metrics: Metrics,
    pub(crate) connections: Arc<tokio::sync::Semaphore>,
    pub(crate) stopping: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

impl Network {
    /// A network that knows nobody yet.
    pub fn new(config: NetworkConfig) -> Self {
        let connections = Arc::new(tokio::sync::Semaphore::new(config.connections_max));
        Self(Arc::new(Inner {
            config,
            attachments: Attachments::default(),
            services: Services::default(),
            routes: Routes::default(),
            node_ports: NodePorts::default(),
            metrics: Metrics::default(),
            connections,
            stopping: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }))
    }

    /// Gives a pod's port its handler. Dropping the attachment takes it away.
    pub fn attach(&self, ip: IpAddr, port: u16, handler: Arc<dyn HttpHandler>) -> Attachment {
        attach::attach(&self.0, SocketAddr::new(ip, port), handler)
    }

    /// Whether somebody listens at a pod's port.
    pub fn is_attached(&self, ip: IpAddr, port: u16) -> bool {
        self.0.attachments.get(SocketAddr::new(ip, port)).is_some()
    }

    /// Opens a connection to a pod's port as the node does it: for port-forward, probes and the API server's proxy. A pod
    /// that listens has it in its backlog when this returns; with a handler it speaks HTTP/1.1 or HTTP/2.
    ///
    /// # Errors
    /// `Refused` when nobody listens there; `TimedOut` when whoever listens does not take it.
    pub async fn connect_pod(&self, ip: IpAddr, port: u16) -> Result<PodStream, CallError> {
        attach::connect(self, SocketAddr::new(ip, port)).map_err(CallError::from)
    }

    /// The network as one caller sees it.
    pub fn dialer(&self, caller: Caller) -> Dialer {
        Dialer::new(self.clone(), caller)
    }

    /// Adds or replaces a Service. Its node ports begin to listen; a port that cannot is reported in the log and
    /// tried again at the Service's next change.
    pub fn put_service(&self, service: table::Service) {
        let ports = self.0.services.put(service, &self.0.metrics);
        front::sync_node_ports(self, ports);
    }

    /// Removes a Service.
    pub fn remove_service(&self, name: &table::Name) {
        let ports = self.0.services.remove(name);
        self.0.metrics.forget(name);
        front::sync_node_ports(self, ports);
    }

    /// Adds or replaces an EndpointSlice.
    pub fn put_slice(&self, slice: table::Slice) {
        self.0.services.put_slice(slice);
        self.0.attachments.routes_changed();
    }

    /// Removes an EndpointSlice.
    pub fn remove_slice(&self, name: &table::Name) {
        self.0.services.remove_slice(name);
        self.0.attachments.routes_changed();
    }

    /// Adds or replaces an Ingress.
    pub fn put_ingress(&self, ingress: table::Ingress) {
        self.0.routes.put(ingress);
    }

    /// Removes an Ingress.
    pub fn remove_ingress(&self, name: &table::Name) {
        self.0.routes.remove(name);
    }

    /// Serves all Ingresses on an address; returns the address bound.
    ///
    /// # Errors
    /// The address is taken or not ours.
    pub async fn listen_ingress(&self, address: SocketAddr) -> Result<SocketAddr, ListenError> {
        front::listen_ingress(self, address).await
    }

    /// Ready endpoints of a Service's port now, for messages and tests.
    pub fn ready_endpoints(&self, service: &table::Name, port: u16) -> Vec<SocketAddr> {
        self.0.services.ready_endpoints(service, port)
    }

    /// The network's metrics, to register.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Takes no more connections, lets requests under way finish for at most `timeout`.
    pub async fn shutdown(&self, timeout: Duration) {
        self.0.stopping.cancel();
        self.0.tasks.close();
        if tokio::time::timeout(timeout, self.0.tasks.wait()).await.is_err() {
            tracing::warn!("connections were still open at shutdown and are cut off");
        }
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.0
    }
}
