//! Datagrams between pods.

use podium_network::{SocketError, UdpSocket};

use crate::*;

const QUEUE: usize = 64 << 10;

async fn receive(socket: &UdpSocket) -> (String, SocketAddr) {
    let (bytes, from) = tokio::time::timeout(Duration::from_secs(5), socket.recv_from()).await.unwrap().unwrap();
    (String::from_utf8(bytes.to_vec()).unwrap(), from)
}

#[tokio::test]
async fn datagrams_go_there_and_back() {
    let network = network();
    let server = pod(&network, 1).bind_udp(at("0.0.0.0:53"), QUEUE).unwrap();
    let client = pod(&network, 2).bind_udp(at("0.0.0.0:0"), QUEUE).unwrap();
    let port = client.local().port();
    client.send_to(Bytes::from("q"), at("10.244.0.1:53")).await.unwrap();
    assert_eq!(receive(&server).await, ("q".into(), SocketAddr::new(ip(2), port)));
    server.send_to(Bytes::from("a"), SocketAddr::new(ip(2), port)).await.unwrap();
    assert_eq!(receive(&client).await, ("a".into(), at("10.244.0.1:53")));
    // To the containers of its own pod.
    let sibling = pod(&network, 1).bind_udp(at("127.0.0.1:0"), QUEUE).unwrap();
    sibling.send_to(Bytes::from("l"), at("127.0.0.1:53")).await.unwrap();
    assert_eq!(receive(&server).await, ("l".into(), sibling.local()));
    // Nobody is there: lost, as datagrams are.
    client.send_to(Bytes::from("x"), at("10.244.0.7:53")).await.unwrap();
    let large = client.send_to(Bytes::from(vec![0; 65_508]), at("10.244.0.1:53")).await;
    assert_eq!(large, Err(SocketError::DatagramTooLarge { bytes: 65_508 }));
    assert!(matches!(client.send_to(Bytes::new(), at("192.0.2.77:53")).await, Err(SocketError::Denied(_))));
    let taken = pod(&network, 1).bind_udp(at("10.244.0.1:53"), QUEUE).map(|_| ());
    assert_eq!(taken, Err(SocketError::AddressInUse(at("10.244.0.1:53"))));
}

#[tokio::test]
async fn a_queue_that_is_full_drops() {
    let network = network();
    let server = pod(&network, 1).bind_udp(at("0.0.0.0:53"), 1000).unwrap();
    let client = pod(&network, 2).bind_udp(at("0.0.0.0:0"), QUEUE).unwrap();
    for n in 0..100 {
        client.send_to(Bytes::from(format!("{n:0>100}")), at("10.244.0.1:53")).await.unwrap();
    }
    let mut received = 0;
    while tokio::time::timeout(Duration::from_millis(1), server.recv_from()).await.is_ok() {
        received += 1;
    }
    assert_eq!(received, 1000 / (100 + 64));
    client.send_to(Bytes::from("again"), at("10.244.0.1:53")).await.unwrap();
    assert_eq!(receive(&server).await.0, "again");
}

#[tokio::test]
async fn a_service_answers_in_its_own_name_and_stays_with_one_pod() {
    let network = network();
    let ports = vec![ServicePort { name: "dns".into(), protocol: Protocol::Udp, port: 53, node_port: None }];
    network.put_service(Service { ports, ..service(None) });
    network.put_slice(Slice { ports: vec![("dns".into(), 5353)], ..slice(&[1, 2], &[]) });
    for last in [1, 2] {
        let server = pod(&network, last).bind_udp(at("0.0.0.0:5353"), QUEUE).unwrap();
        tokio::spawn(async move {
            while let Ok((bytes, from)) = server.recv_from().await {
                let answer = format!("{last}:{}", String::from_utf8_lossy(&bytes));
                server.send_to(Bytes::from(answer), from).await.unwrap();
            }
        });
    }
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..64 {
        let client = pod(&network, 9).bind_udp(at("0.0.0.0:0"), QUEUE).unwrap();
        let mut one = std::collections::BTreeSet::new();
        for _ in 0..4 {
            client.send_to(Bytes::from("q"), at("10.96.0.10:53")).await.unwrap();
            let (answer, from) = receive(&client).await;
            assert_eq!(from, at("10.96.0.10:53"));
            one.insert(answer);
        }
        assert_eq!(one.len(), 1, "a flow stays with its pod");
        seen.extend(one);
    }
    assert_eq!(seen.len(), 2, "both pods get some");
}

#[tokio::test]
async fn a_node_port_carries_datagrams() {
    let network = network();
    let free = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let port = |node_port| vec![ServicePort { name: "dns".into(), protocol: Protocol::Udp, port: 53, node_port }];
    network.put_slice(Slice { ports: vec![("dns".into(), 5353)], ..slice(&[2, 3], &[]) });
    for last in [2, 3] {
        let server = pod(&network, last).bind_udp(at("0.0.0.0:5353"), QUEUE).unwrap();
        tokio::spawn(async move {
            while let Ok((bytes, from)) = server.recv_from().await {
                // A client on the host does not look like one in the pod.
                assert_eq!(from.ip(), at("10.244.0.1:0").ip());
                let answer = format!("{last}:{}", String::from_utf8_lossy(&bytes));
                server.send_to(Bytes::from(answer), from).await.unwrap();
            }
        });
    }
    network.put_service(Service { ports: port(Some(free.port())), ..service(None) });
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..32 {
        let client = tokio::net::UdpSocket::bind(("127.0.0.1", 0)).await.unwrap();
        client.connect(free).await.unwrap();
        let mut one = std::collections::BTreeSet::new();
        while one.len() < 3 {
            let question = format!("{}", one.len());
            let mut buffer = [0; 100];
            let asked = async {
                client.send(question.as_bytes()).await?;
                client.recv(&mut buffer).await
            };
            // The port may not be bound yet, and says so.
            let Ok(Ok(count)) = tokio::time::timeout(Duration::from_secs(1), asked).await else { continue };
            let answer = String::from_utf8(buffer[..count].to_vec()).unwrap();
            one.insert(answer.split_once(':').map(|(pod, said)| (said.to_owned(), pod.to_owned())).unwrap());
        }
        let pods: std::collections::BTreeSet<_> = one.into_iter().map(|(_, pod)| pod).collect();
        assert_eq!(pods.len(), 1, "a client stays with its pod");
        seen.extend(pods);
    }
    assert_eq!(seen.into_iter().collect::<String>(), "23");
    network.put_service(Service { ports: port(None), ..service(None) });
    while std::net::UdpSocket::bind(free).is_err() {
        tokio::task::yield_now().await;
    }
}
