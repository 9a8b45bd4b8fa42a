//! Services at addresses outside: load balancers', `externalIPs`, ports of health checks.

use podium_network::{IpRange, OuterPort, RemoteNode, SocketError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

fn port(protocol: Protocol, address: SocketAddr) -> OuterPort {
    let number = if protocol == Protocol::Tcp { 80 } else { 53 };
    OuterPort { address, protocol, service: Name::new("default", "web"), port: number }
}

/// What is answered to a GET, or that nothing is.
async fn curl(at: SocketAddr) -> Option<String> {
    let mut stream = tokio::net::TcpStream::connect(at).await.ok()?;
    let request = "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
}

#[tokio::test]
async fn a_port_at_an_address_of_its_own_lets_in_whom_it_may() {
    let network = network();
    network.put_service(service(None));
    network.put_slice(slice(&[1], &[]));
    let _pod = network.attach(ip(1), 8080, Pod::new("one"));
    let listener = network.listen_service(port(Protocol::Tcp, at("127.0.0.1:0")), Vec::new()).await.unwrap();
    let address = listener.address();
    assert_eq!(curl(address).await.as_deref(), Some("one"));
    let range = |text: &str| vec![text.parse::<IpRange>().unwrap()];
    listener.allow(range("10.0.0.0/8"));
    assert_eq!(curl(address).await, None, "outside the ranges");
    listener.allow(range("127.0.0.0/8"));
    assert_eq!(curl(address).await.as_deref(), Some("one"));
    let again = network.listen_service(port(Protocol::Tcp, address), Vec::new()).await;
    assert_eq!(again.map(drop).unwrap_err().reason, "the port is already in use");
    listener.close().await;
    let again = network.listen_service(port(Protocol::Tcp, address), range("10.0.0.0/8")).await.unwrap();
    assert_eq!(curl(again.address()).await, None);
}

#[tokio::test]
async fn datagrams_of_a_client_come_back_to_its_pod() {
    let network = network();
    let ports = vec![ServicePort { name: "dns".into(), protocol: Protocol::Udp, port: 53, node_port: None }];
    let traffic = Traffic { affinity: Some(Duration::from_secs(60)), ..Traffic::default() };
    network.put_service(Service { ports, traffic, ..service(None) });
    network.put_slice(Slice { ports: vec![("dns".into(), 5353)], ..slice(&[2, 3, 4], &[]) });
    for last in [2, 3, 4] {
        let server = pod(&network, last).bind_udp(at("0.0.0.0:5353"), 64 << 10).unwrap();
        tokio::spawn(async move {
            while let Ok((_, from)) = server.recv_from().await {
                server.send_to(Bytes::from(vec![last]), from).await.unwrap();
            }
        });
    }
    let listener = network.listen_service(port(Protocol::Udp, at("127.0.0.1:0")), Vec::new()).await.unwrap();
    let (mut outside, mut guest) = (Vec::new(), Vec::new());
    for _ in 0..24 {
        let client = tokio::net::UdpSocket::bind(("127.0.0.1", 0)).await.unwrap();
        client.send_to(b"?", listener.address()).await.unwrap();
        let mut answer = [0; 8];
        let count = client.recv(&mut answer).await.unwrap();
        outside.push(answer[..count].to_vec());
        let client = pod(&network, 9).bind_udp(at("0.0.0.0:0"), 64 << 10).unwrap();
        client.send_to(Bytes::from("?"), at("10.96.0.10:53")).await.unwrap();
        guest.push(client.recv_from().await.unwrap().0.to_vec());
    }
    for mut all in [outside, guest] {
        all.dedup();
        assert_eq!(all.len(), 1, "one client, one pod");
    }
}

#[tokio::test]
async fn guests_reach_a_service_at_its_addresses_outside() {
    let network = network();
    let reached_at = vec!["192.0.2.1".parse().unwrap()];
    let with = |name: &str, reached_at: &[IpAddr]| Service {
        name: Name::new("default", name),
        cluster_ip: None,
        traffic: Traffic { reached_at: reached_at.to_vec(), ..Traffic::default() },
        ..service(None)
    };
    network.put_service(with("web", &reached_at));
    network.put_slice(slice(&[1], &[]));
    let _pod = network.attach(ip(1), 8080, Pod::new("one"));
    assert_eq!(get(&network, "http://192.0.2.1/").await.as_deref(), Ok("one"));
    let denied = |answer: Result<String, CallError>| matches!(answer, Err(CallError::Denied(_)));
    assert!(denied(get(&network, "http://192.0.2.1:81/").await), "its other ports are somebody else's");
    let stream = pod(&network, 9).connect(at("192.0.2.1:80")).await;
    assert!(stream.is_ok(), "{stream:?}");
    let other = pod(&network, 9).connect(at("192.0.2.1:81")).await;
    assert!(matches!(other, Err(SocketError::Denied(_))), "{other:?}");
    // Another one that wants the same does not get it, nor takes it away.
    network.put_service(with("thief", &reached_at));
    assert_eq!(get(&network, "http://192.0.2.1/").await.as_deref(), Ok("one"));
    network.remove_service(&Name::new("default", "thief"));
    assert_eq!(get(&network, "http://192.0.2.1/").await.as_deref(), Ok("one"));
    network.put_service(with("web", &[]));
    assert!(denied(get(&network, "http://192.0.2.1/").await));
}

#[tokio::test]
async fn guests_reach_node_ports_at_the_nodes_addresses() {
    let network = network();
    let free = free_port();
    let dns = ServicePort { name: "dns".into(), protocol: Protocol::Udp, port: 53, node_port: Some(free) };
    let mut ports = service(Some(free)).ports;
    ports.push(dns);
    network.put_service(Service { ports, ..service(None) });
    network.put_slice(Slice { ports: vec![("http".into(), 8080), ("dns".into(), 5353)], ..slice(&[1], &[]) });
    let _pod = network.attach(ip(1), 8080, Pod::new("one"));
    let server = pod(&network, 1).bind_udp(at("0.0.0.0:5353"), 64 << 10).unwrap();
    let there = SocketAddr::new([192, 0, 2, 7].into(), free);
    let url = format!("http://{there}/");
    let denied = |answer: Result<String, CallError>| matches!(answer, Err(CallError::Denied(_)));
    assert!(denied(get(&network, &url).await), "it is nobody's address");
    network.locate_at(there.ip());
    assert_eq!(get(&network, &url).await.as_deref(), Ok("one"));
    assert!(pod(&network, 9).connect(there).await.is_ok());
    let client = pod(&network, 9).bind_udp(at("0.0.0.0:0"), 64 << 10).unwrap();
    client.send_to(Bytes::from("?"), there).await.unwrap();
    let (_, from) = server.recv_from().await.unwrap();
    server.send_to(Bytes::from("!"), from).await.unwrap();
    assert_eq!(client.recv_from().await.unwrap(), (Bytes::from("!"), there), "answers come from where was asked");
    let other = SocketAddr::new(there.ip(), free ^ 1);
    assert!(denied(get(&network, &format!("http://{other}/")).await), "other ports of a node are its own");
    let far = RemoteNode {
        name: "n2".into(),
        address: at("192.0.2.8:1"),
        pod_cidrs: vec!["10.245.0.0/24".parse::<IpRange>().unwrap()],
    };
    network.set_nodes(vec![far]);
    assert_eq!(get(&network, &format!("http://192.0.2.8:{free}/")).await.as_deref(), Ok("one"));
    network.put_service(service(None));
    assert!(denied(get(&network, &url).await), "it is no node port any more");
}

#[tokio::test]
async fn a_node_says_whether_it_has_endpoints() {
    let network = network();
    network.locate("n1", None);
    let placed = |node: &str| {
        let mut slice = slice(&[1, 2], &[]);
        slice.endpoints[0].place.node = Some(node.to_owned());
        slice.endpoints[1].place.node = Some("n2".to_owned());
        slice
    };
    network.put_service(service(None));
    network.put_slice(placed("n1"));
    let listener = network.listen_health(at("127.0.0.1:0"), Name::new("default", "web")).await.unwrap();
    let url = listener.address();
    let text = |local: u8| {
        format!(
            "{{\n\t\"service\": {{\n\t\t\"namespace\": \"default\",\n\t\t\"name\": \"web\"\n\t}},\n\t\
             \"localEndpoints\": {local},\n\t\"serviceProxyHealthy\": true\n}}"
        )
    };
    assert_eq!(curl(url).await, Some(text(1)));
    network.put_slice(placed("n2"));
    assert_eq!(curl(url).await, Some(text(0)));
}

#[tokio::test]
async fn a_port_says_that_its_pods_want_http_2() {
    let network = network();
    let server = pod(&network, 1).bind_tcp(at("0.0.0.0:8080")).unwrap().listen(8);
    network.put_slice(slice(&[1], &[]));
    for (h2_ports, first) in [(vec![], "GET / HTTP/1.1"), (vec![80], "PRI * HTTP/2.0")] {
        network.put_service(Service { traffic: Traffic { h2_ports, ..Traffic::default() }, ..service(None) });
        let asking = tokio::spawn({
            let network = network.clone();
            async move { get(&network, "http://web/").await }
        });
        let mut connection = server.accept().await.unwrap();
        let mut line = [0; 14];
        connection.stream.read_exact(&mut line).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&line), first);
        asking.abort();
    }
}
