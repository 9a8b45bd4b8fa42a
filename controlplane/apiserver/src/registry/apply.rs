//! Server-side apply: a configuration is merged into what is there, and its fields become the manager's.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apiserver/pkg/endpoints/handlers/patch.go`, `applyPatcher`.

use std::sync::Arc;

use podium_api::{ApiError, Reason};
use serde_json::Value;

use super::{
    CONFLICT_RETRIES, Part, Registry, Resource, WriteContext,
    cache::Entry,
    create::{check_name, check_namespace},
    managed::Proposal,
};

/// What an apply did.
pub(crate) enum Applied {
    /// There was no object of this name before.
    Created(Arc<Entry>),
    /// There was one.
    Configured(Arc<Entry>),
}

impl Registry {
    /// Applies a configuration; with `force`, fields of other managers are taken over.
    ///
    /// # Errors
    /// 409 naming the managers whose fields it would change; otherwise as a creation or an update.
    pub(crate) async fn apply(
        &self,
        resource: &Resource,
        (namespace, name): (&str, &str),
        part: Part,
        context: &WriteContext<'_>,
        (config, force): (&Value, bool),
    ) -> Result<Applied, ApiError> {
        check_config(config)?;
        for _ in 0..=CONFLICT_RETRIES {
            let Some(stored) = resource.cache.get(namespace, name) else {
                match self.apply_new(resource, (namespace, name), part, context, (config, force)).await {
                    Err(error) if error.reason == Reason::AlreadyExists => continue,
                    result => return result.map(Applied::Created),
                }
            };
            let current = resource.view(stored).await?;
            let (merged, managed) = self.applied(resource, part, context, Some(&current), (config, force))?;
            let object = resource.kind.decode_value(merged)?.object;
            let proposal = Proposal { object, managed: Some(managed) };
            if let Some(entry) = self.replace(resource, &current, proposal, part, context).await? {
                return Ok(Applied::Configured(entry));
            }
        }
        Err(ApiError::modified(&resource.names, name))
    }

    async fn apply_new(
        &self,
        resource: &Resource,
        (namespace, name): (&str, &str),
        part: Part,
        context: &WriteContext<'_>,
        config: (&Value, bool),
    ) -> Result<Arc<Entry>, ApiError> {
        if part != Part::Main {
            return Err(resource.not_found(name));
        }
        if let Some(refused) = &context.no_creation {
            return Err(refused.clone());
        }
        if let Some(uid) = config.0.pointer("/metadata/uid").and_then(Value::as_str).filter(|u| !u.is_empty()) {
            let why =
                format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
            return Err(ApiError::conflict(&resource.names, name, &why));
        }
        let (merged, managed) = self.applied(resource, part, context, None, config)?;
        let mut object = resource.kind.decode_value(merged)?.object;
        check_namespace(resource, namespace, &mut *object)?;
        check_name(name, &mut *object)?;
        object.meta_mut().resource_version = None;
        self.create_named(resource, Proposal { object, managed: Some(managed) }, context).await
    }
}

fn check_config(config: &Value) -> Result<(), ApiError> {
    let managed = config.pointer("/metadata/managedFields");
    match managed.filter(|m| !m.is_null() && m.as_array().is_none_or(|a| !a.is_empty())) {
        Some(_) => Err(ApiError::bad_request("metadata.managedFields must be nil")),
        None => Ok(()),
    }
}
