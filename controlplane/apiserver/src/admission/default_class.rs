//! `DefaultStorageClass` and `DefaultIngressClass`: who names no class gets the one that is marked as default.
//!
//! # Source
//! Kubernetes `plugin/pkg/admission/storage/storageclass/setdefault/admission.go`,
//! `plugin/pkg/admission/network/defaultingressclass/admission.go`.

use async_trait::async_trait;
use k8s_openapi::{
    api::{
        core::v1::PersistentVolumeClaim,
        networking::v1::{Ingress, IngressClass},
        storage::v1::StorageClass,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use podium_api::{ApiError, Kind};

use super::{Plugin, Request, Step};
use crate::registry::{Registry, cache::Filter};

const STORAGE: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];
const INGRESS: [&str; 1] = ["ingressclass.kubernetes.io/is-default-class"];
/// The old places of the classes.
const STORAGE_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
const INGRESS_ANNOTATION: &str = "kubernetes.io/ingress.class";

/// The plug-in for claims.
pub(super) struct DefaultStorageClass;

#[async_trait]
impl Plugin for DefaultStorageClass {
    fn name(&self) -> &'static str {
        "DefaultStorageClass"
    }

    fn handles(&self, step: Step, request: &Request<'_>) -> bool {
        step == Step::Admit && request.creates::<PersistentVolumeClaim>()
    }

    async fn mutate(&self, registry: &Registry, request: &mut Request<'_>) -> Result<(), ApiError> {
        let Some(claim) = request.new_as_mut::<PersistentVolumeClaim>() else { return Ok(()) };
        let says = has(&claim.metadata, STORAGE_ANNOTATION);
        let spec = claim.spec.get_or_insert_default();
        if spec.storage_class_name.is_none() && !says {
            spec.storage_class_name = marked::<StorageClass>(registry, &STORAGE);
        }
        Ok(())
    }
}

/// The plug-in for Ingresses.
pub(super) struct DefaultIngressClass;

#[async_trait]
impl Plugin for DefaultIngressClass {
    fn name(&self) -> &'static str {
        "DefaultIngressClass"
    }

    fn handles(&self, step: Step, request: &Request<'_>) -> bool {
        step == Step::Admit && request.creates::<Ingress>()
    }

    async fn mutate(&self, registry: &Registry, request: &mut Request<'_>) -> Result<(), ApiError> {
        let Some(entrance) = request.new_as_mut::<Ingress>() else { return Ok(()) };
        let says = has(&entrance.metadata, INGRESS_ANNOTATION);
        let spec = entrance.spec.get_or_insert_default();
        if spec.ingress_class_name.is_none() && !says {
            spec.ingress_class_name = marked::<IngressClass>(registry, &INGRESS);
        }
        Ok(())
    }
}

fn has(meta: &ObjectMeta, annotation: &str) -> bool {
    meta.annotations.as_ref().is_some_and(|a| a.contains_key(annotation))
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
