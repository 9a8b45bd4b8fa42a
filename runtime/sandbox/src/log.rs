//! A guest's output, handed to the container's [`LogSink`] as it is written. Keeps nothing: while the sink has no room the
//! guest waits. What the sink keeps is billed to the container.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::io::AsyncWrite;
use wasmtime_wasi::{
    cli::{IsTerminal, StdoutStream},
    p2::{OutputStream, Pollable, StreamResult},
};

use crate::{LogSink, Stream, container::Container};

/// Bytes that a guest may write in one call.
const WRITE_BYTES_MAX: usize = 64 << 10;

/// One stream of one instance.
pub(crate) struct LogStream {
    container: Arc<Container>,
    stream: Stream,
    /// Ends when the sink has room; there while an asynchronous write waits for it.
    waiting: Mutex<Option<BoxFuture<'static, ()>>>,
}

impl LogStream {
    pub(crate) fn new(container: Arc<Container>, stream: Stream) -> Self {
        Self { container, stream, waiting: Mutex::default() }
    }

    fn sink(&self) -> &Arc<dyn LogSink> {
        &self.container.spec.logs
    }

    fn room(&self) -> usize {
        self.sink().room_bytes(self.stream).min(WRITE_BYTES_MAX)
    }

    /// Waits until there is room.
    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<usize> {
        let mut waiting = self.waiting.lock();
        loop {
            if let Some(wait) = &mut *waiting {
                ready!(wait.as_mut().poll(cx));
                *waiting = None;
            }
            match self.room() {
                0 => {
                    let (sink, stream) = (self.sink().clone(), self.stream);
                    *waiting = Some(Box::pin(async move { sink.ready(stream).await }));
                }
                room => return Poll::Ready(room),
            }
        }
    }
}

impl Clone for LogStream {
    fn clone(&self) -> Self {
        Self::new(self.container.clone(), self.stream)
    }
}

impl IsTerminal for LogStream {
    fn is_terminal(&self) -> bool {
        self.container.spec.tty
    }
}

impl StdoutStream for LogStream {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait::async_trait]
impl Pollable for LogStream {
    async fn ready(&mut self) {
        while self.room() == 0 {
            self.sink().ready(self.stream).await;
        }
    }
}

impl OutputStream for LogStream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.container.write(self.stream, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(self.room())
    }
}

impl AsyncWrite for LogStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let room = ready!(self.poll_room(cx));
        let bytes = &bytes[..bytes.len().min(room)];
        self.container.write(self.stream, bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
