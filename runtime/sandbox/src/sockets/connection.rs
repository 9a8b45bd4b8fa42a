//! An open connection: its two halves, each closing on its own.

use std::{
    future::{Future, poll_fn},
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf as _, BytesMut};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead as _, AsyncWrite as _, ReadBuf, ReadHalf, WriteHalf},
    runtime::Handle,
};

use super::{Code, once, quota::Instance, quota::Permit};
use crate::{ByteStream, TcpConnection, container::Container, memory::Charge, meter, traffic::Way};

/// Read ahead to learn whether there is anything to read.
const AHEAD_BYTES: usize = 4 << 10;

/// Keeps a connection open, and what it costs: held by its socket and both halves.
pub(crate) struct Open {
    instance: Instance,
    /// The receiving half, once nobody reads any more: the other end may go on writing as long as the socket is there.
    unread: Mutex<Option<Reading>>,
    _permit: Permit,
    _buffers: Charge,
}

impl Open {
    fn count(&self, way: Way, bytes: usize) {
        self.instance.container().traffic.count(way, bytes);
    }
}

type Reading = ReadHalf<Box<dyn ByteStream>>;

/// Splits a connection. Fails when its buffers do not fit in the container's memory.
pub(crate) fn open(
    connection: TcpConnection,
    permit: Permit,
    instance: &Instance,
) -> Result<(Arc<Open>, Receiver, Sender), Code> {
    let buffers = instance.charge(connection.buffer_bytes)?;
    let open = Open { instance: instance.clone(), unread: Mutex::default(), _permit: permit, _buffers: buffers };
    let open = Arc::new(open);
    let (reading, writing) = tokio::io::split(connection.stream);
    let receiver = Receiver { reading: Some(reading), ahead: BytesMut::new(), ended: None, open: open.clone() };
    Ok((open.clone(), receiver, Sender { writing: Some(writing), open }))
}

/// What comes in.
pub(crate) struct Receiver {
    /// Always there, until it is dropped.
    reading: Option<Reading>,
    ahead: BytesMut,
    /// Told once what was read ahead is gone.
    ended: Option<Result<(), Code>>,
    open: Arc<Open>,
}

impl Receiver {
    /// Waits until reading would not.
    pub(crate) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.ahead.is_empty() || self.ended.is_some() {
            return Poll::Ready(());
        }
        self.ahead.resize(AHEAD_BYTES, 0);
        let mut buffer = ReadBuf::new(&mut self.ahead);
        let poll = poll_read(&mut self.reading, cx, &mut buffer);
        let filled = buffer.filled().len();
        self.ahead.truncate(filled);
        match ready!(poll) {
            Ok(()) if filled == 0 => self.ended = Some(Ok(())),
            Ok(()) => self.open.count(Way::In, filled),
            Err(error) => self.ended = Some(Err(error.into())),
        }
        Poll::Ready(())
    }

    /// Reads. Nothing into a buffer that holds something: the other end has sent all.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, into: &mut [u8]) -> Poll<Result<usize, Code>> {
        let from_ahead = self.ahead.len().min(into.len());
        if from_ahead > 0 {
            self.ahead.copy_to_slice(&mut into[..from_ahead]);
        }
        if into.len() == from_ahead {
            return Poll::Ready(Ok(from_ahead));
        }
        if self.ended.is_none() {
            let mut buffer = ReadBuf::new(&mut into[from_ahead..]);
            match poll_read(&mut self.reading, cx, &mut buffer) {
                Poll::Pending if from_ahead == 0 => return Poll::Pending,
                Poll::Pending => {}
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => self.ended = Some(Ok(())),
                Poll::Ready(Ok(())) => {
                    self.open.count(Way::In, buffer.filled().len());
                    return Poll::Ready(Ok(from_ahead + buffer.filled().len()));
                }
                Poll::Ready(Err(error)) => self.ended = Some(Err(error.into())),
            }
        }
        match self.ended {
            Some(Err(code)) if from_ahead == 0 => Poll::Ready(Err(code)),
            _ => Poll::Ready(Ok(from_ahead)),
        }
    }

    /// Whether everything has been read.
    pub(crate) fn has_ended(&self) -> bool {
        self.ahead.is_empty() && self.ended.is_some()
    }

    /// What lies ready without waiting; for a look, nothing is taken.
    pub(crate) fn peek(&mut self) -> &[u8] {
        let _ = self.poll_ready(&mut once());
        &self.ahead
    }
}

fn poll_read(reading: &mut Option<Reading>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
    match reading {
        Some(reading) => Pin::new(reading).poll_read(cx, into),
        None => Poll::Ready(Ok(())),
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        *self.open.unread.lock() = self.reading.take();
    }
}

/// What goes out. Dropping it tells the other end that there is no more.
pub(crate) struct Sender {
    writing: Option<WriteHalf<Box<dyn ByteStream>>>,
    open: Arc<Open>,
}

impl Sender {
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, Code>> {
        let Some(writing) = &mut self.writing else { return Poll::Ready(Err(Code::ConnectionBroken)) };
        match ready!(Pin::new(writing).poll_write(cx, bytes)) {
            Ok(0) if !bytes.is_empty() => Poll::Ready(Err(Code::ConnectionBroken)),
            Ok(written) => {
                self.open.count(Way::Out, written);
                Poll::Ready(Ok(written))
            }
            Err(error) => Poll::Ready(Err(error.into())),
        }
    }

    /// Writes all.
    pub(crate) async fn write_all(&mut self, bytes: &[u8]) -> Result<(), Code> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let written = poll_fn(|cx| self.poll_write(cx, rest)).await?;
            rest = &rest[written..];
        }
        Ok(())
    }

    /// Memory for what waits to be written.
    pub(crate) fn charge(&self, bytes: usize) -> Result<Charge, Code> {
        self.open.instance.charge(bytes as u64)
    }

    pub(crate) fn linger(&self) -> Duration {
        self.open.instance.limits().linger
    }

    /// Whom to bill for work that goes on without the guest.
    pub(crate) fn payer(&self) -> Arc<Container> {
        self.open.instance.container().clone()
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        let Some(mut writing) = self.writing.take() else { return };
        if Pin::new(&mut writing).poll_shutdown(&mut once()).is_ready() {
            return;
        }
        // What the stream still holds goes out first, like a kernel's socket buffer after close.
        let Ok(runtime) = Handle::try_current() else { return };
        let (open, linger) = (self.open.clone(), self.linger());
        let closing = async move {
            let shutdown = poll_fn(|cx| Pin::new(&mut writing).poll_shutdown(cx));
            let _: Result<io::Result<()>, _> = tokio::time::timeout(linger, shutdown).await;
            drop(open);
        };
        runtime.spawn(Metered::new(self.payer(), closing));
    }
}

/// Books the CPU time of each poll with a container. It is not throttled here; the guest is, when it runs next.
pub(crate) struct Metered<F> {
    container: Arc<Container>,
    future: Pin<Box<F>>,
}

impl<F: Future> Metered<F> {
    pub(crate) fn new(payer: Arc<Container>, future: F) -> Self {
        Self { container: payer, future: Box::pin(future) }
    }
}

impl<F: Future> Future for Metered<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        meter::beside(&this.container, || this.future.as_mut().poll(cx))
    }
}
