//! The registry: every kind, its cache, and the one way in which any object is written.
//!
//! Invariants: a write is answered when it is durable and in the caches; reads come from the caches and are therefore
//! never older than any answered write. Knows no HTTP. Kinds that need more than storage (addresses for Services, a
//! network for Nodes, finalizers for Namespaces) get it in [`allocate`], special verbs in [`verbs`]. Who writes, and what
//! comes of it beside the object, is in a [`WriteContext`]; plug-ins that judge writes are in [`crate::admission`].

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::RwLock;
use podium_api::{ApiError, KindRef, Names, Reason, Revision};
use podium_client::ClockRef;
use podium_store::{Store, StoreError};
use tokio::{sync::watch, task::JoinHandle};

use self::{
    allocate::Allocators,
    cache::{Cache, Progress},
    pump::Caches,
    served::{ByKind, Conversion, Served},
};
use crate::{
    admission::Chain,
    config::ServerConfig,
    outbound::Outbound,
    rbac::{self, Rbac},
};

pub(crate) mod alloc;
pub(crate) mod allocate;
mod apply;
pub(crate) mod cache;
pub(crate) mod context;
pub(crate) mod create;
mod delete;
pub(crate) mod entry;
mod evict;
mod history;
pub(crate) mod list;
pub(crate) mod managed;
mod pump;
pub(crate) mod served;
pub(crate) mod services;
mod update;
mod verbs;

pub(crate) use apply::Applied;
pub(crate) use context::WriteContext;
pub(crate) use create::generated_name;
pub(crate) use delete::Deleted;
pub(crate) use served::Resource;
pub(crate) use update::Part;

/// What all keys start with.
pub(crate) const ROOT: &str = "/registry/";

/// How often a write is tried again when another came between.
const CONFLICT_RETRIES: usize = 5;

/// How long a write waits for the caches.
const CACHE_TIMEOUT: Duration = Duration::from_secs(10);

/// Every kind and the store below them.
pub(crate) struct Registry {
    served: RwLock<Arc<Served>>,
    /// Goes up with each change of what is served.
    generation: watch::Sender<u64>,
    caches: Caches,
    store: Arc<dyn Store>,
    progress: Progress,
    clock: ClockRef,
    allocators: Allocators,
    admission: Chain,
    outbound: Outbound,
    rbac: Arc<Rbac>,
}

impl Registry {
    /// Loads everything stored and follows the store from there.
    pub(crate) async fn open(
        config: &ServerConfig,
        kinds: Vec<KindRef>,
        store: Arc<dyn Store>,
        clock: ClockRef,
    ) -> Result<(Arc<Self>, JoinHandle<()>), StoreError> {
        let at = store.revision();
        let progress = Progress::new(at);
        let mut caches: HashMap<String, Arc<Cache>> = HashMap::new();
        let mut resources = Vec::with_capacity(kinds.len());
        for kind in kinds {
            let stored = kind.stored_as();
            let conversion = stored.is_some().then(|| Arc::new(ByKind) as Arc<dyn Conversion>);
            let stored = stored.unwrap_or_else(|| kind.clone());
            let part = stored.names().qualified_resource().into_owned();
            let new = || Arc::new(Cache::new(stored.clone(), format!("{ROOT}{part}/"), progress.clone()));
            let cache = caches.entry(part.clone()).or_insert_with(new).clone();
            resources.push(Arc::new(Resource::new(kind, cache, conversion)));
        }
        for cache in caches.values() {
            pump::load(&*store, cache, at, |entry| cache.load(entry)).await?;
        }
        let watch = store.watch(ROOT, at).await?;
        let cache = |name: &str| {
            let part = format!("{name}.{}", rbac::GROUP);
            let found = caches.get(&part).cloned();
            found.ok_or_else(|| StoreError::Failed(format!("{part} are not among the kinds").into()))
        };
        let rbac = Rbac::new(rbac::Sources {
            cluster_roles: cache("clusterroles")?,
            roles: cache("roles")?,
            cluster_role_bindings: cache("clusterrolebindings")?,
            role_bindings: cache("rolebindings")?,
        });
        let caches: Caches = Arc::new(RwLock::new(caches));
        let pump = tokio::spawn(pump::run(store.clone(), caches.clone(), progress.clone(), watch));
        let registry = Self {
            served: RwLock::new(Arc::new(Served::new(resources, 1))),
            generation: watch::Sender::new(1),
            caches,
            store,
            progress,
            clock,
            allocators: Allocators::new(config),
            admission: Chain::standard(),
            outbound: Outbound::new(),
            rbac: Arc::new(rbac),
        };
        registry.rebuild_allocations();
        Ok((Arc::new(registry), pump))
    }

    /// What is served now.
    pub(crate) fn served(&self) -> Arc<Served> {
        self.served.read().clone()
    }

    /// Tells of each change of what is served.
    pub(crate) fn follow_served(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// Serves the versions of one resource, in place of those that were served of it. `stored` need not be among them.
    ///
    /// Watches go on when the resource was served before.
    ///
    /// # Errors
    /// When its stored objects cannot be read.
    pub(crate) async fn install(
        &self,
        stored: KindRef,
        kinds: Vec<KindRef>,
        conversion: Option<Arc<dyn Conversion>>,
    ) -> Result<(), StoreError> {
        let names = stored.names();
        let cache = self.cache_for(&stored).await?;
        let resource = |kind| Arc::new(Resource::new(kind, cache.clone(), conversion.clone()));
        self.serve(names.group, names.plural, kinds.into_iter().map(resource).collect());
        Ok(())
    }

    async fn cache_for(&self, stored: &KindRef) -> Result<Arc<Cache>, StoreError> {
        let part = stored.names().qualified_resource().into_owned();
        let known = self.caches.read().get(&part).cloned();
        if let Some(cache) = known {
            cache.set_kind(stored.clone());
            pump::load(&*self.store, &cache, self.store.revision(), |entry| cache.reload(entry)).await?;
            return Ok(cache);
        }
        let cache = Arc::new(Cache::new(stored.clone(), format!("{ROOT}{part}/"), self.progress.clone()));
        cache.begin_loading();
        self.caches.write().insert(part.clone(), cache.clone());
        // Read after the cache hears of changes: what comes in between is put aside, nothing falls through.
        let at = self.store.revision();
        match pump::load(&*self.store, &cache, at, |entry| cache.load(entry)).await {
            Ok(()) => cache.loaded(at),
            Err(error) => {
                self.caches.write().remove(&part);
                return Err(error);
            }
        }
        Ok(cache)
    }

    /// Serves a resource no more; its watches end. What is stored of it stays.
    pub(crate) fn withdraw(&self, group: &str, plural: &str) {
        let part = if group.is_empty() { plural.to_owned() } else { format!("{plural}.{group}") };
        self.serve(group, plural, Vec::new());
        let cache = self.caches.write().remove(&part);
        if let Some(cache) = cache {
            cache.close();
        }
    }

    fn serve(&self, group: &str, plural: &str, resources: Vec<Arc<Resource>>) {
        let mut served = self.served.write();
        *served = Arc::new(served.with(group, plural, resources));
        self.generation.send_replace(served.generation);
    }

    /// The kind at a place in the paths.
    pub(crate) fn find(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Resource>> {
        self.served.read().find(group, version, plural).cloned()
    }

    /// The resource that a kind is served as.
    ///
    /// # Errors
    /// 404 when it is not served.
    pub(crate) fn of(&self, names: &Names) -> Result<Arc<Resource>, ApiError> {
        self.find(names.group, names.version, names.plural).ok_or_else(|| {
            let message = format!("no matches for kind {:?} in version {:?}", names.kind, names.api_version());
            ApiError::new(Reason::NotFound, message)
        })
    }

    /// What every write goes through.
    pub(crate) fn admission(&self) -> &Chain {
        &self.admission
    }

    /// What requests to other servers go through.
    pub(crate) fn outbound(&self) -> &Outbound {
        &self.outbound
    }

    /// Who may do what.
    pub(crate) fn rbac(&self) -> &Arc<Rbac> {
        &self.rbac
    }

    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    pub(crate) fn clock(&self) -> &ClockRef {
        &self.clock
    }

    /// Waits until the caches have a revision.
    ///
    /// # Errors
    /// 504 when they do not get there.
    pub(crate) async fn caches_reach(&self, revision: Revision) -> Result<(), ApiError> {
        if self.progress.revision() >= revision {
            return Ok(());
        }
        let waited = tokio::time::timeout(CACHE_TIMEOUT, self.progress.reached(revision)).await;
        waited.map_err(|_| too_large(revision, self.progress.revision()))
    }

    /// The revision up to which the caches know everything.
    pub(crate) fn revision(&self) -> Revision {
        self.progress.revision()
    }

    /// Ends all watches and mirrors.
    pub(crate) fn close(&self) {
        self.caches.read().values().for_each(|c| c.close());
    }
}

/// 504 in Kubernetes' words.
pub(crate) fn too_large(asked: Revision, current: Revision) -> ApiError {
    let message = format!("Timeout: Too large resource version: {asked}, current: {current}");
    ApiError::new(Reason::Timeout, message).retry_after(1)
}

/// What a client is told when the store fails.
pub(crate) fn store_error(error: &StoreError) -> ApiError {
    match error {
        StoreError::TooLarge { .. } => {
            ApiError::new(Reason::RequestEntityTooLarge, format!("Request entity too large: {error}"))
        }
        StoreError::Compacted { .. } => ApiError::expired(format!("The resourceVersion is too old: {error}")),
        StoreError::Failed(_) | StoreError::Closed => {
            ApiError::new(Reason::ServiceUnavailable, error.to_string()).retry_after(5)
        }
        StoreError::Conflict { .. } | StoreError::Future { .. } => ApiError::internal(error.to_string()),
    }
}
