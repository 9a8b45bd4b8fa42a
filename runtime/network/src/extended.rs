//! WebSockets over HTTP/2: a client's extended `CONNECT` becomes the upgrade of HTTP/1.1 that pods know, and what they say to
//! that becomes the answer of the stream.
//!
//! A `CONNECT` without a protocol asks for a proxy, which nobody here is; other protocols than WebSocket are not spoken.
//!
//! # Source
//! RFC 8441: which headers there are not in HTTP/2, and what answers a protocol that is not known (501).

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::ext::Protocol;

use crate::{Body, idle::UnderWay, proxy};

const UPGRADE: HeaderValue = HeaderValue::from_static("Upgrade");
const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
/// Headers of the handshake that are about one connection of HTTP/1.1.
const OF_HTTP1: [HeaderName; 3] = [header::CONNECTION, header::UPGRADE, header::SEC_WEBSOCKET_ACCEPT];

/// What a request is, beside what its method says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// That.
    Plain,
    /// A WebSocket; the request has become one of HTTP/1.1 that asks for it.
    WebSocket,
}

/// What a client hears that asks for something that is not done.
type Refusal = (StatusCode, &'static str);

/// Looks at a request, and makes of one for a WebSocket over HTTP/2 what it is over HTTP/1.1.
pub(crate) fn translate<B>(request: &mut Request<B>) -> Result<Asked, Refusal> {
    if request.method() != Method::CONNECT {
        return Ok(Asked::Plain);
    }
    match request.extensions_mut().remove::<Protocol>() {
        None => Err((StatusCode::METHOD_NOT_ALLOWED, "Nobody is connected to from here: this is no proxy.\n")),
        Some(protocol) if protocol.as_str() != "websocket" => {
            Err((StatusCode::NOT_IMPLEMENTED, "This protocol is not spoken here.\n"))
        }
        Some(_) => {
            *request.method_mut() = Method::GET;
            ask(request.headers_mut());
            Ok(Asked::WebSocket)
        }
    }
}

/// What a request of HTTP/1.1 says that asks for a WebSocket.
fn ask(headers: &mut HeaderMap) {
    headers.insert(header::CONNECTION, UPGRADE);
    headers.insert(header::UPGRADE, WEBSOCKET);
    // The pod is another server for each request: no client of HTTP/2 has a key.
    let key = STANDARD.encode(rand::random::<[u8; 16]>());
    if let Ok(key) = HeaderValue::from_str(&key) {
        headers.insert(header::SEC_WEBSOCKET_KEY, key);
    }
}

/// The answer to a request for a WebSocket, as the stream's. Success means that it is one: nothing else may say so.
pub(crate) fn answered(mut answer: Response<Body>) -> Response<Body> {
    if answer.status().is_success() {
        return proxy::text(StatusCode::BAD_GATEWAY, "The service did not take this as a WebSocket.\n");
    }
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        *answer.status_mut() = StatusCode::OK;
        for name in OF_HTTP1 {
            answer.headers_mut().remove(name);
        }
    }
    answer
}

/// Held by whoever carries what is spoken over a stream: as long as that lasts, its connection is not idle.
#[derive(Clone)]
pub(crate) struct Carried {
    _under_way: Arc<UnderWay>,
}

impl Carried {
    pub(crate) fn new(under_way: UnderWay) -> Self {
        Self { _under_way: Arc::new(under_way) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connect(protocol: Option<&'static str>) -> Request<()> {
        let mut request = Request::connect("https://a.test/chat?x=1").header("sec-websocket-version", "13");
        if let Some(protocol) = protocol {
            request = request.extension(Protocol::from_static(protocol));
        }
        request.body(()).unwrap()
    }

    #[test]
    fn a_websocket_is_asked_for_as_pods_know_it() {
        let mut request = connect(Some("websocket"));
        assert_eq!(translate(&mut request), Ok(Asked::WebSocket));
        let header = |name: &str| request.headers().get(name).map_or("", |value| value.to_str().unwrap());
        let shown = (request.method().as_str(), request.uri().path(), header("upgrade"), header("connection"));
        assert_eq!(shown, ("GET", "/chat", "websocket", "Upgrade"));
        assert_eq!(header("sec-websocket-version"), "13");
        assert_eq!(STANDARD.decode(header("sec-websocket-key")).unwrap().len(), 16);
        for (protocol, status) in [(None, 405), (Some("webtransport"), 501)] {
            let refused = translate(&mut connect(protocol)).map_err(|(status, _)| status.as_u16());
            assert_eq!(refused, Err(status), "{protocol:?}");
        }
        assert_eq!(translate(&mut Request::get("/").body(()).unwrap()), Ok(Asked::Plain));
    }

    #[test]
    fn only_a_switch_is_success() {
        for (said, heard) in [(101, 200), (200, 502), (204, 502), (302, 302), (404, 404), (503, 503)] {
            let mut answer = proxy::text(StatusCode::from_u16(said).unwrap(), "");
            for name in ["connection", "upgrade", "sec-websocket-accept", "sec-websocket-protocol"] {
                answer.headers_mut().insert(name, HeaderValue::from_static("x"));
            }
            let answer = answered(answer);
            assert_eq!(answer.status(), heard, "{said}");
            if said == 101 {
                let left: Vec<_> = answer.headers().keys().map(HeaderName::as_str).collect();
                assert_eq!(left, ["content-type", "sec-websocket-protocol"]);
            }
        }
    }
}
