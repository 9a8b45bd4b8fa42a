//! What two nodes say to each other beside requests: headers of their own, which no guest ever sees or sets, and the
//! identity of a workload, which guests see and cannot set. Pure.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};

use crate::{Body, CallError};

/// Which pod a request is for.
pub(crate) const TO: HeaderName = HeaderName::from_static("podium-tunnel-to");
/// For which pod or client outside the node speaks: address and port. Without it the node speaks for itself.
pub(crate) const SOURCE: HeaderName = HeaderName::from_static("podium-tunnel-source");
/// That pod's name.
pub(crate) const POD: HeaderName = HeaderName::from_static("podium-tunnel-pod");
/// Why there is no answer of the pod.
pub(crate) const ERROR: HeaderName = HeaderName::from_static("podium-tunnel-error");
/// A question about the pod's port, and its answer.
pub(crate) const SIDE: HeaderName = HeaderName::from_static("podium-tunnel-side");
/// Where to on the node itself, of a CONNECT.
pub(crate) const PATH: HeaderName = HeaderName::from_static("podium-tunnel-path");
/// That the pod is to be spoken to by HTTP/2 with prior knowledge.
pub(crate) const H2: HeaderName = HeaderName::from_static("podium-tunnel-h2");
/// What a CONNECT carries, when it is no bytes.
pub(crate) const PROTOCOL: HeaderName = HeaderName::from_static("podium-tunnel-protocol");
/// A trailer of a connection: what it leads to has broken it off.
pub(crate) const RESET: HeaderName = HeaderName::from_static("podium-tunnel-reset");

const OWN: [HeaderName; 9] = [TO, SOURCE, POD, ERROR, SIDE, PATH, H2, PROTOCOL, RESET];

/// The workload that a request comes from, as pods see it: `spiffe://DOMAIN/ns/NAMESPACE/sa/ACCOUNT`.
pub(crate) const CALLER: HeaderName = HeaderName::from_static("x-podium-caller");

/// Takes away what only nodes say.
pub(crate) fn strip(headers: &mut HeaderMap) {
    for name in &OWN {
        headers.remove(name);
    }
}

/// A workload.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    pub(crate) namespace: Arc<str>,
    pub(crate) service_account: Arc<str>,
    pub(crate) pod: Arc<str>,
    /// `spiffe://…`
    pub(crate) spiffe: HeaderValue,
}

impl Identity {
    /// `None` for names that are none.
    pub(crate) fn new(domain: &str, namespace: &str, service_account: &str, pod: &str) -> Option<Self> {
        if ![namespace, service_account, pod].into_iter().all(is_name) {
            return None;
        }
        let spiffe = HeaderValue::from_str(&format!("spiffe://{domain}/ns/{namespace}/sa/{service_account}")).ok()?;
        Some(Self { namespace: namespace.into(), service_account: service_account.into(), pod: pod.into(), spiffe })
    }

    /// What another node says of a pod of its own.
    pub(crate) fn read(domain: &str, headers: &HeaderMap) -> Option<Self> {
        let spiffe = single(headers, &CALLER)?;
        let rest = spiffe.strip_prefix("spiffe://")?.strip_prefix(domain)?.strip_prefix("/ns/")?;
        let (namespace, account) = rest.split_once("/sa/")?;
        Self::new(domain, namespace, account, single(headers, &POD)?)
    }
}

/// A name of the Kubernetes API: nothing that could be taken for a part of a path.
fn is_name(text: &str) -> bool {
    let fine = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    (1..=253).contains(&text.len()) && text.bytes().all(fine)
}

/// A header that is there once.
pub(crate) fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(first)
}

/// An address as a header.
pub(crate) fn address(at: SocketAddr) -> HeaderValue {
    HeaderValue::from_str(&at.to_string()).expect("invariant: addresses are of printable characters")
}

/// The address in a header.
///
/// # Errors
/// When there is something else.
pub(crate) fn read_address(headers: &HeaderMap, name: &HeaderName) -> Result<Option<SocketAddr>, CallError> {
    if !headers.contains_key(name) {
        return Ok(None);
    }
    let bad = || CallError::Failed(format!("the header {name} is no address"));
    let at: SocketAddr = single(headers, name).and_then(|text| text.parse().ok()).ok_or_else(bad)?;
    let ip: IpAddr = at.ip().to_canonical();
    Ok(Some(SocketAddr::new(ip, at.port())))
}

/// Says why there is no answer of the pod.
pub(crate) fn refusal(error: &CallError) -> Response<Body> {
    let (word, status, why) = match error {
        CallError::NotAccepted(why) => ("not-accepted", StatusCode::SERVICE_UNAVAILABLE, why),
        CallError::Refused(why) => ("refused", StatusCode::SERVICE_UNAVAILABLE, why),
        CallError::Denied(why) => ("denied", StatusCode::FORBIDDEN, why),
        CallError::TimedOut(why) => ("timed-out", StatusCode::GATEWAY_TIMEOUT, why),
        CallError::NameNotFound(why) => ("name-not-found", StatusCode::BAD_GATEWAY, why),
        CallError::Failed(why) => ("failed", StatusCode::BAD_GATEWAY, why),
    };
    let body = Full::new(Bytes::copy_from_slice(why.as_bytes())).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(ERROR, HeaderValue::from_static(word));
    response
}

/// Why there is no answer of the pod, when that is what the node says.
pub(crate) fn read_refusal(word: &HeaderValue, why: String) -> CallError {
    match word.as_bytes() {
        b"not-accepted" => CallError::NotAccepted(why),
        b"refused" => CallError::Refused(why),
        b"denied" => CallError::Denied(why),
        b"timed-out" => CallError::TimedOut(why),
        b"name-not-found" => CallError::NameNotFound(why),
        _ => CallError::Failed(why),
    }
}

/// Whether a head is larger than the other end takes: it would take the whole connection for broken. Counted as HTTP/2
/// does, with room for what nodes add.
pub(crate) fn is_too_large(headers: &HeaderMap, line_bytes: usize, bytes_max: u32) -> bool {
    const ROOM: usize = 4096;
    let fields: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
    fields + line_bytes + ROOM > bytes_max as usize
}

/// Whether a request that ended so was never begun by a pod, so that another may have it.
pub(crate) fn is_unbegun(error: &CallError) -> bool {
    matches!(error, CallError::NotAccepted(_) | CallError::Refused(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn a_workload_is_known_by_what_its_node_says() {
        let web = Identity::new("cluster.local", "shop", "robot", "web-1").unwrap();
        assert_eq!(web.spiffe, "spiffe://cluster.local/ns/shop/sa/robot");
        let said = |caller: &str| headers(&[(CALLER, caller), (POD, "web-1")]);
        assert_eq!(Identity::read("cluster.local", &said("spiffe://cluster.local/ns/shop/sa/robot")), Some(web));
        for bad in [
            "spiffe://other.local/ns/shop/sa/robot",
            "spiffe://cluster.local/ns/shop",
            "spiffe://cluster.local/ns/shop/sa/",
            "spiffe://cluster.local/ns//sa/robot",
            "spiffe://cluster.local/ns/shop/sa/robot/x",
            "spiffe://cluster.local/ns/a/sa/b/ns/shop/sa/robot",
            "https://cluster.local/ns/shop/sa/robot",
        ] {
            assert_eq!(Identity::read("cluster.local", &said(bad)), None, "{bad}");
        }
        let twice = headers(&[(CALLER, "spiffe://cluster.local/ns/shop/sa/robot"), (CALLER, "x"), (POD, "web-1")]);
        assert_eq!(Identity::read("cluster.local", &twice), None);
        assert_eq!(Identity::new("cluster.local", "shop/sa/admin", "x", "y"), None);
    }

    #[test]
    fn addresses_are_read_and_nothing_else_is() {
        let read = |text: &str| read_address(&headers(&[(SOURCE, text)]), &SOURCE);
        assert_eq!(read("10.244.0.7:81"), Ok(Some("10.244.0.7:81".parse().unwrap())));
        assert_eq!(read("[::ffff:10.244.0.7]:81"), Ok(Some("10.244.0.7:81".parse().unwrap())));
        assert_eq!(read_address(&HeaderMap::new(), &SOURCE), Ok(None));
        assert!(read("10.244.0.7").is_err());
        assert!(read_address(&headers(&[(SOURCE, "10.0.0.1:1"), (SOURCE, "10.0.0.1:1")]), &SOURCE).is_err());
    }

    #[test]
    fn refusals_arrive_as_they_were_meant() {
        for error in [
            CallError::NotAccepted("a".into()),
            CallError::Refused("b".into()),
            CallError::Denied("c".into()),
            CallError::TimedOut("d".into()),
            CallError::NameNotFound("e".into()),
            CallError::Failed("f".into()),
        ] {
            let said = refusal(&error);
            let why = match &error {
                CallError::NotAccepted(w) | CallError::Refused(w) | CallError::Denied(w) => w.clone(),
                CallError::TimedOut(w) | CallError::NameNotFound(w) | CallError::Failed(w) => w.clone(),
            };
            assert_eq!(read_refusal(&said.headers()[ERROR], why), error);
        }
    }
}
