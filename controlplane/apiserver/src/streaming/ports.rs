//! Port-forwarding: pairs of streams, one for the bytes of a connection and one for what goes wrong with it.
//!
//! Over SPDY the client opens a pair for each connection; over a WebSocket the ports stand in the query, and each has one
//! connection for as long as the WebSocket lasts.
//!
//! Invariant: a connection ends when the pod ends it or when the client throws it away; a client that has only said its
//! last word still hears the answer.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/kubelet/pkg/cri/streaming/portforward/{httpstream,websocket}.go`.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt as _, future::join_all, stream::SplitStream};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, copy, split},
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    activity::{Activity, IDLE_MAX},
    channels::{self, Outgoing, Wire},
    options,
    pipes::{self, CHUNKS_MAX, Inbox},
    spdy::{self, Connection, Offered, Stream},
};
use crate::{
    gateway::PodPorts,
    http::websocket::{Message, Socket},
};

/// The protocol over SPDY.
pub(crate) const PROTOCOLS: &[&str] = &["portforward.k8s.io"];
/// The subprotocol of a WebSocket that carries SPDY.
pub(crate) const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
/// The subprotocols of a WebSocket: SPDY within it, or channels of its own.
pub(crate) const SOCKET_PROTOCOLS: &[&str] = &[TUNNEL, "v4.channel.k8s.io", "v4.base64.channel.k8s.io"];
/// Ports of one WebSocket: their channels are numbered by a byte.
pub(crate) const PORTS_MAX: usize = 100;

/// How long the second stream of a pair may take.
const PAIR_WITHIN: Duration = Duration::from_secs(30);
/// Connections of one client at once.
const PAIRS_MAX: usize = 256;

/// Whose ports.
#[derive(Clone)]
pub(crate) struct Forwarder {
    pub(crate) ports: Arc<dyn PodPorts>,
    pub(crate) pod: String,
    pub(crate) uid: String,
}

impl Forwarder {
    /// Carries one connection. What goes wrong is written to `error`.
    async fn forward<R, W, E>(&self, port: u16, mut input: R, mut output: W, mut error: E)
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
        E: AsyncWrite + Unpin,
    {
        let result = match self.ports.connect(port).await {
            Err(why) => Err(why),
            Ok(stream) => {
                let (mut from_pod, mut to_pod) = split(stream);
                let sending = async {
                    let copied = copy(&mut input, &mut to_pod).await;
                    // The pod may have closed its end, which is no failure.
                    let _ended = to_pod.shutdown().await;
                    copied
                };
                let receiving = copy(&mut from_pod, &mut output);
                tokio::pin!(sending, receiving);
                let received = tokio::select! {
                    received = &mut receiving => received,
                    _ = &mut sending => receiving.await,
                };
                received.map(drop).map_err(|e| e.to_string())
            }
        };
        if let Err(why) = result {
            let words = format!("error forwarding port {port} to pod {}, uid {}: {why}", self.pod, self.uid);
            tracing::debug!(error = words);
            // An error means that the client is gone.
            let _said = error.write_all(words.as_bytes()).await;
        }
        let _ended = output.shutdown().await;
        let _ended = error.shutdown().await;
    }
}

/// Serves a client over SPDY.
pub(crate) async fn serve<IO>(io: IO, forwarder: Forwarder, stop: CancellationToken)
where
    IO: AsyncRead + AsyncWrite + Send + 'static,
{
    let activity = Arc::new(Activity::new());
    let (connection, talking) = spdy::serve(io, activity.clone());
    tokio::select! {
        // It knows of the connection's end by itself.
        () = async { tokio::join!(talking, Pairs::new(forwarder).run(connection)); } => {}
        () = activity.idle(IDLE_MAX) => tracing::debug!("a port-forward was idle for too long"),
        () = stop.cancelled() => {}
    }
}

/// Pairs of which one stream is open.
struct Pairs {
    forwarder: Forwarder,
    halves: HashMap<String, Half>,
    running: JoinSet<()>,
}

struct Half {
    kind: &'static str,
    stream: Stream,
    until: Instant,
}

impl Pairs {
    fn new(forwarder: Forwarder) -> Self {
        Self { forwarder, halves: HashMap::new(), running: JoinSet::new() }
    }

    async fn run(mut self, mut connection: Connection) {
        loop {
            let due = self.halves.values().map(|half| half.until).min();
            tokio::select! {
                offered = connection.next() => match offered {
                    Some(offered) => self.take(offered).await,
                    None => return,
                },
                Some(_) = self.running.join_next() => {}
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => self.expire().await,
            }
        }
    }

    async fn take(&mut self, offered: Offered) {
        let kind = match offered.header("streamtype") {
            "error" => "error",
            "data" => "data",
            _ => return offered.refuse().await,
        };
        let Ok(port) = options::port(offered.header("port")) else { return offered.refuse().await };
        if self.running.len() + self.halves.len() >= PAIRS_MAX {
            return offered.refuse().await;
        }
        let key = match offered.header("requestid") {
            // Clients from before there were numbers: the error's stream comes first, that of the data right after it.
            "" if kind == "data" => offered.id.saturating_sub(2).to_string(),
            "" => offered.id.to_string(),
            id => id.to_owned(),
        };
        let stream = offered.accept().await;
        match self.halves.remove(&key) {
            None => {
                self.halves.insert(key, Half { kind, stream, until: Instant::now() + PAIR_WITHIN });
            }
            Some(mut half) if half.kind == kind => {
                let words = format!("error processing stream for request {key}: {kind} stream already assigned");
                if kind == "error" {
                    say(&mut half.stream, &words).await;
                }
                self.halves.insert(key, half);
            }
            Some(half) => {
                let (data, error) = if kind == "data" { (stream, half.stream) } else { (half.stream, stream) };
                self.begin(port, data, error);
            }
        }
    }

    fn begin(&mut self, port: u16, data: Stream, error: Stream) {
        let forwarder = self.forwarder.clone();
        self.running.spawn(async move {
            let reset = data.reset;
            tokio::select! {
                () = forwarder.forward(port, data.input, data.output, error.output) => {}
                () = reset.cancelled() => {}
            }
        });
    }

    async fn expire(&mut self) {
        let now = Instant::now();
        for (key, mut half) in self.halves.extract_if(|_, half| half.until <= now) {
            if half.kind == "error" {
                say(&mut half.stream, &format!("(request={key}) timed out waiting for streams")).await;
            }
        }
    }
}

async fn say(stream: &mut Stream, words: &str) {
    // An error means that the client is gone.
    let _said = stream.output.write_all(words.as_bytes()).await;
    let _ended = stream.output.shutdown().await;
}

/// Serves a client over a WebSocket with two channels for each port, which begin with the port's number.
pub(crate) async fn serve_channels(
    socket: Socket,
    wire: Wire,
    forwarder: Forwarder,
    ports: Vec<u16>,
    stop: CancellationToken,
) {
    let (sink, source) = socket.split();
    let (queue, messages) = mpsc::channel(CHUNKS_MAX);
    let outgoing = Outgoing::new(queue, wire);
    let activity = Activity::new();
    let mut inputs = Vec::new();
    let mut connections = Vec::new();
    for (channel, port) in (0_u8..).step_by(2).zip(&ports) {
        let (input, inbox) = Inbox::new();
        inputs.push(Some(input));
        let (output, error) = (outgoing.output(channel), outgoing.output(channel + 1));
        let forwarder = &forwarder;
        connections.push(async move {
            let (mut output, mut error) = (output, error);
            let number = port.to_le_bytes();
            if output.write_all(&number).await.is_ok() && error.write_all(&number).await.is_ok() {
                forwarder.forward(*port, inbox, output, error).await;
            }
        });
    }
    drop(outgoing);
    let work = async {
        join_all(connections).await;
        std::future::pending::<()>().await;
    };
    channels::pump(sink, messages, read(source, wire, inputs, &activity), work, (&activity, &stop)).await;
}

async fn read(
    mut source: SplitStream<Socket>,
    wire: Wire,
    mut inputs: Vec<Option<mpsc::Sender<Bytes>>>,
    activity: &Activity,
) {
    while let Some(Ok(message)) = source.next().await {
        if matches!(message, Message::Ping(_) | Message::Pong(_)) {
            continue;
        }
        activity.touch();
        let Some((channel, data)) = wire.read(message) else { return };
        let Some(input) = inputs.get_mut(usize::from(channel / 2)).filter(|_| channel % 2 == 0) else { continue };
        if let Some(queue) = input
            && pipes::put(queue, data).await.is_err()
        {
            *input = None;
        }
    }
}
