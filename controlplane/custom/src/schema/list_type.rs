//! Items of lists that are sets or maps may be there once.
//!
//! # Source
//! Kubernetes `apiextensions-apiserver/pkg/apiserver/schema/listtype/validation.go`.

use std::collections::HashMap;

use podium_api::{FieldErrors, FieldPath};
use serde_json::{Map, Value};

use super::{ListKind, Schema};

impl Schema {
    /// Says which items of sets and maps are there twice.
    pub fn check_lists(&self, path: &FieldPath, value: &Value, errs: &mut FieldErrors) {
        match value {
            Value::Object(fields) => {
                for (name, given) in fields {
                    if let Some(schema) = self.field(name) {
                        let below = if self.is_map() { path.key(name) } else { path.child(name) };
                        schema.check_lists(&below, given, errs);
                    }
                }
            }
            Value::Array(items) => {
                match &self.list {
                    ListKind::Atomic => {}
                    ListKind::Set => {
                        for i in repeated(items.iter().map(Value::to_string)) {
                            errs.duplicate(&path.index(i), items[i].clone());
                        }
                    }
                    ListKind::Map(keys) => check_map(path, keys, items, errs),
                }
                if let Some(schema) = &self.items {
                    for (i, item) in items.iter().enumerate() {
                        schema.check_lists(&path.index(i), item, errs);
                    }
                }
            }
            _ => {}
        }
    }
}

fn check_map(path: &FieldPath, keys: &[String], items: &[Value], errs: &mut FieldErrors) {
    if let Some(i) = items.iter().position(|item| !item.is_object() && !item.is_null()) {
        errs.invalid(&path.index(i), items[i].clone(), "must be an object for an array of list-type map");
        return;
    }
    let key = |item: &Value| {
        let found = keys.iter().filter_map(|k| item.get(k).map(|v| (k.clone(), v.clone())));
        Value::Object(found.collect::<Map<_, _>>())
    };
    let found: Vec<Value> = items.iter().map(key).collect();
    for i in repeated(found.iter().map(Value::to_string)) {
        errs.duplicate(&path.index(i), found[i].clone());
    }
}

/// Where the second of each is.
fn repeated(texts: impl Iterator<Item = String>) -> Vec<usize> {
    let mut seen: HashMap<String, u32> = HashMap::new();
    let mut found = Vec::new();
    for (i, text) in texts.enumerate() {
        let times = seen.entry(text).or_default();
        *times = times.saturating_add(1);
        if *times == 2 {
            found.push(i);
        }
    }
    found
}
