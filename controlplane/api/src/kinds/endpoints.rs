//! Endpoints: the addresses behind a Service, in the old form.
//!
//! # Source
//! Kubernetes `pkg/apis/core/validation/validation.go` (`ValidateEndpoints`),
//! `pkg/printers/internalversion/printers.go` (`formatEndpoints`).

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints};

use super::pod::{PROTOCOLS, one_of, text_default, validate_port};
use crate::{
    field::{FieldErrors, FieldPath},
    kind::{Cell, Column, Kind, Names, Scope},
    names,
};

/// So many addresses are shown in a column.
const SHOWN_MAX: usize = 3;

impl Kind for Endpoints {
    const NAMES: Names = Names::new("", "v1", "Endpoints", "endpoints", "endpoints").short(&["ep"]);
    const SCOPE: Scope = Scope::Namespaced;
    const CREATE_ON_UPDATE: bool = true;
    const COLUMNS: &'static [Column<Self>] = &[
        Column::NAME,
        Column::<Self>::text("Endpoints", |e, _| Cell::from(addresses(e))).field::<Endpoints>("subsets"),
        Column::AGE,
    ];

    fn fill_defaults(&mut self) {
        for port in self.subsets.iter_mut().flatten().flat_map(|s| s.ports.iter_mut().flatten()) {
            text_default(&mut port.protocol, "TCP");
        }
    }

    fn validate(&self, errs: &mut FieldErrors) {
        for (i, subset) in self.subsets.iter().flatten().enumerate() {
            validate_subset(subset, &FieldPath::new("subsets").index(i), errs);
        }
    }
}

fn validate_subset(subset: &EndpointSubset, path: &FieldPath, errs: &mut FieldErrors) {
    let none = |list: &Option<Vec<EndpointAddress>>| list.as_ref().is_none_or(|l| l.is_empty());
    if none(&subset.addresses) && none(&subset.not_ready_addresses) {
        errs.required(path, "must specify `addresses` or `notReadyAddresses`");
    }
    for (field, list) in [("addresses", &subset.addresses), ("notReadyAddresses", &subset.not_ready_addresses)] {
        for (i, address) in list.iter().flatten().enumerate() {
            let at = path.child(field).index(i);
            validate_address(&address.ip, &at.child("ip"), errs);
            if let Some(host) = address.hostname.as_deref().filter(|h| !h.is_empty()) {
                errs.invalid_each(&at.child("hostname"), host, names::is_dns1123_label(host));
            }
        }
    }
    let ports = subset.ports.as_deref().unwrap_or_default();
    for (i, port) in ports.iter().enumerate() {
        validate_endpoint_port(port, ports.len() > 1, &path.child("ports").index(i), errs);
    }
}

/// An address that can be that of an endpoint.
pub(super) fn validate_address(ip: &str, path: &FieldPath, errs: &mut FieldErrors) {
    let Ok(address) = ip.parse::<IpAddr>() else {
        return errs.invalid_each(path, ip, names::is_ip(ip));
    };
    if address.is_unspecified() {
        errs.invalid(path, ip, "may not be unspecified (0.0.0.0 or ::)");
    }
    if address.is_loopback() {
        errs.invalid(path, ip, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    let (unicast, multicast) = match address {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => (v6.is_unicast_link_local(), v6.segments()[0] & 0xff0f == 0xff02),
    };
    if unicast {
        errs.invalid(path, ip, "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if multicast {
        errs.invalid(path, ip, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

fn validate_endpoint_port(port: &EndpointPort, named: bool, path: &FieldPath, errs: &mut FieldErrors) {
    match port.name.as_deref().unwrap_or_default() {
        "" if named => errs.required(&path.child("name"), ""),
        "" => {}
        name => errs.invalid_each(&path.child("name"), name, names::is_dns1123_label(name)),
    }
    validate_port(port.port, &path.child("port"), errs);
    one_of(&path.child("protocol"), port.protocol.as_deref(), &PROTOCOLS, errs);
}

fn addresses(endpoints: &Endpoints) -> String {
    let subsets = endpoints.subsets.as_deref().unwrap_or_default();
    if subsets.is_empty() {
        return "<none>".to_owned();
    }
    let mut all = Vec::new();
    for subset in subsets {
        let addresses = subset.addresses.as_deref().unwrap_or_default();
        match subset.ports.as_deref().unwrap_or_default() {
            [] => all.extend(addresses.iter().map(|a| a.ip.clone())),
            ports => {
                let pairs = ports.iter().flat_map(|p| addresses.iter().map(move |a| (a, p)));
                all.extend(pairs.map(|(a, p)| host_port(&a.ip, p.port)));
            }
        }
    }
    some_shown(&all)
}

fn host_port(ip: &str, port: i32) -> String {
    if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
}

/// The first few of a list, and how many more there are.
pub(super) fn some_shown(all: &[String]) -> String {
    let shown = all.iter().take(SHOWN_MAX).cloned().collect::<Vec<_>>().join(",");
    match all.len().saturating_sub(SHOWN_MAX) {
        0 => shown,
        more => format!("{shown} + {more} more..."),
    }
}
