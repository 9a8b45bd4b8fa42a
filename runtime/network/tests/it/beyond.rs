//! Services whose endpoints are no pods, through Ingresses and node ports.

use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use podium_network::NamespaceEgress;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    http_tcp::{echoing, upgrade},
    *,
};

/// A server outside, with whom the protocol `echo` can be spoken.
async fn server() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let server = hyper::server::conn::http1::Builder::new();
            tokio::spawn(server.serve_connection(TokioIo::new(stream), service_fn(echoing)).with_upgrades());
        }
    });
    address
}

/// A network whose Service `web` leads to an address outside, and its Ingress.
async fn leading_to(address: SocketAddr, host_targets: &str) -> (Network, SocketAddr) {
    let host_targets = host_targets.parse().unwrap();
    let network = Network::new(NetworkConfig { host_targets, ..NetworkConfig::default() });
    network.put_service(service(None));
    let mut outside = slice(&[1], &[]);
    outside.ports = vec![("http".to_owned(), address.port())];
    outside.endpoints[0].ip = address.ip();
    network.put_slice(outside);
    network.put_ingress(ingress(Some("a.test")));
    let ingress = network.listen_ingress(([127, 0, 0, 1], 0).into()).await.unwrap();
    (network, ingress)
}

#[tokio::test]
async fn an_ingress_leads_to_a_server_outside() {
    let server = server().await;
    let (network, address) = leading_to(server, &server.to_string()).await;
    for _ in 0..3 {
        assert_eq!(fetch(address, "a.test", "/app").await, (StatusCode::OK, "HTTP/1.1 GET a.test/app 0".into()));
    }
    let (mut stream, answer) = upgrade(address, "echo").await;
    assert!(answer.starts_with("http/1.1 101 "), "{answer}");
    stream.write_all(b"no HTTP").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).await.unwrap();
    assert_eq!(said, "no HTTP");
    // What the namespace allows at most holds for what is kept open too.
    let most = |hosts: &str| NamespaceEgress { default: None, max: Some(hosts.parse().unwrap()) };
    network.put_namespace("default", most("10.0.0.1:80"));
    let (status, why) = fetch(address, "a.test", "/app").await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(why.contains("service default/web leads to 127.0.0.1"), "{why}");
    network.put_namespace("default", most("127.0.0.0/8:*"));
    assert_eq!(fetch(address, "a.test", "/app").await.0, StatusCode::OK);
}

#[tokio::test]
async fn the_hosts_own_addresses_are_the_operators_to_grant() {
    let server = server().await;
    let (network, address) = leading_to(server, "").await;
    let (status, why) = fetch(address, "a.test", "/app").await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(why.contains("--allow-host-network-targets"), "{why}");
    // A pod that was granted nothing reaches nothing, whatever Ingresses may.
    let (granted, _) = leading_to(server, &server.to_string()).await;
    assert!(matches!(get(&granted, "http://web/app").await, Err(CallError::Denied(_))));
    drop(network);
}

#[tokio::test]
async fn a_node_port_carries_bytes_to_a_server_outside() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut heard = [0; 5];
        stream.read_exact(&mut heard).await.unwrap();
        stream.write_all(b"heard ").await.unwrap();
        stream.write_all(&heard).await.unwrap();
    });
    let (network, _) = leading_to(server, &server.to_string()).await;
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    network.put_service(service(Some(free.port())));
    let mut stream = connected(free).await;
    stream.write_all(b"hello").await.unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).await.unwrap();
    assert_eq!(said, "heard hello");
}

/// A connection, as soon as somebody listens.
async fn connected(to: SocketAddr) -> tokio::net::TcpStream {
    for _ in 0..500 {
        if let Ok(stream) = tokio::net::TcpStream::connect(to).await {
            return stream;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("nobody listens at {to}");
}
