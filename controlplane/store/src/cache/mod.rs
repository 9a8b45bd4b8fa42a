//! The watch cache of one kind: every object shared, with the JSON that clients read beside it, and recent changes.
//!
//! GET and LIST answer from it with ready bytes; a change is encoded once for all watchers, however many there are. A
//! watcher that falls behind is cut off, never waited for.
//!
//! What is stored is an object's JSON without `resourceVersion`. A writer in this process hands the object itself along
//! as an [`ObjectAttachment`]; the cache takes it out, gives it its revision and shares it: nothing is decoded or copied.

mod entry;
mod watchers;

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    sync::Arc,
    time::Duration,
};

use parking_lot::RwLock;
use podium_api::{KindRef, ObjectKey, Revision};
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
};

pub use entry::{Entry, ObjectAttachment, stored_value};
pub use watchers::{CacheWatch, CutOff, EventKind, Filter, ObjectDelta, WatchItem, WatchRequest};

use crate::{Event, RangeRequest, Store, StoreError, Watch, WatchBatch, hub::SentRevision};
use watchers::{CacheEvent, Watchers};

/// Bounds of a cache.
#[derive(Debug, Clone)]
pub struct CacheConfig {
    /// Recent changes kept for watchers that come back.
    pub events_max: usize,
    /// Bytes of JSON that those changes may hold.
    pub event_bytes_max: usize,
    /// Changes that may wait for one watcher.
    pub queue_max: usize,
    /// The field whose selectors are indexed, for example `spec.nodeName`.
    pub indexed_field: Option<&'static str>,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self { events_max: 8192, event_bytes_max: 32 << 20, queue_max: 4096, indexed_field: None }
    }
}

/// Why a cache cannot answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CacheError {
    /// The store said so.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Changes after `asked` are no longer all known.
    #[error("too old resource version: {asked} ({oldest})")]
    TooOld {
        /// The revision asked for.
        asked: Revision,
        /// The oldest that a watch can begin after.
        oldest: Revision,
    },
    /// The revision has not been reached in time.
    #[error("Too large resource version: {asked}, current: {newest}")]
    TooNew {
        /// The revision asked for.
        asked: Revision,
        /// The newest revision.
        newest: Revision,
    },
}

/// The watch cache of one kind.
pub struct Cache {
    kind: KindRef,
    config: CacheConfig,
    prefix: String,
    store: Arc<dyn Store>,
    state: RwLock<State>,
    applied: watch::Sender<u64>,
    sent: RwLock<SentRevision>,
    task: RwLock<Option<JoinHandle<()>>>,
}

struct State {
    objects: BTreeMap<ObjectKey, Arc<Entry>>,
    recent: VecDeque<Arc<CacheEvent>>,
    recent_bytes: usize,
    /// All changes after this revision are in `recent`.
    forgotten: Revision,
    watchers: Watchers,
}

impl Cache {
    /// Reads all objects under `prefix` (which ends with `/`), then follows their changes.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn start(
        store: Arc<dyn Store>,
        kind: KindRef,
        prefix: impl Into<String>,
        config: CacheConfig,
    ) -> Result<Arc<Self>, CacheError> {
        let prefix = prefix.into();
        let (objects, revision, changes) = open(&*store, &kind, &prefix).await?;
        let state = State {
            objects,
            recent: VecDeque::new(),
            recent_bytes: 0,
            forgotten: revision,
            watchers: Watchers::new(kind.clone(), config.indexed_field, config.queue_max),
        };
        let cache = Arc::new(Self {
            kind,
            config,
            prefix,
            store,
            state: RwLock::new(state),
            applied: watch::Sender::new(revision.0),
            sent: RwLock::new(changes.sent()),
            task: RwLock::new(None),
        });
        let follower = Arc::downgrade(&cache);
        *cache.task.write() = Some(tokio::spawn(follow(follower, changes)));
        Ok(cache)
    }

    /// The kind cached.
    pub fn kind(&self) -> &KindRef {
        &self.kind
    }

    /// Every change up to this revision is in.
    pub fn revision(&self) -> Revision {
        // In this order: what is sent after the store was asked has a higher revision than what it said.
        let newest = self.store.revision();
        let sent = self.sent.read().get();
        let applied = Revision(*self.applied.borrow());
        if applied >= sent { newest.max(applied) } else { applied }
    }

    /// Waits until every change up to `revision` is in.
    ///
    /// # Errors
    /// `TooNew` when that takes longer than `timeout`.
    pub async fn wait_for(&self, revision: Revision, timeout: Duration) -> Result<(), CacheError> {
        if self.revision() >= revision {
            return Ok(());
        }
        let mut applied = self.applied.subscribe();
        let reached = async {
            // A revision of another kind never comes by as a change of this one.
            while self.revision() < revision {
                let next = tokio::time::timeout(Duration::from_millis(50), applied.changed()).await;
                if matches!(next, Ok(Err(_))) {
                    return;
                }
            }
        };
        match tokio::time::timeout(timeout, reached).await {
            Ok(()) if self.revision() >= revision => Ok(()),
            _ => Err(CacheError::TooNew { asked: revision, newest: self.revision() }),
        }
    }

    /// One object.
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<Entry>> {
        self.state.read().objects.get(key).cloned()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.state.read().objects.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Objects in key order, all of one revision: all or those of one namespace, after a key, at most `limit`.
    pub fn list(&self, namespace: Option<&str>, after: Option<&ObjectKey>, limit: Option<usize>) -> Listing {
        let state = self.state.read();
        let start = match (after, namespace) {
            (Some(after), _) => Bound::Excluded(after.clone()),
            (None, Some(namespace)) => Bound::Included(ObjectKey::new(namespace, "")),
            (None, None) => Bound::Unbounded,
        };
        let inside = |key: &ObjectKey| namespace.is_none_or(|n| key.namespace == n);
        let mut found = state.objects.range((start, Bound::Unbounded)).take_while(|(key, _)| inside(key));
        let entries: Vec<_> =
            found.by_ref().take(limit.unwrap_or(usize::MAX)).map(|(_, entry)| entry.clone()).collect();
        let remaining = if limit.is_some() { found.count() } else { 0 };
        // Under the lock, so that it is the revision of what was read.
        Listing { entries, revision: self.revision(), remaining }
    }

    /// Follows changes after `request.after`, or from now on, with what is there now first.
    ///
    /// # Errors
    /// `TooOld` when changes since then are no longer all known.
    pub fn watch(&self, request: WatchRequest) -> Result<CacheWatch, CacheError> {
        let mut state = self.state.write();
        let revision = self.revision();
        let backlog = match request.after {
            Some(after) if after < state.forgotten => {
                return Err(CacheError::TooOld { asked: after, oldest: state.forgotten });
            }
            Some(after) => {
                let from = state.recent.partition_point(|e| e.revision <= after);
                state.recent.range(from..).filter_map(|event| request.matching(event)).collect()
            }
            None => {
                let there = state.objects.values().filter(|e| request.matches(&*e.object));
                there.map(|entry| WatchItem::added(entry.clone())).collect()
            }
        };
        Ok(state.watchers.subscribe(request, backlog, revision))
    }

    /// First every object there is (of one namespace or matching a field, when the request says so), then each change:
    /// whole objects for drivers in this process. Never cut off: the consumer must only take note.
    pub fn subscribe(&self, request: WatchRequest) -> mpsc::UnboundedReceiver<ObjectDelta> {
        let mut state = self.state.write();
        let there: Vec<_> = state.objects.values().filter(|e| request.matches(&*e.object)).cloned().collect();
        state.watchers.subscribe_objects(request, there)
    }

    /// Watchers and subscribers now.
    pub fn watchers(&self) -> usize {
        self.state.read().watchers.len()
    }

    fn apply(&self, batch: &WatchBatch) {
        let Some(last) = batch.events.last().map(Event::revision) else { return };
        let mut state = self.state.write();
        for event in batch.events.iter() {
            match self.take_in(&mut state, event) {
                Ok(()) => {}
                Err(error) => tracing::error!(key = %event.key(), %error, "a stored object cannot be read; skipped"),
            }
        }
        state.forget_old(&self.config);
        self.applied.send_replace(last.0);
    }

    fn take_in(&self, state: &mut State, event: &Event) -> Result<(), podium_api::ApiError> {
        let event = match event {
            Event::Put { record, .. } => {
                let entry = Arc::new(Entry::of(&self.kind, record)?);
                let old = state.objects.insert(entry.key.clone(), entry.clone());
                CacheEvent::put(entry, old)
            }
            Event::Delete { previous, revision } => {
                let Some(key) = key_of(&self.prefix, &previous.key) else { return Ok(()) };
                let Some(old) = state.objects.remove(&key) else { return Ok(()) };
                CacheEvent::delete(old, *revision)
            }
        };
        let event = Arc::new(event);
        state.watchers.publish(&event);
        state.recent_bytes += event.bytes();
        state.recent.push_back(event);
        Ok(())
    }

    /// Starts over from the store after the follower was cut off: watchers are cut off too, subscribers are told the
    /// difference.
    async fn reopen(&self) -> Result<Watch, CacheError> {
        let (objects, revision, changes) = open(&*self.store, &self.kind, &self.prefix).await?;
        let mut state = self.state.write();
        let old = std::mem::replace(&mut state.objects, objects);
        let new = state.objects.clone();
        state.watchers.restart(&old, &new, revision);
        state.recent.clear();
        state.recent_bytes = 0;
        state.forgotten = revision;
        *self.sent.write() = changes.sent();
        self.applied.send_replace(revision.0);
        Ok(changes)
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        if let Some(task) = self.task.get_mut().take() {
            task.abort();
        }
    }
}

/// What a list found.
#[derive(Debug, Clone)]
pub struct Listing {
    /// The objects.
    pub entries: Vec<Arc<Entry>>,
    /// The revision of which this is the state.
    pub revision: Revision,
    /// How many more there are behind the limit.
    pub remaining: usize,
}

impl State {
    fn forget_old(&mut self, config: &CacheConfig) {
        while self.recent.len() > config.events_max || self.recent_bytes > config.event_bytes_max {
            let Some(event) = self.recent.pop_front() else { return };
            self.recent_bytes -= event.bytes();
            self.forgotten = event.revision;
        }
    }
}

/// `prefix` + `namespace/name`, or `prefix` + `name`.
fn key_of(prefix: &str, key: &str) -> Option<ObjectKey> {
    let rest = key.strip_prefix(prefix)?;
    Some(match rest.split_once('/') {
        Some((namespace, name)) => ObjectKey::new(namespace, name),
        None => ObjectKey::cluster(rest),
    })
}

async fn open(
    store: &dyn Store,
    kind: &KindRef,
    prefix: &str,
) -> Result<(BTreeMap<ObjectKey, Arc<Entry>>, Revision, Watch), CacheError> {
    let all = RangeRequest { prefix: prefix.to_owned(), after: None, limit: None, at: None };
    let range = store.range(all).await?;
    let changes = store.watch(prefix, range.revision).await?;
    let mut objects = BTreeMap::new();
    for record in &range.records {
        match Entry::of(kind, record) {
            Ok(entry) => {
                objects.insert(entry.key.clone(), Arc::new(entry));
            }
            Err(error) => tracing::error!(key = %record.key, %error, "a stored object cannot be read; skipped"),
        }
    }
    Ok((objects, range.revision, changes))
}

/// Takes in changes until the store closes or the cache is dropped.
async fn follow(cache: std::sync::Weak<Cache>, mut changes: Watch) {
    loop {
        while let Some(batch) = changes.recv().await {
            let Some(cache) = cache.upgrade() else { return };
            cache.apply(&batch);
        }
        let Some(cache) = cache.upgrade() else { return };
        match cache.reopen().await {
            Ok(again) => changes = again,
            Err(CacheError::Store(StoreError::Closed | StoreError::Failed(_))) => {
                cache.state.write().watchers.close();
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "the cache could not start over; trying again");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}
