//! A `wasi:http` 0.2 handler that means harm: each path tries to take more of the host than its share, for ever.

use std::hint::black_box;

use wasip2::{
    clocks::monotonic_clock,
    http::types::{
        Fields, IncomingRequest, OutgoingBody, OutgoingRequest, OutgoingResponse, ResponseOutparam,
    },
    io::{poll, streams::OutputStream},
};

wasip2::http::proxy::export!(Guest);

struct Guest;

impl wasip2::exports::http::incoming_handler::Guest for Guest {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        match request.path_with_query().unwrap_or_default().as_str() {
            "/headers-kept" => headers_kept(),
            "/bodies-kept" => bodies_kept(),
            "/requests-kept" => requests_kept(),
            "/timers-kept" => timers_kept(),
            "/timers-polled" => timers_polled(),
            "/ready-polled" => ready_polled(),
            "/sleeps-of-nothing" => sleeps_of_nothing(),
            "/writes-of-nothing" => writes_of_nothing(out),
            "/resources-churned" => resources_churned(),
            "/clock" => loop {
                black_box(monotonic_clock::now());
            },
            "/random" => loop {
                black_box(wasip2::random::random::get_random_bytes(1 << 20));
            },
            "/log" => loop {
                println!("{}", "flood ".repeat(100));
            },
            "/recursion" => drop(black_box(recursion(&mut [0; 64]))),
            "/allocations" => allocations(),
            "/header-flood" => header_flood(out),
            "/body-flood" => body_flood(out),
            "/slow-body" => slow_body(out),
            "/unread" => {
                // Holds the request, and with it its body.
                loop {
                    monotonic_clock::subscribe_duration(1_000_000_000).block();
                    black_box(&request);
                }
            }
            "/read" => {
                let body = request.consume().unwrap();
                let stream = body.stream().unwrap();
                while black_box(stream.blocking_read(1 << 20)).is_ok() {}
            }
            _ => OutgoingBody::finish(respond(out, Fields::new()), None).unwrap(),
        }
    }
}

fn respond(out: ResponseOutparam, headers: Fields) -> OutgoingBody {
    let response = OutgoingResponse::new(headers);
    let body = response.body().unwrap();
    ResponseOutparam::set(out, Ok(response));
    body
}

fn full_headers() -> Fields {
    let fields = Fields::new();
    let value = vec![b'x'; 8000];
    for _ in 0..7 {
        fields.append("x-flood", &value).unwrap();
    }
    fields
}

fn headers_kept() {
    let mut kept = Vec::new();
    loop {
        kept.push(full_headers());
    }
}

fn bodies_kept() {
    let mut kept = Vec::new();
    let chunk = vec![b'x'; 64 << 10];
    loop {
        let response = OutgoingResponse::new(Fields::new());
        let body = response.body().unwrap();
        let stream = body.write().unwrap();
        while stream.check_write().unwrap() >= chunk.len() as u64 {
            stream.write(&chunk).unwrap();
        }
        kept.push((stream, body, response));
    }
}

fn requests_kept() {
    let mut kept = Vec::new();
    loop {
        let request = OutgoingRequest::new(full_headers());
        let _ = request.set_path_with_query(Some(&format!("/{}", "x".repeat(8000))));
        kept.push(request);
    }
}

fn timers_kept() {
    let mut kept = Vec::new();
    loop {
        kept.push(monotonic_clock::subscribe_duration(3_600_000_000_000));
    }
}

fn timers_polled() {
    let timers: Vec<_> = (1..4500).map(|n| monotonic_clock::subscribe_duration(n * 1000)).collect();
    let all: Vec<_> = timers.iter().collect();
    loop {
        black_box(poll::poll(&all));
    }
}

fn ready_polled() {
    let ready = monotonic_clock::subscribe_instant(0);
    loop {
        black_box(poll::poll(&[&ready]));
    }
}

fn sleeps_of_nothing() {
    loop {
        monotonic_clock::subscribe_duration(0).block();
    }
}

fn writes_of_nothing(out: ResponseOutparam) {
    let body = respond(out, Fields::new());
    let stream: OutputStream = body.write().unwrap();
    loop {
        let _ = black_box(stream.blocking_write_and_flush(&[]));
    }
}

fn resources_churned() {
    loop {
        drop(black_box(Fields::new()));
    }
}

#[allow(unconditional_recursion)]
#[inline(never)]
fn recursion(space: &mut [u64; 64]) -> u64 {
    let mut next = [space[0] + 1; 64];
    black_box(recursion(black_box(&mut next))) + next[1]
}

fn allocations() {
    let mut kept = Vec::new();
    loop {
        kept.push(vec![1_u8; 1 << 16]);
        black_box(&kept);
    }
}

/// About as many headers as the host takes.
fn header_flood(out: ResponseOutparam) {
    let fields = Fields::new();
    for n in 0..300 {
        fields.append(&format!("x-flood-{n}"), b"x").unwrap();
    }
    let body = respond(out, fields);
    OutgoingBody::finish(body, None).unwrap();
}

fn body_flood(out: ResponseOutparam) {
    let body = respond(out, Fields::new());
    let stream = body.write().unwrap();
    let chunk = vec![b'x'; 4096];
    while stream.blocking_write_and_flush(&chunk).is_ok() {}
    drop(stream);
    OutgoingBody::finish(body, None).unwrap();
}

fn slow_body(out: ResponseOutparam) {
    let body = respond(out, Fields::new());
    let stream = body.write().unwrap();
    while stream.blocking_write_and_flush(b".").is_ok() {
        monotonic_clock::subscribe_duration(50_000_000).block();
    }
}
