//! The connection to one node, as one role: made when it is first needed, watched, made anew when it breaks.
//!
//! Invariant: at most one task makes the connection; all who need it meanwhile wait for that one. A node whose connection
//! broke or could not be made counts as out of reach, and nobody waits for it, until a connection stands again: the task
//! tries, first at once, then less and less often, but soon where somebody has nobody else to ask.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt as _, future::Shared};
use h2::{
    Ping, PingPong, Reason,
    client::{Connection, SendRequest},
};
use parking_lot::Mutex;
use rustls::pki_types::ServerName;
use tokio::{
    net::TcpStream,
    sync::{Notify, Semaphore, oneshot},
    time::{Instant, sleep, timeout},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::sync::CancellationToken;

use super::{
    RemoteNode, TunnelConfig, TunnelLimits,
    count::{Tallied, Way, tallied},
    datagrams::Outbox,
    tls::{self, Role},
};
use crate::{CallError, Inner, http_client::chain};

/// How long a node that cannot be reached rests at least, where somebody wants it.
const WANTED_AFTER: Duration = Duration::from_millis(500);

/// What a connection carries.
type Wire = TlsStream<Tallied<TcpStream>>;

/// Whether a node can be reached, for those who choose among endpoints.
#[derive(Debug, Default)]
pub(crate) struct Reach(AtomicBool);

impl Reach {
    pub(crate) fn is_lost(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn set_lost(&self, lost: bool) {
        self.0.store(lost, Ordering::Relaxed);
    }
}

/// A node, and the way to it.
pub(crate) struct Peer {
    pub(crate) node: RemoteNode,
    role: Role,
    config: TunnelConfig,
    network: Weak<Inner>,
    state: Mutex<State>,
    pub(crate) reach: Arc<Reach>,
    /// A connection that has broken, before its keeper has seen that: who hears of the next one.
    broken: Mutex<Option<(u64, Tell)>>,
    /// Datagrams on their way to it.
    pub(crate) datagrams: Mutex<Option<Outbox>>,
    /// Somebody wants it who has nobody else: those who choose pass over what is out of reach.
    wanted: Notify,
    gone: CancellationToken,
}

enum State {
    /// Nobody has needed it, or the last connection was closed in peace.
    Idle,
    Connecting(Connecting),
    Up(Line),
    /// Another try is under way, for which nobody waits.
    Lost(String),
}

type Connecting = Shared<oneshot::Receiver<Result<Line, String>>>;
type Tell = oneshot::Sender<Result<Line, String>>;
/// What has to be gone on with while a connection stands.
type Driven = (Connection<Wire, Bytes>, Option<PingPong>);

/// A connection that stands.
#[derive(Clone)]
pub(crate) struct Line {
    id: u64,
    pub(crate) requests: SendRequest<Bytes>,
    /// What may be under way within it.
    pub(crate) streams: Arc<Semaphore>,
}

impl Peer {
    pub(crate) fn new(node: RemoteNode, role: Role, config: TunnelConfig, network: Weak<Inner>) -> Arc<Self> {
        let (state, reach, gone) = (Mutex::new(State::Idle), Arc::default(), CancellationToken::new());
        let (broken, datagrams, wanted) = (Mutex::default(), Mutex::default(), Notify::new());
        Arc::new(Self { node, role, config, network, state, reach, broken, datagrams, wanted, gone })
    }

    pub(crate) fn limits(&self) -> &TunnelLimits {
        &self.config.limits
    }

    /// The node is not what it was: what is under way goes on, nothing new begins.
    pub(crate) fn leave(&self) {
        self.gone.cancel();
        self.reach.set_lost(false);
        *self.state.lock() = State::Lost(format!("node {} has gone", self.node.name));
    }

    /// A connection that stands.
    ///
    /// # Errors
    /// `NotAccepted`: it cannot be reached.
    pub(crate) async fn line(self: &Arc<Self>) -> Result<Line, CallError> {
        let connecting = {
            let mut state = self.state.lock();
            match &*state {
                State::Up(line) => return Ok(line.clone()),
                State::Lost(why) => {
                    self.want();
                    return Err(self.out_of_reach(why));
                }
                State::Connecting(connecting) => connecting.clone(),
                State::Idle => {
                    let (tell, connecting) = promise();
                    *state = State::Connecting(connecting.clone());
                    tokio::spawn(self.clone().keep(tell));
                    connecting
                }
            }
        };
        match connecting.await {
            Ok(Ok(line)) => Ok(line),
            Ok(Err(why)) => Err(self.out_of_reach(&why)),
            Err(_) => Err(self.out_of_reach("it was given up")),
        }
    }

    /// Somebody wants it and has nobody else to ask: it is tried soon, if it is out of reach.
    pub(crate) fn want(&self) {
        self.wanted.notify_one();
    }

    fn out_of_reach(&self, why: &str) -> CallError {
        CallError::NotAccepted(format!("node {} cannot be reached: {why}", self.node.name))
    }

    /// A connection takes nothing new any more: it closes in peace, or has broken, and who keeps it is about to see that.
    pub(crate) fn retire(&self, line: &Line, error: &h2::Error) {
        let mut state = self.state.lock();
        if !matches!(&*state, State::Up(up) if up.id == line.id) {
            return;
        }
        if is_unprocessed(error) {
            *state = State::Idle;
            return;
        }
        let (tell, connecting) = promise();
        *state = State::Connecting(connecting);
        *self.broken.lock() = Some((line.id, tell));
    }

    /// Makes the connection and keeps it until it ends in peace or the node has gone.
    async fn keep(self: Arc<Self>, tell: Tell) {
        let (mut tell, mut backoff) = (Some(tell), self.limits().backoff_min);
        loop {
            let made = tokio::select! {
                made = self.connect() => made,
                () = self.gone.cancelled() => return,
            };
            match made {
                Ok((line, connection)) => {
                    let since = Instant::now();
                    self.stands(&line, tell.take());
                    match self.drive(connection, line).await {
                        None => return,
                        // One that does not last is as bad as none.
                        Some((next, why)) if since.elapsed() < self.limits().backoff_max => {
                            self.failed(&why, Some(next));
                        }
                        Some((next, _)) => {
                            (tell, backoff) = (Some(next), self.limits().backoff_min);
                            continue;
                        }
                    }
                }
                Err(why) => self.failed(&why, tell.take()),
            }
            tokio::select! {
                () = self.rest(backoff.mul_f64(rand::random_range(0.75..1.25))) => {}
                () = self.gone.cancelled() => return,
            }
            backoff = (backoff * 2).min(self.limits().backoff_max);
        }
    }

    /// Waits for so long, or less when somebody wants it.
    async fn rest(&self, long: Duration) {
        let soon = long.min(WANTED_AFTER);
        sleep(soon).await;
        // It is no matter which of both it was.
        let _ = timeout(long - soon, self.wanted.notified()).await;
    }

    fn stands(&self, line: &Line, tell: Option<Tell>) {
        let mut state = self.state.lock();
        if !self.gone.is_cancelled() {
            *state = State::Up(line.clone());
            self.reach.set_lost(false);
        }
        drop(state);
        tracing::debug!(node = self.node.name, address = %self.node.address, "a tunnel stands");
        // Nobody may wait for it any more.
        tell.map(|tell| tell.send(Ok(line.clone())));
    }

    fn failed(&self, why: &str, tell: Option<Tell>) {
        self.count(|tunnels| tunnels.failures.with_label_values(&["connect"]).inc());
        let mut state = self.state.lock();
        if !self.gone.is_cancelled() {
            *state = State::Lost(why.to_owned());
            self.reach.set_lost(true);
        }
        drop(state);
        if let Some(tell) = tell {
            tracing::warn!(node = self.node.name, address = %self.node.address, why, "a node cannot be reached");
            let _ = tell.send(Err(why.to_owned()));
        }
    }

    fn count(&self, count: impl FnOnce(&super::count::TunnelMetrics)) {
        if let Some(network) = self.network.upgrade() {
            count(&network.metrics.tunnels);
        }
    }

    /// Lets the connection go on until it ends. `Some` when it broke and is to be made anew: who hears of the new one, and
    /// why it broke.
    async fn drive(&self, (connection, pings): Driven, line: Line) -> Option<(Tell, String)> {
        let id = line.id;
        drop(line);
        self.count(|tunnels| tunnels.connections.with_label_values(&[Way::Out.word()]).inc());
        let ended = tokio::select! {
            ended = connection => ended.map_err(|error| chain(&error)),
            silent = keep_alive(pings, self.limits()) => Err(silent),
        };
        self.count(|tunnels| tunnels.connections.with_label_values(&[Way::Out.word()]).dec());
        let mut state = self.state.lock();
        let seen = self.broken.lock().take_if(|(of, _)| *of == id);
        let current = matches!(&*state, State::Up(up) if up.id == id);
        let why = match ended {
            Err(why) => why,
            Ok(()) if seen.is_some() => "the other end closed it".to_owned(),
            Ok(()) => {
                if current {
                    *state = State::Idle;
                }
                return None;
            }
        };
        let tell = match seen {
            Some((_, tell)) => tell,
            None if !current => return None,
            None => {
                let (tell, connecting) = promise();
                *state = State::Connecting(connecting);
                tell
            }
        };
        if !self.gone.is_cancelled() {
            self.reach.set_lost(true);
        }
        drop(state);
        self.count(|tunnels| tunnels.failures.with_label_values(&["broken"]).inc());
        tracing::warn!(node = self.node.name, address = %self.node.address, why, "a tunnel broke");
        Some((tell, why))
    }

    async fn connect(&self) -> Result<(Line, Driven), String> {
        let limit = self.limits().connect_timeout;
        let opened = timeout(limit, self.open(self.node.address)).await;
        opened.unwrap_or_else(|_| Err(format!("{} does not answer within {limit:?}", self.node.address)))
    }

    async fn open(&self, address: SocketAddr) -> Result<(Line, Driven), String> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let tls = Arc::new(tls::client(&self.config, self.role, &self.node.name)?);
        let tcp = TcpStream::connect(address).await.map_err(|error| format!("{address}: {error}"))?;
        // Small messages are sent at once.
        let _ = tcp.set_nodelay(true);
        let bytes = self.network.upgrade().map(|network| network.metrics.tunnels.bytes.clone());
        let tcp = tallied(tcp, bytes.as_ref());
        let name = ServerName::IpAddress(address.ip().into());
        let stream = TlsConnector::from(tls).connect(name, tcp).await;
        let stream = stream.map_err(|error| format!("TLS with {address}: {}", chain(&error)))?;
        let limits = self.limits();
        let mut builder = h2::client::Builder::new();
        builder
            .initial_window_size(limits.stream_window_bytes)
            .initial_connection_window_size(limits.connection_window())
            .max_header_list_size(limits.header_bytes_max)
            .max_send_buffer_size(limits.stream_window_bytes as usize)
            .max_concurrent_reset_streams(limits.streams_max as usize)
            .enable_push(false);
        let shaken = builder.handshake(stream).await;
        let failed = |error: h2::Error| format!("HTTP/2 with {address}: {}", chain(&error));
        let (requests, mut connection) = shaken.map_err(failed)?;
        // Only its first words say that the other end takes this one's certificate.
        let mut pings = connection.ping_pong();
        tokio::select! {
            ended = &mut connection => return Err(ended.err().map_or_else(|| format!("{address} closes"), failed)),
            answered = greet(&mut pings) => answered.map_err(failed)?,
        }
        let streams = Arc::new(Semaphore::new(limits.streams_max as usize));
        Ok((Line { id: NEXT.fetch_add(1, Ordering::Relaxed), requests, streams }, (connection, pings)))
    }
}

fn promise() -> (Tell, Connecting) {
    let (tell, connecting) = oneshot::channel();
    (tell, connecting.shared())
}

/// Asks the other end once.
async fn greet(pings: &mut Option<PingPong>) -> Result<(), h2::Error> {
    match pings {
        Some(pings) => pings.ping(Ping::opaque()).await.map(|_| ()),
        None => Ok(()),
    }
}

/// Asks the other end again and again whether it is there; ends when it does not say so in time.
pub(crate) async fn keep_alive(pings: Option<PingPong>, limits: &TunnelLimits) -> String {
    let Some(mut pings) = pings else { return std::future::pending().await };
    loop {
        sleep(limits.keep_alive_interval).await;
        match timeout(limits.keep_alive_timeout, pings.ping(Ping::opaque())).await {
            Ok(Ok(_)) => {}
            // It has ended, and says so itself.
            Ok(Err(_)) => sleep(Duration::from_secs(1)).await,
            Err(_) => return format!("nothing was heard for {:?}", limits.keep_alive_timeout),
        }
    }
}

/// Whether a request was never looked at by the other end.
pub(crate) fn is_unprocessed(error: &h2::Error) -> bool {
    let refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
    refused || (error.is_go_away() && error.is_remote() && error.reason() == Some(Reason::NO_ERROR))
}
