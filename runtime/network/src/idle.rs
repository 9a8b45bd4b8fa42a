//! What a connection of HTTP does: whether it has requests under way, since when it has none, whether its client takes what
//! is written.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

use crate::{bodies::Hears, stream::ByteStream};

/// What happens on one connection.
pub(crate) struct Activity {
    under_way: AtomicUsize,
    /// Whether there was a request.
    asked: AtomicBool,
    /// Whether something else than HTTP is spoken.
    other: AtomicBool,
    /// Since when nothing is under way.
    quiet: Mutex<Instant>,
}

/// A request under way until this is dropped.
pub(crate) struct UnderWay(Arc<Activity>);

impl Activity {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            under_way: AtomicUsize::new(0),
            asked: AtomicBool::new(false),
            other: AtomicBool::new(false),
            quiet: Mutex::new(Instant::now()),
        })
    }

    pub(crate) fn begin(self: &Arc<Self>) -> UnderWay {
        self.under_way.fetch_add(1, Ordering::AcqRel);
        self.asked.store(true, Ordering::Release);
        UnderWay(self.clone())
    }

    /// From now on both sides may be silent for as long as they like.
    pub(crate) fn is_http_no_more(&self) {
        self.other.store(true, Ordering::Release);
    }

    /// Ends when nothing was under way for too long: `first` until the first request, `later` after one.
    pub(crate) async fn idle(&self, first: Duration, later: Duration) {
        loop {
            let limit = if self.asked.load(Ordering::Acquire) { later } else { first };
            let left = match self.under_way.load(Ordering::Acquire) {
                0 => (*self.quiet.lock() + limit).saturating_duration_since(Instant::now()),
                _ => limit,
            };
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left).await;
        }
    }
}

impl Hears for UnderWay {}

impl Drop for UnderWay {
    fn drop(&mut self) {
        *self.0.quiet.lock() = Instant::now();
        self.0.under_way.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A stream to a client that fails when that takes nothing for too long.
pub(crate) struct Stalling<S> {
    stream: S,
    limit: Duration,
    activity: Arc<Activity>,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<S: ByteStream> Stalling<S> {
    pub(crate) fn new(stream: S, limit: Duration, activity: Arc<Activity>) -> Self {
        Self { stream, limit, activity, waiting: None }
    }

    fn watch<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() || self.activity.other.load(Ordering::Acquire) {
            self.waiting = None;
            return polled;
        }
        let limit = self.limit;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        match waiting.as_mut().poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => {
                let why = format!("the client took nothing for {limit:?}");
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, why)))
            }
        }
    }
}

impl<S: ByteStream> AsyncRead for Stalling<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, out)
    }
}

impl<S: ByteStream> AsyncWrite for Stalling<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watch(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, pieces);
        self.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.watch(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.watch(cx, shut)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_without_requests_only() {
        let (first, later) = (Duration::from_secs(3), Duration::from_secs(10));
        let seconds = |since: Instant| since.elapsed().as_secs();
        let (since, activity) = (Instant::now(), Activity::new());
        activity.idle(first, later).await;
        assert_eq!(seconds(since), 3, "no request came");
        let (since, activity) = (Instant::now(), Activity::new());
        let long = activity.begin();
        drop(activity.begin());
        let ends = async {
            tokio::time::sleep(Duration::from_secs(60)).await;
            drop(long);
        };
        tokio::join!(ends, activity.idle(first, later));
        assert_eq!(seconds(since), 70, "ten seconds after the last one has ended");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_waited_for_no_longer() {
        let (near, mut far) = tokio::io::duplex(8);
        let activity = Activity::new();
        let mut stream = Stalling::new(near, Duration::from_secs(5), activity.clone());
        let since = Instant::now();
        let error = stream.write_all(&[0; 64]).await.unwrap_err();
        assert_eq!((error.kind(), since.elapsed().as_secs()), (io::ErrorKind::TimedOut, 5));
        // One that takes a little now and then is slow, not gone.
        far.read_exact(&mut [0; 8]).await.unwrap();
        let slow = async {
            for _ in 0..4 {
                tokio::time::sleep(Duration::from_secs(4)).await;
                far.read_exact(&mut [0; 8]).await.unwrap();
            }
        };
        let (written, ()) = tokio::join!(stream.write_all(&[0; 32]), slow);
        written.unwrap();
        activity.is_http_no_more();
        let mut forever = Box::pin(stream.write_all(&[0; 64]));
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert!((&mut forever).now_or_never().is_none());
    }
}
