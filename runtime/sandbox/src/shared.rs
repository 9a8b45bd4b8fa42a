//! An instance of a `wasi:http` 0.3 service that answers several requests at once.
//!
//! A trap ends it and fails the requests that are in it, no others. A request that takes too long, or whose caller has gone,
//! cannot be ended alone: wasm has no way to take back a call. So the caller hears at once, the instance takes no more
//! requests, and ends when the others in it are done. A guest that computes without end cannot even be asked: the
//! watchdog outside ends its instance.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use futures::{FutureExt as _, StreamExt as _, channel::oneshot, future::Future as _, stream::FuturesUnordered};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, sleep, sleep_until},
};
use wasmtime::component::Accessor;
use wasmtime_wasi_http::{
    WasiHttpView as _,
    p3::{
        self,
        bindings::{Service, ServicePre},
    },
};

use crate::{
    CallFailure, Reuse,
    answer::{Answer, BodyEnd, Left, Watch},
    dump,
    host::{self, Guest},
    http::{Inner, Working},
    serve::Job,
    task::Turn,
};

/// How long after a request's deadline the guest's instance has to let it be told.
const WATCHDOG_GRACE: Duration = Duration::from_millis(50);

/// Requests in an instance, for whoever ends it.
struct Inside {
    turn: Arc<Turn>,
    calls: Mutex<Calls>,
    /// There is a deadline earlier than before, or a caller has gone.
    look: Arc<Notify>,
    /// Takes no more requests.
    retired: AtomicBool,
}

#[derive(Default)]
struct Calls {
    next: u64,
    open: BTreeMap<(Instant, u64), Open>,
    /// Until when what goes on after all answers may go on.
    last: Option<Instant>,
}

struct Open {
    fate: oneshot::Sender<CallFailure>,
    broken: Arc<AtomicBool>,
    cut: Option<oneshot::Sender<()>>,
    caller: Arc<Watch>,
}

/// Answers what comes, until nothing more does.
pub(crate) async fn work(
    inner: Arc<Inner>,
    turn: Arc<Turn>,
    pre: ServicePre<Guest>,
    reuse: Reuse,
    (id, jobs): (u64, mpsc::UnboundedReceiver<Job>),
) {
    let _working = Working::begin(&inner);
    let inside = Inside::new(turn.clone());
    let mut jobs = jobs;
    let failure = {
        let mut working = std::pin::pin!(instance(&inner, turn, &pre, &reuse, id, &mut jobs, &inside));
        let failure = tokio::select! {
            biased;
            () = inner.container.ended.cancelled() => Some(inner.end_of_call()),
            () = inside.watchdog() => Some(CallFailure::TimedOut),
            failure = &mut working => failure,
        };
        // Before the instance goes, and with it the bodies that it writes: whoever sees their end finds the mark.
        inside.break_bodies();
        failure
    };
    inner.seats.close(id);
    let failure = if inner.container.end_if_out_of_memory() { Some(inner.end_of_call()) } else { failure };
    inside.fail(failure.as_ref());
    // Those that it never saw.
    jobs.close();
    while let Ok(job) = jobs.try_recv() {
        let fate = match &failure {
            Some(failure) if failure.not_begun() => failure.clone(),
            _ => CallFailure::NoInstance { reason: "the instance ended before it saw the request".to_owned() },
        };
        let _ = job.answer.fate.send(fate);
    }
}

/// Makes the instance and runs it. Answers with why it failed. It is gone when this returns or is dropped.
async fn instance(
    inner: &Arc<Inner>,
    turn: Arc<Turn>,
    pre: &ServicePre<Guest>,
    reuse: &Reuse,
    id: u64,
    jobs: &mut mpsc::UnboundedReceiver<Job>,
    inside: &Inside,
) -> Option<CallFailure> {
    let mut store = host::store(&inner.container, turn);
    let guest = pre.instantiate_async(&mut store).await;
    let guest = match dump::kept(&inner.container, &mut store, guest) {
        Ok(guest) => guest,
        Err(error) => return Some(inner.call_failure(&error)),
    };
    let ran = store.run_concurrent(async |accessor| {
        serve(&Served { accessor, guest: &guest, inner, inside, reuse, id }, jobs).await
    });
    let error = ran.await.flatten().err()?;
    let error = dump::keep(&inner.container, error, &mut store);
    Some(inner.call_failure(&error))
}

/// A running instance.
struct Served<'a> {
    accessor: &'a Accessor<Guest>,
    guest: &'a Service,
    inner: &'a Arc<Inner>,
    inside: &'a Inside,
    reuse: &'a Reuse,
    id: u64,
}

async fn serve(this: &Served<'_>, jobs: &mut mpsc::UnboundedReceiver<Job>) -> wasmtime::Result<()> {
    let function = *this.guest.wasi_http_handler().func_handle().func();
    let mut calls = FuturesUnordered::new();
    let mut idle = std::pin::pin!(sleep(this.reuse.idle));
    let (mut open, mut waits, mut full, mut breath) = (true, false, false, false);
    poll_fn(|cx| {
        loop {
            match calls.poll_next_unpin(cx) {
                Poll::Ready(Some(Ok(()))) => continue,
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                Poll::Ready(None) | Poll::Pending => {}
            }
            if this.inside.retired.load(Ordering::SeqCst) {
                this.inner.seats.close(this.id);
            }
            // The guest's own backpressure: others are asked while it has enough.
            let ready = this.accessor.poll_ready_for_concurrent_call(function, cx).is_ready();
            if ready == full {
                full = !ready;
                this.inner.seats.set_full(this.id, full);
            }
            while full && let Ok(job) = jobs.try_recv() {
                this.inner.begin(Job { place: None, ..job });
            }
            if std::mem::take(&mut breath) {
                return Poll::Pending;
            }
            if ready && open {
                match jobs.poll_recv(cx) {
                    Poll::Ready(Some(job)) => {
                        waits = false;
                        calls.push(this.call(job));
                        // One at a time: the guest begins before it is asked whether it takes another.
                        breath = true;
                        cx.waker().wake_by_ref();
                        continue;
                    }
                    Poll::Ready(None) => open = false,
                    Poll::Pending => {}
                }
            }
            if !calls.is_empty() {
                return Poll::Pending;
            }
            // Everybody has an answer. One that had to be given up is not waited for; what else the guest does is.
            if this.inside.retired.load(Ordering::SeqCst) {
                return Poll::Ready(Ok(()));
            }
            if this.accessor.poll_no_interesting_tasks(cx).is_pending() {
                return Poll::Pending;
            }
            if !open {
                return Poll::Ready(Ok(()));
            }
            if !waits {
                waits = true;
                this.inside.rests();
                idle.as_mut().reset(Instant::now() + this.reuse.idle);
                this.inner.seats.close_if_too_many(this.id, this.reuse.idle_instances_max);
                // Perhaps there are no more jobs now.
                continue;
            }
            if idle.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            // Takes it off the list; what was sent before comes still.
            this.inner.seats.close(this.id);
        }
    })
    .await
}

impl Served<'_> {
    /// Answers one request, and holds its place until the caller has left.
    async fn call(&self, job: Job) -> wasmtime::Result<()> {
        let Job { request, answer: Answer { reply, fate, mut body }, deadline, permit, flight, place } = job;
        let caller = body.watch(&self.inside.look);
        let open = Open { fate, broken: body.broken(), cut: body.take_cut(), caller };
        let key = self.inside.enter(deadline, open);
        let answering = async {
            let (request, sent) = self.accessor.with(|mut store| {
                let (request, sent) = p3::Request::from_http(store.data_mut().http().hooks, request);
                (request, sent.boxed())
            });
            let answer = match self.guest.handle(self.accessor, request).await? {
                Ok(response) => self.accessor.with(|mut store| response.into_http(&mut store, sent)),
                Err(code) => Err(wasmtime::Error::new(code)),
            };
            wasmtime::error::Ok(answer)
        };
        let given_up = tokio::select! {
            biased;
            answer = answering => {
                let answer = answer?;
                let streams = answer.is_ok();
                // Nobody listens when the caller is gone.
                let _ = reply.send(answer);
                if streams { streamed(&mut body, deadline).await } else { None }
            }
            _ = body.left() => Some(CallFailure::Killed),
            () = sleep_until(deadline) => Some(CallFailure::TimedOut),
        };
        self.inside.leave(key, given_up);
        // The right to run another, and the counts, are given back when nobody waits for anything of this one.
        drop((permit, flight, place));
        Ok(())
    }
}

/// Waits until the caller has the body; answers with why not.
async fn streamed(body: &mut BodyEnd, deadline: Instant) -> Option<CallFailure> {
    tokio::select! {
        biased;
        left = body.left() => (left == Left::Gone).then_some(CallFailure::Killed),
        () = sleep_until(deadline) => Some(CallFailure::TimedOut),
    }
}

impl Inside {
    fn new(turn: Arc<Turn>) -> Self {
        Self { turn, calls: Mutex::default(), look: Arc::default(), retired: AtomicBool::new(false) }
    }

    fn enter(&self, deadline: Instant, open: Open) -> (Instant, u64) {
        let mut calls = self.calls.lock();
        let key = (deadline, calls.next);
        calls.next += 1;
        calls.last = calls.last.max(Some(deadline));
        let earliest = calls.open.first_key_value().is_none_or(|((first, _), _)| deadline < *first);
        calls.open.insert(key, open);
        if earliest {
            // The watchdog, which is asked before the guest, ends it then.
            self.turn.poll_at(Some((deadline + WATCHDOG_GRACE).into_std()));
            self.look.notify_one();
        }
        key
    }

    /// A request is over; one that was given up is told so, and the instance takes no more.
    fn leave(&self, key: (Instant, u64), given_up: Option<CallFailure>) {
        self.turn.rested();
        let open = {
            let mut calls = self.calls.lock();
            let open = calls.open.remove(&key);
            self.turn.poll_at(calls.next_deadline().map(|(deadline, _)| (deadline + WATCHDOG_GRACE).into_std()));
            open
        };
        let Some(failure) = given_up else { return };
        self.retired.store(true, Ordering::SeqCst);
        self.look.notify_one();
        if let Some(open) = open {
            open.fail(failure);
        }
    }

    /// Nothing goes on in the guest.
    fn rests(&self) {
        self.calls.lock().last = None;
    }

    /// Ends requests whose time is over though the guest computes and cannot be asked. Resolves when the instance works
    /// for nobody any more.
    async fn watchdog(&self) {
        loop {
            if self.is_useless() {
                sleep(WATCHDOG_GRACE).await;
                if self.is_useless() {
                    return;
                }
                continue;
            }
            let next = self.calls.lock().next_deadline();
            let Some((deadline, key)) = next else {
                self.look.notified().await;
                continue;
            };
            let due = deadline + WATCHDOG_GRACE;
            if due <= Instant::now() {
                let Some(key) = key else { return };
                self.leave(key, Some(CallFailure::TimedOut));
                continue;
            }
            tokio::select! {
                () = sleep_until(due) => {}
                () = self.look.notified() => {}
            }
        }
    }

    /// Whether everybody who waited for it has gone or was told to wait no longer.
    fn is_useless(&self) -> bool {
        let calls = self.calls.lock();
        let any = !calls.open.is_empty() || self.retired.load(Ordering::SeqCst);
        any && calls.open.values().all(|open| open.caller.is_gone())
    }

    fn break_bodies(&self) {
        for open in self.calls.lock().open.values() {
            open.broken.store(true, Ordering::SeqCst);
        }
    }

    /// Tells everybody who is still in it.
    fn fail(&self, failure: Option<&CallFailure>) {
        for open in std::mem::take(&mut self.calls.lock().open).into_values() {
            open.fail(failure.cloned().unwrap_or(CallFailure::NoResponse { exit: None }));
        }
    }
}

impl Calls {
    /// The request whose time is over first; when there is none, until when the guest may go on.
    fn next_deadline(&self) -> Option<(Instant, Option<(Instant, u64)>)> {
        let first = self.open.first_key_value().map(|(key, _)| (key.0, Some(*key)));
        first.or(self.last.map(|last| (last, None)))
    }
}

impl Open {
    /// Nobody listens when the caller is gone.
    fn fail(self, failure: CallFailure) {
        self.broken.store(true, Ordering::SeqCst);
        let _ = self.fate.send(failure);
        if let Some(cut) = self.cut {
            let _ = cut.send(());
        }
    }
}
