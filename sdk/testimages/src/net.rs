//! Sockets of `wasi:sockets`: connections, listeners, datagrams, names.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use wasip2::{
    io::streams::{InputStream, OutputStream, StreamError},
    sockets::{
        instance_network::instance_network,
        ip_name_lookup::resolve_addresses,
        network::{ErrorCode, IpAddress, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, Ipv6SocketAddress},
        tcp::{ShutdownType, TcpSocket},
        tcp_create_socket::create_tcp_socket,
        udp::{IncomingDatagramStream, OutgoingDatagram, OutgoingDatagramStream, UdpSocket},
        udp_create_socket::create_udp_socket,
    },
};

use crate::tasks::{wait, within};

/// Most bytes of one read.
const READ_BYTES: u64 = 64 << 10;

/// Why there is no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    Refused,
    TimedOut,
    NoSuchName,
    Other(ErrorCode),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused => f.write_str("connection refused"),
            Self::TimedOut => f.write_str("i/o timeout"),
            Self::NoSuchName => f.write_str("no such host"),
            Self::Other(code) => f.write_str(code.name()),
        }
    }
}

impl From<ErrorCode> for Failure {
    fn from(code: ErrorCode) -> Self {
        match code {
            ErrorCode::ConnectionRefused | ErrorCode::ConnectionReset => Self::Refused,
            ErrorCode::Timeout => Self::TimedOut,
            ErrorCode::NameUnresolvable | ErrorCode::TemporaryResolverFailure | ErrorCode::PermanentResolverFailure => {
                Self::NoSuchName
            }
            other => Self::Other(other),
        }
    }
}

fn to_wasi(address: SocketAddr) -> IpSocketAddress {
    let port = address.port();
    match address.ip() {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            IpSocketAddress::Ipv4(Ipv4SocketAddress { port, address: (a, b, c, d) })
        }
        IpAddr::V6(ip) => {
            let [a, b, c, d, e, f, g, h] = ip.segments();
            let address = (a, b, c, d, e, f, g, h);
            IpSocketAddress::Ipv6(Ipv6SocketAddress { port, flow_info: 0, address, scope_id: 0 })
        }
    }
}

fn of_wasi(address: IpSocketAddress) -> SocketAddr {
    match address {
        IpSocketAddress::Ipv4(at) => SocketAddr::new(ip(IpAddress::Ipv4(at.address)), at.port),
        IpSocketAddress::Ipv6(at) => SocketAddr::new(ip(IpAddress::Ipv6(at.address)), at.port),
    }
}

fn ip(address: IpAddress) -> IpAddr {
    match address {
        IpAddress::Ipv4((a, b, c, d)) => Ipv4Addr::new(a, b, c, d).into(),
        IpAddress::Ipv6((a, b, c, d, e, f, g, h)) => Ipv6Addr::new(a, b, c, d, e, f, g, h).into(),
    }
}

fn family(address: SocketAddr) -> IpAddressFamily {
    if address.is_ipv4() { IpAddressFamily::Ipv4 } else { IpAddressFamily::Ipv6 }
}

fn anywhere(port: u16) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)
}

/// Addresses of a name, or of the address that it is.
///
/// # Errors
/// When nobody has this name.
pub async fn lookup(name: &str) -> Result<Vec<IpAddr>, Failure> {
    if let Ok(address) = name.trim_matches(['[', ']']).parse() {
        return Ok(vec![address]);
    }
    let found = resolve_addresses(&instance_network(), name)?;
    let mut addresses = Vec::new();
    loop {
        match found.resolve_next_address() {
            Ok(Some(address)) => addresses.push(ip(address)),
            Ok(None) if addresses.is_empty() => return Err(Failure::NoSuchName),
            Ok(None) => return Ok(addresses),
            Err(ErrorCode::WouldBlock) => wait(found.subscribe()).await,
            Err(code) => return Err(code.into()),
        }
    }
}

/// Where something listens for connections.
pub struct Listener(TcpSocket);

impl Listener {
    /// Listens on all addresses of the pod.
    ///
    /// # Errors
    /// When the port is taken.
    pub async fn bind(port: u16) -> Result<Self, ErrorCode> {
        let socket = create_tcp_socket(IpAddressFamily::Ipv4)?;
        socket.start_bind(&instance_network(), to_wasi(anywhere(port)))?;
        until(&socket, TcpSocket::finish_bind).await?;
        socket.start_listen()?;
        until(&socket, TcpSocket::finish_listen).await?;
        Ok(Self(socket))
    }

    pub async fn accept(&self) -> Result<Connection, ErrorCode> {
        let (socket, input, output) = until(&self.0, TcpSocket::accept).await?;
        Ok(Connection { output, input, socket })
    }
}

async fn until<T>(socket: &TcpSocket, step: impl Fn(&TcpSocket) -> Result<T, ErrorCode>) -> Result<T, ErrorCode> {
    loop {
        match step(socket) {
            Err(ErrorCode::WouldBlock) => wait(socket.subscribe()).await,
            result => return result,
        }
    }
}

/// A connection. Fields are dropped in this order: streams go before their socket.
pub struct Connection {
    output: OutputStream,
    input: InputStream,
    socket: TcpSocket,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// When nobody answers, or not in time.
    pub async fn open(address: SocketAddr, time: Duration) -> Result<Self, Failure> {
        let connecting = async {
            let socket = create_tcp_socket(family(address))?;
            socket.start_connect(&instance_network(), to_wasi(address))?;
            let (input, output) = until(&socket, TcpSocket::finish_connect).await?;
            Ok(Self { output, input, socket })
        };
        within(time, connecting).await.unwrap_or(Err(Failure::TimedOut))
    }

    /// Who is at the other end.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.socket.remote_address().ok().map(of_wasi)
    }

    /// What has come; nothing at the end.
    pub async fn read(&self) -> Vec<u8> {
        loop {
            match self.input.read(READ_BYTES) {
                Ok(bytes) if bytes.is_empty() => wait(self.input.subscribe()).await,
                Ok(bytes) => return bytes,
                Err(_) => return Vec::new(),
            }
        }
    }

    /// Writes everything. False: the other end is gone.
    pub async fn write(&self, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.output.check_write() {
                Ok(0) => wait(self.output.subscribe()).await,
                Ok(room) => {
                    let (now, later) = rest.split_at(rest.len().min(usize::try_from(room).unwrap_or(usize::MAX)));
                    if self.output.write(now).is_err() {
                        return false;
                    }
                    rest = later;
                }
                Err(StreamError::Closed | StreamError::LastOperationFailed(_)) => return false,
            }
        }
        true
    }

    /// Says that no more comes from here.
    pub fn finish(&self) {
        // Whoever is gone need not be told.
        let _gone = self.socket.shutdown(ShutdownType::Send);
    }
}

/// A socket for datagrams. Streams go before their socket.
pub struct Datagrams {
    incoming: IncomingDatagramStream,
    outgoing: OutgoingDatagramStream,
    socket: UdpSocket,
}

impl Datagrams {
    /// Binds a port, or any with 0; `to`: the only one that it talks with.
    ///
    /// # Errors
    /// When the port is taken.
    pub async fn bind(port: u16, to: Option<SocketAddr>) -> Result<Self, ErrorCode> {
        let socket = create_udp_socket(to.map_or(IpAddressFamily::Ipv4, family))?;
        socket.start_bind(&instance_network(), to_wasi(anywhere(port)))?;
        while let Err(code) = socket.finish_bind() {
            if code != ErrorCode::WouldBlock {
                return Err(code);
            }
            wait(socket.subscribe()).await;
        }
        let (incoming, outgoing) = socket.stream(to.map(to_wasi))?;
        Ok(Self { incoming, outgoing, socket })
    }

    pub fn local(&self) -> Option<SocketAddr> {
        self.socket.local_address().ok().map(of_wasi)
    }

    pub async fn receive(&self) -> Result<Vec<(SocketAddr, Vec<u8>)>, ErrorCode> {
        loop {
            let found = self.incoming.receive(16)?;
            if !found.is_empty() {
                return Ok(found.into_iter().map(|d| (of_wasi(d.remote_address), d.data)).collect());
            }
            wait(self.incoming.subscribe()).await;
        }
    }

    /// Sends; `to` must be left out when it talks with one alone.
    pub async fn send(&self, data: Vec<u8>, to: Option<SocketAddr>) -> Result<(), ErrorCode> {
        while self.outgoing.check_send()? == 0 {
            wait(self.outgoing.subscribe()).await;
        }
        self.outgoing.send(&[OutgoingDatagram { data, remote_address: to.map(to_wasi) }]).map(drop)
    }
}
