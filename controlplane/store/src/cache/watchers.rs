//! Who follows a kind: watchers that get ready frames, subscribers that get objects; found by what they ask for.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::{BufMut, Bytes, BytesMut};
use podium_api::{KindRef, Object, ObjectKey, Revision};
use tokio::sync::mpsc;

use super::Entry;

/// Whether an object is wanted.
pub type Filter = Arc<dyn Fn(&dyn Object) -> bool + Send + Sync>;

/// What a watcher wants.
#[derive(Clone, Default)]
pub struct WatchRequest {
    /// Only this namespace.
    pub namespace: Option<String>,
    /// Only this name.
    pub name: Option<String>,
    /// The value that the cache's indexed field must have. Must follow from `filter`.
    pub indexed: Option<String>,
    /// Label and field selectors; `None` wants all.
    pub filter: Option<Filter>,
    /// Only changes after this revision; `None`: first what is there now.
    pub after: Option<Revision>,
}

/// What happened to an object, as a watcher sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// It appeared, or began to match.
    Added,
    /// It changed.
    Modified,
    /// It went, or ceased to match.
    Deleted,
}

impl EventKind {
    /// As it stands in a watch frame.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// A change of the kind, shared by all watchers.
#[derive(Debug)]
pub(crate) struct CacheEvent {
    pub(crate) revision: Revision,
    new: Option<Arc<Entry>>,
    old: Option<Arc<Entry>>,
    /// One for each [`EventKind`], made when first wanted.
    frames: [OnceLock<Bytes>; 3],
    /// The JSON of `old` as it went at `revision`.
    gone: OnceLock<Bytes>,
}

impl CacheEvent {
    pub(crate) fn put(new: Arc<Entry>, old: Option<Arc<Entry>>) -> Self {
        let revision = new.revision;
        Self { revision, new: Some(new), old, frames: Default::default(), gone: OnceLock::new() }
    }

    pub(crate) fn delete(old: Arc<Entry>, revision: Revision) -> Self {
        Self { revision, new: None, old: Some(old), frames: Default::default(), gone: OnceLock::new() }
    }

    /// Bytes that keeping this event keeps.
    pub(crate) fn bytes(&self) -> usize {
        let json = |e: &Option<Arc<Entry>>| e.as_ref().map_or(0, |e| e.json.len());
        json(&self.new) + json(&self.old)
    }

    fn entry(&self, kind: EventKind) -> Option<&Arc<Entry>> {
        if kind == EventKind::Deleted { self.old.as_ref() } else { self.new.as_ref() }
    }

    fn json(&self, kind: EventKind) -> Bytes {
        match (kind, &self.new, &self.old) {
            (EventKind::Deleted, _, Some(old)) => self.gone.get_or_init(|| old.json_at(self.revision)).clone(),
            (_, Some(new), _) => new.json.clone(),
            _ => Bytes::new(),
        }
    }

    fn frame(&self, kind: EventKind) -> Bytes {
        self.frames[kind as usize].get_or_init(|| frame(kind, &self.json(kind))).clone()
    }
}

/// `{"type":"ADDED","object":…}` and a line break.
fn frame(kind: EventKind, json: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(json.len() + 40);
    out.put_slice(b"{\"type\":\"");
    out.put_slice(kind.as_str().as_bytes());
    out.put_slice(b"\",\"object\":");
    out.put_slice(json);
    out.put_slice(b"}\n");
    out.freeze()
}

/// A change as one watcher sees it.
#[derive(Debug, Clone)]
pub struct WatchItem {
    /// What happened.
    pub kind: EventKind,
    event: Arc<CacheEvent>,
}

impl WatchItem {
    /// An object that is there already.
    pub(crate) fn added(entry: Arc<Entry>) -> Self {
        Self { kind: EventKind::Added, event: Arc::new(CacheEvent::put(entry, None)) }
    }

    /// The revision of the change.
    pub fn revision(&self) -> Revision {
        self.event.revision
    }

    /// The object: as it is, or as it was last. For its JSON use [`WatchItem::json`].
    pub fn entry(&self) -> &Arc<Entry> {
        self.event.entry(self.kind).expect("invariant: an event holds the object of every kind it is told as")
    }

    /// The object's JSON, its `resourceVersion` that of the change. Encoded once for all watchers.
    pub fn json(&self) -> Bytes {
        self.event.json(self.kind)
    }

    /// The whole frame, `{"type":…,"object":…}` and a line break. Encoded once for all watchers.
    pub fn frame(&self) -> Bytes {
        self.event.frame(self.kind)
    }
}

impl WatchRequest {
    /// Whether an object is wanted.
    pub fn matches(&self, object: &dyn Object) -> bool {
        let meta = object.meta();
        self.namespace.as_ref().is_none_or(|n| meta.namespace.as_ref() == Some(n))
            && self.name.as_ref().is_none_or(|n| meta.name.as_ref() == Some(n))
            && self.filter.as_ref().is_none_or(|filter| filter(object))
    }

    /// How a change looks through this request.
    pub(crate) fn matching(&self, event: &Arc<CacheEvent>) -> Option<WatchItem> {
        let wanted = |e: &Option<Arc<Entry>>| e.as_ref().is_some_and(|e| self.matches(&*e.object));
        let kind = match (wanted(&event.old), wanted(&event.new)) {
            (false, true) => EventKind::Added,
            (true, true) => EventKind::Modified,
            (true, false) => EventKind::Deleted,
            (false, false) => return None,
        };
        Some(WatchItem { kind, event: event.clone() })
    }
}

/// Why a watch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CutOff {
    /// The watcher was too slow, or the cache started over: 410.
    Behind,
    /// The store closed.
    Closed,
}

/// A watcher's end of a watch.
pub struct CacheWatch {
    backlog: VecDeque<WatchItem>,
    live: mpsc::Receiver<WatchItem>,
    behind: Arc<AtomicBool>,
    /// The revision at which the watch began: all of `backlog` is up to it.
    pub began: Revision,
    initial: usize,
}

impl CacheWatch {
    /// The next change.
    ///
    /// # Errors
    /// The watch has ended.
    pub async fn recv(&mut self) -> Result<WatchItem, CutOff> {
        if let Some(item) = self.backlog.pop_front() {
            return Ok(item);
        }
        match self.live.recv().await {
            Some(item) => Ok(item),
            None if self.behind.load(Ordering::Acquire) => Err(CutOff::Behind),
            None => Err(CutOff::Closed),
        }
    }

    /// The next change, if there is one now.
    pub fn try_recv(&mut self) -> Option<WatchItem> {
        self.backlog.pop_front().or_else(|| self.live.try_recv().ok())
    }

    /// How many items there were when the watch began (what was there, or what had changed since).
    pub fn initial(&self) -> usize {
        self.initial
    }
}

/// A change for a driver in this process.
#[derive(Debug, Clone)]
pub enum ObjectDelta {
    /// An object appeared or changed (or began to match).
    Put {
        /// As it was, if it matched.
        old: Option<Arc<dyn Object>>,
        /// As it is.
        new: Arc<dyn Object>,
    },
    /// An object went (or ceased to match).
    Delete {
        /// As it was last.
        old: Arc<dyn Object>,
        /// When.
        revision: Revision,
    },
}

enum Sink {
    Frames { live: mpsc::Sender<WatchItem>, behind: Arc<AtomicBool> },
    Objects(mpsc::UnboundedSender<ObjectDelta>),
}

struct Watcher {
    request: WatchRequest,
    sink: Sink,
}

/// What a watcher can be found by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Index {
    All,
    Namespace(String),
    Object(String, String),
    Field(String),
}

pub(crate) struct Watchers {
    kind: KindRef,
    indexed_field: Option<&'static str>,
    queue_max: usize,
    next: u64,
    all: HashMap<u64, Watcher>,
    by: HashMap<Index, HashSet<u64>>,
}

impl Watchers {
    pub(crate) fn new(kind: KindRef, indexed_field: Option<&'static str>, queue_max: usize) -> Self {
        Self { kind, indexed_field, queue_max, next: 0, all: HashMap::new(), by: HashMap::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn subscribe(&mut self, request: WatchRequest, backlog: Vec<WatchItem>, began: Revision) -> CacheWatch {
        let (sender, live) = mpsc::channel(self.queue_max);
        let behind = Arc::new(AtomicBool::new(false));
        self.add(Watcher { request, sink: Sink::Frames { live: sender, behind: behind.clone() } });
        CacheWatch { initial: backlog.len(), backlog: backlog.into(), live, behind, began }
    }

    pub(crate) fn subscribe_objects(
        &mut self,
        request: WatchRequest,
        there: Vec<Arc<Entry>>,
    ) -> mpsc::UnboundedReceiver<ObjectDelta> {
        let (sender, receiver) = mpsc::unbounded_channel();
        for entry in there {
            // The receiver is in our hands: it cannot be gone.
            let _ = sender.send(ObjectDelta::Put { old: None, new: entry.object.clone() });
        }
        self.add(Watcher { request, sink: Sink::Objects(sender) });
        receiver
    }

    fn add(&mut self, watcher: Watcher) {
        self.next += 1;
        self.by.entry(self.index_of(&watcher.request)).or_default().insert(self.next);
        self.all.insert(self.next, watcher);
    }

    fn index_of(&self, request: &WatchRequest) -> Index {
        match (&request.indexed, &request.namespace, &request.name) {
            (Some(value), _, _) if self.indexed_field.is_some() => Index::Field(value.clone()),
            (_, namespace, Some(name)) => Index::Object(namespace.clone().unwrap_or_default(), name.clone()),
            (_, Some(namespace), None) => Index::Namespace(namespace.clone()),
            _ => Index::All,
        }
    }

    /// Hands a change to everybody who may want it.
    pub(crate) fn publish(&mut self, event: &Arc<CacheEvent>) {
        let mut gone = Vec::new();
        for index in self.indexes_of(event) {
            let Some(ids) = self.by.get(&index) else { continue };
            for id in ids {
                let Some(watcher) = self.all.get(id) else { continue };
                if !watcher.take(event) {
                    gone.push(*id);
                }
            }
        }
        for id in gone {
            self.remove(id);
        }
    }

    fn indexes_of(&self, event: &CacheEvent) -> Vec<Index> {
        let Some(key) = event.new.as_ref().or(event.old.as_ref()).map(|e| &e.key) else { return Vec::new() };
        let mut indexes = vec![Index::All, Index::Namespace(key.namespace.clone())];
        indexes.push(Index::Object(key.namespace.clone(), key.name.clone()));
        if !key.namespace.is_empty() {
            indexes.push(Index::Object(String::new(), key.name.clone()));
        }
        if let Some(field) = self.indexed_field {
            for entry in [&event.old, &event.new].into_iter().flatten() {
                let value = self.kind.selectable(&*entry.object, field).map(Index::Field);
                indexes.extend(value.filter(|v| !indexes.contains(v)));
            }
        }
        indexes
    }

    fn remove(&mut self, id: u64) {
        let Some(watcher) = self.all.remove(&id) else { return };
        let index = self.index_of(&watcher.request);
        if let Some(ids) = self.by.get_mut(&index) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by.remove(&index);
            }
        }
    }

    /// Cuts off watchers, and tells subscribers what differs, after changes have been missed.
    pub(crate) fn restart(
        &mut self,
        old: &BTreeMap<ObjectKey, Arc<Entry>>,
        new: &BTreeMap<ObjectKey, Arc<Entry>>,
        revision: Revision,
    ) {
        let mut changes: Vec<Arc<CacheEvent>> = Vec::new();
        for (key, before) in old {
            if !new.contains_key(key) {
                changes.push(Arc::new(CacheEvent::delete(before.clone(), revision)));
            }
        }
        for (key, entry) in new {
            let before = old.get(key);
            if before.is_none_or(|b| b.revision != entry.revision) {
                changes.push(Arc::new(CacheEvent::put(entry.clone(), before.cloned())));
            }
        }
        let watchers: Vec<u64> =
            self.all.iter().filter(|(_, w)| matches!(w.sink, Sink::Frames { .. })).map(|(id, _)| *id).collect();
        for id in watchers {
            if let Some(Sink::Frames { behind, .. }) = self.all.get(&id).map(|w| &w.sink) {
                behind.store(true, Ordering::Release);
            }
            self.remove(id);
        }
        for change in &changes {
            self.publish(change);
        }
    }

    /// Ends all.
    pub(crate) fn close(&mut self) {
        self.all.clear();
        self.by.clear();
    }
}

impl Watcher {
    /// `false` when the watcher is gone or has been cut off.
    fn take(&self, event: &Arc<CacheEvent>) -> bool {
        let Some(item) = self.request.matching(event) else { return !self.is_gone() };
        match &self.sink {
            Sink::Frames { live, behind } => match live.try_send(item) {
                Ok(()) => true,
                Err(error) => {
                    if matches!(error, mpsc::error::TrySendError::Full(_)) {
                        behind.store(true, Ordering::Release);
                    }
                    false
                }
            },
            Sink::Objects(sender) => sender.send(delta(&item)).is_ok(),
        }
    }

    fn is_gone(&self) -> bool {
        match &self.sink {
            Sink::Frames { live, .. } => live.is_closed(),
            Sink::Objects(sender) => sender.is_closed(),
        }
    }
}

fn delta(item: &WatchItem) -> ObjectDelta {
    let object = |e: &Arc<Entry>| e.object.clone();
    let old = item.event.old.as_ref().map(object);
    match item.kind {
        EventKind::Deleted => ObjectDelta::Delete { old: object(item.entry()), revision: item.revision() },
        EventKind::Added => ObjectDelta::Put { old: None, new: object(item.entry()) },
        EventKind::Modified => ObjectDelta::Put { old, new: object(item.entry()) },
    }
}
