//! What `wasi:keyvalue` opens: a store by the name of a volume that the container mounts and may write. One in an `emptyDir`
//! lives in memory as long as the pod, whose memory it is; one in a claim or a folder of the host is kept there, durable.
//!
//! The empty name and `default` mean the volume of that name, or the only one that there is.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Weak},
};

use async_trait::async_trait;
use parking_lot::Mutex;
use podium_sandbox::{FileStore, Group, MemoryStore, Store, StoreError, Stores};

use super::volume::{Host, Place, Volume};

/// Of a store in a volume that says no size.
const BYTES_DEFAULT: u64 = 64 << 20;
/// Of a store on disk.
const DISK_BYTES_MAX: u64 = 16 << 30;
/// The folder of a store within its volume.
const FOLDER: &str = ".keyvalue";

/// The stores of one container.
pub(super) struct VolumeStores {
    volumes: Vec<Arc<Volume>>,
    open: Arc<OpenStores>,
    /// What pays for those in memory.
    group: Weak<Group>,
}

impl VolumeStores {
    /// `None`: none of the volumes can hold a store.
    pub(super) fn over(
        volumes: impl Iterator<Item = Arc<Volume>>,
        open: &Arc<OpenStores>,
        group: &Weak<Group>,
    ) -> Option<Arc<dyn Stores>> {
        let volumes: Vec<_> = volumes.filter(|volume| !volume.read_only()).collect();
        if volumes.is_empty() {
            return None;
        }
        Some(Arc::new(Self { volumes, open: open.clone(), group: group.clone() }))
    }
}

#[async_trait]
impl Stores for VolumeStores {
    async fn open(&self, name: &str) -> Result<Arc<dyn Store>, StoreError> {
        let named = self.volumes.iter().find(|volume| volume.name == name);
        let only = || if self.volumes.len() == 1 { self.volumes.first() } else { None };
        let any = matches!(name, "" | "default");
        let volume = named.or_else(|| only().filter(|_| any));
        let volume = volume.ok_or_else(|| StoreError::NoSuchStore(name.to_owned()))?;
        volume.store(&self.open, &self.group)
    }
}

/// The stores on disk that are open, by their folder: pods that share a folder share its store.
#[derive(Default)]
pub(super) struct OpenStores(Mutex<HashMap<PathBuf, Weak<FileStore>>>);

impl OpenStores {
    fn open(&self, host: &Host) -> Arc<FileStore> {
        let mut open = self.0.lock();
        if let Some(store) = open.get(host.real()).and_then(Weak::upgrade) {
            return store;
        }
        open.retain(|_, store| store.strong_count() > 0);
        let store = FileStore::new(host.real().join(FOLDER), DISK_BYTES_MAX);
        open.insert(host.real().to_owned(), Arc::downgrade(&store));
        store
    }
}

impl Volume {
    /// The one store in this volume.
    fn store(&self, open: &OpenStores, group: &Weak<Group>) -> Result<Arc<dyn Store>, StoreError> {
        let mut store = self.store.lock();
        if let Some(store) = &*store {
            return Ok(store.clone());
        }
        let made: Arc<dyn Store> = match &self.place {
            Place::Empty(empty) => {
                let group = group.upgrade().ok_or_else(|| StoreError::Other("the pod has gone".to_owned()))?;
                MemoryStore::of_group(&group, empty.limit_bytes.unwrap_or(BYTES_DEFAULT))
            }
            Place::Files(_) => return Err(StoreError::AccessDenied(format!("{:?} is read-only", self.name))),
            Place::Host(host) => open.open(host),
        };
        Ok(store.insert(made).clone())
    }
}
