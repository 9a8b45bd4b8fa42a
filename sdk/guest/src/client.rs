//! Calls to other services, for example `http://greeter/` or `http://greeter.shop:8080/x`.

use wasip2::http::{
    outgoing_handler,
    types::{Fields, Method, OutgoingBody, OutgoingRequest, Scheme},
};

use crate::{BODY_BYTES_MAX, Response, streams};

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallError {
    /// The URL is not `http://host…` or `https://host…`.
    BadUrl,
    /// The host refused the call or nobody answered; the text is `wasi:http`'s error code.
    Failed(String),
    /// The answer's body broke off or is larger than [`BODY_BYTES_MAX`].
    BadBody,
}

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::BadUrl => f.write_str("the URL must begin with http:// or https:// and name a host"),
            Self::Failed(code) => write!(f, "the call failed: {code}"),
            Self::BadBody => f.write_str("the answer's body broke off or is too large"),
        }
    }
}

impl std::error::Error for CallError {}

/// `GET url`.
///
/// # Errors
/// See [`CallError`].
pub fn get(url: &str) -> Result<Response, CallError> {
    send("GET", url, &[], &[])
}

/// Sends a request and waits for the whole answer.
///
/// # Errors
/// See [`CallError`].
pub fn send(method: &str, url: &str, headers: &[(&str, &str)], body: &[u8]) -> Result<Response, CallError> {
    let Target { scheme, authority, path } = split(url).ok_or(CallError::BadUrl)?;
    let headers: Vec<_> = headers.iter().map(|(k, v)| ((*k).to_owned(), v.as_bytes().to_vec())).collect();
    let fields = Fields::from_list(&headers).map_err(|e| CallError::Failed(format!("{e:?}")))?;
    let request = OutgoingRequest::new(fields);
    let set = request
        .set_method(&parse_method(method))
        .and_then(|()| request.set_scheme(Some(&scheme)))
        .and_then(|()| request.set_authority(Some(authority)))
        .and_then(|()| request.set_path_with_query(Some(path)));
    set.map_err(|()| CallError::BadUrl)?;
    let sink = request.body().map_err(|()| CallError::BadUrl)?;
    let failed = |e: &dyn std::fmt::Debug| CallError::Failed(format!("{e:?}"));
    let future = outgoing_handler::handle(request, None).map_err(|e| failed(&e))?;
    // A peer that answers without reading the body closes it: the answer counts.
    if streams::write_all(&sink, body).is_ok() {
        let _ = OutgoingBody::finish(sink, None);
    }
    future.subscribe().block();
    let response = match future.get() {
        Some(Ok(response)) => response.map_err(|e| failed(&e))?,
        Some(Err(())) | None => return Err(CallError::BadBody),
    };
    let (status, headers) = (response.status(), response.headers().entries());
    let body = response.consume().map_err(|()| CallError::BadBody)?;
    let body = streams::read_all(&body, BODY_BYTES_MAX).map_err(|_| CallError::BadBody)?;
    Ok(Response { status, headers, body })
}

struct Target<'a> {
    scheme: Scheme,
    authority: &'a str,
    path: &'a str,
}

fn split(url: &str) -> Option<Target<'_>> {
    let (scheme, rest) = url.split_once("://")?;
    let scheme = match scheme {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        _ => return None,
    };
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    };
    (!authority.is_empty()).then_some(Target { scheme, authority, path })
}

fn parse_method(method: &str) -> Method {
    match method {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "DELETE" => Method::Delete,
        "OPTIONS" => Method::Options,
        "PATCH" => Method::Patch,
        other => Method::Other(other.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_come_apart() {
        for (url, expected) in [
            ("http://a/", Some(("a", "/"))),
            ("http://a.b:80", Some(("a.b:80", "/"))),
            ("https://a/x?y=/z", Some(("a", "/x?y=/z"))),
            ("ftp://a/", None),
            ("a/b", None),
            ("http:///x", None),
        ] {
            assert_eq!(split(url).map(|t| (t.authority, t.path)), expected, "{url}");
        }
    }
}
