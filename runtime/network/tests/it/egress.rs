//! The way out: real servers on loopback, names from a resolver that a test fills.

use std::{collections::VecDeque, io, sync::atomic::AtomicU32};

use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use parking_lot::Mutex;
use podium_network::{Membership, NamespaceEgress, NetworkConfig, Resolver, SocketError};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{http_tcp::tell, *};

/// Answers in turn what it was told; the last answer for good.
#[derive(Default)]
pub(crate) struct Names(Mutex<HashMap<String, VecDeque<Vec<IpAddr>>>>);

use std::collections::HashMap;

impl Names {
    pub(crate) fn of(names: &[(&str, &[&[&str]])]) -> Arc<Self> {
        let answer = |ips: &&[&str]| ips.iter().map(|ip| ip.parse().unwrap()).collect();
        let all = names.iter().map(|(name, answers)| ((*name).to_owned(), answers.iter().map(answer).collect()));
        Arc::new(Self(Mutex::new(all.collect())))
    }
}

#[async_trait]
impl Resolver for Names {
    async fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let mut names = self.0.lock();
        let answers = names.get_mut(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(if answers.len() > 1 { answers.pop_front().unwrap() } else { answers[0].clone() })
    }
}

/// A host outside; counts its connections.
pub(crate) struct Outside {
    address: SocketAddr,
    connections: Arc<AtomicU32>,
}

impl Outside {
    pub(crate) async fn http() -> Self {
        Self::start(([127, 0, 0, 1], 0).into(), None).await
    }

    async fn start(on: SocketAddr, tls: Option<rustls::ServerConfig>) -> Self {
        let listener = tokio::net::TcpListener::bind(on).await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicU32::new(0));
        let counted = connections.clone();
        let tls = tls.map(|config| tokio_rustls::TlsAcceptor::from(Arc::new(config)));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::SeqCst);
                let tls = tls.clone();
                tokio::spawn(async move {
                    let server = auto::Builder::new(TokioExecutor::new());
                    match tls {
                        None => drop(server.serve_connection(TokioIo::new(stream), service_fn(tell)).await),
                        Some(tls) => {
                            let Ok(stream) = tls.accept(stream).await else { return };
                            drop(server.serve_connection(TokioIo::new(stream), service_fn(tell)).await);
                        }
                    }
                });
            }
        });
        Self { address, connections }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    fn connections(&self) -> u32 {
        self.connections.load(Ordering::SeqCst)
    }
}

/// A network whose operator has granted the host's loopback, so that servers of a test count as outside.
pub(crate) fn outside(names: Arc<Names>) -> NetworkConfig {
    let host_targets = "127.0.0.0/8:*".parse().unwrap();
    NetworkConfig { resolver: names, host_targets, ..NetworkConfig::default() }
}

fn granted(network: &Network, grants: &str) -> Dialer {
    let member = Membership { egress: Some(grants.parse().unwrap()), ..Membership::default() };
    network.join(
        Caller { namespace: "default".into(), pod: "client".into(), service_account: String::new(), ip: Some(ip(9)) },
        member,
    )
}

pub(crate) async fn ask(dialer: &Dialer, uri: &str) -> Result<String, CallError> {
    let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
    let answer = dialer.send(Request::get(uri).body(body).unwrap()).await?;
    let bytes = answer.into_body().collect().await.unwrap();
    let end = bytes.trailers().and_then(|t| t.get("x-end")).map(|v| format!(" {}", v.to_str().unwrap()));
    Ok(String::from_utf8(bytes.to_bytes().to_vec()).unwrap() + &end.unwrap_or_default())
}

pub(crate) fn denied(answer: Result<String, CallError>) -> String {
    match answer {
        Err(CallError::Denied(why)) => why,
        other => panic!("not denied: {other:?}"),
    }
}

fn refusals(network: &Network, reason: &str) -> f64 {
    let families = network.metrics().collectors().into_iter().flat_map(|c| c.collect());
    let all = families.filter(|f| f.name() == "podium_egress_refused_total").flat_map(|f| f.get_metric().to_vec());
    let of = |m: &prometheus::proto::Metric| m.get_label().iter().any(|l| l.value() == reason);
    all.filter(of).map(|m| m.get_counter().get_value()).sum()
}

#[tokio::test]
async fn only_what_is_granted_is_reached_and_connections_are_kept() {
    let server = Outside::http().await;
    let port = server.port();
    let network =
        Network::new(outside(Names::of(&[("api.test", &[&["127.0.0.1"]]), ("other.test", &[&["127.0.0.1"]])])));
    let dialer = granted(&network, &format!("http://api.test:{port}"));
    for _ in 0..10 {
        let uri = format!("http://api.test:{port}/a");
        assert_eq!(ask(&dialer, &uri).await.unwrap(), format!("HTTP/1.1 GET api.test:{port}/a 0"));
    }
    // A request that comes before the last response's end is seen takes another one.
    assert!(server.connections() <= 3, "{}", server.connections());
    let why = denied(ask(&dialer, &format!("http://other.test:{port}/")).await);
    assert_eq!(
        why,
        format!(
            "other.test:{port} is outside the cluster: the pod's annotation podium.dev/allowed-outbound-hosts would grant it"
        )
    );
    denied(ask(&dialer, "http://api.test:1/").await);
    denied(ask(&dialer, &format!("https://api.test:{port}/")).await);
    denied(ask(&dialer, "http://192.0.2.1/").await);
    // Names that are not granted are not even asked for.
    assert!(matches!(dialer.lookup("other.test").await, Err(SocketError::Denied(_))));
    assert_eq!(dialer.lookup("api.test").await, Ok(vec![[127, 0, 0, 1].into()]));
    assert_eq!(refusals(&network, "not_granted"), 5.0);
}

#[tokio::test]
async fn a_namespace_fills_in_and_limits_at_once() {
    let server = Outside::http().await;
    let uri = format!("http://api.test:{}/", server.port());
    let network = Network::new(outside(Names::of(&[("api.test", &[&["127.0.0.1"]])])));
    let quiet = pod(&network, 3);
    denied(ask(&quiet, &uri).await);
    let all = Some("api.test:*".parse().unwrap());
    network.put_namespace("default", NamespaceEgress { default: all.clone(), max: None });
    assert!(ask(&quiet, &uri).await.is_ok());
    network.put_namespace("default", NamespaceEgress { default: all, max: Some("api.test:1".parse().unwrap()) });
    let why = denied(ask(&granted(&network, "*:*"), &uri).await);
    assert!(why.contains("podium.dev/max-allowed-outbound-hosts of its namespace"), "{why}");
    // A kept connection is no way around.
    denied(ask(&quiet, &uri).await);
    assert_eq!(refusals(&network, "namespace_max"), 2.0);
}

#[tokio::test]
async fn the_operator_bounds_all_namespaces() {
    let server = Outside::http().await;
    let names = Names::of(&[("api.test", &[&["127.0.0.1"]]), ("other.test", &[&["127.0.0.1"]])]);
    let max_hosts = Some("api.test:*".parse().unwrap());
    let network = Network::new(NetworkConfig { max_hosts, ..outside(names) });
    let all = Some("*:*".parse().unwrap());
    network.put_namespace("default", NamespaceEgress { default: all.clone(), max: all });
    let dialer = granted(&network, "*:*");
    assert!(ask(&dialer, &format!("http://api.test:{}/", server.port())).await.is_ok());
    let why = denied(ask(&dialer, &format!("http://other.test:{}/", server.port())).await);
    assert!(why.contains("the operator does not allow it (podium up --max-allowed-outbound-hosts)"), "{why}");
    assert_eq!(refusals(&network, "node_max"), 1.0);
    // What the operator leaves is not granted for that.
    denied(ask(&pod(&Network::new(NetworkConfig::default()), 3), "http://api.test/").await);
}

#[tokio::test]
async fn the_host_itself_is_not_reached_under_any_name() {
    let server = Outside::http().await;
    let port = server.port();
    let own = host_address();
    let names = Names::of(&[
        ("loop.test", &[&["127.0.0.1"]]),
        ("mapped.test", &[&["::ffff:127.0.0.1"]]),
        ("six.test", &[&["::1"]]),
        ("any.test", &[&["0.0.0.0"]]),
        ("own.test", &[&[&own.to_string()]]),
        ("meta.test", &[&["169.254.169.254", "fd00:ec2::254"]]),
        ("metadata.google.internal", &[&["192.0.2.1"]]),
    ]);
    let network = Network::new(NetworkConfig { resolver: names, ..NetworkConfig::default() });
    let dialer = granted(&network, "*:*");
    for host in
        ["loop.test", "mapped.test", "six.test", "any.test", "own.test", "meta.test", "metadata.google.internal"]
    {
        let why = denied(ask(&dialer, &format!("http://{host}:{port}/")).await);
        assert!(why.contains("--allow-host-network-targets"), "{host}: {why}");
    }
    for to in ["169.254.169.254:80", "[fe80::1]:80", "224.0.0.1:80", "255.255.255.255:80", "[fd00:ec2::254]:80"] {
        let error = dialer.connect(at(to)).await.unwrap_err();
        assert!(matches!(&error, SocketError::Denied(why) if why.contains("only the operator")), "{to}: {error}");
        let socket = dialer.bind_udp(at("0.0.0.0:0"), 1024).unwrap();
        assert!(matches!(socket.send_to(Bytes::new(), at(to)).await, Err(SocketError::Denied(_))), "{to}");
    }
    assert!(matches!(dialer.connect(SocketAddr::new(own, port)).await, Err(SocketError::Denied(_))));
    // Loopback is the pod's own: nobody listens there.
    assert!(matches!(dialer.connect(server.address).await, Err(SocketError::Refused(_))));
    assert!(matches!(ask(&dialer, &format!("http://127.0.0.1:{port}/")).await, Err(CallError::Refused(_))));
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn a_name_that_changes_its_mind_does_not_lead_to_the_host() {
    let server = Outside::http().await;
    let port = server.port();
    let names = Names::of(&[("rebind.test", &[&["192.0.2.99"], &["127.0.0.1"]])]);
    let network = Network::new(NetworkConfig { resolver: names, ..NetworkConfig::default() });
    let dialer = granted(&network, "rebind.test:*");
    assert_eq!(dialer.lookup("rebind.test").await, Ok(vec![[192, 0, 2, 99].into()]));
    denied(ask(&dialer, &format!("http://rebind.test:{port}/")).await);
    assert_eq!(dialer.lookup("rebind.test").await, Ok(vec![[127, 0, 0, 1].into()]));
    assert!(dialer.connect(server.address).await.is_err());
    assert_eq!(server.connections(), 0);
}

/// An address of this host that is not loopback.
pub(crate) fn host_address() -> IpAddr {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.connect("192.0.2.1:9").expect("this test needs a network interface beside loopback");
    socket.local_addr().unwrap().ip()
}

#[tokio::test]
async fn sockets_go_where_a_granted_name_led_and_nowhere_else() {
    let own = host_address();
    let listener = tokio::net::TcpListener::bind(SocketAddr::new(own, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (mut reader, mut writer) = stream.split();
            let _ = tokio::io::copy(&mut reader, &mut writer).await;
        }
    });
    let names = Names::of(&[("db.test", &[&[&own.to_string()]])]);
    let host_targets = format!("{own}:*").parse().unwrap();
    let network = Network::new(NetworkConfig { resolver: names, host_targets, ..NetworkConfig::default() });
    let dialer = granted(&network, &format!("postgres://db.test:{}", address.port()));
    assert!(matches!(dialer.connect(address).await, Err(SocketError::Denied(_))), "not looked up yet");
    assert_eq!(dialer.lookup("db.test").await, Ok(vec![own]));
    let mut connection = dialer.connect(address).await.unwrap();
    assert_eq!((connection.local.ip(), connection.remote), (ip(9), address));
    connection.stream.write_all(b"select 1").await.unwrap();
    connection.stream.shutdown().await.unwrap();
    let mut answer = String::new();
    connection.stream.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer, "select 1");
    assert!(matches!(dialer.connect(SocketAddr::new(own, 1)).await, Err(SocketError::Denied(_))), "another port");
    let other = granted(&network, "other.test:*");
    assert!(matches!(other.connect(address).await, Err(SocketError::Denied(_))), "another pod");
    // An address of its own is granted as such.
    assert!(granted(&network, &format!("{own}/32:*")).connect(address).await.is_ok());
}

#[tokio::test]
async fn datagrams_leave_where_that_is_granted() {
    let own = host_address();
    let server = tokio::net::UdpSocket::bind(SocketAddr::new(own, 0)).await.unwrap();
    let address = server.local_addr().unwrap();
    let host_targets = format!("{own}:*").parse().unwrap();
    let network = Network::new(NetworkConfig { host_targets, ..NetworkConfig::default() });
    let tcp_only = granted(&network, &format!("tcp://{own}:*")).bind_udp(at("0.0.0.0:0"), 1024).unwrap();
    assert!(tcp_only.send_to(Bytes::from("x"), address).await.is_err());
    let socket = granted(&network, &format!("udp://{own}:*")).bind_udp(at("0.0.0.0:0"), 1024).unwrap();
    socket.send_to(Bytes::from("ping"), address).await.unwrap();
    let mut buffer = [0; 16];
    let (count, from) = server.recv_from(&mut buffer).await.unwrap();
    assert_eq!(&buffer[..count], b"ping");
    // Who was not sent to is not heard.
    let stranger = tokio::net::UdpSocket::bind(SocketAddr::new(own, 0)).await.unwrap();
    stranger.send_to(b"spam", from).await.unwrap();
    server.send_to(b"pong", from).await.unwrap();
    assert_eq!(socket.recv_from().await, Ok((Bytes::from("pong"), address)));
}

/// A server's TLS for a name, and the root to know it by.
fn tls(name: &str, protocols: &[&[u8]]) -> (rustls::ServerConfig, CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
    let root = made.cert.der().clone();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_no_client_auth().with_single_cert(vec![root.clone()], key).unwrap();
    config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
    (config, root)
}

#[tokio::test]
async fn tls_is_checked_and_the_newest_http_is_spoken() {
    let loopback = ([127, 0, 0, 1], 0).into();
    let (two, root_two) = tls("two.test", &[b"h2", b"http/1.1"]);
    let (one, root_one) = tls("one.test", &[]);
    let (two, one) = (Outside::start(loopback, Some(two)).await, Outside::start(loopback, Some(one)).await);
    let (stranger, _) = tls("stranger.test", &[]);
    let stranger = Outside::start(loopback, Some(stranger)).await;
    let here: &[&[&str]] = &[&["127.0.0.1"]];
    let names = Names::of(&[("two.test", here), ("one.test", here), ("stranger.test", here), ("wrong.test", here)]);
    let network = Network::new(NetworkConfig { extra_roots: vec![root_two, root_one], ..outside(names) });
    let dialer = granted(&network, "*:*");
    for _ in 0..3 {
        let said = ask(&dialer, &format!("https://two.test:{}/x", two.port())).await.unwrap();
        assert_eq!(said, format!("HTTP/2.0 GET two.test:{}/x 0 reached", two.port()));
    }
    assert_eq!(two.connections(), 1);
    let said = ask(&dialer, &format!("https://one.test:{}/x", one.port())).await.unwrap();
    assert_eq!(said, format!("HTTP/1.1 GET one.test:{}/x 0", one.port()));
    for (host, port, why) in [
        ("stranger.test", stranger.port(), "TLS with stranger.test: invalid peer certificate"),
        ("wrong.test", one.port(), "not valid for name"),
    ] {
        let failed = ask(&dialer, &format!("https://{host}:{port}/")).await;
        assert!(matches!(&failed, Err(CallError::Failed(said)) if said.contains(why)), "{failed:?}");
    }
}

#[tokio::test]
async fn the_next_address_is_tried_and_what_a_name_stands_for_is_followed() {
    let server = Outside::http().await;
    let port = server.port();
    let names = Names::of(&[("many.test", &[&["127.0.0.2", "169.254.1.1", "127.0.0.1"]])]);
    let network = Network::new(outside(names));
    let dialer = granted(&network, "many.test:*");
    assert!(ask(&dialer, &format!("http://many.test:{port}/")).await.is_ok());
    network.put_service(Service { external_name: Some("many.test".into()), cluster_ip: None, ..service(None) });
    assert!(ask(&dialer, &format!("http://web:{port}/")).await.is_ok());
    assert_eq!(dialer.lookup("web").await.map(|ips| ips.len()), Ok(3));
    // What it stands for has to be granted, not its name in the cluster.
    denied(ask(&granted(&network, "web:*"), &format!("http://web:{port}/")).await);
    // A name that leads to itself comes to an end.
    network.put_service(Service { external_name: Some("web".into()), cluster_ip: None, ..service(None) });
    assert!(matches!(ask(&dialer, "http://web/").await, Err(CallError::NameNotFound(_))));
    assert!(matches!(dialer.lookup("web").await, Err(SocketError::NameNotFound(_))));
    let gone = granted(&network, "*:*");
    assert!(matches!(ask(&gone, "http://gone.test/").await, Err(CallError::NameNotFound(name)) if name == "gone.test"));
}

#[tokio::test]
async fn a_name_that_a_pod_gives_an_address_itself_grants_nothing() {
    let server = Outside::http().await;
    let network = Network::new(outside(Names::of(&[])));
    let member = Membership {
        egress: Some("api.test:*".parse().unwrap()),
        aliases: vec![([192, 0, 2, 50].into(), vec!["api.test".into()])],
        ..Membership::default()
    };
    let dialer = network.join(
        Caller { namespace: "default".into(), pod: "a".into(), service_account: String::new(), ip: Some(ip(9)) },
        member,
    );
    denied(ask(&dialer, &format!("http://api.test:{}/", server.port())).await);
    assert_eq!(dialer.lookup("api.test").await, Ok(vec![[192, 0, 2, 50].into()]));
    assert!(matches!(dialer.connect(at("192.0.2.50:80")).await, Err(SocketError::Denied(_))));
}

#[tokio::test]
async fn sockets_outside_are_bounded() {
    let server = Outside::http().await;
    let names = Names::of(&[("api.test", &[&["127.0.0.1"]])]);
    let network = Network::new(NetworkConfig { outside_connections_max: 0, ..outside(names) });
    let answer = ask(&granted(&network, "*:*"), &format!("http://api.test:{}/", server.port())).await;
    assert_eq!(answer, Err(CallError::Failed("the node has too many connections outside".into())));
}

#[tokio::test]
async fn a_service_may_lead_outside_where_that_is_granted_or_open_to_all() {
    let loopback = ([127, 0, 0, 1], 0).into();
    let (config, root) = tls("web.default.svc", &[b"h2"]);
    let server = Outside::start(loopback, Some(config)).await;
    let plain = Outside::http().await;
    let network = network();
    network.put_service(service(None));
    let lead_to = |address: SocketAddr| {
        let (place, ip) = (Place::default(), address.ip());
        let endpoint = Endpoint { ip, hostname: None, ready: true, serving: true, terminating: false, place };
        network.put_slice(Slice {
            ports: vec![("http".into(), address.port())],
            endpoints: vec![endpoint],
            ..slice(&[], &[])
        });
    };
    lead_to(plain.address);
    let dialer = granted(&network, "*:*");
    let why = denied(ask(&dialer, "http://web/").await);
    assert!(why.contains("the host's loopback: only the operator"), "{why}");
    assert!(matches!(dialer.connect(at("10.96.0.10:80")).await, Err(SocketError::Denied(_))));
    network.open_endpoint(plain.address, None);
    let quiet = pod(&network, 3);
    assert_eq!(ask(&quiet, "http://web/x").await.unwrap(), "HTTP/1.1 GET web/x 0");
    assert_eq!(quiet.connect(at("10.96.0.10:80")).await.unwrap().remote, at("10.96.0.10:80"));
    network.open_endpoint(server.address, Some(root));
    lead_to(server.address);
    let said = ask(&quiet, "https://web.default.svc:80/x").await.unwrap();
    assert_eq!(said, "HTTP/2.0 GET web.default.svc:80/x 0 reached");
    assert!(matches!(quiet.connect(server.address).await, Err(SocketError::Refused(_))), "through the Service alone");
}
