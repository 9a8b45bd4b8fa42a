//! Tasks that take turns in one thread: each waits for something of the host's, and all waits are one `poll`.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use wasip2::{
    clocks::monotonic_clock::subscribe_duration,
    io::poll::{Pollable, poll},
};

type Task = Pin<Box<dyn Future<Output = ()>>>;

thread_local! {
    static NEW: RefCell<Vec<Task>> = const { RefCell::new(Vec::new()) };
    /// What is waited for, and by which task.
    static WAITS: RefCell<Vec<(usize, Rc<Pollable>)>> = const { RefCell::new(Vec::new()) };
    static CURRENT: Cell<usize> = const { Cell::new(0) };
    static NEXT: Cell<usize> = const { Cell::new(1) };
    /// Those that are not running.
    static TASKS: RefCell<BTreeMap<usize, Task>> = const { RefCell::new(BTreeMap::new()) };
    static READY: RefCell<BTreeSet<usize>> = const { RefCell::new(BTreeSet::new()) };
}

/// Starts a task beside the others.
pub fn spawn(task: impl Future<Output = ()> + 'static) {
    NEW.with_borrow_mut(|new| new.push(Box::pin(task)));
}

/// Waits until the host is ready.
pub struct Wait(Rc<Pollable>);

pub fn wait(pollable: Pollable) -> Wait {
    Wait(Rc::new(pollable))
}

impl Wait {
    /// The host must not be asked for what is gone.
    fn forget(&self) {
        WAITS.with_borrow_mut(|waits| waits.retain(|(_, pollable)| !Rc::ptr_eq(pollable, &self.0)));
    }
}

impl Future for Wait {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        self.forget();
        if self.0.ready() {
            return Poll::Ready(());
        }
        WAITS.with_borrow_mut(|waits| waits.push((CURRENT.get(), self.0.clone())));
        Poll::Pending
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.forget();
    }
}

/// Longer than anything runs.
pub const FOREVER: Duration = Duration::from_secs(1 << 32);

pub async fn sleep(time: Duration) {
    wait(subscribe_duration(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))).await;
}

/// Waits for the first of two.
pub async fn first<T>(a: impl Future<Output = T>, b: impl Future<Output = T>) -> T {
    let (mut a, mut b) = (std::pin::pin!(a), std::pin::pin!(b));
    std::future::poll_fn(|context| match a.as_mut().poll(context) {
        Poll::Pending => b.as_mut().poll(context),
        ready => ready,
    })
    .await
}

/// Waits no longer than so long. `None`: it was not done by then.
pub async fn within<T>(time: Duration, work: impl Future<Output = T>) -> Option<T> {
    let done = async { Some(work.await) };
    let late = async {
        sleep(time).await;
        None
    };
    first(done, late).await
}

/// Runs until this is done; all other tasks run beside it, but those that wait for this call itself. `None`: nothing is
/// waited for that could come.
pub fn block_on<T: 'static>(work: impl Future<Output = T> + 'static) -> Option<T> {
    let outside = CURRENT.get();
    let result = Rc::new(RefCell::new(None));
    let place = result.clone();
    spawn(async move {
        let done = work.await;
        *place.borrow_mut() = Some(done);
    });
    loop {
        turn();
        let more = NEW.with_borrow(|new| !new.is_empty());
        if result.borrow().is_some() || !(more || await_one()) {
            break;
        }
    }
    CURRENT.set(outside);
    result.take()
}

/// Lets those go on that can.
fn turn() {
    for task in NEW.take() {
        let id = NEXT.replace(NEXT.get() + 1);
        TASKS.with_borrow_mut(|tasks| tasks.insert(id, task));
        READY.with_borrow_mut(|ready| ready.insert(id));
    }
    let mut context = Context::from_waker(Waker::noop());
    while let Some(id) = READY.with_borrow_mut(BTreeSet::pop_first) {
        // Taken out meanwhile: it may start a loop of its own.
        let Some(mut task) = TASKS.with_borrow_mut(|tasks| tasks.remove(&id)) else { continue };
        CURRENT.set(id);
        if task.as_mut().poll(&mut context).is_pending() {
            TASKS.with_borrow_mut(|tasks| tasks.insert(id, task));
        }
    }
}

/// Waits until some task can go on. False: none ever will.
fn await_one() -> bool {
    let waits = WAITS.with_borrow(|waits| {
        let mine = TASKS.with_borrow(|tasks| waits.iter().filter(|(id, _)| tasks.contains_key(id)).cloned().collect());
        let mine: Vec<(usize, Rc<Pollable>)> = mine;
        mine
    });
    if waits.is_empty() {
        return false;
    }
    let pollables: Vec<&Pollable> = waits.iter().map(|(_, pollable)| &**pollable).collect();
    let found = poll(&pollables);
    let ids = found.iter().filter_map(|at| waits.get(*at as usize)).map(|(id, _)| *id);
    READY.with_borrow_mut(|ready| ready.extend(ids));
    true
}
