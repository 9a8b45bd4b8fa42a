//! When something last moved on a connection, so that idle ones are closed.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};

/// As the kubelet's `streamingConnectionIdleTimeout`.
pub(crate) const IDLE_MAX: Duration = Duration::from_secs(4 * 3600);

/// The time of the last movement.
pub(crate) struct Activity(Mutex<Instant>);

impl Activity {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Instant::now()))
    }

    /// Something moved.
    pub(crate) fn touch(&self) {
        *self.0.lock() = Instant::now();
    }

    /// Ends when nothing has moved for so long.
    pub(crate) async fn idle(&self, limit: Duration) {
        loop {
            let due = *self.0.lock() + limit;
            if due <= Instant::now() {
                return;
            }
            sleep_until(due).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_moves_is_not_idle() {
        let (activity, began) = (Activity::new(), Instant::now());
        let moving = async {
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_secs(7)).await;
                activity.touch();
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = activity.idle(Duration::from_secs(10)) => {}
            () = moving => {}
        }
        assert_eq!(began.elapsed(), Duration::from_secs(31));
    }
}
