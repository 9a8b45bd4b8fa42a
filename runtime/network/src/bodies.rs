//! Bodies whose bytes are counted on their way, that hold something until they have ended, and that may have only so many.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use prometheus::IntCounter;

use crate::{Body, BoxError};

/// Counts bytes, and holds something meanwhile.
struct Tally<H> {
    counter: IntCounter,
    _held: H,
}

impl<H: Send + 'static> Hears for Tally<H> {
    fn bytes(&mut self, count: u64) {
        self.counter.inc_by(count);
    }
}

/// A body whose bytes are counted; `held` is held until it goes.
pub(crate) fn tallied<H: Send + 'static>(body: Body, counter: IntCounter, held: H) -> Body {
    heard(body, Tally { counter, _held: held })
}

pin_project_lite::pin_project! {
    struct Bounded {
        #[pin]
        body: Body,
        left: u64,
        passed: Arc<AtomicBool>,
    }
}

/// A body that fails when more comes than it may have. The flag tells whether it did.
pub(crate) fn bounded(body: Body, bytes_max: u64) -> (Body, Arc<AtomicBool>) {
    let passed = Arc::new(AtomicBool::new(false));
    (Bounded { body, left: bytes_max, passed: passed.clone() }.boxed_unsync(), passed)
}

impl http_body::Body for Bounded {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.project();
        let frame = ready!(this.body.poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            match this.left.checked_sub(data.remaining() as u64) {
                Some(left) => *this.left = left,
                None => {
                    this.passed.store(true, Ordering::Relaxed);
                    return Poll::Ready(Some(Err("the request's body is larger than may be".into())));
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Something that hears how a body went.
pub(crate) trait Hears: Send + 'static {
    /// So many bytes have gone by.
    fn bytes(&mut self, count: u64);
}

pin_project_lite::pin_project! {
    struct Heard<H> {
        #[pin]
        body: Body,
        by: H,
    }
}

/// A body whose bytes somebody hears of, who is dropped with it.
pub(crate) fn heard<H: Hears>(body: Body, by: H) -> Body {
    Heard { body, by }.boxed_unsync()
}

impl<H: Hears> http_body::Body for Heard<H> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.project();
        let frame = ready!(this.body.poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            this.by.bytes(data.remaining() as u64);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{Full, StreamBody};

    use super::*;

    #[tokio::test]
    async fn a_body_may_have_so_many_bytes() {
        for (max, fits) in [(5, false), (6, true), (7, true)] {
            let pieces = ["abc", "def"].map(|piece| Ok(Frame::data(Bytes::from(piece))));
            let body = StreamBody::new(futures::stream::iter(pieces)).boxed_unsync();
            let (body, passed) = bounded(body, max);
            assert_eq!(body.collect().await.is_ok(), fits, "{max}");
            assert_eq!(passed.load(Ordering::Relaxed), !fits);
        }
        let (body, _) = bounded(Full::from("abc").map_err(|never| match never {}).boxed_unsync(), 3);
        assert_eq!(http_body::Body::size_hint(&body).exact(), Some(3));
    }
}
