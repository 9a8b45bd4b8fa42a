//! Fills in what is missing, and takes out nulls that mean nothing.
//!
//! # Source
//! Kubernetes `apiextensions-apiserver/pkg/apiserver/schema/defaulting/{algorithm,prunenulls}.go`.

use serde_json::Value;

use super::{Additional, Schema};

impl Schema {
    /// Fills in defaults. Idempotent.
    pub fn fill_defaults(&self, value: &mut Value) {
        match value {
            Value::Object(fields) => {
                for (name, property) in &self.properties {
                    let Some(default) = &property.default else { continue };
                    let missing = match fields.get(name) {
                        None => true,
                        Some(given) => given.is_null() && !property.nullable,
                    };
                    if missing {
                        fields.insert(name.clone(), default.clone());
                    }
                }
                for (name, given) in fields.iter_mut() {
                    match (self.properties.get(name), &self.additional) {
                        (Some(property), _) => property.fill_defaults(given),
                        (None, Additional::Schema(others)) => {
                            others.replace_null(given);
                            others.fill_defaults(given);
                        }
                        _ => {}
                    }
                }
            }
            Value::Array(items) => {
                let Some(schema) = &self.items else { return };
                for item in items {
                    schema.replace_null(item);
                    schema.fill_defaults(item);
                }
            }
            _ => {}
        }
    }

    fn replace_null(&self, value: &mut Value) {
        if let (true, false, Some(default)) = (value.is_null(), self.nullable, &self.default) {
            *value = default.clone();
        }
    }

    /// Takes out nulls of fields that may not be null and have a default: the default then comes in their place.
    pub fn drop_nulls(&self, value: &mut Value) {
        match value {
            Value::Object(fields) => {
                fields.retain(|name, given| {
                    !given.is_null() || self.properties.get(name).is_none_or(|p| p.nullable || p.default.is_none())
                });
                for (name, given) in fields.iter_mut() {
                    if let Some(schema) = self.field(name) {
                        schema.drop_nulls(given);
                    }
                }
            }
            Value::Array(items) => {
                if let Some(schema) = &self.items {
                    items.iter_mut().for_each(|item| schema.drop_nulls(item));
                }
            }
            _ => {}
        }
    }
}
