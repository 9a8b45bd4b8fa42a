//! Whose compile is next. Requesters take turns, so one with a thousand modules delays another by one compile; a lane of
//! its own for small modules, where each has little time, so that they pass large ones.
//!
//! A compile that outstays the small lane starts again in the other one: it has lost a few seconds, others have not.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Files up to this size are compiled in the small lane first.
const SMALL_BYTES: usize = 2 << 20;
/// Bytes of all images that wait.
const WAITING_BYTES_MAX: usize = 1 << 30;

/// Which of the two lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Small files, for a few seconds each.
    Small,
    /// Everything else.
    Large,
}

impl Lane {
    /// Where a file begins.
    pub(crate) fn of(bytes: usize) -> Self {
        if bytes <= SMALL_BYTES { Self::Small } else { Self::Large }
    }
}

/// Who waits, and how many compile.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    waiting_max: usize,
}

#[derive(Debug)]
struct State {
    small: Slots,
    large: Slots,
    waiting: usize,
    waiting_bytes: usize,
}

#[derive(Debug)]
struct Slots {
    free: usize,
    /// In the order of their turns. None is empty.
    requesters: VecDeque<(String, VecDeque<Waiter>)>,
}

#[derive(Debug)]
struct Waiter {
    turn: oneshot::Sender<Turn>,
    bytes: usize,
}

/// The right to compile. Gives the turn to the next when dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    /// `None`: it goes to nobody.
    queue: Option<Arc<Queue>>,
    lane: Lane,
}

/// Too many wait.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl Queue {
    /// `large`: compiles of large images at once; one small one is taken beside them.
    pub(crate) fn new(large: usize, waiting_max: usize) -> Arc<Self> {
        let slots = |free| Slots { free, requesters: VecDeque::new() };
        let state = State { small: slots(1), large: slots(large.max(1)), waiting: 0, waiting_bytes: 0 };
        Arc::new(Self { state: Mutex::new(state), waiting_max })
    }

    /// Waits for a turn.
    pub(crate) async fn turn(self: &Arc<Self>, lane: Lane, requester: &str, bytes: usize) -> Result<Turn, Full> {
        let waiting = {
            let mut state = self.state.lock();
            if state.lane(lane).free > 0 {
                state.lane(lane).free -= 1;
                return Ok(Turn { queue: Some(self.clone()), lane });
            }
            if state.waiting >= self.waiting_max || state.waiting_bytes + bytes > WAITING_BYTES_MAX {
                return Err(Full);
            }
            state.waiting += 1;
            state.waiting_bytes += bytes;
            let (turn, waiting) = oneshot::channel();
            state.lane(lane).push(requester, Waiter { turn, bytes });
            waiting
        };
        // The sender lives in the queue until it is used.
        waiting.await.map_err(|_| Full)
    }

    fn next(self: &Arc<Self>, lane: Lane) {
        loop {
            let waiter = {
                let mut state = self.state.lock();
                let Some(waiter) = state.lane(lane).pop() else {
                    state.lane(lane).free += 1;
                    return;
                };
                state.waiting -= 1;
                state.waiting_bytes -= waiter.bytes;
                waiter
            };
            match waiter.turn.send(Turn { queue: Some(self.clone()), lane }) {
                Ok(()) => return,
                // That one has gone: this loop finds the next, not the drop of what it would have got.
                Err(mut turn) => turn.queue = None,
            }
        }
    }
}

impl State {
    fn lane(&mut self, lane: Lane) -> &mut Slots {
        match lane {
            Lane::Small => &mut self.small,
            Lane::Large => &mut self.large,
        }
    }
}

impl Slots {
    fn push(&mut self, requester: &str, waiter: Waiter) {
        match self.requesters.iter_mut().find(|(name, _)| name == requester) {
            Some((_, waiters)) => waiters.push_back(waiter),
            None => self.requesters.push_back((requester.to_owned(), VecDeque::from([waiter]))),
        }
    }

    fn pop(&mut self) -> Option<Waiter> {
        let (requester, mut waiters) = self.requesters.pop_front()?;
        let waiter = waiters.pop_front()?;
        if !waiters.is_empty() {
            self.requesters.push_back((requester, waiters));
        }
        Some(waiter)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(queue) = &self.queue {
            queue.next(self.lane);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};

    use super::*;

    #[tokio::test]
    async fn requesters_take_turns() {
        let queue = Queue::new(1, 100);
        let first = queue.turn(Lane::Large, "flood", 1).await.unwrap();
        let mut waiting = FuturesUnordered::new();
        for (i, requester) in ["flood", "flood", "flood", "a", "a", "b"].into_iter().enumerate() {
            let queue = queue.clone();
            let mut turn = async move { (i, requester, queue.turn(Lane::Large, requester, 1).await.unwrap()) }.boxed();
            assert!(futures::poll!(&mut turn).is_pending());
            waiting.push(turn);
        }
        drop(first);
        let mut order = Vec::new();
        while let Some((i, requester, turn)) = waiting.next().await {
            order.push((requester, i));
            drop(turn);
        }
        assert_eq!(order, [("flood", 0), ("a", 3), ("b", 5), ("flood", 1), ("a", 4), ("flood", 2)]);
    }

    #[tokio::test]
    async fn small_ones_pass_and_those_who_gave_up_hold_nothing() {
        let queue = Queue::new(1, 2);
        let large = queue.turn(Lane::Large, "x", 1).await.unwrap();
        let small = queue.turn(Lane::Small, "x", 1).await.unwrap();
        let mut gone = queue.turn(Lane::Small, "x", 1).boxed();
        let mut next = queue.turn(Lane::Small, "x", 1).boxed();
        assert!(futures::poll!(&mut gone).is_pending() && futures::poll!(&mut next).is_pending());
        assert_eq!(queue.turn(Lane::Large, "y", 1).await.unwrap_err(), Full);
        drop(gone);
        drop(small);
        drop(next.await.unwrap());
        drop(queue.turn(Lane::Small, "y", 1).now_or_never().expect("free again").unwrap());
        assert_eq!(Lane::of(1000), Lane::Small);
        assert_eq!(Lane::of(100 << 20), Lane::Large);
        drop(large);
        assert!(
            queue.turn(Lane::Large, "y", WAITING_BYTES_MAX * 2).now_or_never().is_some(),
            "alone, size is no bound"
        );
    }
}
