//! Which hosts outside the cluster a pod may reach: patterns, and the decision over them. Pure; nothing is granted unless
//! somebody says so.
//!
//! Whether an address belongs to the host itself is another question, asked of the very address that is connected to.
//!
//! # Source
//! Spin's `allowed_outbound_hosts`, with ranges of addresses, and with schemes and IP networks left out where they say
//! nothing.

use std::{fmt, net::IpAddr, str::FromStr, sync::Arc};

use crate::{ranges::IpRange, table::Protocol};

/// Annotation of a pod: patterns of what it may reach outside the cluster, separated by commas or white space.
pub const ALLOWED_HOSTS: &str = "podium.dev/allowed-outbound-hosts";
/// Annotation of a namespace: the same for its pods that do not say.
pub const DEFAULT_HOSTS: &str = "podium.dev/default-allowed-outbound-hosts";
/// Annotation of a namespace: what its pods may reach at most, whatever they say.
pub const MAX_HOSTS: &str = "podium.dev/max-allowed-outbound-hosts";

/// Most patterns in one list.
const PATTERNS_MAX: usize = 256;

/// One pattern: `https://api.example.com`, `*.example.com:443`, `10.1.0.0/16:*`, `postgres://db:5432`, `*:*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPattern {
    scheme: Option<String>,
    host: HostIs,
    ports: Ports,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum HostIs {
    Any,
    Name(String),
    /// `.example.com`
    Below(String),
    In(IpRange),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ports {
    first: u16,
    last: u16,
}

/// A list of patterns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostPatterns(Arc<[HostPattern]>);

/// What a namespace says about its pods.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamespaceEgress {
    /// What pods may reach that do not say.
    pub default: Option<HostPatterns>,
    /// What they may reach at most.
    pub max: Option<HostPatterns>,
}

/// A string that is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{pattern:?} is no pattern of hosts: {why}")]
pub struct BadPattern {
    /// What it says.
    pub pattern: String,
    /// What is wrong, and what to write.
    pub why: &'static str,
}

/// How somebody wants to go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Tcp,
    Udp,
    Http,
    Https,
}

/// Where somebody wants to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Host<'a> {
    Name(&'a str),
    Ip(IpAddr),
}

impl HostPattern {
    /// That of a host (a name, `*.name`, an address, a range, `*`) and its ports, from the first to the last; for one
    /// protocol, or for all.
    ///
    /// # Errors
    /// When the host is none, or no port lies between.
    pub fn new(host: &str, ports: (u16, u16), protocol: Option<Protocol>) -> Result<Self, BadPattern> {
        let bad = |why| BadPattern { pattern: host.to_owned(), why };
        let scheme = protocol.map(|protocol| match protocol {
            Protocol::Tcp => "tcp".to_owned(),
            Protocol::Udp => "udp".to_owned(),
        });
        let (first, last) = ports;
        if first == 0 || last < first {
            return Err(bad("its ports are from 1 to 65535, the first before the last"));
        }
        Ok(Self { scheme, host: host_is(host).map_err(bad)?, ports: Ports { first, last } })
    }

    fn allows(&self, way: Way, host: Host<'_>, port: u16) -> bool {
        self.takes(way) && (self.ports.first..=self.ports.last).contains(&port) && self.host.is(host)
    }

    /// A way of which the network sees only bytes may be what the pattern says.
    fn takes(&self, way: Way) -> bool {
        let Some(scheme) = self.scheme.as_deref() else { return true };
        match way {
            Way::Udp => scheme == "udp",
            Way::Tcp => scheme != "udp",
            Way::Http => matches!(scheme, "http" | "tcp"),
            Way::Https => matches!(scheme, "https" | "tcp"),
        }
    }
}

impl HostIs {
    fn is(&self, host: Host<'_>) -> bool {
        match (self, host) {
            (Self::Any, _) => true,
            (Self::Name(name), Host::Name(host)) => name == host,
            (Self::Below(suffix), Host::Name(host)) => host.len() > suffix.len() && host.ends_with(suffix.as_str()),
            (Self::In(range), Host::Ip(ip)) => range.contains(ip),
            _ => false,
        }
    }
}

impl HostPatterns {
    /// Whether it allows this. Names in lower case.
    pub(crate) fn allow(&self, way: Way, host: Host<'_>, port: u16) -> bool {
        self.0.iter().any(|pattern| pattern.allows(way, host, port))
    }

    /// Whether it allows anything of a host, so that its name may be looked up.
    pub(crate) fn name(&self, name: &str) -> bool {
        self.0.iter().any(|pattern| pattern.host.is(Host::Name(name)))
    }
}

impl FromIterator<HostPattern> for HostPatterns {
    fn from_iter<I: IntoIterator<Item = HostPattern>>(patterns: I) -> Self {
        Self(patterns.into_iter().collect())
    }
}

impl FromStr for HostPatterns {
    type Err = BadPattern;

    fn from_str(text: &str) -> Result<Self, BadPattern> {
        let words = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty());
        let patterns = words.map(str::parse).collect::<Result<Vec<_>, _>>()?;
        if patterns.len() > PATTERNS_MAX {
            return Err(BadPattern { pattern: format!("{} patterns", patterns.len()), why: "256 are the most" });
        }
        Ok(Self(patterns.into()))
    }
}

impl FromStr for HostPattern {
    type Err = BadPattern;

    fn from_str(text: &str) -> Result<Self, BadPattern> {
        let bad = |why| BadPattern { pattern: text.to_owned(), why };
        let (scheme, rest) = match text.split_once("://") {
            Some(("*", rest)) => (None, rest),
            Some(("", _)) => return Err(bad("nothing stands before ://")),
            Some((scheme, rest)) => (Some(scheme.to_ascii_lowercase()), rest),
            None => (None, text),
        };
        let (host, port) = split_port(rest.strip_suffix('/').unwrap_or(rest));
        let ports = match port {
            Some(port) => ports(port).ok_or_else(|| bad("the port is a number, a range such as 8000..8010, or *"))?,
            None => {
                let known = scheme.as_deref().and_then(scheme_port);
                let port = known.ok_or_else(|| bad("name a port, for example example.com:443 or example.com:*"))?;
                Ports { first: port, last: port }
            }
        };
        Ok(Self { scheme, host: host_is(host).map_err(bad)?, ports })
    }
}

/// Host and port of `host`, `host:port`, `[v6]:port`, `v6/64:port`.
fn split_port(text: &str) -> (&str, Option<&str>) {
    if let Some((host, rest)) = text.strip_prefix('[').and_then(|t| t.split_once(']')) {
        return (host, rest.strip_prefix(':'));
    }
    match text.rsplit_once(':') {
        // An address with colons and no port.
        Some((host, _)) if host.contains(':') && !host.contains('/') => (text, None),
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    }
}

fn ports(text: &str) -> Option<Ports> {
    let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    match (text, text.split_once("..")) {
        ("*", _) => Some(Ports { first: 1, last: u16::MAX }),
        (_, Some((first, last))) => Some(Ports { first: number(first)?, last: number(last)? }),
        (one, None) => number(one).map(|port| Ports { first: port, last: port }),
    }
}

fn scheme_port(scheme: &str) -> Option<u16> {
    Some(match scheme {
        "http" | "ws" => 80,
        "https" | "wss" => 443,
        "postgres" | "postgresql" => 5432,
        "mysql" => 3306,
        "redis" => 6379,
        "rediss" => 6380,
        "mqtt" => 1883,
        "amqp" => 5672,
        "nats" => 4222,
        "mongodb" => 27017,
        _ => return None,
    })
}

fn host_is(host: &str) -> Result<HostIs, &'static str> {
    if host == "*" {
        return Ok(HostIs::Any);
    }
    if let Ok(range) = host.parse::<IpRange>() {
        return Ok(HostIs::In(range));
    }
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let plain = name.strip_prefix("*.").unwrap_or(&name);
    let label =
        |label: &str| !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    match plain.split('.').all(label) {
        false => Err("the host is a name, *.name, an address, a range such as 10.1.0.0/16, or *"),
        true if plain.len() < name.len() => Ok(HostIs::Below(format!(".{plain}"))),
        true => Ok(HostIs::Name(name)),
    }
}

/// Why something is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    NotGranted,
    AboveNamespace,
    AbovePolicies,
    AboveNode,
}

impl Refusal {
    /// For metrics.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::NotGranted => "not_granted",
            Self::AboveNamespace => "namespace_max",
            Self::AbovePolicies => "egress_policy",
            Self::AboveNode => "node_max",
        }
    }

    /// What to do about it.
    pub(crate) fn advice(self) -> String {
        match self {
            Self::NotGranted => format!("the pod's annotation {ALLOWED_HOSTS} would grant it"),
            Self::AboveNamespace => format!("the annotation {MAX_HOSTS} of its namespace does not allow it"),
            Self::AbovePolicies => "no EgressPolicy that selects the pod allows it".to_owned(),
            Self::AboveNode => "the operator does not allow it (podium up --max-allowed-outbound-hosts)".to_owned(),
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Http => "http",
            Self::Https => "https",
        })
    }
}

/// Whether a test of patterns holds for what a pod has been granted, and within what its namespace and the policies that
/// select it allow. `policies`: of those, each with what it allows; a pod that was granted nothing otherwise is granted
/// that.
pub(crate) fn decide(
    pod: Option<&HostPatterns>,
    namespace: Option<&NamespaceEgress>,
    policies: Option<&[HostPatterns]>,
    holds: impl Fn(&HostPatterns) -> bool,
) -> Result<(), Refusal> {
    let granted = pod.or_else(|| namespace.and_then(|n| n.default.as_ref()));
    let by_policy = policies.map(|all| all.iter().any(&holds));
    match (granted.map(&holds), by_policy) {
        (Some(false), _) | (None, None) => return Err(Refusal::NotGranted),
        (_, Some(false)) => return Err(Refusal::AbovePolicies),
        (_, Some(true)) | (Some(true), None) => {}
    }
    match namespace.and_then(|n| n.max.as_ref()) {
        Some(max) if !holds(max) => Err(Refusal::AboveNamespace),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> HostPatterns {
        text.parse().unwrap()
    }

    fn check(patterns: &str, way: Way, host: &str, port: u16, expected: bool) {
        let host = host.parse().map_or(Host::Name(host), Host::Ip);
        assert_eq!(list(patterns).allow(way, host, port), expected, "{patterns}: {way} {host:?} {port}");
    }

    #[test]
    fn patterns_allow_what_they_say_and_nothing_else() {
        use Way::*;
        for (patterns, way, host, port, expected) in [
            ("https://api.example.com", Https, "api.example.com", 443, true),
            ("https://api.example.com", Http, "api.example.com", 443, false),
            ("https://api.example.com", Https, "api.example.com", 8443, false),
            ("https://api.example.com/", Tcp, "api.example.com", 443, true),
            ("https://api.example.com", Udp, "api.example.com", 443, false),
            ("https://api.example.com", Https, "xapi.example.com", 443, false),
            ("HTTPS://API.example.com:8443", Https, "api.example.com", 8443, true),
            ("*.example.com:443", Https, "a.example.com", 443, true),
            ("*.example.com:443", Tcp, "a.b.example.com", 443, true),
            ("*.example.com:443", Tcp, "example.com", 443, false),
            ("*.example.com:443", Tcp, "evilexample.com", 443, false),
            ("10.1.0.0/16:*", Tcp, "10.1.2.3", 9, true),
            ("10.1.0.0/16:*", Udp, "10.1.2.3", 9, true),
            ("10.1.0.0/16:*", Tcp, "10.2.0.1", 9, false),
            ("10.1.0.0/16:*", Tcp, "a.example.com", 9, false),
            ("postgres://db:5432", Tcp, "db", 5432, true),
            ("postgres://db", Tcp, "db", 5432, true),
            ("postgres://db:5432", Http, "db", 5432, false),
            ("db:5432", Http, "db", 5432, true),
            ("udp://10.0.0.1:53", Udp, "10.0.0.1", 53, true),
            ("udp://10.0.0.1:53", Tcp, "10.0.0.1", 53, false),
            ("*:*", Udp, "8.8.8.8", 53, true),
            ("*://*:443", Https, "any.example", 443, true),
            ("*:443", Https, "any.example", 80, false),
            ("x:8000..8010", Tcp, "x", 8005, true),
            ("x:8000..8010", Tcp, "x", 8011, false),
            ("[2001:db8::1]:443", Https, "2001:db8::1", 443, true),
            ("2001:db8::/32:443", Https, "2001:db8::9", 443, true),
            ("https://[2001:db8::1]", Https, "2001:db8::1", 443, true),
            ("a:1, b:2\n c:3", Tcp, "c", 3, true),
            ("", Tcp, "a", 1, false),
        ] {
            check(patterns, way, host, port, expected);
        }
    }

    #[test]
    fn what_is_no_pattern_is_said() {
        for bad in ["example.com", "example.com:0", "a:b", "://x:1", "a b:x", "a*b:1", "*.:1", ":80", "10.0.0.0/40:1"] {
            assert!(bad.parse::<HostPatterns>().is_err(), "{bad}");
        }
        let error = "example.com".parse::<HostPattern>().unwrap_err().to_string();
        assert!(error.contains("name a port, for example example.com:443"), "{error}");
    }

    #[test]
    fn policies_and_annotations_limit_each_other() {
        let (a, b) = (list("a:1"), list("b:1"));
        let wants = |patterns: &HostPatterns| patterns.allow(Way::Tcp, Host::Name("b"), 1);
        let max = |patterns: &HostPatterns| Some(NamespaceEgress { default: None, max: Some(patterns.clone()) });
        let default = |patterns: &HostPatterns| Some(NamespaceEgress { default: Some(patterns.clone()), max: None });
        for (pod, namespace, policies, expected) in [
            (None, None, vec![], Err(Refusal::AbovePolicies)),
            (None, None, vec![&a], Err(Refusal::AbovePolicies)),
            (None, None, vec![&a, &b], Ok(())),
            (Some(&a), None, vec![&b], Err(Refusal::NotGranted)),
            (Some(&b), None, vec![&a], Err(Refusal::AbovePolicies)),
            (Some(&b), None, vec![&b], Ok(())),
            (None, default(&a), vec![&b], Err(Refusal::NotGranted)),
            (None, max(&a), vec![&b], Err(Refusal::AboveNamespace)),
            (None, max(&b), vec![&b], Ok(())),
        ] {
            let policies: Vec<_> = policies.into_iter().cloned().collect();
            let decided = decide(pod, namespace.as_ref(), Some(&policies), wants);
            assert_eq!(decided, expected, "{pod:?} {namespace:?} {policies:?}");
        }
        let pattern = |host, ports, protocol| HostPattern::new(host, ports, protocol);
        let tcp: HostPatterns = [pattern("*.b", (1, 9), Some(Protocol::Tcp)).unwrap()].into_iter().collect();
        let allows = |way, host| tcp.allow(way, Host::Name(host), 9);
        assert!(allows(Way::Tcp, "x.b") && allows(Way::Https, "x.b"));
        assert!(!allows(Way::Udp, "x.b") && !allows(Way::Tcp, "b"));
        assert!(pattern("b", (0, 1), None).is_err() && pattern("b", (2, 1), None).is_err());
    }

    #[test]
    fn a_namespace_fills_in_and_limits() {
        let (a, ab) = (list("a:1"), list("a:1 b:1"));
        let wants = |patterns: &HostPatterns| patterns.allow(Way::Tcp, Host::Name("b"), 1);
        let namespace = |default: Option<&HostPatterns>, max: Option<&HostPatterns>| {
            Some(NamespaceEgress { default: default.cloned(), max: max.cloned() })
        };
        for (pod, namespace, expected) in [
            (None, None, Err(Refusal::NotGranted)),
            (Some(&a), None, Err(Refusal::NotGranted)),
            (Some(&ab), None, Ok(())),
            (None, namespace(Some(&ab), None), Ok(())),
            (Some(&a), namespace(Some(&ab), None), Err(Refusal::NotGranted)),
            (Some(&ab), namespace(None, Some(&a)), Err(Refusal::AboveNamespace)),
            (None, namespace(None, Some(&ab)), Err(Refusal::NotGranted)),
            (Some(&ab), namespace(None, Some(&ab)), Ok(())),
        ] {
            assert_eq!(decide(pod, namespace.as_ref(), None, wants), expected, "{pod:?} {namespace:?}");
        }
    }
}
