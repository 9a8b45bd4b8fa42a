//! `agnhost netexec`: answers over HTTP and UDP, and asks others when told to.

use std::{net::SocketAddr, time::Duration};

use podium_tools::{
    Code, find_command,
    io::{Io, Out},
};
use serde_json::{Value, json};

use super::{host_name, log, serve, stamp};
use crate::{
    flags::{Flags, duration},
    http::{self, Request, Response, Trouble, Url},
    net::{Datagrams, lookup},
    tasks::{sleep, spawn, within},
};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

pub fn run(args: &[String]) -> Code {
    let flags = Flags::read(args, &[]);
    let Some(port) = flags.port("http-port", 8080) else {
        log("--http-port is no port");
        return 1;
    };
    let udp = flags.port("udp-port", 8081);
    let instead = Some(flags.text("http-override", "").to_owned()).filter(|path| !path.is_empty());
    serve(async move {
        let ready = std::rc::Rc::new(std::cell::Cell::new(false));
        if let Some(udp) = udp {
            let ready = ready.clone();
            match Datagrams::bind(udp, None).await {
                Ok(socket) => {
                    log(format_args!("Started UDP server on port  {udp}"));
                    ready.set(true);
                    spawn(answer_datagrams(socket));
                }
                Err(code) => return Err(format!("failed to create listener for UDP address :{udp}: {}", code.name())),
            }
        }
        log(format_args!("Started HTTP server on port {port}"));
        let handle = move |request: Request| {
            let request = match &instead {
                Some(target) => Request::to(target, request.peer),
                None => request,
            };
            answer(request, ready.get())
        };
        http::serve(port, handle).await
    })
}

async fn answer(request: Request, ready: bool) -> Response {
    let line = |text: &str| log(format_args!("{} {text}", if request.method == "HEAD" { "HEAD" } else { "GET" }));
    match request.path.as_str() {
        "/clientip" => {
            line("/clientip");
            Response::text(request.peer.map(|peer| peer.to_string()).unwrap_or_default())
        }
        "/dial" => dial(&request).await,
        "/echo" => echo(&request),
        "/exit" => exit(&request).await,
        "/healthz" => {
            line("/healthz");
            Response::status(if ready { 200 } else { 412 })
        }
        "/hostname" | "/hostName" => {
            line(&request.path);
            Response::text(host_name())
        }
        "/header" => {
            let key = request.field("key");
            line(&format!("/header?key={key}"));
            Response::text(request.header(&key).unwrap_or_default())
        }
        "/redirect" => redirect(&request),
        "/shell" => shell(&request),
        "/shutdown" => {
            line("/shutdown");
            crate::exit(0)
        }
        "/upload" => upload(&request),
        _ => {
            line("/");
            Response::text(format!("NOW: {} +0000 UTC", stamp("-")))
        }
    }
}

fn echo(request: &Request) -> Response {
    let (text, code) = (request.field("msg"), request.field("code"));
    log(format_args!("GET /echo?msg={text}&code={code}"));
    match code.parse() {
        Ok(code) => Response { status: code, ..Response::text(text) },
        Err(_) if code.is_empty() => Response::text(text),
        Err(_) => Response::text(format!("argument 'code' must be an integer or empty, got {code:?}\n")),
    }
}

async fn exit(request: &Request) -> Response {
    let (code, timeout, wait) = (request.field("code"), request.field("timeout"), request.field("wait"));
    log(format_args!("GET /exit?code={code}&timeout={timeout}&wait={wait}"));
    let time = |name: &str, text: &str| {
        let why = || format!("argument '{name}' must be a valid golang duration or empty, got {text:?}\n");
        if text.is_empty() { Ok(Duration::ZERO) } else { duration(text).ok_or_else(why) }
    };
    let times = time("timeout", &timeout).and_then(|timeout| Ok((timeout, time("wait", &wait)?)));
    let (timeout, wait) = match times {
        Ok(times) => times,
        Err(why) => return Response::text(why),
    };
    let code: i32 = match code.parse() {
        Ok(code) => code,
        Err(_) if code.is_empty() => 0,
        Err(_) => {
            return Response::text(format!("argument 'code' must be an integer [0-127] or empty, got {code:?}\n"));
        }
    };
    log(format_args!(
        "Will begin shutdown in {wait:?}, allowing {timeout:?} for connections to close, then will exit with {code}"
    ));
    sleep(wait).await;
    if timeout.is_zero() {
        crate::exit(code);
    }
    spawn(async move {
        // The answer to this request goes out first.
        sleep(timeout.min(Duration::from_millis(200))).await;
        crate::exit(code);
    });
    Response { close: true, ..Response::text("") }
}

fn redirect(request: &Request) -> Response {
    let (location, code) = (request.field("location"), request.field("code"));
    log(format_args!("{} /redirect?msg={location}&code={code}", request.method));
    let status = match code.parse() {
        Ok(code) => code,
        Err(_) if code.is_empty() => 302,
        Err(_) => return Response::text(format!("argument 'code' must be an integer or empty, got {code:?}\n")),
    };
    Response { status, ..Response::text("") }.with("Location", &location)
}

fn shell(request: &Request) -> Response {
    let command = Some(request.field("shellCommand")).filter(|c| !c.is_empty()).unwrap_or_else(|| request.field("cmd"));
    log(format_args!("GET /shell?cmd={command}"));
    let (output, written) = Out::buffer();
    let mut io = Io { input: podium_tools::io::nothing(), errors: output.clone(), output };
    let code = find_command("sh").map_or(127, |sh| sh(&["-c".to_owned(), command], &mut io));
    let mut said = json!({});
    let text = String::from_utf8_lossy(&written.take()).into_owned();
    if !text.is_empty() {
        said["output"] = text.into();
    }
    if code != 0 {
        said["error"] = format!("exit status {code}").into();
    }
    log(format_args!("Output: {said}"));
    Response::text(said.to_string())
}

/// Keeps the first file of a form in `/uploads`, which must be a volume.
fn upload(request: &Request) -> Response {
    log("GET /upload");
    let failed = |why: &str| Response::text(json!({ "error": why }).to_string());
    let Some(file) = form_file(request) else { return failed("Unable to upload file.") };
    let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_nanos());
    let path = format!("/uploads/upload{nanos}");
    if std::fs::write(&path, file).is_err() {
        return failed("Unable to open file for write");
    }
    log(format_args!("Wrote upload to {path}"));
    Response { status: 201, ..Response::text(json!({ "output": path }).to_string()) }
}

fn form_file(request: &Request) -> Option<&[u8]> {
    let boundary = request.header("content-type")?.split_once("boundary=")?.1.trim_matches('"');
    let find = |text: &[u8], part: &[u8]| text.windows(part.len()).position(|window| window == part);
    let body = &request.body[..];
    let start = find(body, b"\r\n\r\n")? + 4;
    let end = find(&body[start..], format!("\r\n--{boundary}").as_bytes())?;
    body.get(start..start + end)
}

async fn dial(request: &Request) -> Response {
    let [host, port, wanted, protocol, tries] =
        ["host", "port", "request", "protocol", "tries"].map(|name| request.field(name));
    log(format_args!("GET /dial?host={host}&protocol={protocol}&port={port}&request={wanted}&tries={tries}"));
    let count: u32 = match tries.parse() {
        Ok(count) => count,
        Err(_) if tries.is_empty() => 1,
        Err(why) => return Response::error(400, format_args!("tries parameter is invalid. {why}")),
    };
    if wanted.is_empty() {
        return Response::error(400, "request parameter not specified. <nil>");
    }
    let protocol = protocol.to_lowercase();
    if !matches!(protocol.as_str(), "" | "http" | "udp") {
        return Response::error(400, format_args!("unsupported protocol. {protocol}"));
    }
    let address = match (lookup(&host).await, port.parse()) {
        (Ok(found), Ok(port)) => SocketAddr::new(found[0], port),
        (Err(why), _) => {
            return Response::error(400, format_args!("host and/or port param are invalid. lookup {host}: {why}"));
        }
        (_, Err(why)) => return Response::error(400, format_args!("host and/or port param are invalid. {why}")),
    };
    let (mut responses, mut errors): (Vec<Value>, Vec<Value>) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let said = if protocol == "udp" { dial_udp(address, &wanted).await } else { get(address, &wanted).await };
        match said {
            Ok(text) => responses.push(text.into()),
            Err(why) => errors.push(why.into()),
        }
    }
    let mut output = json!({});
    if !responses.is_empty() {
        output["responses"] = responses.into();
    }
    if !errors.is_empty() {
        output["errors"] = errors.into();
    }
    Response::text(output.to_string())
}

/// What an address answers to a GET.
pub async fn get(address: SocketAddr, path: &str) -> Result<String, String> {
    let url = Url { host: address.ip().to_string(), port: address.port(), path: format!("/{path}") };
    let failed = |why: String| format!("Get \"http://{address}/{path}\": {why}");
    match within(PATIENCE, http::fetch(&url, "GET", &[], b"", PATIENCE)).await {
        Some(Ok(answer)) => Ok(String::from_utf8_lossy(&answer.body).into_owned()),
        Some(Err(Trouble::Lookup(why) | Trouble::Connect(why))) => Err(failed(format!("dial tcp {address}: {why}"))),
        Some(Err(Trouble::Cut)) => Err(failed("EOF".to_owned())),
        None => Err(failed("context deadline exceeded (Client.Timeout exceeded while awaiting headers)".to_owned())),
    }
}

/// What an address answers to a datagram.
pub async fn dial_udp(address: SocketAddr, text: &str) -> Result<String, String> {
    let asking = async {
        let socket = Datagrams::bind(0, Some(address)).await?;
        socket.send(text.as_bytes().to_vec(), None).await?;
        socket.receive().await
    };
    match within(PATIENCE, asking).await {
        Some(Ok(found)) => {
            Ok(found.first().map(|(_, data)| String::from_utf8_lossy(data).into_owned()).unwrap_or_default())
        }
        Some(Err(code)) => Err(format!("reading from udp connection failed. err:'{}'", code.name())),
        None => Err(format!("reading from udp connection failed. err:'read udp {address}: i/o timeout'")),
    }
}

async fn answer_datagrams(socket: Datagrams) {
    loop {
        let found = match socket.receive().await {
            Ok(found) => found,
            Err(code) => {
                log(format_args!("UDP server exited: {}", code.name()));
                crate::exit(1);
            }
        };
        for (client, data) in found {
            let text = String::from_utf8_lossy(&data).trim().to_lowercase();
            let said = match text.as_str() {
                "hostname" => {
                    log("Sending udp hostName response");
                    host_name()
                }
                "clientip" => {
                    log(format_args!("Sending clientip back to UDP client {client}"));
                    client.to_string()
                }
                "" => continue,
                _ => match text.strip_prefix("echo ") {
                    Some(said) => {
                        log(format_args!("Echoing {said} to UDP client {client}"));
                        said.to_owned()
                    }
                    None => {
                        log(format_args!("Unknown UDP command received from {client}: {text}"));
                        continue;
                    }
                },
            };
            if let Err(code) = socket.send(said.into_bytes(), Some(client)).await {
                log(format_args!("failed to write to UDP client {client}: {}", code.name()));
            }
        }
    }
}
