//! The end of a definition: its objects go first.
//!
//! # Source
//! Kubernetes `apiextensions-apiserver/pkg/controller/finalizer/crd_finalizer.go`,
//! `.../pkg/registry/customresourcedefinition/etcd.go`.

use jiff::Timestamp;
use k8s_openapi::{
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    apimachinery::pkg::apis::meta::v1::DeleteOptions,
};
use podium_api::{ApiError, Kind as _, Object};

use super::{MANAGER, status};
use crate::{
    bootstrap::own,
    registry::{
        Part, Registry, WriteContext,
        cache::{Entry, Filter},
    },
};

const FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// What the first deletion of a definition adds to it; nothing to other kinds.
pub(crate) fn begin_deletion(object: &mut dyn Object, now: Timestamp) {
    let Some(definition) = object.downcast_mut::<CustomResourceDefinition>() else { return };
    if definition.metadata.deletion_timestamp.is_some() {
        return;
    }
    let finalizers = definition.metadata.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|f| f == FINALIZER) {
        finalizers.push(FINALIZER.to_owned());
    }
    let why = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
    status::set(definition, "Terminating", true, ("InstanceDeletionPending", why), now);
}

/// What keeps a definition that is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    /// Not its objects.
    No,
    /// Its objects, and nothing else.
    ByObjects,
    /// Its objects, and what others have to do.
    ByOthersToo,
}

/// What keeps a definition.
pub(super) fn held(definition: &CustomResourceDefinition) -> Held {
    let finalizers = definition.metadata.finalizers.as_deref().unwrap_or_default();
    match finalizers.iter().any(|f| f == FINALIZER) {
        false => Held::No,
        true if finalizers.len() == 1 => Held::ByObjects,
        true => Held::ByOthersToo,
    }
}

/// Deletes the objects; `false` while some are left.
pub(super) async fn delete_all(registry: &Registry, definition: &CustomResourceDefinition) -> Result<bool, ApiError> {
    let left = delete_objects(registry, definition).await?;
    if left > 0 {
        let now = registry.clock().now();
        let why = format!("CustomResource deletion is in progress, {left} objects remain");
        let set = |d: &mut CustomResourceDefinition| {
            status::set(d, "Terminating", true, ("InstanceDeletionInProgress", &why), now);
        };
        write(registry, definition, Part::Status, set).await?;
    }
    Ok(left == 0)
}

/// Lets go of a definition whose objects are gone.
pub(super) async fn release(registry: &Registry, definition: &CustomResourceDefinition) -> Result<(), ApiError> {
    let now = registry.clock().now();
    write(registry, definition, Part::Everything, |d| {
        if let Some(finalizers) = &mut d.metadata.finalizers {
            finalizers.retain(|f| f != FINALIZER);
        }
        let why = "removed all instances";
        status::set(d, "Terminating", false, ("InstanceDeletionCompleted", why), now);
    })
    .await
}

/// How many are left.
async fn delete_objects(registry: &Registry, definition: &CustomResourceDefinition) -> Result<usize, ApiError> {
    let served = registry.served();
    let (group, plural) = (definition.spec.group.as_str(), definition.spec.names.plural.as_str());
    let found = served.all().iter().find(|r| r.names.group == group && r.names.plural == plural);
    let Some(resource) = found else { return Ok(0) };
    let who = own();
    let context = WriteContext::new(&who, MANAGER).unchecked();
    registry.delete_collection(resource, &Filter::default(), &DeleteOptions::default(), &context).await?;
    Ok(resource.cache.len())
}

async fn write(
    registry: &Registry,
    definition: &CustomResourceDefinition,
    part: Part,
    mut change: impl FnMut(&mut CustomResourceDefinition) + Send,
) -> Result<(), ApiError> {
    let resource = registry.of(&CustomResourceDefinition::NAMES)?;
    let name = definition.metadata.name.as_deref().unwrap_or_default();
    let who = own();
    let context = WriteContext::new(&who, MANAGER).unchecked();
    let change = |current: &Entry| {
        let mut object = current.object.boxed_clone();
        if let Some(definition) = object.downcast_mut() {
            change(definition);
        }
        Ok(object.into())
    };
    match registry.update_with(&resource, ("", name), part, &context, change).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}
