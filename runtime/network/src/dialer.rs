//! The network as one pod sees it: one way for all that goes out of it, and for all that it listens to.
//!
//! policy -> resolve -> balance -> connect. A target is a handler or a listener on this node, a pod of another node, or a
//! host outside.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Weak},
    time::Duration,
};

use futures::future::join_all;
use http::{HeaderMap, Request, Response};
use parking_lot::Mutex;
use rand::seq::SliceRandom as _;

use crate::{
    Body, CallError, CallTimeouts, Connection, Network, SocketError, TcpPort, UdpSocket,
    attach::Attached,
    calls::Behind,
    egress::{HostPatterns, Way},
    http_client::HttpPool,
    leash::{Leashed, Watch},
    names::{Known, Meaning, meaning},
    pods::{Permit, Pod},
    policy::{Opened, OutsideFlow, PodFacts, Source},
    ports::View,
    seen::SeenNames,
    services::{Lookup, Port},
    stream::PodStream,
    table::{Name, Protocol},
    tcp::{self, Visit},
    tunnel::{Peer, wire},
    udp::{Queue, UdpRoute},
};

/// Names that lead to another name, one after the other.
pub(crate) const ALIASES_MAX: usize = 8;

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Its namespace: short names are resolved in it.
    pub namespace: String,
    /// Its pod's name.
    pub pod: String,
    /// Its service account; empty: it has none, and no identity.
    pub service_account: String,
    /// Its pod's address: what `localhost` means.
    pub ip: Option<IpAddr>,
}

/// What a pod's spec says of its network, beyond who it is. The default grants nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Membership {
    /// Its host name, when that is not the pod's name.
    pub hostname: Option<String>,
    /// Further names of addresses (`hostAliases`), in lower case. What is granted by name is not granted by these.
    pub aliases: Vec<(IpAddr, Vec<String>)>,
    /// Domains that names are tried in beside the cluster's (`dnsConfig.searches`), in lower case, in their order.
    pub searches: Vec<String>,
    /// Names are not tried in the cluster's own domains (`dnsPolicy: None` or `Default`).
    pub apart: bool,
    /// What it may reach outside the cluster; `None`: what its namespace says.
    pub egress: Option<HostPatterns>,
    /// What policies are to know of it from its first moment on, before they hear of it otherwise.
    pub facts: Option<PodFacts>,
}

/// The network as one container of a pod sees it. Clones share what it has.
#[derive(Clone)]
pub struct Dialer {
    network: Network,
    own: Arc<Own>,
}

pub(crate) struct Own {
    pub(crate) caller: Caller,
    pub(crate) member: Membership,
    pod: Arc<Pod>,
    listeners: Mutex<Vec<Weak<Attached>>>,
    pub(crate) http: HttpPool,
    pub(crate) seen: SeenNames,
}

/// Where a connection goes.
pub(crate) enum Route {
    /// A port on this node.
    Here(Arc<Attached>),
    /// A pod of another node.
    There(Arc<Peer>),
    Service(Arc<Port>),
    Nobody(String),
    Outside,
}

impl Dialer {
    pub(crate) fn new(network: Network, caller: Caller, member: Membership) -> Self {
        let pod = Pod::of(&network.0, &caller);
        if let Some(facts) = member.facts.clone() {
            network.put_pod(facts);
        }
        let (listeners, http, seen) = (Mutex::default(), HttpPool::default(), SeenNames::default());
        Self { network, own: Arc::new(Own { caller, member, pod, listeners, http, seen }) }
    }

    /// The same once more, for what is open.
    pub(crate) fn again(network: Network, own: Arc<Own>) -> Self {
        Self { network, own }
    }

    pub(crate) fn network(&self) -> &Network {
        &self.network
    }

    /// Who it is, to the policies.
    pub(crate) fn source(&self) -> Source {
        self.own.caller.ip.map_or(Source::Node, Source::Ip)
    }

    /// Says to the cluster's pods who asks; what a guest says of that is none of it.
    pub(crate) fn sign(&self, headers: &mut HeaderMap) {
        headers.remove(wire::CALLER);
        if let Some(who) = self.own.pod.identity() {
            headers.insert(wire::CALLER, who.spiffe.clone());
        }
    }

    pub(crate) fn own(&self) -> &Own {
        &self.own
    }

    pub(crate) fn permit(&self) -> Result<Permit, SocketError> {
        self.own.pod.permit()
    }

    /// Sends a request with an absolute URI.
    ///
    /// # Errors
    /// `NameNotFound`, `Refused` or `Denied` when nobody was asked; else what the pod's handler says.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Body>, CallError> {
        self.send_within(request, CallTimeouts::default()).await
    }

    /// Connects to an address: of a pod, a Service, the pod itself, or outside where that is granted.
    ///
    /// # Errors
    /// Why there is no connection.
    pub async fn connect(&self, to: SocketAddr) -> Result<Connection, SocketError> {
        self.connect_from(None, to).await
    }

    /// Connects to a host by name or address.
    ///
    /// # Errors
    /// As [`Dialer::connect`] and [`Dialer::lookup`].
    pub async fn connect_host(&self, host: &str, port: u16) -> Result<Connection, SocketError> {
        if let Meaning::Service(name) | Meaning::Port { service: name, .. } = self.meaning(host)
            && let Lookup::Found(service) = self.network.inner().services.port(&name, port, Protocol::Tcp)
        {
            let to = SocketAddr::new(self.own.caller.ip.unwrap_or_else(|| self.network.node_side().ip()), port);
            return self.connect_service(service, self.from(None, None), to).await;
        }
        let addresses = self.lookup(host).await?;
        let mut last = SocketError::NameNotFound(host.to_owned());
        for ip in addresses {
            match self.connect(SocketAddr::new(ip, port)).await {
                Ok(connection) => return Ok(connection),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Takes a TCP port of the pod; port 0: any that is free.
    ///
    /// # Errors
    /// `NotOwn`, `AddressInUse`, `TooMany`.
    pub fn bind_tcp(&self, at: SocketAddr) -> Result<TcpPort, SocketError> {
        TcpPort::bind(self, &self.own.pod, self.own.caller.ip.ok_or(SocketError::NotOwn(at))?, at)
    }

    /// Takes a UDP port of the pod. `queue_bytes`: what may wait to be received, with some bytes for each datagram.
    ///
    /// # Errors
    /// `NotOwn`, `AddressInUse`, `TooMany`.
    pub fn bind_udp(&self, at: SocketAddr, queue_bytes: usize) -> Result<UdpSocket, SocketError> {
        let ip = self.own.caller.ip.ok_or(SocketError::NotOwn(at))?;
        UdpSocket::bind(self, &self.own.pod, ip, at, queue_bytes)
    }

    /// The addresses of a name: one of the cluster, or of a host outside if the pod may reach that.
    ///
    /// # Errors
    /// `NameNotFound` when it means nothing here; `Denied` for a host outside that is not granted.
    pub async fn lookup(&self, name: &str) -> Result<Vec<IpAddr>, SocketError> {
        let services = &self.network.inner().services;
        let mut host = name.to_owned();
        for _ in 0..ALIASES_MAX {
            return match self.meaning(&host) {
                Meaning::Loopback(ip) | Meaning::Address(ip) => Ok(vec![ip]),
                Meaning::Endpoint { service, hostname } => match services.endpoint(&service, &hostname) {
                    Some(ip) => Ok(vec![ip]),
                    None => Err(SocketError::NameNotFound(host)),
                },
                Meaning::Port { service, port, protocol } => {
                    match services.named_port(&service, &port, protocol).map(|_| services.addresses(&service)) {
                        Some(found) if !found.is_empty() => Ok(found),
                        _ => Err(SocketError::NameNotFound(host)),
                    }
                }
                Meaning::Service(service) => {
                    if let Some(external) = services.external(&service) {
                        host = external;
                        continue;
                    }
                    match services.addresses(&service) {
                        found if !found.is_empty() => Ok(found),
                        _ => Err(SocketError::NameNotFound(host)),
                    }
                }
                Meaning::Unknown(_) => Err(SocketError::NameNotFound(host)),
                Meaning::Bare(name) => {
                    let name = self.in_searched_domain(name).await;
                    match self.may_look_up(&name) {
                        Ok(()) => self.lookup_outside(&name).await,
                        Err(_) => Err(SocketError::NameNotFound(name)),
                    }
                }
                Meaning::Outside(name) => {
                    let name = self.in_searched_domain(name).await;
                    self.may_look_up(&name)?;
                    self.lookup_outside(&name).await
                }
            };
        }
        Err(SocketError::NameNotFound(format!("{name} leads from one ExternalName to the next")))
    }

    /// Ends what this container listens at without cutting a connection: takes connections until no Service sends any, at
    /// most for `timeout`, then waits for those that are open. `true` when nothing was cut off.
    pub async fn drain(&self, timeout: Duration) -> bool {
        let listeners: Vec<_> = self.own.listeners.lock().iter().filter_map(Weak::upgrade).collect();
        let network = Arc::downgrade(&self.network.0);
        join_all(listeners.iter().map(|l| l.drain(&network, timeout))).await.into_iter().all(|drained| drained)
    }

    /// Remembers a listener, to drain it.
    pub(crate) fn listens(&self, attached: &Arc<Attached>) {
        let mut listeners = self.own.listeners.lock();
        listeners.retain(|listener| listener.strong_count() > 0);
        listeners.push(Arc::downgrade(attached));
    }

    pub(crate) fn meaning(&self, host: &str) -> Meaning {
        let inner = self.network.inner();
        meaning(host, (&self.own.caller, &self.own.member), &inner.config.cluster_domain, &inner.services)
    }

    /// The caller's end of a connection.
    fn from(&self, bound: Option<SocketAddr>, loopback: Option<IpAddr>) -> SocketAddr {
        let ports = &self.network.inner().attachments.tcp;
        let port = bound.map_or_else(|| ports.ephemeral(), |at| at.port());
        let bound = bound.map(|at| at.ip()).filter(|ip| !ip.is_unspecified());
        let ip = bound.or(loopback).or(self.own.caller.ip);
        SocketAddr::new(ip.unwrap_or_else(|| self.network.node_side().ip()), port)
    }

    /// Where a TCP connection to an address goes.
    pub(crate) fn route(&self, to: SocketAddr) -> Route {
        let inner = self.network.inner();
        let nobody = || Route::Nobody(format!("nobody listens at {to}"));
        if let Some(view) = loopback_view(to.ip()) {
            let Some(own) = self.own.caller.ip else {
                return Route::Nobody(format!("{to}: this pod has no address yet"));
            };
            let attached = inner.attachments.tcp.get(SocketAddr::new(own, to.port()), view);
            return attached.filter(|a| a.answers()).map_or_else(nobody, Route::Here);
        }
        if let Some(attached) = inner.attachments.get(to) {
            return Route::Here(attached);
        }
        match inner.services.by_ip(to.ip(), to.port(), Protocol::Tcp) {
            Lookup::Found(port) => Route::Service(port),
            Lookup::NoPort => Route::Nobody(format!("no service port at {to}")),
            Lookup::NoService => match self.network.elsewhere(to.ip()) {
                Some(peer) => Route::There(peer),
                None if inner.is_cluster(to.ip()) => nobody(),
                None => Route::Outside,
            },
        }
    }

    pub(crate) async fn connect_from(
        &self,
        bound: Option<SocketAddr>,
        to: SocketAddr,
    ) -> Result<Connection, SocketError> {
        let to = SocketAddr::new(to.ip().to_canonical(), to.port());
        match self.route(to) {
            Route::Here(attached) => {
                let client = self.from(bound, loopback_view(to.ip()).map(|_| to.ip()));
                let visit = Visit { from: self.source(), client, server: to, held: self.permit()?, counted: true };
                let stream = tcp::visit(&self.network, &attached, visit).await?;
                Ok(Connection::within(client, to, stream))
            }
            Route::There(peer) => {
                let (client, ends) = (self.from(bound, None), (self.source(), to));
                let stream = Box::pin(self.network.connect_elsewhere(&peer, ends, client, self.permit()?)).await;
                let stream = stream.map_err(|(error, _)| error)?;
                Ok(Connection {
                    local: client,
                    remote: to,
                    stream,
                    buffer_bytes: peer.limits().stream_window_bytes.into(),
                })
            }
            Route::Service(port) => self.connect_service(port, self.from(bound, None), to).await,
            Route::Nobody(why) => Err(SocketError::Refused(why)),
            Route::Outside => {
                self.may_reach(Way::Tcp, to)?;
                let (local, remote, stream) = self.connect_outside(Way::Tcp, vec![to], None).await?;
                let local = SocketAddr::new(self.own.caller.ip.unwrap_or(local.ip()), local.port());
                Ok(Connection { local, remote, stream, buffer_bytes: 0 })
            }
        }
    }

    /// Connects to one of a Service's endpoints.
    async fn connect_service(
        &self,
        port: Arc<Port>,
        client: SocketAddr,
        to: SocketAddr,
    ) -> Result<Connection, SocketError> {
        if self.network.behind(&port) == Behind::Elsewhere {
            let stream = self.connect_elsewhere(&port).await?;
            return Ok(Connection { local: client, remote: to, stream, buffer_bytes: 0 });
        }
        let permit = self.permit()?;
        let stream = self.network.visit_service(port, self.source(), client, permit).await?;
        Ok(Connection::within(client, to, stream))
    }

    /// Connects to an endpoint that is no pod: as to any address outside, but for those that are open to all pods.
    async fn connect_elsewhere(&self, port: &Port) -> Result<PodStream, SocketError> {
        let inner = self.network.inner();
        let mut addresses: Vec<_> = port.endpoints.iter().map(|e| e.address).collect();
        addresses.retain(|address| !inner.is_cluster(address.ip()));
        addresses.shuffle(&mut rand::rng());
        let open = |address: &SocketAddr| inner.open_endpoints.read().contains(address);
        for address in &addresses {
            match open(address) {
                true => inner.policies.judge(self.source(), *address, Protocol::Tcp)?,
                false => self.may_reach(Way::Tcp, *address)?,
            }
        }
        Ok(self.connect_outside(Way::Tcp, addresses, None).await?.2)
    }

    /// Connects to the first of several addresses outside that answers; all of them may be reached. `name`: what led
    /// there, when it was no earlier look-up.
    pub(crate) async fn connect_outside(
        &self,
        way: Way,
        addresses: Vec<SocketAddr>,
        name: Option<&str>,
    ) -> Result<(SocketAddr, SocketAddr, PodStream), SocketError> {
        let inner = self.network.inner();
        let (local, to, stream) = inner.outside.connect(addresses, self.permit()?).await?;
        let mut names = self.own.seen.names(to.ip());
        names.extend(name.map(Arc::from));
        let open_to_all = inner.open_endpoints.read().contains(&to);
        let flow = OutsideFlow { own: Arc::downgrade(&self.own), way, to, names, open_to_all };
        let flow = Arc::new(flow);
        let leash = inner.policies.flows.leash(Opened::Outside(flow.clone()));
        if !self.still_allows(&flow) {
            return Err(SocketError::Denied(format!("{to}: a policy has come to forbid it")));
        }
        Ok((local, to, Box::new(Leashed::new(stream, leash))))
    }

    pub(crate) async fn lookup_outside(&self, name: &str) -> Result<Vec<IpAddr>, SocketError> {
        let found = self.network.inner().outside.lookup(name).await?;
        self.own.seen.note(name, &found);
        Ok(found)
    }

    /// What a request to a pod is noted as when it has to wait; those of the node are not.
    pub(crate) fn watch(&self, to: SocketAddr) -> Option<Watch> {
        self.network.watch(self.source(), to)
    }

    /// Where a datagram goes; `choose` picks one of a Service's endpoints.
    pub(crate) fn udp_route(&self, to: SocketAddr, choose: impl FnOnce(Arc<Port>) -> Option<SocketAddr>) -> UdpRoute {
        let inner = self.network.inner();
        let Some(own) = self.own.caller.ip else { return UdpRoute::Nobody };
        let here = |found: Option<Arc<Queue>>, from| match found {
            Some(queue) => UdpRoute::Here { queue, from },
            None => UdpRoute::Nobody,
        };
        let pod = |to: SocketAddr| match inner.attachments.udp.get(to, View::Own) {
            Some(queue) => Some(UdpRoute::Here { queue, from: own }),
            None => self.network.elsewhere(to.ip()).map(|peer| UdpRoute::There { peer, to, from: own }),
        };
        if let Some(view) = loopback_view(to.ip()) {
            return here(inner.attachments.udp.get(SocketAddr::new(own, to.port()), view), to.ip());
        }
        match inner.services.by_ip(to.ip(), to.port(), Protocol::Udp) {
            Lookup::Found(port) => choose(port).and_then(pod).unwrap_or(UdpRoute::Nobody),
            Lookup::NoPort => UdpRoute::Nobody,
            Lookup::NoService => pod(to).unwrap_or_else(|| match inner.is_cluster(to.ip()) {
                true => UdpRoute::Nobody,
                false => UdpRoute::Outside,
            }),
        }
    }
}

/// From where a pod sees its own port under this address; `None` for other addresses.
fn loopback_view(ip: IpAddr) -> Option<View> {
    match ip {
        IpAddr::V4(ip) => (ip.is_loopback() || ip.is_unspecified()).then_some(View::Loopback4),
        IpAddr::V6(ip) => (ip.is_loopback() || ip.is_unspecified()).then_some(View::Loopback6),
    }
}

impl Known for crate::services::Services {
    fn service(&self, name: &Name) -> bool {
        self.has(name)
    }

    fn endpoint(&self, service: &Name, hostname: &str) -> bool {
        Self::endpoint(self, service, hostname).is_some()
    }
}
