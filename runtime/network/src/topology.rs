//! Which endpoints of a Service are sent to from this node: ready ones, those near by where that is wanted, those that end
//! when nobody else is left. Pure.
//!
//! # Source
//! Kubernetes `pkg/proxy/topology.go` (`CategorizeEndpoints`, `topologyModeFromHints`). Where nobody has given hints,
//! `trafficDistribution` is followed by the endpoints' own nodes and zones.

use crate::table::{Distribution, Endpoint, Traffic};

/// Where this node is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Here {
    pub(crate) node: Option<String>,
    pub(crate) zone: Option<String>,
}

impl Here {
    /// Whether an endpoint is on this node. Where nobody says, all are.
    pub(crate) fn is_node_of(&self, endpoint: &Endpoint) -> bool {
        match (&self.node, &endpoint.place.node) {
            (Some(node), Some(of)) => node == of,
            _ => true,
        }
    }

    fn is_zone_of(&self, endpoint: &Endpoint) -> bool {
        self.zone.is_some() && self.zone == endpoint.place.zone
    }
}

/// Those to send to. `outside`: for clients that come from outside the cluster.
pub(crate) fn select<'a>(all: &[&'a Endpoint], traffic: &Traffic, here: &Here, outside: bool) -> Vec<&'a Endpoint> {
    let local_only = if outside { traffic.external_local } else { traffic.internal_local };
    let candidates: Vec<&Endpoint> = match local_only {
        true => all.iter().copied().filter(|endpoint| here.is_node_of(endpoint)).collect(),
        false => all.to_vec(),
    };
    let ready: Vec<&Endpoint> = candidates.iter().copied().filter(|endpoint| endpoint.ready).collect();
    if ready.is_empty() {
        return candidates.into_iter().filter(|endpoint| endpoint.serving && endpoint.terminating).collect();
    }
    if local_only { ready } else { near(ready, traffic, here) }
}

fn near<'a>(ready: Vec<&'a Endpoint>, traffic: &Traffic, here: &Here) -> Vec<&'a Endpoint> {
    let pick = |near: &dyn Fn(&Endpoint) -> bool| {
        let found: Vec<&Endpoint> = ready.iter().copied().filter(|endpoint| near(endpoint)).collect();
        (!found.is_empty()).then_some(found)
    };
    let hinted = |hints: fn(&Endpoint) -> &Vec<String>, own: &Option<String>| {
        let own = own.as_ref().filter(|_| ready.iter().all(|endpoint| !hints(endpoint).is_empty()))?;
        pick(&|endpoint| hints(endpoint).contains(own))
    };
    let by_hints = hinted(|e| &e.place.node_hints, &here.node).or_else(|| hinted(|e| &e.place.zone_hints, &here.zone));
    if let Some(found) = by_hints {
        return found;
    }
    let has_hints = ready.iter().any(|e| !e.place.zone_hints.is_empty() || !e.place.node_hints.is_empty());
    let zone = || pick(&|endpoint| here.is_zone_of(endpoint));
    let node = || pick(&|endpoint| here.node.is_some() && here.node == endpoint.place.node);
    let found = match traffic.distribution {
        _ if has_hints => None,
        None => None,
        Some(Distribution::SameZone) => zone(),
        Some(Distribution::SameNode) => node().or_else(zone),
    };
    found.unwrap_or(ready)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Place;

    /// `n1/z1`: ready there; a sign before it: `-` not ready, `~` serving while it ends. After it `>a,b`: hints of zones,
    /// `>>a`: of nodes.
    fn endpoints(text: &str) -> Vec<Endpoint> {
        let one = |(i, word): (usize, &str)| {
            let (sign, rest) = match word.split_at(1) {
                (sign @ ("-" | "~"), rest) => (sign, rest),
                _ => ("", word),
            };
            let (place, hints) = rest.split_once('>').unwrap_or((rest, ""));
            let (node, zone) = place.split_once('/').unwrap();
            let words = |text: &str| text.split(',').filter(|w| !w.is_empty()).map(str::to_owned).collect::<Vec<_>>();
            let (zone_hints, node_hints) = match hints.strip_prefix('>') {
                Some(nodes) => (Vec::new(), words(nodes)),
                None => (words(hints), Vec::new()),
            };
            Endpoint {
                ip: [10, 0, 0, u8::try_from(i).unwrap()].into(),
                hostname: None,
                ready: sign.is_empty(),
                serving: sign != "-",
                terminating: sign == "~",
                place: Place { node: Some(node.into()), zone: Some(zone.into()), zone_hints, node_hints },
            }
        };
        text.split(' ').enumerate().map(one).collect()
    }

    fn check(text: &str, traffic: &Traffic, outside: bool, expected: &[usize]) {
        let all = endpoints(text);
        let here = Here { node: Some("n1".into()), zone: Some("z1".into()) };
        let found = select(&all.iter().collect::<Vec<_>>(), traffic, &here, outside);
        let found: Vec<_> = found.iter().map(|e| all.iter().position(|of| of == *e).unwrap()).collect();
        assert_eq!(found, expected, "{text} {traffic:?} outside: {outside}");
    }

    #[test]
    fn ready_ones_and_then_those_that_end() {
        let all = Traffic::default();
        check("n1/z1 n2/z2 -n1/z1 ~n1/z1", &all, false, &[0, 1]);
        check("-n1/z1 ~n1/z1 ~n2/z2", &all, false, &[1, 2]);
        check("-n1/z1 -n2/z1", &all, false, &[]);
    }

    #[test]
    fn local_traffic_stays_on_the_node() {
        let inner = Traffic { internal_local: true, ..Traffic::default() };
        let outer = Traffic { external_local: true, ..Traffic::default() };
        for (traffic, outside) in [(&inner, false), (&outer, true)] {
            check("n1/z1 n2/z1", traffic, outside, &[0]);
            check("n2/z1 n3/z1", traffic, outside, &[]);
            check("-n1/z1 ~n1/z1 n2/z1", traffic, outside, &[1]);
            check("n1/z1 n2/z1", traffic, !outside, &[0, 1]);
        }
    }

    #[test]
    fn near_ones_are_preferred() {
        let zone = Traffic { distribution: Some(Distribution::SameZone), ..Traffic::default() };
        let node = Traffic { distribution: Some(Distribution::SameNode), ..Traffic::default() };
        check("n1/z1 n2/z1 n3/z2", &zone, false, &[0, 1]);
        check("n3/z2 n4/z3", &zone, false, &[0, 1]);
        check("n1/z1 n2/z1 n3/z2", &node, false, &[0]);
        check("n2/z1 n3/z2", &node, false, &[0]);
        check("n3/z2", &node, false, &[0]);
        check("-n1/z1 n3/z2", &node, false, &[1]);
    }

    #[test]
    fn hints_say_who_is_for_whom() {
        let none = Traffic::default();
        check("n1/z1>z1 n2/z2>z2 n3/z3>z1,z3", &none, false, &[0, 2]);
        check("n1/z1>z1 n2/z2", &none, false, &[0, 1]);
        check("n2/z2>z2 n3/z3>z3", &none, false, &[0, 1]);
        check("n2/z2>>n1 n1/z1>>n2", &none, false, &[0]);
        let zone = Traffic { distribution: Some(Distribution::SameZone), ..Traffic::default() };
        check("n1/z1>z2 n2/z2>z1", &zone, false, &[1]);
    }

    #[test]
    fn where_nobody_knows_where_things_are_all_are_here() {
        let mut all = endpoints("n1/z1 n2/z2");
        let local = Traffic { internal_local: true, ..Traffic::default() };
        let everywhere = Here::default();
        assert_eq!(select(&all.iter().collect::<Vec<_>>(), &local, &everywhere, false).len(), 2);
        all[1].place.node = None;
        let here = Here { node: Some("n1".into()), zone: None };
        assert_eq!(select(&all.iter().collect::<Vec<_>>(), &local, &here, false).len(), 2);
    }
}
