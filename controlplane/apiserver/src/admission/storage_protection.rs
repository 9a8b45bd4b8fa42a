//! `StorageObjectInUseProtection`: claims and volumes get a finalizer that their controllers take away when nobody uses them
//! any more.
//!
//! # Source
//! Kubernetes `plugin/pkg/admission/storage/storageobjectinuseprotection/admission.go`.

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use podium_api::ApiError;

use super::{Plugin, Request, Step};
use crate::registry::Registry;

/// The plug-in.
pub(super) struct StorageProtection;

#[async_trait]
impl Plugin for StorageProtection {
    fn name(&self) -> &'static str {
        "StorageObjectInUseProtection"
    }

    fn handles(&self, step: Step, request: &Request<'_>) -> bool {
        step == Step::Admit && (request.creates::<PersistentVolumeClaim>() || request.creates::<PersistentVolume>())
    }

    async fn mutate(&self, _registry: &Registry, request: &mut Request<'_>) -> Result<(), ApiError> {
        let finalizer = match request.is_about::<PersistentVolume>() {
            true => "kubernetes.io/pv-protection",
            false => "kubernetes.io/pvc-protection",
        };
        let Some(object) = request.object.as_deref_mut() else { return Ok(()) };
        let finalizers = object.meta_mut().finalizers.get_or_insert_default();
        if !finalizers.iter().any(|f| f == finalizer) {
            finalizers.push(finalizer.to_owned());
        }
        Ok(())
    }
}
