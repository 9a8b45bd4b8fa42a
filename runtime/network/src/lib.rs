//! The pod network: no kernel addresses, no sockets between pods of one node.
//!
//! Every call that a guest makes or receives goes through here: resolve a name, pick an endpoint, call it. A pod on
//! this node is a function call. This crate knows nothing of Kubernetes' types or of wasmtime.

pub mod table;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;

/// Any error, boxed.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A streamed HTTP body.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// A pod's side of the network: answers the requests sent to one of its ports.
#[async_trait]
pub trait HttpHandler: Send + Sync + 'static {
    /// Answers one request. Returns when the head of the response is known; the body streams on.
    ///
    /// # Errors
    /// When no response could be made; tells whether the request may be tried elsewhere.
    async fn call(&self, request: Request<Body>) -> Result<Response<Body>, CallError>;
}

/// Why a call has no response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The handler takes no new requests (it is ending, or its queue is full); the request was not begun.
    #[error("not accepted: {0}")]
    NotAccepted(String),
    /// The handler began and failed.
    #[error("{0}")]
    Failed(String),
    /// It took too long.
    #[error("timed out: {0}")]
    TimedOut(String),
    /// The name means nothing here.
    #[error("no such host: {0}")]
    NameNotFound(String),
    /// The Service exists but nobody is behind it, or nobody listens at the address.
    #[error("connection refused: {0}")]
    Refused(String),
    /// Policy forbids it.
    #[error("not allowed: {0}")]
    Denied(String),
}
