//! The in-memory backend: the reference model for the others, and the store of tests and simulations.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use crate::{
    Attachment, Change, Event, Expect, Key, Range, RangeRequest, Record, Revision, Store, StoreError, Watch, Write,
    Written, check_size, hub::Hub,
};

/// Keeps everything in memory; nothing survives the process.
#[derive(Default)]
pub struct MemoryStore(Mutex<State>);

#[derive(Default)]
struct State {
    revision: u64,
    compacted: u64,
    closed: bool,
    /// All versions of a key, oldest first.
    keys: BTreeMap<Key, Vec<Version>>,
    /// Which key a revision changed.
    log: BTreeMap<u64, Key>,
    hub: Hub,
}

struct Version {
    modified: u64,
    created: u64,
    /// `None`: deleted.
    value: Option<(Bytes, Option<Attachment>)>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }
}

fn record(key: &Key, version: &Version) -> Option<Record> {
    let (value, attachment) = version.value.clone()?;
    let (created, modified) = (Revision(version.created), Revision(version.modified));
    Some(Record { key: key.clone(), value, created, modified, attachment })
}

impl State {
    /// The state of a key at a revision.
    fn at(&self, key: &Key, revision: u64) -> Option<Record> {
        let version = self.keys.get(key)?.iter().rev().find(|v| v.modified <= revision)?;
        record(key, version)
    }

    fn readable(&self, asked: Revision) -> Result<u64, StoreError> {
        if asked.0 > self.revision {
            return Err(StoreError::Future { asked, newest: Revision(self.revision) });
        }
        if asked.0 < self.compacted {
            return Err(StoreError::Compacted { asked, oldest: Revision(self.compacted) });
        }
        Ok(asked.0)
    }

    fn event(&self, revision: u64, key: &Key) -> Option<Event> {
        let previous = self.at(key, revision - 1);
        match self.at(key, revision) {
            Some(record) => Some(Event::Put { record, previous }),
            None => Some(Event::Delete { previous: previous?, revision: Revision(revision) }),
        }
    }

    fn write(&mut self, write: Write) -> Result<Written, StoreError> {
        if self.closed {
            return Err(StoreError::Closed);
        }
        let found = self.at(&write.key, self.revision);
        write.expect.check(&write.key, found.as_ref())?;
        let created = found.as_ref().map(|r| r.created);
        if matches!(write.change, Change::Delete) && found.is_none() {
            return match write.expect {
                Expect::Any => Ok(Written { revision: Revision(self.revision), created: Revision(self.revision) }),
                _ => Err(StoreError::Conflict { key: write.key, found: None }),
            };
        }
        let revision = self.revision + 1;
        let created = created.map_or(revision, |r| r.0);
        let value = match write.change {
            Change::Put { value, attachment } => Some((value, attachment)),
            Change::Delete => None,
        };
        let version = Version { modified: revision, created, value };
        self.keys.entry(write.key.clone()).or_default().push(version);
        self.log.insert(revision, write.key.clone());
        if let Some(event) = self.event(revision, &write.key) {
            self.hub.publish(&Arc::from([event]), Revision(revision));
        }
        self.revision = revision;
        Ok(Written { revision: Revision(revision), created: Revision(created) })
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn get(&self, key: &str) -> Result<Option<Record>, StoreError> {
        let state = self.0.lock();
        Ok(state.at(&Key::from(key), state.revision))
    }

    async fn range(&self, request: RangeRequest) -> Result<Range, StoreError> {
        let state = self.0.lock();
        let at = request.at.map_or(Ok(state.revision), |at| state.readable(at))?;
        let keys = state.keys.keys().filter(|key| {
            key.starts_with(request.prefix.as_str()) && request.after.as_ref().is_none_or(|after| *key > after)
        });
        let mut records = keys.filter_map(|key| state.at(key, at));
        let page: Vec<Record> = records.by_ref().take(request.limit.unwrap_or(usize::MAX)).collect();
        let remaining = records.count() as u64;
        Ok(Range { records: page, revision: Revision(at), remaining })
    }

    async fn write(&self, write: Write) -> Result<Written, StoreError> {
        check_size(&write)?;
        self.0.lock().write(write)
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        let mut state = self.0.lock();
        let after = state.readable(after)?;
        let changed = state.log.range(after + 1..).filter(|(_, key)| key.starts_with(prefix));
        let backlog = changed.filter_map(|(revision, key)| state.event(*revision, key)).collect();
        let revision = Revision(state.revision);
        Ok(state.hub.subscribe(prefix, backlog, revision))
    }

    async fn compact(&self, revision: Revision) -> Result<(), StoreError> {
        let mut state = self.0.lock();
        let upto = state.readable(revision)?;
        state.compacted = upto;
        let gone = state.log.split_off(&(upto + 1));
        let touched: BTreeSet<Key> = std::mem::replace(&mut state.log, gone).into_values().collect();
        for key in touched {
            let Some(versions) = state.keys.get_mut(&key) else { continue };
            let live = versions.iter().rposition(|v| v.modified <= upto).unwrap_or(0);
            versions.drain(..live);
            // A deletion is not remembered, once nobody can ask for what was before.
            if versions.first().is_some_and(|v| v.modified <= upto && v.value.is_none()) {
                versions.remove(0);
            }
            if versions.is_empty() {
                state.keys.remove(&key);
            }
        }
        Ok(())
    }

    fn oldest(&self) -> Revision {
        Revision(self.0.lock().compacted)
    }

    fn revision(&self) -> Revision {
        Revision(self.0.lock().revision)
    }

    fn failure(&self) -> Option<StoreError> {
        None
    }

    async fn close(&self) {
        let mut state = self.0.lock();
        state.closed = true;
        state.hub.close();
    }
}
