//! Exponential back-off as plain data.
//!
//! # Source
//! client-go `util/flowcontrol/backoff.go`: the first failure is retried at once (crashes) or after the initial delay
//! (images); what stayed well for twice the longest delay starts anew.

use jiff::{SignedDuration, Timestamp};

/// How delays grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Policy {
    pub(crate) initial_seconds: i64,
    pub(crate) max_seconds: i64,
}

/// Containers that end, images that cannot be had, containers that cannot be made.
pub(crate) const SLOW: Policy = Policy { initial_seconds: 10, max_seconds: 300 };
/// Settings that are missing: these usually come moments later.
pub(crate) const QUICK: Policy = Policy { initial_seconds: 1, max_seconds: 10 };

/// The delay now, and since when.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Backoff {
    delay_seconds: i64,
    at: Option<Timestamp>,
}

impl Backoff {
    /// When what ended at `ended` may begin again.
    pub(crate) fn ready_at(&self, policy: Policy, ended: Timestamp) -> Timestamp {
        if self.expired(policy, ended) { ended } else { after(ended, self.delay_seconds) }
    }

    /// Takes the next, longer delay, because of something that happened at `event`.
    pub(crate) fn advance(&mut self, policy: Policy, event: Timestamp, now: Timestamp) {
        self.delay_seconds = if self.expired(policy, event) {
            policy.initial_seconds
        } else {
            (self.delay_seconds * 2).min(policy.max_seconds)
        };
        self.at = Some(now);
    }

    /// The delay in seconds.
    pub(crate) fn delay_seconds(&self) -> i64 {
        self.delay_seconds
    }

    fn expired(&self, policy: Policy, event: Timestamp) -> bool {
        self.at.is_none_or(|at| event.as_second() - at.as_second() > 2 * policy.max_seconds)
    }
}

/// `seconds` after `at`; the end of time when there is no such moment.
pub(crate) fn after(at: Timestamp, seconds: i64) -> Timestamp {
    at.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crashes_wait_longer_and_longer_and_start_anew_after_ten_good_minutes() {
        let mut backoff = Backoff::default();
        let mut now = Timestamp::from_second(1_000).unwrap();
        let mut waits = Vec::new();
        for run_seconds in [1, 1, 1, 1, 1, 1, 1, 1, 599, 601, 1] {
            let ended = after(now, run_seconds);
            let ready = backoff.ready_at(SLOW, ended);
            waits.push(ready.as_second() - ended.as_second());
            backoff.advance(SLOW, ended, ready);
            now = ready;
        }
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300, 300, 0, 10]);
    }
}
