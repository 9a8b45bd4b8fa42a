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

/// Runs until this is done; tasks that were started meanwhile run beside it. `None`: it waits for nothing that could come.
/// Within a task, the tasks outside stand still meanwhile.
pub fn block_on<T: 'static>(work: impl Future<Output = T> + 'static) -> Option<T> {
    let outside = (CURRENT.get(), WAITS.take(), NEW.take());
    let result = run(work);
    CURRENT.set(outside.0);
    WAITS.set(outside.1);
    NEW.set(outside.2);
    result
}

fn run<T: 'static>(work: impl Future<Output = T> + 'static) -> Option<T> {
    let result = Rc::new(RefCell::new(None));
    let place = result.clone();
    let main: Task = Box::pin(async move {
        let done = work.await;
        *place.borrow_mut() = Some(done);
    });
    let mut tasks = BTreeMap::from([(0, main)]);
    let mut ready = BTreeSet::from([0]);
    let mut next = 1;
    let mut context = Context::from_waker(Waker::noop());
    while result.borrow().is_none() {
        for id in std::mem::take(&mut ready) {
            CURRENT.set(id);
            let Some(task) = tasks.get_mut(&id) else { continue };
            if task.as_mut().poll(&mut context).is_ready() {
                tasks.remove(&id);
            }
        }
        for task in NEW.take() {
            tasks.insert(next, task);
            ready.insert(next);
            next += 1;
        }
        if ready.is_empty() && result.borrow().is_none() {
            ready = awaited()?;
        }
    }
    // What still runs beside it goes first: it may hold what is being waited for.
    drop(tasks);
    result.take()
}

/// The tasks that can go on, once there are some. `None`: nothing is waited for any more.
fn awaited() -> Option<BTreeSet<usize>> {
    let waits = WAITS.with_borrow(Clone::clone);
    if waits.is_empty() {
        return None;
    }
    let pollables: Vec<&Pollable> = waits.iter().map(|(_, pollable)| &**pollable).collect();
    let found = poll(&pollables);
    Some(found.iter().filter_map(|at| waits.get(*at as usize)).map(|(id, _)| *id).collect())
}
