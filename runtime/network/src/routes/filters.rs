//! What filters make of requests and answers. Pure but for the choice of a backend, whose number is handed in.
//!
//! # Source
//! Gateway API, `HTTPRouteFilter`: what is replaced, and which port a redirection names.

use http::{HeaderMap, HeaderValue, Request, Uri, header, uri::PathAndQuery};

use super::{HeaderChanges, PathChange, Redirect, Rewrite, WeightedBackend};

impl HeaderChanges {
    /// Changes headers: sets, then adds, then removes.
    pub(crate) fn apply(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.set {
            headers.insert(name, value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name, value.clone());
        }
        for name in &self.remove {
            headers.remove(name);
        }
    }
}

/// How a client came, as far as a redirection keeps it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival<'a> {
    /// `http` or `https`.
    pub(crate) scheme: &'a str,
    /// Without a port.
    pub(crate) host: &'a str,
    /// The listener's.
    pub(crate) port: u16,
}

impl Redirect {
    /// Where to. `prefix_bytes`: how much of the path the route's prefix is.
    pub(crate) fn location(&self, arrival: Arrival<'_>, uri: &Uri, prefix_bytes: usize) -> String {
        let scheme = self.scheme.as_deref().unwrap_or(arrival.scheme);
        let known = if scheme == "https" { 443 } else { 80 };
        // Whoever names a scheme means its port.
        let port = self.port.unwrap_or(if self.scheme.is_some() { known } else { arrival.port });
        let host = self.host.as_deref().unwrap_or(arrival.host);
        let port = if port == known { String::new() } else { format!(":{port}") };
        let path = match &self.path {
            Some(change) => change.apply(uri.path(), prefix_bytes),
            None => uri.path().to_owned(),
        };
        let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
        format!("{scheme}://{host}{port}{path}{query}")
    }
}

impl PathChange {
    /// The path that a path becomes.
    fn apply(&self, path: &str, prefix_bytes: usize) -> String {
        let changed = match self {
            Self::Full(full) => full.clone(),
            Self::Prefix(prefix) => {
                let rest = path.get(prefix_bytes..).unwrap_or_default();
                format!("{}{rest}", prefix.trim_end_matches('/'))
            }
        };
        if changed.starts_with('/') { changed } else { format!("/{changed}") }
    }
}

impl Rewrite {
    /// Gives a request its new host and path. What cannot be one is left as it was.
    pub(crate) fn apply<B>(&self, request: &mut Request<B>, prefix_bytes: usize) {
        let mut parts = request.uri().clone().into_parts();
        if let Some(change) = &self.path {
            let path = change.apply(request.uri().path(), prefix_bytes);
            let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
            parts.path_and_query = PathAndQuery::try_from(format!("{path}{query}")).ok().or(parts.path_and_query);
        }
        if let Some(host) = &self.host {
            if parts.authority.is_some() {
                parts.authority = host.parse().ok().or(parts.authority);
            }
            if let Ok(value) = HeaderValue::from_str(host) {
                request.headers_mut().insert(header::HOST, value);
            }
        }
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }
}

/// How much all backends weigh.
pub(crate) fn weight(backends: &[WeightedBackend]) -> u64 {
    backends.iter().map(|backend| u64::from(backend.weight)).sum()
}

/// The backend that a number below the weight of all falls on.
pub(crate) fn pick(backends: &[WeightedBackend], mut number: u64) -> Option<&WeightedBackend> {
    backends.iter().find(|backend| {
        let weight = u64::from(backend.weight);
        let hit = number < weight;
        number = number.saturating_sub(weight);
        hit
    })
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    fn prefix(text: &str) -> Option<PathChange> {
        Some(PathChange::Prefix(text.to_owned()))
    }

    #[test]
    fn prefixes_are_replaced_as_whole_elements() {
        for (path, matched, with, becomes) in [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "/", "/"),
            ("/bar", "/", "/xyz", "/xyz/bar"),
        ] {
            let length = matched.trim_end_matches('/').len();
            assert_eq!(prefix(with).unwrap().apply(path, length), becomes, "{path} {matched} {with}");
        }
    }

    #[test]
    fn redirections() {
        let nothing = Redirect { scheme: None, host: None, port: None, path: None, status: StatusCode::FOUND };
        let check = |redirect: Redirect, (scheme, port): (&str, u16), uri: &str, expected: &str| {
            let arrival = Arrival { scheme, host: "a.test", port };
            let found = redirect.location(arrival, &uri.parse().unwrap(), "/old".len());
            assert_eq!(found, expected, "{redirect:?}");
        };
        let scheme = |scheme: &str| Redirect { scheme: Some(scheme.into()), ..nothing.clone() };
        let port = |port, from: Redirect| Redirect { port: Some(port), ..from };
        let host = Redirect { host: Some("example.org".into()), ..nothing.clone() };
        let path = |path| Redirect { path, ..nothing.clone() };
        let (http, https) = (("http", 80), ("https", 443));
        check(host.clone(), http, "/x?a=b", "http://example.org/x?a=b");
        check(host.clone(), ("http", 8080), "/x", "http://example.org:8080/x");
        check(host, https, "/x", "https://example.org/x");
        check(scheme("https"), http, "/x", "https://a.test/x");
        check(scheme("https"), ("http", 8080), "/x", "https://a.test/x");
        check(scheme("http"), https, "/x", "http://a.test/x");
        check(port(8080, nothing.clone()), http, "/x", "http://a.test:8080/x");
        check(port(80, nothing.clone()), ("http", 8080), "/x", "http://a.test/x");
        check(port(443, nothing.clone()), http, "/x", "http://a.test:443/x");
        check(port(443, scheme("https")), http, "/x", "https://a.test/x");
        check(port(8443, scheme("https")), http, "/x", "https://a.test:8443/x");
        check(port(80, scheme("https")), http, "/x", "https://a.test:80/x");
        check(path(prefix("/new")), http, "/old/x?q", "http://a.test/new/x?q");
        check(path(Some(PathChange::Full("/full".into()))), http, "/old/x", "http://a.test/full");
    }

    #[test]
    fn rewrites() {
        let check = |rewrite: Rewrite, uri: &str, expected: (&str, &str)| {
            let mut request = Request::get(uri).header("host", "old.test").body(()).unwrap();
            rewrite.apply(&mut request, "/old".len());
            let host = request.headers()["host"].to_str().unwrap();
            assert_eq!((request.uri().to_string().as_str(), host), expected, "{rewrite:?}");
        };
        let host = Some("new.test".to_owned());
        check(Rewrite { host: host.clone(), path: None }, "/old/x?q", ("/old/x?q", "new.test"));
        check(Rewrite { host: host.clone(), path: None }, "http://o.test/old", ("http://new.test/old", "new.test"));
        check(Rewrite { host: None, path: prefix("/new") }, "/old/x?q", ("/new/x?q", "old.test"));
        check(Rewrite { host, path: Some(PathChange::Full("/f".into())) }, "/old/x?q", ("/f?q", "new.test"));
        check(Rewrite { host: None, path: prefix("/a b") }, "/old/x", ("/old/x", "old.test"));
    }

    #[test]
    fn headers() {
        let pair = |name: &'static str, value: &'static str| {
            (http::HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let changes = HeaderChanges {
            set: vec![pair("x-set", "new"), pair("x-both", "1")],
            add: vec![pair("x-add", "2"), pair("x-both", "2")],
            remove: vec![http::HeaderName::from_static("x-gone")],
        };
        let before = [("x-set", "a"), ("x-set", "b"), ("x-add", "1"), ("x-gone", "1"), ("x-stay", "1")];
        let mut headers: HeaderMap = before.into_iter().map(|(name, value)| pair(name, value)).collect();
        for (name, value) in before {
            headers.append(name, HeaderValue::from_static(value));
        }
        changes.apply(&mut headers);
        let all = |name: &str| headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect::<Vec<_>>().join(",");
        assert_eq!([all("x-set"), all("x-both"), all("x-gone")], ["new", "1,2", ""]);
        assert!(all("x-add").ends_with(",2") && !all("x-stay").is_empty());
    }

    #[test]
    fn backends_get_their_share() {
        let backends: Vec<_> =
            [70, 30, 0].map(|weight| WeightedBackend { weight, to: None, filters: Vec::new() }).into();
        let share = |weight| {
            let picked = (0..100).filter_map(|number| pick(&backends, number)).filter(|b| b.weight == weight);
            picked.count()
        };
        assert_eq!((weight(&backends), share(70), share(30), share(0)), (100, 70, 30, 0));
        assert!(pick(&backends, 100).is_none() && pick(&[], 0).is_none());
    }
}
