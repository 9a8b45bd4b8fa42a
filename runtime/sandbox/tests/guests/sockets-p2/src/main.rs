//! Tries sockets by `wasi:sockets` 0.2: what to do is the first argument.

use std::net::Ipv4Addr;

use wasip2::{
    clocks::monotonic_clock::subscribe_duration,
    io::{
        poll::poll,
        streams::{InputStream, OutputStream, StreamError},
    },
    sockets::{
        instance_network::instance_network,
        ip_name_lookup::resolve_addresses,
        network::{ErrorCode, IpAddress, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, Network},
        tcp::{ShutdownType, TcpSocket},
        tcp_create_socket::create_tcp_socket,
        udp::{OutgoingDatagram, UdpSocket},
        udp_create_socket::create_udp_socket,
    },
};

fn main() {
    let args: Vec<_> = std::env::args().collect();
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    match args[1..] {
        ["serve", port, connections] => serve(number(port), number(connections)),
        ["call", host, port, bytes] => call(host, number(port), number(bytes)),
        ["connect", host, port] => println!("{:?}", connect(host, number(port)).map(drop)),
        ["lookup", name] => println!("{:?}", lookup(name)),
        ["udp-serve", port, datagrams] => udp_serve(number(port), number(datagrams)),
        ["udp-call", port] => udp_call(number(port)),
        ["twice", port] => twice(number(port)),
        ["fill", port] => fill(number(port)),
        ["hoard", what] => hoard(what),
        ["polls", port, times] => polls(number(port), number(times)),
        ["leave", port] => leave(number(port)),
        ["fields"] => fields(),
        _ => panic!("what to do? {args:?}"),
    }
}

fn number<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

fn at(ip: Ipv4Addr, port: u16) -> IpSocketAddress {
    let [a, b, c, d] = ip.octets();
    IpSocketAddress::Ipv4(Ipv4SocketAddress { port, address: (a, b, c, d) })
}

fn tcp() -> Result<TcpSocket, ErrorCode> {
    create_tcp_socket(IpAddressFamily::Ipv4)
}

fn listen(port: u16) -> Result<TcpSocket, ErrorCode> {
    let socket = tcp()?;
    bind(&socket, &instance_network(), port)?;
    socket.start_listen()?;
    socket.finish_listen()?;
    Ok(socket)
}

fn bind(socket: &TcpSocket, network: &Network, port: u16) -> Result<(), ErrorCode> {
    socket.start_bind(network, at(Ipv4Addr::UNSPECIFIED, port))?;
    socket.finish_bind()
}

fn accept(listener: &TcpSocket) -> (TcpSocket, InputStream, OutputStream) {
    loop {
        match listener.accept() {
            Err(ErrorCode::WouldBlock) => listener.subscribe().block(),
            accepted => return accepted.unwrap(),
        }
    }
}

/// Dropped in this order: streams go before their socket.
struct Connection {
    output: OutputStream,
    input: InputStream,
    socket: TcpSocket,
}

fn connect(host: &str, port: u16) -> Result<Connection, ErrorCode> {
    let IpAddress::Ipv4((a, b, c, d)) = lookup(host)?[0] else { return Err(ErrorCode::NotSupported) };
    let socket = tcp()?;
    socket.start_connect(&instance_network(), at(Ipv4Addr::new(a, b, c, d), port))?;
    loop {
        match socket.finish_connect() {
            Err(ErrorCode::WouldBlock) => socket.subscribe().block(),
            connected => return connected.map(|(input, output)| Connection { output, input, socket }),
        }
    }
}

fn lookup(name: &str) -> Result<Vec<IpAddress>, ErrorCode> {
    let found = resolve_addresses(&instance_network(), name)?;
    let mut addresses = Vec::new();
    loop {
        match found.resolve_next_address() {
            Ok(Some(address)) => addresses.push(address),
            Ok(None) => return Ok(addresses),
            Err(ErrorCode::WouldBlock) => found.subscribe().block(),
            Err(code) => return Err(code),
        }
    }
}

/// Sends back what comes, until the other end has sent all; then says so.
fn serve(port: u16, connections: u32) {
    let listener = listen(port).unwrap();
    println!("listening");
    for _ in 0..connections {
        let (socket, input, output) = accept(&listener);
        let mut echoed = 0;
        loop {
            match input.blocking_read(64 << 10) {
                Ok(bytes) => {
                    echoed += bytes.len();
                    write_all(&output, &bytes);
                }
                Err(StreamError::Closed) => break,
                Err(error) => panic!("{error:?}"),
            }
        }
        write_all(&output, b"<end>");
        socket.shutdown(ShutdownType::Send).unwrap();
        println!("echoed {echoed} to {:?}", socket.remote_address().is_ok());
    }
}

fn write_all(output: &OutputStream, bytes: &[u8]) {
    let mut rest = bytes;
    while !rest.is_empty() {
        match output.check_write().unwrap() {
            0 => output.subscribe().block(),
            room => {
                let (now, later) = rest.split_at(rest.len().min(room as usize));
                output.write(now).unwrap();
                rest = later;
            }
        }
    }
}

/// Sends and receives at the same time, stops sending, receives the rest.
fn call(host: &str, port: u16, bytes: usize) {
    let Connection { socket, input, output } = connect(host, port).unwrap();
    let pattern: Vec<u8> = (0..bytes).map(|i| (i % 251) as u8).collect();
    let (mut rest, mut received) = (&pattern[..], Vec::new());
    let mut output = Some(output);
    loop {
        if let Some(open) = &output {
            let room = open.check_write().unwrap() as usize;
            let (now, later) = rest.split_at(rest.len().min(room));
            open.write(now).unwrap();
            rest = later;
            if rest.is_empty() {
                socket.shutdown(ShutdownType::Send).unwrap();
                output = None;
            }
        }
        match input.read(64 << 10) {
            Ok(bytes) if bytes.is_empty() => {
                let (readable, writable) = (input.subscribe(), output.as_ref().map(OutputStream::subscribe));
                let mut waited = vec![&readable];
                waited.extend(&writable);
                poll(&waited);
            }
            Ok(bytes) => received.extend(bytes),
            Err(StreamError::Closed) => break,
            Err(error) => panic!("{error:?}"),
        }
    }
    let echoed = received.strip_suffix(b"<end>").expect("the server has said all");
    println!("received {} {}", echoed.len(), echoed == pattern);
}

fn udp() -> Result<UdpSocket, ErrorCode> {
    create_udp_socket(IpAddressFamily::Ipv4)
}

fn bound_udp(port: u16) -> UdpSocket {
    let socket = udp().unwrap();
    socket.start_bind(&instance_network(), at(Ipv4Addr::UNSPECIFIED, port)).unwrap();
    socket.finish_bind().unwrap();
    socket
}

fn udp_serve(port: u16, datagrams: usize) {
    let socket = bound_udp(port);
    let (incoming, outgoing) = socket.stream(None).unwrap();
    println!("listening");
    let mut left = datagrams;
    while left > 0 {
        incoming.subscribe().block();
        for datagram in incoming.receive(16).unwrap() {
            left -= 1;
            while outgoing.check_send().unwrap() == 0 {
                outgoing.subscribe().block();
            }
            let back = OutgoingDatagram { data: datagram.data, remote_address: Some(datagram.remote_address) };
            assert_eq!(outgoing.send(&[back]).unwrap(), 1);
        }
    }
}

/// One datagram unconnected, one connected, one too large.
fn udp_call(port: u16) {
    let server = at(Ipv4Addr::LOCALHOST, port);
    let socket = bound_udp(0);
    for connected in [false, true] {
        let (incoming, outgoing) = socket.stream(connected.then_some(server)).unwrap();
        let to = (!connected).then_some(server);
        let datagram = |data: Vec<u8>| OutgoingDatagram { data, remote_address: to };
        outgoing.check_send().unwrap();
        outgoing.send(&[datagram(vec![7; 1400])]).unwrap();
        incoming.subscribe().block();
        let received = &incoming.receive(16).unwrap()[0];
        println!("{connected} {} {:?}", received.data.len(), received.remote_address);
        outgoing.check_send().unwrap();
        println!("{:?}", outgoing.send(&[datagram(vec![0; 65_508])]));
    }
}

fn twice(port: u16) {
    let first = listen(port);
    println!("{:?} {:?}", first.as_ref().map(|_| ()), listen(port).map(drop));
    drop(first);
    println!("{:?}", listen(port).map(drop));
    let socket = tcp().unwrap();
    println!("{:?} {:?}", socket.start_listen(), socket.finish_bind());
}

/// Writes to somebody who does not read, for as long as there is room.
fn fill(port: u16) {
    let connection = connect("localhost", port).unwrap();
    let output = &connection.output;
    let mut written = 0;
    loop {
        let room = output.check_write().unwrap() as usize;
        if room == 0 {
            break;
        }
        output.write(&vec![1; room]).unwrap();
        written += room;
    }
    let ready = poll(&[&output.subscribe(), &subscribe_duration(20_000_000)]);
    println!("wrote {written}, then {}", if ready == [1] { "no more" } else { "more" });
}

/// Takes of one thing as much as there is.
fn hoard(what: &str) {
    let (mut tcp_sockets, mut udp_sockets, mut lookups, mut pairs) = (vec![], vec![], vec![], vec![]);
    let network = instance_network();
    let listener = (what == "connections").then(|| listen(7000).unwrap());
    let mut count = 0;
    let code = loop {
        let made = match what {
            "tcp" => tcp().map(|socket| tcp_sockets.push(socket)),
            "listeners" => listen(0).map(|socket| tcp_sockets.push(socket)),
            "udp" => udp().map(|socket| udp_sockets.push(socket)),
            "ports" => udp().and_then(|socket| {
                socket.start_bind(&network, at(Ipv4Addr::UNSPECIFIED, 0))?;
                udp_sockets.push(socket);
                Ok(())
            }),
            "lookups" => resolve_addresses(&network, "slow.test").map(|found| {
                let _ = found.resolve_next_address();
                lookups.push(found);
            }),
            "connections" => connect("localhost", 7000).and_then(|near| {
                let (socket, input, output) = listener.as_ref().unwrap().accept()?;
                pairs.push((near, Connection { output, input, socket }));
                Ok(())
            }),
            _ => panic!("{what}"),
        };
        match made {
            Ok(()) => count += 1,
            Err(code) => break code,
        }
    };
    println!("{count} {code:?}");
}

/// Asks again and again whether something is ready that is.
fn polls(port: u16, times: u32) {
    let connection = connect("localhost", port).unwrap();
    let output = &connection.output;
    let ready = output.subscribe();
    let mut count = 0;
    for _ in 0..times {
        count += poll(&[&ready]).len();
    }
    println!("{count}");
}

/// Writes more than the connection holds and ends at once.
fn leave(port: u16) {
    let connection = connect("localhost", port).unwrap();
    let output = &connection.output;
    let room = output.check_write().unwrap() as usize;
    output.write(&vec![3; room]).unwrap();
    println!("{room}");
}

fn fields() {
    let socket = tcp().unwrap();
    socket.set_keep_alive_enabled(true).unwrap();
    socket.set_hop_limit(9).unwrap();
    let wrong_family = socket.start_bind(
        &instance_network(),
        IpSocketAddress::Ipv6(wasip2::sockets::network::Ipv6SocketAddress {
            port: 0,
            flow_info: 0,
            address: (0, 0, 0, 0, 0, 0, 0, 1),
            scope_id: 0,
        }),
    );
    let foreign = socket.start_bind(&instance_network(), at(Ipv4Addr::new(192, 0, 2, 1), 0));
    println!("{:?} {:?} {wrong_family:?} {foreign:?}", socket.keep_alive_enabled(), socket.hop_limit());
}
