//! Connections to pods of other nodes.

use podium_network::{Listener, SocketError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::tcp::say;

/// Sends back what comes, with the addresses that it sees.
fn echo(listener: Listener) {
    tokio::spawn(async move {
        while let Ok(mut connection) = listener.accept().await {
            tokio::spawn(async move {
                let text = format!("{} {} ", connection.local, connection.remote.ip());
                connection.stream.write_all(text.as_bytes()).await?;
                let (mut read, mut write) = tokio::io::split(connection.stream);
                tokio::io::copy(&mut read, &mut write).await?;
                write.shutdown().await
            });
        }
    });
}

fn listen(node: &Node, last: u8) -> Listener {
    node.pod(last).bind_tcp(at("0.0.0.0:8080")).unwrap().listen(0)
}

#[tokio::test]
async fn a_listener_is_reached_from_other_nodes() {
    let (a, b) = two(TunnelLimits::default()).await;
    echo(listen(&b, 7));
    a.network.put_service(service(None));
    a.network.put_slice(spread(&[b.at(7, 0)]));
    let client = a.pod(3);
    let direct = client.connect(b.at(7, 8080)).await.unwrap();
    assert_eq!((direct.local.ip(), direct.remote), (a.ip(3), b.at(7, 8080)));
    assert_eq!(say(direct, "hi").await, "10.244.2.7:8080 10.244.1.3 hi");
    let by_service = client.connect_host("web", 80).await.unwrap();
    assert_eq!(say(by_service, "hi").await, "10.244.2.7:8080 10.244.1.3 hi");
    // From a port of one's own.
    let bound = client.bind_tcp(at("0.0.0.0:5555")).unwrap().connect(b.at(7, 8080)).await.unwrap();
    assert_eq!(bound.local, a.at(3, 5555));
    let mut node = a.network.connect_pod(b.ip(7), 8080).await.unwrap();
    node.shutdown().await.unwrap();
    let mut answer = String::new();
    node.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "10.244.2.7:8080 10.244.2.1 ");
    let _handler = b.network.attach(b.ip(6), 8080, Pod::new("handler"));
    let mut listens = Vec::new();
    for last in [6, 7, 9] {
        listens.push(a.network.listens_anywhere(b.ip(last), 8080).await);
    }
    assert_eq!(listens, [false, true, false], "a handler, a socket, nobody");
    let refused = client.connect(b.at(9, 8080)).await;
    assert_eq!(refused.unwrap_err(), SocketError::Refused("nobody listens at 10.244.2.9:8080".into()));
}

#[tokio::test]
async fn much_goes_both_ways_at_once() {
    let (a, b) = two(TunnelLimits { stream_window_bytes: 70_000, ..TunnelLimits::default() }).await;
    echo(listen(&b, 7));
    let connection = a.pod(3).connect(b.at(7, 8080)).await.unwrap();
    let (mut read, mut write) = tokio::io::split(connection.stream);
    let sent: Vec<u8> = (0..2_000_000u32).map(|i| (i % 251) as u8).collect();
    let writing = async {
        write.write_all(&sent).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let mut came = Vec::new();
    let (_, count) = tokio::join!(writing, read.read_to_end(&mut came));
    let hello = "10.244.2.7:8080 10.244.1.3 ".len();
    assert_eq!(count.unwrap(), sent.len() + hello);
    assert!(came[hello..] == sent);
}

#[tokio::test]
async fn a_connection_ends_there_as_it_ends_here() {
    let (a, b) = two(TunnelLimits::default()).await;
    let listener = listen(&b, 7);
    let client = a.pod(3);
    // One direction after the other.
    let (near, far) = tokio::join!(client.connect(b.at(7, 8080)), listener.accept());
    let (mut near, mut far) = (near.unwrap(), far.unwrap());
    far.stream.shutdown().await.unwrap();
    assert_eq!(near.stream.read(&mut [0; 8]).await.unwrap(), 0, "the end of what the server says");
    near.stream.write_all(b"more").await.unwrap();
    drop(near);
    let mut read = Vec::new();
    far.stream.read_to_end(&mut read).await.unwrap();
    assert_eq!(read, b"more", "what was written before it was closed arrives");
    // One that goes with bytes unread resets it.
    let (near, far) = tokio::join!(client.connect(b.at(7, 8080)), listener.accept());
    let (mut near, mut far) = (near.unwrap(), far.unwrap());
    near.stream.write_all(b"unread").await.unwrap();
    far.stream.read_exact(&mut [0; 1]).await.unwrap();
    far.stream.write_all(b"before").await.unwrap();
    drop(far);
    let mut read = Vec::new();
    let end = near.stream.read_to_end(&mut read).await;
    assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(read, b"before", "what was written before it was reset arrives");
    until(|| count(&b.network, "podium_tunnel_streams", &["in"]) == 0.0).await;
}

#[tokio::test]
async fn node_ports_carry_bytes_to_pods_of_other_nodes() {
    let (a, b) = two(TunnelLimits::default()).await;
    echo(listen(&b, 7));
    let free = SocketAddr::from(([127, 0, 0, 1], free_port()));
    a.network.put_slice(spread(&[b.at(7, 0)]));
    a.network.put_service(service(Some(free.port())));
    let mut client = loop {
        match tokio::net::TcpStream::connect(free).await {
            Ok(client) => break client,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    client.write_all(b"from outside").await.unwrap();
    client.shutdown().await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("10.244.2.7:8080 ") && answer.ends_with(" from outside"), "{answer}");
}

#[tokio::test]
async fn upgrades_go_through() {
    let (a, b) = two(TunnelLimits::default()).await;
    let listener = listen(&b, 7);
    tokio::spawn(async move {
        while let Ok(mut connection) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(connection.stream.read_u8().await.unwrap());
            }
            assert!(String::from_utf8(head).unwrap().to_ascii_lowercase().contains("upgrade: websocket"));
            let answer = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
            connection.stream.write_all(answer.as_bytes()).await.unwrap();
            let (mut read, mut write) = tokio::io::split(connection.stream);
            tokio::io::copy(&mut read, &mut write).await.unwrap();
        }
    });
    a.network.put_service(service(None));
    a.network.put_slice(spread(&[b.at(7, 0)]));
    a.network.put_ingress(ingress(None));
    let outside = a.network.listen_ingress(at("127.0.0.1:0")).await.unwrap();
    let mut client = tokio::net::TcpStream::connect(outside).await.unwrap();
    let request = "GET /app HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    client.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    client.write_all(b"frames").await.unwrap();
    let mut back = [0; 6];
    client.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"frames");
}
