//! What a Rust guest of Podium uses: answer HTTP requests, call other services.
//!
//! A thin layer over `wasi:http` 0.2: a handler is a function from [`Request`] to [`Response`]. Nothing here is
//! Podium's own protocol, so a component made with it runs on any `wasi:http` host. Bodies are held in memory; a guest
//! that streams uses `wasi:http` itself.
//!
//! ```
//! use podium_guest::{Request, Response};
//!
//! fn hello(request: &Request) -> Response {
//!     Response::text(format!("you asked for {}\n", request.path()))
//! }
//!
//! # #[cfg(target_arch = "wasm32")]
//! podium_guest::serve!(hello);
//! # fn main() {}
//! ```

mod client;
mod streams;

use wasip2::http::types::{Fields, IncomingRequest, Method, OutgoingBody, OutgoingResponse, ResponseOutparam};

pub use client::{CallError, get, send};
pub use wasip2;

/// The most that [`Request::body`] reads, in bytes.
pub const BODY_BYTES_MAX: usize = 16 << 20;

/// Makes a function from `&Request` to [`Response`] the component's `wasi:http/incoming-handler`.
#[macro_export]
macro_rules! serve {
    ($handler:path) => {
        const _: () = {
            struct Served;
            impl $crate::wasip2::exports::http::incoming_handler::Guest for Served {
                fn handle(
                    request: $crate::wasip2::http::types::IncomingRequest,
                    out: $crate::wasip2::http::types::ResponseOutparam,
                ) {
                    $crate::answer(request, out, $handler);
                }
            }
            $crate::wasip2::http::proxy::export!(Served);
        };
    };
}

/// A request as the handler sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    method: String,
    path_with_query: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

impl Request {
    /// `GET`, `POST`, …
    pub fn method(&self) -> &str {
        &self.method
    }

    /// The path, without the query.
    pub fn path(&self) -> &str {
        self.path_with_query.split_once('?').map_or(self.path_with_query.as_str(), |(path, _)| path)
    }

    /// The query as it was sent, empty when there is none.
    pub fn query(&self) -> &str {
        self.path_with_query.split_once('?').map_or("", |(_, query)| query)
    }

    /// The value of a query parameter, as it was sent (percent-encoding is kept).
    pub fn query_value(&self, name: &str) -> Option<&str> {
        self.query().split('&').find_map(|pair| match pair.split_once('=') {
            Some((key, value)) if key == name => Some(value),
            None if pair == name => Some(""),
            _ => None,
        })
    }

    /// The first value of a header, when it is text. Names are compared without regard to case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(&found.1).ok()
    }

    /// The body, at most [`BODY_BYTES_MAX`]; a larger one has been answered with 413.
    pub fn body(&self) -> &[u8] {
        &self.body
    }
}

/// A response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    status: u16,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

impl Response {
    /// An empty response.
    pub fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new() }
    }

    /// 200 with text.
    pub fn text(body: impl Into<String>) -> Self {
        Self::new(200).with_header("content-type", "text/plain; charset=utf-8").with_body(body.into())
    }

    /// 200 with JSON that is already written.
    pub fn json(body: impl Into<String>) -> Self {
        Self::new(200).with_header("content-type", "application/json").with_body(body.into())
    }

    /// The same with another status.
    pub fn with_status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    /// The same with one more header.
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.as_bytes().to_vec()));
        self
    }

    /// The same with another body.
    pub fn with_body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Its status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Its body.
    pub fn body(&self) -> &[u8] {
        &self.body
    }
}

/// Answers one request with a handler: what [`serve!`] expands to.
#[doc(hidden)]
pub fn answer(request: IncomingRequest, out: ResponseOutparam, handler: impl FnOnce(&Request) -> Response) {
    let response = match read(&request) {
        Ok(request) => handler(&request),
        Err(streams::ReadError::TooLarge) => Response::new(413),
        Err(streams::ReadError::Broken) => Response::new(400),
    };
    write(response, out);
}

fn read(request: &IncomingRequest) -> Result<Request, streams::ReadError> {
    let body = request.consume().map_err(|()| streams::ReadError::Broken)?;
    Ok(Request {
        method: method_name(&request.method()),
        path_with_query: request.path_with_query().unwrap_or_else(|| "/".to_owned()),
        headers: request.headers().entries(),
        body: streams::read_all(&body, BODY_BYTES_MAX)?,
    })
}

/// Sends a response. What cannot be sent any more (the client is gone) is nobody's concern.
fn write(response: Response, out: ResponseOutparam) {
    let Response { status, headers, body } = response;
    let fields = Fields::from_list(&headers).unwrap_or_else(|_| Fields::new());
    let outgoing = OutgoingResponse::new(fields);
    let _ = outgoing.set_status_code(status);
    let sink = outgoing.body();
    ResponseOutparam::set(out, Ok(outgoing));
    if let Ok(sink) = sink
        && streams::write_all(&sink, &body).is_ok()
    {
        let _ = OutgoingBody::finish(sink, None);
    }
}

fn method_name(method: &Method) -> String {
    let name = match method {
        Method::Get => "GET",
        Method::Head => "HEAD",
        Method::Post => "POST",
        Method::Put => "PUT",
        Method::Delete => "DELETE",
        Method::Connect => "CONNECT",
        Method::Options => "OPTIONS",
        Method::Trace => "TRACE",
        Method::Patch => "PATCH",
        Method::Other(name) => name,
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(path_with_query: &str) -> Request {
        let headers = vec![("Accept".to_owned(), b"text/plain".to_vec())];
        Request { path_with_query: path_with_query.to_owned(), headers, ..Request::default() }
    }

    #[test]
    fn paths_and_queries_come_apart() {
        let r = request("/a/b?x=1&flag&y=a=b");
        assert_eq!((r.path(), r.query()), ("/a/b", "x=1&flag&y=a=b"));
        assert_eq!(r.query_value("x"), Some("1"));
        assert_eq!(r.query_value("y"), Some("a=b"));
        assert_eq!(r.query_value("flag"), Some(""));
        assert_eq!(r.query_value("z"), None);
        assert_eq!((request("/a").path(), request("/a").query()), ("/a", ""));
    }

    #[test]
    fn header_names_have_no_case() {
        assert_eq!(request("/").header("accept"), Some("text/plain"));
        assert_eq!(request("/").header("host"), None);
    }
}
