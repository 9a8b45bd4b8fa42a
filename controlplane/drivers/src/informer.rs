//! [`Informer`]: one kind as the drivers see it: its mirror, an index by owner uid, the names that have just become free, and
//! how far all have got.
//!
//! Invariant: when [`Informer::seen`] shows a revision, mirror and index hold every change up to it, and the keys that
//! those changes concern have been queued. Shared by all controllers that name the kind.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use jiff::Timestamp;
use parking_lot::RwLock;
use podium_api::{ApiError, KindRef, Names, Object, ObjectKey, Revision};
use podium_api::{Kind as _, k8s_openapi::api::coordination::v1::Lease};
use podium_client::{Api, ClockRef, Delta, Mirror, MirrorScope};
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};

/// How many deltas are taken in at a time.
const BATCH_MAX: usize = 256;
/// How long a mirror may take to become ready.
const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// Names that have become free, at most so many: of more than these the oldest are forgotten.
const FREED_MAX: usize = 4096;

/// A kind's identity: group and kind.
pub(crate) type KindId = (&'static str, &'static str);

/// The identity in these names.
pub(crate) fn kind_id(names: &Names) -> KindId {
    (names.group, names.kind)
}

pub(crate) struct Informer {
    pub(crate) kind: KindRef,
    mirror: Arc<dyn Mirror>,
    indexes: RwLock<Indexes>,
    clock: ClockRef,
    seen: AtomicU64,
    /// Wakes whoever waits for a revision, in the order in which they began to: a watch channel wakes by chance, and a
    /// simulation would not come out the same twice.
    moved: Notify,
}

/// What is taken in together: whoever misses an object in one finds it in the other.
#[derive(Default)]
struct Indexes {
    owners: OwnerIndex,
    freed: Freed,
    /// When each Lease was seen to change; nothing of other kinds.
    changed: HashMap<ObjectKey, Instant>,
}

/// Names that have become free.
#[derive(Default)]
struct Freed {
    at: HashMap<ObjectKey, Timestamp>,
    /// The same, newest last.
    order: VecDeque<(Timestamp, ObjectKey)>,
}

/// Owner uid -> the objects that refer to it. Under the empty uid: the objects that no controller owns.
type OwnerIndex = HashMap<String, BTreeMap<ObjectKey, Arc<dyn Object>>>;

/// Somebody told of each delta, after the index holds it.
pub(crate) type Listener = Box<dyn Fn(&Delta) + Send + Sync>;

impl Informer {
    /// Opens the mirror; the objects held now are in when this returns, with their deltas still to be pumped.
    pub(crate) async fn open(
        api: &dyn Api,
        kind: KindRef,
        clock: ClockRef,
    ) -> Result<(Arc<Self>, mpsc::UnboundedReceiver<Delta>), ApiError> {
        let names = kind.names();
        let mirror = tokio::time::timeout(READY_TIMEOUT, api.mirror(&kind, MirrorScope::default()));
        let mirror = mirror.await.map_err(|_| {
            let seconds = READY_TIMEOUT.as_secs();
            ApiError::new(podium_api::Reason::Timeout, format!("no mirror of {} within {seconds} s", names.plural))
        })??;
        let deltas = mirror.subscribe();
        let (indexes, seen, moved) = (RwLock::default(), AtomicU64::new(0), Notify::new());
        let informer = Self { kind, mirror, indexes, clock, seen, moved };
        Ok((Arc::new(informer), deltas))
    }

    /// Takes in deltas until there will be no more, which is not expected while the API lives.
    pub(crate) async fn pump(&self, deltas: &mut mpsc::UnboundedReceiver<Delta>, listeners: &[Listener]) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        while deltas.recv_many(&mut batch, BATCH_MAX).await > 0 {
            self.take_in(&batch, listeners);
            batch.clear();
            // A long backlog must not starve the reconciles on a small machine.
            tokio::task::yield_now().await;
        }
    }

    /// Takes in what has been delivered already.
    pub(crate) fn catch_up(&self, deltas: &mut mpsc::UnboundedReceiver<Delta>, listeners: &[Listener]) {
        let mut batch = Vec::new();
        while let Ok(delta) = deltas.try_recv() {
            batch.push(delta);
        }
        self.take_in(&batch, listeners);
    }

    fn take_in(&self, batch: &[Delta], listeners: &[Listener]) {
        let now = self.clock.now();
        let is_lease = kind_id(&self.kind.names()) == kind_id(&Lease::NAMES);
        let mut indexes = self.indexes.write();
        for delta in batch {
            index(&mut indexes.owners, delta);
            if let Delta::Delete { old, .. } = delta {
                indexes.freed.add(old.key(), now);
            }
            if is_lease {
                indexes.note_change(delta);
            }
        }
        drop(indexes);
        for delta in batch {
            listeners.iter().for_each(|listener| listener(delta));
        }
        let newest = batch.iter().map(revision_of).max().unwrap_or_default();
        self.seen.fetch_max(newest.0, SeqCst);
        self.moved.notify_waiters();
    }

    pub(crate) fn get(&self, key: &ObjectKey) -> Option<Arc<dyn Object>> {
        self.mirror.get(key)
    }

    pub(crate) fn list(&self, namespace: Option<&str>) -> Vec<Arc<dyn Object>> {
        self.mirror.list(namespace)
    }

    pub(crate) fn owned_by(&self, uid: &str) -> Vec<Arc<dyn Object>> {
        self.indexes.read().owners.get(uid).map(|owned| owned.values().cloned().collect()).unwrap_or_default()
    }

    fn freed(&self, key: &ObjectKey) -> Option<Timestamp> {
        self.indexes.read().freed.at.get(key).copied()
    }

    fn unchanged_for(&self, key: &ObjectKey) -> Option<Duration> {
        self.indexes.read().changed.get(key).map(Instant::elapsed)
    }

    /// Waits until everything up to `revision` is in.
    pub(crate) async fn reached(&self, revision: Revision) {
        self.until(|| self.seen.load(SeqCst) >= revision.0).await;
    }

    /// Waits until the object with this uid is gone or on its way out.
    pub(crate) async fn gone(&self, key: &ObjectKey, uid: &str) {
        let is_gone = || {
            let there = self.get(key).filter(|o| o.uid() == uid && o.meta().deletion_timestamp.is_none());
            there.is_none()
        };
        self.until(is_gone).await;
    }

    /// Waits until it is so, as far as deltas that are taken in make it so.
    async fn until(&self, is_so: impl Fn() -> bool) {
        loop {
            let mut moved = std::pin::pin!(self.moved.notified());
            // From here on no delta is missed.
            moved.as_mut().enable();
            if is_so() {
                return;
            }
            moved.await;
        }
    }
}

impl Freed {
    fn add(&mut self, key: ObjectKey, now: Timestamp) {
        if self.order.len() >= FREED_MAX
            && let Some((at, oldest)) = self.order.pop_front()
            // It may have been given again, and have become free again.
            && self.at.get(&oldest) == Some(&at)
        {
            self.at.remove(&oldest);
        }
        self.at.insert(key.clone(), now);
        self.order.push_back((now, key));
    }
}

impl Indexes {
    fn note_change(&mut self, delta: &Delta) {
        match delta {
            Delta::Put { new, .. } => self.changed.insert(new.key(), Instant::now()),
            Delta::Delete { old, .. } => self.changed.remove(&old.key()),
        };
    }
}

fn revision_of(delta: &Delta) -> Revision {
    match delta {
        Delta::Put { new, .. } => new.revision(),
        Delta::Delete { revision, .. } => *revision,
    }
}

fn index(owners: &mut OwnerIndex, delta: &Delta) {
    match delta {
        Delta::Put { old, new } => {
            if let Some(old) = old {
                remove(owners, &**old);
            }
            for uid in owner_uids(&**new) {
                owners.entry(uid.to_owned()).or_default().insert(new.key(), Arc::clone(new));
            }
        }
        Delta::Delete { old, .. } => remove(owners, &**old),
    }
}

fn remove(owners: &mut OwnerIndex, old: &dyn Object) {
    for uid in owner_uids(old) {
        if let Some(owned) = owners.get_mut(uid) {
            owned.remove(&old.key());
            if owned.is_empty() {
                owners.remove(uid);
            }
        }
    }
}

fn owner_uids(object: &dyn Object) -> impl Iterator<Item = &str> {
    let references = object.meta().owner_references.as_deref().unwrap_or_default();
    let uncontrolled = !references.iter().any(|owner| owner.controller == Some(true));
    references.iter().map(|owner| owner.uid.as_str()).chain(uncontrolled.then_some(""))
}

/// The informers that one controller may read, as its `View`. Those of custom resources come and go.
#[derive(Clone, Default)]
pub(crate) struct Views {
    kinds: Arc<RwLock<BTreeMap<KindId, Arc<Informer>>>>,
    since: Option<Timestamp>,
}

impl Views {
    pub(crate) fn new(informers: impl IntoIterator<Item = Arc<Informer>>, since: Timestamp) -> Self {
        let kinds = informers.into_iter().map(|i| (kind_id(&i.kind.names()), i)).collect();
        Self { kinds: Arc::new(RwLock::new(kinds)), since: Some(since) }
    }

    pub(crate) fn informer(&self, names: &Names) -> Option<Arc<Informer>> {
        self.kinds.read().get(&kind_id(names)).cloned()
    }

    pub(crate) fn add(&self, informer: Arc<Informer>) {
        self.kinds.write().insert(kind_id(&informer.kind.names()), informer);
    }

    pub(crate) fn remove(&self, kind: KindId) {
        self.kinds.write().remove(&kind);
    }
}

impl podium_controllers::View for Views {
    fn get(&self, names: &Names, key: &ObjectKey) -> Option<Arc<dyn Object>> {
        self.informer(names)?.get(key)
    }

    fn list(&self, names: &Names, namespace: Option<&str>) -> Vec<Arc<dyn Object>> {
        self.informer(names).map(|i| i.list(namespace)).unwrap_or_default()
    }

    fn owned_by(&self, names: &Names, owner_uid: &str) -> Vec<Arc<dyn Object>> {
        self.informer(names).map(|i| i.owned_by(owner_uid)).unwrap_or_default()
    }

    fn revision(&self, names: &Names) -> Revision {
        self.informer(names).map(|i| i.mirror.revision()).unwrap_or_default()
    }

    fn kinds(&self) -> Vec<KindRef> {
        self.kinds.read().values().map(|informer| informer.kind.clone()).collect()
    }

    fn since(&self) -> Option<Timestamp> {
        self.since
    }

    fn unchanged_for(&self, names: &Names, key: &ObjectKey) -> Option<Duration> {
        self.informer(names)?.unchanged_for(key)
    }

    fn freed(&self, names: &Names, key: &ObjectKey) -> Option<Timestamp> {
        self.informer(names)?.freed(key)
    }
}
