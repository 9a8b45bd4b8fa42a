//! The store: etcd's model behind one trait, with sled and in-memory backends.
//!
//! One global revision counts every change. A key holds its newest record; older ones stay readable until compaction.
//! A write is answered only after it is durable. Backends know bytes, never kinds.

mod compactor;
mod hub;
mod memory;
pub mod sled;

use std::{any::Any, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
pub use podium_api::Revision;

pub use compactor::{CompactionPolicy, spawn_compactor};
pub use hub::Watch;
pub use memory::MemoryStore;

/// A key, for example `/registry/pods/default/web-1`. At most [`KEY_BYTES_MAX`] bytes.
pub type Key = Arc<str>;

/// Bound on the length of a key.
pub const KEY_BYTES_MAX: usize = 1024;

/// Bound on one value (etcd's default request limit).
pub const VALUE_BYTES_MAX: usize = 1_572_864;

/// The decoded form of a value, handed along by a writer in this process so that caches need not decode it again.
/// Backends that leave the process drop it; readers must be able to do without.
pub type Attachment = Arc<dyn Any + Send + Sync>;

/// One version of one key.
#[derive(Clone)]
pub struct Record {
    /// Its key.
    pub key: Key,
    /// What was written.
    pub value: Bytes,
    /// The revision that created the key (after its last deletion).
    pub created: Revision,
    /// The revision that wrote this version.
    pub modified: Revision,
    /// The decoded form, if the writer was in this process.
    pub attachment: Option<Attachment>,
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { key, value, created, modified, .. } = self;
        write!(f, "Record({key} created={created} modified={modified} bytes={})", value.len())
    }
}

/// What has to hold of a key for a write to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Nothing.
    Any,
    /// The key does not exist.
    Absent,
    /// The key's newest record has this `modified` revision.
    At(Revision),
}

/// What a write does.
#[derive(Clone)]
pub enum Change {
    /// Writes a value.
    Put {
        /// The bytes.
        value: Bytes,
        /// Their decoded form.
        attachment: Option<Attachment>,
    },
    /// Removes the key. Deleting an absent key is a conflict unless `Expect::Any`, which makes it a no-op at the
    /// current revision.
    Delete,
}

/// A write of one key.
#[derive(Clone)]
pub struct Write {
    /// Which key.
    pub key: Key,
    /// Under which condition.
    pub expect: Expect,
    /// What.
    pub change: Change,
}

/// The answer to a write.
#[derive(Debug, Clone)]
pub struct Written {
    /// The revision of this write.
    pub revision: Revision,
    /// `created` of the record written (or deleted).
    pub created: Revision,
}

/// A page of a prefix.
#[derive(Debug, Clone)]
pub struct RangeRequest {
    /// Keys that start with this.
    pub prefix: String,
    /// Only keys greater than this one.
    pub after: Option<Key>,
    /// At most so many records; `None` for all.
    pub limit: Option<usize>,
    /// The state at this revision; `None` for the newest.
    pub at: Option<Revision>,
}

/// The answer to a [`RangeRequest`], in key order.
#[derive(Debug, Clone)]
pub struct Range {
    /// The records.
    pub records: Vec<Record>,
    /// The revision at which they were read.
    pub revision: Revision,
    /// How many more keys the prefix holds after the last record.
    pub remaining: u64,
}

/// A change that has happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// A key was written. `previous` is what it held before.
    Put {
        /// The new record.
        record: Record,
        /// The record before, when the key existed.
        previous: Option<Record>,
    },
    /// A key was removed at `revision`.
    Delete {
        /// The last record.
        previous: Record,
        /// The revision of the deletion.
        revision: Revision,
    },
}

impl Event {
    /// The revision of the change.
    pub fn revision(&self) -> Revision {
        match self {
            Self::Put { record, .. } => record.modified,
            Self::Delete { revision, .. } => *revision,
        }
    }

    /// The key that changed.
    pub fn key(&self) -> &Key {
        match self {
            Self::Put { record, .. } => &record.key,
            Self::Delete { previous, .. } => &previous.key,
        }
    }
}

/// How many batches may wait for a watcher before it is cut off.
pub const WATCH_BATCHES_MAX: usize = 4096;

/// Changes under the watched prefix, and how far the store has got.
#[derive(Debug, Clone)]
pub struct WatchBatch {
    /// The changes; may be empty.
    pub events: Arc<[Event]>,
    /// All changes up to this revision have been delivered.
    pub revision: Revision,
}

/// Why the store could not do something.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The condition of a write did not hold; `found` is the newest record.
    #[error("{key}: the condition of the write does not hold")]
    Conflict {
        /// The key.
        key: Key,
        /// Its newest record.
        found: Option<Record>,
    },
    /// The revision is older than the last compaction.
    #[error("revision {asked} is compacted; the oldest is {oldest}")]
    Compacted {
        /// The revision asked for.
        asked: Revision,
        /// The oldest that can be read.
        oldest: Revision,
    },
    /// The revision has not happened yet.
    #[error("revision {asked} is in the future; the newest is {newest}")]
    Future {
        /// The revision asked for.
        asked: Revision,
        /// The newest revision.
        newest: Revision,
    },
    /// The key or value is larger than the bounds.
    #[error("{what} has {bytes} bytes, more than {max}")]
    TooLarge {
        /// `key` or `value`.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// The bound.
        max: usize,
    },
    /// The backend failed and takes no more writes until the process is started again. What was answered is safe.
    #[error("the store takes no writes: {0}")]
    Failed(Arc<str>),
    /// The store is shutting down.
    #[error("the store is closed")]
    Closed,
}

/// A store backend.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The newest record of a key.
    async fn get(&self, key: &str) -> Result<Option<Record>, StoreError>;

    /// A page of a prefix, all of one revision.
    ///
    /// # Errors
    /// `Compacted` or `Future` when `at` cannot be read.
    async fn range(&self, request: RangeRequest) -> Result<Range, StoreError>;

    /// Changes one key; answers when the change is durable and has been handed to all watches.
    ///
    /// # Errors
    /// `Conflict` when the expectation does not hold; `TooLarge`; `Failed` when durability cannot be promised.
    async fn write(&self, write: Write) -> Result<Written, StoreError>;

    /// All changes under `prefix` after `after`.
    ///
    /// # Errors
    /// `Compacted` when some of them can no longer be told; `Future`.
    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError>;

    /// Forgets history below `revision`; the newest record of each key stays.
    async fn compact(&self, revision: Revision) -> Result<(), StoreError>;

    /// The oldest revision that can be read: what was before is compacted.
    fn oldest(&self) -> Revision;

    /// The newest durable revision.
    fn revision(&self) -> Revision;

    /// Why the store takes no writes, if it does not.
    fn failure(&self) -> Option<StoreError>;

    /// Waits for writes under way, flushes, and refuses new ones.
    async fn close(&self);
}

impl Expect {
    fn check(self, key: &Key, found: Option<&Record>) -> Result<(), StoreError> {
        let holds = match self {
            Self::Any => true,
            Self::Absent => found.is_none(),
            Self::At(revision) => found.is_some_and(|r| r.modified == revision),
        };
        if holds { Ok(()) } else { Err(StoreError::Conflict { key: key.clone(), found: found.cloned() }) }
    }
}

fn check_size(write: &Write) -> Result<(), StoreError> {
    if write.key.len() > KEY_BYTES_MAX {
        return Err(StoreError::TooLarge { what: "key", bytes: write.key.len(), max: KEY_BYTES_MAX });
    }
    match &write.change {
        Change::Put { value, .. } if value.len() > VALUE_BYTES_MAX => {
            Err(StoreError::TooLarge { what: "value", bytes: value.len(), max: VALUE_BYTES_MAX })
        }
        _ => Ok(()),
    }
}
