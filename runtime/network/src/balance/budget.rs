//! How many requests may be sent again: a share of those that are sent at all, and a few each second. Pure but for the
//! time that is handed in.
//!
//! # Source
//! Finagle's `RetryBudget`.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use super::Moment;

/// One retry.
const ONE: i64 = 1000;
/// What can be saved.
const SAVED_MAX: i64 = 100 * ONE;
/// Retries each second, whatever is saved.
const EACH_SECOND: u64 = 10;

/// A Service's budget, in thousandths of a retry.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    saved: AtomicI64,
    second: AtomicU64,
    free: AtomicU64,
}

impl Budget {
    /// A request is sent.
    pub(crate) fn earn(&self, percent: u32) {
        let more = i64::from(percent) * ONE / 100;
        if more > 0 && self.saved.load(Ordering::Relaxed) < SAVED_MAX {
            self.saved.fetch_add(more, Ordering::Relaxed);
        }
    }

    /// Whether one may be sent again.
    pub(crate) fn spend(&self, now: Moment) -> bool {
        let second = now.0 / 1_000_000_000 + 1;
        if self.second.swap(second, Ordering::Relaxed) != second {
            self.free.store(EACH_SECOND, Ordering::Relaxed);
        }
        let free = self.free.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |free| free.checked_sub(1));
        let paid = |saved: i64| (saved >= ONE).then_some(saved - ONE);
        free.is_ok() || self.saved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, paid).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_the_requests_and_a_few_each_second() {
        let budget = Budget::default();
        let spend = |ms: u64| (0..1_000).filter(|_| budget.spend(Moment(ms * 1_000_000))).count();
        assert_eq!(spend(0), 10, "a few, though nothing was earned");
        assert_eq!(spend(500), 0);
        (0..100).for_each(|_| budget.earn(20));
        assert_eq!(spend(900), 20);
        assert_eq!(spend(1_000), 10, "another second");
        (0..10_000).for_each(|_| budget.earn(20));
        assert_eq!(spend(1_001), 100, "what is saved is bounded");
        (0..1_000).for_each(|_| budget.earn(0));
        assert_eq!(spend(1_002), 0);
    }
}
