//! The network as its users see it: handlers attached, tables filled, requests from guests and over real sockets.

#![allow(clippy::panic, clippy::unwrap_used)]

mod balancing;
mod beyond;
mod copies;
mod dns;
mod egress;
mod extended;
mod gateways;
mod http_tcp;
mod limits;
mod outer;
mod policy;
mod spans;
mod tcp;
mod tunnel;
mod udp;

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use podium_network::{
    Body, CallError, Caller, Dialer, HttpHandler, Network, NetworkConfig,
    table::{
        Backend, BackendPort, Endpoint, Ingress, Name, PathMatch, Place, Protocol, Rule, Service, ServicePort, Slice,
        Traffic,
    },
};
use tokio::sync::Notify;

/// Answers with its name; may be held back or closed.
struct Pod {
    name: &'static str,
    accepts: AtomicBool,
    served: AtomicUsize,
    gate: Option<Arc<Notify>>,
}

impl Pod {
    fn new(name: &'static str) -> Arc<Self> {
        Arc::new(Self { name, accepts: AtomicBool::new(true), served: AtomicUsize::new(0), gate: None })
    }

    fn gated(name: &'static str, gate: &Arc<Notify>) -> Arc<Self> {
        let gate = Some(gate.clone());
        Arc::new(Self { name, accepts: AtomicBool::new(true), served: AtomicUsize::new(0), gate })
    }
}

#[async_trait]
impl HttpHandler for Pod {
    fn accepts(&self) -> bool {
        self.accepts.load(Ordering::SeqCst)
    }

    async fn call(&self, _request: Request<Body>) -> Result<Response<Body>, CallError> {
        if let Some(gate) = &self.gate {
            gate.notified().await;
        }
        self.served.fetch_add(1, Ordering::SeqCst);
        let body = Full::new(Bytes::from_static(self.name.as_bytes()));
        Ok(Response::new(body.map_err(|never| match never {}).boxed_unsync()))
    }
}

fn ip(last: u8) -> IpAddr {
    IpAddr::from([10, 244, 0, last])
}

fn service(node_port: Option<u16>) -> Service {
    Service {
        name: Name::new("default", "web"),
        cluster_ip: Some(IpAddr::from([10, 96, 0, 10])),
        ports: vec![ServicePort { name: "http".into(), protocol: Protocol::Tcp, port: 80, node_port }],
        external_name: None,
        traffic: Traffic::default(),
    }
}

fn slice(ready: &[u8], terminating: &[u8]) -> Slice {
    let endpoint = |last: &u8, ready| Endpoint {
        ip: ip(*last),
        hostname: None,
        ready,
        serving: true,
        terminating: !ready,
        place: Place::default(),
    };
    Slice {
        name: Name::new("default", "web-1"),
        service: "web".into(),
        ports: vec![("http".into(), 8080)],
        endpoints: ready
            .iter()
            .map(|e| endpoint(e, true))
            .chain(terminating.iter().map(|e| endpoint(e, false)))
            .collect(),
    }
}

fn network() -> Network {
    Network::new(NetworkConfig::default())
}

fn caller() -> Caller {
    Caller { namespace: "default".into(), pod: "client".into(), service_account: String::new(), ip: None }
}

/// A pod's side of the network.
fn pod(network: &Network, last: u8) -> Dialer {
    network.dialer(Caller {
        namespace: "default".into(),
        pod: format!("pod-{last}"),
        service_account: String::new(),
        ip: Some(ip(last)),
    })
}

/// A port of 127.0.0.1 that nobody has, neither for TCP nor for UDP. It is none of those that the system hands out, and
/// processes begin at different ones, so that nobody gets it before it is used.
pub(crate) fn free_port() -> u16 {
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    const COUNT: u16 = 8000;
    let first = u16::try_from(std::process::id().wrapping_mul(8) % u32::from(COUNT)).unwrap();
    let next = |_| 21_000 + (first + GIVEN.fetch_add(1, Ordering::Relaxed)) % COUNT;
    let is_free = |port: &u16| {
        let address = SocketAddr::from(([127, 0, 0, 1], *port));
        std::net::TcpListener::bind(address).is_ok() && std::net::UdpSocket::bind(address).is_ok()
    };
    (0..COUNT).map(next).find(is_free).unwrap()
}

/// An address by its text.
fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

async fn get(network: &Network, uri: &str) -> Result<String, CallError> {
    let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
    let request = Request::get(uri).body(body).unwrap();
    let response = network.dialer(caller()).send(request).await?;
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    Ok(String::from_utf8(bytes.to_vec()).unwrap())
}

#[tokio::test]
async fn a_service_is_reached_by_name_and_by_address() {
    let network = network();
    network.put_service(service(None));
    network.put_slice(slice(&[1], &[]));
    let _pod = network.attach(ip(1), 8080, Pod::new("one"));
    for uri in ["http://web/", "http://web.default/", "http://web.default.svc.cluster.local/", "http://10.96.0.10/"] {
        assert_eq!(get(&network, uri).await.as_deref(), Ok("one"), "{uri}");
    }
    assert_eq!(get(&network, "http://10.244.0.1:8080/").await.as_deref(), Ok("one"));
}

#[tokio::test]
async fn what_cannot_be_reached_is_said() {
    let network = network();
    network.put_service(service(None));
    let refused = |m: &str| Err(CallError::Refused(m.to_owned()));
    assert_eq!(get(&network, "http://web/").await, refused("service default/web has no ready endpoints"));
    assert_eq!(get(&network, "http://web:81/").await, refused("service default/web has no port 81"));
    assert_eq!(get(&network, "http://10.244.0.9:1/").await, refused("nobody listens at 10.244.0.9:1"));
    assert_eq!(get(&network, "http://nope/").await, Err(CallError::NameNotFound("service default/nope".into())));
    let denied = get(&network, "http://example.com/").await;
    assert!(matches!(denied, Err(CallError::Denied(_))), "{denied:?}");
}

#[tokio::test]
async fn a_pod_that_takes_nothing_is_passed_over() {
    let network = network();
    network.put_service(service(None));
    network.put_slice(slice(&[1, 2, 3], &[]));
    let closed = Pod::new("closed");
    closed.accepts.store(false, Ordering::SeqCst);
    let _a = network.attach(ip(1), 8080, closed.clone());
    let _b = network.attach(ip(2), 8080, Pod::new("open"));
    // ip(3) is in the slice, but its pod is gone already.
    for _ in 0..50 {
        assert_eq!(get(&network, "http://web/").await.as_deref(), Ok("open"));
    }
    assert_eq!(closed.served.load(Ordering::SeqCst), 0);
}

/// A pod that is replaced just when a request has picked it.
struct Replaced(Network);

#[async_trait]
impl HttpHandler for Replaced {
    fn accepts(&self) -> bool {
        self.0.put_slice(slice(&[2], &[1]));
        false
    }

    async fn call(&self, _request: Request<Body>) -> Result<Response<Body>, CallError> {
        unreachable!("it takes no request")
    }
}

#[tokio::test]
async fn endpoints_that_went_meanwhile_do_not_fail_a_request() {
    let network = network();
    network.put_service(service(None));
    network.put_slice(slice(&[1], &[]));
    let _old = network.attach(ip(1), 8080, Arc::new(Replaced(network.clone())));
    let _new = network.attach(ip(2), 8080, Pod::new("new"));
    assert_eq!(get(&network, "http://web/").await.as_deref(), Ok("new"));
}

#[tokio::test]
async fn ending_pods_serve_when_no_other_is_ready() {
    let network = network();
    network.put_service(service(None));
    let _a = network.attach(ip(1), 8080, Pod::new("ending"));
    let _b = network.attach(ip(2), 8080, Pod::new("ready"));
    network.put_slice(slice(&[], &[1]));
    assert_eq!(get(&network, "http://web/").await.as_deref(), Ok("ending"));
    network.put_slice(slice(&[2], &[1]));
    for _ in 0..20 {
        assert_eq!(get(&network, "http://web/").await.as_deref(), Ok("ready"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_routes_and_requests() {
    let network = network();
    network.put_service(service(None));
    network.put_slice(slice(&[1], &[]));
    let gate = Arc::new(Notify::new());
    let attachment = Arc::new(network.attach(ip(1), 8080, Pod::gated("slow", &gate)));
    let asked = tokio::spawn({
        let network = network.clone();
        async move { get(&network, "http://web/").await }
    });
    while attachment.under_way() == 0 {
        tokio::task::yield_now().await;
    }
    let drain = tokio::spawn({
        let attachment = attachment.clone();
        async move { attachment.drain(Duration::from_secs(30)).await }
    });
    tokio::time::advance(Duration::from_secs(1)).await;
    // Still routed: a late request is answered.
    let late = tokio::spawn({
        let network = network.clone();
        async move { get(&network, "http://web/").await }
    });
    while attachment.under_way() < 2 {
        tokio::task::yield_now().await;
    }
    network.put_slice(slice(&[], &[1]));
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(!drain.is_finished());
    gate.notify_one();
    gate.notify_one();
    assert_eq!(asked.await.unwrap().as_deref(), Ok("slow"));
    assert_eq!(late.await.unwrap().as_deref(), Ok("slow"));
    assert!(drain.await.unwrap());
    assert!(matches!(get(&network, "http://10.244.0.1:8080/").await, Err(CallError::NotAccepted(_))));
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_at_its_timeout() {
    let network = network();
    let gate = Arc::new(Notify::new());
    let attachment = network.attach(ip(1), 8080, Pod::gated("stuck", &gate));
    let asked = tokio::spawn({
        let network = network.clone();
        async move { get(&network, "http://10.244.0.1:8080/").await }
    });
    while attachment.under_way() == 0 {
        tokio::task::yield_now().await;
    }
    assert!(!attachment.drain(Duration::from_secs(5)).await);
    gate.notify_one();
    assert_eq!(asked.await.unwrap().as_deref(), Ok("stuck"));
}

/// One request over a real socket.
async fn fetch(address: SocketAddr, host: &str, path: &str) -> (StatusCode, String) {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = Request::get(path).header("host", host).body(Empty::<Bytes>::new()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    drop(sender);
    connection.await.unwrap().unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

fn ingress(host: Option<&str>) -> Ingress {
    let backend = Backend { service: "web".into(), port: BackendPort::Name("http".into()) };
    let rule = Rule { host: host.map(Into::into), path: PathMatch::Prefix("/app".into()), backend };
    Ingress { name: Name::new("default", "web"), default_backend: None, rules: vec![rule], tls: Vec::new() }
}

#[tokio::test]
async fn an_ingress_serves_clients_outside() {
    let network = network();
    let address = network.listen_ingress(([127, 0, 0, 1], 0).into()).await.unwrap();
    assert_eq!(fetch(address, "a.test", "/app").await.0, StatusCode::NOT_FOUND);
    network.put_ingress(ingress(Some("a.test")));
    assert_eq!(fetch(address, "a.test", "/app").await.0, StatusCode::SERVICE_UNAVAILABLE);
    network.put_service(service(None));
    network.put_slice(slice(&[1], &[]));
    let (status, message) = fetch(address, "a.test", "/app").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{message}");
    let _pod = network.attach(ip(1), 8080, Pod::new("one"));
    assert_eq!(fetch(address, "a.test", "/app/x?y=1").await, (StatusCode::OK, "one".into()));
    assert_eq!(fetch(address, "b.test", "/app").await.0, StatusCode::NOT_FOUND);
    network.shutdown(Duration::from_secs(5)).await;
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

/// The shapes of ingress-controller-conformance's `default_backend.feature` and `load_balancing.feature`.
#[tokio::test]
async fn a_default_backend_takes_everything_with_all_its_pods() {
    let network = network();
    let address = network.listen_ingress(([127, 0, 0, 1], 0).into()).await.unwrap();
    let default_backend = Some(Backend { service: "web".into(), port: BackendPort::Number(80) });
    network.put_ingress(Ingress { default_backend, rules: Vec::new(), ..ingress(None) });
    network.put_service(service(None));
    network.put_slice(slice(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10], &[]));
    let pods: Vec<Arc<Pod>> = (1..=10).map(|_| Pod::new("echo-service")).collect();
    let _attached: Vec<_> = (1..).zip(&pods).map(|(last, pod)| network.attach(ip(last), 8080, pod.clone())).collect();
    for (host, path) in [("my-host", "/"), ("my-host", "/sub-path"), ("some-host", "/"), ("", "/resource")] {
        assert_eq!(fetch(address, host, path).await, (StatusCode::OK, "echo-service".into()), "{host}{path}");
    }
    for _ in 0..300 {
        assert_eq!(fetch(address, "load-balancing", "/").await.0, StatusCode::OK);
    }
    let served: Vec<_> = pods.iter().map(|pod| pod.served.load(Ordering::SeqCst)).collect();
    assert!(served.iter().all(|count| *count > 0), "{served:?}");
}

#[tokio::test]
async fn node_ports_open_and_close_with_their_service() {
    let network = network();
    let free = SocketAddr::from(([127, 0, 0, 1], free_port()));
    network.put_slice(slice(&[1], &[]));
    let _pod = network.attach(ip(1), 8080, Pod::new("one"));
    network.put_service(service(Some(free.port())));
    while tokio::net::TcpStream::connect(free).await.is_err() {
        tokio::task::yield_now().await;
    }
    assert_eq!(fetch(free, "x", "/").await, (StatusCode::OK, "one".into()));
    network.remove_service(&Name::new("default", "web"));
    while tokio::net::TcpStream::connect(free).await.is_ok() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_taken_port_is_said() {
    let network = network();
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = taken.local_addr().unwrap();
    let error = network.listen_ingress(address).await.unwrap_err();
    assert_eq!(error.to_string(), format!("cannot listen on {address}: the port is already in use"));
}

/// Pods are replaced one after the other, as in a rolling update, while clients never pause: none may fail.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_update_under_load_loses_no_request() {
    let network = network();
    network.put_service(service(None));
    let mut pods = std::collections::VecDeque::new();
    for last in [1, 2] {
        pods.push_back((last, network.attach(ip(last), 8080, Pod::new("pod"))));
    }
    network.put_slice(slice(&[1, 2], &[]));
    let done = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (network, done, answered) = (network.clone(), done.clone(), answered.clone());
            tokio::spawn(async move {
                while !done.load(Ordering::Relaxed) {
                    assert_eq!(get(&network, "http://web/").await.as_deref(), Ok("pod"));
                    answered.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for last in 3..60u8 {
        pods.push_back((last, network.attach(ip(last), 8080, Pod::new("pod"))));
        let (old, attachment) = pods.pop_front().unwrap();
        let drain = attachment.drain(Duration::from_secs(10));
        let ready: Vec<u8> = pods.iter().map(|(l, _)| *l).collect();
        let change = async {
            tokio::task::yield_now().await;
            network.put_slice(slice(&ready, &[old]));
        };
        let (quiet, ()) = tokio::join!(drain, change);
        assert!(quiet);
        let seen = answered.load(Ordering::Relaxed);
        while answered.load(Ordering::Relaxed) < seen + 20 && !clients.iter().any(|c| c.is_finished()) {
            tokio::task::yield_now().await;
        }
    }
    done.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
}
