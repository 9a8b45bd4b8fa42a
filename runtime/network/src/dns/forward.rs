//! Asking other servers for what is not the cluster's, where the operator has named them: one after the other, each for a
//! while, over UDP or TCP as the client asked.
//!
//! Questions under way are bounded; what is more hears that the server failed. An answer counts only from the server that
//! was asked, to the question that was asked, with a number that nobody else knows.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use domain::{
    base::{Message, MessageBuilder, Rtype},
    rdata::{A, Aaaa, Cname},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UdpSocket},
    sync::Semaphore,
    time::timeout,
};

use super::{
    message::{Way, name, text},
    zone::{Data, Record},
};

/// Questions to other servers under way at once.
const UNDER_WAY_MAX: usize = 1024;
/// How long one server may take.
const EACH: Duration = Duration::from_secs(2);
/// What an answer over UDP may have.
const DATAGRAM_BYTES_MAX: usize = 4096;
/// How long an answer to what an `ExternalName` leads to may be kept at most.
const TTL_MAX: u32 = 30;

/// The servers to ask.
pub(super) struct Upstreams {
    addresses: Vec<SocketAddr>,
    under_way: Semaphore,
}

impl Upstreams {
    pub(super) fn new(addresses: Vec<SocketAddr>) -> Self {
        Self { addresses, under_way: Semaphore::new(UNDER_WAY_MAX) }
    }

    /// Whether anybody is asked.
    pub(super) fn any(&self) -> bool {
        !self.addresses.is_empty()
    }

    /// Passes a question on; `None` when nobody answers in time.
    pub(super) async fn ask(&self, question: &[u8], way: Way) -> Option<Vec<u8>> {
        let _permit = self.under_way.try_acquire().ok()?;
        let mut asked = Message::from_octets(question.to_vec()).ok()?;
        let id = asked.header().id();
        for server in &self.addresses {
            asked.header_mut().set_id(rand::random());
            let answer = match way {
                Way::Udp => timeout(EACH, by_datagram(*server, &asked)).await,
                Way::Tcp => timeout(EACH, by_stream(*server, &asked)).await,
            };
            match answer {
                Ok(Ok(mut answer)) => {
                    answer.header_mut().set_id(id);
                    return Some(answer.into_octets());
                }
                Ok(Err(error)) => tracing::debug!(%server, %error, "a DNS server could not be asked"),
                Err(_) => tracing::debug!(%server, "a DNS server does not answer"),
            }
        }
        None
    }

    /// The addresses of a host outside, with the names on the way.
    pub(super) async fn follow(&self, host: &str, kind: Rtype) -> Vec<Record> {
        let Some(question) = question(host, kind).filter(|_| self.any()) else { return Vec::new() };
        let Some(answer) = self.ask(&question, Way::Udp).await else { return Vec::new() };
        Message::from_octets(answer).ok().map(|answer| records(&answer)).unwrap_or_default()
    }
}

fn question(host: &str, kind: Rtype) -> Option<Vec<u8>> {
    let mut builder = MessageBuilder::new_vec();
    builder.header_mut().set_rd(true);
    let mut section = builder.question();
    section.push((name(host)?, kind)).ok()?;
    Some(section.finish())
}

/// The records of an answer that lead to addresses.
fn records(answer: &Message<Vec<u8>>) -> Vec<Record> {
    let Ok(section) = answer.answer() else { return Vec::new() };
    let read = |record: domain::base::ParsedRecord<'_, Vec<u8>>| {
        let (name, ttl) = (text(&record.owner()), record.ttl().as_secs().min(TTL_MAX));
        let data = match record.rtype() {
            Rtype::A => Data::Address(IpAddr::V4(record.to_record::<A>().ok()??.data().addr())),
            Rtype::AAAA => Data::Address(IpAddr::V6(record.to_record::<Aaaa>().ok()??.data().addr())),
            Rtype::CNAME => Data::Cname(text(record.to_record::<Cname<_>>().ok()??.data().cname())),
            _ => return None,
        };
        Some(Record { name, ttl, data })
    };
    section.filter_map(|record| record.ok().and_then(read)).collect()
}

async fn by_datagram(server: SocketAddr, question: &Message<Vec<u8>>) -> io::Result<Message<Vec<u8>>> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    socket.connect(server).await?;
    socket.send(question.as_octets()).await?;
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    loop {
        let count = socket.recv(&mut buffer).await?;
        match Message::from_octets(buffer[..count].to_vec()) {
            Ok(answer) if answer.is_answer(question) => return Ok(answer),
            // Somebody guesses, or an answer to another question is late.
            _ => {}
        }
    }
}

async fn by_stream(server: SocketAddr, question: &Message<Vec<u8>>) -> io::Result<Message<Vec<u8>>> {
    let mut stream = TcpStream::connect(server).await?;
    let bytes = question.as_octets();
    let count = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&[&count.to_be_bytes()[..], bytes].concat()).await?;
    let count = stream.read_u16().await?;
    let mut answer = vec![0; usize::from(count)];
    stream.read_exact(&mut answer).await?;
    let answer = Message::from_octets(answer).map_err(io::Error::other)?;
    if answer.is_answer(question) { Ok(answer) } else { Err(io::Error::other("it answers another question")) }
}
