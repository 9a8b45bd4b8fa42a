//! DNS for clients outside the sandbox: the names that guests have, over UDP and TCP. Guests need none of it; their hosts
//! look names up for them.
//!
//! Only the cluster's names are answered; others are refused unless the operator has named servers to ask. Bounded are
//! connections, how long they may be quiet, the bytes of a question, and questions to other servers under way. Answers over
//! UDP are made at once and never queue.

mod forward;
mod message;
mod zone;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use domain::base::iana::OptRcode;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::Semaphore,
    time::timeout,
};

use self::{
    forward::Upstreams,
    message::{Asked, Unreadable, Way},
    zone::Zone,
};
use crate::{ListenError, Network};

/// Connections at once; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 256;
/// How long a connection may be quiet, and how long a question or an answer may take on its way.
const IDLE: Duration = Duration::from_secs(10);
/// Bytes of a question: one name and EDNS have far fewer.
const QUESTION_BYTES_MAX: usize = 4096;
/// Ports tried when any will do: it has to be free for UDP and for TCP.
const PORTS_TRIED: usize = 16;

/// Where names are answered, and who is asked for others.
#[derive(Debug, Clone)]
pub struct DnsConfig {
    /// Where to listen, by UDP and TCP; port 0: any that is free.
    pub listen: SocketAddr,
    /// Servers for names that are not the cluster's, asked one after the other; none: such questions are refused.
    pub upstreams: Vec<SocketAddr>,
}

/// One listener.
struct Server {
    network: Network,
    upstreams: Upstreams,
    own: Option<IpAddr>,
}

impl Network {
    /// Answers names of the cluster for clients outside the sandbox; returns the address bound.
    ///
    /// # Errors
    /// The address is taken or not ours.
    pub async fn listen_dns(&self, config: DnsConfig) -> Result<SocketAddr, ListenError> {
        let (udp, tcp) = bind(config.listen).await.map_err(|e| ListenError::new(config.listen, &e))?;
        let bound = udp.local_addr().map_err(|e| ListenError::new(config.listen, &e))?;
        let own = Some(bound.ip()).filter(|ip| !ip.is_unspecified());
        let server = Server { network: self.clone(), upstreams: Upstreams::new(config.upstreams), own };
        let (server, inner) = (Arc::new(server), self.inner());
        inner.tasks.spawn(server.clone().serve_udp(Arc::new(udp)));
        inner.tasks.spawn(server.serve_tcp(tcp));
        Ok(bound)
    }
}

async fn bind(at: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let mut tried = 0;
    loop {
        let udp = UdpSocket::bind(at).await?;
        tried += 1;
        match TcpListener::bind(udp.local_addr()?).await {
            Ok(tcp) => return Ok((udp, tcp)),
            Err(error) if at.port() != 0 || tried == PORTS_TRIED => return Err(error),
            Err(_) => {}
        }
    }
}

/// What is to be done with what came.
enum Next {
    Nothing,
    Send(Vec<u8>),
    /// Somebody else has to be asked first.
    Ask,
}

impl Server {
    async fn serve_udp(self: Arc<Self>, socket: Arc<UdpSocket>) {
        let stopping = self.network.inner().stopping.clone();
        let mut buffer = vec![0; QUESTION_BYTES_MAX];
        loop {
            let received = tokio::select! {
                received = socket.recv_from(&mut buffer) => received,
                () = stopping.cancelled() => return,
            };
            match received {
                Ok((count, client)) => self.datagram(&socket, &buffer[..count], client).await,
                // A client that has gone, most likely: the next one may fare better.
                Err(error) => {
                    tracing::debug!(%error, "the DNS listener received an error");
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        }
    }

    async fn datagram(self: &Arc<Self>, socket: &Arc<UdpSocket>, bytes: &[u8], client: SocketAddr) {
        match self.look(bytes, Way::Udp) {
            Next::Nothing => {}
            Next::Send(answer) => send(socket, &answer, client).await,
            Next::Ask => {
                let (server, socket, bytes) = (self.clone(), socket.clone(), bytes.to_vec());
                // Bounded by what may be under way to other servers.
                tokio::spawn(async move {
                    if let Some(answer) = server.ask(&bytes, Way::Udp).await {
                        send(&socket, &answer, client).await;
                    }
                });
            }
        }
    }

    async fn serve_tcp(self: Arc<Self>, listener: TcpListener) {
        let inner = self.network.inner();
        let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(permit) = connections.clone().acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = inner.stopping.cancelled() => return,
            };
            match accepted {
                Ok((stream, client)) => {
                    let (server, stopping) = (self.clone(), inner.stopping.clone());
                    inner.tasks.spawn(async move {
                        let served = tokio::select! {
                            served = server.connection(stream) => served,
                            () = stopping.cancelled() => Ok(()),
                        };
                        if let Err(error) = served {
                            tracing::debug!(%client, %error, "a DNS connection ended early");
                        }
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a DNS connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Answers question after question, in their order.
    async fn connection(&self, mut stream: TcpStream) -> io::Result<()> {
        let mut bytes = Vec::new();
        loop {
            let count = match timeout(IDLE, stream.read_u16()).await {
                Err(_) => return Ok(()),
                Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Ok(count) => usize::from(count?),
            };
            if count > QUESTION_BYTES_MAX {
                return Err(io::Error::other(format!("a question of {count} bytes")));
            }
            bytes.resize(count, 0);
            timeout(IDLE, stream.read_exact(&mut bytes)).await??;
            let answer = match self.look(&bytes, Way::Tcp) {
                Next::Nothing => return Err(io::Error::other("something that is no question")),
                Next::Send(answer) => Some(answer),
                Next::Ask => self.ask(&bytes, Way::Tcp).await,
            };
            let Some(answer) = answer else { return Ok(()) };
            let count = u16::try_from(answer.len()).map_err(io::Error::other)?;
            timeout(IDLE, stream.write_all(&[&count.to_be_bytes()[..], &answer].concat())).await??;
        }
    }

    /// Answers what can be answered here and now.
    fn look(&self, bytes: &[u8], way: Way) -> Next {
        let asked = match Asked::read(bytes, way) {
            Ok(asked) => asked,
            Err(Unreadable::Dropped) => return Next::Nothing,
            Err(Unreadable::Refused(answer, rcode)) => {
                self.count(way, rcode);
                return Next::Send(answer);
            }
        };
        let forwards = self.upstreams.any();
        match self.zone(|zone| zone.answer(&asked.question)) {
            Some(answer) if forwards && answer.outside.is_some() => Next::Ask,
            Some(answer) => {
                let (answer, rcode) = asked.answer(&answer, forwards);
                self.count(way, rcode);
                Next::Send(answer)
            }
            None if forwards && asked.wants_recursion() => Next::Ask,
            None => {
                self.count(way, OptRcode::REFUSED);
                Next::Send(asked.refuse(OptRcode::REFUSED))
            }
        }
    }

    /// Answers with the help of other servers.
    async fn ask(&self, bytes: &[u8], way: Way) -> Option<Vec<u8>> {
        let asked = Asked::read(bytes, way).ok()?;
        let (answer, rcode) = match self.zone(|zone| zone.answer(&asked.question)) {
            // The name of a Service that leads to a host outside.
            Some(mut answer) => {
                if let Some(host) = answer.outside.take() {
                    answer.records.extend(self.upstreams.follow(&host, asked.question.kind).await);
                }
                asked.answer(&answer, true)
            }
            None => match self.upstreams.ask(asked.bytes(), way).await {
                Some(answer) => (answer, OptRcode::NOERROR),
                None => (asked.refuse(OptRcode::SERVFAIL), OptRcode::SERVFAIL),
            },
        };
        self.count(way, rcode);
        Some(answer)
    }

    fn zone<T>(&self, look: impl FnOnce(Zone<'_>) -> T) -> T {
        let inner = self.network.inner();
        look(Zone {
            domain: &inner.config.cluster_domain,
            services: &inner.services,
            namespace: &|name| inner.policies.has_namespace(name),
            is_cluster: &|ip| inner.is_cluster(ip),
            own: self.own,
        })
    }

    fn count(&self, way: Way, rcode: OptRcode) {
        let way = if way == Way::Udp { "udp" } else { "tcp" };
        self.network.inner().metrics.asked(way, &rcode.to_string());
    }
}

async fn send(socket: &UdpSocket, answer: &[u8], client: SocketAddr) {
    if let Err(error) = socket.send_to(answer, client).await {
        tracing::debug!(%client, %error, "a DNS answer could not be sent");
    }
}
