//! How a request finds its pod: resolve the name, pick an endpoint, call it, try another when it was not begun.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use http::{Request, Response, Uri};

use crate::{
    Body, CallError, Network,
    attach::{Attached, Ticket},
    balance::{self, Endpoint},
    services::{Lookup, Port},
    table::Name,
};

/// Endpoints of one table tried for one request before giving up.
const TRIES_MAX: usize = 4;
/// Tables read for one request before giving up.
const TABLES_MAX: usize = 8;

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Its namespace: short names are resolved in it.
    pub namespace: String,
    /// Its pod's name.
    pub pod: String,
    /// Its pod's address: what `localhost` means.
    pub ip: Option<IpAddr>,
}

/// The network as one pod sees it.
#[derive(Clone)]
pub struct Dialer {
    network: Network,
    caller: Arc<Caller>,
}

/// What a host and port mean.
#[derive(Debug, PartialEq, Eq)]
enum Target {
    Service(Name, u16),
    Address(SocketAddr),
    Outside(String),
}

impl Dialer {
    pub(crate) fn new(network: Network, caller: Caller) -> Self {
        Self { network, caller: Arc::new(caller) }
    }

    /// Sends a request with an absolute URI.
    ///
    /// # Errors
    /// `NameNotFound`, `Refused` or `Denied` when nobody was asked; else what the pod's handler says.
    pub async fn send(&self, request: Request<Body>) -> Result<Response<Body>, CallError> {
        match self.resolve(request.uri())? {
            Target::Service(name, port) => match self.network.inner().services.port(&name, port) {
                Lookup::Found(port) => self.network.call_port(port, request).await,
                Lookup::NoPort => Err(CallError::Refused(format!("service {name} has no port {port}"))),
                Lookup::NoService => Err(CallError::NameNotFound(format!("service {name}"))),
            },
            Target::Address(address) => self.network.call_address(address, request).await,
            Target::Outside(host) => {
                Err(CallError::Denied(format!("{host} is outside the cluster, and egress is not granted")))
            }
        }
    }

    fn resolve(&self, uri: &Uri) -> Result<Target, CallError> {
        let host = uri.host().ok_or_else(|| CallError::NameNotFound("the request names no host".to_owned()))?;
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
        let domain = &self.network.inner().config.cluster_domain;
        let exists = |name: &Name| !matches!(self.network.inner().services.port(name, port), Lookup::NoService);
        match target(host, port, &self.caller, domain, exists) {
            Target::Address(SocketAddr::V4(a)) if a.ip().is_loopback() => {
                Err(CallError::Refused(format!("{a}: this pod has no address yet")))
            }
            target => Ok(target),
        }
    }
}

fn target(host: &str, port: u16, caller: &Caller, domain: &str, exists: impl Fn(&Name) -> bool) -> Target {
    let bare = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.');
    if let Ok(ip) = bare.parse::<IpAddr>() {
        let ip = if ip.is_loopback() { caller.ip.unwrap_or(ip) } else { ip };
        return Target::Address(SocketAddr::new(ip, port));
    }
    if bare.eq_ignore_ascii_case("localhost") {
        return Target::Address(SocketAddr::new(caller.ip.unwrap_or([127, 0, 0, 1].into()), port));
    }
    let lower = bare.to_ascii_lowercase();
    let short = lower.strip_suffix(domain).and_then(|rest| rest.strip_suffix('.'));
    let name = match (short, short.unwrap_or(&lower).split('.').collect::<Vec<_>>().as_slice()) {
        (_, [name, namespace, "svc"]) => Some(Name::new(*namespace, *name)),
        (None, [name]) => Some(Name::new(caller.namespace.clone(), *name)),
        (None, [name, namespace]) => Some(Name::new(*namespace, *name)),
        _ => None,
    };
    match name {
        // Two labels may as well be a host outside (`example.com`): only a Service that exists is meant.
        Some(name) if short.is_some() || !lower.contains('.') || lower.ends_with(".svc") || exists(&name) => {
            Target::Service(name, port)
        }
        _ => Target::Outside(lower),
    }
}

impl Network {
    /// Sends a request to one of a Service's endpoints.
    pub(crate) async fn call_port(&self, port: Arc<Port>, request: Request<Body>) -> Result<Response<Body>, CallError> {
        let since = Instant::now();
        let metrics = port.metrics.clone();
        let answer = self.balanced(port, request).await;
        metrics.answered(answer.as_ref().ok().map(Response::status), since.elapsed().as_secs_f64());
        answer
    }

    async fn balanced(&self, mut port: Arc<Port>, request: Request<Body>) -> Result<Response<Body>, CallError> {
        for _ in 0..TABLES_MAX {
            if port.endpoints.is_empty() {
                return Err(CallError::Refused(format!("service {} has no ready endpoints", port.service)));
            }
            if let Some((endpoint, attached, ticket)) = self.admitted(&port) {
                let _load = endpoint.begin();
                return attached.call(request, ticket).await;
            }
            // A caller that waited for a processor may hold endpoints that have all gone since: only the present ones
            // may say no.
            match self.inner().services.port(&port.service, port.number) {
                Lookup::Found(now) if !Arc::ptr_eq(&now, &port) => port = now,
                _ => break,
            }
        }
        Err(CallError::NotAccepted(format!("no endpoint of service {} takes requests now", port.service)))
    }

    /// The first endpoint that lets a request begin, of the few that are asked.
    fn admitted(&self, port: &Port) -> Option<(Arc<Endpoint>, Arc<Attached>, Ticket)> {
        let mut tried = Vec::new();
        while tried.len() < TRIES_MAX {
            let endpoint = balance::pick(&port.endpoints, &tried)?;
            let attached = self.inner().attachments.get(endpoint.address);
            if let Some((attached, ticket)) = attached.and_then(|a| a.admit().map(|ticket| (a, ticket))) {
                return Some((endpoint, attached, ticket));
            }
            tried.push(endpoint.address);
        }
        None
    }

    /// Sends a request to a pod's or a Service's address.
    async fn call_address(&self, address: SocketAddr, request: Request<Body>) -> Result<Response<Body>, CallError> {
        if let Some(attached) = self.inner().attachments.get(address) {
            let ticket = attached.admit();
            let ticket = ticket.ok_or_else(|| CallError::NotAccepted(format!("{address} takes no requests now")))?;
            return attached.call(request, ticket).await;
        }
        match self.inner().services.by_ip(address.ip(), address.port()) {
            Lookup::Found(port) => self.call_port(port, request).await,
            Lookup::NoPort => Err(CallError::Refused(format!("no service port at {address}"))),
            Lookup::NoService if is_private(address.ip()) => {
                Err(CallError::Refused(format!("nobody listens at {address}")))
            }
            Lookup::NoService => {
                Err(CallError::Denied(format!("{address} is outside the cluster, and egress is not granted")))
            }
        }
    }
}

fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => v4.is_private() || v4.is_loopback(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(host: &str) -> Target {
        let caller = Caller { namespace: "shop".into(), pod: "web-1".into(), ip: Some([10, 244, 0, 7].into()) };
        target(host, 80, &caller, "cluster.local", |name| *name == Name::new("ns", "svc"))
    }

    fn service(namespace: &str, name: &str) -> Target {
        Target::Service(Name::new(namespace, name), 80)
    }

    #[test]
    fn names_mean_what_they_mean_in_kubernetes() {
        let own: Target = Target::Address(([10, 244, 0, 7], 80).into());
        for (host, expected) in [
            ("svc", service("shop", "svc")),
            ("SVC", service("shop", "svc")),
            ("svc.ns", service("ns", "svc")),
            ("svc.other.svc", service("other", "svc")),
            ("svc.other.svc.cluster.local", service("other", "svc")),
            ("svc.other.svc.cluster.local.", service("other", "svc")),
            ("localhost", own),
            ("127.0.0.1", Target::Address(([10, 244, 0, 7], 80).into())),
            ("10.96.0.10", Target::Address(([10, 96, 0, 10], 80).into())),
            ("example.com", Target::Outside("example.com".into())),
            ("a.b.example.com", Target::Outside("a.b.example.com".into())),
            ("other.cluster.local", Target::Outside("other.cluster.local".into())),
        ] {
            assert_eq!(resolve(host), expected, "{host}");
        }
    }
}
