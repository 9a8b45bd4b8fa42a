//! Which instance answers, how many requests are in one, and what ends with it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::FutureExt as _;
use http_body_util::{BodyExt as _, StreamBody};
use parking_lot::Mutex;
use podium_sandbox::{Body, CallFailure, HttpContainer, Instances, Observer, Reuse};

use crate::support::{self, HTTP_P2, HTTP_P3, get, get_within, http, text};

/// Waits until something holds.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(10), "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn all(container: &HttpContainer, paths: &[&str]) -> Vec<Result<String, CallFailure>> {
    futures::future::join_all(paths.iter().map(|path| text(container, path))).await
}

fn shared(change: impl FnOnce(&mut Reuse)) -> Instances {
    let mut reuse = Reuse::shared();
    change(&mut reuse);
    Instances::Reused(reuse)
}

#[derive(Default)]
struct Traps(Mutex<Vec<(String, Vec<String>)>>);

impl Observer for Traps {
    fn trapped(&self, message: &str, backtrace: &[String]) {
        self.0.lock().push((message.to_owned(), backtrace.to_vec()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn services_answer_several_requests_at_once() {
    let _turn = support::shared().await;
    let (container, _) = http(HTTP_P3, |_| {}).await;
    let start = Instant::now();
    let answers = all(&container, &["/sleep?ms=200"; 24]).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}: one after the other", start.elapsed());
    let peak = text(&container, "/sleep?ms=0").await.unwrap();
    let peak: u32 = peak.split(' ').next().unwrap().parse().unwrap();
    assert!((2..=16).contains(&peak), "{peak} at once in one instance");
    let instances = container.usage().instances;
    assert!((2..=4).contains(&instances), "{instances} instances for 24 requests");
    until("idle instances go", || container.usage().instances == 0).await;
    assert_eq!(container.usage().memory_bytes, 0);

    // A fresh one for each, when asked for.
    let (container, _) = http(HTTP_P3, |spec| spec.limits.reuse = Instances::PerRequest).await;
    assert_eq!(all(&container, &["/sleep?ms=50"; 4]).await, vec![Ok("1 at once".to_owned()); 4]);
    assert_eq!(text(&container, "/count").await.unwrap(), "1");
    assert_eq!(text(&container, "/count").await.unwrap(), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_have_their_time() {
    let _turn = support::shared().await;
    for wasm in [HTTP_P2, HTTP_P3] {
        let young = shared(|reuse| reuse.age_max = Duration::from_millis(50));
        let (container, _) = http(wasm, |spec| spec.limits.reuse = young).await;
        assert_eq!(text(&container, "/count").await.unwrap(), "1");
        tokio::time::sleep(Duration::from_millis(80)).await;
        // A 0.2 instance finds out when it has answered.
        let counts = [text(&container, "/count").await.unwrap(), text(&container, "/count").await.unwrap()];
        assert!(counts.contains(&"1".to_owned()), "{counts:?}");

        let few = shared(|reuse| (reuse.idle_instances_max, reuse.concurrency_max) = (1, 1));
        let (container, _) = http(wasm, |spec| spec.limits.reuse = few).await;
        let answers = all(&container, &["/sleep?ms=50"; 6]).await;
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        until("only one waits", || container.usage().instances <= 1).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trap_fails_what_is_in_its_instance() {
    let _turn = support::shared().await;
    let traps = Arc::new(Traps::default());
    let (container, logs) = http(HTTP_P3, |spec| {
        spec.observer = Some(traps.clone());
        spec.limits.reuse = shared(|reuse| reuse.concurrency_max = 64);
    })
    .await;
    let stream = container.call(get("/slow-stream?ms=60000")).await.unwrap().into_body();
    let mut others: Vec<_> = (0..8).map(|_| Box::pin(text(&container, "/sleep?ms=400"))).collect();
    for other in &mut others {
        assert!(futures::poll!(other).is_pending());
    }
    let trapped = text(&container, "/trap-later?ms=100").await;
    assert!(matches!(trapped, Err(CallFailure::Trapped { .. })), "{trapped:?}");
    let others = futures::future::join_all(others).await;
    let failed = others.iter().filter(|other| matches!(other, Err(CallFailure::Trapped { .. }))).count();
    let answered = others.iter().filter(|other| other.is_ok()).count();
    println!("{failed} failed with it, {answered} were elsewhere");
    assert_eq!(failed + answered, 8, "{others:?}");
    drop(stream);
    let seen = traps.0.lock().clone();
    assert_eq!(seen.len(), 1, "told once, however many requests it took");
    assert!(seen[0].0.contains("unreachable") && !seen[0].1.is_empty(), "{seen:#?}");
    assert!(logs.stderr.lock().contains("trap: "), "{}", logs.stderr.lock());
    assert!(text(&container, "/").await.is_ok(), "the container goes on");
    assert!(container.drain(Duration::from_secs(5)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_whose_instance_trapped_breaks_off() {
    let _turn = support::shared().await;
    let one = shared(|reuse| reuse.concurrency_max = 64);
    let (container, _) = http(HTTP_P3, |spec| spec.limits.reuse = one).await;
    let mut bodies = Vec::new();
    // One in each instance at least.
    for _ in 0..8 {
        let mut body = container.call(get("/slow-stream?ms=1500")).await.unwrap().into_body();
        body.frame().await.unwrap().unwrap();
        bodies.push(body);
    }
    assert!(text(&container, "/trap").await.is_err());
    let ended = futures::future::join_all(bodies.into_iter().map(|body| body.collect().map(|end| end.is_err()))).await;
    assert!(ended.contains(&true), "a body that broke off must not look whole");
}

#[tokio::test(flavor = "multi_thread")]
async fn deadlines_in_shared_instances() {
    let _turn = support::shared().await;
    let soon = Duration::from_millis(300);
    let (container, _) = http(HTTP_P3, |_| {}).await;
    // One that waits ends alone.
    let slow = container.call(get_within("/sleep?ms=60000", soon));
    let start = Instant::now();
    let (slow, others) = tokio::join!(slow, all(&container, &["/sleep?ms=10"; 20]));
    assert_eq!(slow.map(|_| ()), Err(CallFailure::TimedOut));
    assert!(others.iter().all(Result::is_ok), "{others:?}");
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
    // One that computes takes its instance with it.
    let spun = container.call(get_within("/spin?ms=60000", soon)).await;
    assert_eq!(spun.map(|_| ()), Err(CallFailure::TimedOut));
    // Long enough for the head, far too short for the body.
    let stream = container.call(get_within("/slow-stream?ms=60000", Duration::from_secs(5))).await.unwrap();
    assert!(stream.into_body().collect().await.is_err(), "the deadline covers the body");
    assert!(text(&container, "/").await.is_ok());
    until("instances that were given up go", || container.usage().instances <= 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_wants_no_more_gets_no_more() {
    let _turn = support::shared().await;
    let (container, _) = http(HTTP_P3, |_| {}).await;
    let answers = all(&container, &["/alone?ms=100"; 12]).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert!(container.usage().instances > 2, "others were asked: {}", container.usage().instances);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_goes_ends_the_guest() {
    let _turn = support::shared().await;
    for (wasm, path) in [
        (HTTP_P2, "/sleep?ms=60000"),
        (HTTP_P2, "/spin?ms=60000"),
        (HTTP_P3, "/sleep?ms=60000"),
        (HTTP_P3, "/spin?ms=60000"),
    ] {
        let (container, _) = http(wasm, |_| {}).await;
        let mut call = Box::pin(container.call(get(path)));
        assert!(futures::poll!(&mut call).is_pending());
        until("it began", || container.usage().instances == 1).await;
        drop(call);
        until(&format!("{path}: the instance ends"), || container.usage().instances == 0).await;
        assert_eq!(container.in_flight(), 0);
    }
    for wasm in [HTTP_P2, HTTP_P3] {
        let (container, _) = http(wasm, |_| {}).await;
        let mut body = container.call(get("/slow-stream?ms=60000")).await.unwrap().into_body();
        body.frame().await.unwrap().unwrap();
        drop(body);
        until("the instance ends in the middle of its answer", || container.usage().instances == 0).await;
    }
    // One that has everything lets the guest go on.
    for wasm in [HTTP_P2, HTTP_P3] {
        let (container, logs) = http(wasm, |_| {}).await;
        assert_eq!(text(&container, "/later?ms=50").await.unwrap(), "answered");
        until("it goes on", || logs.stdout.lock().contains("went on")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_both_ways() {
    let _turn = support::shared().await;
    for (wasm, path) in [(HTTP_P2, "/trailers"), (HTTP_P3, "/echo")] {
        let (container, _) = http(wasm, |_| {}).await;
        let mut trailers = http::HeaderMap::new();
        trailers.insert("x-sum", http::HeaderValue::from_static("42"));
        let frames = [http_body::Frame::data(Bytes::from_static(b"body")), http_body::Frame::trailers(trailers)];
        let body: Body = StreamBody::new(futures::stream::iter(frames.map(Ok))).boxed_unsync();
        let request = http::Request::builder().method("POST").uri(format!("http://web{path}")).body(body).unwrap();
        let answer = container.call(request).await.unwrap().into_body().collect().await.unwrap();
        assert_eq!(answer.trailers().unwrap()["x-sum"], "42", "{path}");
        assert_eq!(answer.to_bytes(), "body");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_have_no_bodies() {
    let _turn = support::shared().await;
    for (wasm, method, path, status) in
        [(HTTP_P2, "HEAD", "/", 200), (HTTP_P3, "HEAD", "/", 200), (HTTP_P2, "GET", "/no-content", 204)]
    {
        let traps = Arc::new(Traps::default());
        let (container, _) = http(wasm, |spec| spec.observer = Some(traps.clone())).await;
        let mut request = get(path);
        *request.method_mut() = method.parse().unwrap();
        let response = container.call(request).await.unwrap();
        assert_eq!(response.status(), status);
        // As a server does with such a body.
        drop(response);
        assert!(container.drain(Duration::from_secs(5)).await);
        assert_eq!(traps.0.lock().len(), 0, "what it writes is thrown away, not refused");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_guest_does_not_read_is_not_read_for_it() {
    let _turn = support::shared().await;
    for wasm in [HTTP_P2, HTTP_P3] {
        let read = Arc::new(AtomicUsize::new(0));
        let counted = read.clone();
        let endless = futures::stream::repeat_with(move || {
            counted.fetch_add(1, Ordering::SeqCst);
            Ok(http_body::Frame::data(Bytes::from(vec![0; 64 << 10])))
        });
        let (container, _) = http(wasm, |_| {}).await;
        let body: Body = StreamBody::new(endless).boxed_unsync();
        let request = http::Request::builder().method("POST").uri("http://web/sleep?ms=300").body(body).unwrap();
        assert!(container.call(request).await.is_ok());
        let chunks = read.load(Ordering::SeqCst);
        assert!(chunks <= 4, "{chunks} chunks of 64 KiB");

        // And what nobody reads of an answer is not written: the echo waits for its reader.
        let read = Arc::new(AtomicUsize::new(0));
        let counted = read.clone();
        let endless = futures::stream::repeat_with(move || {
            counted.fetch_add(1, Ordering::SeqCst);
            Ok(http_body::Frame::data(Bytes::from(vec![0; 64 << 10])))
        });
        let body: Body = StreamBody::new(endless).boxed_unsync();
        let request = http::Request::builder().method("POST").uri("http://web/echo").body(body).unwrap();
        let answer = container.call(request).await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        let chunks = read.load(Ordering::SeqCst);
        assert!(chunks <= 16, "{chunks} chunks of 64 KiB");
        drop(answer);
        until("it ends", || container.usage().instances == 0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn heavy_guests_wait_for_memory() {
    let _turn = support::shared().await;
    let (one, _) = http(HTTP_P2, |_| {}).await;
    text(&one, "/").await.unwrap();
    println!("one instance: {} bytes", one.usage().memory_bytes_peak);
    // Each begins with a little more than a mebibyte, and all at once would be too many.
    let (container, _) = http(HTTP_P2, |spec| spec.limits.memory_bytes_max = 8 << 20).await;
    let answers = all(&container, &["/sleep?ms=20"; 40]).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert!(container.usage().memory_bytes_peak <= 8 << 20);
}
