//! The ports of Gateways: opened, closed, and told where requests and connections go, while they are open.
//!
//! Invariant: what a port is told holds for the next request, on connections that are open too. A TLS connection stays with
//! the listener that its client named: a request on it for a host of another listener is misdirected (421).

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use http::{Request, StatusCode};
use parking_lot::RwLock;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::{
    Body, Certificate, ListenError, Network,
    certificates::ServerTls,
    front::{self, Entrance},
    hello, http_server,
    proxy::{self, Client, Served},
    routes::{Host, RouteTable, filters, without_port},
    services::Lookup,
    splice::splice,
    stream::ByteStream,
};

/// What is listened for at a port.
#[derive(Debug)]
pub struct GatewayPort {
    /// Where; port 0 picks a free one.
    pub address: SocketAddr,
    /// What. All speak TLS, or none.
    pub listeners: Vec<GatewayListener>,
}

/// One listener of a Gateway.
#[derive(Debug)]
pub struct GatewayListener {
    /// For which hosts. Of several listeners the most exact one is taken.
    pub host: Host,
    /// What it does.
    pub serves: Serves,
}

/// What a listener does.
#[derive(Debug)]
pub enum Serves {
    /// Speaks HTTP.
    Http(RouteTable),
    /// Speaks TLS with one of the certificates, and HTTP within.
    Https(Vec<Certificate>, RouteTable),
    /// Speaks TLS and carries what is within to the backends of a host's first route.
    Tls(Vec<Certificate>, RouteTable),
    /// Carries TLS as it is to the backends of a host's first route.
    Passthrough(RouteTable),
}

/// A port that listens, or does not.
#[derive(Debug)]
pub struct OpenedPort {
    /// As it was asked for.
    pub address: SocketAddr,
    /// Where it listens.
    pub bound: Result<SocketAddr, ListenError>,
}

/// The ports that are open.
#[derive(Default)]
pub(crate) struct Gateways(tokio::sync::Mutex<HashMap<SocketAddr, Open>>);

struct Open {
    bound: SocketAddr,
    port: SharedPort,
    stop: CancellationToken,
}

/// What a port is told, now.
#[derive(Clone)]
pub(crate) struct SharedPort {
    number: u16,
    now: Arc<RwLock<Arc<Listeners>>>,
}

/// The most exact first.
struct Listeners(Vec<Listener>);

struct Listener {
    host: Host,
    tls: Option<ServerTls>,
    http: bool,
    routes: RouteTable,
}

impl Network {
    /// Opens and closes the ports of Gateways so that they are these, and tells them where requests go.
    pub async fn set_gateways(&self, ports: Vec<GatewayPort>) -> Vec<OpenedPort> {
        let mut open = self.inner().gateways.0.lock().await;
        open.retain(|address, open| {
            let keep = ports.iter().any(|port| port.address == *address);
            if !keep {
                open.stop.cancel();
            }
            keep
        });
        let mut opened = Vec::with_capacity(ports.len());
        for GatewayPort { address, listeners } in ports {
            if let Some(open) = open.get(&address) {
                let before = open.port.now.read().clone();
                *open.port.now.write() = Arc::new(Listeners::new(listeners, Some(&before)));
                opened.push(OpenedPort { address, bound: Ok(open.bound) });
                continue;
            }
            let bound = self.open_gateway(address, Listeners::new(listeners, None)).await;
            let bound = bound.map(|new| {
                let bound = new.bound;
                open.insert(address, new);
                bound
            });
            opened.push(OpenedPort { address, bound });
        }
        opened
    }

    async fn open_gateway(&self, address: SocketAddr, listeners: Listeners) -> Result<Open, ListenError> {
        let (listener, bound) = front::bind(address).await?;
        let port = SharedPort { number: bound.port(), now: Arc::new(RwLock::new(Arc::new(listeners))) };
        let stop = self.inner().stopping.child_token();
        let serving = front::serve(self.clone(), listener, Entrance::Gateway(port.clone()), stop.clone());
        self.inner().tasks.spawn(serving);
        Ok(Open { bound, port, stop })
    }
}

impl Listeners {
    fn new(listeners: Vec<GatewayListener>, before: Option<&Self>) -> Self {
        let mut all: Vec<Listener> = listeners.into_iter().filter_map(|l| Listener::new(l, before)).collect();
        all.sort_by(|one, other| one.host.order(&other.host));
        Self(all)
    }

    /// The listener for a host, which may carry a port.
    fn of(&self, host: &str) -> Option<&Listener> {
        let host = without_port(host).to_ascii_lowercase();
        self.0.iter().find(|listener| listener.host.matches(&host))
    }
}

impl Listener {
    fn new(listener: GatewayListener, before: Option<&Listeners>) -> Option<Self> {
        let (certificates, http, routes) = match listener.serves {
            Serves::Http(routes) => (None, true, routes),
            Serves::Https(certificates, routes) => (Some(certificates), true, routes),
            Serves::Tls(certificates, routes) => (Some(certificates), false, routes),
            Serves::Passthrough(routes) => (None, false, routes),
        };
        let tls = match certificates {
            None => None,
            Some(certificates) => {
                let all = before.into_iter().flat_map(|before| &before.0).filter_map(|l| l.tls.as_ref());
                let same = all.into_iter().find(|tls| tls.shows(&certificates, http)).cloned();
                let tls = same.map_or_else(|| ServerTls::new(certificates, http), Ok);
                // The provider's versions are the default's.
                Some(tls.inspect_err(|error| tracing::warn!(%error, "a listener cannot speak TLS")).ok()?)
            }
        };
        Some(Self { host: listener.host, tls, http, routes })
    }

    /// Whether clients speak TLS with it, or through it.
    fn is_secure(&self) -> bool {
        self.tls.is_some() || !self.http
    }
}

/// Serves one connection to a port.
pub(crate) async fn connection(
    network: &Network,
    port: SharedPort,
    (stream, peer): (TcpStream, SocketAddr),
    stop: &CancellationToken,
) {
    let now = port.now.read().clone();
    if !now.0.iter().any(Listener::is_secure) {
        return speak(network, port, None, (stream, peer.ip()), stop).await;
    }
    let limit = network.inner().config.header_timeout;
    let (name, stream) = match hello::read(stream, limit).await {
        Ok(read) => read,
        Err(error) => return tracing::debug!(%peer, %error, "a client did not begin TLS"),
    };
    let Some(listener) = now.of(&name) else { return tracing::debug!(%peer, name, "no listener has this name") };
    let Some(tls) = &listener.tls else { return carry(network, listener, &name, (stream, peer)).await };
    let accepted = tokio::time::timeout(limit, TlsAcceptor::from(tls.config.clone()).accept(stream)).await;
    let stream = match accepted {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%peer, %error, "TLS with a client failed"),
        Err(_) => return tracing::debug!(%peer, "TLS with a client took too long"),
    };
    match listener.http {
        true => speak(network, port, Some(name), (stream, peer.ip()), stop).await,
        false => carry(network, listener, &name, (stream, peer)).await,
    }
}

/// Speaks HTTP. `name`: the host that the client named when it began TLS.
async fn speak(
    network: &Network,
    port: SharedPort,
    name: Option<String>,
    (stream, peer): (impl ByteStream, IpAddr),
    stop: &CancellationToken,
) {
    let client = Client { peer, from: network.visitor(peer), secure: name.is_some(), port: port.number };
    let name: Option<Arc<str>> = name.map(Into::into);
    let answer = |request| {
        let (network, entrance) = (network.clone(), Entrance::Gateway(port.clone()));
        let name = name.clone();
        async move { front::answer(&network, &entrance, (client, name.as_deref()), request).await }
    };
    if let Err(error) = http_server::serve(&network.inner().config, stream, stop, answer).await {
        tracing::debug!(%peer, error, "a connection ended early");
    }
}

/// Answers one request at a port.
pub(crate) async fn answer(
    network: &Network,
    port: &SharedPort,
    (client, name): (Client, Option<&str>),
    request: Request<Body>,
) -> (Served, Option<Arc<str>>) {
    let now = port.now.read().clone();
    let host = proxy::host(&request);
    let nobody = |status, why| ((proxy::text(status, why), None), None);
    let Some(listener) = now.of(host).filter(|listener| listener.http) else {
        return nobody(StatusCode::NOT_FOUND, "No listener has this host.\n");
    };
    if name.is_some_and(|name| !now.of(name).is_some_and(|named| std::ptr::eq(named, listener))) {
        return nobody(StatusCode::MISDIRECTED_REQUEST, "This host is another listener's.\n");
    }
    let Some(found) = listener.routes.find(host, &request) else {
        return nobody(StatusCode::NOT_FOUND, "No route leads from here to a service.\n");
    };
    (proxy::serve(network, &found, client, request).await, Some(found.route))
}

/// Carries a connection to one of the backends of its host's route.
async fn carry(network: &Network, listener: &Listener, name: &str, (stream, peer): (impl ByteStream, SocketAddr)) {
    let Some(found) = listener.routes.find_host(name) else {
        return tracing::debug!(%peer, name, "no route leads from here to a service");
    };
    let backends = &found.action.backends;
    let number = match filters::weight(backends) {
        0 => 0,
        all => rand::random_range(0..all),
    };
    let to = filters::pick(backends, number).and_then(|backend| backend.to.as_ref());
    let lookup = to.map(|to| network.inner().services.backend(&to.service, &to.port));
    match lookup {
        Some(Lookup::Found(port)) => splice(network, stream, peer, port).await,
        _ => tracing::debug!(%peer, name, route = %found.route, "the route has no backend"),
    }
}
