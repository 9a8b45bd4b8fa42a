//! `nc`: bytes to and from another program.

use std::{
    io::{Read as _, Write as _},
    net::SocketAddr,
    time::Duration,
};

use podium_tools::{
    Code,
    io::{Io, Options},
};

use crate::{
    net::{Connection, Datagrams, Failure, Listener, lookup},
    tasks::{FOREVER, block_on, within},
};

/// How long the answers to datagrams are waited for.
const ANSWERS: Duration = Duration::from_secs(1);

pub fn nc(args: &[String], io: &mut Io) -> Code {
    let options = Options::read(args, &["w", "p", "i", "q"]);
    let seconds = |name: &str| options.value(&[name]).and_then(|s| s.parse().ok()).map(Duration::from_secs);
    let time = seconds("w");
    if options.has(&["l"]) {
        let port = options.value(&["p"]).or(options.operands.last().map(String::as_str));
        let Some(port) = port.and_then(|port| port.parse().ok()) else { return io.fail("nc", "a port is needed") };
        return listen(port, io);
    }
    let [host, port, ..] = &options.operands[..] else { return io.fail("nc", "a host and a port are needed") };
    let Ok(port) = port.parse::<u16>() else { return io.fail("nc", format_args!("{port}: no port")) };
    let Some(Ok(found)) = block_on({
        let host = host.clone();
        async move { lookup(&host).await }
    }) else {
        return io.fail("nc", format_args!("getaddrinfo for host \"{host}\" port {port}: Name does not resolve"));
    };
    let address = SocketAddr::new(found[0], port);
    let (udp, only_look) = (options.has(&["u"]), options.has(&["z"]));
    let mut input = Vec::new();
    // What cannot be read is not sent.
    let _read = if only_look { Ok(0) } else { io.input.read_to_end(&mut input) };
    let said = |io: &mut Io, kind: &str| {
        if options.has(&["v"]) {
            let _ = io.errors.write_all(format!("Connection to {host} {port} port [{kind}/*] succeeded!\n").as_bytes());
        }
    };
    if udp {
        return match block_on(async move { datagrams(address, input, time.unwrap_or(ANSWERS)).await }) {
            Some(Ok(bytes)) => {
                said(io, "udp");
                let _ = io.output.write_all(&bytes);
                0
            }
            _ => 1,
        };
    }
    let talk = async move {
        let connection = Connection::open(address, time.unwrap_or(FOREVER)).await?;
        let mut bytes = Vec::new();
        if !only_look {
            connection.write(&input).await;
            connection.finish();
            let reading = async {
                loop {
                    let read = connection.read().await;
                    if read.is_empty() {
                        return;
                    }
                    bytes.extend(read);
                }
            };
            within(time.unwrap_or(FOREVER), reading).await;
        }
        Ok(bytes)
    };
    match block_on(talk).unwrap_or(Err(Failure::TimedOut)) {
        Ok(bytes) => {
            said(io, "tcp");
            let _ = io.output.write_all(&bytes);
            0
        }
        Err(why) => io.fail("nc", format_args!("connect to {host} ({}) port {port} (tcp) failed: {why}", address.ip())),
    }
}

async fn datagrams(to: SocketAddr, input: Vec<u8>, time: Duration) -> Result<Vec<u8>, Failure> {
    let socket = Datagrams::bind(0, Some(to)).await?;
    if !input.is_empty() {
        socket.send(input, None).await?;
    }
    let found = within(time, socket.receive()).await;
    Ok(found.and_then(Result::ok).unwrap_or_default().into_iter().flat_map(|(_, data)| data).collect())
}

/// Takes one connection: what it sends is written, what was given is sent.
fn listen(port: u16, io: &mut Io) -> Code {
    let mut out = io.output.clone();
    let serving = async move {
        let named = |code: wasip2::sockets::network::ErrorCode| code.name().to_owned();
        let listener = Listener::bind(port).await.map_err(named)?;
        let connection = listener.accept().await.map_err(named)?;
        loop {
            let read = connection.read().await;
            if read.is_empty() || out.write_all(&read).is_err() {
                return Ok::<(), String>(());
            }
        }
    };
    match block_on(serving) {
        Some(Err(why)) => io.fail("nc", format_args!("{port}: {why}")),
        _ => 0,
    }
}
