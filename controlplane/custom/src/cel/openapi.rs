//! From OpenAPI schemas to types of expressions, for checks of what is written against kinds that are served.
//!
//! Fields whose schema says nothing are unknown to expressions, as in Kubernetes; what refers to itself is `dyn`.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apiserver/pkg/cel/common/schemas.go` (`SchemaDeclType`).

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Map, Value};

use super::{Field, Size, Struct, Type, escape};

/// How deep types are told; below, they are `dyn`.
const DEPTH_MAX: usize = 24;

impl Type {
    /// The type of whole objects of a kind: `schemas` has the schema `root` and all that it refers to; `name` is what
    /// messages call the type.
    pub fn of_openapi(schemas: &Map<String, Value>, root: &str, name: &str) -> Option<Self> {
        let schema = schemas.get(root)?;
        let mut reader = Reader { schemas, above: vec![root] };
        let Self::Struct(object) = reader.read(schema, name)? else { return None };
        let mut fields = object.fields.clone();
        for field in ["apiVersion", "kind"] {
            fields.entry(field.to_owned()).or_insert_with(|| field_of(Self::String));
        }
        let known =
            matches!(fields.get("metadata").map(|f| &f.of), Some(Self::Struct(m)) if m.fields.contains_key("name"));
        if !known {
            let texts = ["name", "generateName"].map(|field| (field.to_owned(), field_of(Self::String)));
            fields.insert("metadata".to_owned(), field_of(structure(format!("{name}.metadata"), texts.into())));
        }
        Some(structure(name.to_owned(), fields))
    }
}

fn field_of(of: Type) -> Field {
    Field { of, size: Size::UNKNOWN }
}

fn structure(name: String, fields: BTreeMap<String, Field>) -> Type {
    Type::Struct(Arc::new(Struct { name, fields, open: false }))
}

struct Reader<'a> {
    schemas: &'a Map<String, Value>,
    /// The schemas that are being read.
    above: Vec<&'a str>,
}

impl<'a> Reader<'a> {
    /// `None` when expressions do not see such values.
    fn read(&mut self, schema: &'a Value, name: &str) -> Option<Type> {
        if let Some(target) = referred(schema) {
            if self.above.contains(&target) || self.above.len() > DEPTH_MAX {
                return Some(Type::Dyn);
            }
            self.above.push(target);
            let of = self.schemas.get(target).and_then(|schema| self.read(schema, name));
            self.above.pop();
            return of;
        }
        let says = |field: &str| schema.get(field).and_then(Value::as_str);
        if says("format") == Some("int-or-string")
            || schema.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true))
        {
            return Some(Type::Dyn);
        }
        let first = || schema.get("oneOf")?.get(0)?.get("type")?.as_str();
        match (says("type").or_else(first)?, says("format")) {
            ("array", _) => self.read(schema.get("items")?, &format!("{name}.@idx")).map(Type::list),
            ("object", _) => self.object(schema, name),
            ("string", Some("byte")) => Some(Type::Bytes),
            ("string", Some("duration")) => Some(Type::Duration),
            ("string", Some("date" | "date-time")) => Some(Type::Timestamp),
            ("string", _) => Some(Type::String),
            ("boolean", _) => Some(Type::Bool),
            ("number", _) => Some(Type::Double),
            ("integer", _) => Some(Type::Int),
            _ => None,
        }
    }

    fn object(&mut self, schema: &'a Value, name: &str) -> Option<Type> {
        if let Some(values) = schema.get("additionalProperties").filter(|v| v.is_object()) {
            return self.read(values, &format!("{name}.@elem")).map(|of| Type::map(Type::String, of));
        }
        let mut fields = BTreeMap::new();
        for (field, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            let Some(of) = self.read(property, &format!("{name}.{field}")) else { continue };
            if let Some(escaped) = escape(field) {
                fields.insert(escaped.into_owned(), field_of(of));
            }
        }
        Some(structure(name.to_owned(), fields))
    }
}

/// The schema that is meant, when another one is.
fn referred(schema: &Value) -> Option<&str> {
    let reference = schema.get("$ref").or_else(|| schema.get("allOf")?.get(0)?.get("$ref"))?.as_str()?;
    reference.rsplit('/').next()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cel::{CompileError, Env, Expression};

    #[test]
    fn what_expressions_know_of_a_schema() {
        let schemas = json!({
            "example.Thing": {"type": "object", "properties": {
                "spec": {"allOf": [{"$ref": "#/components/schemas/example.Spec"}], "description": "x"},
                "metadata": {"type": "object"},
            }},
            "example.Spec": {"type": "object", "properties": {
                "replicas": {"type": "integer", "format": "int32"}, "port": {"format": "int-or-string"},
                "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                "since": {"type": "string", "format": "date-time"}, "data": {"type": "string", "format": "byte"},
                "limit": {"oneOf": [{"type": "string"}, {"type": "number"}]}, "unknown": {},
                "parts": {"type": "array", "items": {"$ref": "#/components/schemas/example.Spec"}},
            }},
        });
        let of = Type::of_openapi(schemas.as_object().unwrap(), "example.Thing", "Thing").unwrap();
        let env = Env::new().variable("object", of);
        for (text, wanted) in [
            ("object.spec.replicas > 1 && object.metadata.name != '' && object.kind == 'Thing'", None),
            ("object.spec.labels['a'] == 'b' && object.spec.port == 80 && object.spec.limit == '1Gi'", None),
            ("object.spec.since < timestamp('2026-01-01T00:00:00Z')", None),
            ("object.spec.parts[0].anything == 1", None),
            ("object.spec.replicas > '1'", Some("found no matching overload for '_>_' applied to '(int, string)'")),
            ("object.spec.unknown", Some("undefined field 'unknown'")),
            ("object.spec.missing", Some("undefined field 'missing'")),
            ("object.spec == 1", Some("found no matching overload for '_==_' applied to '(Thing.spec, int)'")),
        ] {
            let got = Expression::compile(text, &env).err().map(|error| match error {
                CompileError::Invalid(text) | CompileError::Result(text) => text,
            });
            match (wanted, got) {
                (None, got) => assert_eq!(got, None, "{text}"),
                (Some(wanted), got) => assert!(got.as_deref().is_some_and(|g| g.contains(wanted)), "{text}: {got:?}"),
            }
        }
    }
}
