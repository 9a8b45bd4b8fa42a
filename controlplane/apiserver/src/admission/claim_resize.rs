//! `PersistentVolumeClaimResize`: only claims that have a volume grow, and only where their class allows it.
//!
//! # Source
//! Kubernetes `plugin/pkg/admission/storage/persistentvolume/resize/admission.go`.

use async_trait::async_trait;
use k8s_openapi::api::{core::v1::PersistentVolumeClaim as Claim, storage::v1::StorageClass};
use podium_api::{ApiError, Kind as _, Quantity};

use super::{Operation, Plugin, Request, Step};
use crate::registry::Registry;

/// The old place of the class.
const CLASS: &str = "volume.beta.kubernetes.io/storage-class";

/// The plug-in.
pub(super) struct ClaimResize;

#[async_trait]
impl Plugin for ClaimResize {
    fn name(&self) -> &'static str {
        "PersistentVolumeClaimResize"
    }

    fn handles(&self, step: Step, request: &Request<'_>) -> bool {
        step == Step::Validate
            && request.operation == Operation::Update
            && request.subresource.is_empty()
            && request.is_about::<Claim>()
    }

    async fn validate(&self, registry: &Registry, request: &Request<'_>) -> Result<(), ApiError> {
        let old = request.old.and_then(|o| o.downcast_ref::<Claim>());
        let (Some(new), Some(old)) = (request.new_as::<Claim>(), old) else { return Ok(()) };
        if size(new) <= size(old) {
            return Ok(());
        }
        if old.status.as_ref().and_then(|s| s.phase.as_deref()) != Some("Bound") {
            return Err(request.forbidden("only bound persistent volume claims can be expanded"));
        }
        if !may_grow(registry, new, old) {
            return Err(request.forbidden(
                "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must \
                 support resize",
            ));
        }
        Ok(())
    }
}

fn size(claim: &Claim) -> Quantity {
    let requests = claim.spec.as_ref().and_then(|s| s.resources.as_ref()).and_then(|r| r.requests.as_ref());
    let size = requests.and_then(|r| r.get("storage")).and_then(|q| q.0.parse().ok());
    size.unwrap_or(Quantity::ZERO)
}

fn class(claim: &Claim) -> &str {
    let old = claim.metadata.annotations.as_ref().and_then(|a| a.get(CLASS));
    old.or(claim.spec.as_ref().and_then(|s| s.storage_class_name.as_ref())).map_or("", String::as_str)
}

fn may_grow(registry: &Registry, new: &Claim, old: &Claim) -> bool {
    let name = class(new);
    if name.is_empty() || name != class(old) {
        return false;
    }
    let found = registry.of(&StorageClass::NAMES).ok().and_then(|of| of.cache.get("", name));
    let class = found.as_ref().and_then(|e| e.object.downcast_ref::<StorageClass>());
    class.is_some_and(|c| c.allow_volume_expansion == Some(true))
}
