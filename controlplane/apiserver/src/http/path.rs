//! Paths and query strings: what a URL asks for, before anything is looked up.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apiserver/pkg/endpoints/request/requestinfo.go`.

/// What a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Route<'a> {
    /// A resource, or a collection of them.
    Resource(Target<'a>),
    /// `/api`: the versions of the core group.
    CoreVersions,
    /// `/apis`: all groups.
    Groups,
    /// `/apis/GROUP`.
    Group(&'a str),
    /// `/api/v1` or `/apis/GROUP/VERSION`: the resources of a version.
    Resources {
        /// Group, empty for core.
        group: &'a str,
        /// Version.
        version: &'a str,
    },
    /// `/openapi/v3` (empty) or one of its documents.
    OpenApi(&'a str),
    /// `/openapi/v2`
    OpenApiV2,
    /// `/version`
    Version,
    /// `/healthz`, `/livez`, `/readyz`, with the name of one check behind it or nothing.
    Health(&'a str),
    /// `/metrics`
    Metrics,
    /// `/.well-known/openid-configuration`: how tokens of ServiceAccounts are checked.
    OpenIdConfiguration,
    /// `/openid/v1/jwks`
    OpenIdKeys,
    /// `/v2/…`: the image registry.
    Images,
    /// `/`
    Root,
    /// Anything else.
    Unknown,
}

/// A resource in a path.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Target<'a> {
    /// Group, empty for core.
    pub(crate) group: &'a str,
    /// Version.
    pub(crate) version: &'a str,
    /// Namespace, or empty.
    pub(crate) namespace: &'a str,
    /// Plural.
    pub(crate) resource: &'a str,
    /// Name, or empty for the collection.
    pub(crate) name: &'a str,
    /// Subresource, or empty.
    pub(crate) subresource: &'a str,
    /// `/api/v1/watch/…`: the old form of a watch.
    pub(crate) watch: bool,
}

impl<'a> Route<'a> {
    /// Reads a path.
    pub(crate) fn parse(path: &'a str) -> Self {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        match parts.as_slice() {
            [""] => Self::Root,
            ["api"] => Self::CoreVersions,
            ["apis"] => Self::Groups,
            ["api", version] => Self::Resources { group: "", version },
            ["apis", group] => Self::Group(group),
            ["apis", group, version] => Self::Resources { group, version },
            ["api", version, rest @ ..] => Self::resource("", version, rest),
            ["apis", group, version, rest @ ..] => Self::resource(group, version, rest),
            ["openapi", "v2"] => Self::OpenApiV2,
            ["openapi", "v3"] => Self::OpenApi(""),
            ["openapi", "v3", ..] => Self::OpenApi(path.trim_matches('/').trim_start_matches("openapi/v3/")),
            ["version"] => Self::Version,
            ["healthz" | "livez" | "readyz"] | ["healthz" | "livez" | "readyz", _] => {
                Self::Health(path.trim_matches('/'))
            }
            ["metrics"] => Self::Metrics,
            [".well-known", "openid-configuration"] => Self::OpenIdConfiguration,
            ["openid", "v1", "jwks"] => Self::OpenIdKeys,
            ["v2", ..] => Self::Images,
            _ => Self::Unknown,
        }
    }

    fn resource(group: &'a str, version: &'a str, rest: &[&'a str]) -> Self {
        let (watch, rest) = match rest {
            ["watch", rest @ ..] if !rest.is_empty() => (true, rest),
            rest => (false, rest),
        };
        let base = Target { group, version, watch, ..Target::default() };
        let target = match rest {
            ["namespaces", name, sub @ ("status" | "finalize")] => {
                Target { resource: "namespaces", name, subresource: sub, ..base }
            }
            ["namespaces", namespace, resource] => Target { namespace, resource, ..base },
            ["namespaces", namespace, resource, name] => Target { namespace, resource, name, ..base },
            ["namespaces", namespace, resource, name, subresource] => {
                Target { namespace, resource, name, subresource, ..base }
            }
            [resource] => Target { resource, ..base },
            [resource, name] => Target { resource, name, ..base },
            [resource, name, subresource] => Target { resource, name, subresource, ..base },
            _ => return Self::Unknown,
        };
        if rest.iter().any(|part| part.is_empty()) { Self::Unknown } else { Self::Resource(target) }
    }
}

/// Takes the path of a request apart that is passed on to a pod, a Service or a node: what names it, up to `/proxy`, and the
/// rest, which is for whoever it is passed on to. `path`: as it came, not decoded. `None` for all other requests.
pub(crate) fn passed_on(path: &str) -> Option<(&str, &str)> {
    let parts: Vec<&str> = path.splitn(9, '/').collect();
    let count = match parts.as_slice() {
        ["", "api", "v1", "nodes", _, "proxy", ..] => 6,
        ["", "api", "v1", "namespaces", _, "pods" | "services", _, "proxy", ..] => 8,
        _ => return None,
    };
    let end = parts[..count].iter().map(|part| part.len() + 1).sum::<usize>() - 1;
    Some(path.split_at(end))
}

/// A query string, decoded. The first of several values counts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads `a=b&c=d`.
    pub(crate) fn parse(query: Option<&str>) -> Self {
        let pair = |part: &str| {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            (decode(key), decode(value))
        };
        Self(query.unwrap_or_default().split('&').filter(|p| !p.is_empty()).map(pair).collect())
    }

    /// The same with other names for some parameters: old and new ones.
    pub(crate) fn renamed(&self, names: &[(&str, &str)]) -> Self {
        let other = |key: &str| names.iter().find(|(old, _)| *old == key).map_or(key, |(_, new)| *new).to_owned();
        Self(self.0.iter().map(|(key, value)| (other(key), value.clone())).collect())
    }

    /// The same with another value for a parameter.
    pub(crate) fn with(mut self, key: &str, value: &str) -> Self {
        self.0.retain(|(known, _)| known != key);
        self.0.push((key.to_owned(), value.to_owned()));
        self
    }

    /// A parameter; empty when absent.
    pub(crate) fn get(&self, key: &str) -> &str {
        self.0.iter().find(|(k, _)| k == key).map_or("", |(_, v)| v.as_str())
    }

    /// A parameter, if it is there at all.
    pub(crate) fn find(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// All values of a parameter.
    pub(crate) fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// Whether a parameter is set to a true value, as Go reads one.
    pub(crate) fn flag(&self, key: &str) -> bool {
        self.find(key).is_some_and(|v| !matches!(v, "0" | "f" | "F" | "false" | "FALSE" | "False"))
    }

    /// A whole number, if the parameter is there.
    ///
    /// # Errors
    /// 400 when it is no number.
    pub(crate) fn number(&self, key: &str) -> Result<Option<i64>, podium_api::ApiError> {
        match self.find(key).filter(|v| !v.is_empty()) {
            None => Ok(None),
            Some(text) => text
                .parse()
                .map(Some)
                .map_err(|_| podium_api::ApiError::bad_request(format!("{key}: {text:?} is not a whole number"))),
        }
    }
}

/// A path with `%41` decoded; `+` stands for itself.
pub(crate) fn decode_path(path: &str) -> std::borrow::Cow<'_, str> {
    if path.contains('%') { decode(&path.replace('+', "%2B")).into() } else { path.into() }
}

/// Decodes `%41` and `+`. What is malformed stays as it is.
pub(crate) fn decode(text: &str) -> String {
    if !text.contains(['%', '+']) {
        return text.to_owned();
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let hex = |at: usize| bytes.get(at).and_then(|b| char::from(*b).to_digit(16));
        match (bytes[i], hex(i + 1), hex(i + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(high * 16 + low).unwrap_or_default());
                i += 3;
            }
            (b'+', ..) => {
                out.push(b' ');
                i += 1;
            }
            (byte, ..) => {
                out.push(byte);
                i += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let core = Target { version: "v1", ..Target::default() };
        let apps = Target { group: "apps", version: "v1", ..Target::default() };
        for (path, route) in [
            ("/api", Route::CoreVersions),
            ("/api/", Route::CoreVersions),
            ("/apis", Route::Groups),
            ("/apis/apps", Route::Group("apps")),
            ("/api/v1", Route::Resources { group: "", version: "v1" }),
            ("/apis/apps/v1", Route::Resources { group: "apps", version: "v1" }),
            ("/api/v1/pods", Route::Resource(Target { resource: "pods", ..core })),
            ("/api/v1/nodes/n", Route::Resource(Target { resource: "nodes", name: "n", ..core })),
            (
                "/api/v1/nodes/n/status",
                Route::Resource(Target { resource: "nodes", name: "n", subresource: "status", ..core }),
            ),
            ("/api/v1/namespaces", Route::Resource(Target { resource: "namespaces", ..core })),
            ("/api/v1/namespaces/a", Route::Resource(Target { resource: "namespaces", name: "a", ..core })),
            (
                "/api/v1/namespaces/a/finalize",
                Route::Resource(Target { resource: "namespaces", name: "a", subresource: "finalize", ..core }),
            ),
            ("/api/v1/namespaces/a/pods", Route::Resource(Target { namespace: "a", resource: "pods", ..core })),
            (
                "/api/v1/namespaces/a/pods/p/log",
                Route::Resource(Target { namespace: "a", resource: "pods", name: "p", subresource: "log", ..core }),
            ),
            (
                "/apis/apps/v1/namespaces/a/deployments/d",
                Route::Resource(Target { namespace: "a", resource: "deployments", name: "d", ..apps }),
            ),
            ("/api/v1/watch/pods", Route::Resource(Target { resource: "pods", watch: true, ..core })),
            ("/openapi/v3", Route::OpenApi("")),
            ("/openapi/v3/apis/apps/v1", Route::OpenApi("apis/apps/v1")),
            ("/readyz/etcd", Route::Health("readyz/etcd")),
            ("/", Route::Root),
            ("/openapi/v2", Route::OpenApiV2),
            ("/openapi/v2/x", Route::Unknown),
            ("/api/v1/namespaces//pods", Route::Unknown),
            ("/api/v1/namespaces/a/pods/p/log/x", Route::Unknown),
        ] {
            assert_eq!(Route::parse(path), route, "{path}");
        }
    }

    #[test]
    fn what_is_passed_on() {
        for (path, wanted) in [
            ("/api/v1/nodes/n/proxy", Some("")),
            ("/api/v1/nodes/n/proxy/", Some("/")),
            ("/api/v1/nodes/n:10250/proxy/stats/summary", Some("/stats/summary")),
            ("/api/v1/namespaces/a/pods/p/proxy//x/%2Fy/", Some("//x/%2Fy/")),
            ("/api/v1/namespaces/a/services/https:s:443/proxy/a/b/c/d/e/f/g", Some("/a/b/c/d/e/f/g")),
            ("/api/v1/namespaces/a/pods/p/proxyx", None),
            ("/api/v1/namespaces/a/pods/p/log", None),
            ("/api/v1/namespaces/a/secrets/p/proxy", None),
            ("/api/v1/pods/p/proxy", None),
            ("/apis/v1/nodes/n/proxy", None),
        ] {
            let found = passed_on(path);
            assert_eq!(found.map(|(_, rest)| rest), wanted, "{path}");
            if let Some((own, rest)) = found {
                assert_eq!(format!("{own}{rest}"), path);
                assert!(own.ends_with("/proxy"));
            }
        }
    }

    #[test]
    fn queries() {
        let query = Query::parse(Some("watch=1&labelSelector=a%3Db%2Cc+d&limit=5&force&x=%zz&y=false&n=abc"));
        assert_eq!(query.get("labelSelector"), "a=b,c d");
        assert_eq!(query.get("x"), "%zz");
        assert_eq!(query.number("limit").ok(), Some(Some(5)));
        assert_eq!(query.number("none").ok(), Some(None));
        assert!(query.number("n").is_err());
        let flags = ["watch", "force", "y", "none"].map(|key| query.flag(key));
        assert_eq!(flags, [true, true, false, false]);
    }
}
