//! A request's body that can be had back when the pod it went to has not begun it: what was taken of it is remembered, up
//! to a bound. The pieces are shared, not copied.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use parking_lot::Mutex;

use crate::{Body, BoxError};

/// What is remembered of one body at most.
const REMEMBERED_BYTES_MAX: usize = 64 << 10;

struct Shelf {
    /// `None`: it has been taken back.
    body: Option<Body>,
    taken: VecDeque<Bytes>,
    bytes: usize,
    /// More was taken than is remembered.
    lost: bool,
}

/// The way back to a body that was sent.
pub(crate) struct Replay(Arc<Mutex<Shelf>>);

struct Lent(Arc<Mutex<Shelf>>);

impl Replay {
    /// The body to send, and the way back.
    pub(crate) fn lend(body: Body) -> (Body, Self) {
        let shelf = Shelf { body: Some(body), taken: VecDeque::new(), bytes: 0, lost: false };
        let shelf = Arc::new(Mutex::new(shelf));
        (Lent(shelf.clone()).boxed_unsync(), Self(shelf))
    }

    /// The body as it was; `None` when too much of it has gone.
    pub(crate) fn back(self) -> Option<Body> {
        let mut shelf = self.0.lock();
        let rest = shelf.body.take().filter(|_| !shelf.lost)?;
        let taken = std::mem::take(&mut shelf.taken);
        Some(if taken.is_empty() { rest } else { Again { taken, rest }.boxed_unsync() })
    }
}

impl http_body::Body for Lent {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut shelf = self.0.lock();
        let Some(body) = &mut shelf.body else { return Poll::Ready(Some(Err("it is sent elsewhere".into()))) };
        let frame = ready!(Pin::new(body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) if !shelf.lost => match frame.data_ref() {
                Some(data) if shelf.bytes + data.len() <= REMEMBERED_BYTES_MAX => {
                    shelf.bytes += data.len();
                    shelf.taken.push_back(data.clone());
                }
                _ => {
                    shelf.lost = true;
                    shelf.taken.clear();
                }
            },
            Some(Err(_)) => shelf.lost = true,
            _ => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().body.as_ref().is_some_and(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.lock().body.as_ref().map(http_body::Body::size_hint).unwrap_or_default()
    }
}

/// What was taken of a body, and what is left of it.
struct Again {
    taken: VecDeque<Bytes>,
    rest: Body,
}

impl http_body::Body for Again {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.taken.pop_front() {
            Some(data) => Poll::Ready(Some(Ok(Frame::data(data)))),
            None if self.rest.is_end_stream() => Poll::Ready(None),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.taken.is_empty() && self.rest.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use http_body_util::StreamBody;

    use super::*;

    fn body(pieces: Vec<Bytes>) -> Body {
        let frames = pieces.into_iter().map(|piece| Ok::<_, BoxError>(Frame::data(piece)));
        StreamBody::new(stream::iter(frames)).boxed_unsync()
    }

    async fn check(pieces: &[usize], taken: usize, comes_back: bool) {
        let all: Vec<Bytes> = pieces.iter().map(|size| Bytes::from(vec![7; *size])).collect();
        let (mut lent, replay) = Replay::lend(body(all.clone()));
        for _ in 0..taken {
            drop(lent.frame().await);
        }
        let back = replay.back();
        assert_eq!(back.is_some(), comes_back, "{pieces:?} {taken}");
        if let Some(back) = back {
            assert_eq!(back.collect().await.unwrap().to_bytes(), all.concat(), "{pieces:?} {taken}");
            assert!(lent.frame().await.unwrap().is_err(), "nobody else has it");
        }
    }

    #[tokio::test]
    async fn a_body_comes_back_whole_or_not_at_all() {
        check(&[10, 20, 30], 0, true).await;
        check(&[10, 20, 30], 2, true).await;
        check(&[10, 20, 30], 4, true).await;
        check(&[REMEMBERED_BYTES_MAX, 1], 1, true).await;
        check(&[REMEMBERED_BYTES_MAX, 1], 2, false).await;
    }
}
