//! The registry: every kind, its cache, and the one way in which any object is written.
//!
//! Invariants: a write is answered when it is durable and in the caches; reads come from the caches and are therefore
//! never older than any answered write. Knows no HTTP. Kinds that need more than storage (addresses for Services, a
//! network for Nodes, finalizers for Namespaces) get it in [`admission`], special verbs in [`verbs`].

use std::{sync::Arc, time::Duration};

use podium_api::{ApiError, KindRef, Names, Reason, Revision, Scope, SubresourceInfo, object::SubresourceBehaviour};
use podium_client::ClockRef;
use podium_store::{Store, StoreError};
use tokio::task::JoinHandle;

use self::{
    admission::Allocators,
    cache::{Cache, Progress},
    pump::Caches,
};
use crate::config::ServerConfig;

pub(crate) mod admission;
pub(crate) mod alloc;
pub(crate) mod cache;
mod create;
mod delete;
pub(crate) mod list;
mod pump;
pub(crate) mod services;
mod update;
mod verbs;

pub(crate) use delete::Deleted;
pub(crate) use update::Part;

/// What all keys start with.
pub(crate) const ROOT: &str = "/registry/";

/// How often a write is tried again when another came between.
const CONFLICT_RETRIES: usize = 5;

/// How long a write waits for the caches.
const CACHE_TIMEOUT: Duration = Duration::from_secs(10);

/// One kind, as it is served.
pub(crate) struct Resource {
    pub(crate) kind: KindRef,
    pub(crate) names: Names,
    pub(crate) scope: Scope,
    pub(crate) subresources: Vec<SubresourceInfo>,
    pub(crate) cache: Arc<Cache>,
}

impl Resource {
    /// What a subresource does, if there is one of this name.
    pub(crate) fn subresource(&self, name: &str) -> Option<SubresourceBehaviour> {
        self.subresources.iter().find(|s| s.name == name).map(|s| s.behaviour)
    }

    pub(crate) fn not_found(&self, name: &str) -> ApiError {
        ApiError::not_found(&self.names, name)
    }
}

/// How a write is meant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct WriteOptions {
    /// Everything but the writing.
    pub(crate) dry_run: bool,
    /// Not checked by the kind's validation: for objects of the server itself, whose endpoints are loopback addresses.
    pub(crate) unchecked: bool,
}

/// Every kind and the store below them.
pub(crate) struct Registry {
    resources: Vec<Arc<Resource>>,
    store: Arc<dyn Store>,
    progress: Progress,
    clock: ClockRef,
    allocators: Allocators,
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
        let mut caches = Caches::new();
        let mut resources = Vec::with_capacity(kinds.len());
        for kind in kinds {
            let names = kind.names();
            let part = names.qualified_resource().into_owned();
            let cache = Arc::new(Cache::new(kind.clone(), format!("{ROOT}{part}/"), progress.clone()));
            caches.insert(part, cache.clone());
            let (scope, subresources) = (kind.scope(), kind.subresources());
            resources.push(Arc::new(Resource { kind, names, scope, subresources, cache }));
        }
        pump::load(&*store, &caches, at).await?;
        let watch = store.watch(ROOT, at).await?;
        let pump = tokio::spawn(pump::run(store.clone(), caches, progress.clone(), watch));
        let registry = Self { resources, store, progress, clock, allocators: Allocators::new(config) };
        registry.rebuild_allocations();
        Ok((Arc::new(registry), pump))
    }

    /// Every kind served.
    pub(crate) fn resources(&self) -> &[Arc<Resource>] {
        &self.resources
    }

    /// The kind at a place in the paths.
    pub(crate) fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        let is = |n: &Names| n.plural == plural && n.group == group && n.version == version;
        self.resources.iter().find(|r| is(&r.names))
    }

    /// The resource that a kind is served as.
    ///
    /// # Errors
    /// 404 when it is not served.
    pub(crate) fn of(&self, names: &Names) -> Result<&Arc<Resource>, ApiError> {
        self.find(names.group, names.version, names.plural).ok_or_else(|| {
            let message = format!("no matches for kind {:?} in version {:?}", names.kind, names.api_version());
            ApiError::new(Reason::NotFound, message)
        })
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
        self.resources.iter().for_each(|r| r.cache.close());
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
