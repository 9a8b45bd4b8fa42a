//! Container logs: files in the format of CRI (`timestamp stream tag content`), written without ever holding up a
//! guest, rotated by size, and read back as `kubectl logs` wants them.

pub(crate) mod cri;
pub(crate) mod reader;
pub(crate) mod writer;

use std::pin::Pin;

use bytes::Bytes;
use futures::{Stream, future::BoxFuture};
use jiff::Timestamp;
use podium_api::ObjectKey;

/// Which of a container's streams to read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogStreams {
    /// Both, in the order written.
    #[default]
    All,
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What to read, as in Kubernetes' `PodLogOptions`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Which container; may be left out when the pod has one.
    pub container: Option<String>,
    /// Goes on until the container ends.
    pub follow: bool,
    /// The run before the last restart.
    pub previous: bool,
    /// Only lines written at or after this time.
    pub since: Option<Timestamp>,
    /// Puts the time before each line.
    pub timestamps: bool,
    /// Only so many lines from the end.
    pub tail_lines: Option<u64>,
    /// At most so many bytes.
    pub limit_bytes: Option<u64>,
    /// Which streams.
    pub streams: LogStreams,
}

/// Why there is no log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The pod is not on this node.
    #[error("pod {0:?} is not on this node")]
    NoPod(String),
    /// The request does not fit the pod: HTTP 400.
    #[error("{0}")]
    BadRequest(String),
    /// The files cannot be read.
    #[error("cannot read the log: {0}")]
    Io(String),
}

/// The bytes of a log.
pub type LogStream = Pin<Box<dyn Stream<Item = Result<Bytes, std::io::Error>> + Send>>;

/// Reads the logs of this node's containers.
pub trait LogReader: Send + Sync + 'static {
    /// The log of one container.
    ///
    /// # Errors
    /// When the pod or container is not here, or has not started yet.
    fn logs<'a>(&'a self, pod: &'a ObjectKey, options: LogOptions) -> BoxFuture<'a, Result<LogStream, LogError>>;
}
