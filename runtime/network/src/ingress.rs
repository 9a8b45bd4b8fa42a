//! Which Service an outside request is for: all Ingresses compiled into one table of routes.
//!
//! # Source
//! The precedence of Kubernetes' Ingress: exact hosts before wildcards before none; exact paths, then longer prefixes. Of
//! equal rules, that of the first Ingress by name wins; default backends come last.

use std::{collections::BTreeMap, sync::Arc};

use http::Request;
use parking_lot::RwLock;

use crate::{
    certificates::ServerTls,
    routes::{Action, Destination, Found, Host, Match, PathPattern, Route, RouteTable, WeightedBackend},
    table::{Backend, Ingress, Name, PathMatch},
};

#[derive(Default)]
pub(crate) struct Routes(RwLock<State>);

#[derive(Default)]
struct State {
    ingresses: BTreeMap<Name, Ingress>,
    compiled: Arc<RouteTable>,
    /// The most exact first.
    tls: Arc<[(Host, ServerTls)]>,
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

    /// What is done with a request. `host` may carry a port.
    pub(crate) fn find<B>(&self, host: &str, request: &Request<B>) -> Option<Found> {
        let compiled = self.0.read().compiled.clone();
        compiled.find(host, request)
    }

    /// What is shown to a client that names a host, in small letters, when it begins TLS.
    pub(crate) fn tls(&self, host: &str) -> Option<ServerTls> {
        let shown = self.0.read().tls.clone();
        shown.iter().find(|(of, _)| of.matches(host)).map(|(_, tls)| tls.clone())
    }
}

impl State {
    fn compile(&mut self) {
        let rules = self.ingresses.values().flat_map(routes_of);
        let fallback = self.ingresses.values().filter_map(|ingress| {
            let backend = ingress.default_backend.as_ref()?;
            Some(route(ingress, Host::Any, PathPattern::default(), backend))
        });
        self.compiled = Arc::new(RouteTable::new(rules.chain(fallback)));
        let mut shown: Vec<(Host, ServerTls)> = Vec::new();
        for tls in self.ingresses.values().flat_map(|ingress| &ingress.tls) {
            let certificates = std::slice::from_ref(&tls.certificate);
            let known = self.tls.iter().chain(&shown).find(|(_, known)| known.shows(certificates, true));
            let made = match known {
                Some((_, known)) => Ok(known.clone()),
                None => ServerTls::new(certificates.to_vec(), true),
            };
            let Ok(made) = made.inspect_err(|error| tracing::warn!(%error, "an Ingress cannot speak TLS")) else {
                continue;
            };
            match tls.hosts.is_empty() {
                true => shown.push((Host::Any, made)),
                false => shown.extend(tls.hosts.iter().map(|host| (Host::of_ingress(Some(host)), made.clone()))),
            }
        }
        // Stable: of certificates for one host, that of the first Ingress by name is shown.
        shown.sort_by(|(one, _), (other, _)| one.order(other));
        self.tls = shown.into();
    }
}

fn routes_of(ingress: &Ingress) -> impl Iterator<Item = Route> + '_ {
    ingress.rules.iter().map(|rule| {
        let path = match &rule.path {
            PathMatch::Exact(path) => PathPattern::Exact(path.clone()),
            PathMatch::Prefix(path) => PathPattern::Prefix(path.clone()),
        };
        route(ingress, Host::of_ingress(rule.host.as_deref()), path, &rule.backend)
    })
}

fn route(ingress: &Ingress, host: Host, path: PathPattern, backend: &Backend) -> Route {
    let service = Name::new(ingress.name.namespace.clone(), backend.service.clone());
    let to = Some(Destination { service, port: backend.port.clone() });
    let backends = vec![WeightedBackend { weight: 1, to, filters: Vec::new() }];
    Route {
        name: format!("Ingress {}", ingress.name).into(),
        hosts: vec![host],
        matches: vec![Match { path, ..Match::default() }],
        action: Arc::new(Action { backends, ..Action::default() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::{BackendPort, Rule};

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
        routes.put(Ingress {
            name: Name::new("d", "i"),
            default_backend: None,
            rules: rules.collect(),
            tls: Vec::new(),
        });
        routes
    }

    fn check(rules: &[(Option<&str>, &str, &str)], host: &str, path: &str, expected: Option<&str>) {
        assert_eq!(found(&routes(rules), host, path).as_deref(), expected, "{host}{path}");
    }

    fn found(routes: &Routes, host: &str, path: &str) -> Option<String> {
        let found = routes.find(host, &Request::get(path).body(()).unwrap())?;
        Some(found.action.backends[0].to.as_ref()?.service.name.clone())
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

    /// The rules of Kubernetes' ingress-controller-conformance: `host_rules.feature` and `path_rules.feature`. Its other features
    /// are shown where they are served: default backends and load balancing in `tests/it/main.rs`, certificates in
    /// `tests/it/gateways.rs`, classes in the agent.
    #[test]
    fn the_conformance_suites_rules() {
        let hosts = [(Some("*.foo.com"), "/", "wildcard-foo-com"), (Some("foo.bar.com"), "/", "foo-bar-com")];
        for (host, expected) in [
            ("foo.bar.com", Some("foo-bar-com")),
            ("subdomain.bar.com", None),
            ("bar.foo.com", Some("wildcard-foo-com")),
            ("baz.bar.foo.com", None),
            ("foo.com", None),
        ] {
            check(&hosts, host, "/", expected);
        }
        let paths = [
            (Some("exact"), "=/foo", "foo-exact"),
            (Some("prefix"), "/foo", "foo-prefix"),
            (Some("prefix"), "/aaa/bbb", "aaa-slash-bbb-prefix"),
            (Some("prefix"), "/aaa", "aaa-prefix"),
            (Some("mixed"), "/foo", "foo-prefix"),
            (Some("mixed"), "=/foo", "foo-exact"),
            (Some("trailing"), "/aaa/bbb/", "aaa-slash-bbb-slash-prefix"),
            (Some("trailing"), "=/foo/", "foo-slash-exact"),
        ];
        for (host, path, expected) in [
            ("exact", "/foo", Some("foo-exact")),
            ("exact", "/foo/", None),
            ("exact", "/FOO", None),
            ("exact", "/bar", None),
            ("prefix", "/foo", Some("foo-prefix")),
            ("prefix", "/foo/", Some("foo-prefix")),
            ("prefix", "/FOO", None),
            ("prefix", "/aaa/bbb", Some("aaa-slash-bbb-prefix")),
            ("prefix", "/aaa/bbb/ccc", Some("aaa-slash-bbb-prefix")),
            ("prefix", "/aaa/ccc", Some("aaa-prefix")),
            ("prefix", "/aaaccc", None),
            ("mixed", "/foo", Some("foo-exact")),
            ("trailing", "/aaa/bbb", Some("aaa-slash-bbb-slash-prefix")),
            ("trailing", "/aaa/bbb/", Some("aaa-slash-bbb-slash-prefix")),
            ("trailing", "/foo/", Some("foo-slash-exact")),
            ("trailing", "/foo", None),
        ] {
            check(&paths, host, path, expected);
        }
    }

    #[test]
    fn default_backends_come_last_and_removed_rules_are_gone() {
        let routes = routes(&[(None, "/a", "a")]);
        let backend = Backend { service: "z".to_owned(), port: BackendPort::Name("http".to_owned()) };
        routes.put(Ingress {
            name: Name::new("a", "fallback"),
            default_backend: Some(backend),
            rules: Vec::new(),
            tls: Vec::new(),
        });
        assert_eq!(found(&routes, "x", "/a").as_deref(), Some("a"));
        assert_eq!(found(&routes, "x", "/b").as_deref(), Some("z"));
        routes.remove(&Name::new("d", "i"));
        assert_eq!(found(&routes, "x", "/a").as_deref(), Some("z"));
    }
}
