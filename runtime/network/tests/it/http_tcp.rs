//! HTTP to pods that listen, and TCP to pods that are called.

use std::sync::atomic::AtomicU32;

use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use podium_network::{BoxError, CallTimeouts, Listener};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::*;

/// A server of HTTP that knows only TCP. Counts its connections.
pub(crate) struct Server {
    pub(crate) connections: Arc<AtomicU32>,
}

impl Server {
    pub(crate) fn start(listener: Listener) -> Self {
        let connections = Arc::new(AtomicU32::new(0));
        let counted = connections.clone();
        tokio::spawn(async move {
            while let Ok(connection) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    let io = TokioIo::new(connection.stream);
                    let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(io, service_fn(tell)).await;
                });
            }
        });
        Self { connections }
    }
}

/// Tells what was asked; `/slow` answers never, `/stall` in the middle.
pub(crate) async fn tell(request: Request<hyper::body::Incoming>) -> Result<Response<Body>, BoxError> {
    let (head, body) = request.into_parts();
    if head.uri.path() == "/slow" {
        std::future::pending::<()>().await;
    }
    let host = head.headers.get("host").map(|h| String::from_utf8_lossy(h.as_bytes()).into_owned());
    let host = host.or(head.uri.authority().map(ToString::to_string)).unwrap_or_default();
    let length = body.collect().await?.to_bytes().len();
    let text = format!("{:?} {} {host}{} {length}", head.version, head.method, head.uri.path());
    if head.uri.path() == "/stall" {
        let first = http_body::Frame::data(Bytes::from("begun"));
        let body =
            futures::StreamExt::chain(futures::stream::iter([Ok::<_, BoxError>(first)]), futures::stream::pending());
        return Ok(Response::new(http_body_util::StreamBody::new(body).boxed_unsync()));
    }
    let trailers = http::HeaderMap::from_iter([("x-end".parse()?, "reached".parse()?)]);
    let body = Full::new(Bytes::from(text)).with_trailers(async { Some(Ok(trailers)) });
    Ok(Response::new(body.map_err(|never: std::convert::Infallible| match never {}).boxed_unsync()))
}

async fn post(dialer: &Dialer, uri: &str, kind: &str) -> Result<(String, Option<http::HeaderMap>), CallError> {
    let body = Full::new(Bytes::from(vec![7; 100_000])).map_err(|never| match never {}).boxed_unsync();
    let request = Request::post(uri).header("content-type", kind).body(body).unwrap();
    let answer = dialer.send(request).await?.into_body().collect().await.unwrap();
    let trailers = answer.trailers().cloned();
    Ok((String::from_utf8(answer.to_bytes().to_vec()).unwrap(), trailers))
}

#[tokio::test]
async fn http_reaches_a_pod_that_listens_over_kept_connections() {
    let network = network();
    network.put_service(service(None));
    network.put_slice(slice(&[1], &[]));
    let server = Server::start(pod(&network, 1).bind_tcp(at("0.0.0.0:8080")).unwrap().listen(0));
    let client = pod(&network, 2);
    for _ in 0..10 {
        let (text, _) = post(&client, "http://web/path", "text/plain").await.unwrap();
        assert_eq!(text, "HTTP/1.1 POST web/path 100000");
    }
    // A request that comes before the last response's end is seen takes another one.
    assert!(server.connections.load(Ordering::SeqCst) <= 3);
    let (text, _) = post(&client, "http://10.244.0.1:8080/", "text/plain").await.unwrap();
    assert_eq!(text, "HTTP/1.1 POST 10.244.0.1:8080/ 100000");
    let (text, _) = post(&pod(&network, 1), "http://localhost:8080/", "text/plain").await.unwrap();
    assert_eq!(text, "HTTP/1.1 POST localhost:8080/ 100000");
    // A call of gRPC is HTTP/2, and its trailers come through.
    let (text, trailers) = post(&client, "http://web/grpc", "application/grpc").await.unwrap();
    assert_eq!(text, "HTTP/2.0 POST web/grpc 100000");
    assert_eq!(trailers.unwrap()["x-end"], "reached");
}

#[tokio::test]
async fn an_ingress_leads_to_a_pod_that_listens() {
    let network = network();
    let address = network.listen_ingress(([127, 0, 0, 1], 0).into()).await.unwrap();
    network.put_ingress(ingress(Some("a.test")));
    network.put_service(service(None));
    network.put_slice(slice(&[1], &[]));
    assert_eq!(fetch(address, "a.test", "/app").await.0, StatusCode::SERVICE_UNAVAILABLE);
    let _server = Server::start(pod(&network, 1).bind_tcp(at("0.0.0.0:8080")).unwrap().listen(0));
    assert_eq!(fetch(address, "a.test", "/app").await, (StatusCode::OK, "HTTP/1.1 GET a.test/app 0".into()));
}

/// Takes over connections for whoever asks for the protocol `echo` or a WebSocket, and says what it hears.
pub(crate) async fn echoing(mut request: Request<hyper::body::Incoming>) -> Result<Response<Body>, BoxError> {
    let header = |name: &str| request.headers().get(name).cloned();
    let Some(wanted) = header("upgrade").filter(|wanted| wanted == "echo" || wanted == "websocket") else {
        return tell(request).await;
    };
    let (key, spoken) = (header("sec-websocket-key"), header("sec-websocket-protocol"));
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let (mut from, mut to) = tokio::io::split(TokioIo::new(upgrade.await.unwrap()));
        let _ = tokio::io::copy(&mut from, &mut to).await;
        let _ = tokio::io::AsyncWriteExt::shutdown(&mut to).await;
    });
    let mut switching = Response::builder().status(101).header("connection", "upgrade").header("upgrade", wanted);
    for (name, value) in [("sec-websocket-accept", key), ("sec-websocket-protocol", spoken)] {
        switching = value.into_iter().fold(switching, |switching, value| switching.header(name, value));
    }
    Ok(switching.body(Full::default().map_err(|never| match never {}).boxed_unsync())?)
}

/// The pod behind `web`, with whom the protocol `echo` can be spoken.
pub(crate) fn echoing_pod(network: &Network) {
    let listener = pod(network, 1).bind_tcp(at("0.0.0.0:8080")).unwrap().listen(0);
    tokio::spawn(async move {
        while let Ok(connection) = listener.accept().await {
            let server = hyper::server::conn::http1::Builder::new();
            let io = TokioIo::new(connection.stream);
            tokio::spawn(server.serve_connection(io, service_fn(echoing)).with_upgrades());
        }
    });
}

/// Asks an Ingress for another protocol; the connection and the head of the answer.
pub(crate) async fn upgrade(address: SocketAddr, protocol: &str) -> (tokio::net::TcpStream, String) {
    let head = format!("GET /app HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n");
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    (stream, String::from_utf8(answer).unwrap().to_lowercase())
}

#[tokio::test]
async fn another_protocol_goes_through_an_ingress_to_a_pod_that_listens() {
    let network = network();
    let address = network.listen_ingress(([127, 0, 0, 1], 0).into()).await.unwrap();
    network.put_ingress(ingress(Some("a.test")));
    network.put_service(service(None));
    network.put_slice(slice(&[1], &[]));
    echoing_pod(&network);
    let ask = |protocol| upgrade(address, protocol);
    let (mut stream, answer) = ask("echo").await;
    assert!(answer.starts_with("http/1.1 101 ") && answer.contains("upgrade: echo\r\n"), "{answer}");
    stream.write_all(b"\x00\x01 no HTTP").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).await.unwrap();
    assert_eq!(said, "\x00\x01 no HTTP");
    // Whoever does not take it answers as to any request.
    let (mut stream, answer) = ask("other").await;
    assert!(answer.starts_with("http/1.1 200 "), "{answer}");
    let mut said = vec![0; 8];
    stream.read_exact(&mut said).await.unwrap();
    // An open connection that says nothing does not keep the network from going down.
    let _silent = ask("echo").await;
    tokio::time::timeout(Duration::from_secs(20), network.shutdown(Duration::from_secs(60))).await.unwrap();
}

#[tokio::test]
async fn a_pod_that_is_replaced_between_two_requests_loses_none() {
    let network = network();
    let client = pod(&network, 2);
    for _ in 0..20 {
        let listener = pod(&network, 1).bind_tcp(at("0.0.0.0:8080")).unwrap().listen(0);
        let answered = Arc::new(Notify::new());
        let goes = answered.clone();
        let accepting = tokio::spawn(async move {
            let connection = listener.accept().await.unwrap();
            let io = TokioIo::new(connection.stream);
            let serving = hyper::server::conn::http1::Builder::new().serve_connection(io, service_fn(tell));
            // The listener and its connection go together, as a container goes.
            tokio::select! {
                _ = serving => {}
                () = goes.notified() => {}
            }
            drop(listener);
        });
        let (text, _) = post(&client, "http://10.244.0.1:8080/", "text/plain").await.unwrap();
        assert_eq!(text, "HTTP/1.1 POST 10.244.0.1:8080/ 100000");
        // Time to put the connection by: it goes while it is kept, not while it is used.
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        answered.notify_one();
        accepting.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_takes_as_long_as_it_may() {
    let network = network();
    let _server = Server::start(pod(&network, 1).bind_tcp(at("0.0.0.0:8080")).unwrap().listen(0));
    let client = pod(&network, 2);
    let second = Some(Duration::from_secs(1));
    let timeouts = CallTimeouts { first_byte: second, between_bytes: second, ..CallTimeouts::default() };
    let request = |path: &str| {
        let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
        Request::get(format!("http://10.244.0.1:8080{path}")).body(body).unwrap()
    };
    let slow = client.send_within(request("/slow"), timeouts).await.map(|_| ());
    assert_eq!(slow, Err(CallError::TimedOut("http://10.244.0.1:8080: no response within 1s".into())));
    let stalled = client.send_within(request("/stall"), timeouts).await.unwrap();
    let error = stalled.into_body().collect().await.map(|_| ()).unwrap_err();
    assert_eq!(error.to_string(), "timed out: nothing more of the response within 1s");
}

#[tokio::test]
async fn a_client_of_tcp_speaks_http_with_a_pod_that_is_called() {
    let network = network();
    let _pod = network.attach(ip(1), 8080, Pod::new("one"));
    let stream = pod(&network, 2).connect(at("10.244.0.1:8080")).await.unwrap().stream;
    assert_eq!(get_h1(stream).await, "one");
    assert_eq!(get_h1(network.connect_pod(ip(1), 8080).await.unwrap()).await, "one");
    let stream = pod(&network, 1).connect(at("127.0.0.1:8080")).await.unwrap().stream;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("http://x/").body(Empty::<Bytes>::new()).unwrap();
    let body = sender.send_request(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "one");
}

async fn get_h1(stream: podium_network::PodStream) -> String {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("/").header("host", "x").body(Empty::<Bytes>::new()).unwrap();
    let body = sender.send_request(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}
