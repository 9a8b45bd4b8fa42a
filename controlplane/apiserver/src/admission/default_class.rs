//! `DefaultStorageClass` and `DefaultIngressClass`: who names no class gets the one that is marked as default.
//!
//! # Source
//! Kubernetes `plugin/pkg/admission/storage/storageclass/setdefault/admission.go`,
//! `plugin/pkg/admission/network/defaultingressclass/admission.go`.

use async_trait::async_trait;
use k8s_openapi::api::{
    core::v1::PersistentVolumeClaim,
    networking::v1::{Ingress, IngressClass},
    storage::v1::StorageClass,
};
use podium_api::{ApiError, Kind};

use super::{Operation, Plugin, Request};
use crate::registry::{Registry, cache::Filter};

const STORAGE: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
const INGRESS: [&str; 1] = ["ingressclass.kubernetes.io/is-default-class"];
/// The old places of the classes.
const STORAGE_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
const INGRESS_ANNOTATION: &str = "kubernetes.io/ingress.class";

/// The plug-in.
pub(super) struct DefaultClass;

#[async_trait]
impl Plugin for DefaultClass {
    fn name(&self) -> &'static str {
        "DefaultClass"
    }

    async fn mutate(&self, registry: &Registry, request: &mut Request<'_>) -> Result<(), ApiError> {
        if request.operation != Operation::Create || !request.subresource.is_empty() {
            return Ok(());
        }
        let Some(object) = request.object.as_deref_mut() else { return Ok(()) };
        let says = |key: &str| object.meta().annotations.as_ref().is_some_and(|a| a.contains_key(key));
        let (storage, ingress) = (says(STORAGE_ANNOTATION), says(INGRESS_ANNOTATION));
        if let Some(claim) = object.downcast_mut::<PersistentVolumeClaim>() {
            let spec = claim.spec.get_or_insert_default();
            if spec.storage_class_name.is_none() && !storage {
                spec.storage_class_name = marked::<StorageClass>(registry, &STORAGE);
            }
        } else if let Some(entrance) = object.downcast_mut::<Ingress>() {
            let spec = entrance.spec.get_or_insert_default();
            if spec.ingress_class_name.is_none() && !ingress {
                spec.ingress_class_name = marked::<IngressClass>(registry, &INGRESS);
            }
        }
        Ok(())
    }
}

/// The class that is marked; of several the newest, then the first by name.
fn marked<K: Kind>(registry: &Registry, marks: &[&str]) -> Option<String> {
    let resource = registry.of(&K::NAMES).ok()?;
    let entries = resource.cache.list(&Filter::default()).entries;
    let is_marked = |annotations: &std::collections::BTreeMap<String, String>| {
        marks.iter().any(|mark| annotations.get(*mark).is_some_and(|v| v == "true"))
    };
    let classes = entries.iter().map(|entry| entry.object.meta());
    let found = classes.filter(|meta| meta.annotations.as_ref().is_some_and(is_marked));
    let newest = found.min_by_key(|meta| {
        let made = meta.creation_timestamp.as_ref().map_or(0, |t| t.0.as_second());
        (std::cmp::Reverse(made), meta.name.clone())
    });
    newest?.name.clone()
}
