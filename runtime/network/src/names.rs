//! What a host name means to a pod: itself, a Service, a pod behind one, an address, or a host outside. Pure.
//!
//! # Source
//! Kubernetes' DNS specification 1.1.0, and the search list `NAMESPACE.svc.DOMAIN svc.DOMAIN DOMAIN` with `ndots:5`
//! that a kubelet gives a pod.

use std::net::{IpAddr, Ipv4Addr};

use crate::{
    dialer::{Caller, Membership},
    table::{Name, Protocol},
};

/// What a name means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// The pod itself.
    Loopback(IpAddr),
    /// An address.
    Address(IpAddr),
    /// A Service, which may not exist.
    Service(Name),
    /// A pod that a headless Service gives a name.
    Endpoint { service: Name, hostname: String },
    /// A Service's port by its name: `_PORT._PROTOCOL.SERVICE…`.
    Port { service: Name, port: String, protocol: Protocol },
    /// One label that is no Service: a host nearby, if that is granted.
    Bare(String),
    /// A host outside, in lower case.
    Outside(String),
    /// A name of the cluster that means nothing.
    Unknown(String),
}

/// What is known of Services.
pub(crate) trait Known {
    /// Whether there is such a Service.
    fn service(&self, name: &Name) -> bool;
    /// Whether a Service gives a pod this name.
    fn endpoint(&self, service: &Name, hostname: &str) -> bool;
}

/// What `host` means to a caller; brackets around an IPv6 address and a dot at the end are taken away.
pub(crate) fn meaning(host: &str, who: (&Caller, &Membership), domain: &str, known: &impl Known) -> Meaning {
    let (caller, member) = who;
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return address(ip.to_canonical());
    }
    let lower = bare.strip_suffix('.').unwrap_or(bare).to_ascii_lowercase();
    if lower == "localhost" || lower.ends_with(".localhost") {
        return Meaning::Loopback(Ipv4Addr::LOCALHOST.into());
    }
    if let Some((ip, _)) = member.aliases.iter().find(|(_, names)| names.contains(&lower)) {
        return address(ip.to_canonical());
    }
    if let Some(ip) = caller.ip.filter(|_| lower == member.hostname.as_deref().unwrap_or(&caller.pod)) {
        return Meaning::Address(ip);
    }
    match lower.strip_suffix(domain).and_then(|rest| rest.strip_suffix('.')) {
        Some(short) => absolute(short, &lower),
        // A dot at its end: the name is whole.
        None if bare.ends_with('.') => Meaning::Outside(lower),
        None => {
            let found = match member.apart {
                false => searched(&lower, &caller.namespace, known),
                true if lower.contains('.') => Meaning::Outside(lower.clone()),
                true => Meaning::Bare(lower.clone()),
            };
            match found {
                Meaning::Bare(_) | Meaning::Outside(_) => {
                    in_domains(&lower, &member.searches, domain, known).unwrap_or(found)
                }
                found => found,
            }
        }
    }
}

/// Whether a domain is another one or below it.
pub(crate) fn is_within(domain: &str, outer: &str) -> bool {
    domain.strip_suffix(outer).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// What a name means in the first of a pod's own search domains that are the cluster's and have it.
fn in_domains(lower: &str, searches: &[String], domain: &str, known: &impl Known) -> Option<Meaning> {
    searches.iter().filter(|search| is_within(search, domain)).find_map(|search| {
        let whole = format!("{lower}.{search}");
        let found = absolute(whole.strip_suffix(domain)?.strip_suffix('.')?, &whole);
        let exists = match &found {
            Meaning::Service(service) | Meaning::Port { service, .. } => known.service(service),
            Meaning::Endpoint { service, hostname } => known.endpoint(service, hostname),
            Meaning::Address(_) => true,
            _ => false,
        };
        exists.then_some(found)
    })
}

/// An address as a host: that of the pod when it is `localhost` or unspecified.
fn address(ip: IpAddr) -> Meaning {
    match ip {
        ip if ip.is_loopback() => Meaning::Loopback(ip),
        IpAddr::V4(v4) if v4.is_unspecified() => Meaning::Loopback(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(v6) if v6.is_unspecified() => Meaning::Loopback(std::net::Ipv6Addr::LOCALHOST.into()),
        ip => Meaning::Address(ip),
    }
}

fn service(namespace: &str, name: &str) -> Meaning {
    Meaning::Service(Name::new(namespace, name))
}

fn endpoint(namespace: &str, name: &str, hostname: &str) -> Meaning {
    Meaning::Endpoint { service: Name::new(namespace, name), hostname: hostname.to_owned() }
}

/// A name below the cluster's domain, without it.
fn absolute(short: &str, whole: &str) -> Meaning {
    match below_domain(short) {
        Below::Service(service) => Meaning::Service(service),
        Below::Endpoint { service, hostname } => Meaning::Endpoint { service, hostname },
        Below::Port { service, port, protocol } => Meaning::Port { service, port, protocol },
        Below::Pod { ip, .. } => Meaning::Address(ip),
        Below::Node | Below::Namespace(_) | Below::Nothing => Meaning::Unknown(whole.to_owned()),
    }
}

/// What a name below the cluster's domain stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Below {
    /// The domain itself, `svc` and `pod`: names that have others below them.
    Node,
    /// `NAMESPACE.svc`, `NAMESPACE.pod`
    Namespace(String),
    /// `SERVICE.NAMESPACE.svc`
    Service(Name),
    /// `HOSTNAME.SERVICE.NAMESPACE.svc`
    Endpoint { service: Name, hostname: String },
    /// `_PORT._PROTOCOL.SERVICE.NAMESPACE.svc`
    Port { service: Name, port: String, protocol: Protocol },
    /// `10-244-0-7.NAMESPACE.pod`
    Pod { namespace: String, ip: IpAddr },
    /// No name that could mean anything.
    Nothing,
}

/// Reads a name below the cluster's domain: without that and without a dot at its end, in lower case.
pub(crate) fn below_domain(short: &str) -> Below {
    match short.split('.').collect::<Vec<_>>().as_slice() {
        [""] | ["svc" | "pod"] => Below::Node,
        [namespace, "svc" | "pod"] => Below::Namespace((*namespace).to_owned()),
        [name, namespace, "svc"] => Below::Service(Name::new(*namespace, *name)),
        [hostname, name, namespace, "svc"] => {
            Below::Endpoint { service: Name::new(*namespace, *name), hostname: (*hostname).to_owned() }
        }
        [port, protocol, name, namespace, "svc"] => match port_name(port, protocol) {
            Some((port, protocol)) => Below::Port { service: Name::new(*namespace, *name), port, protocol },
            None => Below::Nothing,
        },
        [dashed, namespace, "pod"] => match pod_address(dashed) {
            Some(ip) => Below::Pod { namespace: (*namespace).to_owned(), ip },
            None => Below::Nothing,
        },
        _ => Below::Nothing,
    }
}

/// `_http._tcp`
fn port_name(port: &str, protocol: &str) -> Option<(String, Protocol)> {
    let protocol = match protocol {
        "_tcp" => Protocol::Tcp,
        "_udp" => Protocol::Udp,
        _ => return None,
    };
    port.strip_prefix('_').filter(|name| !name.is_empty()).map(|name| (name.to_owned(), protocol))
}

/// `10-244-0-7`
pub(crate) fn pod_address(dashed: &str) -> Option<IpAddr> {
    let v4 = dashed.replace('-', ".").parse::<Ipv4Addr>().map(IpAddr::V4);
    let v6 = || dashed.replace('-', ":").parse().map(IpAddr::V6);
    v4.or_else(|_| v6()).ok()
}

/// The name that an endpoint has below its Service when nobody gave it one: `10-244-0-7`.
pub(crate) fn dashed(ip: IpAddr) -> String {
    ip.to_string().replace(['.', ':'], "-")
}

/// Any other name, in the order of the search list. What may as well be a host outside means the cluster only where that
/// has such a name.
fn searched(lower: &str, own: &str, known: &impl Known) -> Meaning {
    let has_service = |namespace: &str, name: &str| known.service(&Name::new(namespace, name));
    let labels: Vec<&str> = lower.split('.').collect();
    if let [port, protocol, rest @ ..] = labels.as_slice()
        && let Some((port, protocol)) = port_name(port, protocol)
    {
        return match searched(&rest.join("."), own, known) {
            Meaning::Service(service) => Meaning::Port { service, port, protocol },
            _ => Meaning::Outside(lower.to_owned()),
        };
    }
    let has_endpoint = |namespace: &str, name: &str, host: &str| known.endpoint(&Name::new(namespace, name), host);
    match labels.as_slice() {
        [name] if has_service(own, name) => service(own, name),
        [_] => Meaning::Bare(lower.to_owned()),
        [host, name] if has_endpoint(own, name, host) => endpoint(own, name, host),
        [name, namespace] if has_service(namespace, name) => service(namespace, name),
        [name, namespace, "svc"] => service(namespace, name),
        [host, name, namespace] if has_endpoint(namespace, name, host) => endpoint(namespace, name, host),
        [host, name, namespace, "svc"] => endpoint(namespace, name, host),
        _ => Meaning::Outside(lower.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Two;

    impl Known for Two {
        fn service(&self, name: &Name) -> bool {
            *name == Name::new("shop", "web") || *name == Name::new("data", "db")
        }

        fn endpoint(&self, service: &Name, hostname: &str) -> bool {
            self.service(service) && hostname == "db-0"
        }
    }

    fn check(host: &str, expected: Meaning) {
        let aliases = vec![([10, 1, 0, 9].into(), vec!["legacy".to_owned(), "legacy.example".to_owned()])];
        let caller = Caller {
            namespace: "shop".into(),
            pod: "web-1".into(),
            service_account: String::new(),
            ip: Some([10, 244, 0, 7].into()),
        };
        let member = Membership { aliases, ..Membership::default() };
        assert_eq!(meaning(host, (&caller, &member), "cluster.local", &Two), expected, "{host}");
    }

    #[test]
    fn names_mean_what_they_mean_in_kubernetes() {
        let outside = |host: &str| Meaning::Outside(host.to_owned());
        let unknown = |host: &str| Meaning::Unknown(host.to_owned());
        let port = |namespace: &str, name: &str| Meaning::Port {
            service: Name::new(namespace, name),
            port: "http".to_owned(),
            protocol: Protocol::Tcp,
        };
        let db = |namespace| endpoint(namespace, "db", "db-0");
        for (host, expected) in [
            ("web", service("shop", "web")),
            ("WEB", service("shop", "web")),
            ("nope", Meaning::Bare("nope".into())),
            ("db.data", service("data", "db")),
            ("x.other.svc", service("other", "x")),
            ("x.other.svc.cluster.local", service("other", "x")),
            ("x.other.svc.cluster.local.", service("other", "x")),
            ("db-0.web", endpoint("shop", "web", "db-0")),
            ("db-0.db.data", db("data")),
            ("db-1.db.data", outside("db-1.db.data")),
            ("db-0.db.other.svc", db("other")),
            ("db-0.db.data.svc.cluster.local", db("data")),
            ("10-244-0-9.shop.pod.cluster.local", Meaning::Address([10, 244, 0, 9].into())),
            ("x.shop.pod.cluster.local", Meaning::Unknown("x.shop.pod.cluster.local".into())),
            ("other.cluster.local", Meaning::Unknown("other.cluster.local".into())),
            ("_http._tcp.web", port("shop", "web")),
            ("_http._tcp.db.data", port("data", "db")),
            ("_http._tcp.x.other.svc", port("other", "x")),
            ("_http._tcp.x.other.svc.cluster.local", port("other", "x")),
            ("_http._sctp.x.other.svc.cluster.local", unknown("_http._sctp.x.other.svc.cluster.local")),
            ("_._tcp.x.other.svc.cluster.local", unknown("_._tcp.x.other.svc.cluster.local")),
            ("_sip._tcp.example.com", outside("_sip._tcp.example.com")),
            ("example.com", outside("example.com")),
            ("a.b.Example.com", outside("a.b.example.com")),
        ] {
            check(host, expected);
        }
    }

    #[test]
    fn search_domains_are_those_of_the_pod() {
        let caller = Caller { namespace: "shop".into(), pod: "web-1".into(), service_account: String::new(), ip: None };
        let check = |apart, searches: &[&str], host: &str, expected: Meaning| {
            let searches = searches.iter().map(|s| (*s).to_owned()).collect();
            let member = Membership { apart, searches, ..Membership::default() };
            let found = meaning(host, (&caller, &member), "cluster.local", &Two);
            assert_eq!(found, expected, "{host} {apart} {member:?}");
        };
        let (bare, outside) = (|n: &str| Meaning::Bare(n.into()), |n: &str| Meaning::Outside(n.into()));
        let data = ["corp.example", "data.svc.cluster.local", "svc.cluster.local"];
        check(false, &[], "db", bare("db"));
        check(false, &data, "db", service("data", "db"));
        check(false, &data, "web", service("shop", "web"));
        check(false, &data, "nope", bare("nope"));
        check(true, &[], "web", bare("web"));
        check(true, &[], "web.shop", outside("web.shop"));
        check(true, &[], "web.shop.svc.cluster.local", service("shop", "web"));
        check(true, &data, "db", service("data", "db"));
        check(true, &data, "web.shop", service("shop", "web"));
        check(true, &data, "db-0.db", endpoint("data", "db", "db-0"));
        check(true, &["cluster.local"], "web.shop.svc", service("shop", "web"));
        check(true, &["notcluster.local"], "web.shop.svc", outside("web.shop.svc"));
        check(false, &data, "web.shop.", outside("web.shop"));
    }

    #[test]
    fn localhost_is_the_pod_by_whatever_name() {
        let four = || Meaning::Loopback([127, 0, 0, 1].into());
        for host in ["localhost", "LOCALHOST.", "x.localhost", "127.0.0.1", "0.0.0.0", "::ffff:127.0.0.1"] {
            check(host, four());
        }
        check("127.0.0.9", Meaning::Loopback([127, 0, 0, 9].into()));
        check("[::1]", Meaning::Loopback("::1".parse().unwrap()));
        check("::", Meaning::Loopback("::1".parse().unwrap()));
        check("web-1", Meaning::Address([10, 244, 0, 7].into()));
        check("10.96.0.10", Meaning::Address([10, 96, 0, 10].into()));
        check("legacy.example", Meaning::Address([10, 1, 0, 9].into()));
    }
}
