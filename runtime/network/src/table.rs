//! What the network is told: Services, endpoints and routes as plain data, translated by the agent from the API.

use std::{net::IpAddr, sync::Arc, time::Duration};

use crate::{Certificate, Settings};

/// Namespace and name of a Service (or any object).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Name {
    /// `namespace/name`.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A Service's stable side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Which.
    pub name: Name,
    /// Its stable address; `None` when headless.
    pub cluster_ip: Option<IpAddr>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// The host outside that it only names (`ExternalName`).
    pub external_name: Option<String>,
    /// How its traffic is shared out.
    pub traffic: Traffic,
}

/// How a Service's traffic is shared out among its endpoints.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Traffic {
    /// A client comes back to the same endpoint unless it stays away for so long (`sessionAffinity: ClientIP`).
    pub affinity: Option<Duration>,
    /// Pods reach only endpoints of their node (`internalTrafficPolicy: Local`).
    pub internal_local: bool,
    /// Clients outside reach only endpoints of the node they come to (`externalTrafficPolicy: Local`).
    pub external_local: bool,
    /// Which endpoints are preferred.
    pub distribution: Option<Distribution>,
    /// Further addresses at which its ports are reached: `externalIPs`, those of a load balancer. Of two Services that
    /// name the same address and port, the first has it.
    pub reached_at: Vec<IpAddr>,
    /// TCP ports whose pods speak HTTP/2 with prior knowledge (`appProtocol: kubernetes.io/h2c`).
    pub h2_ports: Vec<u16>,
    /// Timeouts, retries, limits.
    pub settings: Arc<Settings>,
}

/// Which endpoints are preferred (`trafficDistribution`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distribution {
    /// Those of this zone (`PreferSameZone`, `PreferClose`).
    SameZone,
    /// Those of this node, then those of this zone (`PreferSameNode`).
    SameNode,
}

/// One port of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// Name, empty when the only one.
    pub name: String,
    /// What is spoken.
    pub protocol: Protocol,
    /// The stable port.
    pub port: u16,
    /// The port on every node, if there is one.
    pub node_port: Option<u16>,
}

/// What a port speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// `TCP`
    #[default]
    Tcp,
    /// `UDP`
    Udp,
}

/// One EndpointSlice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    /// The slice's own name; a Service has several slices.
    pub name: Name,
    /// The Service it belongs to (same namespace).
    pub service: String,
    /// Port name and number of every endpoint in it.
    pub ports: Vec<(String, u16)>,
    /// The endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// One pod behind a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Pod IP.
    pub ip: IpAddr,
    /// The name that a headless Service gives it.
    pub hostname: Option<String>,
    /// May be sent new requests.
    pub ready: bool,
    /// Still answers, though it may be ending. Used when no endpoint is ready.
    pub serving: bool,
    /// Its deletion has begun.
    pub terminating: bool,
    /// Where it is.
    pub place: Place,
}

/// Where an endpoint is, and for whom.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// Its node.
    pub node: Option<String>,
    /// Its zone.
    pub zone: Option<String>,
    /// Zones that it is meant for (`hints.forZones`).
    pub zone_hints: Vec<String>,
    /// Nodes that it is meant for (`hints.forNodes`).
    pub node_hints: Vec<String>,
}

/// One Ingress.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ingress {
    /// Which.
    pub name: Name,
    /// Where to send what no rule matches.
    pub default_backend: Option<Backend>,
    /// Its rules.
    pub rules: Vec<Rule>,
    /// What it shows to clients that speak TLS.
    pub tls: Vec<IngressTls>,
}

/// A certificate and the hosts that it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IngressTls {
    /// As in rules; none: for whoever names no host that another certificate is for.
    pub hosts: Vec<String>,
    /// The certificate.
    pub certificate: Certificate,
}

/// Host and path of an Ingress rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// `None` matches every host; `*.example.com` one label more.
    pub host: Option<String>,
    /// The path.
    pub path: PathMatch,
    /// Where to send it.
    pub backend: Backend,
}

/// How a path is matched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathMatch {
    /// The whole path.
    Exact(String),
    /// Whole elements of the path.
    Prefix(String),
}

/// A Service's port as an Ingress names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// The Service, in the Ingress's namespace.
    pub service: String,
    /// Its port.
    pub port: BackendPort,
}

/// By number or by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackendPort {
    /// `port.number`
    Number(u16),
    /// `port.name`
    Name(String),
}
