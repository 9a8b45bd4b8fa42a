//! Fair queuing of the requests of one priority level: which may begin, which wait and which goes next. Pure: the time
//! comes from outside, in seats-seconds of a virtual clock that runs as fast as each flow that wants more is served.
//!
//! Invariants: never more begin than there are seats; a queue is no longer than its bound; while requests wait, no seat is
//! empty. Every request takes one seat.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apiserver/pkg/util/flowcontrol/fairqueuing/queueset/queueset.go` and `doc.go` there.

use std::{collections::VecDeque, time::Duration};

use super::{
    shares::Demand,
    shuffle::{self, HAND_MAX},
};

/// How long a request is taken to need before that is known, in seconds.
const SERVICE_SECONDS: f64 = 0.003;

/// How requests of a level wait. No queues: they do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Shape {
    pub(super) queues: usize,
    /// How many queues one flow may use.
    pub(super) hand: usize,
    /// Requests that may wait in one queue.
    pub(super) length_max: usize,
}

/// Why a request is not served, as metrics call it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// No seat is free, and the level does not let wait.
    ConcurrencyLimit,
    /// As many wait as may.
    QueueFull,
    /// It has waited for too long.
    TimeOut,
}

impl Refusal {
    pub(super) const ALL: [Self; 3] = [Self::ConcurrencyLimit, Self::QueueFull, Self::TimeOut];

    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::ConcurrencyLimit => "concurrency-limit",
            Self::QueueFull => "queue-full",
            Self::TimeOut => "time-out",
        }
    }
}

/// A request that has begun; to be given back to [`Queues::finish`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    queue: Option<usize>,
    began: Duration,
}

/// Where a request waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    queue: usize,
    id: u64,
}

/// What became of a request that arrived.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    Begun(Ticket),
    Waits(Place),
    Refused(Refusal),
}

struct Waiting<W> {
    id: u64,
    /// The virtual time of its arrival.
    arrived: f64,
    who: W,
}

struct Queue<W> {
    waiting: VecDeque<Waiting<W>>,
    executing: usize,
    /// The virtual time at which its next request begins.
    next: f64,
}

impl<W> Queue<W> {
    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.executing == 0
    }

    /// Keeps a queue from saving up turns that it had no use for.
    fn bound(&mut self) {
        if let Some(first) = self.waiting.front() {
            self.next = self.next.max(first.arrived);
        }
    }
}

/// The seats and queues of a level. `W`: what is told when a request may begin.
pub(super) struct Queues<W> {
    shape: Shape,
    /// More than the shape says while those too many drain.
    queues: Vec<Queue<W>>,
    limit: usize,
    executing: usize,
    waiting: usize,
    /// Queues with a request.
    active: usize,
    /// The virtual time, and when it was that.
    virtual_now: f64,
    at: Duration,
    /// The queue that was served last.
    last: usize,
    arrivals: usize,
    demand: Demand,
}

impl<W> Queues<W> {
    pub(super) fn new(shape: Shape, limit: usize, now: Duration) -> Self {
        let mut made = Self {
            shape: Shape::default(),
            queues: Vec::new(),
            limit,
            executing: 0,
            waiting: 0,
            active: 0,
            virtual_now: 0.0,
            at: now,
            last: 0,
            arrivals: 0,
            demand: Demand::default(),
        };
        made.reshape(shape, limit, now);
        made
    }

    /// Takes over other settings. Whoever waits keeps the place; call [`Queues::next`] afterwards.
    pub(super) fn reshape(&mut self, shape: Shape, limit: usize, now: Duration) {
        self.sync(now);
        self.shape = shape;
        self.limit = limit;
        while self.queues.len() < shape.queues {
            self.queues.push(Queue { waiting: VecDeque::new(), executing: 0, next: 0.0 });
        }
        self.shrink();
    }

    pub(super) fn set_limit(&mut self, limit: usize, now: Duration) {
        self.sync(now);
        self.limit = limit;
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// What was asked of the level since this was called before.
    pub(super) fn take_demand(&mut self, now: Duration) -> Demand {
        self.sync(now);
        let current = Demand::starting_at(self.wanted());
        std::mem::replace(&mut self.demand, current)
    }

    /// A request of a flow. `who` is called when it has to wait.
    pub(super) fn arrive(&mut self, now: Duration, flow: u64, who: impl FnOnce() -> W) -> Arrival {
        self.sync(now);
        let arrival = self.place(now, flow, who);
        self.demand.note(self.wanted());
        arrival
    }

    fn place(&mut self, now: Duration, flow: u64, who: impl FnOnce() -> W) -> Arrival {
        let free = self.executing < self.limit;
        if self.shape.queues == 0 {
            if !free {
                return Arrival::Refused(Refusal::ConcurrencyLimit);
            }
            self.executing += 1;
            return Arrival::Begun(Ticket { queue: None, began: now });
        }
        let index = self.choose(flow);
        let queue = &mut self.queues[index];
        if !free && queue.waiting.len() >= self.shape.length_max {
            return Arrival::Refused(Refusal::QueueFull);
        }
        if queue.is_idle() {
            self.active += 1;
            queue.next = self.virtual_now;
        }
        if free && self.waiting == 0 {
            queue.next = queue.next.max(self.virtual_now);
            return Arrival::Begun(self.begin(index, now));
        }
        let id = self.arrivals as u64;
        queue.waiting.push_back(Waiting { id, arrived: self.virtual_now, who: who() });
        queue.bound();
        self.waiting += 1;
        Arrival::Waits(Place { queue: index, id })
    }

    /// Of the queues of a flow's hand the one in which the fewest wait.
    fn choose(&mut self, flow: u64) -> usize {
        let mut hand = [0usize; HAND_MAX];
        let mut size = 0;
        shuffle::deal(flow, self.shape.queues, self.shape.hand, |card| {
            hand[size] = card;
            size += 1;
        });
        let offset = self.arrivals;
        self.arrivals = self.arrivals.wrapping_add(1);
        let turned = (0..size).map(|i| hand[(offset.wrapping_add(i)) % size]);
        turned.min_by_key(|index| self.queues[*index].waiting.len()).unwrap_or(0)
    }

    /// The next that may begin, while there is a seat.
    pub(super) fn next(&mut self, now: Duration) -> Option<(W, Ticket)> {
        if self.waiting == 0 || self.executing >= self.limit {
            return None;
        }
        self.sync(now);
        let count = self.queues.len();
        let turns = (1..=count).map(|i| (self.last + i) % count).filter(|i| !self.queues[*i].waiting.is_empty());
        let index = turns.min_by(|a, b| self.queues[*a].next.total_cmp(&self.queues[*b].next))?;
        let first = self.queues[index].waiting.pop_front()?;
        self.last = index;
        self.waiting -= 1;
        let ticket = self.begin(index, now);
        self.queues[index].bound();
        Some((first.who, ticket))
    }

    fn begin(&mut self, index: usize, now: Duration) -> Ticket {
        self.executing += 1;
        let queue = &mut self.queues[index];
        queue.executing += 1;
        queue.next += SERVICE_SECONDS;
        Ticket { queue: Some(index), began: now }
    }

    /// A request has ended: its queue is charged for the time that it took. Call [`Queues::next`] afterwards.
    pub(super) fn finish(&mut self, now: Duration, ticket: Ticket) {
        self.sync(now);
        self.executing = self.executing.saturating_sub(1);
        let Some(queue) = ticket.queue.and_then(|index| self.queues.get_mut(index)) else { return };
        queue.executing = queue.executing.saturating_sub(1);
        queue.next += now.saturating_sub(ticket.began).as_secs_f64() - SERVICE_SECONDS;
        queue.bound();
        if queue.is_idle() {
            self.active -= 1;
            self.shrink();
        }
    }

    /// A request waits no longer; `false` when it has begun, or never waited.
    pub(super) fn leave(&mut self, now: Duration, place: Place) -> bool {
        self.sync(now);
        let Some(queue) = self.queues.get_mut(place.queue) else { return false };
        let Some(at) = queue.waiting.iter().position(|w| w.id == place.id) else { return false };
        queue.waiting.remove(at);
        queue.bound();
        self.waiting -= 1;
        if queue.is_idle() {
            self.active -= 1;
            self.shrink();
        }
        true
    }

    /// Removes queues that are too many, from the end, where nothing refers to them.
    fn shrink(&mut self) {
        while self.queues.len() > self.shape.queues && self.queues.last().is_some_and(Queue::is_idle) {
            self.queues.pop();
        }
    }

    fn wanted(&self) -> usize {
        self.executing + self.waiting
    }

    /// Lets the virtual time go on to now.
    fn sync(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.demand.pass(self.wanted(), passed);
        if self.active == 0 {
            self.virtual_now = 0.0;
            return;
        }
        let speed = self.wanted().min(self.limit) as f64 / self.active as f64;
        self.virtual_now += speed * passed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { queues: 64, hand: 6, length_max: 50 };

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Flows whose hands do not overlap much: any numbers will do.
    fn flow(name: u64) -> u64 {
        name.wrapping_mul(0x9E37_79B9_7F4A_7C15)
    }

    #[test]
    fn without_queues_there_is_no_waiting() {
        let mut level = Queues::<u32>::new(Shape::default(), 2, at(0));
        let Arrival::Begun(first) = level.arrive(at(0), 1, || 1) else { panic!("there is a seat") };
        assert!(matches!(level.arrive(at(0), 1, || 2), Arrival::Begun(_)));
        assert_eq!(level.arrive(at(0), 1, || 3), Arrival::Refused(Refusal::ConcurrencyLimit));
        level.finish(at(1), first);
        assert!(matches!(level.arrive(at(1), 1, || 4), Arrival::Begun(_)));
    }

    #[test]
    fn a_hundred_of_one_flow_wait_and_no_more() {
        let shape = Shape { queues: 2, hand: 2, length_max: 50 };
        let mut level = Queues::new(shape, 1, at(0));
        assert!(matches!(level.arrive(at(0), 7, || 0), Arrival::Begun(_)));
        let mut places = Vec::new();
        for n in 0..100 {
            let Arrival::Waits(place) = level.arrive(at(0), 7, || n) else { panic!("{n} may wait") };
            places.push(place);
        }
        assert_eq!(level.arrive(at(0), 7, || 100), Arrival::Refused(Refusal::QueueFull));
        assert!(level.leave(at(5), places[10]) && !level.leave(at(5), places[10]));
        assert!(matches!(level.arrive(at(5), 7, || 101), Arrival::Waits(_)));
    }

    /// Serves one at a time, each for 10 ms, and says whose requests were served.
    fn serve<W>(level: &mut Queues<W>, mut running: Ticket, count: usize) -> Vec<W> {
        let mut served = Vec::new();
        for i in 1..=count as u64 {
            level.finish(at(10 * i), running);
            let (who, ticket) = level.next(at(10 * i)).expect("somebody waits");
            assert!(level.next(at(10 * i)).is_none(), "there is one seat");
            served.push(who);
            running = ticket;
        }
        served
    }

    #[test]
    fn a_flood_does_not_starve_another_flow() {
        let mut level = Queues::new(SHAPE, 1, at(0));
        let Arrival::Begun(running) = level.arrive(at(0), flow(1), || "elephant") else { panic!("there is a seat") };
        for _ in 0..250 {
            assert!(matches!(level.arrive(at(0), flow(1), || "elephant"), Arrival::Waits(_)));
        }
        for _ in 0..5 {
            assert!(matches!(level.arrive(at(0), flow(2), || "mouse"), Arrival::Waits(_)));
        }
        let served = serve(&mut level, running, 40);
        let mice = served.iter().filter(|who| **who == "mouse").count();
        assert_eq!(mice, 5, "{served:?}");
        assert!(served.iter().take(12).filter(|who| **who == "mouse").count() >= 2, "{served:?}");
    }

    #[test]
    fn a_flow_of_long_requests_gets_its_share_of_time_not_of_turns() {
        let shape = Shape { queues: 2, hand: 1, length_max: 1000 };
        let mut level = Queues::new(shape, 1, at(0));
        let Arrival::Begun(mut running) = level.arrive(at(0), 0, || "long") else { panic!("there is a seat") };
        for _ in 0..200 {
            for (queue, who) in [(0, "long"), (1, "short")] {
                assert!(matches!(level.arrive(at(0), queue, || who), Arrival::Waits(_)));
            }
        }
        let (mut now, mut long, mut short, mut who) = (0, 0u64, 0u64, "long");
        while now < 2000 {
            let took = if who == "long" { 40 } else { 10 };
            *(if who == "long" { &mut long } else { &mut short }) += took;
            now += took;
            level.finish(at(now), running);
            (who, running) = level.next(at(now)).expect("somebody waits");
        }
        assert!(long.abs_diff(short) < 100, "long {long} ms, short {short} ms");
    }

    #[test]
    fn other_settings_lose_nobody() {
        let mut level = Queues::new(SHAPE, 1, at(0));
        let Arrival::Begun(running) = level.arrive(at(0), 3, || 0) else { panic!("there is a seat") };
        for n in 1..=20 {
            assert!(matches!(level.arrive(at(0), flow(n), || n), Arrival::Waits(_)));
        }
        level.reshape(Shape::default(), 3, at(1));
        assert!(matches!(level.arrive(at(1), 3, || 99), Arrival::Begun(_)));
        level.finish(at(2), running);
        let mut served = Vec::new();
        level.set_limit(100, at(2));
        while let Some((who, ticket)) = level.next(at(2)) {
            served.push(who);
            level.finish(at(3), ticket);
        }
        served.sort_unstable();
        assert_eq!(served, (1..=20).collect::<Vec<_>>());
        assert_eq!((level.queues.len(), level.waiting, level.active), (0, 0, 0));
    }

    #[test]
    fn demand_is_measured() {
        let mut level = Queues::new(SHAPE, 1, at(0));
        let Arrival::Begun(running) = level.arrive(at(0), 3, || 0) else { panic!("there is a seat") };
        level.arrive(at(0), 3, || 1);
        level.arrive(at(500), 3, || 2);
        let demand = level.take_demand(at(1000));
        assert_eq!((demand.average(), demand.highest()), (2.5, 3));
        level.finish(at(1000), running);
        assert_eq!(level.take_demand(at(2000)).highest(), 3);
        assert_eq!(level.take_demand(at(3000)).average(), 2.0);
    }
}
