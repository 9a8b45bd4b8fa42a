//! Gateways and routes compiled: what the network listens for, and what the statuses say. Pure.
//!
//! # Source
//! Gateway API, `ParentReference`, `Listener`, `RouteStatus`, and its conformance tests.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use podium_network::{
    GatewayListener, GatewayPort, Serves,
    routes::{Host, Route, RouteTable},
    table::Name,
};
use serde_json::Value;

use super::{
    conditions::Condition,
    kinds::{GROUP, ParentRef},
    listeners::{Point, Site, Speaks, sites},
    rules::{self, Rules},
    seen::{Here, Namer, Seen, by_age},
};

/// What is to be listened for, and what of it is known before that is tried.
pub(crate) struct Plan<'a> {
    pub(crate) ports: Vec<GatewayPort>,
    pub(crate) sites: Vec<Site<'a>>,
    pub(crate) routes: Vec<RoutePlan<'a>>,
}

/// What the status of a route says.
pub(crate) struct RoutePlan<'a> {
    pub(crate) kind: &'static str,
    pub(crate) name: &'a Name,
    pub(crate) meta: &'a ObjectMeta,
    pub(crate) status: &'a Value,
    /// Parents that are served here.
    pub(crate) parents: Vec<(&'a ParentRef, Vec<Condition>)>,
}

/// A route of any kind.
struct AnyRoute<'a> {
    kind: &'static str,
    name: &'a Name,
    meta: &'a ObjectMeta,
    status: &'a Value,
    parents: &'a [ParentRef],
    hosts: Vec<Host>,
    rules: Rules,
}

/// Compiles everything.
pub(crate) fn compile(seen: &Seen, here: Here) -> Plan<'_> {
    let mut sites = sites(seen, here);
    // By Gateway and listener.
    let mut attached: BTreeMap<(usize, usize), Vec<Route>> = BTreeMap::new();
    let mut routes = Vec::new();
    for route in all_routes(seen) {
        let parents = route.parents.iter().filter_map(|parent| {
            let (at, conditions) = route.attach(seen, &sites, parent)?;
            Some((parent, at, conditions))
        });
        let parents: Vec<_> = parents.collect();
        let mut points: Vec<(usize, usize, Vec<Host>)> = Vec::new();
        for (site, point, hosts) in parents.iter().flat_map(|(_, at, _)| at.clone()) {
            // Several references may lead to one listener.
            if !points.iter().any(|(s, p, _)| (*s, *p) == (site, point)) {
                points.push((site, point, hosts));
            }
        }
        for (site, point, hosts) in points {
            sites[site].points[point].attached += 1;
            attached.entry((site, point)).or_default().extend(route.compiled(&hosts));
        }
        let parents = parents.into_iter().map(|(parent, _, conditions)| (parent, conditions)).collect();
        let AnyRoute { kind, name, meta, status, .. } = route;
        routes.push(RoutePlan { kind, name, meta, status, parents });
    }
    Plan { ports: ports(&sites, attached), sites, routes }
}

/// Every route, the oldest first: that one wins where several are equally exact.
fn all_routes(seen: &Seen) -> Vec<AnyRoute<'_>> {
    let mut all = Vec::new();
    macro_rules! routes {
        ($objects:expr, $kind:literal, $rules:path) => {
            for (name, route) in by_age($objects.iter().map(|(name, r)| (name, &**r)), |r| &r.metadata) {
                let namer = Namer { kind: $kind, namespace: &name.namespace };
                all.push(AnyRoute {
                    kind: $kind,
                    name,
                    meta: &route.metadata,
                    status: &route.status,
                    parents: &route.spec.parent_refs,
                    hosts: route.spec.hostnames.iter().map(|host| Host::of_gateway(Some(host))).collect(),
                    rules: $rules(seen, namer, &route.spec.rules),
                });
            }
        };
    }
    routes!(seen.http, "HTTPRoute", rules::http);
    routes!(seen.grpc, "GRPCRoute", rules::grpc);
    routes!(seen.tls, "TLSRoute", rules::tls);
    all.sort_by_key(|route| route.meta.creation_timestamp.as_ref().map(|time| time.0));
    all
}

/// Listeners by Gateway and place, and for which hosts.
type Places = Vec<(usize, usize, Vec<Host>)>;

impl AnyRoute<'_> {
    /// Where a parent's listeners take the route, and what is said of that; `None` when the parent is not served here.
    fn attach(&self, seen: &Seen, sites: &[Site<'_>], parent: &ParentRef) -> Option<(Places, Vec<Condition>)> {
        let is_gateway = parent.group.as_deref().unwrap_or(GROUP) == GROUP
            && parent.kind.as_deref().unwrap_or("Gateway") == "Gateway";
        let namespace = parent.namespace.as_deref().unwrap_or(&self.name.namespace);
        let site = sites.iter().position(|site| site.name.namespace == namespace && site.name.name == parent.name)?;
        if !is_gateway {
            return None;
        }
        let (places, accepted) = match self.places(seen, site, &sites[site], parent) {
            _ if self.rules.all > 0 && self.rules.dropped.len() == self.rules.all => {
                let why = self.rules.dropped[0].1.as_str();
                (Vec::new(), Condition::not("Accepted", "UnsupportedValue", why))
            }
            Ok(places) => (places, Condition::is("Accepted", "Accepted")),
            Err((reason, message)) => (Vec::new(), Condition::not("Accepted", reason, message)),
        };
        let resolved = match &self.rules.unresolved {
            Some(why) => Condition::not("ResolvedRefs", why.reason, why.message.as_str()),
            None => Condition::is("ResolvedRefs", "ResolvedRefs"),
        };
        let mut conditions = vec![accepted, resolved];
        if conditions[0].holds && !self.rules.dropped.is_empty() {
            let dropped = self.rules.dropped.iter().map(|(place, why)| format!("rules[{place}]: {why}"));
            let message = format!("Dropped Rule: {}", dropped.collect::<Vec<_>>().join("; "));
            let partly = Condition::not("PartiallyInvalid", "UnsupportedValue", message);
            conditions.push(Condition { holds: true, ..partly });
        }
        Some((places, conditions))
    }

    /// The listeners that take the route, or why none does.
    fn places(
        &self,
        seen: &Seen,
        place: usize,
        site: &Site<'_>,
        parent: &ParentRef,
    ) -> Result<Places, (&'static str, String)> {
        let meant = |point: &Point<'_>| {
            parent.section_name.as_ref().is_none_or(|name| *name == point.listener.name)
                && parent.port.is_none_or(|port| port == point.listener.port)
        };
        let all = site.points.iter().enumerate();
        let meant: Vec<_> = all.filter(|(_, point)| meant(point)).collect();
        if meant.is_empty() {
            return Err(("NoMatchingParent", format!("Gateway {} has no listener of that name and port", site.name)));
        }
        let allowing: Vec<_> = meant
            .into_iter()
            .filter(|(_, point)| {
                point.is_accepted()
                    && point.kinds.contains(&self.kind)
                    && point.allows(seen, &site.name.namespace, &self.name.namespace)
            })
            .collect();
        if allowing.is_empty() || site.refused.is_some() {
            let message = format!("no listener of Gateway {} takes a {} of this namespace", site.name, self.kind);
            return Err(("NotAllowedByListeners", message));
        }
        let places = allowing.into_iter().filter_map(|(i, point)| Some((place, i, self.common(&point.host)?)));
        let places: Places = places.collect();
        match places.is_empty() {
            true => Err(("NoMatchingListenerHostname", "no listener has one of the route's host names".to_owned())),
            false => Ok(places),
        }
    }

    /// The hosts that a listener and the route both mean.
    fn common(&self, listener: &Host) -> Option<Vec<Host>> {
        if self.hosts.is_empty() {
            return Some(vec![listener.clone()]);
        }
        let common: Vec<Host> = self.hosts.iter().filter_map(|host| host.both(listener)).collect();
        (!common.is_empty()).then_some(common)
    }

    /// Its rules, for these hosts.
    fn compiled(&self, hosts: &[Host]) -> impl Iterator<Item = Route> {
        let name: Arc<str> = format!("{} {}", self.kind, self.name).into();
        self.rules.done.iter().map(move |(matches, action)| Route {
            name: name.clone(),
            hosts: hosts.to_vec(),
            matches: matches.clone(),
            action: action.clone(),
        })
    }
}

/// What is listened for at each address and port.
fn ports(sites: &[Site<'_>], mut attached: BTreeMap<(usize, usize), Vec<Route>>) -> Vec<GatewayPort> {
    let mut ports: BTreeMap<SocketAddr, Vec<GatewayListener>> = BTreeMap::new();
    for (s, site) in sites.iter().enumerate().filter(|(_, site)| site.refused.is_none()) {
        for (p, point) in site.points.iter().enumerate().filter(|(_, point)| point.can_listen()) {
            let routes = attached.remove(&(s, p)).unwrap_or_default();
            for ip in &site.addresses {
                let table = RouteTable::new(routes.iter().cloned());
                let certificates = point.certificates.clone();
                let serves = match point.speaks {
                    Some(Speaks::Http) => Serves::Http(table),
                    Some(Speaks::Https) => Serves::Https(certificates, table),
                    Some(Speaks::Tls) => Serves::Tls(certificates, table),
                    Some(Speaks::Passthrough) => Serves::Passthrough(table),
                    None => continue,
                };
                let listener = GatewayListener { host: point.host.clone(), serves };
                ports.entry(SocketAddr::new(*ip, point.listener.port)).or_default().push(listener);
            }
        }
    }
    ports.into_iter().map(|(address, listeners)| GatewayPort { address, listeners }).collect()
}
