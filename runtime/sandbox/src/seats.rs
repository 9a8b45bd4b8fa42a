//! Which shared instance takes a request: the one with least to do, a new one while cores are idle, none that is full.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::Reuse;

/// The instances of one container that take requests, and what each has taken.
#[derive(Debug)]
pub(crate) struct Seats<J> {
    list: Mutex<List<J>>,
}

#[derive(Debug)]
struct List<J> {
    seats: Vec<Seat<J>>,
    next: u64,
}

#[derive(Debug)]
struct Seat<J> {
    id: u64,
    jobs: mpsc::UnboundedSender<J>,
    /// Under way. The channel holds at most as many.
    load: u32,
    /// So far.
    taken: u32,
    born: Instant,
    /// The guest wants no more for now.
    full: bool,
}

/// A request's place in an instance, given back when dropped.
#[derive(Debug)]
pub(crate) struct Place<J> {
    seats: Arc<Seats<J>>,
    id: u64,
}

impl<J> Default for Seats<J> {
    fn default() -> Self {
        Self { list: Mutex::new(List { seats: Vec::new(), next: 0 }) }
    }
}

impl<J> Seats<J> {
    /// Gives a job to an instance that has room, `spread` instances being made before any takes a second one.
    ///
    /// # Errors
    /// The job, when there should be a new instance.
    pub(crate) fn offer(
        self: &Arc<Self>,
        reuse: &Reuse,
        spread: usize,
        now: Instant,
        job: impl FnOnce(Place<J>) -> J,
    ) -> Option<impl FnOnce(Place<J>) -> J> {
        let mut list = self.list.lock();
        let count = list.seats.len();
        let free = list.seats.iter_mut().filter(|seat| seat.takes(reuse, now));
        let Some(seat) = free.min_by_key(|seat| seat.load) else { return Some(job) };
        if seat.load > 0 && count < spread {
            return Some(job);
        }
        let id = seat.id;
        seat.load += 1;
        seat.taken += 1;
        // Its receiver lives until it is closed, which is under this lock.
        let _ = seat.jobs.send(job(Place { seats: self.clone(), id }));
        // What takes no more has no sender: the instance sees the end of its jobs.
        list.seats.retain(|seat| seat.taken < reuse.requests_max && now.duration_since(seat.born) <= reuse.age_max);
        None
    }

    /// A new instance, with its first job.
    pub(crate) fn open(
        self: &Arc<Self>,
        reuse: &Reuse,
        now: Instant,
        job: impl FnOnce(Place<J>) -> J,
    ) -> (u64, mpsc::UnboundedReceiver<J>) {
        let (jobs, receiver) = mpsc::unbounded_channel();
        let mut list = self.list.lock();
        let id = list.next;
        list.next += 1;
        let _ = jobs.send(job(Place { seats: self.clone(), id }));
        if reuse.requests_max > 1 {
            list.seats.push(Seat { id, jobs, load: 1, taken: 1, born: now, full: false });
        }
        (id, receiver)
    }

    /// Whether a guest wants no more for now.
    pub(crate) fn set_full(&self, id: u64, full: bool) {
        if let Some(seat) = self.list.lock().seats.iter_mut().find(|seat| seat.id == id) {
            seat.full = full;
        }
    }

    /// Takes an instance off the list: it gets no more jobs than it has been sent.
    pub(crate) fn close(&self, id: u64) {
        self.list.lock().seats.retain(|seat| seat.id != id);
    }

    /// Takes an idle instance off the list when more than `idle_max` are idle.
    pub(crate) fn close_if_too_many(&self, id: u64, idle_max: u32) {
        let mut list = self.list.lock();
        let idle = list.seats.iter().filter(|seat| seat.load == 0).count();
        if idle > usize::try_from(idle_max).unwrap_or(usize::MAX) {
            list.seats.retain(|seat| seat.id != id);
        }
    }

    /// Takes all off the list.
    pub(crate) fn clear(&self) {
        self.list.lock().seats.clear();
    }
}

impl<J> Seat<J> {
    fn takes(&self, reuse: &Reuse, now: Instant) -> bool {
        let age: Duration = now.duration_since(self.born);
        !self.full
            && self.load < reuse.concurrency_max.max(1)
            && self.taken < reuse.requests_max
            && age <= reuse.age_max
    }
}

impl<J> Drop for Place<J> {
    fn drop(&mut self) {
        let mut list = self.seats.list.lock();
        if let Some(seat) = list.seats.iter_mut().find(|seat| seat.id == self.id) {
            seat.load -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Job(Place<Job>);

    const REUSE: Reuse = Reuse { requests_max: 4, concurrency_max: 2, ..Reuse::shared() };

    fn offer(seats: &Arc<Seats<Job>>, now: Instant) -> bool {
        seats.offer(&REUSE, 1, now, Job).is_none()
    }

    #[test]
    fn an_instance_takes_as_many_as_it_may() {
        let seats = Arc::new(Seats::default());
        let now = Instant::now();
        assert!(!offer(&seats, now), "there is none");
        let (id, mut jobs) = seats.open(&REUSE, now, Job);
        assert!(offer(&seats, now));
        assert!(!offer(&seats, now), "two at once");
        let first = jobs.try_recv().unwrap();
        drop(first.0);
        seats.set_full(id, true);
        assert!(!offer(&seats, now), "it wants no more");
        seats.set_full(id, false);
        assert!(!offer(&seats, now + REUSE.age_max + Duration::from_secs(1)), "too old");
        assert!(offer(&seats, now), "the third");
        drop((jobs.try_recv().unwrap().0, jobs.try_recv().unwrap().0));
        assert!(offer(&seats, now), "the fourth");
        assert!(!offer(&seats, now), "the last was the last");
        drop(jobs.try_recv().unwrap().0);
        assert!(matches!(jobs.try_recv(), Err(mpsc::error::TryRecvError::Disconnected)));
    }

    #[test]
    fn cores_are_used_before_instances_are_shared() {
        let seats: Arc<Seats<Job>> = Arc::default();
        let now = Instant::now();
        let offer = |seats: &Arc<Seats<Job>>| seats.offer(&REUSE, 2, now, Job).is_none();
        let (_, mut first) = seats.open(&REUSE, now, Job);
        assert!(!offer(&seats));
        let (second, _jobs) = seats.open(&REUSE, now, Job);
        assert!(offer(&seats));
        drop((first.try_recv().unwrap().0, first.try_recv()));
        assert!(offer(&seats), "the idle one first");
        assert!(first.try_recv().is_ok());
        seats.close_if_too_many(second, 0);
        assert!(offer(&seats));
        seats.clear();
        assert!(!offer(&seats));
    }
}
