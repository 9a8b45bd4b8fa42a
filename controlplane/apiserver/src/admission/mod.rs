//! Admission: what judges and changes writes between their decoding and their storing.
//!
//! A plug-in is one file and one line in [`Chain::standard`]. Mutating runs before defaulting is over and validation
//! begins, validating after it, each in the order of the list; the first refusal ends the write. A plug-in reads what it
//! needs from the caches and must be quick when nothing concerns it.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apiserver/pkg/admission/interfaces.go`.

use std::{any::Any, time::Instant};

use async_trait::async_trait;
use parking_lot::Mutex;
use podium_api::{ApiError, Kind, Object};
use serde_json::Value;

use crate::registry::{Registry, Resource, WriteContext};

mod certificates;
mod claim_resize;
mod compile;
mod compiled;
pub(crate) mod connect;
mod default_class;
mod default_tolerations;
mod hook_rules;
mod hooks;
mod limit_ranger;
mod matching;
mod metrics;
mod mountable;
mod mutating_policies;
mod node_restriction;
mod node_taint;
mod param_access;
mod pod_security;
mod policies;
mod policy;
mod policy_params;
mod priority;
mod reinvocation;
mod resource_quota;
mod runtime_class;
mod service_account;
mod storage_protection;
mod topology_labels;
pub(crate) mod type_check;
mod webhooks;

pub(crate) use metrics::AdmissionMetrics;
pub(crate) use reinvocation::Reinvocation;

/// What a write does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Operation {
    /// A new object.
    Create,
    /// A change of an object, whole or in a part.
    Update,
    /// The deletion of one object.
    Delete,
    /// A connection to an object, which is a request for one of its subresources.
    Connect,
}

impl Operation {
    /// As in rules and reviews: `CREATE`.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
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
    /// The object as it shall be, or the options of a connection; none for deletions.
    pub(crate) object: Option<Box<dyn Object>>,
    /// The object as it is; none for creations.
    pub(crate) old: Option<&'a dyn Object>,
    /// `CreateOptions`, `UpdateOptions`, `PatchOptions` or `DeleteOptions` as JSON.
    pub(crate) options: Value,
    /// Who writes, and how it is meant.
    pub(crate) context: &'a WriteContext<'a>,
    /// What plug-ins keep until the object is written.
    pub(crate) held: Mutex<Vec<Box<dyn Any + Send>>>,
    /// Who was asked already, and who is to be asked again.
    pub(crate) reinvocation: Reinvocation,
}

impl Request<'_> {
    /// Whether it is about objects of a kind, in this version.
    pub(crate) fn is_about<K: Kind>(&self) -> bool {
        let names = &self.resource.names;
        (names.group, names.version, names.kind) == (K::NAMES.group, K::NAMES.version, K::NAMES.kind)
    }

    /// Whether it makes an object of a kind.
    pub(crate) fn creates<K: Kind>(&self) -> bool {
        self.operation == Operation::Create && self.subresource.is_empty() && self.is_about::<K>()
    }

    /// The object as it shall be, if it is of a kind.
    pub(crate) fn new_as<K: Kind>(&self) -> Option<&K> {
        self.object.as_deref()?.downcast_ref()
    }

    /// The same, to change.
    pub(crate) fn new_as_mut<K: Kind>(&mut self) -> Option<&mut K> {
        self.object.as_deref_mut()?.downcast_mut()
    }

    /// 403 about the object: `pods "a" is forbidden: why`.
    pub(crate) fn forbidden(&self, why: &str) -> ApiError {
        ApiError::forbidden(&self.resource.names, self.name, why)
    }

    /// Keeps something until the object is written, or the write has failed.
    pub(crate) fn hold(&self, what: Box<dyn Any + Send>) {
        self.held.lock().push(what);
    }
}

/// The two things that a plug-in can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Change.
    Admit,
    /// Judge.
    Validate,
}

/// One judge of writes.
#[async_trait]
pub(crate) trait Plugin: Send + Sync {
    /// For messages and metrics, for example `LimitRanger`.
    fn name(&self) -> &'static str;

    /// Whether a step of it has anything to do with a request at all. Quick: it is asked for every write.
    fn handles(&self, step: Step, request: &Request<'_>) -> bool;

    /// Changes the object, or refuses it. Called again when webhooks or policies have changed the object after it.
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
pub(crate) struct Chain {
    plugins: Vec<Box<dyn Plugin>>,
    metrics: AdmissionMetrics,
}

impl Chain {
    /// Those that every API server has, in Kubernetes' order.
    pub(crate) fn standard() -> Self {
        let plugins: Vec<Box<dyn Plugin>> = vec![
            Box::new(limit_ranger::LimitRanger),
            Box::new(service_account::ServiceAccounts),
            Box::new(node_taint::TaintNodes),
            Box::new(node_restriction::NodeRestriction),
            Box::new(pod_security::PodSecurity),
            Box::new(priority::Priority),
            Box::new(default_tolerations::DefaultTolerations),
            Box::new(default_class::DefaultStorageClass),
            Box::new(storage_protection::StorageProtection),
            Box::new(claim_resize::ClaimResize),
            Box::new(runtime_class::RuntimeClasses),
            Box::new(crate::rbac::Escalation),
            Box::new(certificates::Approval),
            Box::new(certificates::Signing),
            Box::new(certificates::SubjectRestriction),
            Box::new(default_class::DefaultIngressClass),
            Box::new(topology_labels::TopologyLabels),
            Box::new(crate::custom::DefinitionRules),
            Box::new(hook_rules::HookRules),
            Box::new(param_access::ParamAccess),
            Box::new(mutating_policies::MutatingPolicies::new()),
            Box::new(webhooks::MutatingWebhooks::new()),
            Box::new(policies::ValidatingPolicies::new()),
            Box::new(webhooks::ValidatingWebhooks::new()),
            // Last: what it holds, others wait for.
            Box::new(resource_quota::ResourceQuota::default()),
        ];
        let metrics = AdmissionMetrics::new(plugins.iter().map(|p| p.name()));
        Self { plugins, metrics }
    }

    /// What it counts.
    pub(crate) fn metrics(&self) -> &AdmissionMetrics {
        &self.metrics
    }

    /// Lets every plug-in change the object. It is defaulted again by whoever changes it.
    ///
    /// When webhooks or policies have changed it, all plug-ins see it once more, as in Kubernetes'
    /// `staging/src/k8s.io/apiserver/pkg/admission/reinvocation.go`.
    ///
    /// # Errors
    /// The first refusal.
    pub(crate) async fn mutate(&self, registry: &Registry, request: &mut Request<'_>) -> Result<(), ApiError> {
        if request.context.unchecked {
            return Ok(());
        }
        let started = Instant::now();
        let mut result = self.admit(registry, request).await;
        if result.is_ok() && request.reinvocation.begin_again() {
            result = self.admit(registry, request).await;
        }
        self.metrics.step(Step::Admit, request.operation, result.is_err(), started.elapsed());
        result
    }

    async fn admit(&self, registry: &Registry, request: &mut Request<'_>) -> Result<(), ApiError> {
        for (i, plugin) in self.plugins.iter().enumerate() {
            if !plugin.handles(Step::Admit, request) {
                continue;
            }
            let started = Instant::now();
            let result = plugin.mutate(registry, request).await;
            self.metrics.plugin(i, Step::Admit, request.operation, result.is_err(), started.elapsed());
            result.inspect_err(|error| refused(&**plugin, error))?;
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
        let started = Instant::now();
        let result = self.judge(registry, request).await;
        self.metrics.step(Step::Validate, request.operation, result.is_err(), started.elapsed());
        result
    }

    async fn judge(&self, registry: &Registry, request: &Request<'_>) -> Result<(), ApiError> {
        for (i, plugin) in self.plugins.iter().enumerate() {
            if !plugin.handles(Step::Validate, request) {
                continue;
            }
            let started = Instant::now();
            let result = plugin.validate(registry, request).await;
            self.metrics.plugin(i, Step::Validate, request.operation, result.is_err(), started.elapsed());
            result.inspect_err(|error| refused(&**plugin, error))?;
        }
        Ok(())
    }
}

fn refused(plugin: &dyn Plugin, error: &ApiError) {
    tracing::debug!(plugin = plugin.name(), %error, "a write was refused");
}
