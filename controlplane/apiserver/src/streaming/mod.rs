//! Streams between clients and containers: `exec`, `attach` and `portforward`, in all forms that clients of Kubernetes
//! speak. From version 1.31 on they are WebSockets (`channels`; `tunnel` for ports), before it SPDY (`commands`, `ports`).
//!
//! Invariants: whatever a client can make the server hold is bounded; a client that goes ends what it started; an idle
//! connection ends after hours, and all of them when the server stops.

mod activity;
mod channels;
mod commands;
mod options;
mod pipes;
mod ports;
mod session;
mod spdy;
mod tunnel;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use podium_api::ApiError;
use tokio_util::sync::CancellationToken;

pub(crate) use self::{
    activity::{Activity, IDLE_MAX},
    options::{attach, check_host, choose_container, exec},
    ports::Forwarder,
    session::{Prepared, node_error},
};
use crate::http::{
    Permit,
    path::Query,
    respond::{self, Answer},
    websocket::{self, Handshake},
};

const VERSION: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const ACCEPTED: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");

/// A request that wants another protocol.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) headers: &'a HeaderMap,
    pub(crate) upgrade: Option<&'a OnUpgrade>,
}

/// What a stream holds, and what ends it.
pub(crate) struct Life {
    pub(crate) permit: Permit,
    pub(crate) stop: CancellationToken,
}

/// Refuses requests that want no other protocol at all.
///
/// # Errors
/// 400 in Kubernetes' words.
pub(crate) fn check(wanted: Wanted<'_>) -> Result<(), ApiError> {
    if websocket::wanted(wanted.headers) || is_spdy(wanted.headers) {
        return Ok(());
    }
    Err(ApiError::bad_request("Upgrade request required"))
}

fn is_spdy(headers: &HeaderMap) -> bool {
    let has = |name, token: &str| websocket::words(headers, name).any(|word| word.eq_ignore_ascii_case(token));
    has(header::UPGRADE, "SPDY/3.1") && has(header::CONNECTION, "upgrade")
}

/// Takes a connection over for a command.
///
/// # Errors
/// 400 when the client's handshake is not to be understood.
pub(crate) fn command(wanted: Wanted<'_>, prepared: Prepared, life: Life) -> Result<Answer, ApiError> {
    let Life { permit, stop } = life;
    if websocket::wanted(wanted.headers) {
        let handshake = Handshake::read(wanted.headers, wanted.upgrade, channels::PROTOCOLS)?;
        let wire = channels::Wire::of(handshake.protocol());
        return Ok(handshake.open(move |socket| async move {
            let _permit = permit;
            channels::serve(socket, wire, prepared, stop).await;
        }));
    }
    let (protocol, upgrade) = match negotiate(wanted, commands::PROTOCOLS)? {
        Ok(agreed) => agreed,
        Err(refused) => return Ok(refused),
    };
    let answer = websocket::switching("SPDY/3.1", upgrade, move |io| async move {
        let _permit = permit;
        commands::serve(io, protocol, prepared, stop).await;
    });
    Ok(speaking(answer, protocol))
}

/// Takes a connection over for a pod's ports.
///
/// # Errors
/// 400 when the client's handshake or ports are not to be understood.
pub(crate) fn forward(wanted: Wanted<'_>, query: &Query, forwarder: Forwarder, life: Life) -> Result<Answer, ApiError> {
    let Life { permit, stop } = life;
    if websocket::wanted(wanted.headers) {
        let handshake = Handshake::read(wanted.headers, wanted.upgrade, ports::SOCKET_PROTOCOLS)?;
        if handshake.protocol() == Some(ports::TUNNEL) {
            return Ok(handshake.open(move |socket| async move {
                let _permit = permit;
                let (io, carrying) = tunnel::open(socket);
                tokio::join!(carrying, ports::serve(io, forwarder, stop));
            }));
        }
        let (wire, numbers) = (channels::Wire::of(handshake.protocol()), options::ports(query)?);
        if numbers.is_empty() || numbers.len() > ports::PORTS_MAX {
            let message = match numbers.len() {
                0 => "query parameter \"ports\" is required".to_owned(),
                n => format!("{n} ports are too many: at most {} may be asked for at once", ports::PORTS_MAX),
            };
            return Err(ApiError::bad_request(message));
        }
        return Ok(handshake.open(move |socket| async move {
            let _permit = permit;
            ports::serve_channels(socket, wire, forwarder, numbers, stop).await;
        }));
    }
    let (protocol, upgrade) = match negotiate(wanted, ports::PROTOCOLS)? {
        Ok(agreed) => agreed,
        Err(refused) => return Ok(refused),
    };
    let answer = websocket::switching("SPDY/3.1", upgrade, move |io| async move {
        let _permit = permit;
        ports::serve(io, forwarder, stop).await;
    });
    Ok(speaking(answer, protocol))
}

fn speaking(mut answer: Answer, protocol: &'static str) -> Answer {
    answer.headers_mut().insert(VERSION, HeaderValue::from_static(protocol));
    answer
}

/// Chooses the protocol over SPDY: the first of the client's that is known, or the answer that names what is known.
///
/// # Source
/// Kubernetes `staging/src/k8s.io/apimachinery/pkg/util/httpstream/httpstream.go` (`Handshake`).
fn negotiate(
    wanted: Wanted<'_>,
    known: &[&'static str],
) -> Result<Result<(&'static str, OnUpgrade), Answer>, ApiError> {
    let count = wanted.headers.len();
    let missing = || {
        let words = format!(
            "unable to upgrade: header X-Stream-Protocol-Version does not exist in request with {count} headers"
        );
        ApiError::bad_request(words)
    };
    if !wanted.headers.contains_key(VERSION) {
        return Err(missing());
    }
    let offered: Vec<&str> = websocket::words(wanted.headers, VERSION).collect();
    let Some(protocol) = offered.iter().find_map(|word| known.iter().copied().find(|known| known == word)) else {
        let (offered, accepted) = (offered.join(" "), known.join(" "));
        let words = format!(
            "unable to upgrade: unable to negotiate protocol: client supports [{offered}], server accepts [{accepted}]\n"
        );
        let mut answer = respond::text(StatusCode::FORBIDDEN, words);
        for protocol in known {
            answer.headers_mut().append(ACCEPTED, HeaderValue::from_static(protocol));
        }
        return Ok(Err(answer));
    };
    let upgrade = wanted.upgrade.cloned();
    let upgrade = upgrade.ok_or_else(|| ApiError::bad_request("this connection cannot be upgraded: use HTTP/1.1"))?;
    Ok(Ok((protocol, upgrade)))
}
