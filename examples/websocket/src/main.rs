//! A WebSocket server that says back what it is told: the sockets of `wasi:sockets` 0.2, and the crate tungstenite.

use std::io::{self, Read, Write};

use tungstenite::{Error, Message, accept};
use wasip2::{
    io::streams::{InputStream, OutputStream, StreamError},
    sockets::{
        instance_network::instance_network,
        network::{ErrorCode, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress},
        tcp::TcpSocket,
        tcp_create_socket::create_tcp_socket,
    },
};

const PORT: u16 = 8080;

fn main() {
    let listener = listen().unwrap_or_else(|error| panic!("cannot listen at port {PORT}: {error}"));
    println!("listening at port {PORT}");
    // One client after the other: the pods of a Deployment serve many.
    loop {
        match accepted(&listener) {
            Ok(connection) => echo(connection).unwrap_or_else(|error| println!("{error}")),
            Err(error) => println!("a connection could not be accepted: {error}"),
        }
    }
}

fn listen() -> Result<TcpSocket, ErrorCode> {
    let socket = create_tcp_socket(IpAddressFamily::Ipv4)?;
    let any = Ipv4SocketAddress { port: PORT, address: (0, 0, 0, 0) };
    socket.start_bind(&instance_network(), IpSocketAddress::Ipv4(any))?;
    socket.finish_bind()?;
    socket.start_listen()?;
    socket.finish_listen()?;
    Ok(socket)
}

fn accepted(listener: &TcpSocket) -> Result<Connection, ErrorCode> {
    loop {
        match listener.accept() {
            Err(ErrorCode::WouldBlock) => listener.subscribe().block(),
            accepted => return accepted.map(|(socket, input, output)| Connection { output, input, _socket: socket }),
        }
    }
}

fn echo(connection: Connection) -> Result<(), Error> {
    let mut socket = accept(connection).map_err(|error| Error::Io(io::Error::other(error.to_string())))?;
    loop {
        match socket.read() {
            Ok(message @ (Message::Text(_) | Message::Binary(_))) => socket.send(message)?,
            Ok(_) => {}
            Err(Error::ConnectionClosed) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// Dropped in this order: streams go before their socket.
struct Connection {
    output: OutputStream,
    input: InputStream,
    _socket: TcpSocket,
}

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.input.blocking_read(buffer.len() as u64) {
            Ok(bytes) => {
                buffer[..bytes.len()].copy_from_slice(&bytes);
                Ok(bytes.len())
            }
            Err(StreamError::Closed) => Ok(0),
            Err(error) => Err(io::Error::other(error.to_string())),
        }
    }
}

impl Write for Connection {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // So much is taken at once.
        let now = &bytes[..bytes.len().min(4096)];
        self.output.blocking_write_and_flush(now).map_err(|error| io::Error::other(error.to_string()))?;
        Ok(now.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
