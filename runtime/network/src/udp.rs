//! UDP: datagrams between pods within the process, and to hosts outside where that is granted.
//!
//! A queue that is full drops what comes, as a kernel does; nobody waits for anybody.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{sync::Notify, task::AbortHandle, time::Instant};

use crate::{
    Dialer, Network, SocketError,
    balance::Moment,
    egress::Way,
    pods::{Permit, Pod},
    policy::Source,
    ports::Scope,
    services::Port,
    table::Protocol,
    tunnel::{Peer, datagrams::Datagram},
};

/// Largest datagram: what UDP over IPv4 carries.
pub(crate) const DATAGRAM_BYTES_MAX: usize = 65_507;
/// What a datagram in a queue counts beside its payload.
const OVERHEAD_BYTES: usize = 64;
/// Peers that one socket talks with at once through a Service, or outside.
const PEERS_MAX: usize = 256;
/// How long a Service's endpoint stays the same for a socket that sends nothing.
///
/// # Source
/// `nf_conntrack_udp_timeout` of Linux.
const FLOW_IDLE: Duration = Duration::from_secs(30);

/// What waits to be received at a port.
pub(crate) struct Queue {
    address: SocketAddr,
    bytes_max: usize,
    waiting: Mutex<Waiting>,
    arrived: Notify,
    /// Who has sent something of late, and so may be answered; kept only while there are policies.
    heard: Recent,
    /// Who of other nodes was sent something of late, and so may answer; as well.
    spoken_to: Recent,
    /// Whether it stands for a client outside, and is no pod's.
    outer: bool,
}

#[derive(Default)]
struct Waiting {
    datagrams: VecDeque<(Bytes, SocketAddr)>,
    bytes: usize,
}

/// The others of late; a bounded number of them.
#[derive(Default)]
struct Recent(Mutex<HashMap<SocketAddr, Instant>>);

impl Recent {
    fn note(&self, other: SocketAddr) {
        let (mut all, now) = (self.0.lock(), Instant::now());
        if all.len() >= PEERS_MAX && !all.contains_key(&other) {
            all.retain(|_, at| now.duration_since(*at) < FLOW_IDLE);
            if all.len() >= PEERS_MAX {
                all.clear();
            }
        }
        all.insert(other, now);
    }

    fn has(&self, other: SocketAddr) -> bool {
        self.0.lock().get(&other).is_some_and(|at| at.elapsed() < FLOW_IDLE)
    }
}

impl Queue {
    fn new(address: SocketAddr, bytes_max: usize) -> Self {
        let (waiting, arrived) = (Mutex::default(), Notify::new());
        let (heard, spoken_to) = (Recent::default(), Recent::default());
        Self { address, bytes_max, waiting, arrived, heard, spoken_to, outer: false }
    }

    /// One that stands for a client outside.
    pub(crate) fn outer(address: SocketAddr, bytes_max: usize) -> Self {
        Self { outer: true, ..Self::new(address, bytes_max) }
    }

    /// Notes who has sent something.
    pub(crate) fn hear_of(&self, network: &Network, from: SocketAddr) {
        if network.inner().policies.any() {
            self.heard.note(from);
        }
    }

    /// Notes who of another node was sent something.
    pub(crate) fn speak_to(&self, network: &Network, to: SocketAddr) {
        if network.inner().policies.any() {
            self.spoken_to.note(to);
        }
    }

    fn has_heard(&self, from: SocketAddr) -> bool {
        self.heard.has(from)
    }

    pub(crate) fn has_spoken_to(&self, to: SocketAddr) -> bool {
        self.spoken_to.has(to)
    }

    pub(crate) fn is_outer(&self) -> bool {
        self.outer
    }

    /// Takes a datagram, or drops it when there is no room.
    pub(crate) fn push(&self, bytes: Bytes, from: SocketAddr) {
        let mut waiting = self.waiting.lock();
        let size = bytes.len() + OVERHEAD_BYTES;
        if waiting.bytes + size > self.bytes_max {
            return;
        }
        waiting.bytes += size;
        waiting.datagrams.push_back((bytes, from));
        drop(waiting);
        self.arrived.notify_one();
    }

    /// Where it is.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits for the next datagram; says from where it came. Giving up waiting loses none.
    pub(crate) async fn next(&self) -> (Bytes, SocketAddr) {
        loop {
            match self.pop() {
                Some(datagram) => return datagram,
                None => self.arrived.notified().await,
            }
        }
    }

    fn pop(&self) -> Option<(Bytes, SocketAddr)> {
        let mut waiting = self.waiting.lock();
        let (bytes, from) = waiting.datagrams.pop_front()?;
        waiting.bytes -= bytes.len() + OVERHEAD_BYTES;
        if !waiting.datagrams.is_empty() {
            self.arrived.notify_one();
        }
        Some((bytes, from))
    }
}

/// A bound UDP socket. Dropping it gives the port back.
pub struct UdpSocket {
    dialer: Dialer,
    queue: Arc<Queue>,
    ip: IpAddr,
    flows: Mutex<Flows>,
    outside: Mutex<HashMap<bool, OutsideSocket>>,
    _permit: Permit,
}

/// Which endpoint stands for a Service, both ways.
#[derive(Default)]
struct Flows {
    to: HashMap<SocketAddr, (SocketAddr, Instant)>,
    from: HashMap<SocketAddr, SocketAddr>,
}

/// A socket of the kernel that sends for one of a pod.
struct OutsideSocket {
    socket: Arc<tokio::net::UdpSocket>,
    /// Who has been sent to, and so may answer.
    peers: Arc<Mutex<HashSet<SocketAddr>>>,
    receiving: AbortHandle,
    _permits: (tokio::sync::OwnedSemaphorePermit, Permit),
}

impl Drop for OutsideSocket {
    fn drop(&mut self) {
        self.receiving.abort();
    }
}

impl UdpSocket {
    pub(crate) fn bind(
        dialer: &Dialer,
        pod: &Arc<Pod>,
        own: IpAddr,
        at: SocketAddr,
        queue_bytes: usize,
    ) -> Result<Self, SocketError> {
        let scope = Scope::of(at.ip(), own).ok_or(SocketError::NotOwn(at))?;
        let permit = pod.permit()?;
        let ports = &dialer.network().inner().attachments.udp;
        let taken = ports.take(own, at.port(), scope, |address| Queue::new(address, queue_bytes));
        let queue = taken.ok_or(SocketError::AddressInUse(at))?;
        let (flows, outside) = (Mutex::default(), Mutex::default());
        Ok(Self { dialer: dialer.clone(), queue, ip: at.ip(), flows, outside, _permit: permit })
    }

    /// Where it is bound, the port chosen.
    pub fn local(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.queue.address.port())
    }

    /// Sends a datagram. Nobody says whether it arrives.
    ///
    /// # Errors
    /// `DatagramTooLarge`; `Denied` when it may not go there; `Failed` when the system does not take it.
    pub async fn send_to(&self, bytes: Bytes, to: SocketAddr) -> Result<(), SocketError> {
        if bytes.len() > DATAGRAM_BYTES_MAX {
            return Err(SocketError::DatagramTooLarge { bytes: bytes.len() });
        }
        let to = SocketAddr::new(to.ip().to_canonical(), to.port());
        match self.dialer.udp_route(to, |port| self.endpoint_of(to, &port)) {
            UdpRoute::Here { queue, from } => {
                if self.may_send(queue.address, queue.outer) {
                    queue.hear_of(self.dialer.network(), SocketAddr::new(from, self.queue.address.port()));
                    queue.push(bytes, SocketAddr::new(from, self.queue.address.port()));
                }
                Ok(())
            }
            UdpRoute::There { peer, to, from } => {
                if self.may_send(to, false) {
                    let network = self.dialer.network();
                    self.queue.speak_to(network, to);
                    let from = SocketAddr::new(from, self.queue.address.port());
                    network.send_datagram(&peer, Datagram { from, to, asker: Some(from.ip()), bytes });
                }
                Ok(())
            }
            UdpRoute::Nobody => Ok(()),
            UdpRoute::Outside => self.send_outside(bytes, to).await,
        }
    }

    /// Waits for the next datagram; says from where it came. Giving up waiting loses none.
    ///
    /// # Errors
    /// When the network is going down.
    pub async fn recv_from(&self) -> Result<(Bytes, SocketAddr), SocketError> {
        let stopping = &self.dialer.network().inner().stopping;
        loop {
            if let Some((bytes, from)) = self.queue.pop() {
                let as_service = self.flows.lock().from.get(&from).copied();
                return Ok((bytes, as_service.unwrap_or(from)));
            }
            tokio::select! {
                () = self.queue.arrived.notified() => {}
                () = stopping.cancelled() => return Err(SocketError::Failed("the network is going down".to_owned())),
            }
        }
    }

    /// Whether policies let a datagram go to a pod: it may go there, or answers one that may come from there.
    fn may_send(&self, to: SocketAddr, outer: bool) -> bool {
        let policies = &self.dialer.network().inner().policies;
        let from = self.dialer.source();
        let own = self.queue.address;
        // Clients of node ports were judged when they came.
        let answers =
            || self.queue.has_heard(to) && (outer || policies.allows(Source::Ip(to.ip()), own, Protocol::Udp));
        !policies.any() || answers() || policies.judge(from, to, Protocol::Udp).is_ok()
    }

    /// The endpoint that this socket's datagrams to a Service go to: the same one while it is there and in use.
    fn endpoint_of(&self, service: SocketAddr, port: &Port) -> Option<SocketAddr> {
        let mut flows = self.flows.lock();
        let now = Instant::now();
        if let Some((endpoint, used)) = flows.to.get_mut(&service)
            && port.endpoints.iter().any(|e| e.address == *endpoint)
            && now.duration_since(*used) < FLOW_IDLE
        {
            *used = now;
            return Some(*endpoint);
        }
        let endpoint = port.for_datagrams(self.dialer.source(), Moment::now())?;
        if flows.to.len() >= PEERS_MAX {
            flows.to.retain(|_, (_, used)| now.duration_since(*used) < FLOW_IDLE);
            let Flows { to, from } = &mut *flows;
            from.retain(|endpoint, service| to.get(service).is_some_and(|(e, _)| e == endpoint));
            if to.len() >= PEERS_MAX {
                return None;
            }
        }
        flows.to.insert(service, (endpoint, now));
        flows.from.insert(endpoint, service);
        Some(endpoint)
    }

    async fn send_outside(&self, bytes: Bytes, to: SocketAddr) -> Result<(), SocketError> {
        self.dialer.may_reach(Way::Udp, to)?;
        let socket = {
            let mut outside = self.outside.lock();
            let by_family = match outside.entry(to.is_ipv6()) {
                std::collections::hash_map::Entry::Occupied(there) => there.into_mut(),
                std::collections::hash_map::Entry::Vacant(free) => free.insert(self.open_outside(to.is_ipv6())?),
            };
            let mut peers = by_family.peers.lock();
            if peers.len() >= PEERS_MAX {
                peers.clear();
            }
            peers.insert(to);
            by_family.socket.clone()
        };
        let sent = socket.send_to(&bytes, to).await;
        sent.map(|_| ()).map_err(|error| SocketError::Failed(format!("cannot send to {to}: {error}")))
    }

    fn open_outside(&self, v6: bool) -> Result<OutsideSocket, SocketError> {
        let failed = |error: std::io::Error| SocketError::Failed(format!("cannot open a UDP socket: {error}"));
        let permits = (self.dialer.network().inner().outside.permit()?, self.dialer.permit()?);
        let any: IpAddr = if v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        let socket = std::net::UdpSocket::bind(SocketAddr::new(any, 0)).map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        let socket = Arc::new(tokio::net::UdpSocket::from_std(socket).map_err(failed)?);
        let peers = Arc::new(Mutex::new(HashSet::new()));
        let way_back = (self.dialer.clone(), self.queue.clone());
        let receiving = tokio::spawn(receive(socket.clone(), peers.clone(), way_back)).abort_handle();
        Ok(OutsideSocket { socket, peers, receiving, _permits: permits })
    }
}

impl Drop for UdpSocket {
    fn drop(&mut self) {
        self.dialer.network().inner().attachments.udp.give_back(self.queue.address, &self.queue);
    }
}

/// Puts what comes from outside into a pod's queue, if it comes from somebody who was sent to.
async fn receive(
    socket: Arc<tokio::net::UdpSocket>,
    peers: Arc<Mutex<HashSet<SocketAddr>>>,
    (dialer, queue): (Dialer, Arc<Queue>),
) {
    let may_answer = |from: SocketAddr| {
        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
        dialer.network().inner().policies.allows(dialer.source(), from, Protocol::Udp)
    };
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((count, from)) if peers.lock().contains(&from) && may_answer(from) => {
                queue.push(Bytes::copy_from_slice(&buffer[..count]), from);
            }
            Ok(_) => {}
            // Somebody said that nobody listens there, most likely: the next one may fare better.
            Err(error) => {
                tracing::debug!(%error, "a UDP socket received an error");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }
}

/// Where a datagram goes.
pub(crate) enum UdpRoute {
    /// To a queue of this node, from this address of the sender.
    Here {
        queue: Arc<Queue>,
        from: IpAddr,
    },
    /// To a pod of another node.
    There {
        peer: Arc<Peer>,
        to: SocketAddr,
        from: IpAddr,
    },
    Nobody,
    Outside,
}
