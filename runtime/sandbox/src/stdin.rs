//! A container's input: one reader, shared by all that read it.

use std::sync::Arc;

use tokio::io::AsyncRead;
use wasmtime_wasi::{
    cli::{AsyncStdinStream, IsTerminal, StdinStream},
    p2::InputStream,
};

/// Where a container's input comes from.
#[derive(Clone)]
pub struct Stdin(Arc<AsyncStdinStream>);

impl Stdin {
    /// Reads from this; its end is the end of the input.
    pub fn new(reader: impl AsyncRead + Send + Sync + 'static) -> Self {
        Self(Arc::new(AsyncStdinStream::new(reader)))
    }

    /// As a guest's standard input.
    pub(crate) fn stream(&self, tty: bool) -> StdinOf {
        StdinOf { stdin: self.clone(), tty }
    }
}

/// The input as one guest sees it.
pub(crate) struct StdinOf {
    stdin: Stdin,
    tty: bool,
}

impl IsTerminal for StdinOf {
    fn is_terminal(&self) -> bool {
        self.tty
    }
}

impl StdinStream for StdinOf {
    fn async_stream(&self) -> Box<dyn AsyncRead + Send + Sync> {
        self.stdin.0.async_stream()
    }

    fn p2_stream(&self) -> Box<dyn InputStream> {
        self.stdin.0.p2_stream()
    }
}
