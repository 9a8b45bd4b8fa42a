//! What a pod is told of who asked: `x-forwarded-for`, `-proto`, `-host`, `-port`.
//!
//! What a client claims of this is taken away, and so are the other headers in which such claims are made; only what a trusted
//! proxy says is kept and added to. Pure.

use std::net::IpAddr;

use http::{HeaderMap, HeaderName, HeaderValue, Request, header};

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const CLAIMS: [HeaderName; 8] = [
    FOR,
    PROTO,
    HOST,
    PORT,
    HeaderName::from_static("x-forwarded-prefix"),
    HeaderName::from_static("x-forwarded-client-cert"),
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static("forwarded"),
];

/// How a request came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Came<'a> {
    /// The other end of the connection.
    pub(crate) peer: IpAddr,
    /// Whether that is a proxy whose word counts.
    pub(crate) trusted: bool,
    /// `http` or `https`.
    pub(crate) scheme: &'static str,
    /// As the client names it, with its port.
    pub(crate) host: &'a str,
    /// Where it was received.
    pub(crate) port: u16,
}

/// Says who asked and how.
pub(crate) fn say(headers: &mut HeaderMap, came: Came<'_>) {
    let before = if came.trusted { before(headers) } else { String::new() };
    if !came.trusted {
        CLAIMS.iter().for_each(|claim| drop(headers.remove(claim)));
    }
    let mut set = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    set(FOR, &format!("{before}{}", came.peer));
    let mut default = |name: HeaderName, value: &str| {
        if !headers.contains_key(&name)
            && !value.is_empty()
            && let Ok(value) = HeaderValue::from_str(value)
        {
            headers.insert(name, value);
        }
    };
    default(PROTO, came.scheme);
    default(HOST, came.host);
    default(PORT, &came.port.to_string());
}

/// Makes one of what a request says twice: the host of its target is its `Host`. And takes away what is for this hop alone,
/// so that no client has a header removed that is set here.
pub(crate) fn settle<B>(request: &mut Request<B>) {
    let host = request.uri().authority().map(|a| a.as_str().rsplit('@').next().unwrap_or_default().to_owned());
    let headers = request.headers_mut();
    if let Some(Ok(host)) = host.map(|host| HeaderValue::from_str(&host)) {
        headers.insert(header::HOST, host);
    }
    let words: Vec<String> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|word| word.trim().to_ascii_lowercase())
        .collect();
    if words.is_empty() {
        return;
    }
    let (kept, named): (Vec<_>, Vec<_>) =
        words.into_iter().partition(|word| matches!(word.as_str(), "upgrade" | "keep-alive" | "close"));
    for name in named.iter().filter(|name| *name != "host") {
        headers.remove(name);
    }
    headers.remove(header::CONNECTION);
    if let Ok(kept) = HeaderValue::from_str(&kept.join(", "))
        && !kept.is_empty()
    {
        headers.insert(header::CONNECTION, kept);
    }
}

/// Those that a proxy names, to be added to.
fn before(headers: &HeaderMap) -> String {
    let all =
        headers.get_all(FOR).iter().filter_map(|value| value.to_str().ok()).filter(|text| !text.trim().is_empty());
    all.map(|text| format!("{}, ", text.trim())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_has_a_header_removed_and_there_is_one_host() {
        let settled = |uri: &str, before: &[(&str, &str)]| {
            let mut request = Request::get(uri);
            for (name, value) in before {
                request = request.header(*name, *value);
            }
            let mut request = request.body(()).unwrap();
            settle(&mut request);
            let get = |name: &str| request.headers().get(name).map_or("", |v| v.to_str().unwrap()).to_owned();
            ["host", "connection", "x-hop"].map(get)
        };
        let check = |uri, before: &[(&str, &str)], expected: [&str; 3]| assert_eq!(settled(uri, before), expected);
        check("/", &[("host", "a"), ("x-hop", "1")], ["a", "", "1"]);
        check("/", &[("host", "a"), ("x-hop", "1"), ("connection", "X-Hop, close")], ["a", "close", ""]);
        check("/", &[("host", "a"), ("connection", "host, x-forwarded-for")], ["a", "", ""]);
        check("/", &[("host", "a"), ("connection", "keep-alive, Upgrade")], ["a", "keep-alive, upgrade", ""]);
        check("http://u@b:80/", &[("host", "a")], ["b:80", "", ""]);
        check("http://b/", &[], ["b", "", ""]);
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let check = |trusted, before: &[(&'static str, &'static str)], expected: [&str; 5]| {
            let mut headers = HeaderMap::new();
            for (name, value) in before {
                headers.append(*name, HeaderValue::from_static(value));
            }
            let peer = IpAddr::from([10, 0, 0, 9]);
            say(&mut headers, Came { peer, trusted, scheme: "https", host: "a.test:8443", port: 8443 });
            let get = |name: &str| headers.get(name).map_or("", |value| value.to_str().unwrap());
            let names = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port", "forwarded"];
            assert_eq!(names.map(get), expected, "{before:?}");
            assert_eq!(headers.get_all("x-forwarded-for").iter().count(), 1);
        };
        let claims = [
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-for", "2.2.2.2, 3.3.3.3"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "evil.test"),
            ("forwarded", "for=4.4.4.4"),
        ];
        let own = ["10.0.0.9", "https", "a.test:8443", "8443", ""];
        check(false, &[], own);
        check(true, &[], own);
        check(false, &claims, own);
        let kept = ["1.1.1.1, 2.2.2.2, 3.3.3.3, 10.0.0.9", "http", "evil.test", "8443", "for=4.4.4.4"];
        check(true, &claims, kept);
        check(true, &[("x-forwarded-for", " ")], own);
    }
}
