//! A `wasi:http` 0.2 handler for the sandbox's tests: each path does one thing to the host.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use wasip2::{
    http::{
        outgoing_handler,
        types::{
            Fields, IncomingBody, IncomingRequest, OutgoingBody, OutgoingRequest, OutgoingResponse, ResponseOutparam,
            Scheme,
        },
    },
    io::streams::StreamError,
};

wasip2::http::proxy::export!(Guest);

/// Requests that this instance has answered.
static COUNT: AtomicU32 = AtomicU32::new(0);

struct Guest;

impl wasip2::exports::http::incoming_handler::Guest for Guest {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let target = request.path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let number = query.split_once('=').and_then(|(_, n)| n.parse::<u64>().ok()).unwrap_or(0);
        match path {
            "/echo" => echo(request, out),
            "/env" => text(
                out,
                &format!("{:?} {:?}", std::env::args().collect::<Vec<_>>(), std::env::vars().collect::<Vec<_>>()),
            ),
            "/trailers" => trailers(request, out),
            "/no-content" => {
                let response = OutgoingResponse::new(Fields::new());
                response.set_status_code(204).unwrap();
                let body = response.body().unwrap();
                ResponseOutparam::set(out, Ok(response));
                OutgoingBody::finish(body, None).unwrap();
            }
            "/later" => {
                text(out, "answered");
                std::thread::sleep(Duration::from_millis(number));
                println!("went on");
            }
            "/log" => {
                println!("to stdout");
                eprintln!("to stderr");
                text(out, "logged");
            }
            "/spin" => text(out, &spin(Duration::from_millis(number)).to_string()),
            "/sleep" => {
                std::thread::sleep(Duration::from_millis(number));
                text(out, "slept");
            }
            "/alloc" => text(out, &alloc(number).to_string()),
            "/count" => text(out, &(COUNT.fetch_add(1, Ordering::Relaxed) + 1).to_string()),
            "/trap" => deep_in_here(number),
            "/exit" => std::process::exit(1),
            "/silent" => drop(out),
            "/fetch" => text(out, &fetch(query.split_once('=').map_or("", |(_, url)| url))),
            "/slow-stream" => slow_stream(out, number),
            "/break-off" => break_off(out),
            "/file" => text(out, &format!("{:?}", std::fs::read_to_string("/etc/passwd").is_err())),
            "/socket" => text(out, &format!("{:?}", std::net::TcpStream::connect("127.0.0.1:1").is_err())),
            _ => text(out, "hello"),
        }
    }
}

fn respond(out: ResponseOutparam) -> OutgoingBody {
    let response = OutgoingResponse::new(Fields::new());
    let body = response.body().unwrap();
    ResponseOutparam::set(out, Ok(response));
    body
}

fn text(out: ResponseOutparam, text: &str) {
    let body = respond(out);
    {
        let stream = body.write().unwrap();
        for chunk in text.as_bytes().chunks(4096) {
            stream.blocking_write_and_flush(chunk).unwrap();
        }
    }
    OutgoingBody::finish(body, None).unwrap();
}

/// Answers before it has read, chunk by chunk.
fn echo(request: IncomingRequest, out: ResponseOutparam) {
    let incoming = request.consume().unwrap();
    let body = respond(out);
    {
        let (from, to) = (incoming.stream().unwrap(), body.write().unwrap());
        loop {
            match from.blocking_read(4096) {
                Ok(chunk) => to.blocking_write_and_flush(&chunk).unwrap(),
                Err(StreamError::Closed) => break,
                Err(error) => panic!("{error:?}"),
            }
        }
    }
    drop(IncomingBody::finish(incoming));
    OutgoingBody::finish(body, None).unwrap();
}

/// Answers with the body and the trailers that it was sent.
fn trailers(request: IncomingRequest, out: ResponseOutparam) {
    let incoming = request.consume().unwrap();
    let body = respond(out);
    {
        let (from, to) = (incoming.stream().unwrap(), body.write().unwrap());
        while let Ok(chunk) = from.blocking_read(4096) {
            to.blocking_write_and_flush(&chunk).unwrap();
        }
    }
    let future = IncomingBody::finish(incoming);
    future.subscribe().block();
    let sent = future.get().unwrap().unwrap().unwrap();
    let back = Fields::new();
    for (name, value) in sent.iter().flat_map(Fields::entries) {
        back.append(&name, &value).unwrap();
    }
    back.append("x-seen", b"yes").unwrap();
    OutgoingBody::finish(body, Some(back)).unwrap();
}

#[inline(never)]
fn spin(time: Duration) -> u64 {
    let start = Instant::now();
    let mut x = 1_u64;
    while start.elapsed() < time {
        for _ in 0..1000 {
            x = std::hint::black_box(x.wrapping_mul(6364136223846793005).wrapping_add(1));
        }
    }
    x
}

#[inline(never)]
fn alloc(mb: u64) -> usize {
    let mut blocks = Vec::new();
    for _ in 0..mb {
        blocks.push(vec![1_u8; 1 << 20]);
    }
    std::hint::black_box(blocks).len()
}

#[inline(never)]
fn deep_in_here(n: u64) {
    let empty: &[u8] = std::hint::black_box(&[]);
    let _ = std::hint::black_box(empty[n as usize]);
}

fn fetch(url: &str) -> String {
    let (authority, path) = url.split_once('/').unwrap_or((url, ""));
    let request = OutgoingRequest::new(Fields::new());
    request.set_scheme(Some(&Scheme::Http)).unwrap();
    request.set_authority(Some(authority)).unwrap();
    request.set_path_with_query(Some(&format!("/{path}"))).unwrap();
    OutgoingBody::finish(request.body().unwrap(), None).unwrap();
    let future = match outgoing_handler::handle(request, None) {
        Ok(future) => future,
        Err(code) => return format!("error {code:?}"),
    };
    future.subscribe().block();
    let response = match future.get().unwrap().unwrap() {
        Ok(response) => response,
        Err(code) => return format!("error {code:?}"),
    };
    let body = response.consume().unwrap();
    let stream = body.stream().unwrap();
    let mut text = Vec::new();
    while let Ok(chunk) = stream.blocking_read(4096) {
        text.extend(chunk);
    }
    format!("{} {}", response.status(), String::from_utf8_lossy(&text))
}

fn slow_stream(out: ResponseOutparam, millis: u64) {
    let body = respond(out);
    {
        let stream = body.write().unwrap();
        for i in 0..3 {
            stream.blocking_write_and_flush(format!("part {i}\n").as_bytes()).unwrap();
            std::thread::sleep(Duration::from_millis(millis));
        }
    }
    OutgoingBody::finish(body, None).unwrap();
}

/// Traps with a body half written.
fn break_off(out: ResponseOutparam) {
    let body = respond(out);
    body.write().unwrap().blocking_write_and_flush(b"half").unwrap();
    deep_in_here(1);
}
