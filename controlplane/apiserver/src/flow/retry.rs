//! After how many seconds those who are refused should come again: more while many are, less when it gets better.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apiserver/pkg/util/flowcontrol/dropped_requests_tracker.go`.

use std::collections::VecDeque;

const SECONDS_MAX: u64 = 32;

/// What is known of the refusals of one level.
#[derive(Debug)]
pub(super) struct Retry {
    /// Seconds, and how many were refused in each; at most [`SECONDS_MAX`] before the present one.
    history: VecDeque<(u64, u64)>,
    current: (u64, u64),
    after: u64,
    raised: Option<u64>,
}

impl Default for Retry {
    fn default() -> Self {
        Self { history: VecDeque::new(), current: (0, 0), after: 1, raised: None }
    }
}

impl Retry {
    /// Notes a refusal and says after how many seconds to come again. `now` in seconds.
    pub(super) fn refused(&mut self, now: u64) -> i32 {
        if self.current.0 != now {
            self.history.push_back(self.current);
            let kept = SECONDS_MAX.min(2 * self.after);
            self.history.retain(|(at, _)| now.saturating_sub(*at) <= kept);
            self.current = (now, 0);
            self.adjust(now);
        }
        self.current.1 += 1;
        i32::try_from(self.after).unwrap_or(1)
    }

    fn adjust(&mut self, now: u64) {
        let recent = self.history.iter().filter(|(at, _)| now.saturating_sub(*at) <= self.after);
        let refused: u64 = recent.map(|(_, count)| count).sum();
        let may_rise = self.raised.is_none_or(|at| now.saturating_sub(at) >= self.after);
        if may_rise && refused >= 3 * self.after {
            self.after = SECONDS_MAX.min(2 * self.after);
            self.raised = Some(now);
        } else if refused < self.after && self.after > 1 {
            self.after -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rises_under_pressure_and_falls_again() {
        let mut retry = Retry::default();
        assert_eq!((0..100).map(|_| retry.refused(1)).max(), Some(1));
        let mut seen = Vec::new();
        for second in 2..80 {
            seen.push((0..100).map(|_| retry.refused(second)).max().unwrap());
        }
        assert_eq!(seen[..4], [2, 2, 4, 4]);
        assert_eq!(seen.last(), Some(&32));
        assert!(retry.history.len() <= 33, "{}", retry.history.len());
        assert_eq!(retry.refused(1000), 31);
        for second in 0..60 {
            retry.refused(2000 + 100 * second);
        }
        assert_eq!(retry.refused(9000), 1);
    }
}
