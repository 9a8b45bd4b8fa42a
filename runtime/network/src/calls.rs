//! How an HTTP request finds its pod: resolve the name, pick an endpoint, call it, try another when it was not begun; or
//! out of the cluster, where that is granted.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use http::{Request, Response, Uri};
use rand::seq::IndexedRandom as _;

use crate::{
    Body, CallError, CallTimeouts, Dialer, Network, SocketError,
    balance::Endpoint,
    dialer::{ALIASES_MAX, Route},
    egress::Way,
    http_client::Opened,
    names::Meaning,
    services::{Lookup, Port},
    stream::PodStream,
    table::{Name, Protocol},
    tunnel::{ByHost, wire},
};

impl Dialer {
    /// Sends a request with an absolute URI, with limits on how long that may take. A handler of this node keeps its own.
    ///
    /// # Errors
    /// As [`Dialer::send`].
    pub async fn send_within(
        &self,
        mut request: Request<Body>,
        timeouts: CallTimeouts,
    ) -> Result<Response<Body>, CallError> {
        request.headers_mut().remove(wire::CALLER);
        if self.own().caller.ip.is_none() {
            request.extensions_mut().insert(ByHost);
        }
        let uri = request.uri();
        let host = uri.host().ok_or_else(|| CallError::NameNotFound("the request names no host".to_owned()))?;
        let secure = uri.scheme_str() == Some("https");
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let mut host = host.to_owned();
        for _ in 0..ALIASES_MAX {
            let call = Call { port, secure, timeouts };
            return match self.meaning(&host) {
                Meaning::Service(name) => match self.network().inner().services.external(&name) {
                    None => self.call_service(&name, call, request).await,
                    Some(external) => {
                        host = external;
                        continue;
                    }
                },
                // A port by its name: its number is that of the request, unless that has one of its own.
                Meaning::Port { service, port: name, protocol } => {
                    let services = &self.network().inner().services;
                    let number = services.named_port(&service, &name, protocol);
                    let number = number.filter(|_| protocol == Protocol::Tcp);
                    let number = number.ok_or_else(|| CallError::NameNotFound(format!("port {name} of {service}")))?;
                    let (request, port) = at_port(request, number);
                    self.call_service(&service, Call { port, ..call }, request).await
                }
                Meaning::Endpoint { service, hostname } => {
                    let ip = self.network().inner().services.endpoint(&service, &hostname);
                    let ip = ip.ok_or_else(|| CallError::NameNotFound(format!("{hostname} of service {service}")))?;
                    self.call_address(SocketAddr::new(ip, port), call, request).await
                }
                Meaning::Loopback(ip) | Meaning::Address(ip) => {
                    self.call_address(SocketAddr::new(ip, port), call, request).await
                }
                Meaning::Unknown(name) => Err(CallError::NameNotFound(name)),
                Meaning::Bare(short) => {
                    let name = self.in_searched_domain(short.clone()).await;
                    match self.may_reach_name(call.way(), &name, port) {
                        Ok(()) => self.call_outside(&name, call, request).await,
                        Err(_) => {
                            let service = Name::new(self.own().caller.namespace.clone(), short);
                            Err(CallError::NameNotFound(format!("service {service}")))
                        }
                    }
                }
                Meaning::Outside(name) => {
                    let name = self.in_searched_domain(name).await;
                    self.may_reach_name(call.way(), &name, port)?;
                    self.call_outside(&name, call, request).await
                }
            };
        }
        Err(CallError::NameNotFound(format!("{host} leads from one ExternalName to the next")))
    }

    async fn call_service(&self, name: &Name, call: Call, request: Request<Body>) -> Result<Response<Body>, CallError> {
        let services = &self.network().inner().services;
        match services.port(name, call.port, Protocol::Tcp) {
            Lookup::Found(port) => self.call_endpoints(port, call, request).await,
            Lookup::NoPort => {
                // The name of a headless Service is that of its pods: any of their ports is meant.
                let pods = services.addresses(name).into_iter().map(|ip| SocketAddr::new(ip, call.port));
                let answers = |at: &SocketAddr| {
                    let inner = self.network().inner();
                    inner.attachments.get(*at).is_some() || inner.tunnels.has(at.ip())
                };
                let listening: Vec<_> = pods.filter(answers).collect();
                let chosen = listening.choose(&mut rand::rng());
                match chosen {
                    Some(address) => self.call_address(*address, call, request).await,
                    None => Err(CallError::Refused(format!("service {name} has no port {}", call.port))),
                }
            }
            Lookup::NoService => Err(CallError::NameNotFound(format!("service {name}"))),
        }
    }

    async fn call_endpoints(
        &self,
        port: Arc<Port>,
        call: Call,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, CallError> {
        let behind = match self.network().behind(&port) {
            // Whether TLS is to be spoken matters to secure calls alone.
            Behind::Unknown if call.secure => self.network().behind_elsewhere(&port).await,
            behind => behind,
        };
        if behind != Behind::Elsewhere {
            self.sign(request.headers_mut());
        }
        match behind {
            Behind::Listeners | Behind::Elsewhere if call.secure => self.call_secure(request, call.timeouts).await,
            Behind::Elsewhere => self.call_plain(request, call.timeouts).await,
            Behind::Handlers | Behind::Listeners | Behind::Unknown => {
                self.network().call_port(port, self.source(), request, call.timeouts).await
            }
        }
    }

    /// Sends a request to an address.
    async fn call_address(
        &self,
        address: SocketAddr,
        call: Call,
        mut request: Request<Body>,
    ) -> Result<Response<Body>, CallError> {
        let route = self.route(address);
        if !matches!(route, Route::Outside) {
            self.sign(request.headers_mut());
        }
        match route {
            Route::Here(attached) if call.secure && attached.is_socket() => {
                self.call_secure(request, call.timeouts).await
            }
            // At localhost there may be another than at the pod's own address: no connection of those is kept.
            Route::Here(attached) if attached.is_socket() && address.ip().is_loopback() => {
                self.call_plain(request, call.timeouts).await
            }
            Route::Here(attached) => {
                let ticket = attached.admit();
                let ticket =
                    ticket.ok_or_else(|| CallError::NotAccepted(format!("{address} takes no requests now")))?;
                let (network, at) = (self.network(), attached.address);
                network.inner().policies.judge(self.source(), at, Protocol::Tcp)?;
                attached.call(network, request, ticket, (call.timeouts, self.watch(at))).await
            }
            Route::There(peer) => {
                let network = self.network();
                if call.secure && Box::pin(network.asks_whether_socket(&peer, address)).await == Some(true) {
                    return self.call_secure(request, call.timeouts).await;
                }
                let ends = (self.source(), address);
                network.inner().policies.judge(ends.0, address, Protocol::Tcp)?;
                let answer = Box::pin(network.call_elsewhere(&peer, ends, request, call.timeouts)).await;
                answer.map_err(|missed| missed.error)
            }
            Route::Service(port) => self.call_endpoints(port, call, request).await,
            Route::Nobody(why) => Err(CallError::Refused(why)),
            Route::Outside => {
                self.may_reach(call.way(), address)?;
                self.call_outside(&address.ip().to_string(), call, request).await
            }
        }
    }

    /// To a host outside that has been granted.
    async fn call_outside(&self, host: &str, call: Call, request: Request<Body>) -> Result<Response<Body>, CallError> {
        let asked = request.uri().host().unwrap_or(host).to_owned();
        let scheme = if call.secure { "https" } else { "http" };
        let key = format!("{scheme}://{asked}:{}/{host}", call.port);
        let (host, asked) = (host, asked.as_str());
        let connect = || async move {
            let stream = self.open_outside(call.way(), host, call.port).await?;
            match call.secure {
                true => self.network().inner().tls.connect(asked, stream).await,
                false => Ok(Opened { stream, h2: false }),
            }
        };
        Box::pin(self.own().http.send(&key, request, call.timeouts, connect)).await
    }

    /// A connection to a host outside whose name has been granted.
    async fn open_outside(&self, way: Way, host: &str, port: u16) -> Result<PodStream, SocketError> {
        let inner = self.network().inner();
        let outside = &inner.outside;
        let addresses = match host.parse::<IpAddr>() {
            Ok(ip) => vec![ip],
            Err(_) => self.lookup_outside(host).await?,
        };
        let (mut fine, mut bad) = (Vec::new(), None);
        for address in addresses.into_iter().map(|ip| SocketAddr::new(ip, port)) {
            match outside.judge(way, address) {
                Ok(()) => fine.push(address),
                Err(why) => bad = Some(format!("{host}: {why}")),
            }
        }
        let mut denied = None;
        fine.retain(|address| match inner.policies.judge(self.source(), *address, Protocol::Tcp) {
            Ok(()) => true,
            Err(error) => {
                denied = Some(error);
                false
            }
        });
        match (bad, denied) {
            (_, Some(error)) if fine.is_empty() => Err(error),
            (Some(why), None) if fine.is_empty() => Err(self.refused_host(why)),
            _ => Ok(self.connect_outside(way, fine, Some(host)).await?.2),
        }
    }

    /// To a pod that listens and speaks TLS itself.
    async fn call_secure(&self, request: Request<Body>, timeouts: CallTimeouts) -> Result<Response<Body>, CallError> {
        let host = request.uri().host().unwrap_or_default().to_owned();
        let port = request.uri().port_u16().unwrap_or(443);
        let host = host.as_str();
        let connect = || async move {
            let connection = self.connect_host(host, port).await?;
            self.network().inner().tls.connect(host, connection.stream).await
        };
        let key = format!("https://{host}:{port}");
        Box::pin(self.own().http.send(&key, request, timeouts, connect)).await
    }

    /// To whoever is at the end of a connection that no other pod shares: a container of the same pod at `localhost`, or
    /// a Service's endpoint that is no pod.
    async fn call_plain(&self, request: Request<Body>, timeouts: CallTimeouts) -> Result<Response<Body>, CallError> {
        let host = request.uri().host().unwrap_or_default().to_owned();
        let port = request.uri().port_u16().unwrap_or(80);
        let host = host.as_str();
        let connect = || async move { Ok(Opened { stream: self.connect_host(host, port).await?.stream, h2: false }) };
        let key = format!("http://{host}:{port}");
        Box::pin(self.own().http.send(&key, request, timeouts, connect)).await
    }
}

/// A request whose URI names a port; the one that it names now, where it does.
fn at_port(mut request: Request<Body>, number: u16) -> (Request<Body>, u16) {
    let uri = request.uri();
    if let Some(port) = uri.port_u16() {
        return (request, port);
    }
    let mut parts = uri.clone().into_parts();
    parts.authority = uri.host().and_then(|host| format!("{host}:{number}").parse().ok());
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    (request, number)
}

/// What of a call is not in its request any more.
#[derive(Clone, Copy)]
struct Call {
    port: u16,
    secure: bool,
    timeouts: CallTimeouts,
}

impl Call {
    fn way(self) -> Way {
        if self.secure { Way::Https } else { Way::Http }
    }
}

/// What a Service leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behind {
    /// Pods that are called, or nobody.
    Handlers,
    /// Pods that listen themselves.
    Listeners,
    /// Addresses that are no pods'.
    Elsewhere,
    /// Pods of other nodes: which of both, they know.
    Unknown,
}

impl Behind {
    /// Whether connections are taken, not calls alone.
    pub(crate) fn listens(self) -> bool {
        matches!(self, Self::Listeners | Self::Elsewhere)
    }
}

/// Pods of other nodes that are asked.
const ASKED_ELSEWHERE_MAX: usize = 3;

impl Network {
    /// What a Service leads to now.
    pub(crate) fn behind(&self, port: &Port) -> Behind {
        let attached = |e: &Arc<Endpoint>| self.inner().attachments.get(e.address);
        match port.endpoints.iter().find_map(attached) {
            Some(attached) if attached.is_socket() => Behind::Listeners,
            None if port.endpoints.iter().any(|e| !self.inner().is_cluster(e.address.ip())) => Behind::Elsewhere,
            None if port.endpoints.iter().any(|e| self.inner().tunnels.has(e.address.ip())) => Behind::Unknown,
            _ => Behind::Handlers,
        }
    }

    /// The same, asked of other nodes where only they know.
    pub(crate) async fn behind_now(&self, port: &Port) -> Behind {
        match self.behind(port) {
            Behind::Unknown => self.behind_elsewhere(port).await,
            behind => behind,
        }
    }

    /// What pods of other nodes are; what was asked once is remembered.
    async fn behind_elsewhere(&self, port: &Port) -> Behind {
        let known = port.endpoints.iter().find_map(|endpoint| endpoint.is_socket.get().copied());
        let mut is_socket = known;
        for endpoint in port.endpoints.iter().take(ASKED_ELSEWHERE_MAX) {
            if is_socket.is_some() {
                break;
            }
            let Some(peer) = self.elsewhere(endpoint.address.ip()) else { continue };
            is_socket = Box::pin(self.asks_whether_socket(&peer, endpoint.address)).await;
            if let Some(is_socket) = is_socket {
                endpoint.is_socket.get_or_init(|| is_socket);
            }
        }
        if is_socket == Some(true) { Behind::Listeners } else { Behind::Handlers }
    }
}
