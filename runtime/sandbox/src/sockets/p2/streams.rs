//! The two streams of a connection, `wasi:io` fashion: nothing blocks, readiness is asked for apart.
//!
//! A guest may write one chunk at a time. What the network does not take at once goes out in a task, so that it leaves even
//! while the guest waits for something else, or is gone.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use wasmtime_wasi::p2::{
    InputStream, OutputStream, Pollable, StreamError, StreamResult, bindings::sockets::network::ErrorCode,
};

use crate::sockets::{
    Code,
    connection::{Metered, Receiver, Sender},
    once,
};

/// Bytes that one call reads or writes.
pub(in crate::sockets) const CHUNK_BYTES_MAX: usize = 64 << 10;

/// The incoming stream; shared by the stream and its socket.
#[derive(Clone)]
pub(in crate::sockets) struct Reader(Arc<Mutex<Option<Receiver>>>);

impl Reader {
    pub(in crate::sockets) fn new(receiver: Receiver) -> Self {
        Self(Arc::new(Mutex::new(Some(receiver))))
    }

    /// Waits until reading would not.
    pub(in crate::sockets) fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self.0.lock().as_mut() {
            Some(receiver) => receiver.poll_ready(cx),
            None => Poll::Ready(()),
        }
    }

    /// What can be read now, left where it is; at most some KiB of it. Empty: nothing yet.
    pub(in crate::sockets) fn peek(&self, most: usize) -> StreamResult<Bytes> {
        self.look(|ahead| Bytes::copy_from_slice(&ahead[..most.min(ahead.len())]))
    }

    /// How many bytes can be read now, as far as that is known.
    pub(in crate::sockets) fn waiting_bytes(&self) -> StreamResult<usize> {
        self.look(<[u8]>::len)
    }

    fn look<T>(&self, at: impl FnOnce(&[u8]) -> T) -> StreamResult<T> {
        let mut slot = self.0.lock();
        let Some(receiver) = slot.as_mut() else { return Err(StreamError::Closed) };
        let looked = at(receiver.peek());
        if receiver.has_ended() { Err(StreamError::Closed) } else { Ok(looked) }
    }

    /// What waits to be read is thrown away.
    pub(in crate::sockets) fn shutdown(&self) {
        *self.0.lock() = None;
    }
}

impl InputStream for Reader {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        let mut slot = self.0.lock();
        let Some(receiver) = slot.as_mut() else { return Err(StreamError::Closed) };
        if size == 0 {
            return Ok(Bytes::new());
        }
        let mut bytes = BytesMut::zeroed(size.min(CHUNK_BYTES_MAX));
        match receiver.poll_read(&mut once(), &mut bytes) {
            Poll::Pending => Ok(Bytes::new()),
            Poll::Ready(Ok(0)) => {
                *slot = None;
                Err(StreamError::Closed)
            }
            Poll::Ready(Ok(read)) => {
                bytes.truncate(read);
                Ok(bytes.freeze())
            }
            Poll::Ready(Err(code)) => {
                *slot = None;
                Err(failed(code))
            }
        }
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Reader {
    async fn ready(&mut self) {
        poll_fn(|cx| self.poll_ready(cx)).await;
    }
}

fn failed(code: Code) -> StreamError {
    StreamError::LastOperationFailed(ErrorCode::from(code).into())
}

/// The outgoing stream; shared by the stream and its socket.
#[derive(Clone)]
pub(in crate::sockets) struct Writer(Arc<Mutex<Writing>>);

enum Writing {
    /// Nothing waits to be written. `permitted`: what the guest was told that it may write.
    Idle { sender: Sender, permitted: usize },
    /// A task writes. Dropping the guard tells it that the guest has gone.
    Busy { _guard: oneshot::Sender<()>, then_close: bool, waker: Option<Waker> },
    /// Nothing may be written any more; an error is told once.
    Closed(Option<Code>),
}

impl Writer {
    pub(in crate::sockets) fn new(sender: Sender) -> Self {
        Self(Arc::new(Mutex::new(Writing::Idle { sender, permitted: 0 })))
    }

    /// Waits until there is room, or there never will be.
    pub(in crate::sockets) fn poll_ready(&self, cx: &Context<'_>) -> Poll<()> {
        self.0.lock().poll_ready(cx)
    }

    /// No more is written after what waits.
    pub(in crate::sockets) fn shutdown(&self) {
        let mut writing = self.0.lock();
        match &mut *writing {
            Writing::Idle { .. } => *writing = Writing::Closed(None),
            Writing::Busy { then_close, .. } => *then_close = true,
            Writing::Closed(_) => {}
        }
    }

    /// Leaves bytes to a task, which ends some time after the guest has gone.
    fn write_later(&self, mut sender: Sender, bytes: &[u8]) -> Result<Writing, Code> {
        let charge = sender.charge(bytes.len())?;
        let bytes = Bytes::copy_from_slice(bytes);
        let (guard, gone) = oneshot::channel::<()>();
        let (payer, linger) = (sender.payer(), sender.linger());
        let deadline = async move {
            let _ = gone.await;
            tokio::time::sleep(linger).await;
        };
        let writing = Arc::downgrade(&self.0);
        let task = async move {
            let result = tokio::select! {
                result = sender.write_all(&bytes) => result,
                () = deadline => Err(Code::Timeout),
            };
            drop((bytes, charge));
            if let Some(writing) = writing.upgrade() {
                writing.lock().written(result.map(|()| sender));
            }
        };
        tokio::spawn(Metered::new(payer, task));
        Ok(Writing::Busy { _guard: guard, then_close: false, waker: None })
    }
}

impl Writing {
    /// The task is done.
    fn written(&mut self, result: Result<Sender, Code>) {
        let Self::Busy { then_close, waker, .. } = std::mem::replace(self, Self::Closed(None)) else { return };
        match result {
            Ok(sender) if !then_close => *self = Self::Idle { sender, permitted: 0 },
            Ok(_) => {}
            Err(code) => *self = Self::Closed(Some(code)),
        }
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Waits until there is room, or there never will be.
    fn poll_ready(&mut self, cx: &Context<'_>) -> Poll<()> {
        let Self::Busy { waker, .. } = self else { return Poll::Ready(()) };
        *waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// What a guest hears that writes to a closed stream: why, once.
    fn closed(&mut self) -> StreamError {
        match self {
            Self::Closed(code) => match code.take() {
                Some(Code::ConnectionBroken) | None => StreamError::Closed,
                Some(code) => failed(code),
            },
            _ => StreamError::Closed,
        }
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        match self {
            Self::Idle { permitted, .. } => {
                *permitted = CHUNK_BYTES_MAX;
                Ok(CHUNK_BYTES_MAX)
            }
            Self::Busy { then_close: false, .. } => Ok(0),
            Self::Busy { .. } | Self::Closed(_) => Err(self.closed()),
        }
    }
}

impl OutputStream for Writer {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        let mut writing = self.0.lock();
        let (mut sender, permitted) = match std::mem::replace(&mut *writing, Writing::Closed(None)) {
            Writing::Idle { sender, permitted } => (sender, permitted),
            busy @ Writing::Busy { then_close: false, .. } if bytes.is_empty() => {
                *writing = busy;
                return Ok(());
            }
            Writing::Busy { then_close: false, .. } => {
                return Err(StreamError::trap("wrote more than check-write permitted"));
            }
            other => {
                *writing = other;
                return Err(writing.closed());
            }
        };
        let Some(permitted) = permitted.checked_sub(bytes.len()) else {
            return Err(StreamError::trap("wrote more than check-write permitted"));
        };
        let mut rest = &bytes[..];
        let result = loop {
            if rest.is_empty() {
                break Ok(Writing::Idle { sender, permitted });
            }
            match sender.poll_write(&mut once(), rest) {
                Poll::Ready(Ok(written)) => rest = &rest[written..],
                Poll::Ready(Err(code)) => break Err(code),
                Poll::Pending => break self.write_later(sender, rest),
            }
        };
        match result {
            Ok(next) => *writing = next,
            Err(code) => {
                *writing = Writing::Closed(Some(code));
                return Err(writing.closed());
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        let mut writing = self.0.lock();
        match &*writing {
            Writing::Closed(_) => Err(writing.closed()),
            _ => Ok(()),
        }
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        self.0.lock().check_write()
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Writer {
    async fn ready(&mut self) {
        poll_fn(|cx| Self::poll_ready(self, cx)).await;
    }
}
