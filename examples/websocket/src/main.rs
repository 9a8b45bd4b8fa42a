//! A WebSocket server that says back what it is told: `std::net` and a crate, over WASI preview 1.

use std::{
    net::{TcpListener, TcpStream},
    os::fd::FromRawFd as _,
};

use tungstenite::{Error, Message, accept};

fn main() -> std::io::Result<()> {
    // Preview 1 cannot make sockets: the first `containerPort` is given, listening, as descriptor 3.
    // SAFETY: nothing else in this program has it.
    let listener = unsafe { TcpListener::from_raw_fd(3) };
    // Wasm has no threads: one client after the other. The pods of a Deployment serve many.
    for connection in listener.incoming() {
        if let Err(error) = echo(connection?) {
            println!("{error}");
        }
    }
    Ok(())
}

fn echo(connection: TcpStream) -> Result<(), Error> {
    let mut socket = accept(connection).map_err(|e| Error::Io(std::io::Error::other(e.to_string())))?;
    loop {
        match socket.read() {
            Ok(message @ (Message::Text(_) | Message::Binary(_))) => socket.send(message)?,
            Ok(_) => {}
            Err(Error::ConnectionClosed) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}
