//! WebSockets over HTTP/2 (RFC 8441) at Ingresses and Gateways, to pods that know HTTP/1.1.

use http::Method;
use hyper::{client::conn::http2, ext::Protocol};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::*;

type Sender = http2::SendRequest<Empty<Bytes>>;

/// A network with an Ingress for `web`, whose pods are still to come.
async fn serving(config: NetworkConfig) -> (Network, SocketAddr) {
    let network = Network::new(config);
    network.put_service(service(None));
    network.put_slice(slice(&[1], &[]));
    network.put_ingress(ingress(Some("a.test")));
    let address = network.listen_ingress(at("127.0.0.1:0")).await.unwrap();
    (network, address)
}

async fn connected(address: SocketAddr) -> Sender {
    let io = TokioIo::new(TcpStream::connect(address).await.unwrap());
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    // Whether the server takes it is known with its settings.
    sender.send_request(Request::get("http://a.test/settings").body(Empty::new()).unwrap()).await.unwrap();
    sender
}

/// Asks for a protocol, or for a connection to somewhere.
async fn connect(sender: &mut Sender, protocol: Option<&'static str>) -> Response<hyper::body::Incoming> {
    let mut request = Request::builder().method(Method::CONNECT).uri("http://a.test/app");
    if let Some(protocol) = protocol {
        request = request.extension(Protocol::from_static(protocol)).header("sec-websocket-protocol", "chat");
    } else {
        request = request.uri("a.test:80");
    }
    sender.send_request(request.body(Empty::new()).unwrap()).await.unwrap()
}

#[tokio::test]
async fn a_websocket_over_http2_reaches_a_pod_that_listens() {
    let (network, address) = serving(NetworkConfig::default()).await;
    http_tcp::echoing_pod(&network);
    let mut sender = connected(address).await;
    // Several over one connection, beside other requests.
    let mut sockets = Vec::new();
    for _ in 0..3 {
        let answer = connect(&mut sender, Some("websocket")).await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers()["sec-websocket-protocol"], "chat");
        assert!(!answer.headers().contains_key("sec-websocket-accept"), "{answer:?}");
        sockets.push(TokioIo::new(hyper::upgrade::on(answer).await.unwrap()));
    }
    let plain = sender.send_request(Request::get("http://a.test/app").body(Empty::new()).unwrap()).await.unwrap();
    assert_eq!(plain.status(), StatusCode::OK);
    for (number, socket) in sockets.iter_mut().enumerate() {
        let said = vec![u8::try_from(number).unwrap(); 100_000];
        let mut heard = vec![9; said.len()];
        let (mut from, mut to) = tokio::io::split(socket);
        let (read, written) = tokio::join!(from.read_exact(&mut heard), to.write_all(&said));
        assert!(read.is_ok() && written.is_ok() && heard == said, "{number}");
    }
    let mut last = sockets.pop().unwrap();
    last.write_all(b"the end").await.unwrap();
    last.shutdown().await.unwrap();
    let mut said = String::new();
    last.read_to_string(&mut said).await.unwrap();
    assert_eq!(said, "the end");
}

#[tokio::test]
async fn what_is_no_websocket_does_not_look_like_one() {
    let (network, address) = serving(NetworkConfig::default()).await;
    // It answers 200 to whatever it is asked.
    let _pod = network.attach(ip(1), 8080, Pod::new("handler"));
    let mut sender = connected(address).await;
    for (protocol, status) in [(Some("websocket"), 502), (Some("webtransport"), 501), (None, 405)] {
        assert_eq!(connect(&mut sender, protocol).await.status(), status, "{protocol:?}");
    }
    let mut proxied = TcpStream::connect(address).await.unwrap();
    proxied.write_all(b"CONNECT a.test:80 HTTP/1.1\r\nHost: a.test:80\r\n\r\n").await.unwrap();
    let mut said = [0; 12];
    proxied.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"HTTP/1.1 405");
}

#[tokio::test]
async fn a_connection_whose_websocket_is_silent_is_not_idle() {
    let limit = Duration::from_millis(500);
    let config = NetworkConfig { header_timeout: limit, idle_timeout: limit, ..NetworkConfig::default() };
    let (network, address) = serving(config).await;
    http_tcp::echoing_pod(&network);
    let mut sender = connected(address).await;
    let answer = connect(&mut sender, Some("websocket")).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let mut socket = TokioIo::new(hyper::upgrade::on(answer).await.unwrap());
    // Others that are silent are cut off meanwhile, one after the other.
    for _ in 0..3 {
        let mut silent = TcpStream::connect(address).await.unwrap();
        let _cut_off = silent.read_to_end(&mut Vec::new()).await;
    }
    socket.write_all(b"still there").await.unwrap();
    let mut said = [0; 11];
    socket.read_exact(&mut said).await.unwrap();
    assert_eq!(&said, b"still there");
}
