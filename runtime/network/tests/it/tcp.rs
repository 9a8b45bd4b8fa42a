//! TCP within the process: who reaches whom, how connections end, what is bounded.

use podium_network::{Connection, Listener, NetworkConfig, SocketError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::*;

fn listen(dialer: &Dialer, on: &str) -> Listener {
    dialer.bind_tcp(at(on)).unwrap().listen(0)
}

/// Sends back what comes, with the addresses that it sees.
fn echo(listener: Listener) {
    tokio::spawn(async move {
        while let Ok(mut connection) = listener.accept().await {
            tokio::spawn(async move {
                let mut text = format!("{} {} ", connection.local, connection.remote.ip());
                connection.stream.read_to_string(&mut text).await.unwrap();
                connection.stream.write_all(text.as_bytes()).await.unwrap();
            });
        }
    });
}

/// Says something and nothing more; answers with what comes back.
pub(crate) async fn say(mut connection: Connection, words: &str) -> String {
    connection.stream.write_all(words.as_bytes()).await.unwrap();
    connection.stream.shutdown().await.unwrap();
    let mut answer = String::new();
    connection.stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_listener_is_reached_by_every_name_that_it_has() {
    let network = network();
    network.put_service(service(None));
    network.put_slice(slice(&[1], &[]));
    echo(listen(&pod(&network, 1), "0.0.0.0:8080"));
    let other = pod(&network, 2);
    let connection = other.connect(at("10.244.0.1:8080")).await.unwrap();
    assert_eq!((connection.local.ip(), connection.remote), (ip(2), at("10.244.0.1:8080")));
    assert_eq!(say(connection, "hi").await, "10.244.0.1:8080 10.244.0.2 hi");
    let by_service = other.connect(at("10.96.0.10:80")).await.unwrap();
    assert_eq!(by_service.remote, at("10.96.0.10:80"));
    assert_eq!(say(by_service, "hi").await, "10.244.0.1:8080 10.244.0.2 hi");
    assert_eq!(say(other.connect_host("web", 80).await.unwrap(), "x").await, "10.244.0.1:8080 10.244.0.2 x");
    for local in ["127.0.0.1:8080", "[::1]:8080", "[::ffff:127.0.0.1]:8080"] {
        let connection = pod(&network, 1).connect(at(local)).await.unwrap();
        let seen = connection.remote;
        assert_eq!(say(connection, "x").await, format!("{seen} {} x", seen.ip()), "{local}");
    }
    let mut node = network.connect_pod(ip(1), 8080).await.unwrap();
    node.write_all(b"node").await.unwrap();
    node.shutdown().await.unwrap();
    let mut answer = String::new();
    node.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "10.244.0.1:8080 10.244.0.1 node");
}

#[tokio::test]
async fn localhost_is_the_pods_own() {
    let network = network();
    echo(listen(&pod(&network, 1), "127.0.0.1:7000"));
    let sibling = pod(&network, 1);
    assert_eq!(say(sibling.connect(at("127.0.0.1:7000")).await.unwrap(), "x").await, "127.0.0.1:7000 127.0.0.1 x");
    let refused = |error| assert!(matches!(error, SocketError::Refused(_)), "{error:?}");
    refused(pod(&network, 2).connect(at("127.0.0.1:7000")).await.unwrap_err());
    refused(pod(&network, 2).connect(at("10.244.0.1:7000")).await.unwrap_err());
    assert!(matches!(network.connect_pod(ip(1), 7000).await, Err(CallError::Refused(_))));
}

#[tokio::test]
async fn ports_are_taken_and_given_back() {
    let network = network();
    let dialer = pod(&network, 1);
    let first = listen(&dialer, "0.0.0.0:80");
    let taken = |result: Result<_, SocketError>| result.map(|_| ()).unwrap_err();
    assert_eq!(taken(dialer.bind_tcp(at("10.244.0.1:80"))), SocketError::AddressInUse(at("10.244.0.1:80")));
    assert_eq!(taken(dialer.bind_tcp(at("10.244.0.9:80"))), SocketError::NotOwn(at("10.244.0.9:80")));
    // A port that is taken but not listened at refuses.
    let bound = dialer.bind_tcp(at("0.0.0.0:81")).unwrap();
    assert!(matches!(dialer.connect(at("127.0.0.1:81")).await, Err(SocketError::Refused(_))));
    assert!(!network.is_attached(ip(1), 81) && network.is_attached(ip(1), 80));
    drop((first, bound));
    assert!(!network.is_attached(ip(1), 80));
    let any = listen(&dialer, "0.0.0.0:0");
    assert!(any.local().port() >= 49_152);
    // From a port of one's own.
    echo(listen(&dialer, "0.0.0.0:80"));
    let port = dialer.bind_tcp(at("0.0.0.0:5555")).unwrap();
    let connection = port.connect(at("10.244.0.1:80")).await.unwrap();
    assert_eq!(connection.local, at("10.244.0.1:5555"));
    assert!(dialer.bind_tcp(at("0.0.0.0:5555")).is_err(), "held while the connection is open");
    drop(connection);
    assert!(dialer.bind_tcp(at("0.0.0.0:5555")).is_ok());
}

#[tokio::test]
async fn a_connection_ends_as_tcp_ends() {
    let network = network();
    let listener = listen(&pod(&network, 1), "0.0.0.0:80");
    let client = pod(&network, 2);
    let (connected, accepted) = tokio::join!(client.connect(at("10.244.0.1:80")), listener.accept());
    let (mut connected, mut accepted) = (connected.unwrap(), accepted.unwrap());
    connected.stream.write_all(b"unread").await.unwrap();
    accepted.stream.shutdown().await.unwrap();
    assert_eq!(connected.stream.read(&mut [0; 8]).await.unwrap(), 0, "the end of what the server says");
    connected.stream.write_all(b" more").await.unwrap();
    drop(accepted);
    let read = connected.stream.read(&mut [0; 8]).await.unwrap_err();
    assert_eq!(read.kind(), std::io::ErrorKind::ConnectionReset);
    // Who waits in a backlog when the listener goes is reset or finds the end.
    let mut waiting = client.connect(at("10.244.0.1:80")).await.unwrap();
    drop(listener);
    assert_eq!(waiting.stream.read(&mut [0; 8]).await.unwrap(), 0);
    assert!(waiting.stream.write_all(b"x").await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_full_backlog_makes_clients_wait_and_then_give_up() {
    let network = network();
    let listener = pod(&network, 1).bind_tcp(at("0.0.0.0:80")).unwrap().listen(2);
    let client = pod(&network, 2);
    let _held =
        [client.connect(at("10.244.0.1:80")).await.unwrap(), client.connect(at("10.244.0.1:80")).await.unwrap()];
    let late = client.connect(at("10.244.0.1:80")).await.unwrap_err();
    assert_eq!(late, SocketError::TimedOut("10.244.0.1:80 accepted no connection within 10s".into()));
    let next = tokio::join!(client.connect(at("10.244.0.1:80")), listener.accept());
    assert!(next.0.is_ok() && next.1.is_ok(), "room again");
}

#[tokio::test]
async fn a_pod_has_so_many_sockets_and_no_more() {
    let network = Network::new(NetworkConfig { sockets_per_pod_max: 3, ..NetworkConfig::default() });
    let server = pod(&network, 1);
    let listener = listen(&server, "0.0.0.0:80");
    let client = pod(&network, 2);
    let mut open = Vec::new();
    for _ in 0..2 {
        open.push(client.connect(at("10.244.0.1:80")).await.unwrap());
    }
    // The server's end: a listener and two connections that wait.
    assert!(
        matches!(client.connect(at("10.244.0.1:80")).await, Err(SocketError::Refused(why)) if why.contains("too many"))
    );
    let _third = client.bind_udp(at("0.0.0.0:0"), 1024).unwrap();
    assert_eq!(client.bind_tcp(at("0.0.0.0:0")).map(|_| ()).unwrap_err(), SocketError::TooMany { limit: 3 });
    // Another container of the pod has no sockets of its own.
    assert!(pod(&network, 2).bind_udp(at("0.0.0.0:0"), 1024).is_err());
    open.clear();
    drop(listener);
    assert!(client.bind_tcp(at("0.0.0.0:0")).is_ok());
}

#[tokio::test]
async fn connections_to_a_service_are_shared_among_its_pods() {
    let network = network();
    network.put_service(service(None));
    network.put_slice(slice(&[1, 2, 3], &[]));
    // The third pod does not listen.
    let listeners = [1, 2].map(|last| listen(&pod(&network, last), "0.0.0.0:8080"));
    let client = pod(&network, 9);
    let mut open = Vec::new();
    for _ in 0..40 {
        open.push(client.connect(at("10.96.0.10:80")).await.unwrap());
    }
    let mut counts = Vec::new();
    for listener in &listeners {
        let mut count = 0;
        while let Ok(Ok(_)) = tokio::time::timeout(Duration::from_millis(1), listener.accept()).await {
            count += 1;
        }
        counts.push(count);
    }
    assert_eq!(counts.iter().sum::<i32>(), 40);
    // By connections that are open, so evenly.
    assert!(counts.iter().all(|count| (18..=22).contains(count)), "{counts:?}");
    network.put_slice(slice(&[], &[]));
    assert!(matches!(client.connect(at("10.96.0.10:80")).await, Err(SocketError::Refused(_))));
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_listens_is_drained() {
    let network = network();
    network.put_service(service(None));
    network.put_slice(slice(&[1], &[]));
    let server = pod(&network, 1);
    let listener = listen(&server, "0.0.0.0:8080");
    let client = pod(&network, 2);
    let open = client.connect(at("10.96.0.10:80")).await.unwrap();
    let _accepted = listener.accept().await.unwrap();
    let drain = tokio::spawn(async move { server.drain(Duration::from_secs(30)).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(client.connect(at("10.96.0.10:80")).await.is_ok(), "while it is routed");
    let _late = listener.accept().await.unwrap();
    network.put_slice(slice(&[], &[1]));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!drain.is_finished() && client.connect(at("10.244.0.1:8080")).await.is_err());
    drop((open, _accepted, _late));
    assert!(drain.await.unwrap());
    // What listens to nothing has nothing to drain.
    assert!(client.drain(Duration::ZERO).await);
}

#[tokio::test]
async fn names_resolve_to_addresses() {
    let network = network();
    network.put_service(service(None));
    let headless = Service { cluster_ip: None, name: Name::new("default", "db"), ..service(None) };
    network.put_service(headless);
    let endpoint = |last, hostname: &str, ready| Endpoint {
        ip: ip(last),
        hostname: Some(hostname.into()),
        ready,
        serving: ready,
        terminating: false,
        place: Place::default(),
    };
    let endpoints = vec![endpoint(1, "db-0", true), endpoint(2, "db-1", true), endpoint(3, "db-2", false)];
    network.put_slice(Slice { service: "db".into(), name: Name::new("default", "db-x"), endpoints, ..slice(&[], &[]) });
    let dialer = pod(&network, 9);
    for (name, expected) in [
        ("web", Ok("10.96.0.10")),
        ("web.default.svc.cluster.local", Ok("10.96.0.10")),
        ("db", Ok("10.244.0.1 10.244.0.2")),
        ("db-1.db", Ok("10.244.0.2")),
        ("db-1.db.default.svc.cluster.local", Ok("10.244.0.2")),
        ("localhost", Ok("127.0.0.1")),
        ("pod-9", Ok("10.244.0.9")),
        ("nope", Err(SocketError::NameNotFound("nope".into()))),
        ("db-2.db.default.svc", Err(SocketError::NameNotFound("db-2.db.default.svc".into()))),
    ] {
        let found = dialer.lookup(name).await;
        let found = found.map(|ips| ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "));
        assert_eq!(found, expected.map(str::to_owned), "{name}");
    }
}

#[tokio::test]
async fn a_node_port_carries_what_its_pods_speak() {
    let network = network();
    let free = SocketAddr::from(([127, 0, 0, 1], free_port()));
    network.put_slice(slice(&[1], &[]));
    echo(listen(&pod(&network, 1), "0.0.0.0:8080"));
    network.put_service(service(Some(free.port())));
    let mut stream = loop {
        match tokio::net::TcpStream::connect(free).await {
            Ok(stream) => break stream,
            Err(_) => tokio::task::yield_now().await,
        }
    };
    stream.write_all(b"\x00\x01 no HTTP").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    // A client on the host does not look like one in the pod.
    assert_eq!(answer, "10.244.0.1:8080 10.244.0.1 \x00\x01 no HTTP");
    // One that stays silent does not keep the network from going down.
    let _silent = tokio::net::TcpStream::connect(free).await.unwrap();
    tokio::time::timeout(Duration::from_secs(5), network.shutdown(Duration::from_secs(60))).await.unwrap();
}
