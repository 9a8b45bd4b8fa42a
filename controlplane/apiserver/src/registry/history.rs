//! Watches from before the window of a cache: what the store still remembers goes in front of what the cache does.
//!
//! Invariant: every change is told once and in order. What the store has compacted cannot be told.

use std::sync::Arc;

use podium_api::Revision;
use podium_store::{Event, Record};

use super::{
    Registry, Resource,
    cache::{Cache, Change, Entry, Feed, Filter},
    pump,
};

/// More changes than this are not read back: a new list is cheaper for both sides.
const CHANGES_MAX: usize = 100_000;

impl Registry {
    /// Watches, from a revision that the store may have to be asked for.
    ///
    /// # Errors
    /// The oldest revision that can be watched from, when `after` is older.
    pub(crate) async fn watch(
        &self,
        resource: &Resource,
        filter: Filter,
        after: Option<Revision>,
    ) -> Result<Feed, Revision> {
        let oldest = match (resource.cache.watch(filter.clone(), after), after) {
            (Ok(feed), _) => return Ok(feed),
            (Err(oldest), None) => return Err(oldest),
            (Err(oldest), Some(_)) => oldest,
        };
        let mut feed = resource.cache.watch(filter, Some(oldest))?;
        let past = self.changes(&resource.cache, after.unwrap_or_default(), oldest).await.ok_or(oldest)?;
        for change in past.into_iter().rev() {
            feed.backlog.push_front(change);
        }
        Ok(feed)
    }

    /// What changed after `after`, up to `last`; `None` when that is forgotten or too much.
    async fn changes(&self, cache: &Cache, after: Revision, last: Revision) -> Option<Vec<Arc<Change>>> {
        let told = self.store().watch(cache.prefix(), after).await;
        let mut watch = told.inspect_err(|error| tracing::debug!(%error, "a watch cannot be resumed")).ok()?;
        let mut changes = Vec::new();
        while let Ok(batch) = watch.try_recv() {
            for event in batch.events.iter().filter(|e| e.revision() <= last) {
                changes.push(Arc::new(change(cache, event)));
                if changes.len() > CHANGES_MAX {
                    return None;
                }
            }
            if batch.revision >= last {
                break;
            }
        }
        Some(changes)
    }
}

fn change(cache: &Cache, event: &Event) -> Change {
    match event {
        Event::Put { record, previous } => {
            Change::new(record.modified, previous.as_ref().and_then(|p| entry(cache, p)), entry(cache, record))
        }
        Event::Delete { previous, revision } => Change::new(*revision, entry(cache, previous), None),
    }
}

/// Reads a record anew: its attachment is for the pump alone.
fn entry(cache: &Cache, record: &Record) -> Option<Arc<Entry>> {
    let read = pump::read(&*cache.kind(), record.key.clone(), &record.value, record.modified);
    read.inspect_err(|error| tracing::error!(key = %record.key, %error, "a stored object cannot be read"))
        .ok()
        .map(Arc::new)
}
