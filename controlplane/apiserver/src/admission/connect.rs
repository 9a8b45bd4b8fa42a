//! Connections on their way: `pods/exec`, `pods/proxy` and the like, which webhooks and policies may refuse.
//!
//! What they see as the object are the options of the connection, `PodExecOptions` for example. They cannot change them.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apiserver/pkg/endpoints/handlers/rest.go` (`ConnectResource`).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use podium_api::{ApiError, KindRef, Names, Object, discovery::ResponseKind};
use serde_json::Value;

use super::{Operation, Request};
use crate::registry::{Registry, Resource, WriteContext};

/// The options of a connection.
#[derive(Debug, Clone)]
struct Options {
    /// The kind that is connected to.
    of: KindRef,
    names: Names,
    metadata: ObjectMeta,
    value: Value,
}

impl Object for Options {
    /// There is none.
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }

    fn names(&self) -> Names {
        self.names
    }

    /// The kind that is connected to: options are no kind of their own.
    fn kind(&self) -> KindRef {
        self.of.clone()
    }

    fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(&self.value)
    }

    fn to_value(&self) -> Result<Value, serde_json::Error> {
        Ok(self.value.clone())
    }

    fn boxed_clone(&self) -> Box<dyn Object> {
        Box::new(self.clone())
    }

    fn same_as(&self, other: &dyn Object) -> bool {
        other.downcast_other::<Self>().is_some_and(|other| self.value == other.value)
    }
}

/// What is connected to.
pub(crate) struct Connection<'a> {
    pub(crate) resource: &'a Resource,
    /// For example `exec`.
    pub(crate) subresource: &'a str,
    pub(crate) namespace: &'a str,
    /// As it stands in the path: `https:web:443`.
    pub(crate) name: &'a str,
    /// The options, without kind and version; what is empty is left out.
    pub(crate) options: Value,
}

/// Asks whether a connection may be made.
///
/// # Errors
/// The first refusal.
pub(crate) async fn admit(
    registry: &Registry,
    connection: Connection<'_>,
    context: &WriteContext<'_>,
) -> Result<(), ApiError> {
    let Connection { resource, subresource, namespace, name, options } = connection;
    let sub = resource.subresources.iter().find(|sub| sub.name == subresource);
    let spoken =
        sub.map_or_else(|| ResponseKind::of(&resource.names), |s| ResponseKind::of_subresource(&resource.names, s));
    let names = Names { group: spoken.group, version: spoken.version, kind: spoken.kind, ..resource.names };
    let mut value = serde_json::json!({ "kind": names.kind, "apiVersion": names.api_version() });
    for (field, given) in options.as_object().into_iter().flatten() {
        let empty = match given {
            Value::Null | Value::Bool(false) => true,
            Value::String(text) => text.is_empty(),
            Value::Array(all) => all.is_empty(),
            _ => false,
        };
        if !empty {
            value[field] = given.clone();
        }
    }
    let object = Options { of: resource.kind.clone(), names, metadata: ObjectMeta::default(), value };
    let mut request = Request {
        operation: Operation::Connect,
        resource,
        subresource,
        namespace,
        name,
        object: Some(Box::new(object)),
        old: None,
        options: Value::Null,
        context,
        held: Default::default(),
        reinvocation: Default::default(),
    };
    registry.admission().mutate(registry, &mut request).await?;
    registry.admission().validate(registry, &request).await
}
