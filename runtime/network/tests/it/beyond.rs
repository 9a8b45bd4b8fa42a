//! Services whose endpoints are no pods, through Ingresses and node ports.

use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use podium_network::NamespaceEgress;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    egress::Names,
    http_tcp::{Server, echoing, upgrade},
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

/// Another protocol than HTTP is spoken through an Ingress.
async fn speaks_echo(ingress: SocketAddr) {
    let (mut stream, answer) = upgrade(ingress, "echo").await;
    assert!(answer.starts_with("http/1.1 101 "), "{answer}");
    stream.write_all(b"no HTTP").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).await.unwrap();
    assert_eq!(said, "no HTTP");
}

#[tokio::test]
async fn an_ingress_leads_to_a_server_outside() {
    let server = server().await;
    let (network, address) = leading_to(server, &server.to_string()).await;
    for _ in 0..3 {
        assert_eq!(fetch(address, "a.test", "/app").await, (StatusCode::OK, "HTTP/1.1 GET a.test/app 0".into()));
    }
    speaks_echo(address).await;
    // What the namespace allows at most holds for what is kept open too.
    let most = |hosts: &str| NamespaceEgress { default: None, max: Some(hosts.parse().unwrap()) };
    network.put_namespace("default", most("10.0.0.1:80"));
    let (status, why) = fetch(address, "a.test", "/app").await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(why.contains("service default/web leads to 127.0.0.1"), "{why}");
    network.put_namespace("default", most("127.0.0.0/8:*"));
    assert_eq!(fetch(address, "a.test", "/app").await.0, StatusCode::OK);
}

/// A network whose Service `named` is an ExternalName, and an Ingress that leads to its port, which it does not list.
async fn naming(name: &str, names: &[(&str, &[&[&str]])], port: u16, host_targets: &str) -> (Network, SocketAddr) {
    let (resolver, host_targets) = (Names::of(names), host_targets.parse().unwrap());
    let network = Network::new(NetworkConfig { resolver, host_targets, ..NetworkConfig::default() });
    let named = Name::new("default", "named");
    let external_name = Some(name.to_owned());
    network.put_service(Service { name: named, cluster_ip: None, ports: Vec::new(), external_name, ..service(None) });
    let backend = Backend { service: "named".into(), port: BackendPort::Number(port) };
    let mut leads = ingress(Some("a.test"));
    leads.rules[0].backend = backend;
    network.put_ingress(leads);
    let address = network.listen_ingress(([127, 0, 0, 1], 0).into()).await.unwrap();
    (network, address)
}

#[tokio::test]
async fn an_ingress_leads_to_a_host_that_a_service_names() {
    let server = server().await;
    let names: [(&str, &[&[&str]]); 1] = [("far.example", &[&["10.244.7.7", "127.0.0.1"]])];
    let (network, address) = naming("Far.Example", &names, server.port(), &server.to_string()).await;
    for _ in 0..3 {
        assert_eq!(fetch(address, "a.test", "/app").await, (StatusCode::OK, "HTTP/1.1 GET a.test/app 0".into()));
    }
    speaks_echo(address).await;
    let most = |hosts: &str| NamespaceEgress { default: None, max: Some(hosts.parse().unwrap()) };
    network.put_namespace("default", most("near.example:*"));
    let (status, why) = fetch(address, "a.test", "/app").await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(why.contains("service default/named leads to far.example:"), "{why}");
    network.put_namespace("default", most("*.example:*"));
    assert_eq!(fetch(address, "a.test", "/app").await.0, StatusCode::OK);
}

#[tokio::test]
async fn names_that_a_service_may_have_and_may_not() {
    let names: [(&str, &[&[&str]]); 3] = [
        ("self.example", &[&["127.0.0.1"]]),
        ("within.example", &[&["10.244.0.1"]]),
        ("meta.example", &[&["169.254.169.254"]]),
    ];
    for (name, status, says) in [
        ("web.default.svc.cluster.local", 200, "one"),
        ("web.default.svc.cluster.local.", 200, "one"),
        ("again.default.svc.cluster.local", 200, "one"),
        ("nobody.default.svc.cluster.local", 503, "no such port"),
        ("named.default.svc.cluster.local", 502, "from one ExternalName to the next"),
        ("x.y.z.cluster.local", 502, "which service default/named names"),
        // No search domains: these are hosts outside.
        ("web", 502, "no such host"),
        ("web.default.svc", 502, "no such host"),
        ("nowhere.example", 502, "no such host"),
        ("localhost", 403, "names this host itself"),
        ("127.0.0.1", 502, "no such host"),
        ("self.example", 403, "--allow-host-network-targets"),
        ("meta.example", 403, "--allow-host-network-targets"),
        ("metadata.google.internal", 403, "a cloud's metadata"),
        ("within.example", 403, "is the cluster's"),
        ("10.96.0.10", 502, "no such host"),
    ] {
        let (network, address) = naming(name, &names, 80, "").await;
        network.put_service(service(None));
        network.put_slice(slice(&[1], &[]));
        let again = Name::new("default", "again");
        let external_name = Some("web.default.svc.cluster.local".to_owned());
        network.put_service(Service { name: again, cluster_ip: None, external_name, ..service(None) });
        let _pod = network.attach(ip(1), 8080, Pod::new("one"));
        let (found, said) = fetch(address, "a.test", "/app").await;
        assert_eq!(found, status, "{name}: {said}");
        assert!(said.contains(says), "{name}: {said}");
    }
}

/// What is kept open to a pod is for those who may call the pod.
#[tokio::test]
async fn a_pods_address_as_a_name_does_not_lead_to_its_kept_connections() {
    let (network, address) = naming("10.244.0.1", &[], 8080, "").await;
    network.put_service(service(None));
    network.put_slice(slice(&[1], &[]));
    let server = Server::start(pod(&network, 1).bind_tcp(at("0.0.0.0:8080")).unwrap().listen(0));
    assert!(get(&network, "http://web/kept").await.is_ok());
    let (status, why) = fetch(address, "a.test", "/app").await;
    assert_eq!(status, StatusCode::BAD_GATEWAY, "{why}");
    assert!(why.contains("no such host: 10.244.0.1"), "{why}");
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
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
    let free = SocketAddr::from(([127, 0, 0, 1], free_port()));
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
