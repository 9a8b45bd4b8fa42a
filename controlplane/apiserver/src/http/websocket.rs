//! WebSockets: the handshake over an HTTP/1.1 request, and streams of messages to a client.
//!
//! Invariants: a message that the client does not take in time cuts it off; what clients send is bounded; pings are
//! answered and the end is announced with a close frame. Knows nothing of what is said.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apiserver/pkg/util/httpstream/wsstream/wsstream.go`.

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _, stream::BoxStream};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use podium_api::ApiError;
pub(crate) use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        handshake::derive_accept_key,
        protocol::{Role, WebSocketConfig},
    },
};

use super::{
    body::Body,
    respond::{self, Answer},
};

/// The largest message that a client may send.
const MESSAGE_BYTES_MAX: usize = 1024 * 1024;

/// A WebSocket over the connection of a request.
pub(crate) type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Whether a client asks for a WebSocket.
pub(crate) fn wanted(headers: &HeaderMap) -> bool {
    let has = |name, token: &str| words(headers, name).any(|word| word.eq_ignore_ascii_case(token));
    has(header::UPGRADE, "websocket") && has(header::CONNECTION, "upgrade")
}

/// The words of a header, which may stand more than once.
pub(crate) fn words(headers: &HeaderMap, name: header::HeaderName) -> impl Iterator<Item = &str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|word| !word.is_empty())
}

/// A request for a WebSocket that will be granted.
#[derive(Debug)]
pub(crate) struct Handshake {
    upgrade: OnUpgrade,
    accept: HeaderValue,
    protocol: Option<&'static str>,
}

impl Handshake {
    /// Reads the request. `protocols`: the subprotocols that are spoken; of what the client offers, the first that
    /// is known is chosen. A client may offer none.
    ///
    /// # Errors
    /// 400 for a handshake that is incomplete, of another version, or of unknown subprotocols only.
    pub(crate) fn read(
        headers: &HeaderMap,
        upgrade: Option<&OnUpgrade>,
        protocols: &[&'static str],
    ) -> Result<Self, ApiError> {
        let bad = |what: &str| ApiError::bad_request(format!("websocket handshake: {what}"));
        if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
            return Err(bad("only version 13 is spoken (Sec-WebSocket-Version)"));
        }
        let key = headers.get(header::SEC_WEBSOCKET_KEY).ok_or_else(|| bad("there is no Sec-WebSocket-Key"))?;
        let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes())).map_err(|e| bad(&e.to_string()))?;
        let protocol = choose(headers, protocols)?;
        let upgrade = upgrade.cloned().ok_or_else(|| bad("this connection cannot be upgraded: use HTTP/1.1"))?;
        Ok(Self { upgrade, accept, protocol })
    }

    /// The subprotocol that was chosen.
    pub(crate) fn protocol(&self) -> Option<&'static str> {
        self.protocol
    }

    /// Answers the request and runs `work` on the socket once the client has the answer.
    pub(crate) fn open<F, W>(self, work: W) -> Answer
    where
        F: Future<Output = ()> + Send + 'static,
        W: FnOnce(Socket) -> F + Send + 'static,
    {
        let mut answer = switching("websocket", self.upgrade, |io| async move {
            let config = WebSocketConfig::default()
                .max_message_size(Some(MESSAGE_BYTES_MAX))
                .max_frame_size(Some(MESSAGE_BYTES_MAX));
            work(WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await).await;
        });
        let headers = answer.headers_mut();
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, self.accept);
        if let Some(protocol) = self.protocol {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
        }
        answer
    }

    /// Sends messages to a client that only listens, then closes.
    pub(crate) fn send_all(self, messages: BoxStream<'static, Message>, write_timeout: Duration) -> Answer {
        self.open(move |socket| send_all(socket, messages, write_timeout))
    }
}

/// Kept until what is spoken on an upgraded connection has ended; an extension of the answer that upgrades it.
#[derive(Clone, Default)]
pub(crate) struct Held(pub(crate) Arc<Mutex<Option<Box<dyn Send>>>>);

/// The answer that makes another protocol of a connection, and `work` on it once the client has the answer.
pub(crate) fn switching<F, W>(protocol: &'static str, upgrade: OnUpgrade, work: W) -> Answer
where
    F: Future<Output = ()> + Send + 'static,
    W: FnOnce(TokioIo<Upgraded>) -> F + Send + 'static,
{
    let mut answer = respond::with_body(StatusCode::SWITCHING_PROTOCOLS, "application/json", Body::Full(Bytes::new()));
    let headers = answer.headers_mut();
    headers.remove(header::CONTENT_TYPE);
    headers.insert(header::UPGRADE, HeaderValue::from_static(protocol));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    let held = Held::default();
    answer.extensions_mut().insert(held.clone());
    tokio::spawn(async move {
        match upgrade.await {
            Ok(connection) => work(TokioIo::new(connection)).await,
            Err(error) => tracing::debug!(%error, "a connection was not upgraded"),
        }
        drop(held);
    });
    answer
}

/// The first of the client's subprotocols that is known.
fn choose(headers: &HeaderMap, protocols: &[&'static str]) -> Result<Option<&'static str>, ApiError> {
    let offered: Vec<&str> = words(headers, header::SEC_WEBSOCKET_PROTOCOL).collect();
    let known = offered.iter().find_map(|word| protocols.iter().copied().find(|known| known == word));
    if known.is_none() && !offered.is_empty() {
        return Err(ApiError::bad_request(format!(
            "requested protocol(s) are not supported: {offered:?}; supports {protocols:?}"
        )));
    }
    Ok(known)
}

async fn send_all(mut socket: Socket, mut messages: BoxStream<'static, Message>, write_timeout: Duration) {
    loop {
        tokio::select! {
            message = messages.next() => {
                let Some(message) = message else { break };
                match tokio::time::timeout(write_timeout, socket.send(message)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => return tracing::debug!(%error, "a WebSocket ended early"),
                    Err(_) => return tracing::debug!("a WebSocket's client does not read and is cut off"),
                }
            }
            // Reading also answers pings; what the client says is of no interest.
            received = socket.next() => match received {
                Some(Ok(Message::Close(_))) => break,
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return,
            },
        }
    }
    drop(messages);
    let goodbye = async {
        // The client may be gone already, which is as good as a goodbye.
        let _closed = socket.close(None).await;
        while let Some(Ok(_)) = socket.next().await {}
    };
    let _ended = tokio::time::timeout(write_timeout, goodbye).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handshakes() {
        let known: &[&'static str] = &["base64.binary.k8s.io", "binary.k8s.io"];
        for (offered, wanted) in [
            (&[][..], Ok(None)),
            (&["binary.k8s.io"], Ok(Some("binary.k8s.io"))),
            (&["other, base64.binary.k8s.io"], Ok(Some("base64.binary.k8s.io"))),
            (&["binary.k8s.io", "base64.binary.k8s.io"], Ok(Some("binary.k8s.io"))),
            (&["other"], Err(())),
        ] {
            let mut headers = HeaderMap::new();
            for value in offered {
                headers.append(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(value));
            }
            assert_eq!(choose(&headers, known).map_err(|_| ()), wanted, "{offered:?}");
        }
        for (upgrade, connection, is) in [
            ("websocket", "Upgrade", true),
            ("WebSocket", "keep-alive, upgrade", true),
            ("websocket", "keep-alive", false),
            ("h2c", "Upgrade", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::UPGRADE, HeaderValue::from_static(upgrade));
            headers.insert(header::CONNECTION, HeaderValue::from_static(connection));
            assert_eq!(wanted(&headers), is, "{upgrade} {connection}");
        }
    }
}
