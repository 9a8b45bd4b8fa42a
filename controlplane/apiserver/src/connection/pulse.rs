//! Whether anything still moves on a connection, above its bytes.
//!
//! A client of HTTP/2 may read its connection and still take nothing of an answer, by not opening the window of its stream.
//! Bodies of such streams are watched: one of which nothing has been taken for some time is ended, which frees what it
//! holds; a connection on which nothing else goes on is closed. So is one that never comes to its first request.
//!
//! Invariant: answers of at most [`SMALL_BYTES`] are not watched, so that this much may stay behind for each stream.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Response, Version};
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Smaller answers are handed out whole.
const SMALL_BYTES: u64 = 16 * 1024;
/// How long a connection without a request yet may stay when the server stops: its first one may be on its way.
const LAST_CALL: Duration = Duration::from_millis(200);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How a connection's requests go.
#[derive(Default)]
pub(super) struct Pulse {
    begun: AtomicBool,
    /// Requests that have no answer yet.
    asked: AtomicUsize,
    bodies: Mutex<Vec<Weak<dyn Watched>>>,
}

/// What a watched body is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    Moves,
    /// It was ended, now or before.
    Ended,
}

trait Watched: Send + Sync {
    /// Ends the body when nothing has been taken of it for `limit`.
    fn check(&self, limit: Duration) -> Pace;
}

/// A request that is being answered.
pub(super) struct Asked(Arc<Pulse>);

impl Drop for Asked {
    fn drop(&mut self) {
        self.0.asked.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pulse {
    /// Notes a request until its answer begins.
    pub(super) fn asked(self: &Arc<Self>) -> Asked {
        self.begun.store(true, Ordering::Relaxed);
        self.asked.fetch_add(1, Ordering::Relaxed);
        Asked(self.clone())
    }

    /// Watches over an answer's body where the connection alone does not show whether it is taken.
    pub(super) fn watch<B>(&self, version: Version, answer: Response<B>) -> Response<Guarded<B>>
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
    {
        answer.map(|body| {
            let small = body.size_hint().upper().is_some_and(|bytes| bytes <= SMALL_BYTES);
            if version != Version::HTTP_2 || small {
                return Guarded::Plain(body);
            }
            let slot = Arc::new(Slot(Mutex::new(State { body: Some(body), handed: None, ended: false })));
            let watched: Arc<dyn Watched> = slot.clone();
            let mut bodies = self.bodies.lock();
            if bodies.len() == bodies.capacity() {
                // Before it grows: most have gone.
                bodies.retain(|body| body.strong_count() > 0);
            }
            bodies.push(Arc::downgrade(&watched));
            Guarded::Watched(slot)
        })
    }

    /// Ends when the connection should be closed, and says why.
    pub(super) async fn stopped(&self, first: Duration, limit: Duration, stop: &CancellationToken) -> &'static str {
        let begun = || self.begun.load(Ordering::Relaxed);
        tokio::select! {
            () = tokio::time::sleep(first) => if !begun() { return "no request came in time" },
            () = stop.cancelled() => {
                tokio::time::sleep(LAST_CALL).await;
                if !begun() { return "the server stops and no request came yet" }
            }
        }
        let mut ticks = tokio::time::interval((limit / 4).max(Duration::from_millis(1)));
        loop {
            ticks.tick().await;
            if self.is_stuck(limit) {
                return "the client takes nothing of its answers";
            }
        }
    }

    /// Whether an answer was ended and there is nothing else.
    fn is_stuck(&self, limit: Duration) -> bool {
        let mut bodies = self.bodies.lock();
        let (mut moves, mut ended) = (false, false);
        bodies.retain(|body| {
            let Some(body) = body.upgrade() else { return false };
            match body.check(limit) {
                Pace::Moves => moves = true,
                Pace::Ended => ended = true,
            }
            true
        });
        ended && !moves && self.asked.load(Ordering::Relaxed) == 0
    }
}

/// The body of an answer, watched or not.
pub(super) enum Guarded<B> {
    Plain(B),
    Watched(Arc<Slot<B>>),
}

/// A watched body, which ends at its client's pace or from outside.
pub(super) struct Slot<B>(Mutex<State<B>>);

struct State<B> {
    body: Option<B>,
    /// When the last frame was handed out, until the next is asked for.
    handed: Option<Instant>,
    ended: bool,
}

impl<B: Send> Watched for Slot<B> {
    fn check(&self, limit: Duration) -> Pace {
        let mut state = self.0.lock();
        if !state.ended && state.handed.is_some_and(|at| at.elapsed() >= limit) {
            state.ended = true;
            let body = state.body.take();
            drop(state);
            // May be large, and may take locks of its own.
            drop(body);
            return Pace::Ended;
        }
        if state.ended { Pace::Ended } else { Pace::Moves }
    }
}

impl<B> Body for Guarded<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let slot = match &mut *self {
            Self::Plain(body) => return Pin::new(body).poll_frame(cx).map_err(Into::into),
            Self::Watched(slot) => slot,
        };
        let mut state = slot.0.lock();
        state.handed = None;
        if state.ended {
            let error = io::Error::new(io::ErrorKind::TimedOut, "nothing was taken of the answer for too long");
            return Poll::Ready(Some(Err(error.into())));
        }
        let Some(body) = &mut state.body else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(_))) => state.handed = Some(Instant::now()),
            Poll::Ready(_) => state.body = None,
            Poll::Pending => {}
        }
        polled.map_err(Into::into)
    }

    /// A watched body ends only when it is asked again: that is when its last frame has been taken.
    fn is_end_stream(&self) -> bool {
        match self {
            Self::Plain(body) => body.is_end_stream(),
            Self::Watched(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Plain(body) => body.size_hint(),
            Self::Watched(slot) => slot.0.lock().body.as_ref().map_or_else(SizeHint::default, Body::size_hint),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;
    use http_body_util::{BodyExt as _, StreamBody};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    type Frames = StreamBody<futures::stream::BoxStream<'static, io::Result<Frame<Bytes>>>>;

    fn answer(frames: usize) -> Response<Frames> {
        let frame = |_| Ok(Frame::data(Bytes::from_static(b"x")));
        Response::new(StreamBody::new(futures::stream::iter((0..frames).map(frame)).boxed()))
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_not_taken_is_ended_and_then_the_connection() {
        let pulse = Arc::new(Pulse::default());
        let mut slow = pulse.watch(Version::HTTP_2, answer(5)).into_body();
        let mut quick = pulse.watch(Version::HTTP_2, answer(100)).into_body();
        slow.frame().await.unwrap().unwrap();
        for second in 0..10 {
            quick.frame().await.unwrap().unwrap();
            tokio::time::sleep(Duration::from_secs(10)).await;
            assert!(!pulse.is_stuck(LIMIT), "another answer moves: {second}");
        }
        assert_eq!(
            slow.frame().await.unwrap().unwrap_err().to_string(),
            "nothing was taken of the answer for too long"
        );
        let asked = pulse.asked();
        drop(quick);
        assert!(!pulse.is_stuck(LIMIT), "a request is being answered");
        drop(asked);
        assert!(pulse.is_stuck(LIMIT));
        drop(slow);
        assert!(!pulse.is_stuck(LIMIT), "what has gone is forgotten");
        for _ in 0..1000 {
            drop(pulse.watch(Version::HTTP_2, answer(1)));
        }
        assert!(pulse.bodies.lock().len() < 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_stream_may_stay() {
        let pulse = Arc::new(Pulse::default());
        let quiet = StreamBody::new(futures::stream::pending::<io::Result<Frame<Bytes>>>().boxed());
        let mut body = pulse.watch(Version::HTTP_2, Response::new(quiet)).into_body();
        assert!(futures::poll!(body.frame()).is_pending());
        tokio::time::sleep(LIMIT * 10).await;
        assert!(!pulse.is_stuck(LIMIT));
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_request_must_come() {
        for (after, stop, wanted) in [
            (None, false, Some("no request came in time")),
            (None, true, Some("the server stops and no request came yet")),
            (Some(10), false, None),
        ] {
            let (pulse, token) = (Arc::new(Pulse::default()), CancellationToken::new());
            if stop {
                token.cancel();
            }
            let request = async {
                if let Some(seconds) = after {
                    tokio::time::sleep(Duration::from_secs(seconds)).await;
                    drop(pulse.asked());
                }
                tokio::time::sleep(Duration::from_secs(3600)).await;
            };
            let ended = tokio::select! {
                why = pulse.stopped(Duration::from_secs(30), LIMIT, &token) => Some(why),
                () = request => None,
            };
            assert_eq!(ended, wanted);
        }
    }
}
