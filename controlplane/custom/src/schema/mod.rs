//! Structural schemas: what a CustomResourceDefinition says of the objects of one version.
//!
//! A [`Schema`] is made once for a version and then prunes, fills in and checks each object. Making one never fails:
//! what makes a schema not structural is listed by [`structural_errors`] when the definition is written.

mod convert;
mod defaults;
mod formats;
mod list_type;
pub(crate) mod openapi;
mod prune;
mod rules;
mod structural;
#[cfg(test)]
mod tests;
mod types;
mod validate;

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

pub(crate) use rules::declare;
pub use rules::{Rule, compile_rules};
pub use structural::structural_errors;
pub(crate) use structural::{additional, items};
pub(crate) use types::root_type;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;
use serde_json::Value;

/// The JSON type that a schema asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Kind {
    /// Any.
    #[default]
    Any,
    /// `object`
    Object,
    /// `array`
    Array,
    /// `string`
    String,
    /// `integer`
    Integer,
    /// `number`
    Number,
    /// `boolean`
    Boolean,
}

/// What `additionalProperties` says.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Additional {
    /// Nothing.
    #[default]
    Unset,
    /// `true` or `false`.
    Allowed(bool),
    /// A schema for all of them.
    Schema(Box<Schema>),
}

/// What tells the items of a list apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ListKind {
    /// Nothing.
    #[default]
    Atomic,
    /// Their values.
    Set,
    /// These fields.
    Map(Vec<String>),
}

/// What values must be like, beyond their type.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Limits {
    /// `format`
    pub format: Option<String>,
    /// `maximum`, `exclusiveMaximum`
    pub maximum: Option<(f64, bool)>,
    /// `minimum`, `exclusiveMinimum`
    pub minimum: Option<(f64, bool)>,
    /// `maxLength`
    pub max_length: Option<i64>,
    /// `minLength`
    pub min_length: Option<i64>,
    /// `pattern`
    pub pattern: Option<Pattern>,
    /// `maxItems`
    pub max_items: Option<i64>,
    /// `minItems`
    pub min_items: Option<i64>,
    /// `uniqueItems`
    pub unique_items: bool,
    /// `multipleOf`
    pub multiple_of: Option<f64>,
    /// `enum`
    pub one_of_values: Option<Vec<Value>>,
    /// `maxProperties`
    pub max_properties: Option<i64>,
    /// `minProperties`
    pub min_properties: Option<i64>,
    /// `required`
    pub required: Vec<String>,
    /// `allOf`
    pub all_of: Vec<Schema>,
    /// `anyOf`
    pub any_of: Vec<Schema>,
    /// `oneOf`
    pub one_of: Vec<Schema>,
    /// `not`
    pub not: Option<Box<Schema>>,
}

/// A pattern, compiled once; `None` when it is none that the `regex` crate can read.
#[derive(Debug, Clone)]
pub struct Pattern {
    /// As written.
    pub text: String,
    /// Compiled.
    pub regex: Option<regex::Regex>,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

/// A structural schema.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Schema {
    /// The type.
    pub kind: Kind,
    /// Whether `null` stays.
    pub nullable: bool,
    /// `x-kubernetes-int-or-string`
    pub int_or_string: bool,
    /// `x-kubernetes-preserve-unknown-fields`
    pub preserve: bool,
    /// `x-kubernetes-embedded-resource`
    pub embedded: bool,
    /// Whether it is a whole object, with `apiVersion`, `kind` and `metadata`.
    pub resource: bool,
    /// The known fields.
    pub properties: BTreeMap<String, Schema>,
    /// Other fields.
    pub additional: Additional,
    /// The items.
    pub items: Option<Box<Schema>>,
    /// What stands for a missing value.
    pub default: Option<Value>,
    /// `x-kubernetes-list-type`
    pub list: ListKind,
    /// `x-kubernetes-map-type: atomic`
    pub atomic: bool,
    /// What values must be like.
    pub limits: Limits,
    /// `x-kubernetes-validations`
    pub rules: Vec<Arc<Rule>>,
}

impl Schema {
    /// From what the definition says. Rules are not compiled yet: see [`compile_rules`].
    pub fn new(props: &JSONSchemaProps) -> Self {
        convert::schema(props)
    }

    /// The schema of a field.
    pub fn field(&self, name: &str) -> Option<&Self> {
        self.properties.get(name).or(match &self.additional {
            Additional::Schema(schema) => Some(schema),
            _ => None,
        })
    }

    /// Whether its values are maps: fields of any name, all of one schema.
    pub fn is_map(&self) -> bool {
        matches!(self.additional, Additional::Schema(_))
    }
}

/// The name of a type.
pub(crate) fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Any => "",
        Kind::Object => "object",
        Kind::Array => "array",
        Kind::String => "string",
        Kind::Integer => "integer",
        Kind::Number => "number",
        Kind::Boolean => "boolean",
    }
}

/// A path as errors show it: that of a whole object is `<nil>`, as in Go.
pub(crate) fn or_nil(path: &podium_api::FieldPath) -> podium_api::FieldPath {
    if *path == podium_api::FieldPath::default() { podium_api::FieldPath::new("<nil>") } else { path.clone() }
}

/// What expressions see of `metadata`.
pub(crate) fn metadata() -> &'static Schema {
    static METADATA: LazyLock<Schema> = LazyLock::new(|| {
        let text = Schema { kind: Kind::String, ..Schema::default() };
        let properties = [("name".to_owned(), text.clone()), ("generateName".to_owned(), text)].into();
        Schema { kind: Kind::Object, properties, ..Schema::default() }
    });
    &METADATA
}
