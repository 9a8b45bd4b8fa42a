//! An OCI registry over a folder: the distribution API as a router that any HTTP server can mount.
//!
//! Invariants: content is stored under its digest and shown only after that was checked; what was answered with success is
//! on disk; a file is written elsewhere and renamed, so that a crash leaves nothing that looks whole. This crate knows nothing
//! of Kubernetes: who may do what is the embedder's business ([`Access`]).
//!
//! # Source
//! <https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md>

mod access;
mod answer;
mod blobs;
mod disk;
mod error;
mod garbage;
mod listing;
mod manifest;
mod manifests;
mod names;
mod range;
mod relay;
mod route;
mod server;
mod uploads;

use std::{collections::HashSet, io, path::PathBuf, sync::Arc, time::Duration};

pub use access::{Access, Action, Anonymous, Refusal};
pub use garbage::Swept;
pub use relay::{Upstream, relay};
pub use server::Listener;

use crate::{disk::Disk, uploads::Uploads};

/// Settings of a [`Registry`].
#[derive(Debug, Clone)]
pub struct RegistryConfig {
    /// Where everything is kept. Made when it is not there.
    pub dir: PathBuf,
    /// Largest blob.
    pub blob_bytes_max: u64,
    /// Largest manifest.
    pub manifest_bytes_max: usize,
    /// Uploads under way at once.
    pub uploads_max: usize,
    /// An upload that has not gone on for so long is forgotten.
    pub upload_idle: Duration,
    /// How long a client may send nothing in the middle of a body.
    pub read_timeout: Duration,
    /// Blobs younger than this are kept though no manifest names them (yet).
    pub grace: Duration,
    /// How long manifests are kept that no tag leads to (any more).
    pub untagged_grace: Duration,
    /// How many of them a repository has at most; the oldest go before their time, though never within `grace`.
    pub untagged_max: usize,
    /// Uploads are refused while the disk has less room than this.
    pub disk_reserve_bytes: u64,
}

impl RegistryConfig {
    /// The defaults for a registry in this folder.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            blob_bytes_max: 1 << 30,
            manifest_bytes_max: 4 << 20,
            uploads_max: 64,
            upload_idle: Duration::from_secs(3600),
            read_timeout: Duration::from_secs(30),
            grace: Duration::from_secs(3600),
            untagged_grace: Duration::from_secs(24 * 3600),
            untagged_max: 100,
            disk_reserve_bytes: 256 << 20,
        }
    }
}

/// A registry. Cheap to clone.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

/// What all requests share.
pub(crate) struct Inner {
    pub(crate) config: RegistryConfig,
    pub(crate) disk: Arc<Disk>,
    pub(crate) uploads: Uploads,
}

impl Registry {
    /// Opens the folder. Uploads that were under way when the last process ended can be gone on with.
    ///
    /// # Errors
    /// When the folder cannot be made or read.
    pub fn open(config: RegistryConfig) -> io::Result<Self> {
        let disk = Arc::new(Disk::open(&config.dir)?);
        let uploads = Uploads::open(&disk, config.uploads_max)?;
        Ok(Self { inner: Arc::new(Inner { config, disk, uploads }) })
    }

    /// The distribution API below `/v2/`.
    pub fn router(&self, access: Arc<dyn Access>) -> axum::Router {
        route::router(self.inner.clone(), access)
    }

    /// Removes what no manifest names and what nobody goes on uploading.
    ///
    /// # Errors
    /// When the folder cannot be read. What was removed before stays removed.
    pub async fn sweep(&self) -> io::Result<Swept> {
        self.sweep_unused(None).await
    }

    /// As [`Registry::sweep`], and removes manifests that have been without a tag for too long. `in_use`: digests that
    /// somebody counts on though no tag leads there; `None`: nobody knows, and no manifest goes.
    ///
    /// What an index names is kept with it, and so is what refers to something that is kept (signatures).
    ///
    /// # Errors
    /// As [`Registry::sweep`].
    pub async fn sweep_unused(&self, in_use: Option<HashSet<String>>) -> io::Result<Swept> {
        let inner = self.inner.clone();
        let sweep = move || {
            let expired = inner.uploads.expire(inner.config.upload_idle);
            let swept = garbage::sweep(&inner.disk, &inner.config, in_use.as_ref())?;
            Ok(Swept { uploads: expired, ..swept })
        };
        tokio::task::spawn_blocking(sweep).await.unwrap_or_else(|error| Err(io::Error::other(error)))
    }

    /// Sweeps every so often, until dropped. `in_use` is asked before each time.
    pub async fn keep_clean<F>(&self, every: Duration, in_use: impl Fn() -> F)
    where
        F: Future<Output = Option<HashSet<String>>>,
    {
        let mut ticks = tokio::time::interval(every);
        loop {
            ticks.tick().await;
            match self.sweep_unused(in_use().await).await {
                Ok(swept) if swept != Swept::default() => {
                    let Swept { manifests, blobs, bytes, uploads } = swept;
                    tracing::info!(manifests, blobs, bytes, uploads, "registry swept");
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "cannot sweep the registry"),
            }
        }
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry").field("config", &self.inner.config).finish_non_exhaustive()
    }
}
