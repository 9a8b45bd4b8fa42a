//! The keyed queue of one controller: what has to be looked at, each key once, never twice at the same time.
//!
//! Invariants: a key that is added while it runs is run again afterwards; a key waits in at most one place for at most
//! one time; failures back off per key and are forgotten by a success. Bounded by the number of distinct keys.
//! It runs nothing itself.
//!
//! # Source
//! client-go `util/workqueue` (`queue.go`, `delaying_queue.go`, `default_rate_limiters.go`).

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::Duration,
};

use parking_lot::Mutex;
use podium_controllers::Key;
use tokio::{sync::Notify, time::Instant};

/// First back-off after a failure; doubled by each further one.
pub(crate) const BACKOFF_MIN: Duration = Duration::from_millis(5);
/// Longest back-off. client-go goes to 1,000 s, which is longer than a user waits.
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(300);

/// How a run of a key ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Done; look again after this long, if at all.
    Done(Option<Duration>),
    /// Try again after the key's back-off.
    Failed,
}

#[derive(Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Default)]
struct State {
    ready: VecDeque<Key>,
    entries: HashMap<Key, Entry>,
    delayed: BTreeMap<(Instant, u64), Key>,
    sequence: u64,
}

#[derive(Default)]
struct Entry {
    queued: bool,
    running: bool,
    again: bool,
    failures: u32,
    due: Option<(Instant, u64)>,
}

impl Entry {
    fn is_idle(&self) -> bool {
        !self.queued && !self.running && self.failures == 0 && self.due.is_none()
    }
}

impl Queue {
    /// Adds a key; a no-op when it already waits.
    pub(crate) fn add(&self, key: Key) {
        self.state.lock().add(key);
        self.wake.notify_one();
    }

    /// The next key that is due. It counts as running until [`Queue::finish`].
    pub(crate) fn pop(&self) -> Option<Key> {
        let mut state = self.state.lock();
        state.promote(Instant::now());
        let key = state.ready.pop_front()?;
        let entry = state.entries.entry(key.clone()).or_default();
        entry.queued = false;
        entry.running = true;
        Some(key)
    }

    /// The run of a key ended. Returns the back-off that it got, if it failed.
    pub(crate) fn finish(&self, key: &Key, outcome: Outcome) -> Option<Duration> {
        let backoff = self.state.lock().finish(key, outcome);
        self.wake.notify_one();
        backoff
    }

    /// When the earliest delayed key is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.state.lock().delayed.keys().next().map(|(at, _)| *at)
    }

    /// Waits until something was added or finished.
    pub(crate) async fn changed(&self) {
        self.wake.notified().await;
    }

    /// Makes [`Queue::changed`] return.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// How many keys are due and wait.
    pub(crate) fn depth(&self) -> usize {
        self.state.lock().ready.len()
    }
}

impl State {
    fn add(&mut self, key: Key) {
        let entry = self.entries.entry(key.clone()).or_default();
        if entry.running {
            entry.again = true;
        } else if !entry.queued {
            entry.queued = true;
            self.ready.push_back(key);
        }
    }

    fn add_at(&mut self, key: &Key, at: Instant) {
        let entry = self.entries.entry(key.clone()).or_default();
        match entry.due {
            Some((due, _)) if due <= at => return,
            Some(later) => drop(self.delayed.remove(&later)),
            None => {}
        }
        self.sequence += 1;
        entry.due = Some((at, self.sequence));
        self.delayed.insert((at, self.sequence), key.clone());
    }

    fn promote(&mut self, now: Instant) {
        while let Some(first) = self.delayed.first_entry().filter(|e| e.key().0 <= now) {
            let key = first.remove();
            if let Some(entry) = self.entries.get_mut(&key) {
                entry.due = None;
            }
            self.add(key);
        }
    }

    fn finish(&mut self, key: &Key, outcome: Outcome) -> Option<Duration> {
        let entry = self.entries.get_mut(key)?;
        entry.running = false;
        let again = std::mem::take(&mut entry.again);
        let delay = match outcome {
            Outcome::Done(delay) => {
                entry.failures = 0;
                delay
            }
            Outcome::Failed => {
                entry.failures = entry.failures.saturating_add(1);
                Some(backoff(entry.failures))
            }
        };
        match (outcome, delay) {
            // News do not shorten a back-off by more than one attempt each: they are looked at right away.
            _ if again => self.add(key.clone()),
            (_, Some(delay)) => self.add_at(key, Instant::now() + delay),
            _ => {}
        }
        if self.entries.get(key).is_some_and(Entry::is_idle) {
            self.entries.remove(key);
        }
        delay.filter(|_| outcome == Outcome::Failed)
    }
}

/// The back-off after so many failures in a row.
pub(crate) fn backoff(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(20);
    BACKOFF_MIN.saturating_mul(1 << doublings).min(BACKOFF_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key { group: "", resource: "pods", object: podium_api::ObjectKey::new("d", name) }
    }

    #[test]
    fn back_off_doubles_from_5_ms_to_5_minutes() {
        let seen: Vec<_> = [1, 2, 3, 10, 17, 100].map(|n| backoff(n).as_millis()).into();
        assert_eq!(seen, [5, 10, 20, 2560, 300_000, 300_000]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_waits_once_and_never_runs_twice_at_a_time() {
        let queue = Queue::default();
        queue.add(key("a"));
        queue.add(key("a"));
        assert_eq!(queue.pop(), Some(key("a")));
        queue.add(key("a"));
        assert_eq!(queue.pop(), None, "it is running");
        queue.finish(&key("a"), Outcome::Done(None));
        assert_eq!(queue.pop(), Some(key("a")), "it changed while running");
        queue.finish(&key("a"), Outcome::Done(None));
        assert_eq!(queue.pop(), None);
        assert!(queue.state.lock().entries.is_empty(), "idle keys are forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_key_comes_back_after_its_back_off() {
        let queue = Queue::default();
        queue.add(key("a"));
        for expected in [5, 10, 20] {
            assert_eq!(queue.pop(), Some(key("a")));
            assert_eq!(queue.finish(&key("a"), Outcome::Failed), Some(Duration::from_millis(expected)));
            tokio::time::advance(Duration::from_millis(expected - 1)).await;
            assert_eq!(queue.pop(), None);
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        assert_eq!(queue.pop(), Some(key("a")));
        queue.finish(&key("a"), Outcome::Done(Some(Duration::from_secs(9))));
        assert_eq!(queue.next_due(), Some(Instant::now() + Duration::from_secs(9)));
        queue.add(key("a"));
        assert_eq!(queue.pop(), Some(key("a")), "a success forgets the failures and news are not delayed");
    }

    #[tokio::test(start_paused = true)]
    async fn the_earlier_of_two_delays_wins() {
        let queue = Queue::default();
        let mut state = queue.state.lock();
        let at = Instant::now() + Duration::from_secs(5);
        state.add_at(&key("a"), at + Duration::from_secs(5));
        state.add_at(&key("a"), at);
        state.add_at(&key("a"), at + Duration::from_secs(1));
        assert_eq!(state.delayed.keys().map(|k| k.0).collect::<Vec<_>>(), [at]);
    }
}
