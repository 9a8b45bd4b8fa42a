//! Datagrams to pods of other nodes: all of them go through one stream for each node, each with its length before it. What
//! does not fit is dropped, as a kernel does; nobody waits for anybody.
//!
//! A datagram is: its payload's length (2 bytes), from where and to where the pods see it go (16 and 2 bytes each, IPv4
//! within IPv6), and who sends it, to policies (16 bytes, zeros: the node itself).

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::{HeaderValue, Method, Request, Uri};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::mpsc,
    time::timeout,
};

use super::{count::Kind, flow::Bytestream, line::Peer, wire};
use crate::{Network, policy::Source, ports::View, table::Protocol, udp::DATAGRAM_BYTES_MAX};

const HEAD_BYTES: usize = 2 + 18 + 18 + 16;
/// What may wait to be sent to one node.
const WAITING_BYTES_MAX: usize = 1 << 20;
/// Datagrams are sent together up to so many bytes.
const TOGETHER_BYTES: usize = 64 << 10;
/// How long a stream stays that carries nothing.
const IDLE: Duration = Duration::from_secs(60);

/// A datagram on its way to another node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Datagram {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    /// `None`: the node itself.
    pub(crate) asker: Option<IpAddr>,
    pub(crate) bytes: Bytes,
}

impl Datagram {
    fn write(&self, out: &mut BytesMut) {
        // Longer ones are refused when they are sent.
        out.put_u16(u16::try_from(self.bytes.len()).unwrap_or(u16::MAX));
        for address in [self.from, self.to] {
            out.put_u128(number(address.ip()));
            out.put_u16(address.port());
        }
        out.put_u128(self.asker.map_or(0, number));
        out.put_slice(&self.bytes);
    }

    /// `None` while it has not come in full.
    fn read(buffer: &mut BytesMut) -> Option<Self> {
        let length = usize::from(u16::from_be_bytes([*buffer.first()?, *buffer.get(1)?]));
        if buffer.len() < HEAD_BYTES + length {
            return None;
        }
        buffer.advance(2);
        let mut address = || SocketAddr::new(ip(buffer.get_u128()), buffer.get_u16());
        let (from, to) = (address(), address());
        let asker = Some(buffer.get_u128()).filter(|number| *number != 0).map(ip);
        // Copied, so that one that waits keeps no others in memory.
        let bytes = Bytes::copy_from_slice(&buffer[..length]);
        buffer.advance(length);
        Some(Self { from, to, asker, bytes })
    }
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().into(),
        IpAddr::V6(ip) => ip.into(),
    }
}

fn ip(number: u128) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from(number)).to_canonical()
}

/// What waits to be sent to one node.
pub(crate) struct Outbox {
    datagrams: mpsc::UnboundedSender<Datagram>,
    bytes: Arc<AtomicUsize>,
}

impl Outbox {
    /// `Err`: nobody sends any more.
    fn put(&self, datagram: Datagram) -> Result<(), Datagram> {
        let size = datagram.bytes.len() + HEAD_BYTES;
        if self.bytes.fetch_add(size, Ordering::Relaxed) + size > WAITING_BYTES_MAX {
            self.bytes.fetch_sub(size, Ordering::Relaxed);
            return Ok(());
        }
        self.datagrams.send(datagram).map_err(|error| error.0)
    }
}

impl Network {
    /// Sends a datagram to a pod of another node. Policies have been asked.
    pub(crate) fn send_datagram(&self, peer: &Arc<Peer>, datagram: Datagram) {
        let mut outbox = peer.datagrams.lock();
        let datagram = match outbox.as_ref().map(|outbox| outbox.put(datagram.clone())) {
            Some(Ok(())) => return,
            Some(Err(datagram)) => datagram,
            None => datagram,
        };
        let (datagrams, waiting) = mpsc::unbounded_channel();
        let fresh = Outbox { datagrams, bytes: Arc::default() };
        let carrying = carry(self.clone(), peer.clone(), (waiting, fresh.bytes.clone()));
        // Its receiver is here.
        let _ = fresh.put(datagram);
        *outbox = Some(fresh);
        tokio::spawn(carrying);
    }

    async fn datagrams_to(&self, peer: &Arc<Peer>) -> Option<Bytestream<super::client::Held>> {
        let mut head = Request::new(());
        *head.method_mut() = Method::CONNECT;
        *head.uri_mut() = Uri::from_static("datagrams:0");
        head.headers_mut().insert(wire::PROTOCOL, HeaderValue::from_static("datagrams"));
        let stood = timeout(self.inner().config.connect_timeout, self.stream(peer, (head, Kind::Datagrams))).await;
        let (incoming, out, held) = stood.ok()?.ok()?.ok()?;
        Some(Bytestream::new(incoming, out, held))
    }
}

/// Sends what waits until nothing has for a while, or the stream ends; what waits then is lost.
async fn carry(
    network: Network,
    peer: Arc<Peer>,
    (mut waiting, bytes): (mpsc::UnboundedReceiver<Datagram>, Arc<AtomicUsize>),
) {
    let Some(mut stream) = network.datagrams_to(&peer).await else { return };
    let mut buffer = BytesMut::new();
    while let Ok(Some(first)) = timeout(IDLE, waiting.recv()).await {
        let mut next = Some(first);
        while let Some(datagram) = next {
            bytes.fetch_sub(datagram.bytes.len() + HEAD_BYTES, Ordering::Relaxed);
            datagram.write(&mut buffer);
            next = if buffer.len() < TOGETHER_BYTES { waiting.try_recv().ok() } else { None };
        }
        if stream.write_all(&buffer).await.is_err() {
            return;
        }
        buffer.clear();
    }
}

/// For whom a node may speak.
pub(crate) trait Speaker {
    /// As whom a datagram comes to the policies; `None`: the node may not send it.
    fn source(&self, datagram: &Datagram) -> Option<Source>;
}

/// Hands what comes to the pods of this node, until the stream ends.
pub(crate) async fn deliver(network: &Network, speaker: &impl Speaker, mut stream: Bytestream<()>) {
    let mut buffer = BytesMut::with_capacity(HEAD_BYTES + DATAGRAM_BYTES_MAX);
    while stream.read_buf(&mut buffer).await.is_ok_and(|count| count > 0) {
        while let Some(datagram) = Datagram::read(&mut buffer) {
            if let Some(from) = speaker.source(&datagram) {
                hand_over(network, from, datagram);
            }
        }
    }
}

fn hand_over(network: &Network, source: Source, datagram: Datagram) {
    let inner = network.inner();
    let Datagram { from, to, bytes, .. } = datagram;
    let Some(queue) = inner.attachments.udp.get(to, View::Own) else { return };
    let policies = &inner.policies;
    // An answer is let in where its question was let out.
    let answers = || {
        let asked = || queue.has_spoken_to(from) && policies.allows(Source::Ip(to.ip()), from, Protocol::Udp);
        queue.is_outer() || asked()
    };
    if !policies.any() || answers() || policies.judge(source, to, Protocol::Udp).is_ok() {
        queue.hear_of(network, from);
        queue.push(bytes, from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_come_out_as_they_went_in() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let all = [
            Datagram { from: at("10.244.1.3:5"), to: at("10.244.2.7:53"), asker: None, bytes: Bytes::new() },
            Datagram {
                from: at("[fd00::1]:65535"),
                to: at("10.244.2.7:0"),
                asker: Some(IpAddr::from([192, 0, 2, 7])),
                bytes: Bytes::from(vec![7; DATAGRAM_BYTES_MAX]),
            },
            Datagram {
                from: at("10.244.1.3:5"),
                to: at("[fd00::2]:53"),
                asker: Some("fd00::1".parse().unwrap()),
                bytes: Bytes::from("x"),
            },
        ];
        let mut wire = BytesMut::new();
        all.iter().for_each(|datagram| datagram.write(&mut wire));
        let (mut came, mut read) = (BytesMut::new(), Vec::new());
        for piece in wire.chunks(1000) {
            came.extend_from_slice(piece);
            while let Some(datagram) = Datagram::read(&mut came) {
                read.push(datagram);
            }
        }
        assert!(read == all && came.is_empty());
    }
}
