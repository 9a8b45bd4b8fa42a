//! [`JumpyClock`]: the clock of one host: right to begin with, and set forward or back now and then.
//!
//! Waiting is not disturbed, as on a real machine: timers do not follow the time of day.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering::Relaxed},
};

use jiff::{SignedDuration, Timestamp};
use podium_client::{Clock, ClockRef};

/// No clock is further off: clocks of two hosts differ by twice that, which is more than the grace of a node's lease and less
/// than a granted eviction is remembered.
pub const OFF_SECONDS_MAX: i64 = 30;

/// A clock that can be set.
#[derive(Debug)]
pub struct JumpyClock {
    right: ClockRef,
    off_seconds: AtomicI64,
}

impl JumpyClock {
    /// A clock that shows what another does.
    pub fn new(right: &ClockRef) -> Arc<Self> {
        Arc::new(Self { right: Arc::clone(right), off_seconds: AtomicI64::new(0) })
    }

    /// From now on it is so far off.
    pub fn set_off(&self, seconds: i64) {
        self.off_seconds.store(seconds, Relaxed);
    }
}

impl Clock for JumpyClock {
    fn now(&self) -> Timestamp {
        let right = self.right.now();
        right.checked_add(SignedDuration::from_secs(self.off_seconds.load(Relaxed))).unwrap_or(right)
    }
}
