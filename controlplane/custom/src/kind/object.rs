//! [`CustomObject`]: an object of a kind that a definition made.

use std::{borrow::Cow, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use podium_api::{KindRef, Names, Object};
use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::{Map, Value};

use super::{CustomKind, Path};

/// Metadata with a type, the rest as JSON.
#[derive(Debug, Clone)]
pub struct CustomObject {
    pub(crate) kind: Arc<CustomKind>,
    pub(crate) meta: ObjectMeta,
    /// All but `apiVersion`, `kind` and `metadata`.
    pub(crate) fields: Map<String, Value>,
}

impl CustomObject {
    /// All but `apiVersion`, `kind` and `metadata`.
    pub fn fields(&self) -> &Map<String, Value> {
        &self.fields
    }

    /// What a path leads to, without a copy of the whole.
    pub(crate) fn at(&self, path: &Path) -> Option<Cow<'_, Value>> {
        let names = self.names();
        let made = match path.root()? {
            "metadata" => serde_json::to_value(&self.meta).ok()?,
            "apiVersion" => names.api_version().into(),
            "kind" => names.kind.into(),
            field => return path.first_below(self.fields.get(field)?).map(Cow::Borrowed),
        };
        path.first_below(&made).cloned().map(Cow::Owned)
    }

    /// The object as one tree.
    pub(crate) fn whole(&self) -> Value {
        let names = self.names();
        let mut whole = self.fields.clone();
        whole.insert("apiVersion".to_owned(), names.api_version().into());
        whole.insert("kind".to_owned(), names.kind.into());
        whole.insert("metadata".to_owned(), serde_json::to_value(&self.meta).unwrap_or_default());
        Value::Object(whole)
    }

    /// The same object as one of another version.
    pub(crate) fn as_kind(&self, kind: &Arc<CustomKind>) -> Self {
        Self { kind: kind.clone(), meta: self.meta.clone(), fields: self.fields.clone() }
    }
}

/// `apiVersion`, `kind` and `metadata` come first.
impl Serialize for CustomObject {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let names = self.names();
        let mut map = serializer.serialize_map(Some(self.fields.len() + 3))?;
        map.serialize_entry("apiVersion", &names.api_version())?;
        map.serialize_entry("kind", names.kind)?;
        map.serialize_entry("metadata", &self.meta)?;
        for (name, value) in &self.fields {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

impl Object for CustomObject {
    fn meta(&self) -> &ObjectMeta {
        &self.meta
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.meta
    }

    fn names(&self) -> Names {
        self.kind.names
    }

    fn kind(&self) -> KindRef {
        self.kind.clone()
    }

    fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }

    fn to_value(&self) -> Result<Value, serde_json::Error> {
        Ok(self.whole())
    }

    fn boxed_clone(&self) -> Box<dyn Object> {
        Box::new(self.clone())
    }

    fn same_as(&self, other: &dyn Object) -> bool {
        other
            .downcast_other::<Self>()
            .is_some_and(|o| self.kind.names == o.kind.names && self.meta == o.meta && self.fields == o.fields)
    }
}
