//! Bodies whose bytes are counted on their way, and that hold something until they have ended.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf as _, Bytes};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use prometheus::IntCounter;

use crate::{Body, BoxError};

pin_project_lite::pin_project! {
    struct Tallied<H> {
        #[pin]
        body: Body,
        bytes: IntCounter,
        held: H,
    }
}

/// A body whose bytes are counted; `held` is held until it goes.
pub(crate) fn tallied<H: Send + 'static>(body: Body, bytes: IntCounter, held: H) -> Body {
    Tallied { body, bytes, held }.boxed_unsync()
}

impl<H> http_body::Body for Tallied<H> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.project();
        let frame = ready!(this.body.poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            this.bytes.inc_by(data.remaining() as u64);
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
