//! A `wasi:http` 0.3 service for the sandbox's tests.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use wasip3::{
    http::types::{ErrorCode, Fields, Request, Response, Scheme},
    wit_bindgen, wit_future, wit_stream,
};

wasip3::http::service::export!(Guest);

/// Requests that this instance has answered.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// Requests that it answers now, and at most so far.
static ACTIVE: AtomicU32 = AtomicU32::new(0);
static PEAK: AtomicU32 = AtomicU32::new(0);

struct Guest;

impl wasip3::exports::http::handler::Guest for Guest {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let target = request.get_path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        match path {
            "/echo" => Ok(echo(request)),
            "/env" => Ok(text(format!("{:?}", std::env::vars().collect::<Vec<_>>()))),
            "/count" => Ok(text((COUNT.fetch_add(1, Ordering::Relaxed) + 1).to_string())),
            "/trap" => panic!("asked to"),
            "/trap-later" => {
                pause(query).await;
                panic!("asked to")
            }
            "/sleep" => {
                let now = ACTIVE.fetch_add(1, Ordering::Relaxed) + 1;
                PEAK.fetch_max(now, Ordering::Relaxed);
                pause(query).await;
                ACTIVE.fetch_sub(1, Ordering::Relaxed);
                Ok(text(format!("{} at once", PEAK.load(Ordering::Relaxed))))
            }
            "/alone" => {
                // As long as this one is answered, the host is to send no other.
                wit_bindgen::backpressure_inc();
                pause(query).await;
                wit_bindgen::backpressure_dec();
                Ok(text(format!("{} so far", COUNT.fetch_add(1, Ordering::Relaxed) + 1)))
            }
            "/slow-stream" => Ok(slow_stream(query.split_once('=').and_then(|(_, n)| n.parse().ok()).unwrap_or(0))),
            "/later" => {
                let millis = query.to_owned();
                wit_bindgen::spawn_local(async move {
                    pause(&millis).await;
                    println!("went on");
                });
                Ok(text("answered".to_owned()))
            }
            "/spin" => Ok(text(spin(query.split_once('=').and_then(|(_, n)| n.parse().ok()).unwrap_or(0)).to_string())),
            "/fail" => Err(ErrorCode::ConnectionRefused),
            "/fetch" => fetch(query.split_once('=').map_or("", |(_, url)| url)).await,
            _ => Ok(text("hello from 0.3".to_owned())),
        }
    }
}

async fn pause(query: &str) {
    let millis: u64 = query.split_once('=').and_then(|(_, n)| n.parse().ok()).unwrap_or(0);
    wasip3::clocks::monotonic_clock::wait_for(millis * 1_000_000).await;
}

fn slow_stream(millis: u64) -> Response {
    let (mut tx, rx) = wit_stream::new();
    let (_trailers, trailers) = wit_future::new(|| Ok(None));
    let (response, _sent) = Response::new(Fields::new(), Some(rx), trailers);
    wit_bindgen::spawn_local(async move {
        for i in 0..3 {
            tx.write_all(format!("part {i}\n").into_bytes()).await;
            wasip3::clocks::monotonic_clock::wait_for(millis * 1_000_000).await;
        }
    });
    response
}

fn text(text: String) -> Response {
    let (mut tx, rx) = wit_stream::new();
    let (_trailers, trailers) = wit_future::new(|| Ok(None));
    let (response, _sent) = Response::new(Fields::new(), Some(rx), trailers);
    wit_bindgen::spawn_local(async move {
        tx.write_all(text.into_bytes()).await;
    });
    response
}

fn echo(request: Request) -> Response {
    let (_done, done) = wit_future::new(|| Ok(()));
    let (body, trailers) = Request::consume_body(request, done);
    Response::new(Fields::new(), Some(body), trailers).0
}

async fn fetch(url: &str) -> Result<Response, ErrorCode> {
    let (authority, path) = url.split_once('/').unwrap_or((url, ""));
    let (_trailers, trailers) = wit_future::new(|| Ok(None));
    let (request, _sent) = Request::new(Fields::new(), None, trailers, None);
    let _ = request.set_scheme(Some(&Scheme::Http));
    let _ = request.set_authority(Some(authority));
    let _ = request.set_path_with_query(Some(&format!("/{path}")));
    wasip3::http::client::send(request).await
}

fn spin(millis: u64) -> u64 {
    let start = std::time::Instant::now();
    let mut x = 1_u64;
    while start.elapsed() < Duration::from_millis(millis) {
        x = std::hint::black_box(x.wrapping_mul(6364136223846793005).wrapping_add(1));
    }
    x
}
