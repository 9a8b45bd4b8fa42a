//! Answers: a status, headers, and often no body.

use axum::{body::Body, response::Response};
use http::{HeaderName, HeaderValue, StatusCode, header};

pub(crate) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
pub(crate) const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
pub(crate) const FILTERS: HeaderName = HeaderName::from_static("oci-filters-applied");
pub(crate) const UPLOAD: HeaderName = HeaderName::from_static("docker-upload-uuid");

/// An answer with these headers and no body.
pub(crate) fn answer<const N: usize>(status: StatusCode, headers: [(HeaderName, String); N]) -> Response {
    with_body(status, headers, Body::empty())
}

/// An answer with these headers.
pub(crate) fn with_body<const N: usize>(
    status: StatusCode,
    headers: [(HeaderName, String); N],
    body: impl Into<Body>,
) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    for (name, value) in headers {
        // Values are names that were checked, digests and numbers.
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// JSON with its length, so that HEAD says it too.
pub(crate) fn json(media_type: &str, value: &serde_json::Value) -> Response {
    let text = value.to_string();
    let headers = [(header::CONTENT_TYPE, media_type.to_owned()), (header::CONTENT_LENGTH, text.len().to_string())];
    with_body(StatusCode::OK, headers, text)
}
