//! Ends of streams that are carried in messages: bytes in from a queue, bytes out into one.
//!
//! Invariant: at most a queue's length of chunks of [`CHUNK_BYTES_MAX`] waits in each; whoever writes more waits.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::mpsc,
};
use tokio_util::sync::PollSender;

/// Bytes of one chunk.
pub(crate) const CHUNK_BYTES_MAX: usize = 32 * 1024;
/// Chunks that wait for their reader.
pub(crate) const CHUNKS_MAX: usize = 8;

/// Reads what comes from a queue; its end is the end of the stream.
pub(crate) struct Inbox {
    chunks: mpsc::Receiver<Bytes>,
    rest: Bytes,
}

impl Inbox {
    /// A queue and its reader.
    pub(crate) fn new() -> (mpsc::Sender<Bytes>, Self) {
        let (sender, chunks) = mpsc::channel(CHUNKS_MAX);
        (sender, Self { chunks, rest: Bytes::new() })
    }
}

impl AsyncRead for Inbox {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(self.chunks.poll_recv(cx)) {
                Some(chunk) => self.rest = chunk,
                None => return Poll::Ready(Ok(())),
            }
        }
        let n = self.rest.len().min(buf.remaining());
        buf.put_slice(&self.rest[..n]);
        self.rest.advance(n);
        Poll::Ready(Ok(()))
    }
}

/// Hands chunks to readers of queues, in pieces that are not too large.
///
/// # Errors
/// When nobody reads any more.
pub(crate) async fn put(queue: &mpsc::Sender<Bytes>, mut data: Bytes) -> Result<(), mpsc::error::SendError<Bytes>> {
    while !data.is_empty() {
        let n = data.len().min(CHUNK_BYTES_MAX);
        queue.send(data.split_to(n)).await?;
    }
    Ok(())
}

/// What a writer has to say.
pub(crate) enum Piece {
    Data(Bytes),
    End,
}

type Wrap<T> = Box<dyn Fn(Piece) -> Option<T> + Send + Sync>;

/// Writes into a queue of messages.
pub(crate) struct Outbox<T> {
    queue: PollSender<T>,
    wrap: Wrap<T>,
    ended: bool,
}

impl<T: Send + 'static> Outbox<T> {
    /// `wrap`: makes a message of what is written, and of the end if that is said at all.
    pub(crate) fn new(queue: mpsc::Sender<T>, wrap: impl Fn(Piece) -> Option<T> + Send + Sync + 'static) -> Self {
        Self { queue: PollSender::new(queue), wrap: Box::new(wrap), ended: false }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, piece: impl FnOnce() -> Piece) -> Poll<io::Result<()>> {
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        ready!(self.queue.poll_reserve(cx)).map_err(gone)?;
        if let Some(message) = (self.wrap)(piece()) {
            self.queue.send_item(message).map_err(gone)?;
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: Send + 'static> AsyncWrite for Outbox<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.ended {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let n = bytes.len().min(CHUNK_BYTES_MAX);
        if n > 0 {
            ready!(self.poll_send(cx, || Piece::Data(Bytes::copy_from_slice(&bytes[..n]))))?;
        }
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.ended {
            ready!(self.poll_send(cx, || Piece::End))?;
            self.ended = true;
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn bytes_in_and_out() {
        let (queue, mut inbox) = Inbox::new();
        put(&queue, Bytes::from(vec![7; CHUNK_BYTES_MAX + 1])).await.unwrap();
        put(&queue, Bytes::new()).await.unwrap();
        drop(queue);
        let mut read = Vec::new();
        inbox.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, vec![7; CHUNK_BYTES_MAX + 1]);

        let (queue, mut messages) = mpsc::channel(1);
        let mut outbox = Outbox::new(queue, |piece| match piece {
            Piece::Data(bytes) => Some(bytes.len()),
            Piece::End => Some(0),
        });
        let writer = tokio::spawn(async move {
            outbox.write_all(&vec![1; CHUNK_BYTES_MAX + 5]).await.unwrap();
            outbox.shutdown().await.unwrap();
            outbox.shutdown().await.unwrap();
            assert!(outbox.write_all(b"x").await.is_err());
        });
        let mut sizes = Vec::new();
        while let Some(size) = messages.recv().await {
            sizes.push(size);
        }
        writer.await.unwrap();
        assert_eq!(sizes, [CHUNK_BYTES_MAX, 5, 0]);
    }
}
