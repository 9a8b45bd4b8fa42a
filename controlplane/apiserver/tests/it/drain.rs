//! The end of a server, as its clients see it.

use std::{io::ErrorKind, sync::Arc, time::Duration};

use http_body_util::BodyExt as _;
use podium_store::MemoryStore;
use serde_json::json;
use tokio::{io::AsyncWriteExt as _, net::TcpStream, time::Instant};

use crate::{
    harness::Cluster,
    raw::{AT_MOST, Raw, eventually, rest, until},
};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn cluster(delay: Duration, drain: Duration) -> Cluster {
    let dir = tempfile::tempdir().unwrap();
    Cluster::with(Arc::new(MemoryStore::new()), dir, |config| {
        config.limits.shutdown_delay = delay;
        config.limits.drain_timeout = drain;
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_under_way_ends_well() {
    let cluster = cluster(Duration::from_secs(5), AT_MOST).await;
    let raw = Raw::of(&cluster.server);
    let mut watch = raw.ask(&raw.head("GET", &format!("{MAPS}?watch=1"), "")).await;
    until(&mut watch, "kube-root-ca.crt").await;
    let (mut sender, connection) = raw.http2(100_000).await;
    let mut events = sender.send_request(raw.get(&format!("{MAPS}?watch=1"))).await.unwrap().into_body();
    let mut kept = raw.ask(&raw.head("GET", "/readyz", "")).await;
    assert!(until(&mut kept, "ok").await.contains("200 OK"));
    let body = json!({"metadata": {"name": "late"}}).to_string();
    let length = format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len());
    let mut posting = raw.ask(&raw.head("POST", MAPS, &length)).await;
    posting.write_all(&body.as_bytes()[..5]).await.unwrap();
    let Cluster { server, client, .. } = cluster;
    let stopping = tokio::spawn(server.shutdown());
    // First it is said, and everything goes on.
    eventually("it is not ready", || {
        let raw = raw.clone();
        async move {
            let mut stream = raw.ask(&raw.head("GET", "/readyz", "Connection: close\r\n")).await;
            rest(&mut stream).await.unwrap().contains("500 Internal")
        }
    })
    .await;
    kept.write_all(raw.head("GET", "/livez", "").as_bytes()).await.unwrap();
    assert!(until(&mut kept, "ok").await.contains("200 OK"));
    let mut stream = raw.ask(&raw.head("GET", MAPS, "Connection: close\r\n")).await;
    assert!(rest(&mut stream).await.unwrap().contains("200 OK"));
    // Then there is nothing new, and what there was ends.
    eventually("connections are refused", || async {
        TcpStream::connect(raw.addr).await.is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused)
    })
    .await;
    assert!(rest(&mut watch).await.unwrap().ends_with("0\r\n\r\n"), "the last chunk, then a clean end");
    while let Some(frame) = tokio::time::timeout(AT_MOST, events.frame()).await.unwrap() {
        frame.expect("the stream ends without a reset");
    }
    assert_eq!(rest(&mut kept).await.unwrap(), "");
    assert!(!stopping.is_finished(), "a request is under way");
    posting.write_all(&body.as_bytes()[5..]).await.unwrap();
    let answer = rest(&mut posting).await.unwrap();
    assert!(answer.contains("201 Created") && answer.contains("\"late\""), "{answer}");
    tokio::time::timeout(AT_MOST, connection).await.expect("the connection is closed").unwrap();
    drop(client);
    tokio::time::timeout(AT_MOST, stopping).await.expect("the server stops").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_end_is_cut() {
    let drain = Duration::from_secs(5);
    let cluster = cluster(Duration::ZERO, drain).await;
    let raw = Raw::of(&cluster.server);
    let length = "Content-Type: application/json\r\nContent-Length: 100\r\n";
    let mut posting = raw.ask(&raw.head("POST", MAPS, length)).await;
    let silent = TcpStream::connect(raw.addr).await.unwrap();
    let mut unasked = raw.connect("h2").await;
    let mut asking = raw.connect("http/1.1").await;
    // The request has come in when the next one of its connection's neighbour is answered.
    assert!(cluster.get("/readyz").await.status.is_success());
    let (started, stopping) = (Instant::now(), tokio::spawn(cluster.stop()));
    for stream in [&mut unasked, &mut asking] {
        let _ended = rest(stream).await;
        assert!(started.elapsed() < drain, "nothing was asked on it");
    }
    let answer = rest(&mut posting).await.unwrap_or_default();
    assert_eq!(answer, "");
    tokio::time::timeout(AT_MOST, stopping).await.expect("the server stops").unwrap();
    assert!(started.elapsed() >= drain, "it waited for the request");
    drop(silent);
}
