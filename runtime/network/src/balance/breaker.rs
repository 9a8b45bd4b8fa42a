//! How many requests to a Service may be under way, and how many may wait for that.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use tokio::sync::Notify;

/// Counts the requests of one Service. Its bounds may change while requests are under way.
#[derive(Debug, Default)]
pub(crate) struct Breaker {
    under_way: AtomicU32,
    waiting: AtomicU32,
    left: Notify,
}

/// A request that is under way.
#[derive(Debug)]
pub(crate) struct Slot(Arc<Breaker>);

/// Too many are under way and wait.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

/// One that waits.
struct Wait<'a>(&'a Breaker);

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Breaker {
    /// Waits until fewer than `most` are under way.
    ///
    /// # Errors
    /// When `pending` wait already.
    pub(crate) async fn enter(self: &Arc<Self>, most: u32, pending: u32) -> Result<Slot, Full> {
        if let Some(slot) = self.try_enter(most) {
            return Ok(slot);
        }
        let more = |waiting: u32| (waiting < pending).then_some(waiting + 1);
        self.waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).map_err(|_| Full)?;
        let _wait = Wait(self);
        loop {
            let left = self.left.notified();
            tokio::pin!(left);
            left.as_mut().enable();
            if let Some(slot) = self.try_enter(most) {
                return Ok(slot);
            }
            left.await;
        }
    }

    /// How many are under way, and how many wait.
    pub(crate) fn counts(&self) -> (u32, u32) {
        (self.under_way.load(Ordering::Acquire), self.waiting.load(Ordering::Acquire))
    }

    fn try_enter(self: &Arc<Self>, most: u32) -> Option<Slot> {
        let more = |under_way: u32| (under_way < most).then_some(under_way + 1);
        self.under_way.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).ok()?;
        Some(Slot(self.clone()))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::AcqRel);
        self.0.left.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn some_are_under_way_some_wait_the_rest_is_refused() {
        let breaker = Arc::new(Breaker::default());
        let first = breaker.enter(2, 1).await.unwrap();
        let _second = breaker.enter(2, 1).await.unwrap();
        let mut third = Box::pin(breaker.enter(2, 1));
        assert!(third.as_mut().now_or_never().is_none(), "it waits");
        assert_eq!(breaker.enter(2, 1).await.unwrap_err(), Full);
        drop(first);
        let third = third.await.unwrap();
        let given_up = Box::pin(breaker.enter(2, 1));
        drop(given_up.now_or_never());
        assert!(Box::pin(breaker.enter(2, 1)).now_or_never().is_none(), "who has given up does not wait any more");
        drop(third);
        assert!(breaker.enter(2, 0).await.is_ok());
    }
}
