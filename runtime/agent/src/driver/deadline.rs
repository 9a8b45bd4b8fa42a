//! A moment by which something has to be over, which can be brought forward while it is waited for.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};

/// Shared by whoever waits and whoever hurries.
#[derive(Debug, Clone)]
pub(crate) struct Deadline(Arc<watch::Sender<Instant>>);

impl Deadline {
    /// So long from now.
    pub(crate) fn after(time: Duration) -> Self {
        Self(Arc::new(watch::Sender::new(Instant::now() + time)))
    }

    /// At most so long from now. Never later than it was.
    pub(crate) fn hurry(&self, time: Duration) {
        let at = Instant::now() + time;
        self.0.send_if_modified(|now| {
            let earlier = at < *now;
            *now = at.min(*now);
            earlier
        });
    }

    /// How long it is until then.
    pub(crate) fn left(&self) -> Duration {
        self.0.borrow().saturating_duration_since(Instant::now())
    }

    /// The same, or one that is so long from now if that is later.
    pub(crate) fn at_least(&self, time: Duration) -> Self {
        if self.left() < time { Self::after(time) } else { self.clone() }
    }

    /// What `work` comes to, if it is over by then.
    pub(crate) async fn within<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut changes = self.0.subscribe();
        tokio::pin!(work);
        loop {
            let at = *changes.borrow_and_update();
            tokio::select! {
                biased;
                out = &mut work => return Some(out),
                () = tokio::time::sleep_until(at) => return None,
                // It cannot be an error: this holds a sender.
                _ = changes.changed() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn it_comes_forward_and_never_goes_back() {
        let start = Instant::now();
        let deadline = Deadline::after(s(30));
        let of_task = deadline.clone();
        let waiting = tokio::spawn(async move {
            let over = of_task.within(tokio::time::sleep(s(100))).await;
            (over, start.elapsed())
        });
        tokio::time::sleep(s(5)).await;
        deadline.hurry(s(10));
        deadline.hurry(s(60));
        assert_eq!(waiting.await.unwrap(), (None, s(15)));
        assert_eq!(deadline.within(std::future::ready(1)).await, Some(1), "what is over is over");
        assert_eq!((deadline.left(), deadline.at_least(s(2)).left()), (s(0), s(2)));
    }
}
