//! HTTP containers: streams, failures, limits, the way out.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, StreamBody};
use podium_sandbox::{Body, CallFailure, Ending, Instances, Outgoing, OutgoingError, Reuse};

use crate::support::{self, HTTP_P2, HTTP_P3, get, get_within, http, request, text};

#[tokio::test(flavor = "multi_thread")]
async fn both_versions_answer() {
    let _turn = support::shared().await;
    let (p2, _) = http(HTTP_P2, |_| {}).await;
    let (p3, _) = http(HTTP_P3, |_| {}).await;
    assert_eq!(text(&p2, "/").await.unwrap(), "hello");
    assert_eq!(text(&p3, "/").await.unwrap(), "hello from 0.3");
    assert_eq!(text(&p2, "/env").await.unwrap(), "[\"web\"] [(\"GREETING\", \"hello there\")]");
    assert_eq!(text(&p3, "/env").await.unwrap(), "[(\"GREETING\", \"hello there\")]");
    for container in [&p2, &p3] {
        assert!(container.drain(Duration::from_secs(5)).await);
        let usage = container.usage();
        assert_eq!((usage.requests, usage.instances, usage.memory_bytes), (2, 0, 0), "idle: owns nothing");
        assert!(usage.cpu > Duration::ZERO && usage.memory_bytes_peak > 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_stream_through() {
    let _turn = support::shared().await;
    let large = Bytes::from(vec![b'x'; 3 << 20]);
    for wasm in [HTTP_P2, HTTP_P3] {
        let (container, _) = http(wasm, |_| {}).await;
        let response = container.call(request("/echo", large.clone())).await.unwrap();
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), large);

        // One piece at a time: the answer to the first is there before the second is sent.
        let (pieces, body) = futures::channel::mpsc::unbounded();
        let body: Body = StreamBody::new(body).boxed_unsync();
        let request = http::Request::builder().uri("http://web/echo").body(body).unwrap();
        let mut answer = container.call(request).await.unwrap().into_body();
        for piece in ["one", "two"] {
            pieces.unbounded_send(Ok(http_body::Frame::data(Bytes::from_static(piece.as_bytes())))).unwrap();
            let frame = answer.frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), piece);
        }
        drop(pieces);
        assert!(answer.frame().await.is_none());
        let usage = container.usage();
        let bytes = large.len() as u64 + 6;
        assert_eq!((usage.received_bytes, usage.sent_bytes), (bytes, bytes));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn output_goes_to_the_log() {
    let _turn = support::shared().await;
    let (container, logs) = http(HTTP_P2, |_| {}).await;
    assert_eq!(text(&container, "/log").await.unwrap(), "logged");
    assert_eq!((logs.stdout.lock().as_str(), logs.stderr.lock().as_str()), ("to stdout\n", "to stderr\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_files_and_no_sockets() {
    let _turn = support::shared().await;
    let (container, _) = http(HTTP_P2, |_| {}).await;
    assert_eq!(text(&container, "/file").await.unwrap(), "true");
    assert_eq!(text(&container, "/socket").await.unwrap(), "true");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_request_ends_alone() {
    let _turn = support::shared().await;
    let (container, logs) = http(HTTP_P2, |_| {}).await;
    let error = text(&container, "/trap?n=7").await.unwrap_err();
    let CallFailure::Trapped { message, backtrace } = &error else { panic!("{error:?}") };
    assert!(message.contains("unreachable"), "{message}");
    assert!(backtrace.iter().any(|frame| frame.contains("deep_in_here")), "{backtrace:#?}");
    let stderr = logs.stderr.lock().clone();
    assert!(
        stderr.contains("index out of bounds") && stderr.contains("trap: ") && stderr.contains("deep_in_here"),
        "{stderr}"
    );

    assert_eq!(text(&container, "/silent").await, Err(CallFailure::NoResponse { exit: None }));
    assert_eq!(text(&container, "/exit").await, Err(CallFailure::NoResponse { exit: Some(1) }));
    let half = container.call(get("/break-off")).await.unwrap().into_body();
    assert!(half.collect().await.is_err(), "a body that broke off must not look whole");
    assert_eq!(text(&container, "/").await.unwrap(), "hello", "others go on");

    let (p3, _) = http(HTTP_P3, |_| {}).await;
    assert!(matches!(text(&p3, "/trap").await, Err(CallFailure::Trapped { .. })));
    let error = text(&p3, "/fail").await.unwrap_err();
    assert_eq!(error.to_string(), "the guest failed: ErrorCode::ConnectionRefused");
}

#[tokio::test(flavor = "multi_thread")]
async fn too_much_memory_ends_the_container() {
    let _turn = support::shared().await;
    let (container, _) = http(HTTP_P2, |spec| spec.limits.memory_bytes_max = 32 << 20).await;
    assert_eq!(text(&container, "/alloc?mb=8").await.unwrap(), "8");
    let sleeper = container.call(get("/sleep?ms=60000"));
    let (bad, other) = tokio::join!(text(&container, "/alloc?mb=64"), sleeper);
    assert_eq!(bad, Err(CallFailure::OutOfMemory { limit_bytes: 32 << 20 }));
    assert!(matches!(other, Err(CallFailure::OutOfMemory { .. })), "the container ends as a whole");
    assert_eq!(container.ended().await, Ending::OutOfMemory { limit_bytes: 32 << 20 });
    assert_eq!(text(&container, "/").await, Err(CallFailure::Stopped));
}

#[tokio::test(flavor = "multi_thread")]
async fn deadlines_hold_for_spinners_and_sleepers() {
    let _turn = support::shared().await;
    let soon = Duration::from_millis(100);
    for wasm in [HTTP_P2, HTTP_P3] {
        let (container, _) = http(wasm, |spec| spec.limits.request_timeout = soon).await;
        for path in ["/sleep?ms=60000", "/spin?ms=60000"] {
            assert_eq!(text(&container, path).await, Err(CallFailure::TimedOut), "{path}");
        }
        // Others go on.
        let (container, _) = http(wasm, |_| {}).await;
        let spun = container.call(get_within("/spin?ms=60000", soon)).await;
        assert_eq!(spun.map(|_| ()), Err(CallFailure::TimedOut));
        assert!(text(&container, "/").await.is_ok());
    }
    // Long enough for the head, far too short for the body.
    let (container, _) = http(HTTP_P2, |spec| spec.limits.request_timeout = Duration::from_secs(5)).await;
    let stream = container.call(get("/slow-stream?ms=60000")).await.unwrap();
    assert!(stream.into_body().collect().await.is_err(), "the deadline covers the body");
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrency_and_queue_are_bounded() {
    let _turn = support::shared().await;
    let (container, _) = http(HTTP_P2, |spec| {
        spec.limits.concurrency_max = 1;
        spec.limits.queue_max = 1;
    })
    .await;
    let mut first = Box::pin(container.call(get("/sleep?ms=100")));
    let mut second = Box::pin(container.call(get("/")));
    assert!(futures::poll!(&mut first).is_pending());
    assert!(futures::poll!(&mut second).is_pending());
    assert_eq!(text(&container, "/").await, Err(CallFailure::QueueFull { waiting: 1 }));
    assert_eq!(container.in_flight(), 2);
    let (first, second) = tokio::join!(first, second);
    assert!(first.is_ok() && second.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_waits_for_what_is_under_way() {
    let _turn = support::shared().await;
    let (container, _) = http(HTTP_P2, |_| {}).await;
    let body = container.call(get("/slow-stream?ms=30")).await.unwrap().into_body();
    assert!(!container.drain(Duration::ZERO).await);
    assert_eq!(text(&container, "/").await, Err(CallFailure::Stopped));
    let (drained, body) = tokio::join!(container.drain(Duration::from_secs(10)), body.collect());
    assert!(drained);
    assert_eq!(body.unwrap().to_bytes(), "part 0\npart 1\npart 2\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_ends_what_is_under_way() {
    let _turn = support::shared().await;
    let (container, _) = http(HTTP_P2, |_| {}).await;
    let mut call = Box::pin(container.call(get("/spin?ms=60000")));
    assert!(futures::poll!(&mut call).is_pending());
    container.kill();
    assert_eq!(call.await.map(|_| ()), Err(CallFailure::Killed));
    assert_eq!(container.ended().await, Ending::Killed);
}

/// Answers with what it was asked.
struct Way;

#[async_trait]
impl Outgoing for Way {
    async fn send(&self, request: http::Request<Body>) -> Result<http::Response<Body>, OutgoingError> {
        match request.uri().host() {
            Some("nowhere") => Err(OutgoingError::NameNotFound("nowhere".into())),
            Some("closed") => Err(OutgoingError::Refused("closed".into())),
            Some("forbidden") => Err(OutgoingError::Denied("forbidden".into())),
            _ => {
                let text = format!("{} {}", request.method(), request.uri());
                Ok(http::Response::new(Full::new(text.into()).map_err(|e| match e {}).boxed_unsync()))
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_out_is_what_was_granted() {
    let _turn = support::shared().await;
    let (denied, _) = http(HTTP_P2, |_| {}).await;
    assert_eq!(text(&denied, "/fetch?u=web/x").await.unwrap(), "error ErrorCode::HttpRequestDenied");
    let (denied, _) = http(HTTP_P3, |_| {}).await;
    assert!(text(&denied, "/fetch?u=web/x").await.unwrap_err().to_string().contains("HttpRequestDenied"));

    let (p2, _) = http(HTTP_P2, |spec| spec.outgoing = Some(Arc::new(Way))).await;
    assert_eq!(text(&p2, "/fetch?u=web.shop/x").await.unwrap(), "200 GET http://web.shop/x");
    assert!(text(&p2, "/fetch?u=nowhere/x").await.unwrap().contains("DnsError"));
    assert!(text(&p2, "/fetch?u=closed/x").await.unwrap().contains("ConnectionRefused"));
    assert!(text(&p2, "/fetch?u=forbidden/").await.unwrap().contains("HttpRequestDenied"));
    let (p3, _) = http(HTTP_P3, |spec| spec.outgoing = Some(Arc::new(Way))).await;
    assert_eq!(text(&p3, "/fetch?u=web.shop/x").await.unwrap(), "GET http://web.shop/x");
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_are_used_again_when_asked_for() {
    let _turn = support::shared().await;
    for wasm in [HTTP_P2, HTTP_P3] {
        let (container, _) = http(wasm, |spec| spec.limits.reuse = Instances::Reused(Reuse::requests(3))).await;
        let count = async || text(&container, "/count").await.unwrap();
        // The instance waits for the next one when the guest has returned, a little after its answer.
        let settle = async || {
            while container.in_flight() > 0 {
                tokio::task::yield_now().await;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        let mut counts = Vec::new();
        for _ in 0..7 {
            counts.push(count().await);
            settle().await;
        }
        assert_eq!(counts, ["1", "2", "3", "1", "2", "3", "1"]);
        assert_eq!(container.usage().instances, 1);

        // One that fails is not used again.
        assert!(text(&container, "/trap").await.is_err());
        settle().await;
        assert_eq!(count().await, "1");
        assert!(container.drain(Duration::from_secs(5)).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_that_wait_for_long_go() {
    let _turn = support::shared().await;
    for wasm in [HTTP_P2, HTTP_P3] {
        let reuse = Reuse { idle: Duration::from_millis(200), ..Reuse::requests(3) };
        let (container, _) = http(wasm, |spec| spec.limits.reuse = Instances::Reused(reuse)).await;
        for _ in 0..2 {
            assert_eq!(text(&container, "/count").await.unwrap(), "1");
            tokio::time::timeout(Duration::from_secs(10), async {
                while container.usage().instances > 0 {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            })
            .await
            .expect("one that waits for long goes");
        }
    }
}
