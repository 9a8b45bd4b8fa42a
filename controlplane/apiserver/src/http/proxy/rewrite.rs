//! What of a request and of its answer changes on the way: paths, headers, links.
//!
//! Whoever is behind the proxy knows nothing of the path that it is reached at: links and redirects to its own root are put
//! below that path. Credentials of the client stay here.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apimachinery/pkg/util/proxy/{transport,upgradeaware}.go`; Go's `httputil.ReverseProxy`.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::http::{path, websocket};

/// What is of one connection only.
const HOP: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];
/// What a pod may say to other origins is not for it to say of this one.
const CORS: [HeaderName; 4] = [
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_ALLOW_HEADERS,
    header::ACCESS_CONTROL_ALLOW_METHODS,
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
];
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
/// A token in a subprotocol of a WebSocket.
const TOKEN_PROTOCOL: &str = "base64url.bearer.authorization.k8s.io.";

/// The path that is asked of whoever is behind: without empty parts, `.` and `..`. Empty only when nothing was asked.
pub(super) fn clean(rest: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in rest.split('/') {
        match &*path::decode_path(part) {
            "" | "." => {}
            ".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    let mut clean: String = parts.iter().flat_map(|part| ["/", part]).collect();
    if rest.ends_with('/') || (clean.is_empty() && !rest.is_empty()) {
        clean.push('/');
    }
    clean
}

/// The headers that go along. `uri`: the path that the client asked for; `upgrade`: whether another protocol is wanted.
pub(super) fn outgoing(headers: &HeaderMap, client: Option<IpAddr>, uri: &str, upgrade: bool) -> HeaderMap {
    let mut out = headers.clone();
    let trailers = websocket::words(headers, header::TE).any(|word| word.eq_ignore_ascii_case("trailers"));
    let wanted = headers.get(header::UPGRADE).cloned();
    strip(&mut out);
    if trailers {
        out.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    if upgrade && let Some(wanted) = wanted {
        out.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        out.insert(header::UPGRADE, wanted);
    }
    let names: Vec<HeaderName> = out.keys().filter(|name| is_ours(name)).cloned().collect();
    names.iter().for_each(|name| drop(out.remove(name)));
    without_token(&mut out);
    if let Some(client) = client {
        let before = headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok());
        let all: Vec<String> = before.map(str::to_owned).chain([client.to_canonical().to_string()]).collect();
        put(&mut out, FORWARDED_FOR, &all.join(", "));
    }
    put(&mut out, FORWARDED_URI, uri);
    out
}

fn put(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// Whether a header says who the client is to this server, which is nobody else's business.
fn is_ours(name: &HeaderName) -> bool {
    name == header::AUTHORIZATION || name.as_str().starts_with("impersonate-") || name.as_str().starts_with("x-remote-")
}

fn without_token(headers: &mut HeaderMap) {
    let all: Vec<String> = websocket::words(headers, header::SEC_WEBSOCKET_PROTOCOL).map(str::to_owned).collect();
    let kept: Vec<&str> = all.iter().map(String::as_str).filter(|word| !word.starts_with(TOKEN_PROTOCOL)).collect();
    if kept.len() < all.len() {
        headers.remove(header::SEC_WEBSOCKET_PROTOCOL);
        if !kept.is_empty() {
            put(headers, header::SEC_WEBSOCKET_PROTOCOL, &kept.join(", "));
        }
    }
}

/// Takes away what the client is not to see of an answer.
pub(super) fn incoming(headers: &mut HeaderMap) {
    strip(headers);
    CORS.iter().for_each(|name| drop(headers.remove(name)));
    // What one client may see, another may not.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-cache, private"));
}

fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> =
        websocket::words(headers, header::CONNECTION).filter_map(|name| name.parse().ok()).collect();
    HOP.iter().chain(&named).for_each(|name| drop(headers.remove(name)));
}

/// How links in an answer are to be read.
#[derive(Debug, Clone)]
pub(super) struct Links {
    /// The path that stands for the root of whoever is behind, without a slash at its end.
    pub(super) prefix: String,
    /// Whoever is behind, as host and port.
    pub(super) host: String,
    /// The host that the client asked for.
    pub(super) asked: String,
}

impl Links {
    /// The link that leads to the same through the proxy; `None` when it does already, or leads elsewhere.
    pub(super) fn through(&self, link: &str) -> Option<String> {
        let (host, at) = host_and_path(link);
        let (head, path) = link.split_at(at);
        if !path.starts_with('/') || !(host.is_empty() || host == self.host || host == self.asked) {
            return None;
        }
        // Clients come back the way they came.
        let head = if !host.is_empty() && host == self.asked { head } else { "" };
        if path.starts_with(&self.prefix) {
            return (head.len() < at).then(|| format!("{head}{path}"));
        }
        Some(format!("{head}{}{path}", self.prefix))
    }
}

/// The host and port in a link, empty where there are none, and where its path begins.
fn host_and_path(link: &str) -> (&str, usize) {
    let scheme = link.find(':').filter(|at| {
        let mut bytes = link.as_bytes()[..*at].iter();
        bytes.next().is_some_and(u8::is_ascii_alphabetic)
            && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
    });
    let begin = scheme.map_or(0, |at| at + 1);
    let Some(rest) = link[begin..].strip_prefix("//") else { return ("", begin) };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let authority = &rest[..end];
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    (host, begin + 2 + end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned() {
        for (rest, wanted) in [
            ("", ""),
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a/b/", "/a/b/"),
            ("//a//b", "/a/b"),
            ("/a/./b/../c", "/a/c"),
            ("/../../x", "/x"),
            ("/a/%2e%2E/b", "/b"),
            ("/a%2Fb/%20", "/a%2Fb/%20"),
            ("/..", "/"),
        ] {
            assert_eq!(clean(rest), wanted, "{rest}");
        }
    }

    #[test]
    fn links_lead_through_the_proxy() {
        const PREFIX: &str = "/api/v1/namespaces/a/services/b/proxy";
        let links =
            Links { prefix: PREFIX.to_owned(), host: "10.0.0.1:80".to_owned(), asked: "localhost:8001".to_owned() };
        let below = |path: &str| Some(format!("{PREFIX}{path}"));
        for (link, wanted) in [
            ("/rewriteme", below("/rewriteme")),
            ("/", below("/")),
            ("/a/?q=/b#c", below("/a/?q=/b#c")),
            ("http://10.0.0.1:80/a", below("/a")),
            ("//10.0.0.1:80/a", below("/a")),
            ("http://localhost:8001/a", Some(format!("http://localhost:8001{PREFIX}/a"))),
            ("http://user@10.0.0.1:80/a", below("/a")),
            ("http://example.com/a", None),
            ("//example.com/a", None),
            ("relative/a", None),
            ("?q=/a", None),
            ("#a", None),
            ("mailto:a@b.c", None),
            ("javascript:/x/", below("/x/")),
            ("http://10.0.0.1:80", None),
            ("", None),
            (&format!("{PREFIX}/a"), None),
            (&format!("http://10.0.0.1:80{PREFIX}/a"), below("/a")),
        ] {
            assert_eq!(links.through(link), wanted, "{link}");
        }
    }

    #[test]
    fn credentials_stay_here() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Bearer secret"),
            ("impersonate-user", "root"),
            ("x-remote-user", "root"),
            ("accept", "text/html"),
            ("connection", "keep-alive, x-mine, Upgrade"),
            ("x-mine", "1"),
            ("upgrade", "websocket"),
            ("te", "trailers, deflate"),
            ("x-forwarded-for", "10.0.0.9"),
            ("x-forwarded-uri", "/forged"),
            ("sec-websocket-protocol", "chat, base64url.bearer.authorization.k8s.io.c2VjcmV0"),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let shown = |upgrade| {
            let out = outgoing(&headers, "::ffff:192.0.2.1".parse().ok(), "/api/x/", upgrade);
            let mut all: Vec<String> = out.iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
            all.sort();
            all
        };
        let plain = [
            "accept: text/html",
            "sec-websocket-protocol: chat",
            "te: trailers",
            "x-forwarded-for: 10.0.0.9, 192.0.2.1",
            "x-forwarded-uri: /api/x/",
        ];
        assert_eq!(shown(false), plain);
        let upgraded: Vec<_> = ["connection: Upgrade", "upgrade: websocket"].into_iter().chain(plain).collect();
        let mut upgraded: Vec<String> = upgraded.into_iter().map(str::to_owned).collect();
        upgraded.sort();
        assert_eq!(shown(true), upgraded);
    }
}
