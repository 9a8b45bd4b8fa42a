//! A container's input: one reader, shared by all that read it.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::io::AsyncRead;
use wasmtime_wasi::{
    cli::{AsyncStdinStream, IsTerminal, StdinStream},
    p2::InputStream,
};

/// Where a container's input comes from.
#[derive(Clone)]
pub struct Stdin {
    stream: Arc<AsyncStdinStream>,
    waiting_bytes: Arc<AtomicUsize>,
}

impl Stdin {
    /// Reads from this; its end is the end of the input.
    pub fn new(reader: impl AsyncRead + Send + Sync + 'static) -> Self {
        Self::counted(reader, Arc::default())
    }

    /// As [`Stdin::new`], for a reader that keeps bytes until the guest wants them: it says how many, and they count towards the
    /// container's memory.
    pub fn counted(reader: impl AsyncRead + Send + Sync + 'static, waiting_bytes: Arc<AtomicUsize>) -> Self {
        Self { stream: Arc::new(AsyncStdinStream::new(reader)), waiting_bytes }
    }

    /// Bytes that wait for the guest.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes.load(Ordering::Relaxed)
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
        self.stdin.stream.async_stream()
    }

    fn p2_stream(&self) -> Box<dyn InputStream> {
        self.stdin.stream.p2_stream()
    }
}
