//! A container's way out and in by sockets: the pod network's dialer in the words of the sandbox.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use podium_network::{
    ALLOWED_HOSTS, CallError, CallTimeouts, Connection, DEFAULT_HOSTS, Dialer, HostPatterns, Listener, MAX_HOSTS,
    Membership, NamespaceEgress, SocketError as NetError,
};
use podium_sandbox::{
    Body, Outgoing, OutgoingError, OutgoingTimeouts, SocketError, Sockets, TcpConnection, TcpListener, TcpPort,
    UdpSocket,
};

use crate::logs::writer::ContainerLog;

/// A container's way out.
#[derive(Clone)]
pub(crate) struct WayOut {
    dialer: Dialer,
    refusals: Arc<Refusals>,
}

/// Says in the container's log what it was refused: the error codes that a guest hears say nothing of that.
struct Refusals {
    log: Arc<ContainerLog>,
    last: Mutex<String>,
}

impl WayOut {
    pub(crate) fn new(dialer: Dialer, log: Arc<ContainerLog>) -> Self {
        Self { dialer, refusals: Arc::new(Refusals { log, last: Mutex::default() }) }
    }
}

impl Refusals {
    /// Says it, but not twice in a row.
    fn note(&self, why: &str) {
        let mut last = self.last.lock();
        if *last != why {
            why.clone_into(&mut last);
            self.log.note(&format!("not allowed: {why}"));
        }
    }

    /// `at`: the address that was asked for.
    fn failure(&self, error: NetError, at: SocketAddr) -> SocketError {
        if let NetError::Denied(why) = &error {
            self.note(why);
        }
        failure(error, at)
    }
}

#[async_trait]
impl Outgoing for WayOut {
    async fn send(&self, request: Request<Body>) -> Result<Response<Body>, OutgoingError> {
        let limits = request.extensions().get::<OutgoingTimeouts>().copied().unwrap_or_default();
        let OutgoingTimeouts { connect, first_byte, between_bytes } = limits;
        let sent =
            self.dialer.send_within(request, CallTimeouts { connect, first_byte, between_bytes, one_try: None }).await;
        sent.map_err(|error| match error {
            CallError::NameNotFound(m) => OutgoingError::NameNotFound(m),
            CallError::Refused(m) | CallError::NotAccepted(m) => OutgoingError::Refused(m),
            CallError::TimedOut(m) => OutgoingError::TimedOut(m),
            CallError::Denied(m) => {
                self.refusals.note(&m);
                OutgoingError::Denied(m)
            }
            CallError::Failed(m) => OutgoingError::Other(m),
        })
    }
}

#[async_trait]
impl Sockets for WayOut {
    async fn connect(&self, to: SocketAddr) -> Result<TcpConnection, SocketError> {
        self.dialer.connect(to).await.map(connection).map_err(|error| self.refusals.failure(error, to))
    }

    fn bind_tcp(&self, at: SocketAddr) -> Result<Box<dyn TcpPort>, SocketError> {
        match self.dialer.bind_tcp(at) {
            Ok(port) => Ok(Box::new(Port(port, self.refusals.clone()))),
            Err(error) => Err(self.refusals.failure(error, at)),
        }
    }

    fn bind_udp(&self, at: SocketAddr, queue_bytes: usize) -> Result<Box<dyn UdpSocket>, SocketError> {
        match self.dialer.bind_udp(at, queue_bytes) {
            Ok(socket) => Ok(Box::new(Udp(socket, self.refusals.clone()))),
            Err(error) => Err(self.refusals.failure(error, at)),
        }
    }

    async fn lookup(&self, name: &str) -> Result<Vec<IpAddr>, SocketError> {
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        self.dialer.lookup(name).await.map_err(|error| self.refusals.failure(error, nowhere))
    }
}

struct Port(podium_network::TcpPort, Arc<Refusals>);

#[async_trait]
impl TcpPort for Port {
    fn local(&self) -> SocketAddr {
        self.0.local()
    }

    fn listen(self: Box<Self>, backlog: u32) -> Result<Box<dyn TcpListener>, SocketError> {
        Ok(Box::new(Listening(self.0.listen(backlog))))
    }

    async fn connect(self: Box<Self>, to: SocketAddr) -> Result<TcpConnection, SocketError> {
        let Self(port, refusals) = *self;
        port.connect(to).await.map(connection).map_err(|error| refusals.failure(error, to))
    }
}

struct Listening(Listener);

#[async_trait]
impl TcpListener for Listening {
    fn local(&self) -> SocketAddr {
        self.0.local()
    }

    async fn accept(&self) -> Result<TcpConnection, SocketError> {
        self.0.accept().await.map(connection).map_err(|error| failure(error, self.0.local()))
    }
}

struct Udp(podium_network::UdpSocket, Arc<Refusals>);

#[async_trait]
impl UdpSocket for Udp {
    fn local(&self) -> SocketAddr {
        self.0.local()
    }

    async fn send_to(&self, bytes: Bytes, to: SocketAddr) -> Result<(), SocketError> {
        self.0.send_to(bytes, to).await.map_err(|error| self.1.failure(error, to))
    }

    async fn recv_from(&self) -> Result<(Bytes, SocketAddr), SocketError> {
        self.0.recv_from().await.map_err(|error| failure(error, self.0.local()))
    }
}

fn connection(connection: Connection) -> TcpConnection {
    let Connection { local, remote, stream, buffer_bytes } = connection;
    TcpConnection { local, remote, stream: Box::new(stream), buffer_bytes }
}

/// `at`: the address that was asked for.
fn failure(error: NetError, at: SocketAddr) -> SocketError {
    match error {
        NetError::Denied(why) => SocketError::AccessDenied(why),
        NetError::AddressInUse(at) => SocketError::AddressInUse(at),
        NetError::NotOwn(at) => SocketError::AddressNotBindable(at),
        NetError::Refused(_) => SocketError::ConnectionRefused(at),
        NetError::Unreachable(at) => SocketError::RemoteUnreachable(at),
        NetError::TimedOut(_) => SocketError::TimedOut,
        NetError::NameNotFound(name) => SocketError::NameUnresolvable(name),
        NetError::ResolverFailed { .. } => SocketError::ResolverFailed(error.to_string()),
        NetError::TooMany { limit } => SocketError::TooManySockets { limit },
        NetError::DatagramTooLarge { bytes } => SocketError::DatagramTooLarge { bytes },
        NetError::Failed(why) => SocketError::Other(why),
    }
}

/// What a pod's spec says of its network.
///
/// # Errors
/// When its annotation is no list of hosts: what is wrong with it.
pub(crate) fn membership(pod: &Pod) -> Result<Membership, String> {
    let spec = pod.spec.as_ref();
    let lower = |name: &String| name.to_ascii_lowercase();
    let aliases = spec.and_then(|s| s.host_aliases.as_ref()).into_iter().flatten();
    let aliases = aliases
        .filter_map(|alias| Some((alias.ip.parse().ok()?, alias.hostnames.iter().flatten().map(lower).collect())));
    let searches = spec.and_then(|s| s.dns_config.as_ref()?.searches.as_ref()).into_iter().flatten();
    Ok(Membership {
        hostname: spec.and_then(|s| s.hostname.as_ref()).map(lower).filter(|name| !name.is_empty()),
        aliases: aliases.collect(),
        searches: searches.map(|domain| lower(domain).trim_end_matches('.').to_owned()).collect(),
        apart: spec.and_then(|s| s.dns_policy.as_deref()).is_some_and(|policy| matches!(policy, "None" | "Default")),
        egress: hosts(pod.metadata.annotations.as_ref(), ALLOWED_HOSTS)?,
        facts: None,
    })
}

fn hosts(annotations: Option<&BTreeMap<String, String>>, name: &str) -> Result<Option<HostPatterns>, String> {
    let Some(text) = annotations.and_then(|all| all.get(name)) else { return Ok(None) };
    text.parse().map(Some).map_err(|error| format!("annotation {name}: {error}"))
}

/// What a namespace says of its pods' ways out. A limit that cannot be read allows nothing.
pub(crate) fn namespace_egress(name: &str, annotations: Option<&BTreeMap<String, String>>) -> NamespaceEgress {
    let read = |annotation: &str| {
        hosts(annotations, annotation).unwrap_or_else(|why| {
            tracing::warn!(namespace = name, why, "an annotation of a namespace cannot be read: it grants nothing");
            Some(HostPatterns::default())
        })
    };
    NamespaceEgress { default: read(DEFAULT_HOSTS), max: read(MAX_HOSTS) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(annotation: Option<&str>) -> Pod {
        let annotations = annotation.map(|text| json!({ ALLOWED_HOSTS: text }));
        let json = json!({
            "metadata": { "name": "web", "annotations": annotations },
            "spec": { "containers": [], "hostname": "Web-Host",
                "dnsPolicy": "None", "dnsConfig": { "searches": ["Corp.example."] }, "hostAliases": [
                { "ip": "10.1.0.9", "hostnames": ["Legacy", "legacy.example"] },
                { "ip": "no address", "hostnames": ["x"] },
            ] },
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_pods_spec_says_who_it_is_and_where_it_may_go() {
        let member = membership(&pod(Some("https://api.example.com db:5432"))).unwrap();
        assert_eq!(member.hostname.as_deref(), Some("web-host"));
        assert_eq!(member.aliases, [([10, 1, 0, 9].into(), vec!["legacy".to_owned(), "legacy.example".to_owned()])]);
        assert_eq!((member.searches, member.apart), (vec!["corp.example".to_owned()], true));
        assert_eq!(member.egress, "https://api.example.com,db:5432".parse().ok());
        assert_eq!(membership(&pod(None)).unwrap().egress, None);
        let error = membership(&pod(Some("example.com"))).unwrap_err();
        assert!(error.starts_with("annotation podium.dev/allowed-outbound-hosts: \"example.com\""), "{error}");
    }

    #[test]
    fn a_limit_that_cannot_be_read_allows_nothing() {
        let of = |name: &str, text: &str| {
            let annotations = BTreeMap::from([(name.to_owned(), text.to_owned())]);
            namespace_egress("a", Some(&annotations))
        };
        assert_eq!(of(MAX_HOSTS, "nonsense").max, Some(HostPatterns::default()));
        assert_eq!(of(MAX_HOSTS, "*:443").max, "*:443".parse().ok());
        assert_eq!(of(DEFAULT_HOSTS, "a:1"), NamespaceEgress { default: "a:1".parse().ok(), max: None });
        assert_eq!(namespace_egress("a", None), NamespaceEgress::default());
    }
}
