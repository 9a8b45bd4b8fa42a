//! Clients that do not read, do not ask or do not finish asking.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http_body_util::BodyExt as _;
use podium_store::MemoryStore;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    harness::Cluster,
    raw::{AT_MOST, Raw, eventually, rest, until},
};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// How long a client may take: not long, but longer than one that behaves takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(3);

async fn impatient() -> Cluster {
    let dir = tempfile::tempdir().unwrap();
    Cluster::with(Arc::new(MemoryStore::new()), dir, |config| {
        config.limits.read_timeout = PATIENCE;
        config.limits.write_timeout = PATIENCE;
    })
    .await
}

/// More than sockets take in.
async fn fill(cluster: &Cluster) {
    for i in 0..24 {
        let body = json!({"metadata": {"name": format!("m{i}")}, "data": {"k": "x".repeat(900_000)}});
        cluster.post(MAPS, body).await.ok(201);
    }
}

async fn streams(cluster: &Cluster) -> String {
    let metrics = cluster.get("/metrics").await.text;
    let line = metrics.lines().find(|l| l.starts_with("apiserver_current_inflight_requests{request_kind=\"streams\"}"));
    line.and_then(|l| l.split_whitespace().last()).unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_never_reads_is_cut_off() {
    let cluster = impatient().await;
    fill(&cluster).await;
    let raw = Raw::of(&cluster.server);
    for path in [MAPS.to_owned(), format!("{MAPS}?watch=1")] {
        let mut stream = raw.ask(&raw.head("GET", &path, "")).await;
        // Until the other end is gone.
        let writing = async {
            while stream.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        assert!(tokio::time::timeout(AT_MOST, writing).await.is_ok(), "{path}");
    }
    eventually("the watch is gone", || async { streams(&cluster).await == "0" }).await;
    // Whoever reads gets it all.
    let all = cluster.get(MAPS).await.ok(200);
    assert_eq!(all["items"].as_array().map(Vec::len), Some(25));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_reads_the_connection_but_not_the_answer_is_cut_off() {
    let cluster = impatient().await;
    fill(&cluster).await;
    let raw = Raw::of(&cluster.server);
    for path in [MAPS.to_owned(), format!("{MAPS}?watch=1")] {
        let (mut sender, connection) = raw.http2(20_000).await;
        let answer = sender.send_request(raw.get(&path)).await.unwrap();
        assert_eq!(answer.status(), 200);
        tokio::time::timeout(AT_MOST, connection).await.expect("the connection is closed").unwrap();
        assert!(answer.into_body().collect().await.is_err(), "{path}");
    }
    eventually("the watch is gone", || async { streams(&cluster).await == "0" }).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_answer_that_is_not_read_does_not_end_the_others() {
    let cluster = impatient().await;
    fill(&cluster).await;
    let raw = Raw::of(&cluster.server);
    let (mut sender, _connection) = raw.http2(20_000).await;
    let mut events =
        sender.send_request(raw.get("/api/v1/namespaces?watch=1&resourceVersion=1")).await.unwrap().into_body();
    assert_eq!(streams(&cluster).await, "1");
    let asked = Instant::now();
    let stuck = sender.send_request(raw.get(&format!("{MAPS}?watch=1"))).await.unwrap();
    assert_eq!(stuck.status(), 200);
    let both = streams(&cluster).await;
    assert!(both == "2" || asked.elapsed() >= PATIENCE, "{both}: one went before its time");
    eventually("one of the watches is gone", || async { streams(&cluster).await == "1" }).await;
    cluster.post("/api/v1/namespaces", json!({"metadata": {"name": "late"}})).await.ok(201);
    let mut seen = String::new();
    while !seen.contains("\"late\"") {
        let frame = tokio::time::timeout(AT_MOST, events.frame()).await.unwrap().unwrap().unwrap();
        seen.push_str(&String::from_utf8_lossy(frame.data_ref().unwrap()));
    }
    assert!(stuck.into_body().collect().await.is_err());
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_watch_stays() {
    let cluster = impatient().await;
    let raw = Raw::of(&cluster.server);
    let mut stream = raw.ask(&raw.head("GET", &format!("{MAPS}?watch=1"), "")).await;
    let (mut sender, _connection) = raw.http2(100_000).await;
    let mut events = sender.send_request(raw.get(&format!("{MAPS}?watch=1"))).await.unwrap().into_body();
    until(&mut stream, "kube-root-ca.crt").await;
    // Longer than both timeouts, with nothing to be said.
    assert!(tokio::time::timeout(Duration::from_secs(7), until(&mut stream, "\"quiet\"")).await.is_err());
    cluster.post(MAPS, json!({"metadata": {"name": "quiet"}})).await.ok(201);
    until(&mut stream, "\"quiet\"").await;
    let mut seen = String::new();
    while !seen.contains("\"quiet\"") {
        let frame = tokio::time::timeout(AT_MOST, events.frame()).await.unwrap().unwrap().unwrap();
        seen.push_str(&String::from_utf8_lossy(frame.data_ref().unwrap()));
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_ask_is_cut_off() {
    let cluster = impatient().await;
    let raw = Raw::of(&cluster.server);
    let mut silent = TcpStream::connect(raw.addr).await.unwrap();
    let ended = tokio::time::timeout(AT_MOST, silent.read(&mut [0; 1])).await.expect("no handshake, no connection");
    assert!(matches!(ended, Ok(0) | Err(_)));
    let half = raw.head("GET", MAPS, "");
    let half = half.trim_end();
    let asking = [
        ("http/1.1", ""),
        ("http/1.1", "GET"),
        ("http/1.1", half),
        ("h2", ""),
        ("h2", "PRI * HTTP/2.0\r\n"),
        ("h2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0"),
    ];
    let raw = &raw;
    let cut_off = asking.map(|(protocol, sent)| async move {
        let mut stream = raw.connect(protocol).await;
        stream.write_all(sent.as_bytes()).await.unwrap();
        if let Ok(answer) = rest(&mut stream).await {
            assert!(!answer.contains("200"), "{protocol} {sent:?}: {answer}");
        }
    });
    futures::future::join_all(cut_off).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_finish_a_second_request_is_cut_off() {
    let cluster = impatient().await;
    let raw = Raw::of(&cluster.server);
    let mut stream = raw.ask(&raw.head("GET", "/version", "")).await;
    until(&mut stream, "platform").await;
    stream.write_all(b"GET /version HTTP/1.1\r\nHo").await.unwrap();
    let answer = rest(&mut stream).await.unwrap_or_default();
    assert!(!answer.contains("platform"), "{answer}");
    // A body that does not come is answered.
    let mut stream =
        raw.ask(&raw.head("POST", MAPS, "Content-Type: application/json\r\nContent-Length: 100\r\n")).await;
    stream.write_all(b"{\"half\":").await.unwrap();
    let answer = rest(&mut stream).await.unwrap();
    assert!(answer.contains("504") && answer.contains("did not come within its time"), "{answer}");
    cluster.stop().await;
}
