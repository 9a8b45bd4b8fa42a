//! The pump: one task that takes changes from the store into the caches of all kinds.
//!
//! Invariant: [`Progress`] is advanced after every cache has taken in a batch, so that whoever waits for a revision
//! finds it everywhere. Values that cannot be read (another version wrote them) are logged and left out.

use std::{any::Any, collections::HashMap, sync::Arc, time::Duration};

use parking_lot::{Mutex, RwLock};
use podium_api::{AnyKind, ApiError, Revision};
use podium_store::{Attachment, Event, Key, RangeRequest, Record, Store, StoreError, Watch};

use super::{
    ROOT,
    cache::{Cache, Entry, Progress, Taken},
    entry::{Written, take_managed},
};

/// How many records are read at once at load.
const LOAD_PAGE: usize = 5000;

/// The object of a write, handed to the pump so that it is not decoded again.
pub(crate) struct Handed(Mutex<Option<Written>>);

/// Wraps an object for the store.
pub(super) fn attach(written: Written) -> Attachment {
    Arc::new(Handed(Mutex::new(Some(written))))
}

fn handed(attachment: &Attachment) -> Option<Written> {
    let any: &(dyn Any + Send + Sync) = &**attachment;
    any.downcast_ref::<Handed>()?.0.lock().take()
}

/// The caches by the first part of the key behind the root, for example `pods`. Some come and go.
pub(crate) type Caches = Arc<RwLock<HashMap<String, Arc<Cache>>>>;

/// Reads everything that is stored of one kind at a revision.
pub(crate) async fn load(
    store: &dyn Store,
    cache: &Cache,
    at: Revision,
    take: impl Fn(Entry) + Send,
) -> Result<(), StoreError> {
    let mut after = None;
    loop {
        let prefix = cache.prefix().to_owned();
        let page = store.range(RangeRequest { prefix, after, limit: Some(LOAD_PAGE), at: Some(at) }).await?;
        after = page.records.last().map(|r| r.key.clone());
        page.records.iter().filter_map(|record| entry(cache, record)).for_each(&take);
        if page.remaining == 0 || after.is_none() {
            return Ok(());
        }
    }
}

/// Reads one record.
pub(crate) fn entry(cache: &Cache, record: &Record) -> Option<Entry> {
    let read = match record.attachment.as_ref().and_then(handed) {
        Some(written) => Ok(Entry::written(record.key.clone(), written, &record.value, record.modified)),
        None => read(&*cache.kind(), record.key.clone(), &record.value, record.modified),
    };
    read.inspect_err(
        |error| tracing::error!(key = %record.key, %error, "a stored object cannot be read and is left out"),
    )
    .ok()
}

/// Reads a stored object.
pub(crate) fn read(kind: &dyn AnyKind, key: Key, json: &[u8], revision: Revision) -> Result<Entry, ApiError> {
    let mut object = kind.decode_stored(json)?;
    let managed = take_managed(&mut *object);
    Entry::new(key, object, &managed, revision)
}

/// Runs until the store closes.
pub(crate) async fn run(store: Arc<dyn Store>, caches: Caches, progress: Progress, mut watch: Watch) {
    loop {
        while let Some(batch) = watch.recv().await {
            take_in(&caches, &batch.events);
            progress.advance(batch.revision);
        }
        watch = loop {
            match store.watch(ROOT, progress.revision()).await {
                Ok(watch) => break watch,
                Err(StoreError::Closed) => return caches.read().values().for_each(|c| c.close()),
                Err(error) => {
                    tracing::error!(%error, "cannot watch the store; trying again");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        };
    }
}

fn take_in(caches: &Caches, events: &[Event]) {
    let caches = caches.read();
    let mut by_kind: Vec<(&Arc<Cache>, Vec<Taken>)> = Vec::new();
    for event in events {
        let Some(cache) = kind_part(event.key()).and_then(|kind| caches.get(kind)) else { continue };
        let new = match event {
            Event::Put { record, .. } => match entry(cache, record) {
                Some(entry) => Some(entry),
                None => continue,
            },
            Event::Delete { .. } => None,
        };
        let change = (event.key().clone(), event.revision(), new);
        match by_kind.iter_mut().find(|(known, _)| Arc::ptr_eq(known, cache)) {
            Some((_, changes)) => changes.push(change),
            None => by_kind.push((cache, vec![change])),
        }
    }
    for (cache, changes) in by_kind {
        cache.apply(changes);
    }
}

fn kind_part(key: &str) -> Option<&str> {
    key.strip_prefix(ROOT)?.split('/').next()
}
