//! What some kinds need beyond storage, and what the cluster as a whole demands of every write.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apiserver/pkg/admission/plugin/namespace/lifecycle/admission.go`.

use podium_api::{
    ApiError, Kind as _, Object, Reason, Scope,
    k8s_openapi::{
        api::{
            certificates::v1::CertificateSigningRequest,
            core::v1::{Namespace, Node, Service},
        },
        apimachinery::pkg::apis::meta::v1::StatusCause,
    },
};

use super::{Registry, Resource, alloc::Claim, cache::Filter, services};
use crate::{auth::Identity, config::ServerConfig};

/// Namespaces that cannot be deleted.
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// A certificate is asked for by who asks, whatever the request says.
fn sign(request: &mut CertificateSigningRequest, who: &Identity) {
    let spec = &mut request.spec;
    spec.username = Some(who.user.clone());
    spec.uid = Some(who.uid.clone()).filter(|uid| !uid.is_empty());
    spec.groups = Some(who.groups.clone()).filter(|groups| !groups.is_empty());
    spec.extra = Some(who.extra.clone()).filter(|extra| !extra.is_empty());
}

/// What is given out to objects.
pub(crate) struct Allocators {
    services: services::ServiceAllocator,
    nodes: services::NodeNetworks,
}

impl Allocators {
    pub(super) fn new(config: &ServerConfig) -> Self {
        Self {
            services: services::ServiceAllocator::new(config.service_cidr, &config.node_ports),
            nodes: services::NodeNetworks::new(config.cluster_cidr),
        }
    }
}

impl Registry {
    /// Notes what the stored objects have been given.
    pub(super) fn rebuild_allocations(&self) {
        for resource in self.served().all() {
            if !matches!(resource.names.kind, "Service" | "Node") {
                continue;
            }
            for entry in resource.cache.list(&Filter::default()).entries {
                if let Some(service) = entry.object.downcast_ref::<Service>() {
                    self.allocators.services.rebuild(service);
                } else if let Some(node) = entry.object.downcast_ref::<Node>() {
                    self.allocators.nodes.rebuild(node);
                }
            }
        }
    }

    /// New objects need a namespace that is there and stays.
    pub(super) fn admit_namespace(&self, resource: &Resource, object: &dyn Object) -> Result<(), ApiError> {
        if resource.scope == Scope::Cluster {
            return Ok(());
        }
        let namespace = object.meta().namespace.as_deref().unwrap_or_default();
        let names = &Namespace::NAMES;
        let Some(entry) = self.of(names)?.cache.get("", namespace) else {
            return Err(ApiError::not_found(names, namespace));
        };
        if entry.object.meta().deletion_timestamp.is_none() {
            return Ok(());
        }
        let name = object.meta().name.as_deref().unwrap_or_default();
        let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
        let mut error = ApiError::forbidden(&resource.names, name, &why);
        error.details.get_or_insert_default().causes = Some(vec![StatusCause {
            reason: Some("NamespaceTerminating".to_owned()),
            message: Some(format!("namespace {namespace} is being terminated")),
            field: Some("metadata.namespace".to_owned()),
        }]);
        Err(error)
    }

    /// Some namespaces are there for good.
    pub(super) fn admit_delete(&self, resource: &Resource, name: &str) -> Result<(), ApiError> {
        if resource.names.kind == Namespace::NAMES.kind && IMMORTAL.contains(&name) {
            let why = "this namespace may not be deleted";
            return Err(ApiError::forbidden(&resource.names, name, why));
        }
        Ok(())
    }

    /// Fills in what only the API server sets at creation.
    pub(super) fn complete_create(&self, object: &mut dyn Object, who: &Identity) {
        if let Some(request) = object.downcast_mut::<CertificateSigningRequest>() {
            return sign(request, who);
        }
        let Some(namespace) = object.downcast_mut::<Namespace>() else { return };
        let name = namespace.metadata.name.clone().unwrap_or_default();
        let labels = namespace.metadata.labels.get_or_insert_default();
        labels.insert("kubernetes.io/metadata.name".to_owned(), name);
        let finalizers = namespace.spec.get_or_insert_default().finalizers.get_or_insert_default();
        if !finalizers.iter().any(|f| f == "kubernetes") {
            finalizers.push("kubernetes".to_owned());
        }
        namespace.status.get_or_insert_default().phase = Some("Active".to_owned());
    }

    /// Gives an object the addresses, ports and networks that it needs.
    ///
    /// # Errors
    /// 422 when what it asks for is not to be had.
    pub(super) fn allocate(&self, object: &mut dyn Object, old: Option<&dyn Object>) -> Result<Claim, ApiError> {
        if let Some(service) = object.downcast_mut::<Service>() {
            return self.allocators.services.assign(service, old.and_then(|o| o.downcast_ref()));
        }
        match object.downcast_mut::<Node>() {
            Some(node) if old.is_none() => Ok(self.allocators.nodes.assign(node)),
            _ => Ok(Claim::default()),
        }
    }

    /// Gives back what a deleted object had.
    pub(super) fn release(&self, object: &dyn Object) {
        if let Some(service) = object.downcast_ref::<Service>() {
            self.allocators.services.release(service);
        } else if let Some(node) = object.downcast_ref::<Node>() {
            self.allocators.nodes.release(node);
        }
    }

    /// 503 while the store takes no writes.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn check_store(&self) -> Result<(), ApiError> {
        match self.store.failure() {
            None => Ok(()),
            Some(error) => Err(ApiError::new(Reason::ServiceUnavailable, error.to_string()).retry_after(5)),
        }
    }
}
