//! A container that answers requests. While idle it owns no instance.
//!
//! Each request gets an instance of its own, in a task of its own: it goes on when the caller has its response's head,
//! until the guest has returned. Whatever goes wrong with it ends that instance alone, save memory: a container past
//! its limit ends as a whole.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures::channel::oneshot;
use http_body_util::BodyExt as _;
use tokio::{
    runtime::Handle,
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};
use wasmtime_wasi_http::{
    WasiBody, WasiHttpView as _,
    p2::bindings::{ProxyPre, http::types::Scheme},
    p3::{self, bindings::ServicePre},
};

use crate::{
    Body, BoxError, CallFailure, Ending, Image, Stream, Usage,
    container::Container,
    failure::Failure,
    host::{self, Guest, body_error},
    image::Code,
    task::{self, Turn},
};

/// A running container of an HTTP image. Dropping it kills what is under way.
#[derive(Debug)]
pub struct HttpContainer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    container: Arc<Container>,
    image: Arc<Image>,
    permits: Arc<Semaphore>,
    waiting: AtomicU32,
    in_flight: AtomicU32,
    stopped: AtomicBool,
    idle: Notify,
}

type Request = http::Request<WasiBody>;
type Response = http::Response<WasiBody>;
type Reply = oneshot::Sender<wasmtime::Result<Response>>;

impl HttpContainer {
    pub(crate) fn new(container: Arc<Container>, image: Arc<Image>) -> Self {
        let concurrency = usize::try_from(container.spec.limits.concurrency_max).unwrap_or(Semaphore::MAX_PERMITS);
        let inner = Inner {
            permits: Arc::new(Semaphore::new(concurrency.clamp(1, Semaphore::MAX_PERMITS))),
            waiting: AtomicU32::new(0),
            in_flight: AtomicU32::new(0),
            stopped: AtomicBool::new(false),
            idle: Notify::new(),
            container,
            image,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Answers one request. Returns when the head of the response is known; the body streams on.
    ///
    /// # Errors
    /// When there is no response; [`CallFailure::not_begun`] tells whether it may be tried elsewhere.
    pub async fn call(&self, request: http::Request<Body>) -> Result<http::Response<Body>, CallFailure> {
        let deadline = Instant::now() + self.inner.container.spec.limits.request_timeout;
        let flight = Flight::begin(&self.inner)?;
        let permit = self.inner.permit(deadline).await?;
        let (reply, answer) = oneshot::channel();
        let (fate, failed) = oneshot::channel();
        let turn = Arc::new(Turn::default());
        let broken = Arc::new(AtomicBool::new(false));
        let job = Job { flight, _permit: permit, deadline, turn: turn.clone(), fate, broken: broken.clone() };
        let guest = Box::pin(job.run(request, reply));
        task::spawn(&Handle::current(), self.inner.container.clone(), turn, guest);
        let response = match answer.await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(self.inner.call_failure(&error)),
            // The guest ended without an answer: why is known when its task is done.
            Err(oneshot::Canceled) => return Err(failed.await.unwrap_or(CallFailure::Killed)),
        };
        self.inner.container.answered();
        Ok(response.map(|body| GuestBody { body, broken }.boxed_unsync()))
    }

    /// What it has used.
    pub fn usage(&self) -> Usage {
        self.inner.container.usage()
    }

    /// Requests under way, those that wait for their turn and those whose body streams included.
    pub fn in_flight(&self) -> u32 {
        self.inner.in_flight.load(Ordering::SeqCst)
    }

    /// Resolves when the container as a whole has ended (killed, or out of memory); until then it stays pending.
    pub async fn ended(&self) -> Ending {
        self.inner.container.wait().await
    }

    /// Takes no new requests from now on; those under way go on.
    pub fn stop(&self) {
        self.inner.stopped.store(true, Ordering::SeqCst);
    }

    /// Stops, then waits until nothing is under way, at most for `timeout`. Returns whether nothing is.
    pub async fn drain(&self, timeout: Duration) -> bool {
        self.stop();
        let deadline = Instant::now() + timeout;
        loop {
            let idle = self.inner.idle.notified();
            tokio::pin!(idle);
            idle.as_mut().enable();
            if self.in_flight() == 0 {
                return true;
            }
            if timeout_at(deadline, idle).await.is_err() {
                return self.in_flight() == 0;
            }
        }
    }

    /// Ends everything at once.
    pub fn kill(&self) {
        self.stop();
        self.inner.container.end(Ending::Killed);
    }
}

impl Drop for HttpContainer {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Inner {
    /// Waits for the right to make an instance.
    async fn permit(&self, deadline: Instant) -> Result<OwnedSemaphorePermit, CallFailure> {
        if let Ok(permit) = self.permits.clone().try_acquire_owned() {
            return Ok(permit);
        }
        let limit = self.container.spec.limits.queue_max;
        let admitted = self.waiting.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| (n < limit).then_some(n + 1));
        if admitted.is_err() {
            return Err(CallFailure::QueueFull { waiting: limit });
        }
        let _waiting = Waiting(&self.waiting);
        tokio::select! {
            biased;
            () = self.container.ended.cancelled() => Err(self.end_of_call()),
            permit = timeout_at(deadline, self.permits.clone().acquire_owned()) => match permit {
                Ok(Ok(permit)) => Ok(permit),
                Ok(Err(_closed)) => Err(CallFailure::Stopped),
                Err(_elapsed) => Err(CallFailure::TimedOut),
            },
        }
    }

    /// What a call hears whose container has ended.
    fn end_of_call(&self) -> CallFailure {
        match self.container.ending() {
            Some(Ending::OutOfMemory { limit_bytes }) => CallFailure::OutOfMemory { limit_bytes },
            _ => CallFailure::Killed,
        }
    }

    /// What a call hears whose guest failed.
    fn call_failure(&self, error: &wasmtime::Error) -> CallFailure {
        if self.container.end_if_out_of_memory() {
            return CallFailure::OutOfMemory { limit_bytes: self.container.memory.limit_bytes() };
        }
        if let Some(code) = error.downcast_ref::<wasmtime_wasi_http::p2::bindings::http::types::ErrorCode>() {
            return CallFailure::GuestError { code: format!("{code:?}") };
        }
        if let Some(code) = error.downcast_ref::<wasmtime_wasi_http::p3::bindings::http::types::ErrorCode>() {
            return CallFailure::GuestError { code: format!("{code:?}") };
        }
        let failure = Failure::of(error);
        self.log_trap(&failure);
        failure.of_call(&self.container)
    }

    /// A trap goes to the container's own log as well: that is where its author looks.
    fn log_trap(&self, failure: &Failure) {
        let Failure::Trap { message, backtrace } = failure else { return };
        let mut text = format!("trap: {message}\n");
        for frame in backtrace {
            text.push_str("    ");
            text.push_str(frame);
            text.push('\n');
        }
        self.container.spec.logs.write(Stream::Stderr, text.as_bytes());
    }
}

/// Counts a request that waits.
struct Waiting<'a>(&'a AtomicU32);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Counts a request that is under way.
struct Flight(Arc<Inner>);

impl Flight {
    /// Counts first, then looks: whoever stops either sees this request or is seen by it.
    fn begin(inner: &Arc<Inner>) -> Result<Self, CallFailure> {
        inner.in_flight.fetch_add(1, Ordering::SeqCst);
        let flight = Self(inner.clone());
        if inner.container.ended.is_cancelled() || inner.stopped.load(Ordering::SeqCst) {
            return Err(CallFailure::Stopped);
        }
        Ok(flight)
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if self.0.in_flight.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}

/// One request and the instance that answers it.
struct Job {
    flight: Flight,
    _permit: OwnedSemaphorePermit,
    deadline: Instant,
    turn: Arc<Turn>,
    fate: oneshot::Sender<CallFailure>,
    broken: Arc<AtomicBool>,
}

impl Job {
    async fn run(self, request: http::Request<Body>, reply: Reply) {
        let Self { flight, _permit, deadline, turn, fate, broken } = self;
        let answer = Answer { reply, broken };
        let inner = &flight.0;
        let request = request.map(|body| body.map_err(body_error).boxed_unsync());
        let failure = tokio::select! {
            biased;
            () = inner.container.ended.cancelled() => inner.end_of_call(),
            result = timeout_at(deadline, serve(inner, turn, request, answer)) => match result {
                Err(_elapsed) => CallFailure::TimedOut,
                Ok(Err(error)) => inner.call_failure(&error),
                Ok(Ok(())) if inner.container.end_if_out_of_memory() => inner.end_of_call(),
                Ok(Ok(())) => CallFailure::NoResponse { exit: None },
            },
        };
        // Nobody listens when there was a response.
        let _ = fate.send(failure);
    }
}

/// Where a guest's answer goes.
struct Answer {
    reply: Reply,
    broken: Arc<AtomicBool>,
}

/// Marks the answer as broken when the guest does not come to its end. Dropped before the guest's store, and with it
/// before the body that the guest writes: whoever sees that end finds the mark.
struct Unfinished {
    broken: Arc<AtomicBool>,
    finished: bool,
}

impl Unfinished {
    fn finish(mut self) {
        self.finished = true;
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.finished {
            self.broken.store(true, Ordering::SeqCst);
        }
    }
}

/// A response's body. One whose guest trapped, was killed or took too long ends with an error: it must not look whole.
struct GuestBody {
    body: WasiBody,
    broken: Arc<AtomicBool>,
}

impl http_body::Body for GuestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, BoxError>>> {
        match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => Poll::Ready(Some(Ok(frame))),
            Some(Err(error)) => Poll::Ready(Some(Err(Box::new(error)))),
            // Told once: the next poll ends the body.
            None if self.broken.swap(false, Ordering::SeqCst) => {
                Poll::Ready(Some(Err("the guest ended in the middle of its answer".into())))
            }
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream() && !self.broken.load(Ordering::SeqCst)
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

async fn serve(inner: &Arc<Inner>, turn: Arc<Turn>, request: Request, answer: Answer) -> wasmtime::Result<()> {
    match &inner.image.code {
        Code::HttpHandler(pre) => serve_p2(inner, turn, pre, request, answer).await,
        Code::HttpService(pre) => serve_p3(inner, turn, pre, request, answer).await,
        _ => wasmtime::bail!("invariant: a command is not started as an HTTP container"),
    }
}

async fn serve_p2(
    inner: &Inner,
    turn: Arc<Turn>,
    pre: &ProxyPre<Guest>,
    request: Request,
    answer: Answer,
) -> wasmtime::Result<()> {
    let Answer { reply, broken } = answer;
    let mut store = host::store(&inner.container, turn);
    // After the store, so that it is dropped before it.
    let unfinished = Unfinished { broken, finished: false };
    let guest = pre.instantiate_async(&mut store).await?;
    let scheme = match request.uri().scheme_str() {
        Some("https") => Scheme::Https,
        _ => Scheme::Http,
    };
    let request = store.data_mut().http().new_incoming_request(scheme, request)?;
    let outparam = store.data_mut().http().new_response_outparam_from_callback(|response| {
        // Nobody listens when the caller is gone.
        let _ = reply.send(response.map_err(wasmtime::Error::new));
    })?;
    guest.wasi_http_incoming_handler().call_handle(&mut store, request, outparam).await?;
    unfinished.finish();
    Ok(())
}

async fn serve_p3(
    inner: &Inner,
    turn: Arc<Turn>,
    pre: &ServicePre<Guest>,
    request: Request,
    answer: Answer,
) -> wasmtime::Result<()> {
    let Answer { reply, broken } = answer;
    let mut store = host::store(&inner.container, turn);
    // After the store, so that it is dropped before it.
    let unfinished = Unfinished { broken, finished: false };
    let guest = pre.instantiate_async(&mut store).await?;
    let (request, sent) = p3::Request::from_http(store.data_mut().http().hooks, request);
    store
        .run_concurrent(async |accessor| {
            let answer = match guest.handle(accessor, request).await? {
                Ok(response) => accessor.with(|mut store| response.into_http(&mut store, sent)),
                Err(code) => Err(wasmtime::Error::new(code)),
            };
            // Nobody listens when the caller is gone.
            let _ = reply.send(answer);
            // Tasks that the guest has started, such as one that writes the body, go on after it has answered.
            poll_fn(|cx| accessor.poll_no_interesting_tasks(cx)).await;
            wasmtime::error::Ok(())
        })
        .await??;
    unfinished.finish();
    Ok(())
}
