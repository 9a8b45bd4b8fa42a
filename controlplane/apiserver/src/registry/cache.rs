//! The watch cache of one kind: every object with its ready JSON, the recent changes, and those who watch.
//!
//! Invariants: the map is the state after all changes up to [`Progress::revision`]; a change is handed to watchers in
//! the order of revisions; a watcher that does not keep up is cut off, never waited for. Objects and bytes are shared,
//! and a frame is encoded once for all watchers. Filled by [`super::pump`], never by writers.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    ops::Bound,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use podium_api::{AnyKind, FieldSelector, KindRef, Object, Revision, Selector};
use podium_client::Delta;
use podium_store::Key;
use tokio::sync::{mpsc, watch};

pub(crate) use super::entry::Entry;

/// How many changes of one kind are kept for watches that start in the past.
const RING_MAX: usize = 4096;

/// How many changes may wait for a watcher before it is cut off.
const WATCHER_QUEUE: usize = 1024;

/// What happened, as a watcher sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Added,
    Modified,
    Deleted,
}

/// One change of one object.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) revision: Revision,
    pub(crate) old: Option<Arc<Entry>>,
    /// `None`: it was deleted.
    pub(crate) new: Option<Arc<Entry>>,
    frames: [OnceLock<Bytes>; 3],
    gone: OnceLock<Arc<Entry>>,
}

impl Change {
    pub(crate) fn new(revision: Revision, old: Option<Arc<Entry>>, new: Option<Arc<Entry>>) -> Self {
        Self { revision, old, new, frames: Default::default(), gone: OnceLock::new() }
    }

    /// What this is to a watcher with a filter; `None` when it does not concern it.
    pub(crate) fn seen_by(&self, kind: &dyn AnyKind, filter: &Filter) -> Option<What> {
        let matches = |entry: &Option<Arc<Entry>>| entry.as_ref().is_some_and(|e| filter.matches(kind, &*e.object));
        match (matches(&self.old), matches(&self.new)) {
            (false, false) => None,
            (false, true) => Some(What::Added),
            (true, true) => Some(What::Modified),
            (true, false) => Some(What::Deleted),
        }
    }

    /// The object to show: of a deletion the last state, at the revision of the deletion.
    pub(crate) fn entry(&self, what: What) -> Option<&Arc<Entry>> {
        match what {
            What::Added | What::Modified => self.new.as_ref(),
            What::Deleted => {
                let old = self.old.as_ref()?;
                let gone = || {
                    let entry = Entry::new(old.key.clone(), old.object.boxed_clone(), old.managed(), self.revision);
                    entry.map_or_else(|_| old.clone(), Arc::new)
                };
                Some(self.gone.get_or_init(gone))
            }
        }
    }

    /// The JSON frame for watchers, encoded once.
    pub(crate) fn frame(&self, what: What) -> Bytes {
        let Some(entry) = self.entry(what) else { return Bytes::new() };
        self.frames[what as usize].get_or_init(|| frame(what, &entry.json)).clone()
    }
}

/// One event of a watch, as it stands on the wire.
pub(crate) fn frame(what: What, json: &[u8]) -> Bytes {
    let head: &[u8] = match what {
        What::Added => b"{\"type\":\"ADDED\",\"object\":",
        What::Modified => b"{\"type\":\"MODIFIED\",\"object\":",
        What::Deleted => b"{\"type\":\"DELETED\",\"object\":",
    };
    Bytes::from([head, json, b"}\n"].concat())
}

/// Which objects a list or watch is about.
#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    /// Namespace, or empty for all.
    pub(crate) namespace: String,
    pub(crate) labels: Selector,
    pub(crate) fields: FieldSelector,
}

impl Filter {
    /// Whether an object passes.
    pub(crate) fn matches(&self, kind: &dyn AnyKind, object: &dyn Object) -> bool {
        let meta = object.meta();
        (self.namespace.is_empty() || meta.namespace.as_deref() == Some(&self.namespace))
            && (self.labels.is_everything() || self.labels.matches_option(meta.labels.as_ref()))
            && (self.fields.is_everything() || self.fields.matches(kind, object))
    }

    /// Whether everything of the namespace (or of the cluster) passes.
    pub(crate) fn is_plain(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }

    fn index(&self) -> Index {
        if let Some(node) = self.fields.exact(NODE_FIELD) {
            return Index::Node(node.to_owned());
        }
        if self.namespace.is_empty() { Index::All } else { Index::Namespace(self.namespace.clone()) }
    }
}

const NODE_FIELD: &str = "spec.nodeName";

/// Where a watcher is filed, so that a change only meets those whom it may concern.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Index {
    All,
    Namespace(String),
    Node(String),
}

enum Sink {
    Watch(mpsc::Sender<Arc<Change>>),
    Mirror(mpsc::UnboundedSender<Delta>),
}

struct Watcher {
    filter: Filter,
    sink: Sink,
}

/// How far the caches have got.
#[derive(Debug, Clone)]
pub(crate) struct Progress(watch::Sender<u64>);

impl Progress {
    pub(crate) fn new(revision: Revision) -> Self {
        Self(watch::Sender::new(revision.0))
    }

    /// Every change up to this revision is in.
    pub(crate) fn revision(&self) -> Revision {
        Revision(*self.0.borrow())
    }

    pub(crate) fn advance(&self, revision: Revision) {
        self.0.send_if_modified(|r| {
            let ahead = revision.0 > *r;
            *r = revision.0.max(*r);
            ahead
        });
    }

    /// Waits until the caches have reached a revision.
    pub(crate) async fn reached(&self, revision: Revision) {
        if self.revision() < revision {
            // The sender lives in `self`, so that waiting cannot fail.
            let _ = self.0.subscribe().wait_for(|r| *r >= revision.0).await;
        }
    }
}

/// A change that is taken in: when, and what the key holds now.
pub(crate) type Taken = (Key, Revision, Option<Entry>);

#[derive(Default)]
struct State {
    objects: BTreeMap<Key, Arc<Entry>>,
    /// Changes that came while the stored objects are being read.
    loading: Option<Vec<Taken>>,
    ring: VecDeque<Arc<Change>>,
    /// Changes after this one are all in the ring.
    ring_after: Revision,
}

/// The cache of one kind.
pub(crate) struct Cache {
    /// The kind that is stored.
    kind: RwLock<KindRef>,
    prefix: String,
    progress: Progress,
    state: RwLock<State>,
    watchers: Mutex<HashMap<Index, Vec<Watcher>>>,
    /// Goes up after each batch of changes.
    changes: AtomicU64,
}

/// What a list found.
pub(crate) struct Listed {
    pub(crate) entries: Vec<Arc<Entry>>,
    pub(crate) revision: Revision,
}

/// A watch: what has happened since its start revision, then what happens.
pub(crate) struct Feed {
    pub(crate) filter: Filter,
    pub(crate) backlog: VecDeque<Arc<Change>>,
    /// Ends when the watcher is cut off.
    pub(crate) live: mpsc::Receiver<Arc<Change>>,
    /// The state that the changes start from, when asked for.
    pub(crate) initial: Vec<Arc<Entry>>,
    /// The revision of the initial state.
    pub(crate) revision: Revision,
}

impl Cache {
    pub(crate) fn new(kind: KindRef, prefix: String, progress: Progress) -> Self {
        let state = RwLock::new(State { ring_after: progress.revision(), ..State::default() });
        let (watchers, changes) = (Mutex::default(), AtomicU64::new(0));
        Self { kind: RwLock::new(kind), prefix, progress, state, watchers, changes }
    }

    /// The kind that is stored.
    pub(crate) fn kind(&self) -> KindRef {
        self.kind.read().clone()
    }

    /// Replaces the kind: its schema has changed. Objects are to be read again, so that they show its defaults.
    pub(crate) fn set_kind(&self, kind: KindRef) {
        *self.kind.write() = kind;
    }

    /// Shows a stored object as it was read again, unless it has changed since.
    pub(crate) fn reload(&self, entry: Entry) {
        let mut state = self.state.write();
        if let Some(shown) = state.objects.get_mut(&entry.key)
            && shown.revision() == entry.revision()
        {
            *shown = Arc::new(entry);
        }
    }

    /// The prefix of its keys in the store.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(crate) fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The key of an object in the store.
    pub(crate) fn key(&self, namespace: &str, name: &str) -> Key {
        let prefix = &self.prefix;
        if namespace.is_empty() {
            format!("{prefix}{name}").into()
        } else {
            format!("{prefix}{namespace}/{name}").into()
        }
    }

    /// One object.
    pub(crate) fn get(&self, namespace: &str, name: &str) -> Option<Arc<Entry>> {
        self.state.read().objects.get(&self.key(namespace, name)).cloned()
    }

    /// A number that differs once anything has changed. What is read after it is at least as new.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// How many objects there are.
    pub(crate) fn len(&self) -> usize {
        self.state.read().objects.len()
    }

    /// What passes a filter, in key order.
    pub(crate) fn list(&self, filter: &Filter) -> Listed {
        let state = self.state.read();
        Listed { entries: self.select(&state, filter), revision: self.revision(&state) }
    }

    /// The revision that a state is of: a change may be in before the progress of all kinds says so.
    fn revision(&self, state: &State) -> Revision {
        let last = state.ring.back().map(|c| c.revision).unwrap_or_default();
        self.progress.revision().max(last)
    }

    fn select(&self, state: &State, filter: &Filter) -> Vec<Arc<Entry>> {
        let prefix = match filter.namespace.as_str() {
            "" => self.prefix.clone(),
            namespace => format!("{}{namespace}/", self.prefix),
        };
        let start: Bound<&str> = Bound::Included(&prefix);
        let from = state.objects.range::<str, _>((start, Bound::Unbounded));
        let inside = from.take_while(|(key, _)| key.starts_with(&prefix)).map(|(_, entry)| entry);
        if filter.is_plain() {
            return inside.cloned().collect();
        }
        let kind = self.kind();
        inside.filter(|entry| filter.matches(&*kind, &*entry.object)).cloned().collect()
    }

    /// Whether nothing of this kind has changed after a revision; `false` when that is no longer known.
    pub(crate) fn unchanged_since(&self, revision: Revision) -> bool {
        let state = self.state.read();
        match state.ring.back() {
            Some(last) => last.revision <= revision,
            None => state.ring_after <= revision,
        }
    }

    /// The object that a write of this revision left, even when it has changed since.
    pub(crate) fn written(&self, revision: Revision) -> Option<Arc<Entry>> {
        let state = self.state.read();
        let at = state.ring.partition_point(|c| c.revision < revision);
        state.ring.get(at).filter(|c| c.revision == revision)?.new.clone()
    }

    /// Watches: from a revision on, or (`None`) from the present state, which comes along.
    ///
    /// # Errors
    /// The oldest revision that can be watched from, when `after` is older.
    pub(crate) fn watch(&self, filter: Filter, after: Option<Revision>) -> Result<Feed, Revision> {
        let (sender, live) = mpsc::channel(WATCHER_QUEUE);
        // Held over both: no change falls between the backlog and the live stream.
        let mut watchers = self.watchers.lock();
        let state = self.state.read();
        let (mut backlog, mut initial) = (VecDeque::new(), Vec::new());
        match after {
            Some(after) if after < state.ring_after => return Err(state.ring_after),
            Some(after) => {
                let from = state.ring.partition_point(|c| c.revision <= after);
                backlog.extend(state.ring.range(from..).cloned());
            }
            None => initial = self.select(&state, &filter),
        }
        let revision = self.revision(&state);
        let watcher = Watcher { filter: filter.clone(), sink: Sink::Watch(sender) };
        watchers.entry(filter.index()).or_default().push(watcher);
        Ok(Feed { filter, backlog, live, initial, revision })
    }

    /// First every object that passes, then every change, without bound.
    pub(crate) fn subscribe(&self, filter: Filter) -> mpsc::UnboundedReceiver<Delta> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut watchers = self.watchers.lock();
        let state = self.state.read();
        for entry in self.select(&state, &filter) {
            let _ = sender.send(Delta::Put { old: None, new: entry.object.clone() });
        }
        watchers.entry(filter.index()).or_default().push(Watcher { filter, sink: Sink::Mirror(sender) });
        receiver
    }

    /// Puts an object in at load, before there are watchers.
    pub(crate) fn load(&self, entry: Entry) {
        self.state.write().objects.insert(entry.key.clone(), Arc::new(entry));
    }

    /// Puts these in place of all that there is, for kinds that are computed and so cannot be watched.
    pub(crate) fn replace(&self, entries: Vec<Entry>) {
        let objects = entries.into_iter().map(|entry| (entry.key.clone(), Arc::new(entry))).collect();
        self.state.write().objects = objects;
    }

    /// Changes are put aside until [`Cache::loaded`], while the stored objects are being read.
    pub(crate) fn begin_loading(&self) {
        self.state.write().loading = Some(Vec::new());
    }

    /// All that was stored at a revision has been read: what came since is taken in.
    pub(crate) fn loaded(&self, at: Revision) {
        // Held over both, as in `apply`: no later change overtakes those that waited.
        let mut watchers = self.watchers.lock();
        let waiting = {
            let mut state = self.state.write();
            state.ring_after = at;
            state.loading.take().unwrap_or_default()
        };
        self.apply_to(&mut watchers, waiting.into_iter().filter(|(_, revision, _)| *revision > at).collect());
    }

    /// Takes in changes of one batch, in order, and tells those whom they concern.
    pub(crate) fn apply(&self, changes: Vec<Taken>) {
        self.apply_to(&mut self.watchers.lock(), changes);
    }

    fn apply_to(&self, watchers: &mut HashMap<Index, Vec<Watcher>>, changes: Vec<Taken>) {
        let mut applied = Vec::with_capacity(changes.len());
        {
            let mut state = self.state.write();
            if let Some(waiting) = &mut state.loading {
                waiting.extend(changes);
                return;
            }
            for (key, revision, entry) in changes {
                let new = entry.map(Arc::new);
                let old = match &new {
                    Some(new) => state.objects.insert(key, new.clone()),
                    None => state.objects.remove(&key),
                };
                let change = Arc::new(Change::new(revision, old, new));
                state.ring.push_back(change.clone());
                applied.push(change);
            }
            while state.ring.len() > RING_MAX {
                state.ring_after = state.ring.pop_front().map_or(state.ring_after, |c| c.revision);
            }
        }
        self.changes.fetch_add(1, Ordering::Release);
        for change in &applied {
            self.tell(watchers, change);
        }
    }

    fn tell(&self, watchers: &mut HashMap<Index, Vec<Watcher>>, change: &Arc<Change>) {
        let kind = self.kind();
        for index in indexes(&*kind, change) {
            let Some(list) = watchers.get_mut(&index) else { continue };
            list.retain(|watcher| watcher.offer(&*kind, change));
            if list.is_empty() {
                watchers.remove(&index);
            }
        }
    }

    /// How many watch; those that went away count until the next change that concerns them.
    pub(crate) fn watchers(&self) -> usize {
        self.watchers.lock().values().map(Vec::len).sum()
    }

    /// Ends all watches.
    pub(crate) fn close(&self) {
        self.watchers.lock().clear();
    }
}

/// Where those are filed whom a change may concern.
fn indexes(kind: &dyn AnyKind, change: &Change) -> Vec<Index> {
    let mut out = vec![Index::All];
    for entry in [&change.old, &change.new].into_iter().flatten() {
        let mut add = |index| {
            if !out.contains(&index) {
                out.push(index);
            }
        };
        if let Some(namespace) = &entry.object.meta().namespace {
            add(Index::Namespace(namespace.clone()));
        }
        if let Some(node) = kind.selectable(&*entry.object, NODE_FIELD) {
            add(Index::Node(node));
        }
    }
    out
}

impl Watcher {
    /// Hands a change on; `false` when the watcher is gone or cannot keep up.
    fn offer(&self, kind: &dyn AnyKind, change: &Arc<Change>) -> bool {
        let Some(what) = change.seen_by(kind, &self.filter) else { return !self.closed() };
        match &self.sink {
            Sink::Watch(sender) => sender.try_send(change.clone()).is_ok(),
            Sink::Mirror(sender) => delta(change, what).is_none_or(|delta| sender.send(delta).is_ok()),
        }
    }

    fn closed(&self) -> bool {
        match &self.sink {
            Sink::Watch(sender) => sender.is_closed(),
            Sink::Mirror(sender) => sender.is_closed(),
        }
    }
}

fn delta(change: &Change, what: What) -> Option<Delta> {
    let object = |entry: &Option<Arc<Entry>>| entry.as_ref().map(|e| e.object.clone());
    Some(match what {
        What::Added => Delta::Put { old: None, new: object(&change.new)? },
        What::Modified => Delta::Put { old: object(&change.old), new: object(&change.new)? },
        What::Deleted => Delta::Delete { old: object(&change.old)?, revision: change.revision },
    })
}
