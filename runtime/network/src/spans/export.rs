//! Sending spans to a collector: OTLP over HTTP, in JSON, several at once. What a collector does not take in two tries is left
//! out and counted.
//!
//! # Source
//! <https://opentelemetry.io/docs/specs/otlp/#otlphttp>

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full};
use tokio::{
    net::TcpStream,
    sync::mpsc,
    time::{sleep, timeout},
};

use super::{Span, batch};
use crate::{CallError, CallTimeouts, Network, http_client::HttpPool, http_client::Opened};

/// Spans of one message.
const BATCH_MAX: usize = 512;
/// How long the first of them waits for others.
const LINGER: Duration = Duration::from_secs(1);
/// How long a collector may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The same once the network goes down.
const LAST_PATIENCE: Duration = Duration::from_secs(2);
/// How long until a message is sent once more.
const AGAIN: Duration = Duration::from_secs(1);
/// Bytes of a collector's answer that are read.
const ANSWER_BYTES_MAX: usize = 64 << 10;
const PATH: &str = "/v1/traces";

/// Where spans are sent.
pub(super) struct Collector {
    uri: Uri,
    host: String,
    port: u16,
    secure: bool,
    pool: HttpPool,
}

impl Collector {
    /// `None` for what is no address.
    pub(super) fn new(endpoint: &str) -> Option<Self> {
        let given: Uri = endpoint.parse().ok()?;
        let secure = match given.scheme_str()? {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let host = given.host().filter(|host| !host.is_empty())?.to_owned();
        let port = given.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let path = given.path().trim_end_matches('/');
        let path = if path.ends_with(PATH) { path.to_owned() } else { format!("{path}{PATH}") };
        let scheme = if secure { "https" } else { "http" };
        let uri = format!("{scheme}://{}{path}", given.authority()?).parse().ok()?;
        Some(Self { uri, host, port, secure, pool: HttpPool::default() })
    }

    /// Sends one message; whether the collector took it.
    async fn post(&self, network: &Network, body: Bytes) -> Result<(), Trouble> {
        let request = Request::post(self.uri.clone())
            .header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header(header::CONTENT_LENGTH, body.len())
            .body(Full::new(body).map_err(|never| match never {}).boxed_unsync())
            .map_err(|error| Trouble::Refused(error.to_string()))?;
        let timeouts = CallTimeouts { connect: Some(PATIENCE), ..CallTimeouts::default() };
        let key = format!("{}://{}:{}", if self.secure { "https" } else { "http" }, self.host, self.port);
        let connect = || async move {
            let host = self.host.trim_matches(['[', ']']);
            let stream = TcpStream::connect((host, self.port)).await;
            let stream = stream.map_err(|error| CallError::Refused(error.to_string()))?;
            match self.secure {
                true => network.inner().tls.connect(&self.host, Box::new(stream)).await,
                false => Ok(Opened { stream: Box::new(stream), h2: false }),
            }
        };
        let answer = self.pool.send(&key, request, timeouts, connect).await;
        let answer = answer.map_err(|error| Trouble::Passing(error.to_string()))?;
        let status = answer.status();
        // Read so that the connection can be kept; what it says is of no use here.
        let (mut body, mut left) = (answer.into_body(), ANSWER_BYTES_MAX);
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                break;
            }
        }
        match status {
            status if status.is_success() => Ok(()),
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => Err(Trouble::Passing(status.to_string())),
            status => Err(Trouble::Refused(status.to_string())),
        }
    }
}

/// Why a collector did not take a message.
enum Trouble {
    /// Another time it may.
    Passing(String),
    Refused(String),
}

/// Sends spans until the network goes down, and then what is left.
pub(super) async fn run(network: Network, collector: Collector, node: Option<String>, mut spans: mpsc::Receiver<Span>) {
    let node: Option<Arc<str>> = node.map(Into::into);
    let stopping = network.inner().stopping.clone().cancelled_owned();
    tokio::pin!(stopping);
    let mut waiting = Vec::with_capacity(BATCH_MAX);
    loop {
        tokio::select! {
            count = spans.recv_many(&mut waiting, BATCH_MAX) => if count == 0 { return },
            () = &mut stopping => break,
        }
        let filling = async {
            while waiting.len() < BATCH_MAX {
                let room = BATCH_MAX - waiting.len();
                if spans.recv_many(&mut waiting, room).await == 0 {
                    return;
                }
            }
        };
        let mut stopped = false;
        tokio::select! {
            _ = timeout(LINGER, filling) => {}
            () = &mut stopping => stopped = true,
        }
        if stopped {
            break;
        }
        send(&network, &collector, node.as_ref(), &mut waiting).await;
    }
    while let Ok(span) = spans.try_recv() {
        waiting.push(span);
    }
    let all = waiting.len();
    if timeout(LAST_PATIENCE, send(&network, &collector, node.as_ref(), &mut waiting)).await.is_err() {
        network.metrics().spans("failed", all);
    }
}

async fn send(network: &Network, collector: &Collector, node: Option<&Arc<str>>, spans: &mut Vec<Span>) {
    if spans.is_empty() {
        return;
    }
    let body = Bytes::from(batch(node, spans).to_string());
    let count = spans.len();
    spans.clear();
    let mut sent = try_once(network, collector, body.clone()).await;
    if let Err(Trouble::Passing(_)) = sent {
        sleep(AGAIN).await;
        sent = try_once(network, collector, body).await;
    }
    match sent {
        Ok(()) => network.metrics().spans("sent", count),
        Err(Trouble::Passing(why) | Trouble::Refused(why)) => {
            network.metrics().spans("failed", count);
            tracing::debug!(collector = %collector.uri, why, count, "a collector did not take spans");
        }
    }
}

async fn try_once(network: &Network, collector: &Collector, body: Bytes) -> Result<(), Trouble> {
    let late = |_| Trouble::Passing(format!("no answer within {PATIENCE:?}"));
    timeout(PATIENCE, collector.post(network, body)).await.map_err(late)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collectors_are_addresses() {
        for (endpoint, expected) in [
            ("http://127.0.0.1:4318", Some("http://127.0.0.1:4318/v1/traces")),
            ("http://collector:4318/", Some("http://collector:4318/v1/traces")),
            ("https://otel.example/base", Some("https://otel.example/base/v1/traces")),
            ("https://otel.example/v1/traces", Some("https://otel.example/v1/traces")),
            ("http://[::1]:4318", Some("http://[::1]:4318/v1/traces")),
            ("127.0.0.1:4318", None),
            ("ftp://x", None),
            ("", None),
        ] {
            let uri = Collector::new(endpoint).map(|collector| collector.uri.to_string());
            assert_eq!(uri.as_deref(), expected, "{endpoint}");
        }
    }
}
