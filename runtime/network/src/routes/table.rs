//! Routes in the order in which they are asked, by host.
//!
//! # Source
//! The precedence of Gateway API's HTTPRoute and GRPCRoute, which is Ingress' where that says anything: exact hosts before
//! longer wildcards before none; exact paths, then longer prefixes; a method; more headers; more parameters of the query.

use std::{borrow::Cow, cmp::Reverse, collections::HashMap, sync::Arc};

use http::{HeaderMap, HeaderName, Request};

use super::{Action, Host, Match, PathPattern, Route, TextPattern, query, without_port};

/// Finds the route of a request.
#[derive(Debug, Default)]
pub struct RouteTable {
    exact: HashMap<String, Vec<Entry>>,
    /// By what the wildcard stands before: `.example.com`.
    below: HashMap<String, Vec<Entry>>,
    any: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    route: Arc<str>,
    matched: Match,
    one_label: bool,
    action: Arc<Action>,
}

/// What is to be done with a request.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) route: Arc<str>,
    pub(crate) action: Arc<Action>,
    /// How much of the path the prefix was that matched.
    pub(crate) prefix_bytes: usize,
}

impl RouteTable {
    /// Puts routes in order. Of those that are equally exact, the first one stays first.
    pub fn new(routes: impl IntoIterator<Item = Route>) -> Self {
        let mut table = Self::default();
        for route in routes {
            let any = [Host::Any];
            for host in if route.hosts.is_empty() { &any[..] } else { &route.hosts } {
                table.add(host, &route);
            }
        }
        let lists = table.exact.values_mut().chain(table.below.values_mut()).chain([&mut table.any]);
        lists.for_each(|entries| entries.sort_by_key(|entry| rank(&entry.matched)));
        table
    }

    fn add(&mut self, host: &Host, route: &Route) {
        let list = match host {
            Host::Exact(name) => self.exact.entry(name.clone()).or_default(),
            Host::OneLabelBelow(rest) | Host::Below(rest) => self.below.entry(rest.clone()).or_default(),
            Host::Any => &mut self.any,
        };
        let one_label = matches!(host, Host::OneLabelBelow(_));
        let entry = |matched| Entry { route: route.name.clone(), matched, one_label, action: route.action.clone() };
        match route.matches.as_slice() {
            [] => list.push(entry(Match::default())),
            matches => list.extend(matches.iter().cloned().map(entry)),
        }
    }

    /// The route of a request. `host` may carry a port.
    pub(crate) fn find<B>(&self, host: &str, request: &Request<B>) -> Option<Found> {
        self.for_host(host).find_map(|entry| entry.found(request))
    }

    /// The first route for a host, whatever is asked of it: that of a connection.
    pub(crate) fn find_host(&self, host: &str) -> Option<Found> {
        self.for_host(host).next().map(|entry| entry.with_prefix(0))
    }

    /// Every route that is for a host, the most exact first.
    fn for_host(&self, host: &str) -> impl Iterator<Item = &Entry> {
        let host = without_port(host);
        let host = match host.bytes().any(|b| b.is_ascii_uppercase()) {
            true => Cow::Owned(host.to_ascii_lowercase()),
            false => Cow::Borrowed(host),
        };
        let exact = self.exact.get(host.as_ref());
        let dots: Vec<usize> = match self.below.is_empty() {
            true => Vec::new(),
            false => host.match_indices('.').map(|(at, _)| at).filter(|at| *at > 0).collect(),
        };
        let below = dots.into_iter().enumerate().flat_map(move |(labels, at)| {
            let entries = self.below.get(&host[at..]).into_iter().flatten();
            entries.filter(move |entry| labels == 0 || !entry.one_label)
        });
        exact.into_iter().flatten().chain(below).chain(&self.any)
    }
}

impl Entry {
    fn found<B>(&self, request: &Request<B>) -> Option<Found> {
        let wanted = &self.matched;
        let prefix = path_matches(&wanted.path, request.uri().path())?;
        let method = wanted.method.as_ref().is_none_or(|method| method == request.method());
        let headers = || wanted.headers.iter().all(|(name, value)| header_matches(request.headers(), name, value));
        let asked = request.uri().query().unwrap_or_default();
        let query =
            || wanted.query.iter().all(|(name, v)| query::first(asked, name).is_some_and(|found| v.matches(&found)));
        (method && headers() && query()).then(|| self.with_prefix(prefix))
    }

    fn with_prefix(&self, prefix_bytes: usize) -> Found {
        Found { route: self.route.clone(), action: self.action.clone(), prefix_bytes }
    }
}

/// What is asked first is least.
fn rank(matched: &Match) -> impl Ord + use<> {
    let path = match &matched.path {
        PathPattern::Exact(path) => (0, Reverse(path.len())),
        PathPattern::Regex(_) => (1, Reverse(0)),
        PathPattern::Prefix(path) if path.trim_end_matches('/').is_empty() => (4, Reverse(0)),
        PathPattern::Prefix(path) => (2, Reverse(path.trim_end_matches('/').len())),
        PathPattern::GrpcMethod(method) => (3, Reverse(method.len())),
    };
    (path, matched.method.is_none(), Reverse(matched.headers.len()), Reverse(matched.query.len()))
}

/// Whether a path is meant, and how much of it the prefix is.
fn path_matches(pattern: &PathPattern, path: &str) -> Option<usize> {
    match pattern {
        PathPattern::Exact(exact) => (exact == path).then_some(path.len()),
        PathPattern::Prefix(prefix) => {
            let prefix = prefix.trim_end_matches('/');
            let rest = path.strip_prefix(prefix)?;
            (rest.is_empty() || rest.starts_with('/')).then_some(prefix.len())
        }
        PathPattern::Regex(pattern) => pattern.0.is_match(path).then_some(path.len()),
        PathPattern::GrpcMethod(method) => {
            let (service, called) = path.strip_prefix('/')?.split_once('/')?;
            (!service.is_empty() && called == method).then_some(path.len())
        }
    }
}

/// Several headers of one name count as one with commas, as HTTP has it.
fn header_matches(headers: &HeaderMap, name: &HeaderName, wanted: &TextPattern) -> bool {
    let mut values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    match (values.next(), values.next()) {
        (None, _) => false,
        (Some(one), None) => wanted.matches(one),
        (Some(one), Some(two)) => {
            let all: Vec<_> = [one, two].into_iter().chain(values).collect();
            wanted.matches(&all.join(","))
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
