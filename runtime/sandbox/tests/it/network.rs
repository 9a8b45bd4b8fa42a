//! A pod network in memory: what the sandbox's sockets are tried over.

use std::{
    collections::{HashMap, VecDeque},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use podium_sandbox::{SocketError, Sockets, TcpConnection, TcpListener, TcpPort, UdpSocket};
use tokio::sync::{Notify, mpsc};

/// Bytes that a connection keeps each way.
pub const PIPE_BYTES: usize = 16 << 10;
/// The pod's own address.
pub const POD: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 7);

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Protocol {
    Tcp,
    Udp,
}

/// One pod.
#[derive(Default)]
pub struct Net {
    state: Mutex<State>,
    pub lookups: AtomicUsize,
}

#[derive(Default)]
struct State {
    taken: HashMap<(Protocol, u16), Vec<IpAddr>>,
    listeners: HashMap<SocketAddr, mpsc::Sender<TcpConnection>>,
    queues: HashMap<SocketAddr, Arc<Queue>>,
    last_port: u16,
}

impl State {
    fn take(&mut self, protocol: Protocol, at: SocketAddr) -> Result<SocketAddr, SocketError> {
        let own = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V4(POD), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        if !at.ip().is_unspecified() && !own.contains(&at.ip()) {
            return Err(SocketError::AddressNotBindable(at));
        }
        let mut at = at;
        while at.port() == 0 {
            self.last_port = self.last_port.wrapping_add(1);
            let port = 32_768 | self.last_port;
            if !self.taken.contains_key(&(protocol, port)) {
                at.set_port(port);
            }
        }
        let holders = self.taken.entry((protocol, at.port())).or_default();
        let family = |ip: &&IpAddr| ip.is_ipv4() == at.is_ipv4();
        if holders.iter().filter(family).any(|ip| *ip == at.ip() || ip.is_unspecified() || at.ip().is_unspecified()) {
            return Err(SocketError::AddressInUse(at));
        }
        holders.push(at.ip());
        Ok(at)
    }

    fn give(&mut self, protocol: Protocol, at: SocketAddr) {
        if let Some(holders) = self.taken.get_mut(&(protocol, at.port())) {
            holders.retain(|ip| *ip != at.ip());
            if holders.is_empty() {
                self.taken.remove(&(protocol, at.port()));
            }
        }
    }
}

/// Both addresses at which somebody may sit who is called at this one.
fn seats(at: SocketAddr) -> [SocketAddr; 2] {
    let all: IpAddr = if at.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    [at, SocketAddr::new(all, at.port())]
}

/// Where a socket is seen to be that talks to this address.
fn source(local: SocketAddr, to: SocketAddr) -> SocketAddr {
    match (local.ip().is_unspecified(), to.ip().is_loopback(), to.is_ipv4()) {
        (false, _, _) => local,
        (true, true, _) => SocketAddr::new(to.ip(), local.port()),
        (true, false, true) => SocketAddr::new(POD.into(), local.port()),
        (true, false, false) => SocketAddr::new(POD.to_ipv6_compatible().into(), local.port()),
    }
}

impl Net {
    /// Calls from outside of the guest.
    pub async fn dial(&self, to: SocketAddr) -> Result<TcpConnection, SocketError> {
        self.connect_from(SocketAddr::new(to.ip(), 9), to).await
    }

    async fn connect_from(&self, local: SocketAddr, to: SocketAddr) -> Result<TcpConnection, SocketError> {
        if to.ip() == IpAddr::from([10, 9, 9, 9]) {
            return std::future::pending().await;
        }
        let listener = {
            let state = self.state.lock();
            seats(to).iter().find_map(|seat| state.listeners.get(seat).cloned())
        };
        let Some(listener) = listener else { return Err(SocketError::ConnectionRefused(to)) };
        let (near, far) = tokio::io::duplex(PIPE_BYTES);
        let buffer_bytes = 2 * PIPE_BYTES as u64;
        let connection =
            |local, remote, stream| TcpConnection { local, remote, stream: Box::new(stream), buffer_bytes };
        let accepted = listener.try_send(connection(to, local, far));
        accepted.map_err(|_| SocketError::ConnectionRefused(to))?;
        Ok(connection(local, to, near))
    }

    pub fn ports(&self) -> usize {
        self.state.lock().taken.len()
    }
}

/// What a pod is given.
pub struct Pod(pub Arc<Net>);

#[async_trait]
impl Sockets for Pod {
    async fn connect(&self, to: SocketAddr) -> Result<TcpConnection, SocketError> {
        let any = if to.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
        self.bind_tcp(SocketAddr::new(any, 0))?.connect(to).await
    }

    fn bind_tcp(&self, at: SocketAddr) -> Result<Box<dyn TcpPort>, SocketError> {
        let local = self.0.state.lock().take(Protocol::Tcp, at)?;
        Ok(Box::new(Port { seat: Seat { net: Arc::downgrade(&self.0), protocol: Protocol::Tcp, at: local } }))
    }

    fn bind_udp(&self, at: SocketAddr, queue_bytes: usize) -> Result<Box<dyn UdpSocket>, SocketError> {
        let mut state = self.0.state.lock();
        let local = state.take(Protocol::Udp, at)?;
        let queue = Arc::new(Queue { left: Mutex::new((VecDeque::new(), queue_bytes)), filled: Notify::new() });
        state.queues.insert(local, queue.clone());
        Ok(Box::new(Udp { seat: Seat { net: Arc::downgrade(&self.0), protocol: Protocol::Udp, at: local }, queue }))
    }

    async fn lookup(&self, name: &str) -> Result<Vec<IpAddr>, SocketError> {
        self.0.lookups.fetch_add(1, Ordering::Relaxed);
        match name {
            "localhost" => Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]),
            "web.default.svc" | "example.com" | "github.com" => Ok(vec![IpAddr::from([10, 1, 0, 8])]),
            "slow.test" => std::future::pending().await,
            _ => Err(SocketError::NameUnresolvable(name.to_owned())),
        }
    }
}

/// A place that is taken, until it is dropped.
struct Seat {
    net: Weak<Net>,
    protocol: Protocol,
    at: SocketAddr,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let Some(net) = self.net.upgrade() else { return };
        let mut state = net.state.lock();
        match self.protocol {
            Protocol::Tcp => drop(state.listeners.remove(&self.at)),
            Protocol::Udp => drop(state.queues.remove(&self.at)),
        }
        state.give(self.protocol, self.at);
    }
}

struct Port {
    seat: Seat,
}

#[async_trait]
impl TcpPort for Port {
    fn local(&self) -> SocketAddr {
        self.seat.at
    }

    fn listen(self: Box<Self>, backlog: u32) -> Result<Box<dyn TcpListener>, SocketError> {
        let (sender, receiver) = mpsc::channel(backlog as usize);
        let net = self.seat.net.upgrade().unwrap();
        net.state.lock().listeners.insert(self.seat.at, sender);
        Ok(Box::new(Listener { seat: self.seat, receiver: tokio::sync::Mutex::new(receiver) }))
    }

    async fn connect(self: Box<Self>, to: SocketAddr) -> Result<TcpConnection, SocketError> {
        let net = self.seat.net.upgrade().unwrap();
        net.connect_from(source(self.seat.at, to), to).await
    }
}

struct Listener {
    seat: Seat,
    receiver: tokio::sync::Mutex<mpsc::Receiver<TcpConnection>>,
}

#[async_trait]
impl TcpListener for Listener {
    fn local(&self) -> SocketAddr {
        self.seat.at
    }

    async fn accept(&self) -> Result<TcpConnection, SocketError> {
        let next = self.receiver.lock().await.recv().await;
        next.ok_or_else(|| SocketError::Other("the network is gone".into()))
    }
}

type Received = Result<(Bytes, SocketAddr), SocketError>;

struct Queue {
    /// Datagrams, and how many bytes more.
    left: Mutex<(VecDeque<Received>, usize)>,
    filled: Notify,
}

struct Udp {
    seat: Seat,
    queue: Arc<Queue>,
}

#[async_trait]
impl UdpSocket for Udp {
    fn local(&self) -> SocketAddr {
        self.seat.at
    }

    fn local_to(&self, to: SocketAddr) -> SocketAddr {
        source(self.seat.at, to)
    }

    async fn send_to(&self, bytes: Bytes, to: SocketAddr) -> Result<(), SocketError> {
        let net = self.seat.net.upgrade().unwrap();
        let state = net.state.lock();
        let Some(queue) = seats(to).iter().find_map(|seat| state.queues.get(seat)) else {
            self.queue.left.lock().0.push_back(Err(SocketError::ConnectionRefused(to)));
            self.queue.filled.notify_one();
            return Ok(());
        };
        let mut left = queue.left.lock();
        if let Some(rest) = left.1.checked_sub(bytes.len() + 64) {
            left.1 = rest;
            left.0.push_back(Ok((bytes, source(self.seat.at, to))));
            queue.filled.notify_one();
        }
        Ok(())
    }

    async fn recv_from(&self) -> Result<(Bytes, SocketAddr), SocketError> {
        loop {
            let filled = self.queue.filled.notified();
            {
                let mut left = self.queue.left.lock();
                if let Some(next) = left.0.pop_front() {
                    left.1 += next.as_ref().map_or(0, |next| next.0.len() + 64);
                    return next;
                }
            }
            filled.await;
        }
    }
}
