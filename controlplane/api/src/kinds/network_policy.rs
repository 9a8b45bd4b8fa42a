//! NetworkPolicy: who may talk to which pods.
//!
//! # Source
//! Kubernetes `pkg/apis/networking/validation/validation.go`, `pkg/apis/networking/v1/defaults.go`,
//! `pkg/registry/networking/networkpolicy/strategy.go`.

use k8s_openapi::{
    api::networking::v1::{IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::label_selector;
use crate::{
    field::{FieldErrors, FieldPath},
    ip::{Cidr, is_cidr},
    kind::{Cell, Column, Kind, Names, Scope},
    names,
};

const TYPES: &[&str] = &["Ingress", "Egress"];

impl Kind for NetworkPolicy {
    const NAMES: Names =
        Names::new("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", "networkpolicy").short(&["netpol"]);
    const SCOPE: Scope = Scope::Namespaced;
    const COLUMNS: &'static [Column<Self>] = &[
        Column::NAME,
        Column::<Self>::text("Pod-Selector", |p, _| {
            let spec = p.spec.as_ref();
            Cell::from(label_selector::shown(Some(&spec.and_then(|s| s.pod_selector.clone()).unwrap_or_default())))
        })
        .field::<NetworkPolicySpec>("podSelector"),
        Column::AGE,
    ];

    fn fill_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        spec.pod_selector.get_or_insert_default();
        let ingress = spec.ingress.iter_mut().flatten().flat_map(|rule| rule.ports.iter_mut().flatten());
        let egress = spec.egress.iter_mut().flatten().flat_map(|rule| rule.ports.iter_mut().flatten());
        for port in ingress.chain(egress) {
            port.protocol.get_or_insert_with(|| "TCP".to_owned());
        }
        if spec.policy_types.as_ref().is_none_or(Vec::is_empty) {
            let egress = spec.egress.as_ref().is_some_and(|rules| !rules.is_empty());
            let types = TYPES.iter().take(if egress { 2 } else { 1 });
            spec.policy_types = Some(types.map(|t| (*t).to_owned()).collect());
        }
    }

    crate::kind::generation_of_spec!();

    fn validate(&self, errs: &mut FieldErrors) {
        if let Some(spec) = &self.spec {
            validate_spec(spec, &FieldPath::new("spec"), errs);
        }
    }
}

fn validate_spec(spec: &NetworkPolicySpec, path: &FieldPath, errs: &mut FieldErrors) {
    if let Some(selector) = &spec.pod_selector {
        label_selector::validate(selector, &path.child("podSelector"), errs);
    }
    for (i, rule) in spec.ingress.iter().flatten().enumerate() {
        let at = path.child("ingress").index(i);
        validate_rule(rule.ports.as_deref(), ("from", rule.from.as_deref()), &at, errs);
    }
    for (i, rule) in spec.egress.iter().flatten().enumerate() {
        let at = path.child("egress").index(i);
        validate_rule(rule.ports.as_deref(), ("to", rule.to.as_deref()), &at, errs);
    }
    let (types, at) = (spec.policy_types.as_deref().unwrap_or_default(), path.child("policyTypes"));
    if types.len() > TYPES.len() {
        return errs.invalid(&at, types, "may not specify more than two policyTypes");
    }
    for (i, one) in types.iter().enumerate().filter(|(_, t)| !TYPES.contains(&t.as_str())) {
        errs.not_supported(&at.index(i), one, TYPES);
    }
}

fn validate_rule(
    ports: Option<&[NetworkPolicyPort]>,
    (side, peers): (&str, Option<&[NetworkPolicyPeer]>),
    path: &FieldPath,
    errs: &mut FieldErrors,
) {
    for (i, port) in ports.unwrap_or_default().iter().enumerate() {
        validate_port(port, &path.child("ports").index(i), errs);
    }
    for (i, peer) in peers.unwrap_or_default().iter().enumerate() {
        validate_peer(peer, &path.child(side).index(i), errs);
    }
}

fn validate_port(port: &NetworkPolicyPort, path: &FieldPath, errs: &mut FieldErrors) {
    if let Some(protocol) = port.protocol.as_deref().filter(|p| !matches!(*p, "TCP" | "UDP" | "SCTP")) {
        errs.not_supported(&path.child("protocol"), protocol, &["TCP", "UDP", "SCTP"]);
    }
    let (at, at_end) = (path.child("port"), path.child("endPort"));
    match (&port.port, port.end_port) {
        (Some(IntOrString::Int(number)), end) => {
            names::is_port_number(*number).iter().for_each(|m| errs.invalid(&at, *number, m));
            let Some(end) = end else { return };
            if end < *number {
                // It is the other number that Kubernetes shows.
                errs.invalid(&at_end, *number, "must be greater than or equal to `port`");
            }
            names::is_port_number(end).iter().for_each(|m| errs.invalid(&at_end, end, m));
        }
        (Some(IntOrString::String(name)), end) => {
            if let Some(end) = end {
                errs.invalid(&at_end, end, "may not be specified when `port` is non-numeric");
            }
            errs.invalid_each(&at, name, names::is_port_name(name));
        }
        (None, Some(end)) => errs.invalid(&at_end, end, "may not be specified when `port` is not specified"),
        (None, None) => {}
    }
}

fn validate_peer(peer: &NetworkPolicyPeer, path: &FieldPath, errs: &mut FieldErrors) {
    let selectors = [("podSelector", &peer.pod_selector), ("namespaceSelector", &peer.namespace_selector)];
    for (field, selector) in &selectors {
        if let Some(selector) = selector {
            label_selector::validate(selector, &path.child(field), errs);
        }
    }
    let selects = selectors.iter().any(|(_, selector)| selector.is_some());
    match &peer.ip_block {
        None if selects => {}
        None => errs.required(path, "must specify a peer"),
        Some(block) => {
            validate_block(block, &path.child("ipBlock"), errs);
            if selects {
                errs.forbidden(path, "may not specify both ipBlock and another peer");
            }
        }
    }
}

fn validate_block(block: &IPBlock, path: &FieldPath, errs: &mut FieldErrors) {
    let at = path.child("cidr");
    if block.cidr.is_empty() {
        return errs.required(&at, "");
    }
    errs.invalid_each(&at, &block.cidr, is_cidr(&block.cidr));
    let Some(cidr) = Cidr::parse(&block.cidr) else { return };
    for (i, except) in block.except.iter().flatten().enumerate() {
        let at = path.child("except").index(i);
        errs.invalid_each(&at, except, is_cidr(except));
        if Cidr::parse(except).is_some_and(|except| !cidr.strictly_contains(except)) {
            errs.invalid(&at, except.as_str(), "must be a strict subset of `cidr`");
        }
    }
}
