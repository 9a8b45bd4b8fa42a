//! Clients that mean harm, or that are broken: what they send ends, and nothing of it reaches a pod as something else.

use futures::StreamExt as _;
use http_body::Frame;
use http_body_util::StreamBody;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

use super::*;

/// How long the listeners of these tests are patient.
const PATIENCE: Duration = Duration::from_secs(1);

/// Notes what it is asked; at `/endless` its answer has no end.
#[derive(Default)]
struct Notes {
    seen: Mutex<Vec<String>>,
    dropped: Arc<Notify>,
}

/// Tells when it is dropped.
struct Tells(Arc<Notify>);

impl Drop for Tells {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

#[async_trait]
impl HttpHandler for Notes {
    async fn call(&self, request: Request<Body>) -> Result<Response<Body>, CallError> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned());
        let body = body.unwrap_or_else(|error| format!("({error})"));
        self.seen.lock().push(format!("{} {} {body}", head.method, head.uri.path()).trim_end().to_owned());
        if head.uri.path() != "/endless" {
            return Ok(Response::new(Full::from("ok").map_err(|never| match never {}).boxed_unsync()));
        }
        let tells = Tells(self.dropped.clone());
        let pieces = futures::stream::repeat(()).map(move |()| {
            let _ = &tells;
            Ok(Frame::data(Bytes::from_static(&[b'x'; 16 << 10])))
        });
        Ok(Response::new(StreamBody::new(pieces).boxed_unsync()))
    }
}

/// A Service with one pod, and the node port that leads to it.
struct Target {
    network: Network,
    pod: Arc<Notes>,
    at: SocketAddr,
    _listening: (podium_network::Attachment, podium_network::OuterListener),
}

impl Target {
    async fn new() -> Self {
        let network = Network::new(NetworkConfig {
            header_timeout: PATIENCE,
            idle_timeout: PATIENCE,
            stall_timeout: PATIENCE,
            request_body_bytes_max: 100_000,
            ..NetworkConfig::default()
        });
        network.put_service(service(None));
        network.put_slice(slice(&[1], &[]));
        let pod = Arc::new(Notes::default());
        let attachment = network.attach(ip(1), 8080, pod.clone());
        let port = podium_network::OuterPort {
            address: at("127.0.0.1:0"),
            protocol: Protocol::Tcp,
            service: Name::new("default", "web"),
            port: 80,
        };
        let listener = network.listen_service(port, Vec::new()).await.unwrap();
        Self { network, pod, at: listener.address(), _listening: (attachment, listener) }
    }

    /// Sends bytes and reads until the connection is closed: the codes that were answered.
    async fn send(&self, bytes: &[u8]) -> Vec<String> {
        let mut stream = TcpStream::connect(self.at).await.unwrap();
        // Who is cut off hears of it when writing.
        let _ = stream.write_all(bytes).await;
        codes(&read(&mut stream).await)
    }

    fn seen(&self) -> Vec<String> {
        std::mem::take(&mut self.pod.seen.lock())
    }
}

/// Everything until the connection is closed, however it is.
async fn read(stream: &mut TcpStream) -> Vec<u8> {
    let (mut all, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return all,
            Ok(count) => all.extend_from_slice(&buffer[..count]),
        }
    }
}

fn codes(answers: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(answers);
    text.split("HTTP/1.1 ").skip(1).map(|answer| answer[..3].to_owned()).collect()
}

#[tokio::test]
async fn what_could_be_understood_in_two_ways_reaches_no_pod() {
    let target = Target::new().await;
    let hidden = "GET /hidden HTTP/1.1\r\nhost: x\r\n\r\n";
    for (what, head, body) in [
        ("two lengths", "content-length: 0\r\ncontent-length: 5", ""),
        ("a list of lengths", "content-length: 0, 5", ""),
        ("a length with a sign", "content-length: +0", ""),
        ("chunks that are not the last coding", "transfer-encoding: chunked, identity", "0\r\n\r\n"),
        ("a coding that nobody knows", "transfer-encoding: xchunked", "0\r\n\r\n"),
        ("a line that goes on", "x: a\r\n transfer-encoding: chunked", "0\r\n\r\n"),
        ("a name with a space", "content-length : 5", ""),
        ("a line that ends with CR alone", "x: a\rcontent-length: 5", ""),
        ("a zero byte", "x: a\0b", ""),
        ("two hosts", "host: y", ""),
    ] {
        let request = format!("POST / HTTP/1.1\r\nhost: x\r\n{head}\r\n\r\n{body}{hidden}");
        let codes = target.send(request.as_bytes()).await;
        assert_eq!(codes.first().map(String::as_str), Some("400"), "{what}: {codes:?}");
        // Two hosts are no question of where a request ends: the next one is its own.
        let others: &[&str] = if what == "two hosts" { &["GET /hidden"] } else { &[] };
        assert_eq!(target.seen(), others, "{what}");
    }
    // Chunks win over a length, as they are to; and what follows is not believed to be a request.
    for both in ["content-length: 55\r\ntransfer-encoding: chunked", "transfer-encoding: chunked\r\ncontent-length: 55"]
    {
        let request = format!("POST / HTTP/1.1\r\nhost: x\r\n{both}\r\n\r\n0\r\n\r\n{hidden}");
        assert_eq!(target.send(request.as_bytes()).await, ["200"], "{both}");
        assert_eq!(target.seen(), ["POST /"], "{both}");
    }
    let old = target.send(b"POST / HTTP/1.0\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n").await;
    assert_eq!((old, target.seen()), (vec!["400".to_owned()], Vec::new()), "chunks in HTTP/1.0");
}

#[tokio::test]
async fn what_can_be_understood_in_one_way_is_one_request() {
    let target = Target::new().await;
    for (what, request, seen) in [
        (
            "the same length twice",
            "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\ncontent-length: 2\r\nconnection: close\r\n\r\nab",
            "POST / ab",
        ),
        (
            "an extension of a chunk",
            "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n2;a=b\r\nab\r\n0\r\n\r\n",
            "POST / ab",
        ),
        ("lines that end with LF alone", "GET /lf HTTP/1.1\nhost: x\nconnection: close\n\n", "GET /lf"),
    ] {
        assert_eq!(target.send(request.as_bytes()).await, ["200"], "{what}");
        assert_eq!(target.seen(), [seen], "{what}");
    }
    for (what, chunks) in [
        ("a chunk whose size is too large for a number", "fffffffffffffffff\r\nab\r\n0\r\n\r\n"),
        ("a size that ends with LF alone", "2\nab\r\n0\r\n\r\n"),
        ("a chunk that is longer than it says", "1\r\nabGET /hidden HTTP/1.1\r\nhost: x\r\n\r\n"),
        ("no size", "\r\nab\r\n"),
    ] {
        let request = format!("POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n{chunks}");
        target.send(request.as_bytes()).await;
        let seen = target.seen();
        assert!(seen.len() <= 1 && seen.iter().all(|seen| seen.starts_with("POST / (")), "{what}: {seen:?}");
    }
}

#[tokio::test]
async fn heads_and_bodies_are_bounded() {
    let target = Target::new().await;
    let long = "x".repeat(70 << 10);
    let many: String = (0..200).map(|n| format!("x-{n}: y\r\n")).collect();
    for (what, request, code) in [
        ("a long header", format!("GET / HTTP/1.1\r\nhost: x\r\nx: {long}\r\n\r\n"), "431"),
        ("many headers", format!("GET / HTTP/1.1\r\nhost: x\r\n{many}\r\n"), "431"),
        ("a long path", format!("GET /{long} HTTP/1.1\r\nhost: x\r\n\r\n"), "414 431"),
        ("a long body", "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100001\r\n\r\n".to_owned(), "413"),
        ("no HTTP", "GET / HTTP/9.9\r\nhost: x\r\n\r\n".to_owned(), "400 505"),
    ] {
        let codes = target.send(request.as_bytes()).await;
        assert!(codes.iter().all(|got| code.contains(got.as_str())) && codes.len() == 1, "{what}: {codes:?}");
        assert_eq!(target.seen(), Vec::<String>::new(), "{what}");
    }
    let mut endless = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..30 {
        endless.extend_from_slice(format!("1000\r\n{}\r\n", "x".repeat(4096)).as_bytes());
    }
    assert_eq!(target.send(&endless).await, ["413"]);
}

#[tokio::test]
async fn clients_that_wait_are_not_waited_for() {
    let target = Target::new().await;
    let request = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";
    assert_eq!(target.send(b"").await, Vec::<String>::new(), "it says nothing");
    assert_eq!(target.send(b"PRI * HT").await, Vec::<String>::new(), "it does not say which HTTP it speaks");
    let half = target.send(b"GET / HTTP/1.1\r\nhost: x\r\nx-").await;
    assert!(half.is_empty() || half == ["408"], "half a head: {half:?}");
    assert_eq!(target.send(request.as_bytes()).await, ["200"], "it asks nothing more");
    assert_eq!(target.seen(), ["GET /"]);
    target.send(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nab").await;
    assert_eq!(target.seen(), ["POST / (timed out: nothing more of the request within 1s)"], "half a body");
}

#[tokio::test]
async fn a_head_that_comes_byte_by_byte_does_not_come_for_ever() {
    let target = Target::new().await;
    let mut stream = TcpStream::connect(target.at).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nx: ").await.unwrap();
    let (mut from, mut to) = stream.split();
    let trickle = async {
        while to.write_all(b"y").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let mut buffer = [0; 256];
    let closed = async { while !matches!(from.read(&mut buffer).await, Ok(0) | Err(_)) {} };
    tokio::select! {
        () = trickle => {}
        () = closed => {}
    }
    assert_eq!(target.seen(), Vec::<String>::new());
}

#[tokio::test]
async fn an_answer_that_nobody_takes_ends() {
    let target = Target::new().await;
    let mut stream = TcpStream::connect(target.at).await.unwrap();
    stream.write_all(b"GET /endless HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    target.pod.dropped.notified().await;
    assert!(target.network.is_attached(ip(1), 8080));
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// `GET /` of `x`, as HPACK has it.
const HEAD: &[u8] = &[0x82, 0x84, 0x86, 0x41, 0x01, b'x'];
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// Why a connection was given up, as the last frame says: the code of GOAWAY.
fn given_up(mut frames: &[u8]) -> Option<u32> {
    let mut code = None;
    while let [a, b, c, kind, _, _, _, _, _, rest @ ..] = frames {
        let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        let payload = rest.get(..length)?;
        if *kind == GOAWAY {
            code = payload.get(4..8).map(|code| u32::from_be_bytes(code.try_into().unwrap()));
        }
        frames = &rest[length..];
    }
    code
}

/// Speaks HTTP/2 to a listener; what it answered until it closed the connection.
async fn frames(at: SocketAddr, frames: impl Iterator<Item = Vec<u8>>) -> Vec<u8> {
    let stream = TcpStream::connect(at).await.unwrap();
    let (mut from, mut to) = stream.into_split();
    let reading = tokio::spawn(async move {
        let (mut all, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            all.extend_from_slice(&buffer[..count]);
        }
        all
    });
    let mut opening = PREFACE.to_vec();
    opening.extend(frame(SETTINGS, 0, 0, &[]));
    to.write_all(&opening).await.unwrap();
    for frame in frames {
        if to.write_all(&frame).await.is_err() {
            break;
        }
    }
    reading.await.unwrap()
}

#[tokio::test]
async fn floods_of_frames_end() {
    let target = Target::new().await;
    let open = |stream: u32| frame(HEADERS, 5, stream, HEAD);
    // No error, then: it is closed because nothing is asked.
    assert_eq!(given_up(&frames(target.at, std::iter::empty()).await), Some(0));
    let more = frame(CONTINUATION, 0, 1, &[0; 100]);
    let endless = std::iter::once(frame(HEADERS, 1, 1, HEAD)).chain(std::iter::repeat_n(more, 20_000));
    let code = given_up(&frames(target.at, endless).await);
    assert!(code.is_none_or(|code| code != 0), "a head without an end: {code:?}");
    assert_eq!(target.seen(), Vec::<String>::new());
    let resets = (0..20_000).map(|n| [open(2 * n + 1), frame(RST_STREAM, 0, 2 * n + 1, &[0, 0, 0, 8])].concat());
    assert_eq!(given_up(&frames(target.at, resets).await), Some(11), "requests that are taken back at once");
    target.seen();
    let large = frame(HEADERS, 5, 1, &[0; 100_000]);
    assert_eq!(given_up(&frames(target.at, std::iter::once(large)).await), Some(6), "a frame that is too large");
    let fine = frames(target.at, std::iter::once(open(1))).await;
    assert_eq!((given_up(&fine), target.seen()), (Some(0), vec!["GET /".to_owned()]));
}

#[tokio::test]
async fn a_large_head_over_http_2_reaches_no_pod() {
    let target = Target::new().await;
    // A hundred headers of a thousand bytes, none of them indexed.
    let header = [&[0x00, 1, b'x', 0x7f, 0xe9, 0x06][..], &[b'y'; 1000]].concat();
    let pieces = (0..100).map(|n| frame(CONTINUATION, if n == 99 { 4 } else { 0 }, 1, &header));
    let all = std::iter::once(frame(HEADERS, 1, 1, HEAD)).chain(pieces);
    frames(target.at, all).await;
    assert_eq!(target.seen(), Vec::<String>::new());
    assert_eq!(target.send(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await, ["200"]);
}

#[tokio::test]
async fn settings_that_nobody_reads_the_answers_to_end() {
    let target = Target::new().await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(target.at).await.unwrap();
    stream.write_all(PREFACE).await.unwrap();
    let flood = frame(SETTINGS, 0, 0, &[]).repeat(1000);
    // The connection ends by itself: the answers are not taken.
    while stream.write_all(&flood).await.is_ok() {}
    assert_eq!(target.send(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await, ["200"]);
}

/// As [`settings_that_nobody_reads_the_answers_to_end`], and with the answers read: frames that ask for nothing keep no
/// connection open, however many there are.
#[tokio::test]
async fn frames_that_ask_for_nothing_are_no_requests() {
    let target = Target::new().await;
    for (what, endless) in [
        ("pings", frame(PING, 0, 0, &[0; 8])),
        ("settings", frame(SETTINGS, 0, 0, &[])),
        ("settings that change something each time", frame(SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0, 0, 1, 0, 0, 16, 0])),
        ("priorities", frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 0])),
        ("frames of no known kind", frame(0xfa, 0, 0, &[0; 32])),
    ] {
        let code = given_up(&frames(target.at, std::iter::repeat(endless.repeat(100))).await);
        assert!(matches!(code, None | Some(0 | 11)), "{what}: {code:?}");
        assert_eq!(target.seen(), Vec::<String>::new(), "{what}");
    }
    let wider = frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]);
    let code = given_up(&frames(target.at, std::iter::repeat_n(wider, 10)).await);
    assert_eq!(code, Some(3), "a window without an end");
    let fine = frames(target.at, std::iter::once(frame(HEADERS, 5, 1, HEAD))).await;
    assert_eq!((given_up(&fine), target.seen()), (Some(0), vec!["GET /".to_owned()]));
}

#[tokio::test]
async fn a_body_of_empty_frames_ends() {
    let target = Target::new().await;
    let opening = std::iter::once(frame(HEADERS, 4, 1, HEAD));
    let nothing = frame(DATA, 0, 1, &[]).repeat(100);
    let code = given_up(&frames(target.at, opening.chain(std::iter::repeat(nothing))).await);
    let seen = target.seen();
    assert!(matches!(code, None | Some(11)), "{code:?}");
    assert!(seen.iter().all(|seen| seen.starts_with("GET / (")), "half a body: {seen:?}");
    let fine = frames(target.at, std::iter::once(frame(HEADERS, 5, 1, HEAD))).await;
    assert_eq!((given_up(&fine), target.seen()), (Some(0), vec!["GET /".to_owned()]));
}
