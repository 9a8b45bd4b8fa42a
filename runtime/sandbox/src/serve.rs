//! An instance that answers requests: one, or with [`crate::Reuse`] one after the other. Several at once: see `shared`.
//!
//! It runs in a task of its own: it goes on when the caller has its response's head, until the guest has returned.
//! Whatever goes wrong ends that instance alone, save memory: a container past its limit ends as a whole.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use futures::channel::oneshot;
use tokio::{
    sync::OwnedSemaphorePermit,
    time::{Instant, sleep, sleep_until},
};
use wasmtime::Store;
use wasmtime_wasi_http::{
    WasiBody, WasiHttpView as _,
    p2::bindings::{Proxy, http::types::Scheme},
    p3::{self, bindings::Service},
};

use crate::{
    CallFailure, Reuse,
    answer::{Answer, BodyEnd, Left},
    dump,
    host::{self, Guest},
    http::{Flight, Inner},
    image::Code,
    seats::Place,
    task::Turn,
};

type Request = http::Request<WasiBody>;
type Response = http::Response<WasiBody>;
type Reply = oneshot::Sender<wasmtime::Result<Response>>;

/// One request on its way to an instance.
pub(crate) struct Job {
    pub(crate) request: Request,
    pub(crate) answer: Answer,
    pub(crate) deadline: Instant,
    pub(crate) permit: OwnedSemaphorePermit,
    pub(crate) flight: Flight,
    /// In an instance that takes several at once.
    pub(crate) place: Option<Place<Job>>,
}

/// An instance that waits for another request.
pub(crate) struct Spare {
    pub(crate) jobs: oneshot::Sender<Job>,
    pub(crate) turn: Arc<Turn>,
}

/// Answers a request, and others that come while the instance may be used again.
pub(crate) async fn work(inner: Arc<Inner>, turn: Arc<Turn>, first: Job) {
    let born = std::time::Instant::now();
    let mut instance = None;
    let mut next = Some(first);
    let mut served = 0;
    while let Some(job) = next.take() {
        served += 1;
        let again = inner.reuse.filter(|reuse| served < reuse.requests_max && born.elapsed() < reuse.age_max);
        let whole = serve(&inner, &turn, &mut instance, job, again.is_some()).await;
        if let (Some(reuse), true) = (again, whole) {
            next = next_job(&inner, &turn, reuse).await;
        }
    }
}

/// Waits for another request.
async fn next_job(inner: &Inner, turn: &Arc<Turn>, reuse: Reuse) -> Option<Job> {
    let (sender, mut job) = oneshot::channel();
    {
        let mut spare = inner.spare.lock();
        // Looked at under the lock: whoever stops clears the list after that.
        if inner.is_stopped() || spare.len() >= usize::try_from(reuse.idle_instances_max).unwrap_or(usize::MAX) {
            return None;
        }
        spare.push(Spare { jobs: sender, turn: turn.clone() });
    }
    tokio::select! {
        biased;
        () = inner.container.ended.cancelled() => return None,
        job = &mut job => return job.ok(),
        () = sleep(reuse.idle) => {}
    }
    // One may have been handed over just now.
    job.close();
    let next = job.try_recv().ok().flatten();
    if next.is_none() {
        inner.spare.lock().retain(|spare| !spare.jobs.is_canceled());
    }
    next
}

/// Answers one request. Returns whether the instance is whole.
async fn serve(inner: &Inner, turn: &Arc<Turn>, instance: &mut Option<Instance>, job: Job, keep: bool) -> bool {
    let Job { request, answer: Answer { reply, fate, mut body }, deadline, permit, flight, place: _ } = job;
    let unfinished = Unfinished { broken: body.broken(), finished: false };
    let answering = async {
        let ready = match instance.take() {
            Some(ready) => ready,
            None => Instance::new(inner, turn.clone()).await?,
        };
        instance.insert(ready).answer(request, reply).await
    };
    turn.rested();
    turn.poll_at(Some(deadline.into_std()));
    let failure = tokio::select! {
        // What ends a request comes first: a guest that is throttled does not run once more to hear of it.
        biased;
        () = inner.container.ended.cancelled() => Some(inner.end_of_call()),
        // Whoever asked has gone: nobody needs the answer.
        () = gone(&mut body) => Some(CallFailure::Killed),
        () = sleep_until(deadline) => Some(CallFailure::TimedOut),
        result = answering => match result {
            Err(error) => {
                let error = match instance {
                    Some(instance) => dump::keep(&inner.container, error, instance.store()),
                    None => error,
                };
                Some(inner.call_failure(&error))
            }
            Ok(()) if inner.container.end_if_out_of_memory() => Some(inner.end_of_call()),
            Ok(()) => None,
        },
    };
    turn.poll_at(None);
    let whole = failure.is_none();
    if whole {
        unfinished.finish();
    } else {
        drop(unfinished);
    }
    if !(whole && keep) {
        *instance = None;
    }
    let _ = fate.send(failure.unwrap_or(CallFailure::NoResponse { exit: None }));
    // The right to run another, and the count of what is under way, are given back when nothing of this one is left.
    drop((permit, flight));
    whole
}

/// Waits for a caller that leaves without what it is owed; one that has everything lets the guest go on.
async fn gone(body: &mut BodyEnd) {
    if body.left().await == Left::Satisfied {
        std::future::pending::<()>().await;
    }
}

/// A guest, ready to be called.
enum Instance {
    P2 { store: Store<Guest>, guest: Proxy },
    P3 { store: Store<Guest>, guest: Service },
}

impl Instance {
    async fn new(inner: &Inner, turn: Arc<Turn>) -> wasmtime::Result<Self> {
        let mut store = host::store(&inner.container, turn);
        match &inner.image.code {
            Code::HttpHandler(pre) => {
                let guest = pre.instantiate_async(&mut store).await;
                let guest = dump::kept(&inner.container, &mut store, guest)?;
                Ok(Self::P2 { store, guest })
            }
            Code::HttpService(pre) => {
                let guest = pre.instantiate_async(&mut store).await;
                let guest = dump::kept(&inner.container, &mut store, guest)?;
                Ok(Self::P3 { store, guest })
            }
            _ => wasmtime::bail!("invariant: a command is not started as an HTTP container"),
        }
    }

    fn store(&mut self) -> &mut Store<Guest> {
        match self {
            Self::P2 { store, .. } | Self::P3 { store, .. } => store,
        }
    }

    async fn answer(&mut self, request: Request, reply: Reply) -> wasmtime::Result<()> {
        match self {
            Self::P2 { store, guest } => answer_p2(store, guest, request, reply).await,
            Self::P3 { store, guest } => answer_p3(store, guest, request, reply).await,
        }
    }
}

async fn answer_p2(store: &mut Store<Guest>, guest: &Proxy, request: Request, reply: Reply) -> wasmtime::Result<()> {
    let scheme = match request.uri().scheme_str() {
        Some("https") => Scheme::Https,
        _ => Scheme::Http,
    };
    let request = store.data_mut().http().new_incoming_request(scheme, request)?;
    let outparam = store.data_mut().http().new_response_outparam_from_callback(|response| {
        // Nobody listens when the caller is gone.
        let _ = reply.send(response.map_err(wasmtime::Error::new));
    })?;
    guest.wasi_http_incoming_handler().call_handle(&mut *store, request, outparam).await
}

async fn answer_p3(store: &mut Store<Guest>, guest: &Service, request: Request, reply: Reply) -> wasmtime::Result<()> {
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
        .await?
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
