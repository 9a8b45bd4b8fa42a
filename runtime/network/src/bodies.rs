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

/// Something that hears how a body goes by.
pub(crate) trait Hears: Send + 'static {
    /// So many bytes have gone by.
    fn bytes(&mut self, _count: u64) {}

    /// A frame is about to go by.
    ///
    /// # Errors
    /// What goes by in its stead.
    fn frame(&mut self, frame: &Frame<Bytes>) -> Result<(), BoxError> {
        if let Some(data) = frame.data_ref() {
            self.bytes(data.remaining() as u64);
        }
        Ok(())
    }

    /// No more comes. `whole`: the body has ended, else it broke.
    fn over(&mut self, _whole: bool) {}
}

pin_project_lite::pin_project! {
    struct Heard<H> {
        #[pin]
        body: Body,
        by: H,
    }
}

/// A body of which somebody hears, who is dropped with it.
pub(crate) fn heard<H: Hears>(body: Body, by: H) -> Body {
    Heard { body, by }.boxed_unsync()
}

impl<H: Hears> http_body::Body for Heard<H> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.project();
        let mut body: Pin<&mut Body> = this.body;
        let mut frame = ready!(body.as_mut().poll_frame(cx));
        if let Some(Ok(next)) = &frame
            && let Err(instead) = this.by.frame(next)
        {
            frame = Some(Err(instead));
        }
        match &frame {
            Some(Ok(_)) if !http_body::Body::is_end_stream(&*body) => {}
            ended => this.by.over(!matches!(ended, Some(Err(_)))),
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

/// Lets only so many bytes by.
struct Bound {
    left: u64,
    passed: Arc<AtomicBool>,
}

impl Hears for Bound {
    fn frame(&mut self, frame: &Frame<Bytes>) -> Result<(), BoxError> {
        let bytes = frame.data_ref().map_or(0, |data| data.remaining() as u64);
        match self.left.checked_sub(bytes) {
            Some(left) => self.left = left,
            None => {
                self.passed.store(true, Ordering::Relaxed);
                return Err("the request's body is larger than may be".into());
            }
        }
        Ok(())
    }
}

/// A body that fails when more comes than it may have. The flag tells whether it did.
pub(crate) fn bounded(body: Body, bytes_max: u64) -> (Body, Arc<AtomicBool>) {
    let passed = Arc::new(AtomicBool::new(false));
    (heard(body, Bound { left: bytes_max, passed: passed.clone() }), passed)
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
