//! Connections: TLS, HTTP/1.1 and HTTP/2, bounds on time and number, and an end that drains.
//!
//! Invariants: whoever makes no progress, in the handshake, in the head of a request or in taking an answer, is cut off;
//! nothing is left of a connection when [`listen`] has returned.

use std::{convert::Infallible, sync::Arc, time::Duration};

use futures::FutureExt as _;
use http::{Request, Response};
use hyper::{
    body::Incoming,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tower_http::compression::{CompressionBody, CompressionLayer, Predicate};

use self::{
    pace::Paced,
    pulse::{Guarded, Pulse},
};
use crate::{
    auth::{self, Identity},
    config::Limits,
    http::{Frontend, Peer, body::Body},
};

mod pace;
mod pulse;

/// Smaller answers are not worth compressing.
const GZIP_BYTES_MIN: u64 = 128 * 1024;
const HTTP2_STREAMS_MAX: u32 = 250;
const HTTP2_WINDOW_BYTES: u32 = 1024 * 1024;
const HTTP2_PING_EVERY: Duration = Duration::from_secs(30);
/// How long a client may take to answer a ping.
const HTTP2_PONG_WITHIN: Duration = Duration::from_secs(20);
/// Pause after the system refuses to accept (out of file descriptors, for example).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until the frontend is stopped, then drains.
pub(crate) async fn listen(listener: TcpListener, tls: Arc<rustls::ServerConfig>, frontend: Arc<Frontend>) {
    let acceptor = TlsAcceptor::from(tls);
    let room = Arc::new(Semaphore::new(frontend.limits.connections_max));
    let graceful = GracefulShutdown::new();
    let stop = frontend.stop.clone();
    let mut open = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = open.join_next() => continue,
            accepted = accept(&listener, &room) => accepted,
        };
        let Some((stream, permit)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (acceptor, frontend, watcher) = (acceptor.clone(), frontend.clone(), graceful.watcher());
        open.spawn(async move {
            let _permit = permit;
            serve(stream, acceptor, frontend, watcher).await;
        });
    }
    drop(listener);
    if tokio::time::timeout(frontend.drained_after(), graceful.shutdown()).await.is_err() {
        tracing::warn!("some connections did not drain in time and are cut");
    }
    open.shutdown().await;
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
    let limits = frontend.limits.clone();
    let address = stream.peer_addr().ok().map(|a| a.ip());
    let stream = Paced::new(stream, limits.write_timeout);
    let stop = frontend.stop.clone();
    let accepted = tokio::select! {
        accepted = tokio::time::timeout(limits.read_timeout, acceptor.accept(stream)) => accepted,
        () = stop.cancelled() => return,
    };
    let stream = match accepted {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => return tracing::debug!("a TLS handshake took too long"),
    };
    let peer = Peer { identity: identity(&stream).map(Arc::new), address };
    let pulse = Arc::new(Pulse::default());
    let builder = builder(&limits, stream.get_ref().1.alpn_protocol() == Some(b"h2"));
    let service = service(frontend, peer, pulse.clone());
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
    tokio::select! {
        ended = watcher.watch(connection) => if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended early");
        },
        why = pulse.stopped(limits.read_timeout, limits.write_timeout, &stop) => {
            tracing::debug!(why, "a connection is cut off");
        }
    }
}

/// How a connection is spoken on: as was agreed in the handshake, so that there is nothing to wait and guess for.
fn builder(limits: &Limits, http2: bool) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.read_timeout);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(HTTP2_STREAMS_MAX)
        .initial_stream_window_size(HTTP2_WINDOW_BYTES)
        .initial_connection_window_size(HTTP2_WINDOW_BYTES)
        .keep_alive_interval(HTTP2_PING_EVERY.min(limits.read_timeout))
        .keep_alive_timeout(HTTP2_PONG_WITHIN.min(limits.write_timeout));
    if http2 { builder.http2_only() } else { builder.http1_only() }
}

type Bodied<B> = Response<Guarded<CompressionBody<B>>>;

/// What answers the requests of a connection. Futures are large: that of a request is not moved about, but boxed once.
fn service(
    frontend: Arc<Frontend>,
    peer: Peer,
    pulse: Arc<Pulse>,
) -> impl Service<Request<Incoming>, Response = Bodied<Body>, Error = Infallible, Future: Send> {
    let answer = tower::service_fn(move |request: Request<Incoming>| {
        let (frontend, peer) = (frontend.clone(), peer.clone());
        async move { Ok::<_, Infallible>(frontend.answer(request, peer).await) }.boxed()
    });
    let compression =
        CompressionLayer::new().gzip(true).quality(tower_http::CompressionLevel::Fastest).compress_when(LargeAndWhole);
    let compressed = tower::ServiceBuilder::new().layer(compression).service(answer);
    service_fn(move |request: Request<Incoming>| {
        let (pulse, version, asked) = (pulse.clone(), request.version(), pulse.asked());
        // Ready at any time, as a function is.
        let answer = tower::Service::call(&mut compressed.clone(), request);
        async move {
            let answer = answer.await?;
            let watched = pulse.watch(version, answer);
            drop(asked);
            Ok(watched)
        }
    })
}

/// Who the client's certificate, which rustls has verified, says it is.
fn identity(stream: &TlsStream<Paced<TcpStream>>) -> Option<Identity> {
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
