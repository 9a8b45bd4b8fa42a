//! What the cluster's zone says: from a question to records, by the tables of Services that guests are answered from too.
//!
//! No I/O and no bytes: names are text without a dot at their end, in lower case.
//!
//! # Source
//! The DNS specification of Kubernetes 1.1.0, and CoreDNS' `kubernetes` plugin: which names exist without having what was
//! asked for, `pods insecure`, names of endpoints, weights of SRV, times to live.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use domain::base::Rtype;
use rand::seq::SliceRandom as _;

use crate::{
    dialer::ALIASES_MAX,
    names::{Below, below_domain},
    services::{ReadyEndpoint, Services, Stands},
    table::{Name, Protocol},
};

/// How long an answer may be kept.
const TTL: u32 = 5;
/// The same for what never changes.
const TTL_LONG: u32 = 28_800;
/// The version of the specification that is followed.
const SCHEMA: &str = "1.1.0";

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) name: String,
    pub(super) kind: Rtype,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Data {
    Address(IpAddr),
    Cname(String),
    Srv {
        weight: u16,
        port: u16,
        target: String,
    },
    Ptr(String),
    Text(&'static str),
    Ns(String),
    /// The zone's own; its fields are the same for all.
    Soa,
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) name: String,
    pub(super) ttl: u32,
    pub(super) data: Data,
}

/// What is answered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// Whether there is such a name, whatever it has.
    pub(super) exists: bool,
    /// The zone that was asked.
    pub(super) zone: String,
    pub(super) records: Vec<Record>,
    /// What whoever asked will ask next.
    pub(super) more: Vec<Record>,
    /// A host outside that the last record leads to, and that is not looked up here.
    pub(super) outside: Option<String>,
}

/// The cluster's names.
pub(super) struct Zone<'a> {
    pub(super) domain: &'a str,
    pub(super) services: &'a Services,
    /// Whether there is such a namespace.
    pub(super) namespace: &'a (dyn Fn(&str) -> bool + Send + Sync),
    /// Whether an address is one of the cluster's.
    pub(super) is_cluster: &'a (dyn Fn(IpAddr) -> bool + Send + Sync),
    /// Where it is asked, when that is one address.
    pub(super) own: Option<IpAddr>,
}

/// What one name has.
enum Found {
    /// No such name.
    None,
    /// These records, maybe none.
    Records(Vec<Record>, Vec<Record>),
    /// Another name.
    Alias(String),
}

impl Found {
    fn just(records: Vec<Record>) -> Self {
        Self::Records(records, Vec::new())
    }

    /// For a name that is there and has nothing of that kind.
    fn nothing() -> Self {
        Self::just(Vec::new())
    }
}

impl Zone<'_> {
    /// `None` for what is not the cluster's to answer.
    pub(super) fn answer(&self, question: &Question) -> Option<Answer> {
        if let Some((ip, zone)) = reverse(&question.name) {
            return (self.is_cluster)(ip).then(|| self.reverse(ip, zone, question));
        }
        let mut answer = Answer { zone: self.domain.to_owned(), ..Answer::default() };
        let mut name = question.name.clone();
        self.below(&name)?;
        for _ in 0..ALIASES_MAX {
            let Some(short) = self.below(&name) else {
                answer.outside = Some(name);
                break;
            };
            match self.find(&name, short, question.kind) {
                Found::None => break,
                Found::Records(records, more) => {
                    answer.exists = true;
                    answer.records.extend(records);
                    answer.more = more;
                    break;
                }
                Found::Alias(to) => {
                    answer.exists = true;
                    answer.records.push(record(&name, Data::Cname(to.clone())));
                    if question.kind == Rtype::CNAME {
                        break;
                    }
                    name = to;
                }
            }
        }
        Some(answer)
    }

    /// A name of the zone without the domain.
    fn below<'n>(&self, name: &'n str) -> Option<&'n str> {
        let rest = name.strip_suffix(self.domain)?;
        if rest.is_empty() { Some("") } else { rest.strip_suffix('.') }
    }

    fn find(&self, name: &str, short: &str, kind: Rtype) -> Found {
        match short {
            "" => self.apex(name, kind),
            "dns-version" => match kind {
                Rtype::TXT => {
                    Found::just(vec![Record { name: name.to_owned(), ttl: TTL_LONG, data: Data::Text(SCHEMA) }])
                }
                _ => Found::nothing(),
            },
            "dns" => Found::nothing(),
            "ns.dns" => self.addresses(name, self.own.into_iter().collect(), kind),
            _ => self.object(name, below_domain(short), kind),
        }
    }

    fn apex(&self, name: &str, kind: Rtype) -> Found {
        match kind {
            Rtype::SOA => Found::just(vec![record(name, Data::Soa)]),
            Rtype::NS => {
                let server = format!("ns.dns.{}", self.domain);
                let more = self.own.into_iter().map(|ip| record(&server, Data::Address(ip))).collect();
                Found::Records(vec![record(name, Data::Ns(server))], more)
            }
            _ => Found::nothing(),
        }
    }

    fn object(&self, name: &str, below: Below, kind: Rtype) -> Found {
        let known = |namespace: &str| (self.namespace)(namespace);
        match below {
            Below::Node => Found::nothing(),
            Below::Namespace(namespace) if known(&namespace) => Found::nothing(),
            Below::Pod { namespace, ip } if known(&namespace) => self.addresses(name, vec![ip], kind),
            Below::Service(service) => self.service(name, &service, kind),
            Below::Endpoint { service, hostname } => {
                let found = self.services.endpoints(&service, Some(&hostname), None);
                self.endpoints(name, &service, &found, kind)
            }
            Below::Port { service, port, protocol } => self.port(name, &service, (&port, protocol), kind),
            Below::Namespace(_) | Below::Pod { .. } | Below::Nothing => Found::None,
        }
    }

    fn service(&self, name: &str, service: &Name, kind: Rtype) -> Found {
        match self.services.stands_for(service) {
            None => Found::None,
            // An address is no name, though it may look like one.
            Some(Stands::Host(host)) if host.parse::<IpAddr>().is_ok() => Found::None,
            Some(Stands::Host(host)) => Found::Alias(host.strip_suffix('.').unwrap_or(&host).to_ascii_lowercase()),
            Some(Stands::Addresses(ips)) if kind == Rtype::SRV => {
                let ports = self.services.service_ports(service).iter().map(|p| p.port).collect();
                self.service_ports(name, ips, ports)
            }
            Some(Stands::Addresses(ips)) => self.addresses(name, ips, kind),
            Some(Stands::Pods) => self.endpoints(name, service, &self.services.endpoints(service, None, None), kind),
        }
    }

    /// A port of a Service by its name.
    fn port(&self, name: &str, service: &Name, (port, protocol): (&str, Protocol), kind: Rtype) -> Found {
        match self.services.stands_for(service) {
            Some(Stands::Addresses(ips)) => match self.services.named_port(service, port, protocol) {
                Some(number) if kind == Rtype::SRV => {
                    let target = format!("{}.{}.svc.{}", service.name, service.namespace, self.domain);
                    self.srv(name, vec![(number, target, ips)])
                }
                Some(_) => self.addresses(name, ips, kind),
                None => Found::None,
            },
            Some(Stands::Pods) => {
                let found = self.services.endpoints(service, None, Some((port, protocol)));
                self.endpoints(name, service, &found, kind)
            }
            Some(Stands::Host(_)) | None => Found::None,
        }
    }

    fn service_ports(&self, name: &str, ips: Vec<IpAddr>, ports: Vec<u16>) -> Found {
        self.srv(name, ports.into_iter().map(|port| (port, name.to_owned(), ips.clone())).collect())
    }

    /// Pods of a Service. Without a ready one there is no such name.
    fn endpoints(&self, name: &str, service: &Name, found: &[ReadyEndpoint], kind: Rtype) -> Found {
        if found.is_empty() {
            return Found::None;
        }
        if kind != Rtype::SRV {
            let mut ips: Vec<IpAddr> = found.iter().map(|endpoint| endpoint.ip).collect();
            ips.dedup();
            return self.addresses(name, ips, kind);
        }
        let target = |hostname: &str| format!("{hostname}.{}.{}.svc.{}", service.name, service.namespace, self.domain);
        let each = found.iter().flat_map(|endpoint| {
            endpoint.ports.iter().map(|port| (*port, target(&endpoint.hostname), vec![endpoint.ip]))
        });
        self.srv(name, each.collect())
    }

    /// Addresses of one kind, in any order: who takes the first one takes any.
    fn addresses(&self, name: &str, mut ips: Vec<IpAddr>, kind: Rtype) -> Found {
        ips.retain(|ip| is_kind(*ip, kind));
        ips.shuffle(&mut rand::rng());
        Found::just(ips.into_iter().map(|ip| record(name, Data::Address(ip))).collect())
    }

    fn srv(&self, name: &str, all: Vec<(u16, String, Vec<IpAddr>)>) -> Found {
        let weight = u16::try_from(100 / all.len().max(1)).unwrap_or(1).max(1);
        let mut more: Vec<Record> = Vec::new();
        let mut records = Vec::with_capacity(all.len());
        for (port, target, ips) in all {
            let addresses = ips.into_iter().map(|ip| record(&target, Data::Address(ip)));
            more.extend(addresses.filter(|address| !more.contains(address)).collect::<Vec<_>>());
            records.push(record(name, Data::Srv { weight, port, target }));
        }
        Found::Records(records, more)
    }

    fn reverse(&self, ip: IpAddr, zone: &str, question: &Question) -> Answer {
        let (service, endpoints) = self.services.names_of(ip);
        let suffix = |of: &Name| format!("{}.{}.svc.{}", of.name, of.namespace, self.domain);
        let mut names: Vec<String> = match service {
            Some(service) => vec![suffix(&service)],
            None => endpoints.iter().map(|e| format!("{}.{}", e.hostname, suffix(&e.service))).collect(),
        };
        names.sort_unstable();
        names.dedup();
        let exists = !names.is_empty();
        names.retain(|_| question.kind == Rtype::PTR);
        let records = names.into_iter().map(|name| record(&question.name, Data::Ptr(name))).collect();
        Answer { exists, zone: zone.to_owned(), records, ..Answer::default() }
    }
}

fn record(name: &str, data: Data) -> Record {
    Record { name: name.to_owned(), ttl: TTL, data }
}

fn is_kind(ip: IpAddr, kind: Rtype) -> bool {
    kind == if ip.is_ipv4() { Rtype::A } else { Rtype::AAAA }
}

/// The address that a name of a reverse zone is of, and that zone.
fn reverse(name: &str) -> Option<(IpAddr, &'static str)> {
    if let Some(labels) = name.strip_suffix(".in-addr.arpa") {
        let bytes: Vec<u8> = labels.split('.').map(decimal).collect::<Option<_>>()?;
        let [d, c, b, a] = <[u8; 4]>::try_from(bytes).ok()?;
        return Some((Ipv4Addr::new(a, b, c, d).into(), "in-addr.arpa"));
    }
    let labels: Vec<&str> = name.strip_suffix(".ip6.arpa")?.split('.').collect();
    let digit = |label: &&str| match label.as_bytes() {
        [_] => u128::from_str_radix(label, 16).ok(),
        _ => None,
    };
    let digits: Vec<u128> = labels.iter().rev().map(digit).collect::<Option<_>>()?;
    let bits = (digits.len() == 32).then(|| digits.iter().fold(0, |bits, digit| bits << 4 | digit))?;
    Some((Ipv6Addr::from(bits).into(), "ip6.arpa"))
}

fn decimal(label: &str) -> Option<u8> {
    label.parse().ok().filter(|byte: &u8| byte.to_string() == label)
}

#[cfg(test)]
#[path = "zone_tests.rs"]
mod tests;
