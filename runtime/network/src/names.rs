//! What a host name means to a pod: itself, a Service, a pod behind one, an address, or a host outside. Pure.
//!
//! # Source
//! Kubernetes' DNS specification 1.1.0, and the search list `NAMESPACE.svc.DOMAIN svc.DOMAIN DOMAIN` with `ndots:5`
//! that a kubelet gives a pod.

use std::net::{IpAddr, Ipv4Addr};

use crate::{
    dialer::{Caller, Membership},
    table::Name,
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
        None => searched(&lower, &caller.namespace, known),
    }
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
    match short.split('.').collect::<Vec<_>>().as_slice() {
        [name, namespace, "svc"] => service(namespace, name),
        [hostname, name, namespace, "svc"] => endpoint(namespace, name, hostname),
        [dashed, _, "pod"] => pod_address(dashed).unwrap_or_else(|| Meaning::Unknown(whole.to_owned())),
        _ => Meaning::Unknown(whole.to_owned()),
    }
}

/// `10-244-0-7`
fn pod_address(dashed: &str) -> Option<Meaning> {
    let v4 = dashed.replace('-', ".").parse::<Ipv4Addr>().map(IpAddr::V4);
    let v6 = || dashed.replace('-', ":").parse().map(IpAddr::V6);
    v4.or_else(|_| v6()).ok().map(Meaning::Address)
}

/// Any other name, in the order of the search list. What may as well be a host outside means the cluster only where that
/// has such a name.
fn searched(lower: &str, own: &str, known: &impl Known) -> Meaning {
    let has_service = |namespace: &str, name: &str| known.service(&Name::new(namespace, name));
    let has_endpoint = |namespace: &str, name: &str, host: &str| known.endpoint(&Name::new(namespace, name), host);
    match lower.split('.').collect::<Vec<_>>().as_slice() {
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
        let caller = Caller { namespace: "shop".into(), pod: "web-1".into(), ip: Some([10, 244, 0, 7].into()) };
        let member = Membership { aliases, ..Membership::default() };
        assert_eq!(meaning(host, (&caller, &member), "cluster.local", &Two), expected, "{host}");
    }

    #[test]
    fn names_mean_what_they_mean_in_kubernetes() {
        let outside = |host: &str| Meaning::Outside(host.to_owned());
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
            ("example.com", outside("example.com")),
            ("a.b.Example.com", outside("a.b.example.com")),
        ] {
            check(host, expected);
        }
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
