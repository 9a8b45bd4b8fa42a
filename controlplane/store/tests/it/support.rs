//! Short words for stores, writes and what is found.

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use podium_store::{
    Change, Event, Expect, MemoryStore, Range, RangeRequest, Record, Revision, Store, StoreError, Watch, Write,
    Written,
    sled::{SledConfig, SledStore},
};
use tempfile::TempDir;

/// A store, and the folder that goes with it.
pub(crate) struct Bed {
    pub(crate) store: Arc<dyn Store>,
    _folder: Option<TempDir>,
}

pub(crate) fn memory() -> Bed {
    Bed { store: Arc::new(MemoryStore::new()), _folder: None }
}

pub(crate) fn sled() -> Bed {
    let folder = TempDir::new().unwrap();
    Bed { store: Arc::new(open(folder.path())), _folder: Some(folder) }
}

/// Opens a store; waits for the thread of one that has just been dropped to let go of the folder.
pub(crate) fn open(path: &Path) -> SledStore {
    SledStore::open(SledConfig::new(path)).unwrap()
}

pub(crate) fn put(key: &str, value: impl Into<Bytes>, expect: Expect) -> Write {
    Write { key: key.into(), expect, change: Change::Put { value: value.into(), attachment: None } }
}

pub(crate) fn delete(key: &str, expect: Expect) -> Write {
    Write { key: key.into(), expect, change: Change::Delete }
}

impl Bed {
    pub(crate) async fn put(&self, key: &str, value: &str) -> Written {
        self.store.write(put(key, value.to_owned(), Expect::Any)).await.unwrap()
    }

    pub(crate) async fn delete(&self, key: &str) -> Written {
        self.store.write(delete(key, Expect::Any)).await.unwrap()
    }

    pub(crate) async fn at(&self, prefix: &str, at: u64) -> Result<String, StoreError> {
        self.store.range(range(prefix, Some(at))).await.map(|r| show_range(&r))
    }

    pub(crate) async fn now(&self, prefix: &str) -> String {
        show_range(&self.store.range(range(prefix, None)).await.unwrap())
    }
}

pub(crate) fn range(prefix: &str, at: Option<u64>) -> RangeRequest {
    RangeRequest { prefix: prefix.to_owned(), after: None, limit: None, at: at.map(Revision) }
}

/// `/a=v(created,modified)`
pub(crate) fn show(record: &Record) -> String {
    let Record { key, value, created, modified, .. } = record;
    format!("{key}={}({created},{modified})", String::from_utf8_lossy(value))
}

pub(crate) fn show_range(range: &Range) -> String {
    let records: Vec<_> = range.records.iter().map(show).collect();
    format!("{} @{} +{}", records.join(" "), range.revision, range.remaining)
}

pub(crate) fn show_event(event: &Event) -> String {
    match event {
        Event::Put { record, previous: None } => format!("new {}", show(record)),
        Event::Put { record, previous: Some(old) } => format!("put {} was {}", show(record), show(old)),
        Event::Delete { previous, revision } => format!("del@{revision} {}", show(previous)),
    }
}

/// What a watch has to tell now.
pub(crate) fn told(watch: &mut Watch) -> Vec<String> {
    events(watch).iter().map(show_event).collect()
}

pub(crate) fn events(watch: &mut Watch) -> Vec<Event> {
    std::iter::from_fn(|| watch.try_recv().ok()).flat_map(|batch| batch.events.to_vec()).collect()
}
