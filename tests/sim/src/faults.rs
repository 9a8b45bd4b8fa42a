//! [`FaultyApi`]: an API that fails as one behind a network does: requests that are late, refused, or done without an
//! answer; watches that are late, stall, and start over.
//!
//! It never lies: what it shows has been so, in that order.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
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
use tokio::{sync::mpsc::UnboundedReceiver, time::sleep};

/// A mirror that nothing happens to still learns how far everything is.
const BOOKMARKS: Duration = Duration::from_secs(5);

/// Decides what goes wrong. Shared by all clients of one cluster.
pub struct Faults {
    random: Mutex<SmallRng>,
    on: AtomicBool,
    count: AtomicU64,
    lost_creates: Mutex<BTreeMap<String, u32>>,
}

/// What happens to a request.
enum Fault {
    None,
    /// It is refused and nothing is done.
    Refused,
    /// It is done, but the answer gets lost.
    Unanswered,
}

impl Faults {
    /// The faults of a seed.
    pub fn new(seed: u64) -> Self {
        Self {
            random: Mutex::new(SmallRng::seed_from_u64(seed)),
            on: AtomicBool::new(true),
            count: AtomicU64::new(0),
            lost_creates: Mutex::default(),
        }
    }

    /// From now on nothing fails.
    pub fn stop(&self) {
        self.on.store(false, Relaxed);
    }

    /// How many requests failed.
    pub fn count(&self) -> u64 {
        self.count.load(Relaxed)
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

    fn next(&self) -> Fault {
        let fault = if self.chance(30) {
            Fault::Refused
        } else if self.chance(20) {
            Fault::Unanswered
        } else {
            return Fault::None;
        };
        self.count.fetch_add(1, Relaxed);
        fault
    }

    async fn on_the_way(&self) {
        if self.chance(100) {
            sleep(self.millis(500)).await;
        }
    }
}

/// One client's API.
pub struct FaultyApi {
    model: Arc<ModelApi>,
    faults: Arc<Faults>,
    mirrors: Mutex<Vec<(&'static str, MirrorScope, Arc<MirrorStore>)>>,
}

impl FaultyApi {
    /// A client of the model.
    pub fn new(model: Arc<ModelApi>, faults: Arc<Faults>) -> Self {
        Self { model, faults, mirrors: Mutex::default() }
    }

    /// Does a request, or not, or does it without an answer. `refusal` is what a refused one hears.
    async fn request<T>(
        &self,
        refusal: ApiError,
        request: impl Future<Output = Result<T, ApiError>>,
    ) -> Result<T, ApiError> {
        self.faults.on_the_way().await;
        match self.faults.next() {
            Fault::Refused => Err(refusal),
            Fault::Unanswered => {
                request.await?;
                self.faults.on_the_way().await;
                Err(ApiError::new(Reason::Timeout, "the answer got lost (a fault of the simulation)"))
            }
            Fault::None => {
                let answer = request.await;
                self.faults.on_the_way().await;
                answer
            }
        }
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
        let inner = self.model.mirror(kind, scope.clone()).await?;
        let store = Arc::new(MirrorStore::new());
        let deltas = inner.subscribe();
        store.replace(inner.list(None), inner.revision());
        tokio::spawn(feed(inner, deltas, Arc::clone(&store), Arc::clone(&self.faults)));
        self.mirrors.lock().push((plural, scope, Arc::clone(&store)));
        Ok(store)
    }

    async fn get(&self, kind: &KindRef, key: &ObjectKey) -> Result<Arc<dyn Object>, ApiError> {
        self.request(down(), self.model.get(kind, key)).await
    }

    async fn create(&self, object: Box<dyn Object>) -> Result<Arc<dyn Object>, ApiError> {
        let owner = object.meta().owner_references.iter().flatten().next().map(|o| o.uid.clone());
        let created = self.request(down(), self.model.create(object)).await;
        if let (Some(owner), Err(error)) = (owner, &created)
            && error.reason == Reason::Timeout
        {
            *self.faults.lost_creates.lock().entry(owner).or_default() += 1;
        }
        created
    }

    async fn update(&self, object: Box<dyn Object>, sub: Option<&str>) -> Result<Arc<dyn Object>, ApiError> {
        let conflict = ApiError::modified(&object.names(), &object.key().name);
        self.request(conflict, self.model.update(object, sub)).await
    }

    async fn patch(
        &self,
        kind: &KindRef,
        key: &ObjectKey,
        patch: Patch,
        sub: Option<&str>,
    ) -> Result<Arc<dyn Object>, ApiError> {
        let conflict = ApiError::modified(&kind.names(), &key.name);
        self.request(conflict, self.model.patch(kind, key, patch, sub)).await
    }

    async fn delete(&self, kind: &KindRef, key: &ObjectKey, options: DeleteOptions) -> Result<(), ApiError> {
        self.request(down(), self.model.delete(kind, key, options)).await
    }

    async fn bind(&self, pod: &ObjectKey, uid: &str, node: &str) -> Result<(), ApiError> {
        self.request(down(), self.model.bind(pod, uid, node)).await
    }
}

/// Hands changes on, late and with gaps, but always in order.
async fn feed(
    inner: Arc<dyn Mirror>,
    mut deltas: UnboundedReceiver<Delta>,
    store: Arc<MirrorStore>,
    faults: Arc<Faults>,
) {
    loop {
        let revision = inner.revision();
        if deltas.is_empty() {
            store.advance(revision);
        }
        let Ok(delta) = tokio::time::timeout(BOOKMARKS, deltas.recv()).await else { continue };
        let Some(delta) = delta else { return };
        if faults.chance(10) {
            // The watch breaks and starts over with a list: what was in between is never told.
            sleep(faults.millis(10_000)).await;
            while deltas.try_recv().is_ok() {}
            store.replace(inner.list(None), inner.revision());
            continue;
        }
        if faults.chance(50) {
            sleep(faults.millis(3_000)).await;
        }
        match delta {
            Delta::Put { new, .. } => store.put(new),
            Delta::Delete { old, revision } => store.delete(&old.key(), revision),
        }
    }
}
