//! A priority level at work: its seats and queues behind one short lock, and those who wait.
//!
//! Invariants: the lock is never held over an await; whoever stops waiting, in time or not, gives back what it has.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{sync::oneshot, time::Instant};

use super::{
    queues::{Arrival, Place, Queues, Refusal, Shape, Ticket},
    retry::Retry,
    shares::Demand,
};

type Caller = oneshot::Sender<Ticket>;

/// One level, for as long as it has an object or somebody is in it.
pub(super) struct Level {
    pub(super) name: String,
    since: Instant,
    queues: Mutex<Queues<Caller>>,
    retry: Mutex<Retry>,
}

impl Level {
    pub(super) fn new(name: String, shape: Shape, seats: usize) -> Self {
        let queues = Mutex::new(Queues::new(shape, seats, Duration::ZERO));
        Self { name, since: Instant::now(), queues, retry: Mutex::default() }
    }

    fn now(&self) -> Duration {
        self.since.elapsed()
    }

    pub(super) fn reshape(&self, shape: Shape, seats: usize) {
        let mut queues = self.queues.lock();
        let now = self.now();
        queues.reshape(shape, seats, now);
        dispatch(&mut queues, now);
    }

    pub(super) fn set_seats(&self, seats: usize) {
        let mut queues = self.queues.lock();
        let now = self.now();
        queues.set_limit(seats, now);
        dispatch(&mut queues, now);
    }

    pub(super) fn seats(&self) -> usize {
        self.queues.lock().limit()
    }

    pub(super) fn take_demand(&self) -> Demand {
        let mut queues = self.queues.lock();
        queues.take_demand(self.now())
    }

    /// After how many seconds somebody who was just refused should come again.
    pub(super) fn retry_after(&self) -> i32 {
        self.retry.lock().refused(self.now().as_secs())
    }

    /// A seat, or a place to wait for one.
    pub(super) fn arrive(self: &Arc<Self>, flow: u64) -> Result<Entered, Refusal> {
        let mut receiver = None;
        let mut queues = self.queues.lock();
        let now = self.now();
        let arrival = queues.arrive(now, flow, || {
            let (sender, waits) = oneshot::channel();
            receiver = Some(waits);
            sender
        });
        dispatch(&mut queues, now);
        drop(queues);
        match (arrival, receiver) {
            (Arrival::Begun(ticket), _) => Ok(Entered::Seated(ticket)),
            (Arrival::Waits(place), Some(receiver)) => {
                Ok(Entered::Waits(Waiter { level: self.clone(), place, receiver }))
            }
            (Arrival::Refused(why), _) => Err(why),
            (Arrival::Waits(_), None) => Err(Refusal::QueueFull),
        }
    }

    /// Gives a seat back.
    pub(super) fn finish(&self, ticket: Ticket) {
        let mut queues = self.queues.lock();
        let now = self.now();
        queues.finish(now, ticket);
        dispatch(&mut queues, now);
    }
}

/// Lets begin whoever may.
fn dispatch(queues: &mut Queues<Caller>, now: Duration) {
    while let Some((caller, ticket)) = queues.next(now) {
        // One who waits leaves the queue before the channel closes; should that ever not be so, nothing is lost.
        if let Err(ticket) = caller.send(ticket) {
            queues.finish(now, ticket);
        }
    }
}

/// How somebody came in.
pub(super) enum Entered {
    Seated(Ticket),
    Waits(Waiter),
}

/// Somebody who waits.
pub(super) struct Waiter {
    level: Arc<Level>,
    place: Place,
    receiver: oneshot::Receiver<Ticket>,
}

impl Waiter {
    /// Waits for a seat.
    ///
    /// # Errors
    /// [`Refusal::TimeOut`] after `limit`.
    pub(super) async fn wait(mut self, limit: Duration) -> Result<Ticket, Refusal> {
        match tokio::time::timeout(limit, &mut self.receiver).await {
            Ok(Ok(ticket)) => Ok(ticket),
            _ => Err(Refusal::TimeOut),
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut queues = self.level.queues.lock();
        let now = self.level.now();
        if queues.leave(now, self.place) {
            return;
        }
        // Called, but too late to hear it.
        if let Ok(ticket) = self.receiver.try_recv() {
            queues.finish(now, ticket);
            dispatch(&mut queues, now);
        }
    }
}
