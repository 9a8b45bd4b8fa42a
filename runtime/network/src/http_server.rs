//! Speaking HTTP with a client over a stream of bytes: HTTP/1.1 and HTTP/2 with prior knowledge, told apart by the first
//! bytes.
//!
//! A client is cut off that does not send a head in time, that has its connection open for too long without a request, that
//! sends nothing more of a body, or takes nothing of an answer. WebSockets over HTTP/2 are asked for as over HTTP/1.1 (see
//! `extended`). Requests whose end can be understood in two ways are refused by
//! hyper; after one with both `Content-Length` and `Transfer-Encoding`, which means the latter, it closes the connection.

use http::{Request, Response, StatusCode, header};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio_util::sync::CancellationToken;

use crate::{
    Body, BoxError, NetworkConfig,
    bodies::heard,
    extended::{self, Asked, Carried},
    http_client::paced_request,
    idle::{Activity, Stalling},
    proxy,
    stream::ByteStream,
};

/// Requests of one HTTP/2 connection at once.
const STREAMS_MAX: u32 = 256;
/// Streams of one HTTP/2 connection that its client reset before they were looked at; with more it is closed.
const RESET_STREAMS_MAX: usize = 20;
/// Bytes of one answer that wait for a client over HTTP/2.
const SEND_BUFFER_BYTES: usize = 64 << 10;

/// Serves a connection until its client closes it or does nothing, or until `stop`: then what is under way is finished.
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
    let (activity, builder) = (Activity::new(), builder(config));
    let stall = config.stall_timeout;
    let stream = Stalling::new(stream, stall, activity.clone());
    let service = service_fn(|request: Request<Incoming>| {
        let (under_way, activity) = (activity.begin(), activity.clone());
        let mut request = request.map_incoming(stall);
        let asked = extended::translate(&mut request);
        let websocket = asked == Ok(Asked::WebSocket);
        if websocket {
            // The stream outlasts its answer.
            request.extensions_mut().insert(Carried::new(activity.begin()));
        }
        let answer = asked.map(|_| answer(request));
        async move {
            let answer = match answer {
                Ok(answer) => answer.await,
                Err((status, why)) => proxy::text(status, why),
            };
            let answer = if websocket { extended::answered(answer) } else { answer };
            if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
                activity.is_http_no_more();
            }
            Ok::<_, std::convert::Infallible>(answer.map(|body| heard(body, under_way)))
        }
    });
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
        () = activity.idle(config.header_timeout, config.idle_timeout) => {
            connection.as_mut().graceful_shutdown();
            // Whoever has done nothing for so long need not be waited for.
            return tokio::time::timeout(config.header_timeout, connection).await.unwrap_or(Ok(()));
        }
    }
    connection.await
}

fn builder(config: &NetworkConfig) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(config.header_timeout)
        .max_buf_size(config.header_bytes_max.max(8192));
    let header_bytes_max = u32::try_from(config.header_bytes_max).unwrap_or(u32::MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .enable_connect_protocol()
        .max_header_list_size(header_bytes_max)
        .max_concurrent_streams(STREAMS_MAX)
        .max_pending_accept_reset_streams(RESET_STREAMS_MAX)
        .max_send_buf_size(SEND_BUFFER_BYTES);
    builder
}

trait Received {
    /// The same with a body of ours. One whose client may be silent for as long as it likes is a call of gRPC.
    fn map_incoming(self, stall: std::time::Duration) -> Request<Body>;
}

impl Received for Request<Incoming> {
    fn map_incoming(self, stall: std::time::Duration) -> Request<Body> {
        let kind = self.headers().get(header::CONTENT_TYPE);
        let grpc = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        self.map(|body| match grpc || body.is_end_stream() {
            true => body.map_err(|error| Box::new(error) as BoxError).boxed_unsync(),
            false => paced_request(body, stall),
        })
    }
}
