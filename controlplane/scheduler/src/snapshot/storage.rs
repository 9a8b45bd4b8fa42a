//! Claims, volumes and classes come, change and go.

use k8s_openapi::{
    api::{
        core::v1::{PersistentVolume, PersistentVolumeClaim},
        storage::v1::{CSINode, StorageClass},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use podium_api::ObjectKey;

use super::{Happened, Snapshot};
use crate::{change::Changes, volumes::Stored};

fn happened(different: bool, stored: Stored) -> Happened {
    let changes = if different { Changes::VOLUMES } else { Changes::NONE };
    Happened { changes, stored: Some(stored), ..Happened::default() }
}

fn name(meta: &ObjectMeta) -> String {
    meta.name.clone().unwrap_or_default()
}

impl Snapshot {
    /// A claim appeared or changed.
    pub fn upsert_claim(&mut self, claim: &PersistentVolumeClaim) -> Happened {
        happened(self.volumes.put_claim(claim), Stored::Claim(ObjectKey::of(&claim.metadata)))
    }

    /// A claim is gone.
    pub fn remove_claim(&mut self, key: &ObjectKey) {
        self.volumes.remove_claim(key);
    }

    /// A volume appeared or changed.
    pub fn upsert_volume(&mut self, volume: &PersistentVolume) -> Happened {
        happened(self.volumes.put_volume(volume), Stored::Volume(name(&volume.metadata)))
    }

    /// A volume is gone.
    pub fn remove_volume(&mut self, name: &str) {
        self.volumes.remove_volume(name);
    }

    /// A storage class appeared or changed.
    pub fn upsert_class(&mut self, class: &StorageClass) -> Happened {
        happened(self.volumes.put_class(class), Stored::Class(name(&class.metadata)))
    }

    /// A storage class is gone.
    pub fn remove_class(&mut self, name: &str) {
        self.volumes.remove_class(name);
    }

    /// What a node says of its CSI drivers appeared or changed.
    pub fn upsert_csi_node(&mut self, node: &CSINode) -> Happened {
        happened(self.volumes.put_limits(node), Stored::Limits)
    }

    /// A node says nothing of CSI drivers any more.
    pub fn remove_csi_node(&mut self, name: &str) {
        self.volumes.remove_limits(name);
    }

    /// The claims of the pods that count on a node.
    pub(crate) fn claims_on(&self, slot: u32) -> impl Iterator<Item = &ObjectKey> {
        let pods = self.nodes.get(slot as usize).into_iter().flat_map(|node| &node.pods);
        pods.map(|pod| &self.placed[*pod as usize]).filter(|pod| pod.counted).flat_map(|pod| &pod.claims)
    }

    /// Whether all these claims are bound to volumes.
    pub fn all_bound<'a>(&self, claims: impl Iterator<Item = &'a ObjectKey>) -> bool {
        self.volumes.all_bound(claims)
    }
}
