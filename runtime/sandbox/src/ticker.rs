//! The clock that makes long computation yield: one thread that moves the engine's epoch on each millisecond.
//!
//! It runs only while guests are being polled. An idle node has no ticks: the thread is parked, and the first poll
//! after that wakes it.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::Thread,
    time::Duration,
};

use wasmtime::Engine;

/// Time between ticks.
pub(crate) const TICK: Duration = Duration::from_millis(1);
/// Ticks without a guest before the thread parks: waking it costs about what five ticks do.
const IDLE_TICKS_MAX: u32 = 20;

/// Handle of the thread. Dropping it ends the thread.
#[derive(Debug)]
pub(crate) struct Ticker {
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    active: AtomicUsize,
    parked: AtomicBool,
    ended: AtomicBool,
    thread: OnceLock<Thread>,
}

/// A guest is being polled while this lives.
#[derive(Debug)]
pub(crate) struct Active<'a>(&'a State);

impl Ticker {
    pub(crate) fn start(engine: Engine) -> std::io::Result<Self> {
        let state = Arc::new(State::default());
        let of_thread = state.clone();
        let thread = std::thread::Builder::new().name("epoch".into()).spawn(move || of_thread.run(&engine))?;
        // Nobody can poll before this function has returned, so the thread is known before it may have to be woken.
        let _ = state.thread.set(thread.thread().clone());
        Ok(Self { state })
    }

    /// To be held while a guest is polled.
    pub(crate) fn active(&self) -> Active<'_> {
        self.state.active.fetch_add(1, Ordering::SeqCst);
        if self.state.parked.load(Ordering::SeqCst) {
            self.state.wake();
        }
        Active(&self.state)
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::SeqCst);
        self.state.wake();
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::SeqCst);
    }
}

impl State {
    fn run(&self, engine: &Engine) {
        let mut idle_ticks = 0;
        while !self.ended.load(Ordering::SeqCst) {
            std::thread::park_timeout(TICK);
            if self.active.load(Ordering::SeqCst) > 0 {
                engine.increment_epoch();
                idle_ticks = 0;
                continue;
            }
            idle_ticks += 1;
            if idle_ticks > IDLE_TICKS_MAX {
                self.park();
                idle_ticks = 0;
            }
        }
    }

    /// Says that it parks before it looks for work again, so that a poll either is seen or wakes it.
    fn park(&self) {
        self.parked.store(true, Ordering::SeqCst);
        while self.active.load(Ordering::SeqCst) == 0
            && self.parked.load(Ordering::SeqCst)
            && !self.ended.load(Ordering::SeqCst)
        {
            std::thread::park();
        }
        self.parked.store(false, Ordering::SeqCst);
    }

    fn wake(&self) {
        self.parked.store(false, Ordering::SeqCst);
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}
