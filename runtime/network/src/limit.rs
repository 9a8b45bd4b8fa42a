//! How often something may be said. Pure but for the clock that is handed in.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// A burst, then one each interval; what is held back is counted.
pub(crate) struct Limit {
    burst: u32,
    interval: Duration,
    state: Mutex<State>,
}

struct State {
    left: f64,
    at: Option<Instant>,
    held_back: u64,
}

impl Limit {
    /// As refusals are logged: 20 at once, then one a second.
    pub(crate) fn of_refusals() -> Self {
        Self::new(20, Duration::from_secs(1))
    }

    pub(crate) fn new(burst: u32, interval: Duration) -> Self {
        let state = State { left: f64::from(burst), at: None, held_back: 0 };
        Self { burst, interval, state: Mutex::new(state) }
    }

    /// Whether it may be said now; then also how often it was not since the last time.
    pub(crate) fn take(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock();
        let gone = state.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let more = gone.as_secs_f64() / self.interval.as_secs_f64().max(f64::EPSILON);
        state.left = (state.left + more).min(f64::from(self.burst));
        state.at = Some(now);
        if state.left < 1.0 {
            state.held_back += 1;
            return None;
        }
        state.left -= 1.0;
        Some(std::mem::take(&mut state.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_then_one_each_interval() {
        let limit = Limit::new(2, Duration::from_secs(1));
        let start = Instant::now();
        let take = |ms| limit.take(start + Duration::from_millis(ms));
        let said = [0, 0, 0, 500, 1_000, 1_100, 9_000, 9_000, 9_000].map(take);
        assert_eq!(said, [Some(0), Some(0), None, None, Some(2), None, Some(1), Some(0), None]);
    }
}
