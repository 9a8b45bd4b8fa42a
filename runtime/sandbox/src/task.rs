//! Runs a guest's future: metered on every poll, throttled by its quota, moved out of the way when it computes long.
//!
//! Two lanes. Guests start on the embedder's runtime, where they yield after each slice. One that has used several
//! slices without waiting for anything moves to the background lane: threads of lower priority, so that the kernel
//! lets short requests pass within microseconds; they take turns there (see `turns`). When it waits again after little
//! work it moves back.
//!
//! Waiting is what lasts a millisecond. One that goes to sleep and is awake again at once has used its slices none the
//! less: it would keep the embedder's threads as busy as one that never waits.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    time::{Sleep, sleep_until},
};
use wasmtime::{Store, StoreContextMut, UpdateDeadline};

use crate::{
    container::Container,
    cpu::CpuAccount,
    memory::OutOfMemory,
    meter::{self, Meter},
    turns,
};

/// Slices on the embedder's runtime before a guest moves to the background.
const FOREGROUND_SLICES: u64 = 4;

/// A guest that has waited for this long is as good as new.
const REST: Duration = Duration::from_millis(1);

/// A guest that has computed for this long since it rested is measured by the CPU clock.
const EXACT_NS: u64 = 500_000;

/// A guest's future, whatever it does; it reports by channels of its own.
pub(crate) type GuestFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What a guest has used since it last waited or yielded. Touched only by the thread that polls it, and by the epoch
/// callback within that poll.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    meter: Meter,
    /// Since it last waited or yielded.
    run_ns: AtomicU64,
    /// Since it last waited.
    burst_ns: AtomicU64,
    slice_ns: AtomicU64,
    yielded: AtomicBool,
    /// When the guest is to be polled though its quota is used up.
    deadline: Mutex<Option<Instant>>,
}

impl Turn {
    /// Sets when the guest's future wants to be polled, throttled or not: the deadline of the request that it answers
    /// (the earliest, of several). The future must end that request then, before it polls its guest.
    pub(crate) fn poll_at(&self, deadline: Option<Instant>) {
        *self.deadline.lock() = deadline;
    }

    /// Begins anew: what was computed so far was for somebody else.
    pub(crate) fn rested(&self) {
        self.burst_ns.store(0, Relaxed);
    }

    /// Whether the deadline has passed. Says so once.
    fn take_due(&self, now: Instant) -> bool {
        self.deadline.lock().take_if(|deadline| *deadline <= now).is_some()
    }

    /// Books what the thread has used since the last booking. Returns whether the quota is used up.
    pub(crate) fn book(&self, container: &Container) -> bool {
        let ns = self.meter.used_ns();
        self.run_ns.fetch_add(ns, Relaxed);
        self.burst_ns.fetch_add(ns, Relaxed);
        container.cpu.charge(ns, Instant::now)
    }
}

/// Makes a store's guests yield: at each tick after their slice, and when the quota is used up.
///
/// Ends a guest whose container has asked for too much memory.
pub(crate) fn yield_by_epoch<T: Measured>(store: &mut Store<T>, container: Arc<Container>, turn: Arc<Turn>) {
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(move |mut store| {
        T::measure(&mut store)?;
        container.bill_streams()?;
        if container.is_out_of_memory() {
            return Err(OutOfMemory.into());
        }
        let exhausted = turn.book(&container);
        if exhausted || turn.run_ns.load(Relaxed) >= turn.slice_ns.load(Relaxed) {
            turn.yielded.store(true, Relaxed);
            return Ok(UpdateDeadline::Yield(1));
        }
        Ok(UpdateDeadline::Continue(1))
    });
}

/// State of a store that knows what the host keeps for its guest.
pub(crate) trait Measured: Send + Sized + 'static {
    /// Brings the container's account up to date.
    ///
    /// # Errors
    /// When it is more than the container may have.
    fn measure(store: &mut StoreContextMut<'_, Self>) -> Result<(), OutOfMemory>;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lane {
    Foreground,
    Background,
}

/// A guest's future with its meter.
struct Task {
    guest: GuestFuture,
    container: Arc<Container>,
    turn: Arc<Turn>,
    throttle: Option<Throttle>,
    /// In the background: its place in the line.
    place: Option<turns::Turn>,
    paused: Instant,
    lane: Lane,
    foreground: Handle,
}

/// A guest that waits because its quota, or its group's, is used up.
struct Throttle {
    timer: Pin<Box<Sleep>>,
    since: Instant,
    cpu: Arc<CpuAccount>,
    group: Option<Arc<CpuAccount>>,
}

impl Throttle {
    fn new(cpu: &Arc<CpuAccount>, since: Instant, until: Instant) -> Self {
        let group = cpu.exhausted_parent().cloned();
        cpu.paused(since);
        if let Some(group) = &group {
            group.paused(since);
        }
        Self { timer: Box::pin(sleep_until(until.into())), since, cpu: cpu.clone(), group }
    }

    fn no_later_than(&mut self, deadline: Option<Instant>) {
        if let Some(deadline) = deadline.filter(|deadline| *deadline < self.timer.deadline().into_std()) {
            self.timer.as_mut().reset(deadline.into());
        }
    }
}

impl Drop for Throttle {
    fn drop(&mut self) {
        let now = Instant::now();
        self.cpu.resumed(self.since, now);
        if let Some(group) = &self.group {
            group.resumed(self.since, now);
        }
    }
}

enum Leg {
    Done,
    Move,
}

/// Runs a guest on the current runtime until it is done.
pub(crate) fn spawn(foreground: &Handle, container: Arc<Container>, turn: Arc<Turn>, guest: GuestFuture) {
    turn.slice_ns.store(nanos(container.node.config.slice), Relaxed);
    let task = Task {
        guest,
        container,
        turn,
        throttle: None,
        place: None,
        paused: Instant::now(),
        lane: Lane::Foreground,
        foreground: foreground.clone(),
    };
    task.run();
}

fn nanos(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Task {
    fn run(mut self) {
        let handle = match self.lane {
            Lane::Foreground => self.foreground.clone(),
            Lane::Background => self.container.node.background(),
        };
        handle.spawn(async move {
            if let Leg::Move = std::future::poll_fn(|cx| self.poll_leg(cx)).await {
                self.run();
            }
        });
    }

    fn poll_leg(&mut self, cx: &mut Context<'_>) -> Poll<Leg> {
        if !self.container.ended.is_cancelled() {
            ready!(self.poll_throttle(cx));
            if self.lane == Lane::Background && !self.turn.take_due(Instant::now()) {
                ready!(self.poll_place(cx));
            }
        }
        match self.poll_metered(cx) {
            Poll::Ready(()) => Poll::Ready(Leg::Done),
            Poll::Pending => self.after_pending(),
        }
    }

    /// Waits for its turn among those that compute long.
    fn poll_place(&mut self, cx: &Context<'_>) -> Poll<()> {
        let begin = || self.container.node.turns.begin(self.container.cpu.share(), cx.waker());
        self.place.get_or_insert_with(begin).poll(cx.waker())
    }

    /// Waits while the quota is used up, or until the guest's deadline. A container that has ended does not wait.
    fn poll_throttle(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let waited = self.throttle.is_some();
            if let Some(throttle) = &mut self.throttle {
                // Another request, with a deadline of its own, may have come meanwhile.
                throttle.no_later_than(*self.turn.deadline.lock());
                ready!(throttle.timer.as_mut().poll(cx));
                self.throttle = None;
            }
            let now = Instant::now();
            let Some(wait) = self.container.cpu.wait(now, waited) else { return Poll::Ready(()) };
            if self.turn.take_due(now) {
                return Poll::Ready(());
            }
            self.place = None;
            self.throttle = Some(Throttle::new(&self.container.cpu, now, now + wait));
        }
    }

    fn poll_metered(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        #[cfg(test)]
        if overhead::UNMETERED.load(Relaxed) {
            return self.guest.as_mut().poll(cx);
        }
        if !self.turn.yielded.swap(false, Relaxed) && self.paused.elapsed() >= REST {
            self.turn.rested();
        }
        let active = self.container.node.ticker.active();
        self.turn.meter.begin(self.turn.burst_ns.load(Relaxed) >= EXACT_NS);
        let measured = meter::Measured::begin();
        let poll = self.guest.as_mut().poll(cx);
        drop((active, measured));
        self.turn.book(&self.container);
        self.paused = Instant::now();
        if let Some(place) = &self.place {
            place.used(self.turn.run_ns.load(Relaxed));
            match self.turn.yielded.load(Relaxed) && poll.is_pending() {
                true => place.again(cx.waker()),
                false => self.place = None,
            }
        }
        poll
    }

    fn after_pending(&mut self) -> Poll<Leg> {
        let run_ns = self.turn.run_ns.swap(0, Relaxed);
        let burst_ns = self.turn.burst_ns.load(Relaxed);
        let slice_ns = self.turn.slice_ns.load(Relaxed);
        self.lane = match self.lane {
            Lane::Foreground if burst_ns >= FOREGROUND_SLICES * slice_ns => Lane::Background,
            Lane::Background if burst_ns < slice_ns && run_ns < slice_ns => Lane::Foreground,
            _ => return Poll::Pending,
        };
        Poll::Ready(Leg::Move)
    }
}

/// What metering costs: CPU time of the same requests with and without it.
#[cfg(test)]
mod overhead {
    use super::*;
    use crate::cpu::thread_cpu_ns;
    use crate::{ContainerSpec, HttpContainer, Instances, Reuse, Sandbox, SandboxConfig};
    use http_body_util::{BodyExt as _, Empty};

    /// Guests are polled as they are.
    pub(super) static UNMETERED: AtomicBool = AtomicBool::new(false);

    const HELLO: &[u8] = include_bytes!("../tests/guests/http-p2.wasm");
    const REQUESTS: u64 = 200;
    const ROUNDS: usize = 60;

    async fn requests(pod: &HttpContainer) -> u64 {
        let before = thread_cpu_ns();
        for _ in 0..REQUESTS {
            let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
            let request = http::Request::builder().uri("http://web/").body(body).unwrap();
            let response = pod.call(request).await.unwrap();
            response.into_body().collect().await.unwrap();
        }
        thread_cpu_ns() - before
    }

    /// One thread does everything, so that its CPU clock tells what was done, whatever else the machine does.
    #[tokio::test]
    async fn metering_costs_next_to_nothing() {
        let config = SandboxConfig { instances_max: 16, ..SandboxConfig::default() };
        let sandbox = Sandbox::new(config).unwrap();
        let image = sandbox.load(HELLO.into()).await.unwrap();
        for reuse in [Instances::PerRequest, Instances::Reused(Reuse::shared())] {
            let mut spec = ContainerSpec::new("hello");
            spec.limits.reuse = reuse;
            spec.limits.cpu.quota_millicores = Some(100_000);
            let pod = sandbox.http(&image, spec).unwrap();
            let mut least = [u64::MAX; 2];
            for round in 0..ROUNDS {
                let unmetered = round % 2 == 1;
                UNMETERED.store(unmetered, Relaxed);
                let took = requests(&pod).await / REQUESTS;
                least[usize::from(unmetered)] = least[usize::from(unmetered)].min(took);
            }
            UNMETERED.store(false, Relaxed);
            let [metered, plain] = least;
            let cost = metered as f64 / plain as f64 - 1.0;
            println!("{metered} ns of CPU a request, {plain} unmetered: {:.2} % ({reuse:?})", cost * 100.0);
            // Builds without optimisation, which tests usually are, take several times as long for it.
            assert!(cost < 0.15, "{metered} ns of CPU a request, {plain} unmetered ({reuse:?})");
        }
    }
}
