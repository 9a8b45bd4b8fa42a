//! Speaking HTTP with a client over a stream of bytes: HTTP/1.1 and HTTP/2 with prior knowledge, told apart by the first
//! bytes. A client that does not send its head in time is cut off.

use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio_util::sync::CancellationToken;

use crate::{Body, BoxError, NetworkConfig, stream::ByteStream};

/// Requests of one HTTP/2 connection at once.
const STREAMS_MAX: u32 = 256;

/// Serves a connection until its client closes it, or until `stop`: then what is under way is finished.
///
/// # Errors
/// When the connection broke, or what came is no HTTP.
pub(crate) async fn serve<F, A>(
    config: &NetworkConfig,
    stream: impl ByteStream,
    stop: &CancellationToken,
    answer: F,
) -> Result<(), BoxError>
where
    F: Fn(Request<Body>) -> A,
    A: Future<Output = Response<Body>> + Send + 'static,
{
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(config.header_timeout)
        .max_buf_size(config.header_bytes_max.max(8192));
    let header_bytes_max = u32::try_from(config.header_bytes_max).unwrap_or(u32::MAX);
    builder.http2().timer(TokioTimer::new()).max_header_list_size(header_bytes_max).max_concurrent_streams(STREAMS_MAX);
    let service = service_fn(|request: Request<Incoming>| {
        let request = request.map(|body| body.map_err(|e| Box::new(e) as BoxError).boxed_unsync());
        let answer = answer(request);
        async move { Ok::<_, std::convert::Infallible>(answer.await) }
    });
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    }
}
