//! Who owns which fields: `metadata.managedFields` of every write.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apiserver/pkg/endpoints/handlers/{create,update,patch}.go`.

use std::sync::Arc;

use podium_api::{
    ApiError, Object,
    apply::{self, ManagedFields, Reset, Schemas, Versions, Writer},
    schema::RootType,
};
use serde_json::Value;

use super::{Part, Registry, Resource, WriteContext, cache::Entry};

/// An object as a client wants it.
pub(crate) struct Proposal {
    pub(crate) object: Box<dyn Object>,
    /// The owners of its fields, when they are settled already (by an apply).
    pub(crate) managed: Option<Vec<u8>>,
}

impl From<Box<dyn Object>> for Proposal {
    fn from(object: Box<dyn Object>) -> Self {
        Self { object, managed: None }
    }
}

/// What a client said of `managedFields` in the object that it wrote.
#[derive(Debug)]
pub(super) enum Given {
    /// Nothing: they stay as they are.
    Nothing,
    /// One empty entry: they are to be forgotten.
    Cleared,
    /// They are to be these.
    These(ManagedFields),
}

impl Given {
    /// Takes them out of an object. What cannot be read counts as nothing.
    pub(super) fn take(object: &mut dyn Object) -> Self {
        match object.meta_mut().managed_fields.take() {
            None => Self::Nothing,
            Some(entries) if entries.is_empty() => Self::Nothing,
            Some(entries) if entries.len() == 1 && entries[0] == Default::default() => Self::Cleared,
            Some(entries) => ManagedFields::from_entries(entries).map_or(Self::Nothing, Self::These),
        }
    }

    /// Whether they would stay as they are.
    pub(super) fn keeps(&self, live: &[u8]) -> bool {
        match self {
            Self::Nothing => true,
            Self::Cleared => live.is_empty(),
            Self::These(these) => encoded(these) == live,
        }
    }

    fn or(self, live: &[u8]) -> Result<ManagedFields, ApiError> {
        match self {
            Self::Nothing if live.is_empty() => Ok(ManagedFields::default()),
            Self::Nothing => ManagedFields::from_json(live),
            Self::Cleared => Ok(ManagedFields::default()),
            Self::These(these) => Ok(these),
        }
    }
}

/// Conversions between the versions of a kind, as far as the kind knows them itself.
struct KindVersions<'a> {
    registry: &'a Registry,
    resource: &'a Resource,
}

impl KindVersions<'_> {
    fn version(&self, api_version: &str) -> Option<Arc<Resource>> {
        let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
        self.registry.served().find_kind(group, version, self.resource.names.kind).cloned()
    }
}

impl Versions for KindVersions<'_> {
    fn convert(&self, value: &Value, to: &str) -> Option<Value> {
        let from = value.get("apiVersion")?.as_str()?;
        if from == to {
            return Some(value.clone());
        }
        let (from, to) = (self.version(from)?, self.version(to)?);
        let object = from.kind.decode_value(value.clone()).ok()?.object;
        let stored = from.kind.to_stored(object).ok()?;
        to.kind.from_stored(&*stored).ok()?.to_value().ok()
    }

    fn types(&self, api_version: &str) -> Option<RootType> {
        Some(self.version(api_version)?.kind.types())
    }
}

/// The JSON array; nothing at all when nobody owns anything.
fn encoded(managed: &ManagedFields) -> Vec<u8> {
    if managed.is_empty() { Vec::new() } else { managed.to_json() }
}

fn reset(resource: &Resource, part: Part) -> Reset<'static> {
    let has_status = resource.subresource("status").is_some();
    match part {
        Part::Status => Reset(&["spec", "data"]),
        Part::Main if has_status => Reset(&["status"]),
        _ => Reset(&[]),
    }
}

impl Registry {
    fn writer<'a>(&self, part: Part, context: &'a WriteContext<'_>, at: &'a str) -> Writer<'a> {
        Writer {
            manager: &context.manager,
            subresource: part.subresource(),
            api_version: at,
            time: super::create::whole_seconds(self.clock().now()),
        }
    }

    /// The owners of the fields after a write other than an apply.
    ///
    /// # Errors
    /// 500 when an object cannot be encoded.
    pub(super) fn owned(
        &self,
        resource: &Resource,
        part: Part,
        context: &WriteContext<'_>,
        old: Option<&Entry>,
        (new, given): (&dyn Object, Given),
    ) -> Result<Vec<u8>, ApiError> {
        let managed = given.or(old.map(Entry::managed).unwrap_or_default())?;
        let version = resource.names.api_version();
        let writer = self.writer(part, context, &version);
        let internal = |e: serde_json::Error| ApiError::internal(format!("encoding an object: {e}"));
        let new = new.to_value().map_err(internal)?;
        let old = old.map(Entry::bare_tree).transpose()?;
        let versions = KindVersions { registry: self, resource };
        let types = resource.kind.types();
        let schemas = Schemas { types: &types, versions: Some(&versions) };
        let managed = apply::update(schemas, old.as_ref(), &new, managed, &writer, &reset(resource, part))?;
        Ok(encoded(&managed))
    }

    /// The object and the owners of its fields after an apply.
    ///
    /// # Errors
    /// 409 naming those who own what the configuration would change; 400 and 422 for what is wrong with it.
    pub(super) fn applied(
        &self,
        resource: &Resource,
        part: Part,
        context: &WriteContext<'_>,
        live: Option<&Entry>,
        (config, force): (&Value, bool),
    ) -> Result<(Value, Vec<u8>), ApiError> {
        let managed = Given::Nothing.or(live.map(Entry::managed).unwrap_or_default())?;
        let version = resource.names.api_version();
        let writer = self.writer(part, context, &version);
        let live = live.map(Entry::bare_tree).transpose()?;
        let versions = KindVersions { registry: self, resource };
        let types = resource.kind.types();
        let reset = reset(resource, part);
        let schemas = Schemas { types: &types, versions: Some(&versions) };
        let (merged, managed) = apply::apply(schemas, live.as_ref(), config, managed, &writer, &reset, force)?;
        Ok((merged, encoded(&managed)))
    }
}
