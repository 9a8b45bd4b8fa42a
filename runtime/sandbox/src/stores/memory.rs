//! A store in memory: gone with the process, bounded in bytes.

use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Unbounded},
    sync::Arc,
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use super::full;
use crate::{Group, Store, StoreError, memory::Charge};

/// What an entry costs beside its key and value.
const ENTRY_BYTES: u64 = 96;

/// Keeps its content in memory.
#[derive(Debug)]
pub struct MemoryStore {
    bytes_max: u64,
    content: Mutex<Content>,
}

#[derive(Debug, Default)]
struct Content {
    values: BTreeMap<String, Bytes>,
    bytes: u64,
    /// Who pays for it, if anybody does.
    charge: Option<Charge>,
}

impl MemoryStore {
    /// `bytes_max`: keys, values and what it costs to keep them.
    pub fn new(bytes_max: u64) -> Arc<Self> {
        Arc::new(Self { bytes_max, content: Mutex::default() })
    }

    /// As [`MemoryStore::new`], as memory of a group: when that has none left the guest hears that the store is full.
    pub fn of_group(group: &Group, bytes_max: u64) -> Arc<Self> {
        let charge = Some(Charge::empty(group.accounts.memory.clone()));
        Arc::new(Self { bytes_max, content: Mutex::new(Content { charge, ..Content::default() }) })
    }

    /// Bytes that it holds.
    pub fn bytes(&self) -> u64 {
        self.content.lock().bytes
    }

    fn put(&self, content: &mut Content, key: &str, value: Bytes) -> Result<(), StoreError> {
        let before = content.values.get(key).map_or(0, |old| cost(key, old));
        let after = content.bytes - before + cost(key, &value);
        if after > self.bytes_max {
            return Err(full(after, self.bytes_max));
        }
        if content.charge.as_mut().is_some_and(|charge| !charge.resize(after)) {
            return Err(StoreError::Other(format!("the store is full: there is no memory left for its {after} bytes")));
        }
        // A copy: a slice would keep what it was cut from.
        content.values.insert(key.to_owned(), Bytes::copy_from_slice(&value));
        content.bytes = after;
        Ok(())
    }
}

fn cost(key: &str, value: &[u8]) -> u64 {
    (key.len() + value.len()) as u64 + ENTRY_BYTES
}

#[async_trait]
impl Store for MemoryStore {
    async fn get(&self, key: &str) -> Result<Option<Bytes>, StoreError> {
        Ok(self.content.lock().values.get(key).cloned())
    }

    async fn set(&self, key: &str, value: Bytes) -> Result<(), StoreError> {
        self.put(&mut self.content.lock(), key, value)
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        let mut content = self.content.lock();
        if let Some(old) = content.values.remove(key) {
            content.bytes -= cost(key, &old);
            let left = content.bytes;
            // It has become smaller: that always fits.
            let _fits = content.charge.as_mut().map(|charge| charge.resize(left));
        }
        Ok(())
    }

    async fn compare_and_set(&self, key: &str, expected: Option<&[u8]>, value: Bytes) -> Result<bool, StoreError> {
        let mut content = self.content.lock();
        if content.values.get(key).map(|value| &value[..]) != expected {
            return Ok(false);
        }
        self.put(&mut content, key, value).map(|()| true)
    }

    async fn list(&self, cursor: Option<&str>, limit: usize) -> Result<Vec<String>, StoreError> {
        let content = self.content.lock();
        let after = content.values.range::<str, _>((cursor.map_or(Unbounded, Excluded), Unbounded));
        Ok(after.take(limit).map(|(key, _)| key.clone()).collect())
    }
}
