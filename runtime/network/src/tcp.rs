//! TCP within the process: ports, listeners, connections. No kernel has a part in it.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, OnceLock},
};

use futures::future::BoxFuture;
use http::{Request, Response};
use tokio::sync::{Mutex, mpsc};

use crate::{
    Body, CallError, CallTimeouts, Dialer, Network, SocketError,
    attach::{Attached, Side, Socket},
    http_server,
    pods::{Permit, Pod},
    policy::{Cut, FlowGuard, Opened, Source},
    ports::Scope,
    proxy,
    stream::{self, BUFFER_BYTES, Held, PodStream, Taking},
    table::Protocol,
};

/// Connections that may wait to be accepted when nobody says how many.
const BACKLOG_DEFAULT: u32 = 128;
/// Connections that may wait to be accepted, whatever a listener asks for: what Linux has as `net.core.somaxconn`.
const BACKLOG_MAX: u32 = 4096;

/// An open TCP connection.
pub struct Connection {
    /// The end that this is.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// What goes between them.
    pub stream: PodStream,
    /// Bytes that may wait here in this process's memory.
    pub buffer_bytes: u64,
}

impl Connection {
    /// One that no kernel knows of.
    pub(crate) fn within(local: SocketAddr, remote: SocketAddr, stream: PodStream) -> Self {
        Self { local, remote, stream, buffer_bytes: BUFFER_BYTES as u64 }
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Connection({} -> {})", self.local, self.remote)
    }
}

/// A port that a pod has, until this is dropped.
struct Claim {
    network: Network,
    attached: Arc<Attached>,
    _permit: Permit,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.attached.close();
        self.network.inner().attachments.tcp.give_back(self.attached.address, &self.attached);
    }
}

/// A TCP port that is taken and not used yet. Dropping it gives it back.
pub struct TcpPort {
    claim: Claim,
    dialer: Dialer,
    ip: IpAddr,
}

impl TcpPort {
    pub(crate) fn bind(dialer: &Dialer, pod: &Arc<Pod>, own: IpAddr, at: SocketAddr) -> Result<Self, SocketError> {
        let scope = Scope::of(at.ip(), own).ok_or(SocketError::NotOwn(at))?;
        let permit = pod.permit()?;
        let network = dialer.network().clone();
        let socket = || Side::Socket(Socket { pod: pod.clone(), backlog: OnceLock::new() });
        let taken =
            network.inner().attachments.tcp.take(own, at.port(), scope, |address| Attached::new(address, socket()));
        let attached = taken.ok_or(SocketError::AddressInUse(at))?;
        let claim = Claim { network, attached, _permit: permit };
        Ok(Self { claim, dialer: dialer.clone(), ip: at.ip() })
    }

    /// Where it is, the port chosen.
    pub fn local(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.claim.attached.address.port())
    }

    /// Listens. `backlog`: connections that may wait to be accepted; 0 means a default, and there is a most. Who finds it
    /// full waits for its connect timeout.
    pub fn listen(self, backlog: u32) -> Listener {
        let backlog = if backlog == 0 { BACKLOG_DEFAULT } else { backlog.min(BACKLOG_MAX) };
        let (sender, queue) = mpsc::channel(usize::try_from(backlog).unwrap_or(1));
        if let Side::Socket(socket) = &self.claim.attached.side {
            // Set once: a port is used up by listening.
            let _ = socket.backlog.set(sender);
        }
        self.dialer.listens(&self.claim.attached);
        Listener { local: self.local(), claim: self.claim, queue: Mutex::new(queue) }
    }

    /// Connects from here. The port is held while the connection is open.
    ///
    /// # Errors
    /// As [`Dialer::connect`].
    pub async fn connect(self, to: SocketAddr) -> Result<Connection, SocketError> {
        let local = self.local();
        let connection = self.dialer.connect_from(Some(local), to).await?;
        Ok(Connection { stream: Box::new(Held::new(connection.stream, self.claim)), ..connection })
    }
}

/// A connection that waits to be accepted.
pub(crate) struct Arriving {
    connection: Connection,
    taking: Taking,
}

/// Listens for TCP connections. Dropping it takes the port away and resets who waits.
pub struct Listener {
    local: SocketAddr,
    claim: Claim,
    queue: Mutex<mpsc::Receiver<Arriving>>,
}

impl Listener {
    /// Where it listens.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Waits for the next connection. Giving up waiting loses none.
    ///
    /// # Errors
    /// When the network is going down.
    pub async fn accept(&self) -> Result<Connection, SocketError> {
        let next = async { self.queue.lock().await.recv().await };
        let down = || SocketError::Failed(format!("{} does not listen any more", self.local));
        tokio::select! {
            biased;
            arriving = next => {
                let Arriving { connection, taking } = arriving.ok_or_else(down)?;
                taking.taken();
                Ok(connection)
            }
            () = self.claim.network.inner().stopping.cancelled() => Err(down()),
        }
    }
}

/// How a client comes to a port.
pub(crate) struct Visit<G> {
    /// Who it is, to the policies.
    pub(crate) from: Source,
    /// The client's end.
    pub(crate) client: SocketAddr,
    /// The server's end, as the client sees it.
    pub(crate) server: SocketAddr,
    /// What the client's end holds while it is open.
    pub(crate) held: G,
    /// Whether a drain of the server waits for it.
    pub(crate) counted: bool,
}

/// The client's end of a connection within the process, with what it holds.
pub(crate) type NearEnd<G> = Held<stream::End, (G, Option<FlowGuard>)>;

/// Opens a connection to whoever has a port: it waits in the backlog of one that listens, a handler is served at once.
pub(crate) async fn visit<G: Send + Unpin + 'static>(
    network: &Network,
    attached: &Arc<Attached>,
    visit: Visit<G>,
) -> Result<PodStream, SocketError> {
    Ok(Box::new(visit_near(network, attached, visit).await?))
}

/// The same, for who may have to cut it.
pub(crate) async fn visit_near<G: Send + Unpin + 'static>(
    network: &Network,
    attached: &Arc<Attached>,
    visit: Visit<G>,
) -> Result<NearEnd<G>, SocketError> {
    let Visit { from, client, server, held, counted } = visit;
    let refused = || SocketError::Refused(format!("nobody listens at {server}"));
    if !attached.is_open() {
        return Err(refused());
    }
    let (near, far) = stream::pair();
    let taking = far.taking();
    let policies = &network.inner().policies;
    let opened = || Opened::Within { from, to: attached.address, protocol: Protocol::Tcp };
    let noted = (from != Source::Node).then(|| policies.flows.note(opened(), Cut::Pipes(near.cutter())));
    policies.judge(from, attached.address, Protocol::Tcp)?;
    match &attached.side {
        Side::Handler(_) => {
            taking.taken();
            let serving = speak_http(network.clone(), attached.clone(), far);
            network.inner().tasks.spawn(serving);
        }
        Side::Socket(socket) => {
            let backlog = socket.backlog.get().ok_or_else(refused)?;
            let permit = socket.pod.permit().map_err(|e| SocketError::Refused(format!("{server}: {e}")))?;
            let ticket = attached.admit().ok_or_else(refused)?;
            let stream = Box::new(Held::new(far, (permit, counted.then_some(ticket))));
            let arriving = Arriving { connection: Connection::within(server, client, stream), taking };
            let limit = network.inner().config.connect_timeout;
            let queued = tokio::time::timeout(limit, backlog.send(arriving)).await;
            let full = |_| SocketError::TimedOut(format!("{server} accepted no connection within {limit:?}"));
            queued.map_err(full)?.map_err(|_| refused())?;
        }
    }
    Ok(Held::new(near, (held, noted)))
}

/// A handler at the end of a connection.
async fn speak_http(network: Network, attached: Arc<Attached>, stream: stream::End) {
    let inner = network.inner();
    let address = attached.address;
    let answer = |request| answer(network.clone(), attached.clone(), request);
    if let Err(error) = http_server::serve(&inner.config, stream, &inner.stopping, answer).await {
        tracing::debug!(%address, error, "a connection to a handler ended early");
    }
}

/// Boxed, since a call may lead to a connection and a connection to a call.
fn answer(network: Network, attached: Arc<Attached>, request: Request<Body>) -> BoxFuture<'static, Response<Body>> {
    Box::pin(async move {
        let answer = match attached.admit() {
            Some(ticket) => attached.call(&network, request, ticket, (CallTimeouts::default(), None)).await,
            None => Err(CallError::NotAccepted(format!("{} takes no requests now", attached.address))),
        };
        answer.unwrap_or_else(|error| proxy::failure(&error))
    })
}
