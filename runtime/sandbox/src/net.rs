//! The pod network as a guest's sockets see it. The sandbox itself opens no socket of the host: an embedder brings these.

use std::net::{IpAddr, SocketAddr};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

/// Bytes both ways.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> ByteStream for T {}

/// An open TCP connection.
pub struct TcpConnection {
    /// The guest's end.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// What goes between them. Shutting it down for writing is the FIN; dropping it closes it. A reset by the other end is
    /// the error kind `ConnectionReset`, writing to who reads no more `BrokenPipe`.
    pub stream: Box<dyn ByteStream>,
    /// Bytes that `stream` may keep in memory of this process for the guest: charged to its container while it is open.
    pub buffer_bytes: u64,
}

/// A TCP port that is taken and not used yet. Dropping it gives the port back.
#[async_trait]
pub trait TcpPort: Send + Sync + 'static {
    /// The address, the port chosen.
    fn local(&self) -> SocketAddr;

    /// Listens. `backlog`: connections that may wait to be accepted; more are refused.
    ///
    /// # Errors
    /// When the network is going down.
    fn listen(self: Box<Self>, backlog: u32) -> Result<Box<dyn TcpListener>, SocketError>;

    /// Connects from here.
    ///
    /// # Errors
    /// In the words of `wasi:sockets`.
    async fn connect(self: Box<Self>, to: SocketAddr) -> Result<TcpConnection, SocketError>;
}

/// Listens for TCP connections. Dropping it takes the port away and refuses who waits.
#[async_trait]
pub trait TcpListener: Send + Sync + 'static {
    /// Where it listens, the port chosen.
    fn local(&self) -> SocketAddr;

    /// Waits for the next connection. Giving up waiting loses none.
    ///
    /// # Errors
    /// When the network is going down.
    async fn accept(&self) -> Result<TcpConnection, SocketError>;
}

/// A bound UDP socket. Dropping it takes the port away.
#[async_trait]
pub trait UdpSocket: Send + Sync + 'static {
    /// Where it is bound, the port chosen.
    fn local(&self) -> SocketAddr;

    /// From where a datagram to this address comes, as the other end sees it. The same as [`UdpSocket::local`] unless it is
    /// bound to all addresses.
    fn local_to(&self, to: SocketAddr) -> SocketAddr {
        let _ = to;
        self.local()
    }

    /// Sends one datagram: delivered, or lost as the network pleases.
    ///
    /// # Errors
    /// When it may not be sent there, or is too large.
    async fn send_to(&self, bytes: Bytes, to: SocketAddr) -> Result<(), SocketError>;

    /// Waits for the next datagram and says from where it came. Giving up waiting loses none.
    ///
    /// # Errors
    /// When the network is going down; `ConnectionRefused` when it knows that nobody received what was sent to an address,
    /// which guests hear that are connected to it.
    async fn recv_from(&self) -> Result<(Bytes, SocketAddr), SocketError>;
}

/// A container's way to sockets.
#[async_trait]
pub trait Sockets: Send + Sync + 'static {
    /// Connects from a port that the network chooses. Dropping the future gives up; the sandbox does after
    /// [`crate::SocketLimits::connect_timeout`].
    ///
    /// # Errors
    /// In the words of `wasi:sockets`.
    async fn connect(&self, to: SocketAddr) -> Result<TcpConnection, SocketError>;

    /// Takes a TCP port at an address of the pod: its own, `localhost` (seen by the pod's containers only) or unspecified
    /// (all of them). Port 0: any free one.
    ///
    /// # Errors
    /// When the address is not the pod's, or is taken.
    fn bind_tcp(&self, at: SocketAddr) -> Result<Box<dyn TcpPort>, SocketError>;

    /// Binds a UDP socket, as [`Sockets::bind_tcp`] does. `queue_bytes`: what may wait to be received, payload and
    /// some bytes for each datagram; more is dropped. The sandbox charges it to the container.
    ///
    /// # Errors
    /// When the address is not the pod's, or is taken.
    fn bind_udp(&self, at: SocketAddr, queue_bytes: usize) -> Result<Box<dyn UdpSocket>, SocketError>;

    /// Looks a name up; never an IP address in text, which the sandbox reads itself.
    ///
    /// # Errors
    /// `NameUnresolvable` when it means nothing here, `ResolverFailed` when asking again may help.
    async fn lookup(&self, name: &str) -> Result<Vec<IpAddr>, SocketError>;
}

/// Why a socket operation failed: the part of `wasi:sockets`' `error-code` that a network can say.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SocketError {
    /// The pod may not do this.
    #[error("access denied: {0}")]
    AccessDenied(String),
    /// Somebody else listens there.
    #[error("address in use: {0}")]
    AddressInUse(SocketAddr),
    /// The address is not one of the pod's.
    #[error("not an address of this pod: {0}")]
    AddressNotBindable(SocketAddr),
    /// Nobody listens there.
    #[error("connection refused: {0}")]
    ConnectionRefused(SocketAddr),
    /// The other end broke the connection.
    #[error("connection reset")]
    ConnectionReset,
    /// The address cannot be reached.
    #[error("unreachable: {0}")]
    RemoteUnreachable(SocketAddr),
    /// It took too long.
    #[error("timed out")]
    TimedOut,
    /// The name means nothing here.
    #[error("name not found: {0}")]
    NameUnresolvable(String),
    /// The name could not be looked up now.
    #[error("cannot look up the name now: {0}")]
    ResolverFailed(String),
    /// The pod has as many sockets as it may have.
    #[error("too many sockets: the limit is {limit}")]
    TooManySockets {
        /// The limit.
        limit: usize,
    },
    /// The datagram is larger than the network takes.
    #[error("datagram of {bytes} bytes is too large")]
    DatagramTooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Anything else.
    #[error("{0}")]
    Other(String),
}
