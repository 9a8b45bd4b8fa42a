//! Tries sockets by `wasi:sockets` 0.3: what to do is the first argument.

use futures::{StreamExt as _, stream};
use wasip3::{
    sockets::{
        ip_name_lookup::resolve_addresses,
        types::{ErrorCode, IpAddress, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, TcpSocket, UdpSocket},
    },
    wit_bindgen::StreamResult,
    wit_stream,
};

wasip3::cli::command::export!(Guest);

struct Guest;

impl wasip3::exports::cli::run::Guest for Guest {
    async fn run() -> Result<(), ()> {
        let args = wasip3::cli::environment::get_arguments();
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        match args[1..] {
            ["serve", port, connections] => serve(number(port), number(connections)).await,
            ["call", host, port, bytes] => call(host, number(port), number(bytes)).await,
            ["connect", host, port] => println!("{:?}", connect(host, number(port)).await.map(drop)),
            ["lookup", name] => println!("{:?}", resolve_addresses(name.to_owned()).await),
            ["udp-serve", port, datagrams] => udp_serve(number(port), number(datagrams)).await,
            ["udp-call", port] => udp_call(number(port)).await,
            ["hoard"] => hoard(),
            _ => panic!("what to do? {args:?}"),
        }
        Ok(())
    }
}

fn number<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

fn at(address: (u8, u8, u8, u8), port: u16) -> IpSocketAddress {
    IpSocketAddress::Ipv4(Ipv4SocketAddress { port, address })
}

const ANY: (u8, u8, u8, u8) = (0, 0, 0, 0);
const LOCALHOST: (u8, u8, u8, u8) = (127, 0, 0, 1);

/// Serves all connections at once: each sends back what comes, then says that this was all.
async fn serve(port: u16, connections: usize) {
    let socket = TcpSocket::create(IpAddressFamily::Ipv4).unwrap();
    socket.bind(at(ANY, port)).unwrap();
    let accepted = socket.listen().unwrap();
    println!("listening");
    let next = async |mut accepted: wasip3::wit_bindgen::StreamReader<TcpSocket>| Some((accepted.next().await?, accepted));
    let each = stream::unfold(accepted, next).take(connections).for_each_concurrent(None, async |connection| {
        println!("echoed {}", echo(connection).await);
    });
    each.await;
}

async fn echo(connection: TcpSocket) -> usize {
    let (mut incoming, received) = connection.receive();
    let (mut outgoing, data) = wit_stream::new();
    let sent = connection.send(data);
    let echo = async {
        let mut echoed = 0;
        loop {
            let (result, bytes) = incoming.read(Vec::with_capacity(64 << 10)).await;
            echoed += bytes.len();
            assert!(outgoing.write_all(bytes).await.is_empty());
            if let StreamResult::Dropped = result {
                break;
            }
        }
        outgoing.write_all(b"<end>".to_vec()).await;
        drop(outgoing);
        echoed
    };
    let (echoed, sent) = futures::join!(echo, sent.into_future());
    sent.unwrap();
    received.await.unwrap();
    echoed
}

async fn connect(host: &str, port: u16) -> Result<TcpSocket, ErrorCode> {
    let found = resolve_addresses(host.to_owned()).await.unwrap();
    let IpAddress::Ipv4(address) = found[0] else { panic!("{found:?}") };
    let socket = TcpSocket::create(IpAddressFamily::Ipv4)?;
    socket.connect(at(address, port)).await?;
    Ok(socket)
}

async fn call(host: &str, port: u16, bytes: usize) {
    let socket = connect(host, port).await.unwrap();
    let pattern: Vec<u8> = (0..bytes).map(|i| (i % 251) as u8).collect();
    let (mut outgoing, data) = wit_stream::new();
    let sent = socket.send(data);
    let (incoming, received) = socket.receive();
    let send = async {
        assert!(outgoing.write_all(pattern.clone()).await.is_empty());
        drop(outgoing);
    };
    let ((), sent, echoed) = futures::join!(send, sent.into_future(), incoming.collect());
    sent.unwrap();
    received.await.unwrap();
    let echoed = echoed.strip_suffix(b"<end>").expect("the server has said all");
    println!("received {} {}", echoed.len(), echoed == pattern);
}

async fn udp_serve(port: u16, datagrams: usize) {
    let socket = UdpSocket::create(IpAddressFamily::Ipv4).unwrap();
    socket.bind(at(ANY, port)).unwrap();
    println!("listening");
    for _ in 0..datagrams {
        let (data, from) = socket.receive().await.unwrap();
        socket.send(data, Some(from)).await.unwrap();
    }
}

async fn udp_call(port: u16) {
    let socket = UdpSocket::create(IpAddressFamily::Ipv4).unwrap();
    let server = at(LOCALHOST, port);
    socket.send(vec![7; 1400], Some(server)).await.unwrap();
    println!("{}", socket.receive().await.unwrap().0.len());
    socket.connect(server).unwrap();
    socket.send(vec![8; 65_507], None).await.unwrap();
    println!("{}", socket.receive().await.unwrap().0.len());
    println!("{:?}", socket.send(vec![9; 65_508], None).await);
}

fn hoard() {
    let mut sockets = Vec::new();
    let code = loop {
        match TcpSocket::create(IpAddressFamily::Ipv4) {
            Ok(socket) => sockets.push(socket),
            Err(code) => break code,
        }
    };
    println!("{} {code:?}", sockets.len());
}
