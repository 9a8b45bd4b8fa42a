//! The columns that `kubectl get` prints of a custom kind.
//!
//! # Source
//! Kubernetes `apiextensions-apiserver/pkg/registry/customresource/tableconvertor/tableconvertor.go`.

use jiff::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceColumnDefinition;
use podium_api::{
    Cell, ColumnType, intern,
    kind::{Help, human_duration},
    object::ColumnInfo,
};
use serde_json::Value;

use super::{CustomObject, path::Path};

/// A column.
#[derive(Debug)]
pub(super) struct Column {
    pub(super) info: ColumnInfo,
    path: Option<Path>,
}

impl Column {
    /// From a definition; `None` when its name cannot be kept.
    pub(super) fn new(definition: &CustomResourceColumnDefinition) -> Option<Self> {
        let kind = match definition.type_.as_str() {
            "integer" => ColumnType::Integer,
            "number" => ColumnType::Number,
            "boolean" => ColumnType::Boolean,
            "date" => ColumnType::Date,
            _ => ColumnType::String,
        };
        let path = &definition.json_path;
        let help = definition.description.clone().filter(|d| !d.is_empty());
        let help = help.unwrap_or_else(|| format!("Custom resource definition column (in JSONPath format): {path}"));
        let info = ColumnInfo {
            name: intern(&definition.name)?,
            kind,
            format: intern(definition.format.as_deref().unwrap_or_default())?,
            help: intern(&help)?,
            priority: definition.priority.unwrap_or(0),
        };
        Some(Self { info, path: Path::parse(&definition.json_path) })
    }

    /// `Age`, where a definition names no columns.
    pub(super) fn age() -> Self {
        let info = ColumnInfo::new("Age", ColumnType::Date, "", Help::CREATED);
        Self { info, path: Path::parse(".metadata.creationTimestamp") }
    }

    pub(super) fn cell(&self, object: &CustomObject, now: Timestamp) -> Cell {
        let Some(value) = self.path.as_ref().and_then(|p| object.at(p)) else { return Cell::Null };
        match (self.info.kind, &*value) {
            (_, Value::Null) => Cell::Null,
            (ColumnType::String, Value::String(text)) => text.as_str().into(),
            (ColumnType::String, other) => other.to_string().into(),
            #[expect(clippy::cast_possible_truncation, reason = "as Kubernetes does")]
            (ColumnType::Integer, Value::Number(n)) => {
                n.as_i64().or_else(|| n.as_f64().map(|f| f as i64)).map_or(Cell::Null, Cell::from)
            }
            (ColumnType::Number, Value::Number(n)) => n.as_f64().map_or(Cell::Null, Cell::from),
            (ColumnType::Boolean, Value::Bool(b)) => (*b).into(),
            (ColumnType::Date, Value::String(text)) => match text.parse::<Timestamp>() {
                Ok(then) => human_duration(now.as_second() - then.as_second()).into(),
                Err(_) => "<invalid>".into(),
            },
            _ => Cell::Null,
        }
    }
}
