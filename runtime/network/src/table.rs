//! What the network is told: Services, endpoints and routes as plain data, translated by the agent from the API.

use std::net::IpAddr;

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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
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
