//! Which Service an outside request is for: all Ingresses compiled into one ordered list of rules.
//!
//! # Source
//! The precedence of Kubernetes' Ingress: exact hosts before wildcards before none; exact paths, then longer prefixes.

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

use parking_lot::RwLock;

use crate::table::{Backend, BackendPort, Ingress, Name, PathMatch};

#[derive(Default)]
pub(crate) struct Routes(RwLock<State>);

#[derive(Default)]
struct State {
    ingresses: BTreeMap<Name, Ingress>,
    compiled: Arc<[Route]>,
}

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Destination {
    pub(crate) service: Name,
    pub(crate) port: BackendPort,
}

#[derive(Debug)]
struct Route {
    host: Host,
    path: PathMatch,
    to: Destination,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Host {
    Exact(String),
    /// `.example.com`
    OneLabelBelow(String),
    Any,
}

impl Routes {
    pub(crate) fn put(&self, ingress: Ingress) {
        let mut state = self.0.write();
        state.ingresses.insert(ingress.name.clone(), ingress);
        state.compile();
    }

    pub(crate) fn remove(&self, name: &Name) {
        let mut state = self.0.write();
        state.ingresses.remove(name);
        state.compile();
    }

    /// The destination of a request. `host` may carry a port.
    pub(crate) fn find(&self, host: &str, path: &str) -> Option<Destination> {
        let compiled = self.0.read().compiled.clone();
        let host = host
            .rsplit_once(':')
            .map_or(host, |(name, port)| if port.bytes().all(|b| b.is_ascii_digit()) { name } else { host });
        let found = compiled.iter().find(|r| r.host.matches(host) && path_matches(&r.path, path));
        found.map(|r| r.to.clone())
    }
}

impl State {
    fn compile(&mut self) {
        let mut routes: Vec<Route> = self.ingresses.values().flat_map(routes_of).collect();
        // Stable: of equal rules, that of the first Ingress by name wins.
        routes.sort_by_key(|r| {
            let host = match r.host {
                Host::Exact(_) => 0,
                Host::OneLabelBelow(_) => 1,
                Host::Any => 2,
            };
            let (exact, length) = match &r.path {
                PathMatch::Exact(p) => (0, p.len()),
                PathMatch::Prefix(p) => (1, p.len()),
            };
            (host, Reverse(length), exact)
        });
        // Default backends come after every rule.
        let fallback = self.ingresses.values().filter_map(|i| {
            let to = destination(i, i.default_backend.as_ref()?);
            Some(Route { host: Host::Any, path: PathMatch::Prefix("/".to_owned()), to })
        });
        routes.extend(fallback);
        self.compiled = routes.into();
    }
}

fn routes_of(ingress: &Ingress) -> impl Iterator<Item = Route> + '_ {
    ingress.rules.iter().map(|rule| Route {
        host: Host::new(rule.host.as_deref()),
        path: rule.path.clone(),
        to: destination(ingress, &rule.backend),
    })
}

fn destination(ingress: &Ingress, backend: &Backend) -> Destination {
    Destination {
        service: Name::new(ingress.name.namespace.clone(), backend.service.clone()),
        port: backend.port.clone(),
    }
}

impl Host {
    fn new(host: Option<&str>) -> Self {
        match host.map(str::to_ascii_lowercase) {
            None => Self::Any,
            Some(host) if host.is_empty() => Self::Any,
            Some(host) => match host.strip_prefix('*') {
                Some(below) => Self::OneLabelBelow(below.to_owned()),
                None => Self::Exact(host),
            },
        }
    }

    fn matches(&self, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(name) => name.eq_ignore_ascii_case(host),
            Self::OneLabelBelow(below) => host
                .split_once('.')
                .is_some_and(|(label, _)| !label.is_empty() && below.eq_ignore_ascii_case(&host[label.len()..])),
        }
    }
}

fn path_matches(pattern: &PathMatch, path: &str) -> bool {
    match pattern {
        PathMatch::Exact(exact) => exact == path,
        PathMatch::Prefix(prefix) => {
            let prefix = prefix.trim_end_matches('/');
            path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Rule;

    fn routes(rules: &[(Option<&str>, &str, &str)]) -> Routes {
        let rules = rules.iter().map(|(host, path, service)| Rule {
            host: host.map(str::to_owned),
            path: match path.strip_prefix('=') {
                Some(exact) => PathMatch::Exact(exact.to_owned()),
                None => PathMatch::Prefix((*path).to_owned()),
            },
            backend: Backend { service: (*service).to_owned(), port: BackendPort::Number(80) },
        });
        let routes = Routes::default();
        routes.put(Ingress { name: Name::new("d", "i"), default_backend: None, rules: rules.collect() });
        routes
    }

    fn check(rules: &[(Option<&str>, &str, &str)], host: &str, path: &str, expected: Option<&str>) {
        let found = routes(rules).find(host, path).map(|d| d.service.name);
        assert_eq!(found.as_deref(), expected, "{host}{path}");
    }

    #[test]
    fn prefixes_match_whole_elements() {
        let rules = [(None, "/foo/bar", "a")];
        check(&rules, "x", "/foo/bar", Some("a"));
        check(&rules, "x", "/foo/bar/", Some("a"));
        check(&rules, "x", "/foo/bar/baz", Some("a"));
        check(&rules, "x", "/foo/barbaz", None);
        check(&[(None, "/", "a")], "x", "/anything", Some("a"));
        check(&[(None, "/foo/", "a")], "x", "/foo", Some("a"));
    }

    #[test]
    fn the_more_exact_rule_wins() {
        let rules = [(None, "/", "any"), (None, "/a", "a"), (None, "/a/b", "ab"), (None, "=/a", "exact")];
        check(&rules, "x", "/a", Some("exact"));
        check(&rules, "x", "/a/c", Some("a"));
        check(&rules, "x", "/a/b/c", Some("ab"));
        check(&rules, "x", "/z", Some("any"));
    }

    #[test]
    fn hosts() {
        let rules = [(Some("*.b.com"), "/", "wild"), (Some("a.b.com"), "/", "exact"), (None, "/", "any")];
        check(&rules, "a.b.com", "/", Some("exact"));
        check(&rules, "A.B.com:8080", "/", Some("exact"));
        check(&rules, "x.b.com", "/", Some("wild"));
        check(&rules, "y.x.b.com", "/", Some("any"));
        check(&rules, "b.com", "/", Some("any"));
    }

    #[test]
    fn default_backends_come_last_and_removed_rules_are_gone() {
        let routes = routes(&[(None, "/a", "a")]);
        let backend = Backend { service: "z".to_owned(), port: BackendPort::Name("http".to_owned()) };
        routes.put(Ingress { name: Name::new("a", "fallback"), default_backend: Some(backend), rules: Vec::new() });
        assert_eq!(routes.find("x", "/a").map(|d| d.service.name), Some("a".to_owned()));
        assert_eq!(routes.find("x", "/b").map(|d| d.service.name), Some("z".to_owned()));
        routes.remove(&Name::new("d", "i"));
        assert_eq!(routes.find("x", "/a").map(|d| d.service.name), Some("z".to_owned()));
    }
}
