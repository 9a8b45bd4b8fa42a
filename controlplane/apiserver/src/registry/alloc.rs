//! A pool of numbers, each given out once: offsets of addresses, ports, networks of nodes.
//!
//! Lives in memory; filled from the stored objects at start. Numbers taken for a write that fails go back.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use rand::RngExt as _;

/// A pool.
#[derive(Debug)]
pub(crate) struct Pool {
    size: u64,
    /// Numbers below this are only given to those who ask for them.
    dynamic_from: u64,
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    owners: BTreeMap<u64, String>,
    next: u64,
}

impl Pool {
    /// The numbers `0..size`; those below `dynamic_from` are chosen last when nobody asks for them.
    pub(crate) fn new(size: u64, dynamic_from: u64) -> Arc<Self> {
        let dynamic_from = if dynamic_from < size { dynamic_from } else { 0 };
        let used = Mutex::new(Used { owners: BTreeMap::new(), next: dynamic_from });
        Arc::new(Self { size, dynamic_from, used })
    }

    /// The same, given out from a random one on: what others on this machine have chosen likewise is most likely another.
    pub(crate) fn from_anywhere(size: u64, dynamic_from: u64) -> Arc<Self> {
        let pool = Self::new(size, dynamic_from);
        if pool.dynamic_from < size {
            pool.used.lock().next = rand::rng().random_range(pool.dynamic_from..size);
        }
        pool
    }

    /// How many numbers there are.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Takes a number; whether it was free (or belongs to the same owner).
    pub(crate) fn take(&self, number: u64, owner: &str) -> bool {
        let mut used = self.used.lock();
        match used.owners.get(&number) {
            Some(known) => known == owner,
            None if number >= self.size => false,
            None => {
                used.owners.insert(number, owner.to_owned());
                true
            }
        }
    }

    /// Takes any free number, going round; `None` when all are taken.
    pub(crate) fn take_any(&self, owner: &str) -> Option<u64> {
        let mut used = self.used.lock();
        let start = used.next.clamp(self.dynamic_from, self.size);
        let order = (start..self.size).chain(self.dynamic_from..start).chain(0..self.dynamic_from);
        let free = order.into_iter().find(|n| !used.owners.contains_key(n))?;
        used.owners.insert(free, owner.to_owned());
        used.next = if free + 1 < self.size { free + 1 } else { self.dynamic_from };
        Some(free)
    }

    /// Whether a number is taken by someone else.
    #[cfg(test)]
    pub(crate) fn is_others(&self, number: u64, owner: &str) -> bool {
        self.used.lock().owners.get(&number).is_some_and(|known| known != owner)
    }

    /// Gives a number back, if it belongs to the owner.
    pub(crate) fn give_back(&self, number: u64, owner: &str) {
        let mut used = self.used.lock();
        if used.owners.get(&number).is_some_and(|known| known == owner) {
            used.owners.remove(&number);
        }
    }
}

/// What was taken for one write: given back when dropped, unless kept. What the write frees goes when it is kept.
#[derive(Debug, Default)]
pub(crate) struct Claim {
    owner: String,
    taken: Vec<(Arc<Pool>, u64)>,
    freed: Vec<(Arc<Pool>, u64)>,
}

impl Claim {
    pub(crate) fn new(owner: String) -> Self {
        Self { owner, taken: Vec::new(), freed: Vec::new() }
    }

    /// Takes one number; whether it could be had. What the owner had before is not given back on failure.
    pub(crate) fn take(&mut self, pool: &Arc<Pool>, number: u64, had_before: bool) -> bool {
        let got = pool.take(number, &self.owner);
        if got && !had_before {
            self.taken.push((pool.clone(), number));
        }
        got
    }

    /// Takes any number.
    pub(crate) fn take_any(&mut self, pool: &Arc<Pool>) -> Option<u64> {
        let number = pool.take_any(&self.owner)?;
        self.taken.push((pool.clone(), number));
        Some(number)
    }

    /// Notes a number that the write gives up.
    pub(crate) fn free(&mut self, pool: &Arc<Pool>, number: u64) {
        self.freed.push((pool.clone(), number));
    }

    /// The write has happened.
    pub(crate) fn keep(mut self) {
        self.taken.clear();
        for (pool, number) in std::mem::take(&mut self.freed) {
            pool.give_back(number, &self.owner);
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        for (pool, number) in &self.taken {
            pool.give_back(*number, &self.owner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_once() {
        let pool = Pool::new(5, 2);
        assert!(pool.take(3, "a") && pool.take(3, "a") && !pool.take(3, "b") && !pool.take(5, "b"));
        let got: Vec<_> = (0..5).map(|_| pool.take_any("b")).collect();
        assert_eq!(got, [Some(2), Some(4), Some(0), Some(1), None]);
        pool.give_back(3, "b");
        assert_eq!(pool.take_any("b"), None);
        pool.give_back(3, "a");
        assert_eq!(pool.take_any("b"), Some(3));
    }

    #[test]
    fn from_anywhere_all_are_given_too() {
        let pool = Pool::from_anywhere(50, 10);
        let mut got: Vec<_> = (0..50).filter_map(|_| pool.take_any("a")).collect();
        assert!(got[..40].iter().all(|n| *n >= 10), "{got:?}");
        got.sort_unstable();
        assert!(got.into_iter().eq(0..50));
        let starts: Vec<_> = (0..40).map(|_| Pool::from_anywhere(1_000, 10).take_any("a")).collect();
        assert!(starts.iter().any(|start| *start != starts[0]));
        assert_eq!(Pool::from_anywhere(0, 0).take_any("a"), None);
    }

    #[test]
    fn claims_go_back_unless_kept() {
        let pool = Pool::new(4, 0);
        let mut claim = Claim::new("a".to_owned());
        assert!(claim.take(&pool, 1, false));
        drop(claim);
        assert!(!pool.is_others(1, "b"));
        let mut claim = Claim::new("a".to_owned());
        assert_eq!(claim.take_any(&pool), Some(0));
        assert!(pool.take(2, "a"));
        claim.free(&pool, 2);
        claim.keep();
        assert!(pool.is_others(0, "b") && !pool.is_others(2, "b"));
    }
}
