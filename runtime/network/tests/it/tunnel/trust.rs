//! Who is believed, and for what; what policies say at both ends; what only the API server may ask.

use std::collections::BTreeMap;

use futures::future::BoxFuture;
use podium_network::{
    Claim, Membership, NetworkPolicy, NodeStream, PodFacts, PodStream, PolicyPeer, PolicyRule, Selector, SocketError,
    Workloads,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

const WEB: &str = "http://10.244.2.7:8080/";

fn out_of_reach(answer: &Result<String, CallError>) -> bool {
    matches!(answer, Err(CallError::NotAccepted(why)) if why.starts_with("node node-2 cannot be reached"))
}

#[tokio::test]
async fn only_nodes_of_the_cluster_s_authority_are_believed() {
    let (ca, foreign) = (Ca::new(), Ca::new());
    let b = Node::new(&ca, 2, quick()).await;
    let _pod = b.network.attach(b.ip(7), 8080, Pod::new("b"));
    // A client that another authority has signed.
    let evil = Node::with(&ca, 1, Keys::of(&foreign, "node-1"), (quick(), None)).await;
    acquaint(&[&evil, &b]);
    assert!(out_of_reach(&ask(&evil.pod(3), WEB).await));
    until(|| count(&b.network, "podium_tunnel_failures_total", &["handshake"]) > 0.0).await;
    // A server that another authority has signed.
    let a = Node::new(&ca, 3, quick()).await;
    let impostor = Node::with(&ca, 2, Keys::of(&foreign, "node-2"), (quick(), None)).await;
    acquaint(&[&a, &impostor]);
    assert!(out_of_reach(&ask(&a.pod(3), WEB).await));
    // A node of the cluster, under another's name.
    let other = Node::new(&ca, 4, quick()).await;
    a.network.set_nodes(vec![RemoteNode { address: other.remote.address, ..b.remote.clone() }]);
    assert!(out_of_reach(&ask(&a.pod(3), WEB).await));
    // Who uses a server's certificate as a client's.
    let keys = Keys::of(&ca, "node-5");
    *keys.client.lock() = keys.server.lock().clone();
    let wrong = Node::with(&ca, 5, keys, (quick(), None)).await;
    acquaint(&[&wrong, &b]);
    assert!(out_of_reach(&ask(&wrong.pod(3), WEB).await));
    assert_eq!(count(&b.network, "podium_tunnel_streams_total", &["in"]), 0.0, "nothing was asked of it");
}

fn denied(answer: Result<String, CallError>) -> String {
    match answer {
        Err(CallError::Denied(why)) => why,
        other => panic!("not denied: {other:?}"),
    }
}

#[tokio::test]
async fn a_node_speaks_for_its_own_pods_alone() {
    let ca = Ca::new();
    let (a, b) = (Node::new(&ca, 1, quick()).await, Node::new(&ca, 2, quick()).await);
    let c = Node::new(&ca, 3, quick()).await;
    acquaint(&[&a, &b, &c]);
    let _pod = b.network.attach(b.ip(7), 8080, Pod::new("b"));
    let claims = |ip: IpAddr| {
        let (pod, service_account) = ("x".to_owned(), "robot".to_owned());
        a.network.dialer(Caller { namespace: "default".into(), pod, service_account, ip: Some(ip) })
    };
    for ip in [c.ip(5), b.ip(5), IpAddr::from([10, 96, 0, 1]), IpAddr::from([127, 0, 0, 1])] {
        let why = denied(ask(&claims(ip), WEB).await);
        assert_eq!(why, format!("node node-1 speaks for {ip}, which is not its own"));
        let connected = claims(ip).connect(b.at(7, 8080)).await.map(drop);
        assert_eq!(connected.unwrap_err(), SocketError::Denied(why));
    }
    assert_eq!(count(&b.network, "podium_tunnel_failures_total", &["spoofed"]), 8.0);
    assert_eq!(ask(&claims(a.ip(5)), WEB).await.as_deref(), Ok("b"));
    // For whom clients outside are, only the node that they come to can know.
    assert_eq!(ask(&claims(IpAddr::from([192, 0, 2, 7])), WEB).await.as_deref(), Ok("b"));
    // Somebody of the cluster who is no node.
    *a.keys.client.lock() = ca.sign("alice", "developers", ExtendedKeyUsagePurpose::ClientAuth);
    a.network.set_nodes(Vec::new());
    acquaint(&[&a, &b, &c]);
    assert!(out_of_reach(&ask(&claims(a.ip(5)), WEB).await));
}

/// A cluster in which `pod-3` of node-1 is what it says, and `pod-4` is another; of others nobody knows.
struct Known;

#[async_trait]
impl Workloads for Known {
    async fn confirm(&self, claim: Claim<'_>) -> Option<bool> {
        assert_eq!((claim.node, claim.namespace, claim.service_account), ("node-1", "default", "robot"));
        match claim.pod {
            "pod-3" => Some(true),
            "pod-4" => Some(false),
            _ => None,
        }
    }
}

#[tokio::test]
async fn a_workload_is_who_the_cluster_says_and_not_who_its_node_says() {
    let ca = Ca::new();
    let (a, b) = (Node::new(&ca, 1, quick()).await, Node::new(&ca, 2, quick()).await);
    let config = TunnelConfig {
        node: "node-2".into(),
        identity: b.keys.clone(),
        roots: ca.roots(),
        limits: quick(),
        node_requests: None,
        workloads: Some(Arc::new(Known)),
    };
    let address = b.network.listen_tunnel(config, at("127.0.0.1:0")).await.unwrap();
    acquaint(&[&a, &b]);
    a.network.set_nodes(vec![a.remote.clone(), RemoteNode { address, ..b.remote.clone() }]);
    let _pod = b.network.attach(b.ip(7), 8080, Arc::new(super::requests::Mirror));
    let listener = b.pod(8).bind_tcp(at("0.0.0.0:8080")).unwrap().listen(0);
    let caller = async |last| {
        let request = Request::get(WEB).body(Empty::new().map_err(|never| match never {}).boxed_unsync()).unwrap();
        let answer = a.pod(last).send(request).await?;
        Ok::<_, CallError>(answer.headers()["x-seen-caller"].to_str().unwrap().to_owned())
    };
    assert_eq!(caller(3).await.as_deref(), Ok("spiffe://cluster.local/ns/default/sa/robot"));
    assert_eq!(caller(5).await.as_deref(), Ok("nobody"), "who is not known has no name, and is no stranger than that");
    let why = denied(caller(4).await);
    let said = "pod-4 with spiffe://cluster.local/ns/default/sa/robot";
    assert_eq!(why, format!("node node-1 says of 10.244.1.4 that it is {said}, which it is not"));
    let refused = a.pod(4).connect(b.at(8, 8080)).await.map(drop);
    assert_eq!(refused.unwrap_err(), SocketError::Denied(why));
    let (open, accepted) = tokio::join!(async { a.pod(3).connect(b.at(8, 8080)).await.map(drop) }, listener.accept());
    assert!(open.is_ok() && accepted.is_ok());
    assert_eq!(count(&b.network, "podium_tunnel_failures_total", &["spoofed"]), 2.0);
    assert_eq!(count(&b.network, "podium_tunnel_received_total", &["default", "robot"]), 2.0);
}

fn facts(name: &str, ip: IpAddr) -> PodFacts {
    let labels = Arc::new(BTreeMap::from([("app".to_owned(), name.to_owned())]));
    PodFacts { name: Name::new("default", name), ips: vec![ip], labels, ports: Vec::new() }
}

/// Only `friend` and the server are let in, or out.
fn policy(app: &str, ingress: bool) -> NetworkPolicy {
    let peer = |app: &str| PolicyPeer::Pods { namespaces: None, pods: Selector::label("app", app) };
    let rules = || Some(vec![PolicyRule { peers: vec![peer("friend"), peer("server")], ports: Vec::new() }]);
    let (ingress, egress) = if ingress { (rules(), None) } else { (None, rules()) };
    NetworkPolicy { name: Name::new("default", app), pods: Selector::label("app", app), ingress, egress }
}

#[tokio::test]
async fn policies_hold_at_both_ends() {
    let (a, b) = two(quick()).await;
    let _pod = b.network.attach(b.ip(7), 8080, Pod::new("b"));
    let listener = b.pod(8).bind_tcp(at("0.0.0.0:8080")).unwrap().listen(0);
    for network in [&a.network, &b.network] {
        for (name, ip) in [("friend", a.ip(3)), ("stranger", a.ip(4)), ("server", b.ip(7)), ("server-2", b.ip(8))] {
            network.put_pod(facts(name, ip));
        }
    }
    let join = |name: &str, last| {
        let (pod, service_account) = (name.to_owned(), "robot".to_owned());
        let caller = Caller { namespace: "default".into(), pod, service_account, ip: Some(a.ip(last)) };
        a.network.join(caller, Membership { facts: Some(facts(name, a.ip(last))), ..Membership::default() })
    };
    let (friend, stranger) = (join("friend", 3), join("stranger", 4));
    let (open, accepted) = tokio::join!(stranger.connect(b.at(8, 8080)), listener.accept());
    let (mut open, _accepted) = (open.unwrap(), accepted.unwrap());
    // Of those who come in only the node that they come to knows.
    b.network.put_policy(policy("server", true));
    b.network.put_policy(policy("server-2", true));
    let there = "a NetworkPolicy there does not let this one in";
    assert_eq!(denied(ask(&stranger, WEB).await), format!("10.244.2.7:8080 by TCP: {there}"));
    assert_eq!(ask(&friend, WEB).await.as_deref(), Ok("b"));
    let refused = stranger.connect(b.at(8, 8080)).await.map(drop).unwrap_err();
    assert_eq!(refused, SocketError::Denied(format!("10.244.2.8:8080 by TCP: {there}")));
    assert!(open.stream.read(&mut [0; 1]).await.is_err(), "what was open is cut");
    let denials = || count(&b.network, "podium_network_policy_decisions_total", &["default", "ingress", "denied"]);
    assert_eq!(denials(), 2.0);
    // A node's own programs are not the pod's own node, and no exception.
    assert!(matches!(a.network.connect_pod(b.ip(8), 8080).await, Err(CallError::Denied(_))));
    // Of those who go out the node that they are on.
    b.network.remove_policy(&Name::new("default", "server"));
    assert_eq!(ask(&stranger, WEB).await.as_deref(), Ok("b"));
    a.network.put_policy(NetworkPolicy { egress: Some(Vec::new()), ..policy("stranger", false) });
    let why = denied(ask(&stranger, WEB).await);
    assert_eq!(why, "10.244.2.7:8080 by TCP: NetworkPolicy stranger does not let this pod go there");
    assert_eq!(ask(&friend, WEB).await.as_deref(), Ok("b"));
}

#[tokio::test]
async fn new_connections_show_the_certificates_of_the_moment() {
    let ca = Ca::new();
    let (a, b) = (Node::new(&ca, 1, quick()).await, Node::new(&ca, 2, quick()).await);
    let proxy = Proxy::to(b.remote.address).await;
    acquaint(&[&a, &b]);
    a.network.set_nodes(vec![RemoteNode { address: proxy.address, ..b.remote.clone() }]);
    let _pod = b.network.attach(b.ip(7), 8080, Pod::new("b"));
    let dialer = a.pod(3);
    assert_eq!(ask(&dialer, WEB).await.as_deref(), Ok("b"));
    (*b.keys.server.lock(), *a.keys.client.lock()) =
        (Keys::pair(&ca, "node-2").0, ca.sign("alice", "developers", ExtendedKeyUsagePurpose::ClientAuth));
    assert_eq!(ask(&dialer, WEB).await.as_deref(), Ok("b"), "what stands goes on");
    proxy.wire.send(Wire::Cut).unwrap();
    until(|| count(&a.network, "podium_tunnel_failures_total", &["broken"]) > 0.0).await;
    proxy.wire.send(Wire::Fine).unwrap();
    until(|| count(&b.network, "podium_tunnel_failures_total", &["handshake"]) > 0.0).await;
    assert!(ask(&dialer, WEB).await.is_err());
    *a.keys.client.lock() = Keys::pair(&ca, "node-1").1;
    while ask(&dialer, WEB).await.as_deref() != Ok("b") {
        tokio::task::yield_now().await;
    }
}

/// A node's own paths.
struct Kubelet;

impl NodeHandler for Kubelet {
    fn call<'a>(
        &'a self,
        peer: &'a TunnelPeer,
        request: Request<Body>,
    ) -> BoxFuture<'a, Result<Response<Body>, CallError>> {
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map_err(|e| CallError::Failed(e.to_string()))?.to_bytes();
            let text = format!("{} {} {} {}", peer.user, head.method, head.uri.path(), body.len());
            Ok(Response::new(Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed_unsync()))
        })
    }

    fn connect<'a>(
        &'a self,
        _: &'a TunnelPeer,
        request: Request<()>,
    ) -> BoxFuture<'a, Result<ServeStream, Response<Body>>> {
        Box::pin(async move {
            if request.uri().path() != "/exec" {
                let gone = Response::builder().status(StatusCode::GONE);
                return Err(gone.body(Empty::new().map_err(|never| match never {}).boxed_unsync()).unwrap());
            }
            let hello = format!("{} {}", request.uri(), request.headers()["x-protocol"].to_str().unwrap());
            let serve: ServeStream = Box::new(move |mut stream: PodStream| {
                Box::pin(async move {
                    stream.write_all(hello.as_bytes()).await.unwrap();
                    let (mut read, mut write) = tokio::io::split(stream);
                    tokio::io::copy(&mut read, &mut write).await.unwrap();
                    write.shutdown().await.unwrap();
                })
            });
            Ok(serve)
        })
    }
}

/// One that is no node.
struct NoNode(Keys);

impl TunnelIdentity for NoNode {
    fn server(&self) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn client(&self) -> Option<Arc<CertifiedKey>> {
        None
    }

    fn api_server(&self) -> Option<Arc<CertifiedKey>> {
        self.0.api_server()
    }
}

#[tokio::test]
async fn an_api_server_without_a_node_reaches_pods_for_its_clients() {
    let ca = Ca::new();
    let b = Node::new(&ca, 2, quick()).await;
    let _pod = b.network.attach(b.ip(7), 8080, Pod::new("b"));
    let mut keys = Keys::of(&ca, "none");
    keys.api_server =
        Some(ca.sign("kube-apiserver-kubelet-client", "system:masters", ExtendedKeyUsagePurpose::ClientAuth));
    let network = network();
    network.set_tunnel(TunnelConfig {
        node: String::new(),
        identity: Arc::new(NoNode(keys)),
        roots: ca.roots(),
        limits: quick(),
        node_requests: None,
        workloads: None,
    });
    network.set_nodes(vec![b.remote.clone()]);
    let asks = |ip: IpAddr| {
        let (pod, service_account) = ("x".to_owned(), String::new());
        network.dialer(Caller { namespace: "default".into(), pod, service_account, ip: Some(ip) })
    };
    assert_eq!(ask(&asks(IpAddr::from([192, 0, 2, 7])), WEB).await.as_deref(), Ok("b"));
    let why = denied(ask(&asks(b.ip(5)), WEB).await);
    assert_eq!(why, "kube-apiserver-kubelet-client is no node of 10.244.2.5");
}

/// A process that may go to nodes with this certificate.
fn api_server(ca: &Ca, user: &str, group: &str) -> Network {
    let mut keys = Keys::of(ca, "control-plane");
    keys.api_server = Some(ca.sign(user, group, ExtendedKeyUsagePurpose::ClientAuth));
    let network = network();
    network.set_tunnel(TunnelConfig {
        node: "control-plane".into(),
        identity: Arc::new(keys),
        roots: ca.roots(),
        limits: quick(),
        node_requests: None,
        workloads: None,
    });
    network
}

#[tokio::test]
async fn only_the_api_server_asks_nodes_themselves() {
    let ca = Ca::new();
    let b = Node::with(&ca, 2, Keys::of(&ca, "node-2"), (quick(), Some(Arc::new(Kubelet)))).await;
    let listener = b.pod(8).bind_tcp(at("0.0.0.0:8080")).unwrap().listen(0);
    b.network.put_pod(facts("server", b.ip(8)));
    b.network.put_policy(NetworkPolicy { ingress: Some(Vec::new()), ..policy("server", true) });
    let api = api_server(&ca, "kube-apiserver-kubelet-client", "system:masters");
    api.set_nodes(vec![b.remote.clone()]);
    let request = || {
        let body = Full::new(Bytes::from("four")).map_err(|never| match never {}).boxed_unsync();
        Request::post("/run/x?y=1").body(body).unwrap()
    };
    let answer = api.send_to_node("node-2", request()).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    assert_eq!(answer, "kube-apiserver-kubelet-client POST /run/x 4");
    assert_eq!(api.send_to_node("node-9", request()).await.unwrap_err(), CallError::NameNotFound("node node-9".into()));
    let exec = |path: &str| Request::get(path).header("x-protocol", "v5").body(()).unwrap();
    let NodeStream::Open(mut stream) = api.connect_node("node-2", exec("/exec?command=sh")).await.unwrap() else {
        panic!("no stream")
    };
    stream.write_all(b" input").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut came = String::new();
    stream.read_to_string(&mut came).await.unwrap();
    assert_eq!(came, "/exec?command=sh v5 input");
    let NodeStream::Answer(answer) = api.connect_node("node-2", exec("/attach")).await.unwrap() else {
        panic!("a stream")
    };
    assert_eq!(answer.status(), StatusCode::GONE);
    // It comes as the node does to its own pods: policies say nothing of that.
    let (there, here) = tokio::join!(api.connect_pod(b.ip(8), 8080), listener.accept());
    assert!(there.is_ok() && here.is_ok());
    let handler = b.network.attach(b.ip(8), 8081, Pod::new("server"));
    let program = || Caller {
        namespace: "kube-system".into(),
        pod: "kube-apiserver".into(),
        service_account: String::new(),
        ip: None,
    };
    assert_eq!(ask(&api.dialer(program()), "http://10.244.2.8:8081/").await.as_deref(), Ok("server"));
    drop(handler);
    // A node is none, whatever it shows.
    let node = api_server(&ca, "system:node:node-1", "system:nodes");
    node.set_nodes(vec![b.remote.clone()]);
    let refused = node.send_to_node("node-2", request()).await.unwrap_err();
    assert_eq!(refused, CallError::Denied("system:node:node-1 may not ask the node itself".into()));
    assert!(matches!(node.connect_node("node-2", exec("/exec")).await, Err(CallError::Denied(_))));
    let without = Node::new(&ca, 1, quick()).await;
    without.network.set_nodes(vec![b.remote.clone()]);
    assert!(without.network.send_to_node("node-2", request()).await.is_err());
}

#[tokio::test]
async fn a_connection_ends_with_its_certificate() {
    let ca = Ca::new();
    let (a, b) = (Node::new(&ca, 1, quick()).await, Node::new(&ca, 2, quick()).await);
    acquaint(&[&a, &b]);
    let _pod = b.network.attach(b.ip(7), 8080, Pod::new("b"));
    let dialer = a.pod(3);
    let lasting = a.keys.client.lock().clone();
    // A machine that is busy may see it expire before it was shown.
    loop {
        *a.keys.client.lock() = ca.sign_until("system:node:node-1", "system:nodes", Duration::from_secs(3));
        if ask(&dialer, WEB).await.as_deref() == Ok("b") {
            break;
        }
    }
    until(|| count(&a.network, "podium_tunnel_connections", &["out"]) == 0.0).await;
    *a.keys.client.lock() = lasting;
    while ask(&dialer, WEB).await.is_err() {
        tokio::task::yield_now().await;
    }
}
