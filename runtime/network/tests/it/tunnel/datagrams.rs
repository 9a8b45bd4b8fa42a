//! Datagrams to pods of other nodes.

use std::collections::BTreeMap;

use podium_network::{NetworkPolicy, PodFacts, PolicyPeer, PolicyRule, Selector, UdpSocket};

use super::*;

const QUEUE: usize = 1 << 20;

fn bind(dialer: &Dialer) -> UdpSocket {
    dialer.bind_udp(at("0.0.0.0:53"), QUEUE).unwrap()
}

/// Answers with what comes and from where it came.
fn echo(socket: UdpSocket) {
    tokio::spawn(async move {
        while let Ok((bytes, from)) = socket.recv_from().await {
            let text = format!("{} {}", from.ip(), String::from_utf8_lossy(&bytes));
            socket.send_to(Bytes::from(text), from).await.unwrap();
        }
    });
}

/// Asks until an answer comes: datagrams may be lost, the first ones above all.
async fn ask(socket: &UdpSocket, to: SocketAddr, words: &str) -> (String, SocketAddr) {
    loop {
        socket.send_to(Bytes::copy_from_slice(words.as_bytes()), to).await.unwrap();
        let answer = tokio::time::timeout(Duration::from_millis(500), socket.recv_from()).await;
        if let Ok(Ok((bytes, from))) = answer {
            return (String::from_utf8(bytes.to_vec()).unwrap(), from);
        }
    }
}

fn udp(node_port: Option<u16>) -> Service {
    let ports = vec![ServicePort { name: "http".into(), protocol: Protocol::Udp, port: 53, node_port }];
    Service { ports, ..service(None) }
}

#[tokio::test]
async fn datagrams_reach_pods_of_other_nodes_and_their_answers_come_back() {
    let (a, b) = two(TunnelLimits::default()).await;
    echo(bind(&b.pod(7)));
    let client = bind(&a.pod(3));
    let (answer, from) = ask(&client, b.at(7, 53), "direct").await;
    assert_eq!((answer.as_str(), from), ("10.244.1.3 direct", b.at(7, 53)));
    a.network.put_service(udp(None));
    a.network.put_slice(Slice { ports: vec![("http".into(), 53)], ..spread(&[b.at(7, 0)]) });
    let (answer, from) = ask(&client, at("10.96.0.10:53"), "by a service").await;
    assert_eq!((answer.as_str(), from), ("10.244.1.3 by a service", at("10.96.0.10:53")));
    let large = "x".repeat(60_000);
    let (answer, _) = ask(&client, b.at(7, 53), &large).await;
    assert_eq!(answer, format!("10.244.1.3 {large}"));
    assert_eq!(count(&a.network, "podium_tunnel_streams", &["out", "datagrams"]), 1.0, "one for all");
}

#[tokio::test]
async fn clients_of_node_ports_reach_pods_of_other_nodes() {
    let (a, b) = two(TunnelLimits::default()).await;
    echo(bind(&b.pod(7)));
    let free = SocketAddr::from(([127, 0, 0, 1], free_port()));
    a.network.put_slice(Slice { ports: vec![("http".into(), 53)], ..spread(&[b.at(7, 0)]) });
    a.network.put_service(udp(Some(free.port())));
    let client = tokio::net::UdpSocket::bind(("127.0.0.1", 0)).await.unwrap();
    let mut buffer = [0; 64];
    let count = loop {
        client.send_to(b"hello", free).await.unwrap();
        let answer = tokio::time::timeout(Duration::from_millis(500), client.recv(&mut buffer)).await;
        if let Ok(Ok(count)) = answer {
            break count;
        }
    };
    assert_eq!(&buffer[..count], b"10.244.1.1 hello");
}

#[tokio::test]
async fn policies_hold_and_answers_are_no_questions() {
    let (a, b) = two(TunnelLimits::default()).await;
    let facts = |name: &str, ip: IpAddr| PodFacts {
        name: Name::new("default", name),
        ips: vec![ip],
        labels: Arc::new(BTreeMap::from([("app".to_owned(), name.to_owned())])),
        ports: Vec::new(),
    };
    for network in [&a.network, &b.network] {
        for (name, ip) in [("friend", a.ip(3)), ("stranger", a.ip(4)), ("server", b.ip(7))] {
            network.put_pod(facts(name, ip));
        }
    }
    let closed = |app: &str, ingress| NetworkPolicy {
        name: Name::new("default", app),
        pods: Selector::label("app", app),
        ingress: Some(ingress),
        egress: None,
    };
    // Nobody may come in to the friend: answers may. Only the friend may come in to the server.
    a.network.put_policy(closed("friend", Vec::new()));
    let peers = vec![PolicyPeer::Pods { namespaces: None, pods: Selector::label("app", "friend") }];
    b.network.put_policy(closed("server", vec![PolicyRule { peers, ports: Vec::new() }]));
    let server = bind(&b.pod(7));
    let (friend, stranger) = (bind(&a.pod(3)), bind(&a.pod(4)));
    for (node, from, to) in [(&b, &stranger, b.at(7, 53)), (&a, &server, a.at(3, 53))] {
        let metric = "podium_network_policy_decisions_total";
        while count(&node.network, metric, &["default", "ingress", "denied"]) == 0.0 {
            from.send_to(Bytes::from("no"), to).await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    echo(server);
    let (answer, from) = ask(&friend, b.at(7, 53), "yes").await;
    assert_eq!((answer.as_str(), from), ("10.244.1.3 yes", b.at(7, 53)));
}

#[tokio::test]
async fn a_node_sends_no_datagrams_of_others() {
    let (a, b) = two(TunnelLimits::default()).await;
    let server = bind(&b.pod(7));
    let caller = Caller {
        namespace: "default".into(),
        pod: "x".into(),
        service_account: "robot".into(),
        ip: Some(IpAddr::from([10, 244, 9, 9])),
    };
    let spoofing = bind(&a.network.dialer(caller));
    while count(&b.network, "podium_tunnel_failures_total", &["spoofed"]) == 0.0 {
        spoofing.send_to(Bytes::from("forged"), b.at(7, 53)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    bind(&a.pod(3)).send_to(Bytes::from("own"), b.at(7, 53)).await.unwrap();
    assert_eq!(server.recv_from().await.unwrap(), (Bytes::from("own"), a.at(3, 53)));
}
