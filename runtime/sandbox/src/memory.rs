//! Memory of one container over all its instances, and of all containers of the node.
//!
//! What counts is the size of linear memories, tables and GC heaps, as the guest asks for it: a guest is told no before
//! the first byte too much is there. On top of that, what the host keeps for a guest: a base for each instance, and an
//! estimate of its resources that is renewed while it runs (see `Held::hide`).
//!
//! A GC heap grows by doubling, so a guest with one ends when half of its limit does not do.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use wasmtime::ResourceLimiter;

/// Bytes of one table element.
const TABLE_ELEMENT_BYTES: u64 = 8;

/// A bounded sum. The parent's bound holds as well.
#[derive(Debug)]
pub(crate) struct MemoryAccount {
    parent: Option<Arc<MemoryAccount>>,
    limit_bytes: AtomicU64,
    used_bytes: AtomicU64,
    peak_bytes: AtomicU64,
    exceeded: AtomicBool,
}

impl MemoryAccount {
    pub(crate) fn new(limit_bytes: u64, parent: Option<Arc<MemoryAccount>>) -> Self {
        Self {
            parent,
            limit_bytes: AtomicU64::new(limit_bytes),
            used_bytes: AtomicU64::new(0),
            peak_bytes: AtomicU64::new(0),
            exceeded: AtomicBool::new(false),
        }
    }

    /// Takes bytes, or nothing at all, without holding it against anybody: the guest hears that there is no memory and goes on.
    /// An eighth is left for what cannot be refused without ending it.
    fn try_take(&self, bytes: u64) -> bool {
        let limit = self.limit_bytes();
        let most = limit - limit / 8;
        let fits = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= most);
        let Ok(before) = self.used_bytes.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits) else { return false };
        if self.parent.as_ref().is_some_and(|parent| !parent.try_take(bytes)) {
            self.used_bytes.fetch_sub(bytes, Ordering::AcqRel);
            return false;
        }
        self.peak_bytes.fetch_max(before + bytes, Ordering::AcqRel);
        true
    }

    /// Takes bytes, or nothing at all.
    fn take(&self, bytes: u64) -> bool {
        let limit = self.limit_bytes();
        let fits = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= limit);
        let Ok(before) = self.used_bytes.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits) else {
            self.exceeded.store(true, Ordering::Release);
            return false;
        };
        if self.parent.as_ref().is_some_and(|parent| !parent.take(bytes)) {
            self.used_bytes.fetch_sub(bytes, Ordering::AcqRel);
            self.exceeded.store(true, Ordering::Release);
            return false;
        }
        self.peak_bytes.fetch_max(before + bytes, Ordering::AcqRel);
        true
    }

    /// Takes bytes that are taken already, whatever the limit is.
    fn force(&self, bytes: u64) {
        let used = self.used_bytes.fetch_add(bytes, Ordering::AcqRel) + bytes;
        self.peak_bytes.fetch_max(used, Ordering::AcqRel);
        if let Some(parent) = &self.parent {
            parent.force(bytes);
        }
    }

    fn give(&self, bytes: u64) {
        self.used_bytes.fetch_sub(bytes, Ordering::AcqRel);
        if let Some(parent) = &self.parent {
            parent.give(bytes);
        }
    }

    pub(crate) fn limit_bytes(&self) -> u64 {
        self.limit_bytes.load(Ordering::Acquire)
    }

    /// Changes the bound from now on. What is taken already stays taken.
    pub(crate) fn resize(&self, limit_bytes: u64) {
        self.limit_bytes.store(limit_bytes, Ordering::Release);
    }

    pub(crate) fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Acquire)
    }

    pub(crate) fn peak_bytes(&self) -> u64 {
        self.peak_bytes.load(Ordering::Acquire)
    }

    /// Whether anybody ever asked for more than there was.
    pub(crate) fn exceeded(&self) -> bool {
        self.exceeded.load(Ordering::Acquire)
    }
}

/// What one instance, or one buffer of the host, holds of its container's account. Given back when dropped.
#[derive(Debug)]
pub(crate) struct Held {
    account: Arc<MemoryAccount>,
    bytes: u64,
    hidden_bytes: u64,
}

impl Held {
    pub(crate) fn new(account: Arc<MemoryAccount>) -> Self {
        Self { account, bytes: 0, hidden_bytes: 0 }
    }

    /// Takes what a guest wants to grow by.
    pub(crate) fn grow(&mut self, bytes: u64) -> Result<(), OutOfMemory> {
        if !self.account.take(bytes) {
            return Err(OutOfMemory);
        }
        self.bytes += bytes;
        Ok(())
    }

    /// Sets what the host keeps for the guest beside its memories and tables.
    pub(crate) fn hide(&mut self, bytes: u64) -> Result<(), OutOfMemory> {
        if bytes > self.hidden_bytes && !self.account.take(bytes - self.hidden_bytes) {
            return Err(OutOfMemory);
        }
        if bytes < self.hidden_bytes {
            self.account.give(self.hidden_bytes - bytes);
        }
        self.hidden_bytes = bytes;
        Ok(())
    }

    /// As [`Held::hide`], for what is there already.
    pub(crate) fn force(&mut self, bytes: u64) {
        self.account.force(bytes.saturating_sub(self.hidden_bytes));
        self.account.give(self.hidden_bytes.saturating_sub(bytes));
        self.hidden_bytes = bytes;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.account.give(self.bytes + self.hidden_bytes);
    }
}

impl ResourceLimiter for Held {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        self.grow(desired.saturating_sub(current) as u64)?;
        Ok(true)
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        self.grow((desired.saturating_sub(current) as u64).saturating_mul(TABLE_ELEMENT_BYTES))?;
        Ok(true)
    }
}

/// A buffer of the host that a guest may be refused. Given back when dropped.
#[derive(Debug)]
pub(crate) struct Charge {
    account: Arc<MemoryAccount>,
    bytes: u64,
}

impl Charge {
    /// `None`: it does not fit.
    pub(crate) fn new(account: Arc<MemoryAccount>, bytes: u64) -> Option<Self> {
        account.try_take(bytes).then(|| Self { account, bytes })
    }

    /// Of a buffer that is empty yet.
    pub(crate) fn empty(account: Arc<MemoryAccount>) -> Self {
        Self { account, bytes: 0 }
    }

    /// Becomes as large as this; returns whether that fits, else nothing changes.
    pub(crate) fn resize(&mut self, bytes: u64) -> bool {
        if bytes > self.bytes && !self.account.try_take(bytes - self.bytes) {
            return false;
        }
        self.account.give(self.bytes.saturating_sub(bytes));
        self.bytes = bytes;
        true
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.account.give(self.bytes);
    }
}

/// Ends a guest that asked for more than its container may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("out of memory")]
pub(crate) struct OutOfMemory;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_refused_leaves_something_for_what_may_not() {
        let node = Arc::new(MemoryAccount::new(1600, None));
        let account = Arc::new(MemoryAccount::new(320, Some(node.clone())));
        let charge = |bytes| Charge::new(account.clone(), bytes);
        assert!(charge(281).is_none());
        let all = charge(280).expect("fits");
        assert!(charge(1).is_none());
        assert!(!account.exceeded() && !node.exceeded(), "nobody ends for it");
        assert_eq!(Held::new(account.clone()).grow(40), Ok(()));
        drop(all);
        assert_eq!((account.used_bytes(), node.used_bytes()), (0, 0));
    }

    #[test]
    fn a_buffer_grows_as_far_as_there_is_room_and_shrinks() {
        let account = Arc::new(MemoryAccount::new(80, None));
        let mut charge = Charge::empty(account.clone());
        let mut resized = |bytes| (charge.resize(bytes), account.used_bytes());
        assert_eq!(
            [resized(50), resized(71), resized(70), resized(20)],
            [(true, 50), (false, 50), (true, 70), (true, 20)]
        );
        drop(charge);
        assert_eq!((account.used_bytes(), account.exceeded()), (0, false));
    }

    #[test]
    fn what_is_there_already_is_taken_and_leaves_nothing_for_others() {
        let node = Arc::new(MemoryAccount::new(1000, None));
        let group = Arc::new(MemoryAccount::new(100, Some(node.clone())));
        let one = Arc::new(MemoryAccount::new(80, Some(group.clone())));
        let mut files = Held::new(group.clone());
        files.force(150);
        assert_eq!((group.used_bytes(), node.used_bytes()), (150, 150));
        assert!(!group.exceeded() && !one.exceeded());
        assert_eq!(Held::new(one).grow(1), Err(OutOfMemory));
        files.force(30);
        assert_eq!((group.used_bytes(), group.peak_bytes()), (30, 150));
        drop(files);
        assert_eq!((group.used_bytes(), node.used_bytes()), (0, 0));
    }

    #[test]
    fn both_bounds_hold_and_everything_is_given_back() {
        let node = Arc::new(MemoryAccount::new(100, None));
        let one = Arc::new(MemoryAccount::new(80, Some(node.clone())));
        let two = Arc::new(MemoryAccount::new(80, Some(node.clone())));
        let mut first = Held::new(one.clone());
        let mut second = Held::new(two.clone());
        assert_eq!(first.grow(70), Ok(()));
        assert_eq!(first.grow(11), Err(OutOfMemory), "past its own limit");
        assert!(one.exceeded() && !two.exceeded());
        assert_eq!(second.grow(31), Err(OutOfMemory), "past the node's");
        assert_eq!(two.used_bytes(), 0, "nothing is kept of what was refused");
        assert_eq!(second.grow(30), Ok(()));
        drop((first, second));
        assert_eq!((node.used_bytes(), one.used_bytes(), one.peak_bytes()), (0, 0, 70));
    }
}
