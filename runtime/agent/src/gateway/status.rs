//! The statuses of classes, Gateways and routes, as they are to be written. Pure.

use std::net::SocketAddr;

use jiff::Timestamp;
use podium_api::ObjectKey;
use podium_network::{OpenedPort, table::Name};
use serde_json::{Value, json};

use super::{
    compile::{Plan, RoutePlan},
    conditions::{Condition, merged},
    kinds::{GROUP, GatewayClass},
    listeners::Site,
    seen::{CONTROLLER, Here, Seen},
    shown,
};

/// What the conformance tests call what is there.
const FEATURES: [&str; 38] = [
    "GRPCRoute",
    "GRPCRouteNamedRouteRule",
    "GRPCRouteRequestHeaderModifier",
    "Gateway",
    "GatewayAddressEmpty",
    "GatewayHTTPListenerIsolation",
    "GatewayHTTPSListenerDetectMisdirectedRequests",
    "GatewayPort8080",
    "HTTPRoute",
    "HTTPRoute303RedirectStatusCode",
    "HTTPRoute307RedirectStatusCode",
    "HTTPRoute308RedirectStatusCode",
    "HTTPRouteBackendProtocolH2C",
    "HTTPRouteBackendProtocolWebSocket",
    "HTTPRouteBackendRequestHeaderModification",
    "HTTPRouteBackendRequestRedirect",
    "HTTPRouteBackendTimeout",
    "HTTPRouteBackendURLRewrite",
    "HTTPRouteCORS",
    "HTTPRouteDestinationPortMatching",
    "HTTPRouteHostRewrite",
    "HTTPRouteMethodMatching",
    "HTTPRouteNamedRouteRule",
    "HTTPRouteParentRefPort",
    "HTTPRoutePathRedirect",
    "HTTPRoutePathRewrite",
    "HTTPRoutePortRedirect",
    "HTTPRouteQueryParamMatching",
    "HTTPRouteRequestMirror",
    "HTTPRouteRequestMultipleMirrors",
    "HTTPRouteRequestPercentageMirror",
    "HTTPRouteRequestTimeout",
    "HTTPRouteResponseHeaderModification",
    "HTTPRouteSchemeRedirect",
    "ReferenceGrant",
    "TLSRoute",
    "TLSRouteModeMixed",
    "TLSRouteModeTerminate",
];

/// A status that is not as it should be.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Write {
    pub(crate) kind: &'static str,
    pub(crate) key: ObjectKey,
    pub(crate) status: Value,
}

/// Every status that has to be written. `opened`: what became of the ports.
pub(crate) fn writes(seen: &Seen, plan: &Plan<'_>, opened: &[OpenedPort], here: Here, now: Timestamp) -> Vec<Write> {
    let classes = seen.classes.iter().filter(|(_, class)| class.spec.controller_name == CONTROLLER);
    let classes = classes.map(|(name, class)| of_class(name, class, now));
    let gateways = plan.sites.iter().map(|site| of_gateway(site, opened, here, now));
    let routes = plan.routes.iter().filter_map(|route| of_route(route, now));
    classes.chain(gateways).chain(routes).filter_map(|(write, old)| (write.status != *old).then_some(write)).collect()
}

fn key(name: &Name) -> ObjectKey {
    ObjectKey::new(name.namespace.as_str(), name.name.as_str())
}

fn of_class<'a>(name: &Name, class: &'a GatewayClass, now: Timestamp) -> (Write, &'a Value) {
    let accepted = match class.spec.parameters_ref {
        None => Condition::is("Accepted", "Accepted"),
        Some(_) => Condition::not("Accepted", "InvalidParameters", "spec.parametersRef is not supported"),
    };
    let generation = class.metadata.generation.unwrap_or_default();
    let features: Vec<Value> = FEATURES.iter().map(|name| json!({ "name": name })).collect();
    let status = json!({
        "conditions": merged(&class.status["conditions"], &[accepted], generation, now), "supportedFeatures": features,
    });
    (Write { kind: "GatewayClass", key: key(name), status }, &class.status)
}

fn of_gateway<'a>(site: &Site<'a>, opened: &[OpenedPort], here: Here, now: Timestamp) -> (Write, &'a Value) {
    let generation = site.gateway.metadata.generation.unwrap_or_default();
    let old = &site.gateway.status;
    let failed = |port: u16| {
        let mut at = site.addresses.iter().map(|ip| SocketAddr::new(*ip, port));
        at.find_map(|at| opened.iter().find(|opened| opened.address == at)?.bound.as_ref().err())
    };
    let (mut accepted, mut programmed, mut listeners) = (0, 0, Vec::new());
    for point in &site.points {
        let why = failed(point.listener.port).filter(|_| point.can_listen()).map(ToString::to_string);
        let why = why.or_else(|| site.refused.as_ref().map(|(_, message)| message.clone()));
        let conditions = point.conditions(why.as_deref());
        accepted += usize::from(conditions[0].holds);
        programmed += usize::from(conditions[3].holds);
        let before = old["listeners"].as_array().into_iter().flatten().find(|l| l["name"] == *point.listener.name);
        let before = before.map_or(&Value::Null, |before| &before["conditions"]);
        let kinds = point.kinds.iter().map(|kind| json!({ "group": GROUP, "kind": kind }));
        listeners.push(json!({
            "name": point.listener.name,
            "attachedRoutes": point.attached,
            "supportedKinds": kinds.collect::<Vec<_>>(),
            "conditions": merged(before, &conditions, generation, now),
        }));
    }
    let conditions = whole(site, accepted, programmed);
    let mut status = json!({
        "conditions": merged(&old["conditions"], &conditions, generation, now), "listeners": listeners,
    });
    if programmed > 0 {
        let addresses = site.addresses.iter().map(|ip| json!({ "type": "IPAddress", "value": shown(here, *ip) }));
        status["addresses"] = addresses.collect();
    }
    (Write { kind: "Gateway", key: key(site.name), status }, old)
}

/// The conditions of a Gateway with so many listeners that are accepted and that listen.
fn whole(site: &Site<'_>, accepted: usize, programmed: usize) -> [Condition; 2] {
    const SOME: &str = "some listeners are not accepted: see status.listeners";
    let first = match &site.refused {
        Some((reason, message)) => Condition::not("Accepted", reason, message.as_str()),
        None if accepted == 0 => {
            Condition::not("Accepted", "ListenersNotValid", "no listener is accepted: see status.listeners")
        }
        None if accepted < site.points.len() => {
            Condition { message: SOME.to_owned(), ..Condition::is("Accepted", "ListenersNotValid") }
        }
        None => Condition::is("Accepted", "Accepted"),
    };
    let second = match programmed {
        0 => Condition::not("Programmed", "Invalid", "no listener listens: see status.listeners"),
        _ => Condition::is("Programmed", "Programmed"),
    };
    [first, second]
}

/// `None` for a route that is not about anybody here, and was not before.
fn of_route<'a>(route: &RoutePlan<'a>, now: Timestamp) -> Option<(Write, &'a Value)> {
    let old = route.status["parents"].as_array().map(Vec::as_slice).unwrap_or_default();
    let is_ours = |parent: &&Value| parent["controllerName"] == CONTROLLER;
    if route.parents.is_empty() && !old.iter().any(|parent| is_ours(&parent)) {
        return None;
    }
    let generation = route.meta.generation.unwrap_or_default();
    let others = old.iter().filter(|parent| !is_ours(parent)).cloned();
    let ours = route.parents.iter().map(|(parent, conditions)| {
        let mut reference = json!({
            "group": parent.group.as_deref().unwrap_or(GROUP), "kind": parent.kind.as_deref().unwrap_or("Gateway"),
            "name": parent.name,
        });
        if let Some(namespace) = &parent.namespace {
            reference["namespace"] = json!(namespace);
        }
        if let Some(section) = &parent.section_name {
            reference["sectionName"] = json!(section);
        }
        if let Some(port) = parent.port {
            reference["port"] = json!(port);
        }
        let before = old.iter().filter(is_ours).find(|parent| parent["parentRef"] == reference);
        let before = before.map_or(&Value::Null, |before| &before["conditions"]);
        let conditions = merged(before, conditions, generation, now);
        json!({ "parentRef": reference, "controllerName": CONTROLLER, "conditions": conditions })
    });
    let status = json!({ "parents": others.chain(ours).collect::<Vec<_>>() });
    Some((Write { kind: route.kind, key: key(route.name), status }, route.status))
}
