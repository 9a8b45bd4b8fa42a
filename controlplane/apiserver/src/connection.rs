//! Connections: TLS, HTTP/1.1 and HTTP/2, bounds on time and number, and an end that drains.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http::Request;
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tower_http::compression::{CompressionLayer, Predicate};

use crate::{
    auth::{self, Identity},
    http::{Frontend, Peer},
};

/// Smaller answers are not worth compressing.
const GZIP_BYTES_MIN: u64 = 128 * 1024;
const HTTP2_STREAMS_MAX: u32 = 250;
const HTTP2_WINDOW_BYTES: u32 = 1024 * 1024;
const HTTP2_PING_EVERY: Duration = Duration::from_secs(30);
/// Pause after the system refuses to accept (out of file descriptors, for example).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until the frontend is stopped, then drains.
pub(crate) async fn listen(listener: TcpListener, tls: Arc<rustls::ServerConfig>, frontend: Arc<Frontend>) {
    let acceptor = TlsAcceptor::from(tls);
    let room = Arc::new(Semaphore::new(frontend.limits.connections_max));
    let graceful = GracefulShutdown::new();
    let stop = frontend.stop.clone();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accept(&listener, &room) => accepted,
        };
        let Some((stream, permit)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (acceptor, frontend, watcher) = (acceptor.clone(), frontend.clone(), graceful.watcher());
        tokio::spawn(async move {
            let _permit = permit;
            serve(stream, acceptor, frontend, watcher).await;
        });
    }
    drop(listener);
    if tokio::time::timeout(frontend.drained_after(), graceful.shutdown()).await.is_err() {
        tracing::warn!("some connections did not drain in time and are cut");
    }
}

async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = room.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, permit)),
        Err(error) => {
            tracing::warn!(%error, "cannot accept a connection");
            None
        }
    }
}

async fn serve(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    frontend: Arc<Frontend>,
    watcher: hyper_util::server::graceful::Watcher,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let timeout = frontend.limits.read_timeout;
    let address = stream.peer_addr().ok().map(|a| a.ip());
    let stream = match tokio::time::timeout(timeout, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => return tracing::debug!("a TLS handshake took too long"),
    };
    let peer = Peer { identity: identity(&stream).map(Arc::new), address };
    let answer = tower::service_fn(move |request: Request<Incoming>| {
        let (frontend, peer) = (frontend.clone(), peer.clone());
        async move { Ok::<_, Infallible>(frontend.answer(request, peer).await) }
    });
    let service = tower::ServiceBuilder::new()
        .layer(
            CompressionLayer::new()
                .gzip(true)
                .quality(tower_http::CompressionLevel::Fastest)
                .compress_when(LargeAndWhole),
        )
        .service(answer);
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(timeout);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(HTTP2_STREAMS_MAX)
        .initial_stream_window_size(HTTP2_WINDOW_BYTES)
        .initial_connection_window_size(HTTP2_WINDOW_BYTES)
        .keep_alive_interval(HTTP2_PING_EVERY);
    let connection =
        builder.serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(service)).into_owned();
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// Who the client's certificate, which rustls has verified, says it is.
fn identity(stream: &TlsStream<TcpStream>) -> Option<Identity> {
    let certificates = stream.get_ref().1.peer_certificates()?;
    auth::certificate_identity(certificates.first()?)
}

/// Compresses large answers of known size: never a stream, whose events must not wait in a compressor.
#[derive(Clone, Copy)]
struct LargeAndWhole;

impl Predicate for LargeAndWhole {
    fn should_compress<B: http_body::Body>(&self, response: &http::Response<B>) -> bool {
        response.body().size_hint().exact().is_some_and(|bytes| bytes > GZIP_BYTES_MIN)
    }
}
