//! [`Queue`]: the pods that wait for a node, in three parts.
//!
//! *Active* pods are tried in order of priority, then of arrival. Pods *backing off* were tried and become active when
//! their time comes; those whose attempt did not fail for an error are tried earlier when there is nothing else to do.
//! *Unschedulable* pods fit nowhere and wait for a change that may help, at most [`UNSCHEDULABLE_SECONDS_MAX`]. A pod is
//! in exactly one part, or popped and thus in none.
//!
//! Time is passed in as the [`Duration`] since any fixed start; it must not go back.
//!
//! # Source
//! Kubernetes `pkg/scheduler/backend/queue/scheduling_queue.go`.

#[cfg(test)]
mod tests;

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use crate::{change::Changes, pod::PodInfo, snapshot::Help};

/// The first back-off when nothing else is configured; each further attempt doubles it.
pub const BACKOFF_INITIAL: Duration = Duration::from_secs(1);
/// The longest back-off when nothing else is configured.
pub const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// After so long an unschedulable pod is tried again even if nothing happened.
pub const UNSCHEDULABLE_SECONDS_MAX: u64 = 300;

/// A pod handed out by [`Queue::pop`]. Hand it back with [`Queue::unschedulable`] or [`Queue::failed`], or drop it when
/// the pod is bound.
#[derive(Debug, Clone)]
pub struct Queued {
    /// The pod.
    pub pod: Arc<PodInfo>,
    /// How often it has been tried, this time included.
    pub attempts: u32,
    /// When it was first seen.
    pub since: Duration,
    arrival: u64,
    /// How many changes there had been when it was popped.
    popped_at: u64,
}

/// How many pods wait, by part, as in Kubernetes' metric `scheduler_pending_pods`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pending {
    /// Ready to be tried.
    pub active: usize,
    /// Tried; their time has not come.
    pub backoff: usize,
    /// Tried; waiting for a change.
    pub unschedulable: usize,
    /// Waiting for scheduling gates to be removed.
    pub gated: usize,
}

/// Where an entry stands in the active part: greater priority first, then earlier arrival.
type Place = (Reverse<i32>, u64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Active,
    Backoff {
        until: Duration,
    },
    /// The same after an error: not tried earlier.
    Failed {
        until: Duration,
    },
    Unschedulable {
        since: Duration,
        unblocked_by: Changes,
    },
    Gated,
}

#[derive(Debug)]
struct Entry {
    pod: Arc<PodInfo>,
    attempts: u32,
    since: Duration,
    arrival: u64,
    part: Part,
    /// End of the back-off that the attempts so far have earned.
    rests_until: Duration,
}

/// The pods that wait. See the module documentation.
#[derive(Debug)]
pub struct Queue {
    entries: HashMap<Arc<str>, Entry>,
    active: BTreeSet<(Place, Arc<str>)>,
    backoff: BTreeSet<(Duration, Arc<str>)>,
    failed: BTreeSet<(Duration, Arc<str>)>,
    unschedulable: BTreeSet<(Duration, Arc<str>)>,
    /// How many unschedulable pods wait for each kind of change.
    waiting: [usize; Changes::COUNT],
    arrivals: u64,
    changes: u64,
    changed_at: [u64; Changes::COUNT],
    backoff_initial: Duration,
    backoff_max: Duration,
}

impl Default for Queue {
    fn default() -> Self {
        Self::with_backoff(BACKOFF_INITIAL, BACKOFF_MAX)
    }
}

impl Queue {
    /// An empty queue.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty queue with back-offs of its own.
    pub fn with_backoff(initial: Duration, max: Duration) -> Self {
        Self {
            entries: HashMap::new(),
            active: BTreeSet::new(),
            backoff: BTreeSet::new(),
            failed: BTreeSet::new(),
            unschedulable: BTreeSet::new(),
            waiting: [0; Changes::COUNT],
            arrivals: 0,
            changes: 0,
            changed_at: [0; Changes::COUNT],
            backoff_initial: initial,
            backoff_max: max.max(initial),
        }
    }

    /// A pod without a node appeared or changed. A change makes a waiting pod active, since it may fit now.
    pub fn add(&mut self, pod: Arc<PodInfo>, now: Duration) {
        let old = self.take(&pod.uid);
        let attempts = old.as_ref().map_or(0, |e| e.attempts);
        let since = old.as_ref().map_or(now, |e| e.since);
        let arrival = old.map_or_else(|| self.next_arrival(), |e| e.arrival);
        let part = if pod.gated { Part::Gated } else { Part::Active };
        self.put(Entry { pod, attempts, since, arrival, part, rests_until: Duration::ZERO });
    }

    /// A pod was bound, deleted or given to another scheduler.
    pub fn remove(&mut self, uid: &str) {
        self.take(uid);
    }

    /// A pod that waits, if it does.
    pub fn get(&self, uid: &str) -> Option<&Arc<PodInfo>> {
        self.entries.get(uid).map(|entry| &entry.pod)
    }

    /// Whether a pod waits in any part.
    pub fn contains(&self, uid: &str) -> bool {
        self.entries.contains_key(uid)
    }

    /// The next pod to try.
    pub fn pop(&mut self, now: Duration) -> Option<Queued> {
        self.advance(now);
        let uid = match self.active.first() {
            Some((_, uid)) => uid.clone(),
            None => self.backoff.first()?.1.clone(),
        };
        let Entry { pod, attempts, since, arrival, .. } = self.take(&uid)?;
        Some(Queued { pod, attempts: attempts + 1, since, arrival, popped_at: self.changes })
    }

    /// Hands back a pod that fits nowhere. It waits for one of `unblocked_by`; if one happened since it was popped, only
    /// for its back-off.
    pub fn unschedulable(&mut self, queued: Queued, unblocked_by: Changes, now: Duration) {
        let missed = unblocked_by.positions().any(|i| self.changed_at[i] > queued.popped_at);
        let rests_until = now + self.backoff_after(queued.attempts);
        let part = if missed {
            Part::Backoff { until: rests_until }
        } else {
            Part::Unschedulable { since: now, unblocked_by }
        };
        self.hand_back(queued, part, rests_until);
    }

    /// Hands back a pod whose binding failed. It is tried again after its back-off.
    pub fn failed(&mut self, queued: Queued, now: Duration) {
        let rests_until = now + self.backoff_after(queued.attempts);
        self.hand_back(queued, Part::Failed { until: rests_until }, rests_until);
    }

    /// Something happened: pods that it may help are tried again, after what is left of their back-off. `helps` looks
    /// closer at a pod that waits for one of the changes; one that needs more waits for that, too, from then on.
    pub fn wake<H: Into<Help>>(&mut self, changes: Changes, now: Duration, helps: impl Fn(&PodInfo, Changes) -> H) {
        if changes.is_empty() {
            return;
        }
        self.changes += 1;
        for position in changes.positions() {
            self.changed_at[position] = self.changes;
        }
        if changes.positions().all(|position| self.waiting[position] == 0) {
            return;
        }
        let help = |uid: &Arc<str>| match self.entries.get(uid) {
            Some(Entry { pod, part: Part::Unschedulable { unblocked_by, .. }, .. })
                if unblocked_by.intersects(changes) =>
            {
                helps(pod, *unblocked_by).into()
            }
            _ => Help::Never,
        };
        let all = self.unschedulable.iter().map(|(_, uid)| (help(uid), uid));
        let helped: Vec<(Help, Arc<str>)> =
            all.filter(|(help, _)| *help != Help::Never).map(|(help, uid)| (help, uid.clone())).collect();
        for (help, uid) in helped {
            match help {
                Help::Now => self.rouse(&uid, now),
                Help::With(more) => self.wait_for(&uid, more),
                Help::Never => {}
            }
        }
    }

    /// A pod waits for something else as well.
    fn wait_for(&mut self, uid: &str, more: Changes) {
        let Some(entry) = self.take(uid) else { return };
        let part = match entry.part {
            Part::Unschedulable { since, unblocked_by } => {
                Part::Unschedulable { since, unblocked_by: unblocked_by | more }
            }
            part => part,
        };
        self.put(Entry { part, ..entry });
    }

    /// A pod that waits for a change is tried again, after what is left of its back-off.
    pub fn activate(&mut self, uid: &str, now: Duration) {
        if self.entries.get(uid).is_some_and(|e| matches!(e.part, Part::Unschedulable { .. })) {
            self.rouse(uid, now);
        }
    }

    /// When [`Queue::pop`] may answer next if nothing is added or woken: `None` when never, a time not after now when at once.
    pub fn next_at(&self) -> Option<Duration> {
        if !self.active.is_empty() || !self.backoff.is_empty() {
            return Some(Duration::ZERO);
        }
        let rested = self.failed.first().map(|(until, _)| *until);
        let stale =
            self.unschedulable.first().map(|(since, _)| *since + Duration::from_secs(UNSCHEDULABLE_SECONDS_MAX));
        rested.into_iter().chain(stale).min()
    }

    /// How many pods wait.
    pub fn pending(&self) -> Pending {
        let (active, unschedulable) = (self.active.len(), self.unschedulable.len());
        let backoff = self.backoff.len() + self.failed.len();
        Pending { active, backoff, unschedulable, gated: self.entries.len() - active - backoff - unschedulable }
    }

    fn next_arrival(&mut self) -> u64 {
        self.arrivals += 1;
        self.arrivals
    }

    /// Moves whose time has come to the active part.
    fn advance(&mut self, now: Duration) {
        while let Some((_, uid)) = self.backoff.first().filter(|(until, _)| *until <= now).cloned() {
            self.move_to(&uid, Part::Active);
        }
        while let Some((_, uid)) = self.failed.first().filter(|(until, _)| *until <= now).cloned() {
            self.move_to(&uid, Part::Active);
        }
        let patience = Duration::from_secs(UNSCHEDULABLE_SECONDS_MAX);
        while let Some((_, uid)) = self.unschedulable.first().filter(|(since, _)| *since + patience <= now).cloned() {
            self.rouse(&uid, now);
        }
    }

    fn rouse(&mut self, uid: &str, now: Duration) {
        let Some(until) = self.entries.get(uid).map(|e| e.rests_until) else { return };
        self.move_to(uid, if until <= now { Part::Active } else { Part::Backoff { until } });
    }

    fn move_to(&mut self, uid: &str, part: Part) {
        if let Some(entry) = self.take(uid) {
            self.put(Entry { part, ..entry });
        }
    }

    /// A newer state of the pod that was added in between wins over the popped one.
    fn hand_back(&mut self, queued: Queued, part: Part, rests_until: Duration) {
        let Queued { pod, attempts, since, arrival, .. } = queued;
        match self.entries.get_mut(pod.uid.as_str()) {
            Some(newer) => newer.attempts = attempts,
            None => self.put(Entry { pod, attempts, since, arrival, part, rests_until }),
        }
    }

    fn put(&mut self, entry: Entry) {
        let uid: Arc<str> = entry.pod.uid.as_str().into();
        match entry.part {
            Part::Active => drop(self.active.insert((place(&entry), uid.clone()))),
            Part::Backoff { until } => drop(self.backoff.insert((until, uid.clone()))),
            Part::Failed { until } => drop(self.failed.insert((until, uid.clone()))),
            Part::Unschedulable { since, unblocked_by } => {
                self.unschedulable.insert((since, uid.clone()));
                unblocked_by.positions().for_each(|position| self.waiting[position] += 1);
            }
            Part::Gated => {}
        }
        self.entries.insert(uid, entry);
    }

    fn take(&mut self, uid: &str) -> Option<Entry> {
        let (uid, entry) = self.entries.remove_entry(uid)?;
        match entry.part {
            Part::Active => drop(self.active.remove(&(place(&entry), uid))),
            Part::Backoff { until } => drop(self.backoff.remove(&(until, uid))),
            Part::Failed { until } => drop(self.failed.remove(&(until, uid))),
            Part::Unschedulable { since, unblocked_by } => {
                self.unschedulable.remove(&(since, uid));
                unblocked_by.positions().for_each(|position| self.waiting[position] -= 1);
            }
            Part::Gated => {}
        }
        Some(entry)
    }

    fn backoff_after(&self, attempts: u32) -> Duration {
        let doublings = attempts.saturating_sub(1).min(16);
        self.backoff_initial.saturating_mul(2_u32.pow(doublings)).min(self.backoff_max)
    }
}

fn place(entry: &Entry) -> Place {
    (Reverse(entry.pod.priority), entry.arrival)
}
