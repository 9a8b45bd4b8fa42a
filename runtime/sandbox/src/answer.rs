//! The two ends of a call: the guest's, which answers, and the caller's, which takes the answer or goes away.
//!
//! Invariants: a body whose guest did not come to its end never looks whole; a caller that goes before it has what it is
//! owed is noticed by the guest's end; one that has everything does not end a guest that goes on.

use std::{
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures::channel::oneshot;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use tokio::{runtime::Handle, sync::Notify};
use wasmtime_wasi_http::WasiBody;

use crate::{Body, BoxError, CallFailure, container::Container, traffic::Way};

type Response = http::Response<WasiBody>;

/// The guest's end.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Takes the response's head, once.
    pub(crate) reply: oneshot::Sender<wasmtime::Result<Response>>,
    /// Told at the end why there is no answer; nobody listens when there is one.
    pub(crate) fate: oneshot::Sender<CallFailure>,
    pub(crate) body: BodyEnd,
}

/// What the guest's end knows of the caller, and may do to the body that it reads.
#[derive(Debug)]
pub(crate) struct BodyEnd {
    left: oneshot::Receiver<()>,
    watch: Arc<Watch>,
    broken: Arc<AtomicBool>,
    cut: Option<oneshot::Sender<()>>,
}

/// Whether the caller has gone, for those that cannot wait for it.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    gone: AtomicBool,
    told: OnceLock<Arc<Notify>>,
}

impl Watch {
    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::SeqCst)
    }
}

/// How a caller left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    /// With everything that it was owed.
    Satisfied,
    /// Before that.
    Gone,
}

impl BodyEnd {
    /// Waits until the caller has left.
    pub(crate) async fn left(&mut self) -> Left {
        match (&mut self.left).await {
            Ok(()) => Left::Satisfied,
            Err(oneshot::Canceled) => Left::Gone,
        }
    }

    /// Tells `told` when the caller goes.
    pub(crate) fn watch(&self, told: &Arc<Notify>) -> Arc<Watch> {
        let _ = self.watch.told.set(told.clone());
        self.watch.clone()
    }

    /// Marks the body as broken when it ends, wherever it is then.
    pub(crate) fn broken(&self) -> Arc<AtomicBool> {
        self.broken.clone()
    }

    /// What ends the body at once: mark it as broken first.
    pub(crate) fn take_cut(&mut self) -> Option<oneshot::Sender<()>> {
        self.cut.take()
    }
}

/// The caller's end.
pub(crate) struct Call {
    reply: oneshot::Receiver<wasmtime::Result<Response>>,
    fate: oneshot::Receiver<CallFailure>,
    leaving: Leaving,
    broken: Arc<AtomicBool>,
    cut: oneshot::Receiver<()>,
    container: Arc<Container>,
}

/// Tells the guest's end how the caller leaves.
struct Leaving {
    satisfied: Option<oneshot::Sender<()>>,
    watch: Arc<Watch>,
}

impl Leaving {
    fn satisfied(mut self) {
        if let Some(satisfied) = self.satisfied.take() {
            // Nobody listens when the guest has ended.
            let _ = satisfied.send(());
        }
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        if self.satisfied.take().is_some() {
            self.watch.gone.store(true, Ordering::SeqCst);
            if let Some(told) = self.watch.told.get() {
                told.notify_one();
            }
        }
    }
}

/// Makes both ends.
pub(crate) fn call(container: &Arc<Container>) -> (Call, Answer) {
    let (reply, on_reply) = oneshot::channel();
    let (fate, on_fate) = oneshot::channel();
    let (satisfied, left) = oneshot::channel();
    let watch = Arc::new(Watch::default());
    let leaving = Leaving { satisfied: Some(satisfied), watch: watch.clone() };
    let (cut, on_cut) = oneshot::channel();
    let broken = Arc::new(AtomicBool::new(false));
    let body = BodyEnd { left, watch, broken: broken.clone(), cut: Some(cut) };
    let call = Call { reply: on_reply, fate: on_fate, leaving, broken, cut: on_cut, container: container.clone() };
    (call, Answer { reply, fate, body })
}

impl Call {
    /// Waits for the head. `failed` says what the guest's own error means.
    pub(crate) async fn response(
        mut self,
        head_only: bool,
        failed: impl FnOnce(&wasmtime::Error) -> CallFailure,
    ) -> Result<http::Response<Body>, CallFailure> {
        let response = match heard(&mut self.reply, &mut self.fate).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(failed(&error)),
            Err(why) => return Err(why.unwrap_or(CallFailure::Killed)),
        };
        let (head, body) = response.into_parts();
        let status = head.status;
        let head_only = head_only
            || status.is_informational()
            || status == http::StatusCode::NO_CONTENT
            || status == http::StatusCode::NOT_MODIFIED;
        let length = head.headers.get(http::header::CONTENT_LENGTH);
        let owed = length.and_then(|length| length.to_str().ok()?.trim().parse().ok());
        let Self { leaving, broken, cut, container, .. } = self;
        let body = GuestBody { body, container, broken, cut: Some(cut), leaving: Some(leaving), owed, head_only };
        Ok(http::Response::from_parts(head, body.boxed_unsync()))
    }
}

/// What the guest answered, or why it did not; `None`: its task was dropped.
///
/// What it said counts, even when it ended in the moment since an answer was looked for.
async fn heard<A, F>(
    reply: &mut oneshot::Receiver<A>,
    mut fate: impl Future<Output = Result<F, oneshot::Canceled>> + Unpin,
) -> Result<A, Option<F>> {
    tokio::select! {
        biased;
        said = &mut *reply => if let Ok(said) = said {
            return Ok(said);
        },
        why = &mut fate => return match (reply.try_recv(), why) {
            (Ok(Some(said)), _) => Ok(said),
            (_, Ok(why)) => Err(Some(why)),
            (_, Err(oneshot::Canceled)) => reply.await.map_err(|_| None),
        },
    }
    // The guest ended without an answer: why is known when its task is done.
    Err(fate.await.ok())
}

/// A response's body. One whose guest trapped, was killed or took too long ends with an error: it must not look whole.
struct GuestBody {
    body: WasiBody,
    container: Arc<Container>,
    broken: Arc<AtomicBool>,
    cut: Option<oneshot::Receiver<()>>,
    leaving: Option<Leaving>,
    /// Bytes that the head promised and that have not come yet.
    owed: Option<u64>,
    /// Nobody will read it: the request was a HEAD, or the status has no body.
    head_only: bool,
}

impl GuestBody {
    fn satisfied(&mut self) {
        if let Some(leaving) = self.leaving.take() {
            leaving.satisfied();
        }
    }

    fn is_cut(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(cut) = &mut self.cut else { return false };
        match Pin::new(cut).poll(cx) {
            Poll::Ready(Ok(())) => true,
            Poll::Ready(Err(oneshot::Canceled)) => {
                self.cut = None;
                false
            }
            Poll::Pending => false,
        }
    }
}

impl http_body::Body for GuestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if polled.is_pending() && self.is_cut(cx) {
            self.cut = None;
            self.broken.store(false, Ordering::SeqCst);
            return Poll::Ready(Some(Err("the guest took too long over its answer".into())));
        }
        match ready!(polled) {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.container.traffic.count(Way::Out, data.len());
                    self.owed = self.owed.map(|owed| owed.saturating_sub(data.len() as u64));
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => Poll::Ready(Some(Err(Box::new(error)))),
            // Told once: the next poll ends the body.
            None if self.broken.swap(false, Ordering::SeqCst) => {
                Poll::Ready(Some(Err("the guest ended in the middle of its answer".into())))
            }
            None => {
                self.satisfied();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream() && !self.broken.load(Ordering::SeqCst)
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

impl Drop for GuestBody {
    fn drop(&mut self) {
        if self.leaving.is_none() {
            return;
        }
        if self.is_end_stream() || self.owed == Some(0) {
            return self.satisfied();
        }
        if !self.head_only {
            return;
        }
        // A guest that answers a HEAD as it would a GET must not see its writes fail: what it writes is thrown away, for
        // as long as it may take.
        if let (Ok(runtime), Some(leaving)) = (Handle::try_current(), self.leaving.take()) {
            let mut body = std::mem::take(&mut self.body);
            runtime.spawn(async move {
                while let Some(Ok(_)) = body.frame().await {}
                leaving.satisfied();
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_counts_when_the_guest_ends_before_it_is_looked_for_again() {
        let (sender, mut reply) = oneshot::channel();
        // Polled once the reply has been found to be missing.
        let fate = Box::pin(async move {
            sender.send("an answer").unwrap();
            Ok("its end")
        });
        assert_eq!(heard(&mut reply, fate).await, Ok("an answer"));
    }

    #[tokio::test]
    async fn who_says_nothing_has_a_reason() {
        let (sender, mut reply) = oneshot::channel::<()>();
        assert_eq!(heard(&mut reply, Box::pin(async { Ok("why") })).await, Err(Some("why")), "it may say more");
        drop(sender);
        let (fate, on_fate) = oneshot::channel();
        fate.send("why").unwrap();
        assert_eq!(heard(&mut reply, on_fate).await, Err(Some("why")), "it cannot");
        let (fate, on_fate) = oneshot::channel::<()>();
        drop(fate);
        assert_eq!(heard(&mut reply, on_fate).await, Err(None), "its task was dropped");
    }
}
