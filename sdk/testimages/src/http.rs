//! HTTP/1.1, both ends: as much of it as test programs need.

use std::{
    future::Future,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    time::Duration,
};

use crate::{
    net::{Connection, Failure, Listener, lookup},
    tasks::{spawn, within},
};

/// What the first record of a TLS connection begins with.
const TLS_HANDSHAKE: u8 = 22;
const BAD_REQUEST: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n400 Bad Request";
const HEAD_BYTES_MAX: usize = 64 << 10;
const BODY_BYTES_MAX: usize = 16 << 20;
/// How long a connection waits for another request.
const IDLE: Duration = Duration::from_secs(300);

pub type Headers = Vec<(String, String)>;

fn value<'a>(headers: &'a Headers, name: &str) -> Option<&'a str> {
    headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
}

/// A request as it came.
pub struct Request {
    pub method: String,
    pub path: String,
    query: String,
    headers: Headers,
    pub body: Vec<u8>,
    pub peer: Option<SocketAddr>,
}

impl Request {
    /// A request for a path, as if it had come.
    pub fn to(target: &str, peer: Option<SocketAddr>) -> Self {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Self {
            method: "GET".to_owned(),
            path: decoded(path, false),
            query: query.to_owned(),
            headers: Vec::new(),
            body: Vec::new(),
            peer,
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        value(&self.headers, name)
    }

    /// A field of the query, or of a form.
    pub fn field(&self, name: &str) -> String {
        let form =
            self.header("content-type").is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded"));
        let form = if form { String::from_utf8_lossy(&self.body).into_owned() } else { String::new() };
        let pairs = self.query.split('&').chain(form.split('&'));
        let mut found = pairs.filter_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(key, true) == name).then(|| decoded(value, true))
        });
        found.next().unwrap_or_default()
    }
}

/// `%41` and, in queries, `+`.
fn decoded(text: &str, plus: bool) -> String {
    let (mut out, mut rest) = (Vec::new(), text.as_bytes());
    while let [byte, behind @ ..] = rest {
        rest = behind;
        let hex = behind.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match (byte, hex.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(decoded)) => {
                out.push(decoded);
                rest = &behind[2..];
            }
            (b'+', _) if plus => out.push(b' '),
            _ => out.push(*byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// An answer.
pub struct Response {
    pub status: u16,
    pub headers: Headers,
    pub body: Vec<u8>,
    /// Whether the connection goes with it.
    pub close: bool,
}

impl Response {
    pub fn text(text: impl Into<String>) -> Self {
        let headers = vec![("Content-Type".to_owned(), "text/plain; charset=utf-8".to_owned())];
        Self { status: 200, headers, body: text.into().into_bytes(), close: false }
    }

    pub fn json(value: &serde_json::Value) -> Self {
        Self::text(value.to_string()).with("Content-Type", "application/json")
    }

    pub fn error(status: u16, text: impl std::fmt::Display) -> Self {
        Self { status, ..Self::text(format!("{text}\n")) }
    }

    pub fn status(status: u16) -> Self {
        Self { status, ..Self::text("") }
    }

    /// With a header, in place of one of the same name.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    fn head(&self, close: bool) -> String {
        let reason = match self.status {
            200 => "OK",
            201 => "Created",
            301 => "Moved Permanently",
            302 => "Found",
            307 => "Temporary Redirect",
            400 => "Bad Request",
            404 => "Not Found",
            412 => "Precondition Failed",
            417 => "Expectation Failed",
            500 => "Internal Server Error",
            503 => "Service Unavailable",
            _ => "",
        };
        let mut head = format!("HTTP/1.1 {} {reason}\r\n", self.status);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {}\r\n", value.replace(['\r', '\n'], " ")));
        }
        head.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        head.push_str(if close { "Connection: close\r\n\r\n" } else { "\r\n" });
        head
    }
}

/// Answers requests on a port, as long as the program runs.
///
/// # Errors
/// When the port cannot be had.
pub async fn serve<F, R>(port: u16, handler: F) -> Result<(), String>
where
    F: Fn(Request) -> R + 'static,
    R: Future<Output = Response> + 'static,
{
    let listener = Listener::bind(port).await.map_err(|code| format!("listen tcp :{port}: {}", code.name()))?;
    let handler = Rc::new(handler);
    loop {
        match listener.accept().await {
            Ok(connection) => spawn(answer(connection, handler.clone())),
            Err(code) => return Err(format!("accept tcp :{port}: {}", code.name())),
        }
    }
}

async fn answer<F, R>(connection: Connection, handler: Rc<F>)
where
    F: Fn(Request) -> R + 'static,
    R: Future<Output = Response> + 'static,
{
    let mut reader = Reader { connection: &connection, bytes: Vec::new() };
    while let Some(Some((request, last))) = within(IDLE, request(&mut reader)).await {
        let is_head = request.method == "HEAD";
        let response = handler(request).await;
        let close = last || response.close;
        let mut out = response.head(close).into_bytes();
        if !is_head {
            out.extend_from_slice(&response.body);
        }
        if !connection.write(&out).await || close {
            break;
        }
    }
    connection.finish();
}

/// Reads a request. Its second part: whether the client wants the connection closed behind it.
async fn request(reader: &mut Reader<'_>) -> Option<(Request, bool)> {
    if reader.bytes.is_empty() && !reader.more().await {
        return None;
    }
    if reader.bytes.first() == Some(&TLS_HANDSHAKE) {
        // Whoever speaks TLS hears at once that nobody does here.
        reader.connection.write(b"HTTP/1.0 400 Bad Request\r\n\r\n").await;
        return None;
    }
    let first = reader.line().await?;
    let [method, target, version] = first.split(' ').collect::<Vec<_>>()[..] else {
        // Whoever only tries whether somebody is there wants to hear something, as Go's servers say it.
        reader.connection.write(BAD_REQUEST).await;
        return None;
    };
    let headers = reader.headers(first.len()).await?;
    // Proxies name the host as well.
    let target = match target.split_once("://") {
        Some((_, rest)) if !target.starts_with('/') => rest.find('/').map_or("/", |at| &rest[at..]),
        _ => target,
    };
    if value(&headers, "expect").is_some_and(|expected| expected.eq_ignore_ascii_case("100-continue")) {
        reader.connection.write(b"HTTP/1.1 100 Continue\r\n\r\n").await;
    }
    let length = if value(&headers, "content-length").is_none() && value(&headers, "transfer-encoding").is_none() {
        Some(0)
    } else {
        None
    };
    let body = reader.body(&headers, length).await?;
    let wish = value(&headers, "connection").unwrap_or_default().to_ascii_lowercase();
    let last = wish.contains("close") || (version == "HTTP/1.0" && !wish.contains("keep-alive"));
    let peer = reader.connection.peer();
    Some((Request { method: method.to_owned(), headers, body, ..Request::to(target, peer) }, last))
}

struct Reader<'a> {
    connection: &'a Connection,
    bytes: Vec<u8>,
}

impl Reader<'_> {
    /// More bytes. False: there are none.
    async fn more(&mut self) -> bool {
        let read = self.connection.read().await;
        self.bytes.extend_from_slice(&read);
        !read.is_empty()
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.bytes.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.bytes.drain(..=end).collect();
                return Some(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            if self.bytes.len() > HEAD_BYTES_MAX || !self.more().await {
                return None;
            }
        }
    }

    async fn head(&mut self) -> Option<(String, Headers)> {
        let first = self.line().await?;
        let headers = self.headers(first.len()).await?;
        Some((first, headers))
    }

    /// The lines behind the first one, that has had so many bytes.
    async fn headers(&mut self, mut size: usize) -> Option<Headers> {
        let mut headers = Vec::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Some(headers);
            }
            size += line.len();
            if size > HEAD_BYTES_MAX {
                return None;
            }
            let (name, value) = line.split_once(':')?;
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    async fn take(&mut self, length: usize) -> Option<Vec<u8>> {
        if length > BODY_BYTES_MAX {
            return None;
        }
        while self.bytes.len() < length {
            if !self.more().await {
                return None;
            }
        }
        Some(self.bytes.drain(..length).collect())
    }

    /// The body behind a head. `length`: when the head does not say; none: up to the end.
    async fn body(&mut self, headers: &Headers, length: Option<usize>) -> Option<Vec<u8>> {
        if value(headers, "transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
            let mut body = Vec::new();
            loop {
                let line = self.line().await?;
                let size = usize::from_str_radix(line.split(';').next()?.trim(), 16).ok()?;
                if size == 0 {
                    while !self.line().await?.is_empty() {}
                    return Some(body);
                }
                if body.len() + size > BODY_BYTES_MAX {
                    return None;
                }
                body.extend(self.take(size).await?);
                self.line().await?;
            }
        }
        if let Some(length) = value(headers, "content-length").map(str::parse).transpose().ok()?.or(length) {
            return self.take(length).await;
        }
        while self.bytes.len() <= BODY_BYTES_MAX && self.more().await {}
        Some(std::mem::take(&mut self.bytes))
    }
}

/// What is asked for.
pub struct Url {
    pub host: String,
    pub port: u16,
    pub path: String,
}

impl Url {
    /// Reads `http://HOST[:PORT][/PATH]`, with or without what stands before the host.
    ///
    /// # Errors
    /// When it is none, or speaks TLS.
    pub fn parse(text: &str) -> Result<Self, String> {
        let rest = match text.split_once("://") {
            Some(("http", rest)) => rest,
            Some((other, _)) => return Err(format!("Protocol \"{other}\" not supported")),
            None => text,
        };
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| "Bad port".to_owned())?),
            _ => (authority, 80),
        };
        if host.is_empty() {
            return Err("No host part in the URL".to_owned());
        }
        let path = path.split('#').next().unwrap_or_default();
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self { host: host.trim_matches(['[', ']']).to_owned(), port, path })
    }

    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == 80 { host } else { format!("{host}:{}", self.port) }
    }
}

/// What came back.
pub struct Answer {
    pub head: String,
    pub status: u16,
    headers: Headers,
    pub body: Vec<u8>,
    pub address: IpAddr,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        value(&self.headers, name)
    }
}

/// Why nothing came back.
pub enum Trouble {
    Lookup(Failure),
    Connect(Failure),
    /// It ended before the answer did.
    Cut,
}

/// Asks once, over a connection of its own.
///
/// # Errors
/// Where it went wrong.
pub async fn fetch(
    url: &Url,
    method: &str,
    headers: &[(String, String)],
    body: &[u8],
    connect_within: Duration,
) -> Result<Answer, Trouble> {
    let found = within(connect_within, lookup(&url.host)).await.unwrap_or(Err(Failure::TimedOut));
    let addresses = found.map_err(Trouble::Lookup)?;
    let address = addresses.iter().find(|a| a.is_ipv4()).or(addresses.first()).copied();
    let address = address.ok_or(Trouble::Lookup(Failure::NoSuchName))?;
    let connection = Connection::open(SocketAddr::new(address, url.port), connect_within).await;
    let connection = connection.map_err(Trouble::Connect)?;
    let mut head = format!("{method} {} HTTP/1.1\r\nConnection: close\r\n", url.path);
    let has = |name: &str| headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
    if !has("host") {
        head.push_str(&format!("Host: {}\r\n", url.authority()));
    }
    if !body.is_empty() || matches!(method, "POST" | "PUT" | "PATCH") {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
    head.push_str("\r\n");
    if !connection.write(&[head.as_bytes(), body].concat()).await {
        return Err(Trouble::Cut);
    }
    let mut reader = Reader { connection: &connection, bytes: Vec::new() };
    loop {
        let (first, headers) = reader.head().await.ok_or(Trouble::Cut)?;
        let status: u16 = first.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or(Trouble::Cut)?;
        if status == 100 {
            continue;
        }
        let bodyless = method == "HEAD" || matches!(status, 204 | 304);
        let body = if bodyless { Vec::new() } else { reader.body(&headers, None).await.ok_or(Trouble::Cut)? };
        let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        return Ok(Answer { head: format!("{first}\r\n{lines}\r\n"), status, headers, body, address });
    }
}
