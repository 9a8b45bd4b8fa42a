//! Requests of clients outside that want another protocol, a WebSocket most of all, from pods that listen themselves: the
//! pod's answer goes back, and what is spoken then is carried.
//!
//! A request is sent once, over a connection of its own, which counts as the pod's load for as long as it stands.

use std::{sync::Arc, time::Instant};

use http::{HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::{client::conn::http1, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;

use crate::{
    Body, CallError, Network, SocketError,
    extended::Carried,
    http_client::{PATIENCE, answer, chain, relative, strip_hop},
    policy::Source,
    services::Port,
    splice::carry,
    stream::PodStream,
    table::Name,
};

/// Whether a client wants another protocol, and speaks one in which it can have it.
pub(crate) fn is_wanted(request: &Request<Body>) -> bool {
    request.extensions().get::<OnUpgrade>().is_some() && wanted(request.headers()).is_some()
}

/// Which one.
fn wanted(headers: &http::HeaderMap) -> Option<HeaderValue> {
    let values = headers.get_all(header::CONNECTION).into_iter().filter_map(|value| value.to_str().ok());
    let mut words = values.flat_map(|value| value.split(','));
    words.any(|word| word.trim().eq_ignore_ascii_case("upgrade")).then(|| headers.get(header::UPGRADE).cloned())?
}

/// Sends the request to one of a Service's pods, and carries what is spoken if that takes it.
///
/// # Errors
/// When no pod answered.
pub(crate) async fn pass_on(
    network: &Network,
    port: Arc<Port>,
    from: Source,
    request: Request<Body>,
) -> Result<Response<Body>, CallError> {
    let since = Instant::now();
    let (shared, service) = (port.shared.clone(), port.service.clone());
    let visit = network.visit_service(port, from, network.node_side(), ());
    let answer = pass_on_over(network, service, visit, request).await;
    shared.metrics().answered(answer.as_ref().ok().map(Response::status), since.elapsed().as_secs_f64());
    answer
}

/// The same over a connection to whoever it is.
///
/// # Errors
/// When there is no connection, or nobody answered.
pub(crate) async fn pass_on_over(
    network: &Network,
    service: Name,
    connect: impl Future<Output = Result<PodStream, SocketError>>,
    mut request: Request<Body>,
) -> Result<Response<Body>, CallError> {
    let failed = |error: &hyper::Error| CallError::Failed(format!("service {service}: {}", chain(error)));
    let client = request.extensions_mut().remove::<OnUpgrade>();
    let carried = request.extensions_mut().remove::<Carried>();
    let protocol = wanted(request.headers());
    strip_hop(request.headers_mut());
    let (mut sender, connection) = http1::handshake(TokioIo::new(connect.await?)).await.map_err(|e| failed(&e))?;
    // It ends with its connection.
    tokio::spawn(connection.with_upgrades());
    upgrading(request.headers_mut(), protocol.as_ref());
    let sent = tokio::time::timeout(PATIENCE, sender.send_request(relative(request))).await;
    let sent = sent.map_err(|_| CallError::TimedOut(format!("service {service}: no response within {PATIENCE:?}")))?;
    let mut response = sent.map_err(|e| failed(&e))?;
    let Some(client) = client.filter(|_| response.status() == StatusCode::SWITCHING_PROTOCOLS) else {
        return Ok(answer(response, PATIENCE));
    };
    let pod = hyper::upgrade::on(&mut response);
    let mut switching = Response::new(Empty::new().map_err(|never| match never {}).boxed_unsync());
    *switching.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let protocol = response.headers().get(header::UPGRADE).cloned().or(protocol);
    *switching.headers_mut() = std::mem::take(response.headers_mut());
    strip_hop(switching.headers_mut());
    upgrading(switching.headers_mut(), protocol.as_ref());
    let carrying = network.clone();
    network.inner().tasks.spawn(async move {
        let ended = match tokio::try_join!(client, pod) {
            Ok((client, pod)) => carry(&carrying, TokioIo::new(client), &mut TokioIo::new(pod)).await,
            Err(error) => return tracing::debug!(%service, %error, "a connection was not upgraded"),
        };
        if let Err(error) = ended {
            tracing::debug!(%service, %error, "an upgraded connection ended early");
        }
        drop(carried);
    });
    Ok(switching)
}

fn upgrading(headers: &mut http::HeaderMap, protocol: Option<&HeaderValue>) {
    const UPGRADE: (HeaderName, HeaderValue) = (header::CONNECTION, HeaderValue::from_static("Upgrade"));
    if let Some(protocol) = protocol {
        headers.insert(UPGRADE.0, UPGRADE.1);
        headers.insert(header::UPGRADE, protocol.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted() {
        for (connection, upgrade, is) in [
            (Some("Upgrade"), Some("websocket"), true),
            (Some("keep-alive, UPGRADE"), Some("h2c"), true),
            (Some("keep-alive"), Some("websocket"), false),
            (Some("upgrade"), None, false),
            (None, Some("websocket"), false),
        ] {
            let mut headers = http::HeaderMap::new();
            for (name, value) in [(header::CONNECTION, connection), (header::UPGRADE, upgrade)] {
                if let Some(value) = value {
                    headers.insert(name, HeaderValue::from_static(value));
                }
            }
            assert_eq!(wanted(&headers).is_some(), is, "{connection:?} {upgrade:?}");
        }
    }
}
