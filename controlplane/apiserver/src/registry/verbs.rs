//! Verbs that are more than storage: binding, scale.

use std::sync::Arc;

use podium_api::{
    ApiError, FieldErrors, FieldPath, Kind as _, Object,
    k8s_openapi::{
        api::{
            autoscaling::v1::{Scale, ScaleSpec, ScaleStatus},
            core::v1::{Binding, Pod, PodCondition},
        },
        apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
    },
};
use podium_client::ClockRef;

use super::{Part, Registry, Resource, WriteContext, cache::Entry, create::whole_seconds, managed::Proposal};

impl Registry {
    /// Puts a pod on a node, once.
    ///
    /// # Errors
    /// 404; 409 when it has a node, is being deleted, or is another pod of the same name; 422 without a node.
    pub(crate) async fn bind(
        &self,
        namespace: &str,
        name: &str,
        binding: &Binding,
        context: &WriteContext<'_>,
    ) -> Result<Arc<Entry>, ApiError> {
        let resource = self.of(&Pod::NAMES)?;
        let node = binding.target.name.as_deref().unwrap_or_default();
        let mut errs = FieldErrors::new();
        binding.validate(&mut errs);
        if !errs.is_empty() {
            return Err(ApiError::invalid(&Binding::NAMES, name, errs));
        }
        let uid = binding.metadata.uid.clone().filter(|u| !u.is_empty());
        let resource = &*resource;
        self.update_with(resource, (namespace, name), Part::Everything, context, |current| {
            bound(resource, &*current.object, node, uid.as_deref(), &self.clock).map(Proposal::from)
        })
        .await
    }

    /// The Scale of an object.
    ///
    /// # Errors
    /// 404.
    pub(crate) async fn scale(&self, resource: &Resource, namespace: &str, name: &str) -> Result<Scale, ApiError> {
        let entry = resource.cache.get(namespace, name).ok_or_else(|| resource.not_found(name))?;
        let entry = resource.view(entry).await?;
        scale_of(resource, &*entry.object)
    }

    /// Sets the wanted replicas; `change` makes the new Scale of the present one.
    ///
    /// # Errors
    /// As an update; 422 for a negative number.
    pub(crate) async fn update_scale(
        &self,
        resource: &Resource,
        key: (&str, &str),
        context: &WriteContext<'_>,
        mut change: impl FnMut(Scale) -> Result<Scale, ApiError> + Send,
    ) -> Result<Scale, ApiError> {
        let entry = self
            .update_with(resource, key, Part::Scale, context, |current| {
                let scale = change(scale_of(resource, &*current.object)?)?;
                let replicas = scale.spec.and_then(|s| s.replicas).unwrap_or(0);
                if replicas < 0 {
                    let mut errs = FieldErrors::new();
                    errs.invalid(&FieldPath::new("spec.replicas"), replicas, "must be greater than or equal to 0");
                    let names = podium_api::Names::new("autoscaling", "v1", "Scale", "scales", "scale");
                    return Err(ApiError::invalid(&names, key.1, errs));
                }
                let mut new = current.object.boxed_clone();
                resource.kind.set_scale(&mut *new, replicas);
                let meta = new.meta_mut();
                meta.resource_version = scale.metadata.resource_version;
                meta.uid = scale.metadata.uid;
                Ok(new.into())
            })
            .await?;
        scale_of(resource, &*entry.object)
    }
}

fn bound(
    resource: &Resource,
    current: &dyn Object,
    node: &str,
    uid: Option<&str>,
    clock: &ClockRef,
) -> Result<Box<dyn Object>, ApiError> {
    let name = current.meta().name.as_deref().unwrap_or_default();
    let conflict = |why: &str| Err(ApiError::conflict(&resource.names, name, why));
    if let Some(uid) = uid.filter(|u| *u != current.uid()) {
        let found = current.uid();
        return conflict(&format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {found}"));
    }
    let mut new = current.boxed_clone();
    let Some(pod) = new.downcast_mut::<Pod>() else { return Err(ApiError::internal("only pods can be bound")) };
    if pod.metadata.deletion_timestamp.is_some() {
        return conflict(&format!("pod {name} is being deleted, cannot be assigned to a host"));
    }
    let spec = pod.spec.get_or_insert_default();
    if let Some(taken) = spec.node_name.as_deref().filter(|n| !n.is_empty()) {
        return conflict(&format!("pod {name} is already assigned to node {taken:?}"));
    }
    if spec.scheduling_gates.as_ref().is_some_and(|g| !g.is_empty()) {
        return conflict(&format!("pod {name} has non-empty .spec.schedulingGates"));
    }
    spec.node_name = Some(node.to_owned());
    let conditions = pod.status.get_or_insert_default().conditions.get_or_insert_default();
    conditions.retain(|c| c.type_ != "PodScheduled");
    conditions.push(PodCondition {
        type_: "PodScheduled".to_owned(),
        status: "True".to_owned(),
        last_transition_time: Some(Time(whole_seconds(clock.now()))),
        ..PodCondition::default()
    });
    Ok(new)
}

fn scale_of(resource: &Resource, object: &dyn Object) -> Result<Scale, ApiError> {
    let meta = object.meta();
    let name = meta.name.as_deref().unwrap_or_default();
    let view = resource.kind.scale(object).ok_or_else(|| resource.not_found(name))?;
    Ok(Scale {
        metadata: ObjectMeta {
            name: meta.name.clone(),
            namespace: meta.namespace.clone(),
            uid: meta.uid.clone(),
            resource_version: meta.resource_version.clone(),
            creation_timestamp: meta.creation_timestamp.clone(),
            ..ObjectMeta::default()
        },
        spec: Some(ScaleSpec { replicas: Some(view.spec_replicas) }),
        status: Some(ScaleStatus {
            replicas: view.status_replicas,
            selector: Some(view.selector).filter(|s| !s.is_empty()),
        }),
    })
}
