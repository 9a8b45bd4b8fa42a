//! [`FaultyApi`]: an API that fails as one behind a network does: requests that are late, refused, or done without an
//! answer; watches that are late, stall, break, and start over; wires that are cut for a while.
//!
//! It never lies: what it shows has been so, in that order.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use podium_api::{
    ApiError, KindRef, Object, ObjectKey, Reason, k8s_openapi::apimachinery::pkg::apis::meta::v1::DeleteOptions,
};
use podium_client::{Api, Delta, Mirror, MirrorScope, MirrorStore, ModelApi, Patch};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tokio::{
    sync::mpsc::UnboundedReceiver,
    time::{Instant, sleep, timeout},
};

/// A mirror that nothing happens to still learns how far everything is.
const BOOKMARKS: Duration = Duration::from_secs(5);
/// How long a request waits for a wire that is cut.
const REQUEST: Duration = Duration::from_secs(10);
/// How soon it is noticed that a wire is whole again.
const LOOK: Duration = Duration::from_millis(250);

/// What can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A write is refused: somebody else was quicker.
    Conflict,
    /// A request is refused, nothing is done.
    Refusal,
    /// A request is done, but the answer gets lost.
    LostAnswer,
    /// A watch breaks, and goes on later where it was.
    DroppedWatch,
    /// A watch breaks, and what it has missed is forgotten by then: it starts over with a list.
    Compaction,
    /// A part hears nothing and reaches nobody for a while.
    Partition,
    /// The clock of a part is set.
    ClockJump,
    /// A machine stops, and forgets what ran.
    MachineCrash,
    /// Controllers or scheduler stop, and forget everything.
    PartCrash,
}

/// Every kind of fault.
pub const FAULTS: [Fault; 9] = [
    Fault::Conflict,
    Fault::Refusal,
    Fault::LostAnswer,
    Fault::DroppedWatch,
    Fault::Compaction,
    Fault::Partition,
    Fault::ClockJump,
    Fault::MachineCrash,
    Fault::PartCrash,
];

/// Decides what goes wrong. Shared by all clients of one cluster.
pub struct Faults {
    random: Mutex<SmallRng>,
    on: AtomicBool,
    counts: [AtomicU64; FAULTS.len()],
    lost_creates: Mutex<BTreeMap<String, u32>>,
}

impl Faults {
    /// The faults of a seed.
    pub fn new(seed: u64) -> Self {
        Self {
            random: Mutex::new(SmallRng::seed_from_u64(seed)),
            on: AtomicBool::new(true),
            counts: Default::default(),
            lost_creates: Mutex::default(),
        }
    }

    /// From now on nothing fails.
    pub fn stop(&self) {
        self.on.store(false, Relaxed);
    }

    /// How often each went wrong, in the order of [`FAULTS`].
    pub fn counts(&self) -> [u64; FAULTS.len()] {
        std::array::from_fn(|at| self.counts[at].load(Relaxed))
    }

    /// One more.
    pub fn count(&self, kind: Fault) {
        self.counts[kind as usize].fetch_add(1, Relaxed);
    }

    /// How many creations for an owner (by uid) were done without its controller hearing of it. Until their watch shows
    /// them it may make as many too many.
    pub fn lost_creates(&self, owner: &str) -> u32 {
        self.lost_creates.lock().get(owner).copied().unwrap_or(0)
    }

    fn is_on(&self) -> bool {
        self.on.load(Relaxed)
    }

    fn chance(&self, per_mille: u32) -> bool {
        self.is_on() && self.random.lock().random_range(0..1000) < per_mille
    }

    fn millis(&self, max: u64) -> Duration {
        Duration::from_millis(self.random.lock().random_range(0..max))
    }

    /// What happens to a request; `refusal` is how one is refused.
    fn next(&self, refusal: Fault) -> Option<Fault> {
        let fault = if self.chance(30) {
            refusal
        } else if self.chance(20) {
            Fault::LostAnswer
        } else {
            return None;
        };
        self.count(fault);
        Some(fault)
    }

    async fn on_the_way(&self) {
        if self.chance(100) {
            sleep(self.millis(500)).await;
        }
    }
}

/// The wire between a part and the API.
#[derive(Default)]
pub struct Wire {
    cut_until: Mutex<Option<Instant>>,
}

impl Wire {
    /// It is cut for so long.
    pub fn cut_for(&self, time: Duration) {
        *self.cut_until.lock() = Some(Instant::now() + time);
    }

    /// It is whole again.
    pub fn mend(&self) {
        *self.cut_until.lock() = None;
    }

    fn is_cut(&self) -> bool {
        self.cut_until.lock().is_some_and(|until| Instant::now() < until)
    }

    async fn is_whole(&self) {
        while self.is_cut() {
            sleep(LOOK).await;
        }
    }
}

/// One client's API.
pub struct FaultyApi {
    model: Arc<ModelApi>,
    faults: Arc<Faults>,
    wire: Arc<Wire>,
    mirrors: Mutex<Vec<(&'static str, MirrorScope, Arc<MirrorStore>)>>,
}

impl FaultyApi {
    /// A client of the model.
    pub fn new(model: Arc<ModelApi>, faults: Arc<Faults>, wire: Arc<Wire>) -> Self {
        Self { model, faults, wire, mirrors: Mutex::default() }
    }

    /// Does a request, or not, or does it without an answer. `refusal` is what a refused one hears.
    async fn request<T>(
        &self,
        (kind, refusal): (Fault, ApiError),
        request: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<T, ApiError> {
        self.faults.on_the_way().await;
        if timeout(REQUEST, self.wire.is_whole()).await.is_err() {
            return Err(down());
        }
        let fault = self.faults.next(kind);
        if fault.is_some_and(|fault| fault != Fault::LostAnswer) {
            return Err(refusal);
        }
        let answer = request.await;
        self.faults.on_the_way().await;
        if fault.is_some() || self.wire.is_cut() {
            answer?;
            return Err(ApiError::new(Reason::Timeout, "the answer got lost (a fault of the simulation)"));
        }
        answer
    }
}

fn down() -> ApiError {
    ApiError::new(Reason::ServiceUnavailable, "the server is away (a fault of the simulation)")
}

#[async_trait]
impl Api for FaultyApi {
    async fn mirror(&self, kind: &KindRef, scope: MirrorScope) -> Result<Arc<dyn Mirror>, ApiError> {
        self.faults.on_the_way().await;
        let plural = kind.names().plural;
        let known = |(p, s, store): &(&str, MirrorScope, Arc<MirrorStore>)| {
            (*p == plural && *s == scope).then(|| Arc::clone(store))
        };
        if let Some(store) = self.mirrors.lock().iter().find_map(known) {
            return Ok(store);
        }
        self.wire.is_whole().await;
        let inner = self.model.mirror(kind, scope.clone()).await?;
        let store = Arc::new(MirrorStore::new());
        let deltas = inner.subscribe();
        store.replace(inner.list(None), inner.revision());
        let (faults, wire) = (Arc::clone(&self.faults), Arc::clone(&self.wire));
        let feed = Feed { inner, deltas, store: Arc::downgrade(&store), faults, wire };
        tokio::spawn(feed.run());
        self.mirrors.lock().push((plural, scope, Arc::clone(&store)));
        Ok(store)
    }

    async fn get(&self, kind: &KindRef, key: &ObjectKey) -> Result<Arc<dyn Object>, ApiError> {
        self.request((Fault::Refusal, down()), self.model.get(kind, key)).await
    }

    async fn create(&self, object: Box<dyn Object>) -> Result<Arc<dyn Object>, ApiError> {
        let owner = object.meta().owner_references.iter().flatten().next().map(|o| o.uid.clone());
        let created = self.request((Fault::Refusal, down()), self.model.create(object)).await;
        if let (Some(owner), Err(error)) = (owner, &created)
            && error.reason == Reason::Timeout
        {
            *self.faults.lost_creates.lock().entry(owner).or_default() += 1;
        }
        created
    }

    async fn update(&self, object: Box<dyn Object>, sub: Option<&str>) -> Result<Arc<dyn Object>, ApiError> {
        let conflict = ApiError::modified(&object.names(), &object.key().name);
        self.request((Fault::Conflict, conflict), self.model.update(object, sub)).await
    }

    async fn patch(
        &self,
        kind: &KindRef,
        key: &ObjectKey,
        patch: Patch,
        sub: Option<&str>,
    ) -> Result<Arc<dyn Object>, ApiError> {
        let conflict = ApiError::modified(&kind.names(), &key.name);
        self.request((Fault::Conflict, conflict), self.model.patch(kind, key, patch, sub)).await
    }

    async fn delete(&self, kind: &KindRef, key: &ObjectKey, options: DeleteOptions) -> Result<(), ApiError> {
        self.request((Fault::Refusal, down()), self.model.delete(kind, key, options)).await
    }

    async fn bind(&self, pod: &ObjectKey, uid: &str, node: &str) -> Result<(), ApiError> {
        self.request((Fault::Refusal, down()), self.model.bind(pod, uid, node)).await
    }
}

/// Hands the changes of one kind on, late and with gaps, but always in order.
struct Feed {
    inner: Arc<dyn Mirror>,
    deltas: UnboundedReceiver<Delta>,
    /// Gone when its client is.
    store: Weak<MirrorStore>,
    faults: Arc<Faults>,
    wire: Arc<Wire>,
}

impl Feed {
    async fn run(mut self) {
        loop {
            let Some(store) = self.store.upgrade() else { return };
            let revision = self.inner.revision();
            if self.deltas.is_empty() && !self.wire.is_cut() {
                store.advance(revision);
            }
            drop(store);
            let Ok(delta) = timeout(BOOKMARKS, self.deltas.recv()).await else { continue };
            let Some(delta) = delta else { return };
            let starts_over = self.on_the_way().await;
            let Some(store) = self.store.upgrade() else { return };
            if starts_over {
                while self.deltas.try_recv().is_ok() {}
                store.replace(self.inner.list(None), self.inner.revision());
                continue;
            }
            match delta {
                Delta::Put { new, .. } => store.put(new),
                Delta::Delete { old, revision } => store.delete(&old.key(), revision),
            }
        }
    }

    /// What happens to a change before it is there. Whether what came between is never told.
    async fn on_the_way(&self) -> bool {
        let mut broken = self.wire.is_cut();
        self.wire.is_whole().await;
        if self.faults.chance(15) {
            broken = true;
            sleep(self.faults.millis(10_000)).await;
        } else if self.faults.chance(50) {
            sleep(self.faults.millis(3_000)).await;
        }
        if !broken {
            return false;
        }
        let starts_over = self.faults.chance(600);
        self.faults.count(if starts_over { Fault::Compaction } else { Fault::DroppedWatch });
        starts_over
    }
}
