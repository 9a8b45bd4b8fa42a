//! Policies as pods feel them: over connections, requests, datagrams and names; also over what is open already.

use std::collections::BTreeMap;

use futures::StreamExt as _;
use podium_network::{
    EgressPolicy, Labels, Membership, NamespaceEgress, NetworkPolicy, PodFacts, PolicyPeer, PolicyPort, PolicyRule,
    PortMatch, Selector, SocketError, UdpSocket,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::{
    egress::{Names, Outside, ask, denied, host_address, outside},
    *,
};

const QUEUE: usize = 64 << 10;

fn labels(app: &str) -> Labels {
    Arc::new(BTreeMap::from([("app".to_owned(), app.to_owned())]))
}

/// A pod whose label `app` is its name.
fn member(network: &Network, name: &str, last: u8, egress: Option<&str>) -> Dialer {
    let caller =
        Caller { namespace: "default".into(), pod: name.into(), service_account: String::new(), ip: Some(ip(last)) };
    let facts =
        PodFacts { name: Name::new("default", name), ips: vec![ip(last)], labels: labels(name), ports: Vec::new() };
    let egress = egress.map(|hosts| hosts.parse().unwrap());
    network.join(caller, Membership { facts: Some(facts), egress, ..Membership::default() })
}

fn policy(app: &str, ingress: Option<Vec<PolicyRule>>, egress: Option<Vec<PolicyRule>>) -> NetworkPolicy {
    NetworkPolicy { name: Name::new("default", app), pods: Selector::label("app", app), ingress, egress }
}

fn from(app: &str) -> PolicyRule {
    let peer = PolicyPeer::Pods { namespaces: None, pods: Selector::label("app", app) };
    PolicyRule { peers: vec![peer], ports: Vec::new() }
}

fn denies<T: std::fmt::Debug>(found: Result<T, SocketError>) -> String {
    match found {
        Err(SocketError::Denied(why)) => why,
        other => panic!("not denied: {other:?}"),
    }
}

fn count(network: &Network, metric: &str, wanted: &[&str]) -> f64 {
    let families = network.metrics().collectors().into_iter().flat_map(|c| c.collect());
    let all = families.filter(|f| f.name() == metric).flat_map(|f| f.get_metric().to_vec());
    let of = |m: &prometheus::proto::Metric| wanted.iter().all(|w| m.get_label().iter().any(|l| l.value() == *w));
    all.filter(of).map(|m| m.get_counter().get_value()).sum()
}

#[tokio::test(start_paused = true)]
async fn connections_need_both_sides_and_end_with_their_permission() {
    let network = network();
    let (server, friend) = (member(&network, "server", 1, None), member(&network, "friend", 2, None));
    let stranger = member(&network, "stranger", 3, None);
    let listener = server.bind_tcp(at("0.0.0.0:80")).unwrap().listen(0);
    let to = at("10.244.0.1:80");
    let mut open = stranger.connect(to).await.unwrap();
    let mut accepted = listener.accept().await.unwrap();
    let mut kept = friend.connect(to).await.unwrap();
    let mut kept_there = listener.accept().await.unwrap();
    let mut buffer = [0; 4];
    network.put_policy(policy("server", Some(vec![from("friend")]), None));
    let why = denies(stranger.connect(to).await);
    assert_eq!(why, "10.244.0.1:80 by TCP: a NetworkPolicy there does not let this one in");
    let near = open.stream.read(&mut buffer).await;
    let far = accepted.stream.read(&mut buffer).await;
    assert!(near.is_err() && far.is_err(), "what was open is cut: {near:?} {far:?}");
    kept.stream.write_all(b"fine").await.unwrap();
    kept_there.stream.read_exact(&mut buffer).await.unwrap();
    assert_eq!(&buffer, b"fine");
    assert!(friend.connect(to).await.is_ok());
    assert!(network.connect_pod(ip(1), 80).await.is_ok(), "the node reaches its pods");
    assert!(server.connect(at("127.0.0.1:80")).await.is_ok(), "a pod reaches itself");
    assert!(server.connect(to).await.is_ok());
    network.put_policy(policy("friend", None, Some(vec![])));
    let why = denies(friend.connect(to).await);
    assert_eq!(why, "10.244.0.1:80 by TCP: NetworkPolicy friend does not let this pod go there");
    assert_eq!(kept.stream.read(&mut buffer).await.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    let decisions = |words: &[&str]| count(&network, "podium_network_policy_decisions_total", words);
    assert_eq!(decisions(&["ingress", "denied"]), 1.0);
    assert_eq!(decisions(&["egress", "denied"]), 1.0);
    assert_eq!(count(&network, "podium_network_cut_total", &[]), 2.0);
    for name in ["server", "friend"] {
        network.remove_policy(&Name::new("default", name));
    }
    assert!(stranger.connect(to).await.is_ok());
    assert_eq!(decisions(&[]), 0.0, "nothing is counted of a namespace without policies");
}

/// A body that never ends.
struct Endless;

#[async_trait]
impl HttpHandler for Endless {
    async fn call(&self, request: Request<Body>) -> Result<Response<Body>, CallError> {
        if request.uri().path() == "/wait" {
            std::future::pending::<()>().await;
        }
        let first = futures::stream::iter([Ok(http_body::Frame::data(Bytes::from_static(b"first")))]);
        let body = http_body_util::StreamBody::new(first.chain(futures::stream::pending()));
        Ok(Response::new(BodyExt::map_err(body, |never: std::convert::Infallible| match never {}).boxed_unsync()))
    }
}

#[tokio::test(start_paused = true)]
async fn requests_are_refused_and_what_is_under_way_is_cut() {
    let network = network();
    network.put_service(service(None));
    network.put_slice(slice(&[1], &[]));
    let _server = member(&network, "server", 1, None);
    let _handler = network.attach(ip(1), 8080, Arc::new(Endless));
    let client = member(&network, "client", 2, None);
    let request = |path: &str| {
        let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
        Request::get(format!("http://web{path}")).body(body).unwrap()
    };
    let mut streaming = client.send(request("/")).await.unwrap().into_body();
    assert_eq!(streaming.frame().await.unwrap().unwrap().into_data().unwrap(), "first");
    let waiting = tokio::spawn({
        let (client, request) = (client.clone(), request("/wait"));
        async move { client.send(request).await.map(drop) }
    });
    tokio::task::yield_now().await;
    network.put_policy(policy("server", Some(vec![]), None));
    let error = streaming.frame().await.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "not allowed: a policy has come to forbid it");
    assert!(matches!(waiting.await.unwrap(), Err(CallError::Denied(_))));
    for uri in ["http://web/", "http://10.96.0.10/", "http://10.244.0.1:8080/"] {
        denied(ask(&client, uri).await);
    }
    assert!(network.dialer(caller()).send(request("/")).await.is_ok(), "the node reaches its pods");
    network.put_policy(policy("server", Some(vec![from("client")]), None));
    assert!(client.send(request("/")).await.is_ok());
}

#[tokio::test]
async fn datagrams_that_are_not_allowed_are_lost_and_answers_are() {
    let network = network();
    let bind = |name: &str, last, port| member(&network, name, last, None).bind_udp(at(port), QUEUE).unwrap();
    let server = bind("server", 1, "0.0.0.0:53");
    let (client, stranger) = (bind("client", 2, "0.0.0.0:5000"), bind("stranger", 3, "0.0.0.0:5000"));
    network.put_policy(policy("server", Some(vec![from("client")]), Some(vec![])));
    network.put_policy(policy("client", Some(vec![]), None));
    let send = |from: &UdpSocket, text: &'static str, to: &str| {
        let sent = from.send_to(Bytes::from_static(text.as_bytes()), at(to));
        futures::FutureExt::now_or_never(sent).unwrap().unwrap();
    };
    send(&stranger, "lost", "10.244.0.1:53");
    send(&server, "unasked", "10.244.0.2:5000");
    send(&client, "question", "10.244.0.1:53");
    let (question, from) = server.recv_from().await.unwrap();
    assert_eq!((&question[..], from), (&b"question"[..], at("10.244.0.2:5000")));
    send(&server, "answer", "10.244.0.2:5000");
    assert_eq!(&client.recv_from().await.unwrap().0[..], b"answer");
    network.put_policy(policy("server", Some(vec![]), Some(vec![])));
    send(&server, "late", "10.244.0.2:5000");
    send(&client, "lost", "10.244.0.1:53");
    let nothing = |socket: &UdpSocket| futures::FutureExt::now_or_never(socket.recv_from()).is_none();
    assert!(nothing(&client) && nothing(&server));
}

fn out(name: &str, hosts: &str) -> EgressPolicy {
    let pods = Selector::label("app", name);
    EgressPolicy { name: Name::new("default", name), pods, allowed: hosts.parse().unwrap() }
}

#[tokio::test]
async fn ways_out_need_every_policy_and_end_with_their_permission() {
    let server = Outside::http().await;
    let port = server.port();
    let names = Names::of(&[("api.test", &[&["127.0.0.1"]]), ("other.test", &[&["127.0.0.1"]])]);
    let network = Network::new(outside(names));
    let (api, other) = (format!("http://api.test:{port}/"), format!("http://other.test:{port}/"));
    let asks = member(&network, "asks", 1, Some("*:*"));
    let quiet = member(&network, "quiet", 2, None);
    assert!(ask(&asks, &other).await.is_ok());
    denied(ask(&quiet, &api).await);
    network.put_egress_policy(out("asks", &format!("api.test:{port}")));
    network.put_egress_policy(out("quiet", &format!("api.test:{port}")));
    assert!(ask(&asks, &api).await.is_ok());
    assert!(ask(&quiet, &api).await.is_ok(), "who asks for nothing asks for what its policies allow");
    let why = denied(ask(&asks, &other).await);
    assert!(why.ends_with("no EgressPolicy that selects the pod allows it"), "{why}");
    assert!(matches!(asks.lookup("other.test").await, Err(SocketError::Denied(_))));
    assert!(asks.lookup("api.test").await.is_ok());
    let decided = |verdict| count(&network, "podium_egress_policy_decisions_total", &["default", verdict]);
    // A request is one decision by its name, a look-up another.
    assert_eq!((decided("allowed"), decided("denied")), (3.0, 2.0));
    assert_eq!(count(&network, "podium_egress_refused_total", &["egress_policy"]), 2.0);
    network.remove_egress_policy(&Name::new("default", "asks"));
    assert!(ask(&asks, &other).await.is_ok());
    assert_eq!(decided("allowed"), 3.0, "no policy, no decision");
    network.remove_egress_policy(&Name::new("default", "quiet"));
    assert_eq!((decided("allowed"), decided("denied")), (0.0, 0.0), "the series go with the last policy");
}

#[tokio::test]
async fn network_policies_judge_hosts_outside_by_address_and_names_as_dns() {
    let server = Outside::http().await;
    let port = server.port();
    let network = Network::new(outside(Names::of(&[("api.test", &[&["127.0.0.1"]])])));
    let by_name = format!("http://api.test:{port}/");
    let client = member(&network, "client", 1, Some("*:*"));
    let block = |range: &str| PolicyPeer::Block { range: range.parse().unwrap(), except: Vec::new() };
    let to = |range: &str| PolicyRule { peers: vec![block(range)], ports: Vec::new() };
    let dns = || {
        let port = PolicyPort { protocol: Some(Protocol::Udp), port: PortMatch::Range(53, 53) };
        PolicyRule { peers: Vec::new(), ports: vec![port] }
    };
    let _ = client.lookup("api.test").await.unwrap();
    network.put_policy(policy("client", None, Some(vec![to("192.0.2.0/24")])));
    let why = denied(ask(&client, &by_name).await);
    assert_eq!(why, "names of hosts outside (DNS): NetworkPolicy client does not let this pod go there");
    assert!(matches!(client.lookup("api.test").await, Err(SocketError::Denied(_))));
    network.put_policy(policy("client", None, Some(vec![to("192.0.2.0/24"), dns()])));
    assert!(client.lookup("api.test").await.is_ok());
    let why = denied(ask(&client, &by_name).await);
    assert!(why.starts_with(&format!("127.0.0.1:{port} by TCP: NetworkPolicy client")), "{why}");
    network.put_policy(policy("client", None, Some(vec![to("127.0.0.0/8"), dns()])));
    assert!(ask(&client, &by_name).await.is_ok());
    network.put_policy(policy("client", None, Some(vec![])));
    denied(ask(&client, &by_name).await);
}

#[tokio::test]
async fn connections_outside_are_cut_by_either_kind_and_by_the_namespace() {
    let own = host_address();
    let listener = tokio::net::TcpListener::bind(SocketAddr::new(own, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let host_targets = format!("{own}:*").parse().unwrap();
    let network = Network::new(NetworkConfig { host_targets, ..NetworkConfig::default() });
    let grant = format!("{own}:*");
    let client = member(&network, "client", 1, Some(&grant));
    let limit = |max: Option<&str>| NamespaceEgress { default: None, max: max.map(|hosts| hosts.parse().unwrap()) };
    type Change = fn(&Network);
    let changes: [(Change, Change); 2] = [
        (
            |network| network.put_egress_policy(out("client", "nobody.test:1")),
            |network| network.remove_egress_policy(&Name::new("default", "client")),
        ),
        (
            |network| network.put_policy(policy("client", None, Some(vec![]))),
            |network| network.remove_policy(&Name::new("default", "client")),
        ),
    ];
    for (forbid, allow) in changes {
        let mut open = client.connect(address).await.unwrap();
        let _there = listener.accept().await.unwrap();
        forbid(&network);
        let cut = open.stream.read(&mut [0; 1]).await.unwrap_err();
        assert_eq!(cut.kind(), std::io::ErrorKind::ConnectionReset);
        assert!(open.stream.write(b"x").await.is_err());
        denies(client.connect(address).await);
        allow(&network);
    }
    let mut open = client.connect(address).await.unwrap();
    network.put_namespace("default", limit(Some("nobody.test:1")));
    assert!(open.stream.read(&mut [0; 1]).await.is_err());
    network.put_namespace("default", limit(None));
    assert!(client.connect(address).await.is_ok());
}
