//! The JSON schemas of kinds as plain JSON, by name (`io.k8s.api.core.v1.PodSpec`), for patches and OpenAPI.

mod build;
mod table;
pub mod types;

pub(crate) use build::types_of;
pub use table::{Extension, ListWord, list_extension};
pub use types::{ListKind, ListType, MapType, MergeKey, RootType, Type, TypeId, Types};

use k8s_openapi::schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value};

use crate::object::AnyKind;

/// Where references point to.
pub(crate) const REF_PREFIX: &str = "#/components/schemas/";

/// The schemas of these kinds and of all that they refer to.
pub(crate) fn definitions<'a>(kinds: impl IntoIterator<Item = &'a dyn AnyKind>) -> Map<String, Value> {
    let mut generator = generator();
    for kind in kinds {
        kind.schema(&mut generator);
    }
    generator.take_definitions(false)
}

/// Makes schemas, with references as OpenAPI v3 has them.
pub(crate) fn generator() -> SchemaGenerator {
    let settings = SchemaSettings::draft2019_09().with(|s| {
        s.definitions_path = "/components/schemas".into();
        s.meta_schema = None;
        s.transforms.clear();
    });
    SchemaGenerator::new(settings)
}

/// The name that a schema refers to.
pub(crate) fn referred(schema: &Value) -> Option<&str> {
    schema.get("$ref")?.as_str()?.strip_prefix(REF_PREFIX)
}
