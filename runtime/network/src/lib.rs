//! The pod network: no kernel addresses, no sockets between pods of one node.
//!
//! Every call and connection that a guest makes or receives goes through here: resolve a name, pick an endpoint, call it
//! or connect to it. An HTTP handler on this node is a function call, a listener a stream within the process; hosts
//! outside are reached where that is granted. This crate knows nothing of Kubernetes' types or of wasmtime.

mod access_log;
mod attach;
mod balance;
mod balanced;
mod beyond;
mod bodies;
mod calls;
mod certificates;
mod dialer;
mod dns;
mod egress;
mod egress_policy;
mod error;
mod extended;
mod external;
mod forwarded;
mod front;
mod gateways;
mod granted;
mod guard;
mod hello;
mod http_client;
mod http_server;
mod idle;
mod ingress;
mod leash;
mod limit;
mod metrics;
mod mirror;
mod names;
mod outer;
mod outside;
mod pods;
mod policy;
mod ports;
mod proxy;
mod ranges;
pub mod routes;
mod secure;
mod seen;
mod services;
mod spans;
mod splice;
mod stream;
pub mod table;
mod tcp;
mod topology;
mod trace;
mod tunnel;
mod udp;
mod udp_front;
mod upgrade;

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use parking_lot::RwLock;
use rustls::pki_types::CertificateDer;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use access_log::AccessLog;
pub use attach::Attachment;
pub use balance::settings::{BadSetting, Outliers, Settings};
pub use balanced::Observer;
pub use certificates::{BadCertificate, Certificate};
pub use dialer::{Caller, Dialer, Membership};
pub use dns::DnsConfig;
pub use egress::{ALLOWED_HOSTS, BadPattern, DEFAULT_HOSTS, HostPattern, HostPatterns, MAX_HOSTS, NamespaceEgress};
pub use egress_policy::EgressPolicy;
pub use error::{CallError, SocketError};
pub use front::ListenError;
pub use gateways::{GatewayListener, GatewayPort, OpenedPort, Serves};
pub use http_client::CallTimeouts;
pub use metrics::Metrics;
pub use outer::{OuterListener, OuterPort};
pub use outside::{Resolver, SystemResolver};
pub use policy::{
    Labels, NamedPort, NetworkPolicy, Operator, PodFacts, PolicyPeer, PolicyPort, PolicyRule, PortMatch, Requirement,
    Selector,
};
pub use ranges::{BadRange, IpRange};
pub use services::{EndpointState, PortState, ServiceState};
pub use spans::{BadCollector, TracesConfig};
pub use stream::{ByteStream, PodStream};
pub use tcp::{Connection, Listener, TcpPort};
pub use tunnel::{
    Claim, NodeHandler, NodeStream, RemoteNode, ServeStream, TunnelConfig, TunnelIdentity, TunnelLimits, TunnelPeer,
    Workloads,
};
pub use udp::UdpSocket;

use crate::{
    attach::Attachments,
    egress_policy::EgressPolicies,
    front::NodePorts,
    gateways::Gateways,
    http_client::PodHttp,
    ingress::Routes,
    mirror::Mirrors,
    outside::Outside,
    pods::Pods,
    policy::{Policies, Source},
    secure::Tls,
    services::Services,
    tcp::Visit,
    topology::Here,
    tunnel::Tunnels,
};

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
#[derive(Clone)]
pub struct NetworkConfig {
    /// Where node ports listen.
    pub node_port_address: IpAddr,
    /// The cluster's domain.
    pub cluster_domain: String,
    /// Connections from outside at once, over all listeners; more wait in the kernel's queue.
    pub connections_max: usize,
    /// How long a client may take to send the head of a request.
    pub header_timeout: Duration,
    /// How long a connection may be open without a request.
    pub idle_timeout: Duration,
    /// How long nothing may come of a request's body, and nothing be taken of an answer.
    pub stall_timeout: Duration,
    /// Bytes of one request's head.
    pub header_bytes_max: usize,
    /// Bytes of one request's body, where a client outside sends it; past it 413.
    pub request_body_bytes_max: u64,
    /// Whose `x-forwarded-` headers are believed, and added to; of others they are replaced.
    pub trusted_proxies: Vec<IpRange>,
    /// Where the requests of clients outside are written.
    pub access_log: Option<AccessLog>,
    /// Addresses of pods and Services: nobody outside is meant by one of them.
    pub cluster_ranges: Vec<IpRange>,
    /// Sockets of one pod at once: listening, bound, and its ends of connections.
    pub sockets_per_pod_max: usize,
    /// Sockets of the kernel that pods have outside the cluster, all together.
    pub outside_connections_max: usize,
    /// How long a connection may take to stand.
    pub connect_timeout: Duration,
    /// How long a name may take to be looked up.
    pub lookup_timeout: Duration,
    /// What of the host itself pods may reach, where they are granted it as well: loopback, link-local, metadata and
    /// the host's other addresses.
    pub host_targets: HostPatterns,
    /// What pods may reach outside the cluster at most, whatever they and their namespaces say; `None`: whatever those do.
    pub max_hosts: Option<HostPatterns>,
    /// Roots that TLS servers outside may have beside the system's.
    pub extra_roots: Vec<CertificateDer<'static>>,
    /// Looks up names of hosts outside.
    pub resolver: Arc<dyn Resolver>,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            node_port_address: IpAddr::from([127, 0, 0, 1]),
            cluster_domain: "cluster.local".to_owned(),
            connections_max: 16_384,
            header_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(120),
            stall_timeout: Duration::from_secs(60),
            header_bytes_max: 64 << 10,
            request_body_bytes_max: 1 << 30,
            trusted_proxies: Vec::new(),
            access_log: None,
            cluster_ranges: ["10.244.0.0/16", "10.96.0.0/16"].iter().filter_map(|range| range.parse().ok()).collect(),
            sockets_per_pod_max: 4096,
            outside_connections_max: 8192,
            connect_timeout: Duration::from_secs(10),
            lookup_timeout: Duration::from_secs(10),
            host_targets: HostPatterns::default(),
            max_hosts: None,
            extra_roots: Vec::new(),
            resolver: Arc::new(SystemResolver),
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
    pub(crate) gateways: Gateways,
    pub(crate) mirrors: Mirrors,
    pub(crate) metrics: Metrics,
    pub(crate) policies: Policies,
    pub(crate) egress_policies: EgressPolicies,
    pub(crate) connections: Arc<tokio::sync::Semaphore>,
    pub(crate) stopping: CancellationToken,
    pub(crate) tasks: TaskTracker,
    pub(crate) pods: Pods,
    pub(crate) pod_http: PodHttp,
    pub(crate) namespaces: RwLock<HashMap<String, NamespaceEgress>>,
    pub(crate) ranges: RwLock<Vec<IpRange>>,
    pub(crate) outside: Outside,
    pub(crate) tls: Tls,
    /// Endpoints of Services outside that every pod may reach.
    pub(crate) open_endpoints: RwLock<Vec<SocketAddr>>,
    /// Other nodes.
    pub(crate) tunnels: Tunnels,
    /// Records spans, where that is wanted.
    pub(crate) tracer: OnceLock<spans::Tracer>,
    /// Hears of Services that nobody serves.
    pub(crate) observer: OnceLock<Arc<dyn Observer>>,
}

impl Inner {
    /// Whether an address is one of the cluster's, whoever has it.
    pub(crate) fn is_cluster(&self, ip: IpAddr) -> bool {
        self.ranges.read().iter().any(|range| range.contains(ip))
            || self.pods.get(ip).is_some()
            || self.services.has_ip(ip)
            || self.tunnels.has(ip)
    }
}

impl Network {
    /// A network that knows nobody yet.
    pub fn new(config: NetworkConfig) -> Self {
        let connections = Arc::new(tokio::sync::Semaphore::new(config.connections_max));
        let metrics = Metrics::default();
        Self(Arc::new(Inner {
            pods: Pods::default(),
            pod_http: PodHttp::default(),
            namespaces: RwLock::default(),
            ranges: RwLock::new(config.cluster_ranges.clone()),
            outside: Outside::new(&config),
            tls: Tls::new(config.extra_roots.clone()),
            open_endpoints: RwLock::default(),
            tunnels: Tunnels::default(),
            tracer: OnceLock::new(),
            observer: OnceLock::new(),
            config,
            attachments: Attachments::default(),
            services: Services::default(),
            routes: Routes::default(),
            node_ports: NodePorts::default(),
            gateways: Gateways::default(),
            mirrors: Mirrors::default(),
            policies: Policies::new(&metrics),
            metrics,
            egress_policies: EgressPolicies::default(),
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

    /// Whether it is a socket that listens there, and no handler.
    pub fn listens(&self, ip: IpAddr, port: u16) -> bool {
        self.0.attachments.get(SocketAddr::new(ip, port)).is_some_and(|attached| attached.is_socket())
    }

    /// The same of a pod of this or another node, which is asked.
    pub async fn listens_anywhere(&self, ip: IpAddr, port: u16) -> bool {
        match self.as_host(ip) {
            Some(peer) => Box::pin(self.asks_whether_socket(&peer, SocketAddr::new(ip, port))).await == Some(true),
            None => self.listens(ip, port),
        }
    }

    /// Opens a connection to a pod's port, of this or another node, as the node does it: for port-forward, probes and the API server's proxy. A pod
    /// that listens has it in its backlog when this returns; with a handler it speaks HTTP/1.1 or HTTP/2.
    ///
    /// # Errors
    /// `Refused` when nobody listens there; `TimedOut` when whoever listens does not take it.
    pub async fn connect_pod(&self, ip: IpAddr, port: u16) -> Result<PodStream, CallError> {
        let server = SocketAddr::new(ip, port);
        let Some(attached) = self.0.attachments.get(server) else {
            let elsewhere = self.connect_pod_elsewhere(server).await?;
            return elsewhere.ok_or_else(|| CallError::Refused(format!("nobody listens at {server}")));
        };
        let visit = Visit { from: Source::Node, client: self.node_side(), server, held: (), counted: true };
        Ok(tcp::visit(self, &attached, visit).await?)
    }

    /// The node as its pods see it: the first address of the cluster's, which no pod gets.
    pub(crate) fn node_side(&self) -> SocketAddr {
        let first = self.0.ranges.read().first().map_or(IpAddr::from([169, 254, 0, 1]), IpRange::first);
        SocketAddr::new(first, self.0.attachments.tcp.ephemeral())
    }

    /// Says that addresses are the cluster's, before those that were known.
    pub fn add_cluster_range(&self, range: IpRange) {
        let mut ranges = self.0.ranges.write();
        ranges.retain(|known| *known != range);
        ranges.insert(0, range);
    }

    /// Opens an address to every pod, where a Service has it as an endpoint: the API server's. `root`: whom pods trust
    /// for it beside the system's roots; to be said before the first pod runs.
    pub fn open_endpoint(&self, address: SocketAddr, root: Option<CertificateDer<'static>>) {
        self.0.open_endpoints.write().push(address);
        if let Some(root) = root {
            self.0.tls.add_root(root);
        }
    }

    /// Says where this node is: some Services prefer what is near.
    pub fn locate(&self, node: &str, zone: Option<&str>) {
        self.0.services.locate(Here { node: Some(node.to_owned()), zone: zone.map(str::to_owned) });
    }

    /// Says which address this node has: pods reach node ports there, as at those of the other nodes.
    pub fn locate_at(&self, ip: IpAddr) {
        self.0.services.nodes(|nodes| nodes.own = Some(ip.to_canonical()));
    }

    /// Tells somebody of Services that are called and have nobody. The first one stays.
    pub fn observe(&self, observer: Arc<dyn Observer>) {
        // A second one is none.
        let _ = self.0.observer.set(observer);
    }

    /// Says what a namespace grants and limits of ways out. Holds for the next way out of any of its pods, and ends those
    /// that it does not grant any more.
    pub fn put_namespace(&self, name: &str, egress: NamespaceEgress) {
        let mut namespaces = self.0.namespaces.write();
        if egress == NamespaceEgress::default() {
            namespaces.remove(name);
        } else {
            namespaces.insert(name.to_owned(), egress);
        }
        drop(namespaces);
        self.audit_if(true);
    }

    /// The network as one caller sees it.
    pub fn dialer(&self, caller: Caller) -> Dialer {
        self.join(caller, Membership::default())
    }

    /// The network as a container of a pod sees it, with what the pod's spec says.
    pub fn join(&self, caller: Caller, member: Membership) -> Dialer {
        Dialer::new(self.clone(), caller, member)
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
        front::listen_ingress(self, address, false).await
    }

    /// Serves all Ingresses on an address to clients that speak TLS, with the certificates that Ingresses have for the hosts
    /// that clients name; returns the address bound.
    ///
    /// # Errors
    /// The address is taken or not ours.
    pub async fn listen_ingress_tls(&self, address: SocketAddr) -> Result<SocketAddr, ListenError> {
        front::listen_ingress(self, address, true).await
    }

    /// Ready endpoints of a Service's port now, for messages and tests.
    pub fn ready_endpoints(&self, service: &table::Name, port: u16) -> Vec<SocketAddr> {
        self.0.services.ready_endpoints(service, port)
    }

    /// What a Service and its endpoints do at this moment, as this node sees them; `None` when there is no such Service.
    pub fn service_state(&self, service: &table::Name) -> Option<ServiceState> {
        self.0.services.state(service, balance::Moment::now())
    }

    /// Where node ports listen.
    pub fn node_port_address(&self) -> IpAddr {
        self.0.config.node_port_address
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
