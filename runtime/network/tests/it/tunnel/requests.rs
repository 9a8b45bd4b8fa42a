//! Requests to pods of other nodes.

use futures::{StreamExt as _, channel::mpsc};
use http_body::Frame;
use http_body_util::StreamBody;
use podium_network::BoxError;

use super::*;
use crate::http_tcp::Server;

/// Sends back what comes as it comes, and says what it saw.
pub(super) struct Mirror;

#[async_trait]
impl HttpHandler for Mirror {
    async fn call(&self, request: Request<Body>) -> Result<Response<Body>, CallError> {
        let (head, body) = request.into_parts();
        let mut seen: Vec<String> = head.headers.keys().map(ToString::to_string).collect();
        seen.sort();
        let caller = head.headers.get("x-podium-caller").cloned();
        let caller = caller.unwrap_or_else(|| "nobody".parse().unwrap());
        let answer = Response::builder().header("x-seen-uri", head.uri.to_string()).header("x-seen-caller", caller);
        Ok(answer.header("x-seen-headers", seen.join(" ")).body(body).unwrap())
    }
}

type Pieces = mpsc::UnboundedSender<Result<Frame<Bytes>, BoxError>>;

fn streamed() -> (Pieces, Body) {
    let (sender, pieces) = mpsc::unbounded();
    (sender, StreamBody::new(pieces).boxed_unsync())
}

fn data(text: &'static str) -> Result<Frame<Bytes>, BoxError> {
    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
}

fn seen(answer: &Response<Body>, what: &str) -> String {
    answer.headers()[what].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn bodies_stream_both_ways_and_keep_their_trailers() {
    let (a, b) = two(TunnelLimits::default()).await;
    let _pod = b.network.attach(b.ip(7), 8080, Arc::new(Mirror));
    let (pieces, body) = streamed();
    pieces.unbounded_send(data("one")).unwrap();
    let request = Request::post("http://10.244.2.7:8080/path?q=1").body(body).unwrap();
    let answer = a.pod(3).send(request).await.unwrap();
    assert_eq!(seen(&answer, "x-seen-uri"), "http://10.244.2.7:8080/path?q=1");
    assert_eq!(seen(&answer, "x-seen-caller"), "spiffe://cluster.local/ns/default/sa/robot");
    let mut body = answer.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "one");
    pieces.unbounded_send(data("")).unwrap();
    pieces.unbounded_send(data("two")).unwrap();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "two", "before the request has ended");
    let trailers = http::HeaderMap::from_iter([("x-end".parse().unwrap(), "reached".parse().unwrap())]);
    pieces.unbounded_send(Ok(Frame::trailers(trailers))).unwrap();
    drop(pieces);
    let rest = body.collect().await.unwrap();
    assert_eq!(rest.trailers().unwrap()["x-end"], "reached");
    assert_eq!(rest.to_bytes(), "");
    until(|| count(&b.network, "podium_tunnel_streams", &["in"]) == 0.0).await;
    assert_eq!(count(&a.network, "podium_tunnel_streams", &["out"]), 0.0);
    assert_eq!(count(&b.network, "podium_tunnel_received_total", &["default", "robot"]), 1.0);
    assert!(count(&a.network, "podium_tunnel_bytes_total", &["out"]) > 6.0);
}

#[tokio::test]
async fn a_body_that_breaks_off_is_not_taken_for_a_whole_one() {
    let (a, b) = two(TunnelLimits::default()).await;
    let _pod = b.network.attach(b.ip(7), 8080, Arc::new(Mirror));
    let (pieces, body) = streamed();
    pieces.unbounded_send(data("one")).unwrap();
    let request = Request::post("http://10.244.2.7:8080/").body(body).unwrap();
    let mut body = a.pod(3).send(request).await.unwrap().into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "one");
    pieces.unbounded_send(Err("lost".into())).unwrap();
    assert!(body.frame().await.unwrap().is_err());
}

#[tokio::test]
async fn nobody_forges_who_it_is() {
    let (a, b) = two(TunnelLimits::default()).await;
    let _there = b.network.attach(b.ip(7), 8080, Arc::new(Mirror));
    let _here = a.network.attach(a.ip(7), 8080, Arc::new(Mirror));
    a.network.put_service(service(None));
    let forged = |uri: &str| {
        let request = Request::get(uri)
            .header("x-podium-caller", "spiffe://cluster.local/ns/kube-system/sa/admin")
            .header("podium-tunnel-to", "10.244.2.9:1")
            .header("podium-tunnel-source", "10.244.2.9:1")
            .header("podium-tunnel-pod", "other")
            .header("podium-tunnel-path", "/exec")
            .header("podium-tunnel-side", "?")
            .header("x-fine", "1");
        request.body(Empty::new().map_err(|never| match never {}).boxed_unsync()).unwrap()
    };
    let robot = "spiffe://cluster.local/ns/default/sa/robot";
    let stranger =
        Caller { namespace: "default".into(), pod: "x".into(), service_account: String::new(), ip: Some(a.ip(9)) };
    for (dialer, caller) in [(a.pod(3), robot), (a.network.dialer(stranger), "nobody")] {
        for (target, pods) in [("10.244.2.7:8080", None), ("web", Some(b.at(7, 0))), ("web", Some(a.at(7, 0)))] {
            if let Some(pods) = pods {
                a.network.put_slice(spread(&[pods]));
            }
            let answer = dialer.send(forged(&format!("http://{target}/"))).await.unwrap();
            assert_eq!(seen(&answer, "x-seen-caller"), caller, "{target} {pods:?}");
            if pods.is_none_or(|pods| pods.ip() != a.ip(7)) {
                let headers = seen(&answer, "x-seen-headers");
                assert!(!headers.contains("tunnel") && headers.contains("x-fine"), "{headers}");
            }
        }
    }
    let outside = a.network.listen_ingress(at("127.0.0.1:0")).await.unwrap();
    a.network.put_ingress(ingress(None));
    a.network.put_slice(spread(&[b.at(7, 0)]));
    let stream = tokio::net::TcpStream::connect(outside).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("/app").header("host", "x").header("x-podium-caller", robot);
    let answer = sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
    assert_eq!((answer.status(), &answer.headers()["x-seen-caller"]), (StatusCode::OK, &"nobody".parse().unwrap()));
    assert_eq!(answer.headers()["x-seen-uri"], "http://x/app");
}

/// A pod that answers as if its node did.
struct Liar;

#[async_trait]
impl HttpHandler for Liar {
    async fn call(&self, _: Request<Body>) -> Result<Response<Body>, CallError> {
        let body = Full::new(Bytes::from("mine")).map_err(|never| match never {}).boxed_unsync();
        Ok(Response::builder().header("podium-tunnel-error", "not-accepted").body(body).unwrap())
    }
}

#[tokio::test]
async fn pods_do_not_speak_for_their_node() {
    let (a, b) = two(TunnelLimits::default()).await;
    let _pod = b.network.attach(b.ip(7), 8080, Arc::new(Liar));
    assert_eq!(ask(&a.pod(3), "http://10.244.2.7:8080/").await.as_deref(), Ok("mine"));
}

#[tokio::test]
async fn a_service_is_shared_out_over_nodes() {
    let ca = Ca::new();
    let nodes = [
        Node::new(&ca, 1, TunnelLimits::default()).await,
        Node::new(&ca, 2, TunnelLimits::default()).await,
        Node::new(&ca, 3, TunnelLimits::default()).await,
    ];
    let [a, b, c] = &nodes;
    acquaint(&[a, b, c]);
    a.network.put_service(service(None));
    a.network.put_slice(spread(&[a.at(7, 0), b.at(7, 0), c.at(7, 0)]));
    let pods = [Pod::new("a"), Pod::new("b"), Pod::new("c")];
    let _ports: Vec<_> =
        nodes.iter().zip(&pods).map(|(node, pod)| node.network.attach(node.ip(7), 8080, pod.clone())).collect();
    let dialer = a.pod(3);
    for _ in 0..20 {
        let all = (0..30).map(|_| ask(&dialer, "http://web/"));
        for answer in futures::future::join_all(all).await {
            assert!(["a", "b", "c"].contains(&answer.unwrap().as_str()));
        }
    }
    assert!(pods.iter().all(|pod| pod.served.load(Ordering::SeqCst) > 0), "each had some");
    assert_eq!(count(&a.network, "podium_tunnel_connections", &["out"]), 2.0, "one for each other node");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_requests_share_one_connection() {
    let (a, b) = two(TunnelLimits::default()).await;
    let _pod = b.network.attach(b.ip(7), 8080, Arc::new(Mirror));
    let dialer = a.pod(3);
    let large = Bytes::from((0..300_000u32).map(|i| (i % 251) as u8).collect::<Vec<_>>());
    let one = |i: usize| {
        let (dialer, large) = (dialer.clone(), large.clone());
        async move {
            let sent = if i.is_multiple_of(4) { large } else { Bytes::from(vec![7; i]) };
            let body = Full::new(sent.clone()).map_err(|never| match never {}).boxed_unsync();
            let answer = dialer.send(Request::put("http://10.244.2.7:8080/").body(body).unwrap()).await.unwrap();
            assert!(answer.into_body().collect().await.unwrap().to_bytes() == sent, "{i}");
        }
    };
    let all: Vec<_> = (0..200).map(|i| tokio::spawn(one(i))).collect();
    for one in all {
        one.await.unwrap();
    }
    assert_eq!(count(&a.network, "podium_tunnel_connections", &["out"]), 1.0);
    assert_eq!(count(&b.network, "podium_tunnel_connections", &["in"]), 1.0);
}

#[tokio::test]
async fn pods_that_listen_are_spoken_to_over_http_and_tls_finds_them() {
    let (a, b) = two(TunnelLimits::default()).await;
    let _server = Server::start(b.pod(7).bind_tcp(at("0.0.0.0:8080")).unwrap().listen(0));
    a.network.put_service(service(None));
    a.network.put_slice(spread(&[b.at(7, 0)]));
    assert_eq!(ask(&a.pod(3), "http://web/path").await.as_deref(), Ok("HTTP/1.1 GET web/path 0"));
    let h2c = Service { traffic: Traffic { h2_ports: vec![80], ..Traffic::default() }, ..service(None) };
    a.network.put_service(h2c);
    assert_eq!(ask(&a.pod(3), "http://web/path").await.as_deref(), Ok("HTTP/2.0 GET web/path 0"));
    a.network.put_service(service(None));
    let outside = a.network.listen_ingress(at("127.0.0.1:0")).await.unwrap();
    a.network.put_ingress(ingress(None));
    assert_eq!(fetch(outside, "x", "/app").await, (StatusCode::OK, "HTTP/1.1 GET x/app 0".into()));
    // It speaks no TLS; that it was tried shows that it is known to be a socket.
    let error = ask(&a.pod(3), "https://web:80/").await.unwrap_err();
    assert!(error.to_string().contains("TLS with web"), "{error}");
}

#[tokio::test]
async fn what_cannot_be_reached_there_is_said_as_here() {
    let (a, b) = two(TunnelLimits::default()).await;
    let dialer = a.pod(3);
    let refused = ask(&dialer, "http://10.244.2.7:8080/").await;
    assert_eq!(refused, Err(CallError::Refused("nobody listens at 10.244.2.7:8080".into())));
    let closed = Pod::new("closed");
    closed.accepts.store(false, Ordering::SeqCst);
    let _pod = b.network.attach(b.ip(7), 8080, closed);
    let full = ask(&dialer, "http://10.244.2.7:8080/").await;
    assert_eq!(full, Err(CallError::NotAccepted("10.244.2.7:8080 takes no requests now".into())));
    assert!(matches!(ask(&dialer, "http://10.244.9.7:8080/").await, Err(CallError::Refused(_))), "no node has it");
}

#[tokio::test]
async fn what_a_pod_has_not_begun_another_gets_whatever_it_carries() {
    let (a, b) = two(TunnelLimits::default()).await;
    a.network.put_service(service(None));
    let pods: Vec<_> = (1..5).map(|last| b.at(last, 0)).collect();
    a.network.put_slice(spread(&pods));
    let closed = Pod::new("closed");
    closed.accepts.store(false, Ordering::SeqCst);
    // One takes nothing, two have gone, one is there.
    let _closed = b.network.attach(b.ip(1), 8080, closed.clone());
    let _open = b.network.attach(b.ip(4), 8080, Arc::new(Mirror));
    let dialer = a.pod(3);
    for i in 0..50 {
        let body = Full::new(Bytes::from(vec![i; 1000])).map_err(|never| match never {}).boxed_unsync();
        let answer = dialer.send(Request::post("http://web/").body(body).unwrap()).await.unwrap();
        assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), vec![i; 1000]);
    }
    assert_eq!(closed.served.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn streams_are_bounded_and_a_slow_reader_holds_up_nobody() {
    let limits = TunnelLimits {
        streams_max: 4,
        stream_window_bytes: 70_000,
        connect_timeout: Duration::from_secs(2),
        ..TunnelLimits::default()
    };
    let (a, b) = two(limits).await;
    let _pod = b.network.attach(b.ip(7), 8080, Arc::new(Mirror));
    let dialer = a.pod(3);
    let mut slow = Vec::new();
    for _ in 0..3 {
        let (pieces, body) = streamed();
        for _ in 0..1000 {
            pieces.unbounded_send(Ok(Frame::data(Bytes::from(vec![7; 1000])))).unwrap();
        }
        let answer = dialer.send(Request::post("http://10.244.2.7:8080/").body(body).unwrap()).await.unwrap();
        slow.push((pieces, answer));
    }
    for _ in 0..20 {
        assert_eq!(ask(&dialer, "http://10.244.2.7:8080/").await.as_deref(), Ok(""), "there is room for one");
    }
    let (_pieces, body) = streamed();
    let fourth = dialer.send(Request::post("http://10.244.2.7:8080/").body(body).unwrap()).await.unwrap();
    let fifth = ask(&dialer, "http://10.244.2.7:8080/").await;
    let why = "4 requests and connections to node node-2 are under way";
    assert_eq!(fifth, Err(CallError::NotAccepted(why.into())));
    drop(fourth);
    for (pieces, answer) in slow {
        drop(pieces);
        let read = answer.into_body().collect().await.unwrap().to_bytes().len();
        assert_eq!(read, 1_000_000, "whoever was slow gets it all");
    }
    assert_eq!(ask(&dialer, "http://10.244.2.7:8080/").await.as_deref(), Ok(""));
}

#[tokio::test]
async fn pieces_of_one_byte_cost_no_more_than_their_bytes() {
    let (a, b) = two(TunnelLimits::default()).await;
    let _pod = b.network.attach(b.ip(7), 8080, Arc::new(Mirror));
    let (pieces, body) = streamed();
    let answer = a.pod(3).send(Request::post("http://10.244.2.7:8080/").body(body).unwrap()).await.unwrap();
    for i in 0..20_000u32 {
        pieces.unbounded_send(Ok(Frame::data(Bytes::from(vec![(i % 251) as u8])))).unwrap();
        if i % 64 == 0 {
            tokio::task::yield_now().await;
        }
    }
    drop(pieces);
    let mut frames = answer.into_body().into_data_stream();
    let mut read = Vec::new();
    while let Some(piece) = frames.next().await {
        read.extend_from_slice(&piece.unwrap());
    }
    assert!(read.len() == 20_000 && read.iter().enumerate().all(|(i, byte)| *byte == (i % 251) as u8));
}

/// A pod that answers with much that is no body.
struct Wordy(bool);

#[async_trait]
impl HttpHandler for Wordy {
    async fn call(&self, _: Request<Body>) -> Result<Response<Body>, CallError> {
        let much = || http::HeaderMap::from_iter([("x-much".parse().unwrap(), "x".repeat(200_000).parse().unwrap())]);
        let trailers = self.0.then(much).map(Ok);
        let body = Full::new(Bytes::from("fine")).with_trailers(async { trailers });
        let mut answer = Response::new(body.map_err(|never: std::convert::Infallible| match never {}).boxed_unsync());
        if !self.0 {
            answer.headers_mut().extend(much());
        }
        Ok(answer)
    }
}

#[tokio::test]
async fn heads_that_are_too_large_end_themselves_and_nothing_else() {
    let (a, b) = two(TunnelLimits::default()).await;
    let _pods = [(7, false), (8, true)].map(|(last, of)| b.network.attach(b.ip(last), 8080, Arc::new(Wordy(of))));
    let _fine = b.network.attach(b.ip(9), 8080, Arc::new(Mirror));
    let gate = Arc::new(Notify::new());
    let slow = b.network.attach(b.ip(6), 8080, Pod::gated("slow", &gate));
    let dialer = a.pod(3);
    let waiting = tokio::spawn(async move { ask(&dialer, "http://10.244.2.6:8080/").await });
    until(|| slow.under_way() == 1).await;
    let dialer = a.pod(3);
    let request = Request::get("http://10.244.2.9:8080/").header("x-much", "x".repeat(200_000));
    let request = request.body(Empty::new().map_err(|never| match never {}).boxed_unsync()).unwrap();
    let failed = dialer.send(request).await.map(drop);
    assert!(matches!(&failed, Err(CallError::Failed(why)) if why.contains("head is larger")), "{failed:?}");
    let failed = ask(&dialer, "http://10.244.2.7:8080/").await;
    assert!(matches!(&failed, Err(CallError::Failed(why)) if why.contains("head is larger")), "{failed:?}");
    assert!(ask(&dialer, "http://10.244.2.8:8080/").await.is_err(), "the body breaks off");
    gate.notify_one();
    assert_eq!(waiting.await.unwrap().as_deref(), Ok("slow"), "the connection stands");
    assert_eq!(count(&a.network, "podium_tunnel_failures_total", &[]), 0.0);
}
