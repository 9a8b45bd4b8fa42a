//! What `wasi:keyvalue` opens. An embedder says which stores there are; two kinds are here, in memory and in a folder.

mod file;
mod memory;

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;

pub use self::{file::FileStore, memory::MemoryStore};

/// Bytes of a key.
pub(crate) const KEY_BYTES_MAX: usize = 1 << 10;
/// Bytes of a value.
pub(crate) const VALUE_BYTES_MAX: usize = 1 << 20;

/// The stores that a container may open.
#[async_trait]
pub trait Stores: Send + Sync + 'static {
    /// Opens a store by name; the empty name means the container's default one.
    ///
    /// # Errors
    /// `NoSuchStore` or `AccessDenied`.
    async fn open(&self, name: &str) -> Result<Arc<dyn Store>, StoreError>;
}

/// One key-value store. Keys are at most 1 KiB, values at most 1 MiB.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The value of a key.
    ///
    /// # Errors
    /// When the store cannot be read.
    async fn get(&self, key: &str) -> Result<Option<Bytes>, StoreError>;

    /// Sets a key. Durable when it returns, as far as the store is.
    ///
    /// # Errors
    /// When the store cannot be written or is full.
    async fn set(&self, key: &str, value: Bytes) -> Result<(), StoreError>;

    /// Removes a key; one that is not there is fine.
    ///
    /// # Errors
    /// When the store cannot be written.
    async fn delete(&self, key: &str) -> Result<(), StoreError>;

    /// Sets a key unless it has changed since: `expected` is the value that was read, `None`: no such key. Answers whether it was set.
    ///
    /// # Errors
    /// When the store cannot be written or is full.
    async fn compare_and_set(&self, key: &str, expected: Option<&[u8]>, value: Bytes) -> Result<bool, StoreError>;

    /// Keys in order, after `cursor`, at most `limit` of them.
    ///
    /// # Errors
    /// When the store cannot be read.
    async fn list(&self, cursor: Option<&str>, limit: usize) -> Result<Vec<String>, StoreError>;
}

/// Why a store did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// There is no such store.
    #[error("no such store: {0:?}")]
    NoSuchStore(String),
    /// The container may not use it.
    #[error("access denied: {0}")]
    AccessDenied(String),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

/// Stores by name.
#[derive(Clone, Default)]
pub struct StoreSet(BTreeMap<String, Arc<dyn Store>>);

impl StoreSet {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one; the empty name is the default's.
    pub fn with(mut self, name: impl Into<String>, store: Arc<dyn Store>) -> Self {
        self.0.insert(name.into(), store);
        self
    }
}

#[async_trait]
impl Stores for StoreSet {
    async fn open(&self, name: &str) -> Result<Arc<dyn Store>, StoreError> {
        self.0.get(name).cloned().ok_or_else(|| StoreError::NoSuchStore(name.to_owned()))
    }
}

/// What a guest hears whose store has no room.
fn full(bytes: u64, limit_bytes: u64) -> StoreError {
    StoreError::Other(format!("the store is full: {bytes} bytes are more than its limit of {limit_bytes}"))
}

#[cfg(test)]
mod tests;
