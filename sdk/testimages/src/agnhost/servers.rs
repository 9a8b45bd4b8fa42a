//! The small ones: serve-hostname, test-webserver, liveness, porter, http-echo, connect, logs-generator.

use std::time::{Duration, Instant};

use podium_tools::Code;

use super::{host_name, log, netexec::dial_udp, serve};
use crate::{
    flags::Flags,
    http::{self, Request, Response},
    net::{Connection, Datagrams, Failure, Listener, lookup},
    tasks::{FOREVER, block_on, sleep, spawn},
};

/// What a listener says before it serves cannot be said later: the first that fails ends the program.
fn beside(what: &'static str, work: impl Future<Output = Result<(), String>> + 'static) {
    spawn(async move {
        if let Err(why) = work.await {
            log(format_args!("{what}: {why}"));
            crate::exit(1);
        }
    });
}

pub fn serve_hostname(args: &[String]) -> Code {
    let flags = Flags::read(args, &["tcp", "udp", "http", "close"]);
    let (tcp, udp, close) = (flags.is("tcp", false), flags.is("udp", false), flags.is("close", false));
    let by_http = flags.is("http", true);
    let Some(port) = flags.port("port", 9376) else { return 1 };
    if by_http && (tcp || udp) {
        log("Can't server TCP/UDP mode and HTTP mode at the same time");
        return 1;
    }
    if tcp {
        beside("Error from net.Listen()", hostname_by_tcp(port));
    }
    if udp {
        beside("Error from ListenUDP()", say_by_udp(port, host_name()));
    }
    log(format_args!("Serving on port {port}.\n"));
    if !by_http {
        block_on(sleep(FOREVER));
        return 0;
    }
    serve(http::serve(port, move |request: Request| async move {
        log(format_args!("HTTP request from {}", request.peer.map(|p| p.to_string()).unwrap_or_default()));
        Response { close, ..Response::text(host_name()) }
    }))
}

async fn hostname_by_tcp(port: u16) -> Result<(), String> {
    let listener = Listener::bind(port).await.map_err(|code| code.name().to_owned())?;
    loop {
        let connection = listener.accept().await.map_err(|code| code.name().to_owned())?;
        log(format_args!("TCP request from {}", connection.peer().map(|p| p.to_string()).unwrap_or_default()));
        spawn(async move {
            connection.write(host_name().as_bytes()).await;
            connection.finish();
        });
    }
}

/// Answers each datagram with the same.
async fn say_by_udp(port: u16, said: String) -> Result<(), String> {
    let socket = Datagrams::bind(port, None).await.map_err(|code| code.name().to_owned())?;
    log(format_args!("Started UDP server on port {port}"));
    loop {
        for (client, _) in socket.receive().await.map_err(|code| code.name().to_owned())? {
            log(format_args!("UDP request from {client}"));
            if let Err(code) = socket.send(said.clone().into_bytes(), Some(client)).await {
                log(format_args!("UDP: error from WriteTo(): {}", code.name()));
            }
        }
    }
}

pub fn test_webserver(args: &[String]) -> Code {
    let Some(port) = Flags::read(args, &[]).port("port", 80) else { return 1 };
    serve(http::serve(port, |request: Request| async move {
        file(&request.path).with("Cache-Control", "private").with("Access-Control-Allow-Origin", "*")
    }))
}

/// A file, or a list of what is in a folder. There are but the container's mounts.
fn file(path: &str) -> Response {
    if path.split('/').any(|part| part == "..") {
        return Response::error(400, "invalid URL path");
    }
    if let Ok(bytes) = std::fs::read(path) {
        return Response { body: bytes, ..Response::text("") };
    }
    let escaped = |name: &str| name.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&#34;");
    let names = std::fs::read_dir(path).map(|entries| {
        let name = |entry: std::fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
        entries.flatten().map(name).collect::<Vec<_>>()
    });
    match names {
        Ok(mut names) => {
            names.sort();
            let links = names.iter().map(|name| format!("<a href=\"{0}\">{0}</a>\n", escaped(name)));
            Response::text(format!("<pre>\n{}</pre>\n", links.collect::<String>())).with("Content-Type", "text/html")
        }
        Err(_) if path == "/" => Response::text("<pre>\n</pre>\n").with("Content-Type", "text/html"),
        Err(_) => Response::error(404, "404 page not found"),
    }
}

pub fn liveness() -> Code {
    let started = Instant::now();
    serve(http::serve(8080, move |request: Request| async move {
        let age = started.elapsed();
        match request.path.as_str() {
            "/started" => Response::text(format!("{age:?}")),
            "/healthz" if age > Duration::from_secs(10) => {
                Response { status: 500, ..Response::text(format!("error: {}", age.as_secs_f64())) }
            }
            "/healthz" => Response::text("ok"),
            "/redirect" => Response { status: 302, ..Response::text("") }.with("Location", &request.field("loc")),
            "/sleep-headers" => {
                let seconds = request.field("time").parse().unwrap_or(0);
                sleep(Duration::from_secs(seconds)).await;
                let status = request.field("code").parse().unwrap_or(500);
                Response { status, ..Response::text(format!("Slept for {seconds} secs\n")) }
            }
            _ => Response::error(404, "404 page not found"),
        }
    }))
}

/// A server for each variable `SERVE_PORT_NUMBER`, which says the variable's value.
pub fn porter(args: &[String]) -> Code {
    let as_json = Flags::read(args, &["json-response"]).is("json-response", false);
    for (name, value) in std::env::vars() {
        let port = |prefix: &str| name.strip_prefix(prefix).and_then(|port| port.parse::<u16>().ok());
        if let Some(port) = port("SERVE_UDP_PORT_") {
            beside("UDP: failed to listen", say_by_udp(port, value.clone()));
        }
        // Those that are to speak TLS do without.
        let found = ["SERVE_PORT_", "SERVE_TCP_PORT_", "SERVE_TLS_PORT_"].iter().find_map(|prefix| port(prefix));
        if let Some(port) = found {
            let said = move |request: Request| {
                let body = match as_json {
                    true => Response::json(&serde_json::json!({ "Method": request.method, "Body": value })),
                    // What Go makes of such a text.
                    false if value.starts_with("<a ") => {
                        Response::text(value.clone()).with("Content-Type", "text/html; charset=utf-8")
                    }
                    false => Response::text(value.clone()),
                };
                std::future::ready(body)
            };
            beside("server failed", http::serve(port, said));
        }
    }
    block_on(sleep(FOREVER));
    0
}

pub fn http_echo(args: &[String]) -> Code {
    let flags = Flags::read(args, &[]);
    let text = flags.text("text", "").to_owned();
    let Some(port) = flags.port("port", 8080) else { return 1 };
    serve(http::serve(port, move |_: Request| std::future::ready(Response::text(text.clone()))))
}

pub fn connect(args: &[String]) -> Code {
    let flags = Flags::read(args, &[]);
    let to = flags.operands.first().map(|to| to.rsplit_once(':')).unwrap_or_default();
    let Some((host, Ok(port))) = to.map(|(host, port)| (host.to_owned(), port.parse::<u16>())) else {
        eprintln!("UNKNOWN: missing port in address");
        return 1;
    };
    let time = flags.time("timeout", Duration::ZERO);
    let time = if time.is_zero() { Duration::from_secs(120) } else { time };
    let udp = (flags.text("protocol", "tcp") == "udp").then(|| flags.text("udp-data", "hostname").to_owned() + "\n");
    let work = async move {
        let address = match lookup(&host).await {
            Ok(found) => std::net::SocketAddr::new(found[0], port),
            Err(why) => return Err(format!("DNS: lookup {host}: {why}")),
        };
        match udp {
            Some(text) => match crate::tasks::within(time, dial_udp(address, &text)).await {
                Some(Ok(_)) => Ok(()),
                Some(Err(why)) if !why.contains("timeout") => Err(format!("OTHER: {why}")),
                _ => Err("TIMEOUT".to_owned()),
            },
            None => match Connection::open(address, time).await {
                Ok(_) => Ok(()),
                Err(Failure::TimedOut) => Err("TIMEOUT".to_owned()),
                Err(Failure::Refused) => Err("REFUSED".to_owned()),
                Err(other) => Err(format!("OTHER: dial tcp {address}: {other}")),
            },
        }
    };
    match block_on(work) {
        Some(Err(why)) => {
            eprintln!("{why}");
            1
        }
        _ => 0,
    }
}

/// Lines as an API server logs them, evenly over a time.
pub fn logs_generator(args: &[String]) -> Code {
    let flags = Flags::read(args, &[]);
    let first = |names: [&str; 2]| names.iter().map(|name| flags.text(name, "")).find(|t| !t.is_empty()).unwrap_or("");
    let total: u32 = first(["log-lines-total", "t"]).parse().unwrap_or(0);
    let time = crate::flags::duration(first(["run-duration", "d"])).unwrap_or(Duration::ZERO);
    if total == 0 || time.is_zero() {
        log(format_args!("Invalid total number of lines or duration: {total} {time:?}"));
        return 255;
    }
    let random = || {
        use std::hash::{BuildHasher as _, Hasher as _};
        std::collections::hash_map::RandomState::new().build_hasher().finish() as usize
    };
    for id in 0..total {
        let name: String =
            (0..3 + random() % 2).map(|_| char::from(b"bcdfghjklmnpqrstvwxz2456789"[random() % 27])).collect();
        let method = ["GET", "POST", "PUT"][random() % 3];
        let namespace = ["kube-system", "default", "ns"][random() % 3];
        let status = 200 + random() % 400;
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}");
        eprintln!(
            "I{} 1 logs_generator.go:76] {id} {method} {path} {status}",
            super::stamp("").get(4..).unwrap_or_default()
        );
        std::thread::sleep(time / total);
    }
    0
}
