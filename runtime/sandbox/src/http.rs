//! A container that answers requests. While idle it owns no instance.
//!
//! Here: which requests are taken, how many at once, and what a caller hears. What an instance does with one is in
//! `serve`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

use wasmtime_wasi_http::p3::bindings::ServicePre;

use crate::{
    Body, CallFailure, CpuLimit, Ending, Image, ImageKind, Instances, RequestTimeout, Reuse, Stream, Usage, answer,
    container::Container,
    failure::Failure,
    host::{Guest, body_error},
    image::Code,
    seats::Seats,
    serve::{Job, Spare, work},
    shared,
    task::{self, Turn},
    traffic::{Counted, Way},
};

/// A running container of an HTTP image. Dropping it kills what is under way.
#[derive(Debug)]
pub struct HttpContainer {
    inner: Arc<Inner>,
}

/// What its requests share.
pub(crate) struct Inner {
    pub(crate) container: Arc<Container>,
    pub(crate) image: Arc<Image>,
    /// Instances that wait for another request, the one that answered last on top.
    pub(crate) spare: Mutex<Vec<Spare>>,
    /// Instances that take several requests at once.
    pub(crate) seats: Arc<Seats<Job>>,
    /// How instances are used again, if they are.
    pub(crate) reuse: Option<Reuse>,
    /// Instances that are made before one takes several requests.
    spread: usize,
    permits: Arc<Semaphore>,
    waiting: AtomicU32,
    in_flight: AtomicU32,
    /// Instances that take several requests at once: they may do more than answer.
    working: AtomicU32,
    stopped: AtomicBool,
    idle: Notify,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let in_flight = self.in_flight.load(Ordering::SeqCst);
        f.debug_struct("Inner")
            .field("container", &self.container)
            .field("in_flight", &in_flight)
            .finish_non_exhaustive()
    }
}

impl HttpContainer {
    pub(crate) fn new(container: Arc<Container>, image: Arc<Image>) -> Self {
        let concurrency = concurrency(&container, &image);
        let inner = Inner {
            permits: Arc::new(Semaphore::new(concurrency.clamp(1, Semaphore::MAX_PERMITS))),
            waiting: AtomicU32::new(0),
            in_flight: AtomicU32::new(0),
            working: AtomicU32::new(0),
            stopped: AtomicBool::new(false),
            idle: Notify::new(),
            spare: Mutex::default(),
            seats: Arc::default(),
            reuse: reuse(container.spec.limits.reuse, image.kind()),
            spread: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
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
        let limit = self.inner.container.spec.limits.request_timeout;
        let timeout = request.extensions().get::<RequestTimeout>().map_or(limit, |own| own.0.min(limit));
        let deadline = Instant::now() + timeout;
        let flight = Flight::begin(&self.inner)?;
        let permit = self.inner.permit(deadline).await?;
        let (call, answer) = answer::call(&self.inner.container);
        let head_only = request.method() == http::Method::HEAD;
        let container = &self.inner.container;
        let request = request.map(|body| Counted::new(body, container.clone(), Way::In, body_error).boxed_unsync());
        self.inner.begin(Job { request, answer, deadline, permit, flight, place: None });
        let response = call.response(head_only, |error| self.inner.call_failure(error)).await?;
        self.inner.container.answered();
        Ok(response)
    }

    pub(crate) fn container(&self) -> &Arc<Container> {
        &self.inner.container
    }

    /// Changes its bounds while it runs: memory that it has stays with it, however little it may have from now on.
    pub fn resize(&self, memory_bytes_max: u64, cpu: CpuLimit) {
        self.inner.container.resize(memory_bytes_max, cpu);
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

    /// Takes no new requests from now on; those under way go on. Instances that wait for more end.
    pub fn stop(&self) {
        self.inner.stopped.store(true, Ordering::SeqCst);
        self.inner.spare.lock().clear();
        self.inner.seats.clear();
    }

    /// Stops, then waits until nothing is under way, at most for `timeout`. Returns whether nothing is.
    pub async fn drain(&self, timeout: Duration) -> bool {
        self.stop();
        let deadline = Instant::now() + timeout;
        loop {
            let idle = self.inner.idle.notified();
            tokio::pin!(idle);
            idle.as_mut().enable();
            if self.inner.rests() {
                return true;
            }
            if timeout_at(deadline, idle).await.is_err() {
                return self.inner.rests();
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
    /// Hands a request to an instance that waits, or to a new one.
    pub(crate) fn begin(self: &Arc<Self>, job: Job) {
        match (&self.image.code, self.reuse) {
            (Code::HttpService(pre), Some(reuse)) => self.begin_shared(pre.clone(), reuse, job),
            _ => self.begin_alone(job),
        }
    }

    fn begin_shared(self: &Arc<Self>, pre: ServicePre<Guest>, reuse: Reuse, job: Job) {
        let now = std::time::Instant::now();
        let placed = |place| Job { place: Some(place), ..job };
        let Some(placed) = self.seats.offer(&reuse, self.spread, now, placed) else { return };
        let seat = self.seats.open(&reuse, now, placed);
        let turn = Arc::new(Turn::default());
        let guest = Box::pin(shared::work(self.clone(), turn.clone(), pre, reuse, seat));
        task::spawn(&Handle::current(), self.container.clone(), turn, guest);
    }

    fn begin_alone(self: &Arc<Self>, mut job: Job) {
        loop {
            let spare = self.spare.lock().pop();
            let Some(spare) = spare else { break };
            // Throttled or not, it looks at the job's deadline.
            spare.turn.poll_at(Some(job.deadline.into_std()));
            match spare.jobs.send(job) {
                Ok(()) => return,
                // That one has gone in the meantime.
                Err(back) => job = back,
            }
        }
        let turn = Arc::new(Turn::default());
        turn.poll_at(Some(job.deadline.into_std()));
        let guest = Box::pin(work(self.clone(), turn.clone(), job));
        task::spawn(&Handle::current(), self.container.clone(), turn, guest);
    }

    fn rests(&self) -> bool {
        self.in_flight.load(Ordering::SeqCst) == 0 && self.working.load(Ordering::SeqCst) == 0
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

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
    pub(crate) fn end_of_call(&self) -> CallFailure {
        match self.container.ending() {
            Some(Ending::OutOfMemory { limit_bytes }) => CallFailure::OutOfMemory { limit_bytes },
            _ => CallFailure::Killed,
        }
    }

    /// What a call hears whose guest failed.
    pub(crate) fn call_failure(&self, error: &wasmtime::Error) -> CallFailure {
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
        self.container.write(Stream::Stderr, text.as_bytes());
        if let Some(observer) = &self.container.spec.observer {
            observer.trapped(message, backtrace);
        }
    }
}

fn reuse(instances: Instances, kind: ImageKind) -> Option<Reuse> {
    match instances {
        Instances::Reused(reuse) => Some(reuse),
        Instances::ByKind if kind == ImageKind::HttpService => Some(Reuse::shared()),
        Instances::ByKind | Instances::PerRequest => None,
    }
}

/// Requests at once: no more than there is memory for, so that a heavy guest under load has its callers wait rather than
/// its container end as out of memory. What instances begin with is reckoned to be two thirds of what they need.
fn concurrency(container: &Container, image: &Image) -> usize {
    let limits = &container.spec.limits;
    let wanted = usize::try_from(limits.concurrency_max).unwrap_or(Semaphore::MAX_PERMITS);
    let instances = limits.memory_bytes_max / (image.initial_memory_bytes() / 2 * 3).max(1);
    let each = match reuse(limits.reuse, image.kind()) {
        Some(reuse) if image.kind() == ImageKind::HttpService => u64::from(reuse.concurrency_max.max(1)),
        _ => 1,
    };
    wanted.min(usize::try_from(instances.max(1).saturating_mul(each)).unwrap_or(usize::MAX))
}

/// Counts a request that waits.
struct Waiting<'a>(&'a AtomicU32);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Counts a request that is under way.
pub(crate) struct Flight(Arc<Inner>);

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

/// Counts an instance that takes several requests at once.
pub(crate) struct Working(Arc<Inner>);

impl Working {
    pub(crate) fn begin(inner: &Arc<Inner>) -> Self {
        inner.working.fetch_add(1, Ordering::SeqCst);
        Self(inner.clone())
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.0.working.fetch_sub(1, Ordering::SeqCst);
        self.0.idle.notify_waiters();
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if self.0.in_flight.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}
