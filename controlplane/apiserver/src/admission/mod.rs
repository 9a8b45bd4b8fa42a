//! Admission: what judges and changes writes between their decoding and their storing.
//!
//! A plug-in is one file and one line in [`Chain::standard`]. Mutating runs before defaulting is over and validation
//! begins, validating after it, each in the order of the list; the first refusal ends the write. A plug-in reads what it
//! needs from the caches and must be quick when nothing concerns it.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apiserver/pkg/admission/interfaces.go`.

use std::any::Any;

use async_trait::async_trait;
use parking_lot::Mutex;
use podium_api::{ApiError, Object};
use serde_json::Value;

use crate::registry::{Registry, Resource, WriteContext};

mod default_class;
mod hook_rules;
mod hooks;
mod limit_ranger;
mod matching;
mod mutating_policies;
mod policies;
mod policy;
mod policy_params;
mod priority;
mod resource_quota;
mod webhooks;

/// What a write does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Operation {
    /// A new object.
    Create,
    /// A change of an object, whole or in a part.
    Update,
    /// The deletion of one object.
    Delete,
}

impl Operation {
    /// As in rules and reviews: `CREATE`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
        }
    }
}

/// A write on its way.
pub(crate) struct Request<'a> {
    pub(crate) operation: Operation,
    /// The version that the client wrote to.
    pub(crate) resource: &'a Resource,
    /// For example `status`; empty for the object itself.
    pub(crate) subresource: &'a str,
    /// Empty for cluster-scoped kinds.
    pub(crate) namespace: &'a str,
    /// Empty while a name is still to be generated.
    pub(crate) name: &'a str,
    /// The object as it shall be; none for deletions.
    pub(crate) object: Option<Box<dyn Object>>,
    /// The object as it is; none for creations.
    pub(crate) old: Option<&'a dyn Object>,
    /// `CreateOptions`, `UpdateOptions`, `PatchOptions` or `DeleteOptions` as JSON.
    pub(crate) options: Value,
    /// Who writes, and how it is meant.
    pub(crate) context: &'a WriteContext<'a>,
    /// What plug-ins keep until the object is written.
    pub(crate) held: Mutex<Vec<Box<dyn Any + Send>>>,
}

impl Request<'_> {
    /// Keeps something until the object is written, or the write has failed.
    pub(crate) fn hold(&self, what: Box<dyn Any + Send>) {
        self.held.lock().push(what);
    }
}

/// One judge of writes.
#[async_trait]
pub(crate) trait Plugin: Send + Sync {
    /// For messages and metrics, for example `LimitRanger`.
    fn name(&self) -> &'static str;

    /// Changes the object, or refuses it.
    ///
    /// # Errors
    /// Why the write is refused.
    async fn mutate(&self, _registry: &Registry, _request: &mut Request<'_>) -> Result<(), ApiError> {
        Ok(())
    }

    /// Refuses the object, or lets it pass. Sees it defaulted, prepared and valid.
    ///
    /// # Errors
    /// Why the write is refused.
    async fn validate(&self, _registry: &Registry, _request: &Request<'_>) -> Result<(), ApiError> {
        Ok(())
    }
}

/// All plug-ins, in order.
pub(crate) struct Chain(Vec<Box<dyn Plugin>>);

impl Chain {
    /// Those that every API server has.
    pub(crate) fn standard() -> Self {
        Self(vec![
            Box::new(limit_ranger::LimitRanger),
            Box::new(priority::Priority),
            Box::new(default_class::DefaultClass),
            Box::new(crate::custom::DefinitionRules),
            Box::new(hook_rules::HookRules),
            Box::new(mutating_policies::MutatingPolicies::default()),
            Box::new(webhooks::MutatingWebhooks::new()),
            Box::new(policies::ValidatingPolicies::new()),
            Box::new(webhooks::ValidatingWebhooks::new()),
            // Last: what it holds, others wait for.
            Box::new(resource_quota::ResourceQuota::default()),
        ])
    }

    /// Lets every plug-in change the object. It is defaulted again by whoever changes it.
    ///
    /// # Errors
    /// The first refusal.
    pub(crate) async fn mutate(&self, registry: &Registry, request: &mut Request<'_>) -> Result<(), ApiError> {
        if request.context.unchecked {
            return Ok(());
        }
        for plugin in &self.0 {
            plugin.mutate(registry, request).await.inspect_err(|error| refused(&**plugin, error))?;
        }
        Ok(())
    }

    /// Lets every plug-in judge the object.
    ///
    /// # Errors
    /// The first refusal.
    pub(crate) async fn validate(&self, registry: &Registry, request: &Request<'_>) -> Result<(), ApiError> {
        if request.context.unchecked {
            return Ok(());
        }
        for plugin in &self.0 {
            plugin.validate(registry, request).await.inspect_err(|error| refused(&**plugin, error))?;
        }
        Ok(())
    }
}

fn refused(plugin: &dyn Plugin, error: &ApiError) {
    tracing::debug!(plugin = plugin.name(), %error, "a write was refused");
}
