//! Listeners of Gateways: what they can do, what is wrong with them, and which of them stand in one another's way.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
};

use podium_network::{Certificate, routes::Host, table::Name};

use super::{
    conditions::Condition,
    kinds::{GROUP, Gateway, Listener, ListenerTls},
    seen::{Here, Namer, Seen, Unresolved},
};
use crate::driver::policies;

/// What a listener speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaks {
    Http,
    Https,
    /// TLS that ends here, with whatever within.
    Tls,
    Passthrough,
}

/// One listener.
#[derive(Debug)]
pub(crate) struct Point<'a> {
    pub(crate) listener: &'a Listener,
    pub(crate) host: Host,
    pub(crate) speaks: Option<Speaks>,
    /// Kinds of routes that it takes.
    pub(crate) kinds: Vec<&'static str>,
    pub(crate) certificates: Vec<Certificate>,
    pub(crate) unresolved: Option<Unresolved>,
    /// Reason and message.
    pub(crate) conflict: Option<(&'static str, String)>,
    pub(crate) attached: usize,
}

/// One Gateway.
#[derive(Debug)]
pub(crate) struct Site<'a> {
    pub(crate) name: &'a Name,
    pub(crate) gateway: &'a Gateway,
    pub(crate) addresses: Vec<IpAddr>,
    /// Why the Gateway as a whole is not accepted: reason and message.
    pub(crate) refused: Option<(&'static str, String)>,
    pub(crate) points: Vec<Point<'a>>,
}

/// Gateways that are served here, the oldest first, with their conflicts.
pub(crate) fn sites(seen: &Seen, here: Here) -> Vec<Site<'_>> {
    let mut sites: Vec<Site<'_>> =
        seen.served().into_iter().map(|(name, gateway)| site(seen, here, name, gateway)).collect();
    let mut taken: HashMap<SocketAddr, Taken> = HashMap::new();
    for site in sites.iter_mut().filter(|site| site.refused.is_none()) {
        if site.gateway.spec.addresses.is_empty() {
            site.addresses = vec![site.address(&taken, here, &seen.pool)];
        }
        for point in &mut site.points {
            let Some(speaks) = point.speaks else { continue };
            let at = site.addresses.iter().map(|ip| SocketAddr::new(*ip, point.listener.port));
            let conflict = at.clone().find_map(|at| taken.get(&at)?.conflict(at, speaks, &point.host));
            match conflict {
                Some(conflict) => point.conflict = Some(conflict),
                None => at.for_each(|at| taken.entry(at).or_default().take(speaks, &point.host)),
            }
        }
    }
    sites
}

impl Site<'_> {
    /// The address of a Gateway that names none: the one of the pool that it has, where all listen, or another of the pool;
    /// the first at which no older listener is in its way.
    fn address(&self, taken: &HashMap<SocketAddr, Taken>, here: Here, pool: &[IpAddr]) -> IpAddr {
        // Whoever listens at every address has each port once.
        let pool = if here.listen.is_unspecified() { &[] } else { pool };
        let said = self.gateway.status["addresses"][0]["value"].as_str().and_then(|text| text.parse().ok());
        let has = said.filter(|ip| pool.contains(ip));
        let free = |ip: IpAddr, point: &Point<'_>| {
            let at = SocketAddr::new(ip, point.listener.port);
            let conflict =
                |speaks| taken.get(&at).is_some_and(|taken| taken.conflict(at, speaks, &point.host).is_some());
            !point.speaks.is_some_and(conflict)
        };
        let mut all = has.into_iter().chain([here.listen]).chain(pool.iter().copied());
        all.find(|ip| self.points.iter().all(|point| free(*ip, point))).unwrap_or(here.listen)
    }
}

/// What is taken of a port.
#[derive(Default)]
struct Taken {
    plain: bool,
    secure: bool,
    hosts: Vec<Host>,
}

impl Taken {
    fn conflict(&self, at: SocketAddr, speaks: Speaks, host: &Host) -> Option<(&'static str, String)> {
        let plain = speaks == Speaks::Http;
        if self.secure && plain || self.plain && !plain {
            return Some(("ProtocolConflict", format!("an older listener speaks another protocol at {at}")));
        }
        let same = self.hosts.contains(host);
        same.then(|| ("HostnameConflict", format!("an older listener at {at} has the same host name")))
    }

    fn take(&mut self, speaks: Speaks, host: &Host) {
        self.plain |= speaks == Speaks::Http;
        self.secure |= speaks != Speaks::Http;
        self.hosts.push(host.clone());
    }
}

fn site<'a>(seen: &Seen, here: Here, name: &'a Name, gateway: &'a Gateway) -> Site<'a> {
    let mut refused = None;
    let mut addresses = Vec::new();
    for address in &gateway.spec.addresses {
        let of = address.r#type.as_deref().unwrap_or("IPAddress");
        match (of, address.value.as_deref().unwrap_or_default()) {
            ("IPAddress", "") => addresses.push(here.listen),
            ("IPAddress", value) => match value.parse() {
                Ok(ip) if may_listen(here, ip) => addresses.push(ip),
                Ok(ip) => {
                    let message =
                        format!("{ip} is not among what this cluster listens at: {} (podium up --http)", here.listen);
                    refused = Some(("UnsupportedAddress", message));
                }
                Err(_) => refused = Some(("UnsupportedAddress", format!("{value:?} is no IP address"))),
            },
            (of, _) => refused = Some(("UnsupportedAddress", format!("addresses of type {of} are not supported"))),
        }
    }
    if addresses.is_empty() {
        addresses.push(here.listen);
    }
    if gateway.spec.infrastructure.parameters_ref.is_some() {
        refused = Some(("InvalidParameters", "spec.infrastructure.parametersRef is not supported".to_owned()));
    }
    let points = gateway.spec.listeners.iter().map(|listener| point(seen, &name.namespace, listener)).collect();
    Site { name, gateway, addresses, refused, points }
}

/// Whether a Gateway may have an address: nobody is reached from farther away than the operator has said.
fn may_listen(here: Here, ip: IpAddr) -> bool {
    here.listen.is_unspecified() || here.listen == ip || here.listen.is_loopback() && ip.is_loopback()
}

fn point<'a>(seen: &Seen, namespace: &str, listener: &'a Listener) -> Point<'a> {
    let passthrough = listener.tls.as_ref().and_then(|tls| tls.mode.as_deref()) == Some("Passthrough");
    let (speaks, of_protocol): (_, &[&'static str]) = match listener.protocol.as_str() {
        "HTTP" => (Some(Speaks::Http), &["HTTPRoute", "GRPCRoute"]),
        "HTTPS" => (Some(Speaks::Https), &["HTTPRoute", "GRPCRoute"]),
        "TLS" if passthrough => (Some(Speaks::Passthrough), &["TLSRoute"]),
        "TLS" => (Some(Speaks::Tls), &["TLSRoute"]),
        _ => (None, &[]),
    };
    let mut point = Point {
        listener,
        host: Host::of_gateway(listener.hostname.as_deref()),
        speaks,
        kinds: of_protocol.to_vec(),
        certificates: Vec::new(),
        unresolved: None,
        conflict: None,
        attached: 0,
    };
    if matches!(speaks, Some(Speaks::Https | Speaks::Tls)) {
        let namer = Namer { kind: "Gateway", namespace };
        point.certificates(seen, namer, listener.tls.as_ref());
    }
    let wanted = &listener.allowed_routes.kinds;
    if !wanted.is_empty() && speaks.is_some() {
        let is = |known: &str| wanted.iter().any(|w| w.group.as_deref().unwrap_or(GROUP) == GROUP && w.kind == known);
        point.kinds.retain(|known| is(known));
        let other = wanted
            .iter()
            .find(|w| w.group.as_deref().unwrap_or(GROUP) != GROUP || !of_protocol.contains(&w.kind.as_str()));
        if let Some(other) = other {
            let message = format!(
                "routes of kind {} cannot be attached to a listener of protocol {}",
                other.kind, listener.protocol
            );
            point.unresolved.get_or_insert(Unresolved { reason: "InvalidRouteKinds", message });
        }
    }
    point
}

impl Point<'_> {
    fn certificates(&mut self, seen: &Seen, namer: Namer<'_>, tls: Option<&ListenerTls>) {
        let refs = tls.map(|tls| tls.certificate_refs.as_slice()).unwrap_or_default();
        let mut wrong = |reason, message| {
            self.unresolved.get_or_insert(Unresolved { reason, message });
        };
        if refs.is_empty() {
            wrong("InvalidCertificateRef", "the listener names no certificate".to_owned());
        }
        for named in refs {
            let (group, kind) = (named.group.as_deref().unwrap_or_default(), named.kind.as_deref().unwrap_or("Secret"));
            if (group, kind) != ("", "Secret") {
                wrong(
                    "InvalidCertificateRef",
                    format!("{kind:?} of group {group:?} holds no certificate: only a Secret does"),
                );
                continue;
            }
            let secret = Name::new(named.namespace.as_deref().unwrap_or(namer.namespace), named.name.as_str());
            if !seen.may_name(namer, (group, kind), &secret) {
                let message = format!(
                    "Secret {secret} is in another namespace, and no ReferenceGrant there lets this Gateway name it"
                );
                wrong("RefNotPermitted", message);
                continue;
            }
            match seen.secrets.get(&secret) {
                Some(Ok(certificate)) => self.certificates.push(certificate.clone()),
                Some(Err(why)) => wrong("InvalidCertificateRef", format!("Secret {secret}: {why}")),
                None => wrong("InvalidCertificateRef", format!("there is no Secret {secret}")),
            }
        }
    }

    /// Whether it can be attached to.
    pub(crate) fn is_accepted(&self) -> bool {
        self.speaks.is_some() && self.conflict.is_none()
    }

    /// Whether it can listen.
    pub(crate) fn can_listen(&self) -> bool {
        let shows = matches!(self.speaks, Some(Speaks::Https | Speaks::Tls));
        self.is_accepted() && (!shows || !self.certificates.is_empty())
    }

    /// Whether routes of a namespace may be attached.
    pub(crate) fn allows(&self, seen: &Seen, own: &str, namespace: &str) -> bool {
        let allowed = &self.listener.allowed_routes.namespaces;
        match allowed.from.as_deref().unwrap_or("Same") {
            "All" => true,
            "Same" => own == namespace,
            "Selector" => {
                let labels = seen.namespaces.get(namespace);
                let selector = allowed.selector.as_ref().map(policies::selector);
                labels.is_some_and(|labels| selector.is_some_and(|selector| selector.selects(labels)))
            }
            _ => false,
        }
    }

    /// Its conditions. `failed`: why its port does not listen.
    pub(crate) fn conditions(&self, failed: Option<&str>) -> Vec<Condition> {
        let accepted = match (&self.conflict, failed) {
            _ if self.speaks.is_none() => {
                let message = format!("protocol {:?} is not supported", self.listener.protocol);
                Condition::not("Accepted", "UnsupportedProtocol", message)
            }
            (Some((reason, message)), _) => Condition::not("Accepted", reason, message.as_str()),
            (None, Some(why)) => Condition::not("Accepted", "PortUnavailable", why),
            (None, None) => Condition::is("Accepted", "Accepted"),
        };
        let conflicted = match &self.conflict {
            Some((reason, message)) => {
                Condition { holds: true, ..Condition::not("Conflicted", reason, message.as_str()) }
            }
            None => Condition::not("Conflicted", "NoConflicts", ""),
        };
        let resolved = match &self.unresolved {
            Some(why) => Condition::not("ResolvedRefs", why.reason, why.message.as_str()),
            None => Condition::is("ResolvedRefs", "ResolvedRefs"),
        };
        let programmed = match self.can_listen() && failed.is_none() {
            true => Condition::is("Programmed", "Programmed"),
            false => Condition::not("Programmed", "Invalid", "the listener does not listen"),
        };
        vec![accepted, conflicted, resolved, programmed]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_no_wider_than_the_operators() {
        for (listen, wanted, may) in [
            ("127.0.0.1", "127.0.0.9", true),
            ("127.0.0.1", "::1", true),
            ("127.0.0.1", "0.0.0.0", false),
            ("127.0.0.1", "192.0.2.1", false),
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "127.0.0.1", false),
            ("0.0.0.0", "192.0.2.1", true),
            ("::", "0.0.0.0", true),
        ] {
            let here = Here { listen: listen.parse().unwrap(), shown: listen.parse().unwrap() };
            assert_eq!(may_listen(here, wanted.parse().unwrap()), may, "{listen} {wanted}");
        }
    }
}
