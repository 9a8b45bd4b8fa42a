//! `agnhost grpc-health-checking`: the health service of gRPC, by as much of HTTP/2 as one call of it takes.
//!
//! # Source
//! RFC 9113 (frames), RFC 7541 (the few header fields that are written; none is read: whatever is called is `Check`).

use std::{
    cell::Cell,
    collections::HashMap,
    rc::Rc,
    time::{Duration, Instant},
};

use podium_tools::Code;

use super::log;
use crate::{
    flags::Flags,
    http::{self, Request, Response},
    net::{Connection, Listener},
    tasks::spawn,
};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_BYTES_MAX: usize = 16 << 10;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW: u8 = 8;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const SERVING: u8 = 1;
const NOT_SERVING: u8 = 2;

/// What is said of the service.
struct Health {
    service: String,
    forced: Cell<Option<bool>>,
    until: Option<Duration>,
    started: Instant,
}

impl Health {
    fn status(&self) -> u8 {
        let late = self.until.is_some_and(|until| self.started.elapsed() >= until);
        if self.forced.get().unwrap_or(!late) { SERVING } else { NOT_SERVING }
    }
}

pub fn run(args: &[String]) -> Code {
    let flags = Flags::read(args, &[]);
    let (Some(port), Some(http_port)) = (flags.port("port", 5000), flags.port("http-port", 8080)) else { return 1 };
    let health = Rc::new(Health {
        service: flags.text("service", "").to_owned(),
        forced: Cell::new(None),
        until: u64::try_from(flags.number("delay-unhealthy-sec", -1)).ok().map(Duration::from_secs),
        started: Instant::now(),
    });
    let forced = health.clone();
    let set = move |request: Request| {
        let health = forced.clone();
        async move {
            match request.path.as_str() {
                "/make-not-serving" => health.forced.set(Some(false)),
                "/make-serving" => health.forced.set(Some(true)),
                _ => return Response::error(404, "404 page not found"),
            }
            Response::text(format!("{:?}", health.started.elapsed()))
        }
    };
    super::serve(async move {
        log(format_args!("Http server starting to listen on :{http_port}"));
        spawn(async move {
            if let Err(why) = http::serve(http_port, set).await {
                log(why);
                crate::exit(1);
            }
        });
        let listener = Listener::bind(port).await.map_err(|code| format!("listen tcp :{port}: {}", code.name()))?;
        log(format_args!("gRPC server starting to listen on :{port}"));
        loop {
            let connection = listener.accept().await.map_err(|code| code.name().to_owned())?;
            let health = health.clone();
            spawn(async move {
                // Who breaks the rules, or goes, is no more to be answered.
                let _over = Frames { connection: &connection, bytes: Vec::new() }.answer(&health).await;
                connection.finish();
            });
        }
    })
}

struct Frames<'a> {
    connection: &'a Connection,
    bytes: Vec<u8>,
}

impl Frames<'_> {
    async fn take(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.bytes.len() < length {
            let read = self.connection.read().await;
            if read.is_empty() {
                return None;
            }
            self.bytes.extend(read);
        }
        Some(self.bytes.drain(..length).collect())
    }

    async fn send(&self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Option<()> {
        let length = u32::try_from(payload.len()).ok()?.to_be_bytes();
        let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
        self.connection.write(&[&head, payload].concat()).await.then_some(())
    }

    async fn answer(&mut self, health: &Health) -> Option<()> {
        if self.take(PREFACE.len()).await? != PREFACE {
            return None;
        }
        self.send(SETTINGS, 0, 0, &[]).await?;
        let mut bodies: HashMap<u32, Vec<u8>> = HashMap::new();
        loop {
            let head = self.take(9).await?;
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let (kind, flags) = (head[3], head[4]);
            let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
            if length > FRAME_BYTES_MAX || bodies.len() > 100 {
                return None;
            }
            let payload = self.take(length).await?;
            match kind {
                SETTINGS if flags & ACK == 0 => self.send(SETTINGS, ACK, 0, &[]).await?,
                PING if flags & ACK == 0 => self.send(PING, ACK, 0, &payload).await?,
                DATA | HEADERS => {
                    let body = bodies.entry(stream).or_default();
                    if kind == DATA && !payload.is_empty() {
                        body.extend_from_slice(&payload);
                        let size = u32::try_from(length).ok()?.to_be_bytes();
                        self.send(WINDOW, 0, 0, &size).await?;
                    }
                    if flags & END_STREAM != 0 {
                        let body = bodies.remove(&stream).unwrap_or_default();
                        self.check(health, stream, &body).await?;
                    }
                }
                _ => {}
            }
        }
    }

    /// Answers one call.
    async fn check(&self, health: &Health, stream: u32, body: &[u8]) -> Option<()> {
        log(format_args!("Serving the Check request for health check, {:?} after the start", health.started.elapsed()));
        // `:status: 200`, and a content type by its number in the table.
        let mut head = vec![0x88, 0x0f, 0x10];
        string(&mut head, "application/grpc");
        if asked(body) != health.service {
            literal(&mut head, "grpc-status", "5");
            literal(&mut head, "grpc-message", "unknown service");
            return self.send(HEADERS, END_HEADERS | END_STREAM, stream, &head).await;
        }
        self.send(HEADERS, END_HEADERS, stream, &head).await?;
        self.send(DATA, 0, stream, &[0, 0, 0, 0, 2, 0x08, health.status()]).await?;
        let mut trailers = Vec::new();
        literal(&mut trailers, "grpc-status", "0");
        self.send(HEADERS, END_HEADERS | END_STREAM, stream, &trailers).await
    }
}

/// The service that a `HealthCheckRequest` names: its field 1, behind the five bytes of gRPC.
fn asked(body: &[u8]) -> String {
    match body.get(5..) {
        Some([0x0a, length, rest @ ..]) => {
            String::from_utf8_lossy(rest.get(..usize::from(*length)).unwrap_or_default()).into_owned()
        }
        _ => String::new(),
    }
}

fn string(out: &mut Vec<u8>, text: &str) {
    out.push(u8::try_from(text.len()).unwrap_or(0));
    out.extend_from_slice(text.as_bytes());
}

fn literal(out: &mut Vec<u8>, name: &str, value: &str) {
    out.push(0);
    string(out, name);
    string(out, value);
}
