//! When which pod is to be looked at again: one heap for all pods, no timer while nothing is due.

use std::{cmp::Reverse, collections::BinaryHeap};

use jiff::Timestamp;
use podium_api::ObjectKey;

/// Moments, the earliest first. A pod may stand in it more than once; looking at it in vain does no harm.
#[derive(Debug, Default)]
pub(crate) struct Timers(BinaryHeap<Reverse<(Timestamp, ObjectKey)>>);

impl Timers {
    /// Looks at a pod at this moment.
    pub(crate) fn set(&mut self, at: Timestamp, key: ObjectKey) {
        self.0.push(Reverse((at, key)));
    }

    /// The next moment.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        self.0.peek().map(|Reverse((at, _))| *at)
    }

    /// The pods that are due.
    pub(crate) fn due(&mut self, now: Timestamp) -> Vec<ObjectKey> {
        let mut due = Vec::new();
        while self.next().is_some_and(|at| at <= now) {
            due.extend(self.0.pop().map(|Reverse((_, key))| key));
        }
        due
    }
}
