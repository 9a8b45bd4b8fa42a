//! Holding what is open so that it can be cut: requests under way with their answers' bodies, and sockets outside.
//!
//! Most requests are answered before anybody could cut them; only one that has to wait is noted as open.

use std::{
    io,
    pin::{Pin, pin},
    sync::Weak,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::{
    CallError, Inner, Network,
    policy::{Leash, Opened},
};

/// What a request would be noted as, when it has to wait.
pub(crate) struct Watch {
    network: Weak<Inner>,
    opened: Opened,
}

impl Watch {
    pub(crate) fn new(network: &Network, opened: Opened) -> Self {
        Self { network: std::sync::Arc::downgrade(&network.0), opened }
    }

    /// Notes it as open; what has been forbidden meanwhile is cut at once.
    fn leash(&self) -> Option<Leash> {
        let network = Network(self.network.upgrade()?);
        let leash = network.inner().policies.flows.leash(self.opened.clone());
        if !network.still_allows(&self.opened) {
            leash.token.cancel();
        }
        Some(leash)
    }
}

/// Waits for the head of an answer, or until the request is cut.
pub(crate) async fn watched<T>(
    watch: Option<&Watch>,
    call: impl Future<Output = Result<T, CallError>>,
) -> (Result<T, CallError>, Option<Leash>) {
    let mut call = pin!(call);
    if let Poll::Ready(answer) = futures::poll!(call.as_mut()) {
        return (answer, None);
    }
    let Some(leash) = watch.and_then(Watch::leash) else { return (call.await, None) };
    let cut = tokio::select! {
        answer = call => return (answer, Some(leash)),
        () = leash.token.cancelled() => CUT,
    };
    (Err(CallError::Denied(cut.to_owned())), None)
}

const CUT: &str = "a policy has come to forbid it";

/// What the body of an answer is held by.
pub(crate) struct Rein {
    watch: Option<Watch>,
    leash: Option<Leash>,
    cut: Option<Waiting>,
}

type Waiting = Pin<Box<WaitForCancellationFutureOwned>>;

impl Rein {
    pub(crate) fn new(watch: Option<Watch>, leash: Option<Leash>) -> Self {
        Self { watch, leash, cut: None }
    }

    /// Whether it has been cut, for a body that has nothing now; wakes when it is.
    pub(crate) fn poll_cut(&mut self, cx: &mut Context<'_>) -> Poll<CallError> {
        if self.leash.is_none() {
            self.leash = self.watch.take().and_then(|watch| watch.leash());
        }
        let Some(leash) = &self.leash else { return Poll::Pending };
        poll_token(&leash.token, &mut self.cut, cx).map(|()| CallError::Denied(CUT.to_owned()))
    }
}

fn poll_token(token: &CancellationToken, waiting: &mut Option<Waiting>, cx: &mut Context<'_>) -> Poll<()> {
    let waiting = waiting.get_or_insert_with(|| Box::pin(token.clone().cancelled_owned()));
    waiting.as_mut().poll(cx)
}

/// A stream that ends when it is cut.
pub(crate) struct Leashed<S> {
    stream: S,
    leash: Leash,
    reading: Option<Waiting>,
    writing: Option<Waiting>,
}

impl<S> Leashed<S> {
    pub(crate) fn new(stream: S, leash: Leash) -> Self {
        Self { stream, leash, reading: None, writing: None }
    }

    fn is_cut(&self) -> bool {
        self.leash.token.is_cancelled()
    }
}

fn reset<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
}

impl<S: AsyncRead + Unpin> AsyncRead for Leashed<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.is_cut() {
            return reset();
        }
        if let ready @ Poll::Ready(_) = Pin::new(&mut this.stream).poll_read(cx, out) {
            return ready;
        }
        match poll_token(&this.leash.token, &mut this.reading, cx) {
            Poll::Ready(()) => reset(),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncWrite + Unpin> Leashed<S> {
    fn write<T>(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if self.is_cut() {
            return reset();
        }
        if let ready @ Poll::Ready(_) = write(Pin::new(&mut self.stream), cx) {
            return ready;
        }
        match poll_token(&self.leash.token, &mut self.writing, cx) {
            Poll::Ready(()) => reset(),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Leashed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.write(cx, |stream, cx| stream.poll_write(cx, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.write(cx, |stream, cx| stream.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.write(cx, |stream, cx| stream.poll_shutdown(cx))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write(cx, |stream, cx| stream.poll_write_vectored(cx, bytes))
    }
}
