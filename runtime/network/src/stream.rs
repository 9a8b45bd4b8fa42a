//! Two ends of a connection within the process: what one writes, the other reads.
//!
//! As TCP: each direction holds a bounded number of bytes and is closed on its own; an end that is dropped closes both,
//! and resets the connection when it had not read everything. Memory is taken when bytes wait, not before.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf as _, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that may wait in each direction: as much as a kernel gives a socket at first.
pub(crate) const BUFFER_BYTES: usize = 64 << 10;
/// Bytes that may wait for an end that nobody has taken yet, and so nobody pays for.
const UNTAKEN_BYTES: usize = 4 << 10;
/// A buffer that has grown beyond this is given back when it is empty.
const KEEP_BYTES: usize = 4 << 10;

/// Bytes both ways.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> ByteStream for T {}

/// An open connection, whatever is behind it. Shutting it down for writing says that nothing follows; dropping it closes it.
pub type PodStream = Box<dyn ByteStream>;

pin_project_lite::pin_project! {
    /// A stream that holds something while it is open: what it is counted against.
    pub(crate) struct Held<S, G> {
        #[pin]
        stream: S,
        held: G,
    }
}

impl<S, G> Held<S, G> {
    pub(crate) fn new(stream: S, held: G) -> Self {
        Self { stream, held }
    }

    pub(crate) fn stream(&self) -> &S {
        &self.stream
    }
}

impl<S: AsyncRead, G> AsyncRead for Held<S, G> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.project().stream.poll_read(cx, out)
    }
}

impl<S: AsyncWrite, G> AsyncWrite for Held<S, G> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.project().stream.poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().stream.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().stream.poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.project().stream.poll_write_vectored(cx, bytes)
    }
}

/// One direction.
#[derive(Default)]
struct Pipe {
    bytes: BytesMut,
    /// Whether the reader's end has been taken.
    taken: bool,
    /// The writer has said that nothing follows.
    finished: bool,
    /// The reader has gone, or the writer has broken off.
    broken: Option<Broken>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Broken {
    /// Nobody reads any more: writing fails.
    Unread,
    /// Bytes were lost: reading and writing fail.
    Reset,
}

impl Broken {
    fn error(self) -> io::Error {
        match self {
            Self::Unread => io::ErrorKind::BrokenPipe.into(),
            Self::Reset => io::ErrorKind::ConnectionReset.into(),
        }
    }
}

type Shared = Arc<Mutex<Pipe>>;

/// One end of a connection within the process.
pub(crate) struct End {
    input: Shared,
    output: Shared,
}

/// What makes room at an end that has been taken.
pub(crate) struct Taking(Shared);

impl Taking {
    /// The end has been taken.
    pub(crate) fn taken(self) {
        let mut pipe = self.0.lock();
        pipe.taken = true;
        let writer = pipe.writer.take();
        drop(pipe);
        wake(writer);
    }
}

impl End {
    pub(crate) fn taking(&self) -> Taking {
        Taking(self.input.clone())
    }

    pub(crate) fn cutter(&self) -> Cutter {
        Cutter([Arc::downgrade(&self.input), Arc::downgrade(&self.output)])
    }
}

/// Breaks a connection off from aside: both ends find it reset.
pub(crate) struct Cutter([Weak<Mutex<Pipe>>; 2]);

impl Cutter {
    pub(crate) fn cut(self) {
        for pipe in self.0.iter().filter_map(Weak::upgrade) {
            let mut pipe = pipe.lock();
            pipe.broken = Some(Broken::Reset);
            pipe.bytes = BytesMut::new();
            let (reader, writer) = (pipe.reader.take(), pipe.writer.take());
            drop(pipe);
            wake(reader);
            wake(writer);
        }
    }
}

impl Pipe {
    fn room(&self) -> usize {
        let most = if self.taken { BUFFER_BYTES } else { UNTAKEN_BYTES };
        most.saturating_sub(self.bytes.len())
    }
}

/// A connection: the end of who opens it, and the other, which is still to be taken.
pub(crate) fn pair() -> (End, End) {
    let (there, back) = (Shared::default(), Shared::default());
    back.lock().taken = true;
    (End { input: back.clone(), output: there.clone() }, End { input: there, output: back })
}

impl AsyncRead for End {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let coop = ready!(tokio::task::coop::poll_proceed(cx));
        let mut pipe = self.input.lock();
        // What had come before is read first, as from a socket.
        if pipe.broken == Some(Broken::Reset) && pipe.bytes.is_empty() {
            return Poll::Ready(Err(Broken::Reset.error()));
        }
        if pipe.bytes.is_empty() && !pipe.finished && out.remaining() > 0 {
            keep(&mut pipe.reader, cx);
            return Poll::Pending;
        }
        coop.made_progress();
        let count = out.remaining().min(pipe.bytes.len());
        out.put_slice(&pipe.bytes[..count]);
        pipe.bytes.advance(count);
        if pipe.bytes.is_empty() {
            if pipe.bytes.capacity() > KEEP_BYTES {
                pipe.bytes = BytesMut::new();
            } else {
                pipe.bytes.clear();
            }
        }
        let writer = pipe.writer.take();
        drop(pipe);
        wake(writer);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for End {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let coop = ready!(tokio::task::coop::poll_proceed(cx));
        let mut pipe = self.output.lock();
        if let Some(broken) = pipe.broken {
            return Poll::Ready(Err(broken.error()));
        }
        if pipe.finished {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let count = bytes.len().min(pipe.room());
        if count == 0 && !bytes.is_empty() {
            keep(&mut pipe.writer, cx);
            return Poll::Pending;
        }
        coop.made_progress();
        pipe.bytes.extend_from_slice(&bytes[..count]);
        let reader = pipe.reader.take();
        drop(pipe);
        wake(reader);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut pipe = self.output.lock();
        pipe.finished = true;
        let reader = pipe.reader.take();
        drop(pipe);
        wake(reader);
        Poll::Ready(Ok(()))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let lost = {
            let mut pipe = self.input.lock();
            let lost = !pipe.bytes.is_empty();
            pipe.broken.get_or_insert(Broken::Unread);
            pipe.bytes = BytesMut::new();
            let writer = pipe.writer.take();
            drop(pipe);
            wake(writer);
            lost
        };
        let mut pipe = self.output.lock();
        pipe.finished = true;
        if lost {
            pipe.broken = Some(Broken::Reset);
        }
        let reader = pipe.reader.take();
        drop(pipe);
        wake(reader);
    }
}

fn keep(slot: &mut Option<Waker>, cx: &Context<'_>) {
    if !slot.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
        *slot = Some(cx.waker().clone());
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn each_direction_ends_on_its_own() {
        let (mut a, mut b) = pair();
        a.write_all(b"question").await.unwrap();
        a.shutdown().await.unwrap();
        let mut read = String::new();
        b.read_to_string(&mut read).await.unwrap();
        assert_eq!(read, "question");
        b.write_all(b"answer").await.unwrap();
        drop(b);
        read.clear();
        a.read_to_string(&mut read).await.unwrap();
        assert_eq!(read, "answer");
        assert_eq!(a.write(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn a_writer_waits_when_the_buffer_is_full() {
        let (mut a, mut b) = pair();
        let much = vec![7; BUFFER_BYTES];
        assert!(a.write_all(&much).now_or_never().is_none(), "nobody has taken the other end");
        b.read_exact(&mut [0; UNTAKEN_BYTES]).await.unwrap();
        b.taking().taken();
        a.write_all(&much).await.unwrap();
        assert!(a.write_all(b"more").now_or_never().is_none());
        let (written, read) = tokio::join!(a.write_all(b"more"), async {
            let mut read = vec![0; BUFFER_BYTES + 4];
            b.read_exact(&mut read).await.map(|_| read)
        });
        written.unwrap();
        assert!(read.unwrap().ends_with(b"\x07more"));
    }

    #[tokio::test]
    async fn an_end_that_goes_with_bytes_unread_resets_the_connection() {
        let (mut a, mut b) = pair();
        a.write_all(b"unread").await.unwrap();
        b.write_all(b"before").await.unwrap();
        drop(b);
        let mut read = [0; 8];
        assert_eq!(a.read(&mut read).await.unwrap(), 6);
        assert_eq!(&read[..6], b"before");
        assert_eq!(a.read(&mut read).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(a.write(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn a_connection_that_is_cut_is_reset_for_both() {
        let (mut a, mut b) = pair();
        let cutter = a.cutter();
        b.write_all(b"lost").await.unwrap();
        let mut buffer = [0; 8];
        let (read, ()) = tokio::join!(b.read(&mut buffer), async { cutter.cut() });
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert_eq!(a.read(&mut buffer).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        for end in [&mut a, &mut b] {
            assert_eq!(end.write(b"x").await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        }
    }

    #[tokio::test]
    async fn who_waits_is_woken_when_the_other_end_goes() {
        let (mut a, b) = pair();
        let mut buffer = [0; 1];
        let (read, ()) = tokio::join!(a.read(&mut buffer), async { drop(b) });
        assert_eq!(read.unwrap(), 0);
    }
}
