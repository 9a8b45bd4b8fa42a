//! Questions and what is answered, as a table.

use super::*;
use crate::{
    Metrics,
    table::{Endpoint, Place, Service, ServicePort, Slice, Traffic},
};

fn service(name: &str, cluster_ip: Option<[u8; 4]>, ports: &[(&str, Protocol, u16)]) -> Service {
    let ports = ports.iter().map(|(name, protocol, port)| ServicePort {
        name: (*name).to_owned(),
        protocol: *protocol,
        port: *port,
        node_port: None,
    });
    Service {
        name: Name::new("shop", name),
        cluster_ip: cluster_ip.map(IpAddr::from),
        ports: ports.collect(),
        external_name: None,
        traffic: Traffic::default(),
    }
}

/// `name`: of the Service. Endpoints by the last part of their address, with the name they were given, and whether they
/// are ready.
fn slice(name: &str, ports: &[(&str, u16)], endpoints: &[(u8, Option<&str>, bool)]) -> Slice {
    let endpoint = |(last, hostname, ready): &(u8, Option<&str>, bool)| Endpoint {
        ip: [10, 244, 0, *last].into(),
        hostname: hostname.map(str::to_owned),
        ready: *ready,
        serving: *ready,
        terminating: false,
        place: Place::default(),
    };
    Slice {
        name: Name::new("shop", format!("{name}-1")),
        service: name.to_owned(),
        ports: ports.iter().map(|(name, port)| ((*name).to_owned(), *port)).collect(),
        endpoints: endpoints.iter().map(endpoint).collect(),
    }
}

/// A Service with an address, a headless one with two ready pods, one without any, and three that only name hosts.
fn services() -> Services {
    let (services, metrics) = (Services::default(), Metrics::default());
    let ports = [("http", Protocol::Tcp, 80), ("dns", Protocol::Udp, 53)];
    let external = |name: &str, host: &str| {
        let host = Some(host.to_owned());
        Service { external_name: host, ..service(name, None, &[]) }
    };
    services.put(service("web", Some([10, 96, 0, 10]), &ports), &metrics);
    services.put(service("db", None, &[("sql", Protocol::Tcp, 5432)]), &metrics);
    services.put(service("none", None, &[("sql", Protocol::Tcp, 5432)]), &metrics);
    services.put(external("far", "Far.Example.com."), &metrics);
    services.put(external("near", "web.shop.svc.cluster.local"), &metrics);
    services.put(external("round", "round.shop.svc.cluster.local"), &metrics);
    services.put(external("number", "192.0.2.1"), &metrics);
    services.put_slice(slice("web", &[("http", 8080), ("dns", 5353)], &[(9, None, true)]));
    let pods = [(2, Some("db-0"), true), (3, Some("db-1"), false), (4, None, true)];
    services.put_slice(slice("db", &[("sql", 15432)], &pods));
    services.put_slice(slice("none", &[("sql", 15432)], &[(5, None, false)]));
    services
}

fn shown(record: &Record) -> String {
    let data = match &record.data {
        Data::Address(ip) => ip.to_string(),
        Data::Cname(to) => format!("CNAME {to}"),
        Data::Srv { weight, port, target } => format!("SRV {weight} {port} {target}"),
        Data::Ptr(to) => format!("PTR {to}"),
        Data::Text(text) => format!("TXT {text}"),
        Data::Ns(server) => format!("NS {server}"),
        Data::Soa => "SOA".to_owned(),
    };
    format!("{} {data}", record.name.replace("shop.svc.cluster.local", "~")).replace("shop.svc.cluster.local", "~")
}

/// `~` stands for `shop.svc.cluster.local`. What is expected: `-` for what is not ours, `NXDOMAIN`, `NODATA`, or the
/// records in order, after a `+` what comes with them.
fn check(name: &str, kind: Rtype, expected: &str) {
    let services = services();
    let zone = Zone {
        domain: "cluster.local",
        services: &services,
        namespace: &|name| name == "shop" || name == "empty",
        is_cluster: &|ip| ip.to_string().starts_with("10."),
        own: Some([127, 0, 0, 1].into()),
    };
    let name = name.replace('~', "shop.svc.cluster.local");
    let answer = zone.answer(&Question { name: name.clone(), kind });
    let sorted = |records: &[Record]| {
        let mut all: Vec<_> = records.iter().map(shown).collect();
        all.sort_unstable();
        all.join(", ")
    };
    let found = match answer {
        None => "-".to_owned(),
        Some(answer) if !answer.exists => {
            assert!(answer.records.is_empty() && answer.more.is_empty(), "{name} {answer:?}");
            "NXDOMAIN".to_owned()
        }
        Some(answer) if answer.records.is_empty() => "NODATA".to_owned(),
        Some(answer) => {
            let outside = answer.outside.map(|host| format!(" > {host}")).unwrap_or_default();
            let more = sorted(&answer.more);
            let more = if more.is_empty() { more } else { format!(" + {more}") };
            format!("{}{outside}{more}", sorted(&answer.records))
        }
    };
    assert_eq!(found, expected, "{name} {kind}");
}

#[test]
fn services_with_an_address() {
    check("web.~", Rtype::A, "web.~ 10.96.0.10");
    check("web.~", Rtype::AAAA, "NODATA");
    check("web.~", Rtype::MX, "NODATA");
    check("web.~", Rtype::ANY, "NODATA");
    check("nope.~", Rtype::A, "NXDOMAIN");
    check("_http._tcp.web.~", Rtype::SRV, "_http._tcp.web.~ SRV 100 80 web.~ + web.~ 10.96.0.10");
    check("_dns._udp.web.~", Rtype::SRV, "_dns._udp.web.~ SRV 100 53 web.~ + web.~ 10.96.0.10");
    check("_http._tcp.web.~", Rtype::A, "_http._tcp.web.~ 10.96.0.10");
    check("_http._tcp.web.~", Rtype::TXT, "NODATA");
    check("_http._udp.web.~", Rtype::SRV, "NXDOMAIN");
    check("_nope._tcp.web.~", Rtype::SRV, "NXDOMAIN");
    check("web.~", Rtype::SRV, "web.~ SRV 50 53 web.~, web.~ SRV 50 80 web.~ + web.~ 10.96.0.10");
    check("10-244-0-9.web.~", Rtype::A, "10-244-0-9.web.~ 10.244.0.9");
}

#[test]
fn headless_services() {
    check("db.~", Rtype::A, "db.~ 10.244.0.2, db.~ 10.244.0.4");
    check("db.~", Rtype::AAAA, "NODATA");
    check("none.~", Rtype::A, "NXDOMAIN");
    check("db-0.db.~", Rtype::A, "db-0.db.~ 10.244.0.2");
    check("db-0.db.~", Rtype::SRV, "db-0.db.~ SRV 100 15432 db-0.db.~ + db-0.db.~ 10.244.0.2");
    check("db-1.db.~", Rtype::A, "NXDOMAIN");
    check("10-244-0-4.db.~", Rtype::A, "10-244-0-4.db.~ 10.244.0.4");
    check("10-244-0-2.db.~", Rtype::A, "NXDOMAIN");
    check(
        "_sql._tcp.db.~",
        Rtype::SRV,
        "_sql._tcp.db.~ SRV 50 15432 10-244-0-4.db.~, _sql._tcp.db.~ SRV 50 15432 db-0.db.~ \
         + 10-244-0-4.db.~ 10.244.0.4, db-0.db.~ 10.244.0.2",
    );
    check("_sql._udp.db.~", Rtype::SRV, "NXDOMAIN");
}

#[test]
fn names_that_lead_to_others() {
    check("far.~", Rtype::A, "far.~ CNAME far.example.com > far.example.com");
    check("far.~", Rtype::CNAME, "far.~ CNAME far.example.com");
    check("near.~", Rtype::A, "near.~ CNAME web.~, web.~ 10.96.0.10");
    check("near.~", Rtype::AAAA, "near.~ CNAME web.~");
    check("number.~", Rtype::A, "NXDOMAIN");
    check("_http._tcp.far.~", Rtype::SRV, "NXDOMAIN");
    check("round.~", Rtype::A, &["round.~ CNAME round.~"; ALIASES_MAX].join(", "));
}

#[test]
fn the_zone_itself_and_what_only_has_names_below_it() {
    check("cluster.local", Rtype::SOA, "cluster.local SOA");
    check("cluster.local", Rtype::NS, "cluster.local NS ns.dns.cluster.local + ns.dns.cluster.local 127.0.0.1");
    check("cluster.local", Rtype::A, "NODATA");
    check("ns.dns.cluster.local", Rtype::A, "ns.dns.cluster.local 127.0.0.1");
    check("ns.dns.cluster.local", Rtype::AAAA, "NODATA");
    check("dns-version.cluster.local", Rtype::TXT, "dns-version.cluster.local TXT 1.1.0");
    check("dns-version.cluster.local", Rtype::A, "NODATA");
    for name in ["svc.cluster.local", "pod.cluster.local", "shop.svc.cluster.local", "empty.pod.cluster.local"] {
        check(name, Rtype::A, "NODATA");
    }
    for name in
        ["gone.svc.cluster.local", "x.cluster.local", "web.gone.svc.cluster.local", "a.b.c.d.e.svc.cluster.local"]
    {
        check(name, Rtype::A, "NXDOMAIN");
    }
}

#[test]
fn addresses_as_names() {
    check("10-244-0-77.shop.pod.cluster.local", Rtype::A, "10-244-0-77.shop.pod.cluster.local 10.244.0.77");
    check("10-244-0-77.gone.pod.cluster.local", Rtype::A, "NXDOMAIN");
    check("fd00--7.shop.pod.cluster.local", Rtype::AAAA, "fd00--7.shop.pod.cluster.local fd00::7");
    check("x.shop.pod.cluster.local", Rtype::A, "NXDOMAIN");
}

#[test]
fn names_of_addresses() {
    check("10.0.96.10.in-addr.arpa", Rtype::PTR, "10.0.96.10.in-addr.arpa PTR web.~");
    check("10.0.96.10.in-addr.arpa", Rtype::A, "NODATA");
    check("2.0.244.10.in-addr.arpa", Rtype::PTR, "2.0.244.10.in-addr.arpa PTR db-0.db.~");
    check("3.0.244.10.in-addr.arpa", Rtype::PTR, "NXDOMAIN");
    check("4.0.244.10.in-addr.arpa", Rtype::PTR, "NXDOMAIN");
    check("8.8.8.8.in-addr.arpa", Rtype::PTR, "-");
    check("002.0.244.10.in-addr.arpa", Rtype::PTR, "-");
    check("244.10.in-addr.arpa", Rtype::PTR, "-");
    let six = "7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa";
    assert_eq!(reverse(six), Some(("fd00::7".parse().unwrap(), "ip6.arpa")));
    check(six, Rtype::PTR, "-");
}

#[test]
fn what_is_not_the_clusters() {
    for name in ["example.com", "", "local", "notcluster.local", "cluster.local.example.com", "web"] {
        check(name, Rtype::A, "-");
    }
}

#[test]
fn names_of_endpoints_go_with_them() {
    let services = services();
    let ip = IpAddr::from([10, 244, 0, 2]);
    let names =
        |services: &Services| services.names_of(ip).1.iter().map(|e| e.service.name.clone()).collect::<Vec<_>>();
    services.put_slice(Slice {
        service: "db2".into(),
        name: Name::new("shop", "other"),
        ..slice("db", &[], &[(2, Some("a"), true)])
    });
    assert_eq!(names(&services), ["db", "db2"]);
    services.put_slice(slice("db", &[], &[(2, Some("db-0"), false)]));
    assert_eq!(names(&services), ["db2"]);
    services.remove_slice(&Name::new("shop", "other"));
    assert_eq!(names(&services), Vec::<String>::new());
}
