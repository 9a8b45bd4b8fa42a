//! Claims, volumes and classes come, change and go.

use k8s_openapi::api::{
    core::v1::{PersistentVolume, PersistentVolumeClaim},
    storage::v1::StorageClass,
};
use podium_api::ObjectKey;

use super::{Happened, Snapshot};
use crate::change::Changes;

fn happened(different: bool) -> Happened {
    Happened::only(if different { Changes::VOLUMES } else { Changes::NONE })
}

impl Snapshot {
    /// A claim appeared or changed.
    pub fn upsert_claim(&mut self, claim: &PersistentVolumeClaim) -> Happened {
        happened(self.volumes.put_claim(claim))
    }

    /// A claim is gone.
    pub fn remove_claim(&mut self, key: &ObjectKey) {
        self.volumes.remove_claim(key);
    }

    /// A volume appeared or changed.
    pub fn upsert_volume(&mut self, volume: &PersistentVolume) -> Happened {
        happened(self.volumes.put_volume(volume))
    }

    /// A volume is gone.
    pub fn remove_volume(&mut self, name: &str) {
        self.volumes.remove_volume(name);
    }

    /// A storage class appeared or changed.
    pub fn upsert_class(&mut self, class: &StorageClass) -> Happened {
        happened(self.volumes.put_class(class))
    }

    /// A storage class is gone.
    pub fn remove_class(&mut self, name: &str) {
        self.volumes.remove_class(name);
    }

    /// Whether all these claims are bound to volumes.
    pub fn all_bound<'a>(&self, claims: impl Iterator<Item = &'a ObjectKey>) -> bool {
        self.volumes.all_bound(claims)
    }
}
