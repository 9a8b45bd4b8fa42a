//! EndpointSlice: a part of the addresses behind a Service.
//!
//! # Source
//! Kubernetes `pkg/apis/discovery/{v1/defaults,validation/validation}.go`, `pkg/registry/discovery/endpointslice/strategy.go`.

use std::collections::BTreeSet;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};

use super::{
    endpoints::{some_shown, validate_address},
    pod::{PROTOCOLS, one_of, text_default, validate_port},
};
use crate::{
    field::{FieldErrors, FieldPath},
    kind::{Cell, Column, Kind, Names, Scope},
    meta, names,
};

const ENDPOINTS_MAX: usize = 1000;
const ADDRESSES_MAX: usize = 100;
const PORTS_MAX: usize = 20_000;
const TOPOLOGY_MAX: usize = 16;
const HINTS_MAX: usize = 8;

impl Kind for EndpointSlice {
    const NAMES: Names = Names::new("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", "endpointslice");
    const SCOPE: Scope = Scope::Namespaced;
    const COLUMNS: &'static [Column<Self>] = &[
        Column::NAME,
        Column::<Self>::text("AddressType", |s, _| Cell::from(s.address_type.as_str()))
            .field::<EndpointSlice>("addressType"),
        Column::<Self>::text("Ports", |s, _| Cell::from(ports(s))).field::<EndpointSlice>("ports"),
        Column::<Self>::text("Endpoints", |s, _| Cell::from(addresses(s))).field::<EndpointSlice>("endpoints"),
        Column::AGE,
    ];

    fn fill_defaults(&mut self) {
        for port in self.ports.iter_mut().flatten() {
            port.name.get_or_insert_default();
            text_default(&mut port.protocol, "TCP");
        }
    }

    fn generation_differs(&self, old: &Self) -> Option<bool> {
        let same = self.ports == old.ports
            && self.endpoints == old.endpoints
            && self.address_type == old.address_type
            && self.metadata.labels == old.metadata.labels;
        Some(!same)
    }

    fn validate(&self, errs: &mut FieldErrors) {
        let supported = ["FQDN", "IPv4", "IPv6"];
        one_of(&FieldPath::new("addressType"), Some(&self.address_type), &supported, errs);
        let path = FieldPath::new("endpoints");
        let endpoints = self.endpoints.as_deref().unwrap_or_default();
        if endpoints.len() > ENDPOINTS_MAX {
            errs.too_many(&path, endpoints.len(), ENDPOINTS_MAX);
        }
        for (i, endpoint) in endpoints.iter().take_while(|_| endpoints.len() <= ENDPOINTS_MAX).enumerate() {
            validate_endpoint(endpoint, &self.address_type, &path.index(i), errs);
        }
        validate_ports(self.ports.as_deref().unwrap_or_default(), &FieldPath::new("ports"), errs);
    }

    fn validate_update(&self, old: &Self, errs: &mut FieldErrors) {
        errs.immutable(&FieldPath::new("addressType"), &self.address_type, &old.address_type);
    }
}

fn validate_endpoint(endpoint: &Endpoint, address_type: &str, path: &FieldPath, errs: &mut FieldErrors) {
    let at = path.child("addresses");
    match endpoint.addresses.len() {
        0 => errs.required(&at, "must contain at least 1 address"),
        n if n > ADDRESSES_MAX => errs.too_many(&at, n, ADDRESSES_MAX),
        _ => {}
    }
    for (i, address) in endpoint.addresses.iter().take(ADDRESSES_MAX).enumerate() {
        let at = at.index(i);
        match address_type {
            "FQDN" => validate_domain(address, &at, errs),
            "IPv4" if address.parse::<std::net::Ipv6Addr>().is_ok() => {
                errs.invalid(&at, address.as_str(), "must be an IPv4 address");
            }
            "IPv6" if address.parse::<std::net::Ipv4Addr>().is_ok() => {
                errs.invalid(&at, address.as_str(), "must be an IPv6 address");
            }
            _ => validate_address(address, &at, errs),
        }
    }
    if let Some(node) = endpoint.node_name.as_deref() {
        errs.invalid_each(&path.child("nodeName"), node, names::is_dns1123_subdomain(node));
    }
    let topology = endpoint.deprecated_topology.as_ref();
    let at = path.child("deprecatedTopology");
    if let Some(labels) = topology.filter(|labels| labels.len() > TOPOLOGY_MAX) {
        errs.too_many(&at, labels.len(), TOPOLOGY_MAX);
    }
    meta::validate_labels(topology, &at, errs);
    if let Some(hints) = &endpoint.hints {
        let zones = hints.for_zones.iter().flatten().map(|zone| zone.name.as_str()).collect::<Vec<_>>();
        validate_hints(&zones, names::is_label_value, &path.child("hints").child("forZones"), errs);
        let nodes = hints.for_nodes.iter().flatten().map(|node| node.name.as_str()).collect::<Vec<_>>();
        validate_hints(&nodes, names::is_dns1123_subdomain, &path.child("hints").child("forNodes"), errs);
    }
    if let Some(host) = endpoint.hostname.as_deref() {
        errs.invalid_each(&path.child("hostname"), host, names::is_dns1123_label(host));
    }
}

fn validate_hints(hints: &[&str], rule: fn(&str) -> Vec<String>, path: &FieldPath, errs: &mut FieldErrors) {
    if hints.len() > HINTS_MAX {
        return errs.too_many(path, hints.len(), HINTS_MAX);
    }
    for (i, name) in hints.iter().enumerate() {
        let at = path.index(i).child("name");
        if hints[..i].contains(name) {
            errs.duplicate(&at, *name);
        }
        errs.invalid_each(&at, name, rule(name));
    }
}

/// `a.example.com`, with a dot at its end or without.
fn validate_domain(address: &str, path: &FieldPath, errs: &mut FieldErrors) {
    let name = address.strip_suffix('.').unwrap_or(address);
    let messages = names::is_dns1123_subdomain(name);
    if address.is_empty() {
        errs.required(path, "");
    } else if !messages.is_empty() {
        errs.invalid(path, name, &messages.join(","));
    } else if !name.contains('.') {
        errs.invalid(path, name, "should be a domain with at least two segments separated by dots");
    }
}

fn validate_ports(ports: &[EndpointPort], path: &FieldPath, errs: &mut FieldErrors) {
    if ports.len() > PORTS_MAX {
        return errs.too_many(path, ports.len(), PORTS_MAX);
    }
    let mut seen = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let at = path.index(i);
        let name = port.name.as_deref().unwrap_or_default();
        if !name.is_empty() {
            errs.invalid_each(&at.child("name"), name, names::is_dns1123_label(name));
        }
        if !seen.insert(name) {
            errs.duplicate(&at.child("name"), name);
        }
        if let Some(number) = port.port {
            validate_port(number, &at.child("port"), errs);
        }
        one_of(&at.child("protocol"), port.protocol.as_deref(), &PROTOCOLS, errs);
        if let Some(protocol) = port.app_protocol.as_deref() {
            errs.invalid_each(&at.child("appProtocol"), protocol, names::is_qualified_name(protocol));
        }
    }
}

fn ports(slice: &EndpointSlice) -> String {
    let one = |p: &EndpointPort| match (p.port, &p.name) {
        (Some(number), _) => number.to_string(),
        (None, Some(name)) if !name.is_empty() => name.clone(),
        (None, _) => "*".to_owned(),
    };
    or_unset(&slice.ports.iter().flatten().map(one).collect::<Vec<_>>())
}

fn addresses(slice: &EndpointSlice) -> String {
    or_unset(&slice.endpoints.iter().flatten().flat_map(|e| e.addresses.iter().cloned()).collect::<Vec<_>>())
}

fn or_unset(all: &[String]) -> String {
    if all.is_empty() { "<unset>".to_owned() } else { some_shown(all) }
}
