//! Takes out fields that the schema does not have, and says which.
//!
//! # Source
//! Kubernetes `apiextensions-apiserver/pkg/apiserver/schema/pruning/algorithm.go`.

use serde_json::Value;

use super::{Additional, Schema};

/// Paths that are named; more are taken out without a word.
const PATHS_MAX: usize = 1000;

const META: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// The fields of the metadata of embedded objects.
const META_FIELDS: [&str; 15] = [
    "annotations",
    "creationTimestamp",
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "labels",
    "managedFields",
    "name",
    "namespace",
    "ownerReferences",
    "resourceVersion",
    "selfLink",
    "uid",
];

impl Schema {
    /// Takes out unknown fields. `root`: `apiVersion`, `kind` and `metadata` stay. Answers with their paths, sorted.
    pub fn prune(&self, value: &mut Value, root: bool) -> Vec<String> {
        let mut pruning = Pruning { path: String::new(), paths: Vec::new() };
        pruning.prune(value, Some(self), root || self.embedded);
        pruning.paths.sort();
        pruning.paths
    }
}

struct Pruning {
    path: String,
    paths: Vec<String>,
}

impl Pruning {
    fn below(&mut self, key: &str, run: impl FnOnce(&mut Self)) {
        let before = self.path.len();
        if before > 0 {
            self.path.push('.');
        }
        self.path.push_str(key);
        run(self);
        self.path.truncate(before);
    }

    fn item(&mut self, i: usize, run: impl FnOnce(&mut Self)) {
        let before = self.path.len();
        self.path.push_str(&format!("[{i}]"));
        run(self);
        self.path.truncate(before);
    }

    fn record(&mut self, key: &str) {
        if self.paths.len() < PATHS_MAX {
            let dot = if self.path.is_empty() { "" } else { "." };
            self.paths.push(format!("{}{dot}{key}", self.path));
        }
    }

    /// Metadata of an embedded object. (That of the object itself has been read already.)
    fn metadata(&mut self, meta: &mut serde_json::Map<String, Value>) {
        let unknown: Vec<String> = meta.keys().filter(|k| !META_FIELDS.contains(&k.as_str())).cloned().collect();
        for name in unknown {
            self.record(&name);
            meta.remove(&name);
        }
    }

    fn prune(&mut self, value: &mut Value, schema: Option<&Schema>, embedded: bool) {
        let keeps = schema.is_some_and(|s| s.preserve);
        match value {
            Value::Object(fields) => {
                let names: Vec<String> = fields.keys().cloned().collect();
                for name in names {
                    if embedded && META.contains(&name.as_str()) {
                        if let (false, "metadata", Some(Value::Object(meta))) =
                            (self.path.is_empty(), name.as_str(), fields.get_mut(&name))
                        {
                            self.below(&name, |p| p.metadata(meta));
                        }
                        continue;
                    }
                    let property = schema.and_then(|s| s.properties.get(&name));
                    let additional = schema.map(|s| &s.additional);
                    let below = match (property, additional) {
                        (Some(property), _) => Some(Some(property)),
                        (None, Some(Additional::Schema(of))) => Some(Some(&**of)),
                        (None, Some(Additional::Allowed(_))) => Some(None),
                        _ => None,
                    };
                    let Some(given) = fields.get_mut(&name) else { continue };
                    match below {
                        Some(below) => {
                            let embedded = below.is_some_and(|s| s.embedded);
                            self.below(&name, |p| p.prune(given, below, embedded));
                        }
                        None if keeps => {}
                        None => {
                            if !META.contains(&name.as_str()) || !self.path.is_empty() {
                                self.record(&name);
                            }
                            fields.remove(&name);
                        }
                    }
                }
            }
            Value::Array(items) => {
                let below = schema.and_then(|s| s.items.as_deref());
                if keeps && below.is_none() {
                    return;
                }
                let embedded = below.is_some_and(|s| s.embedded);
                for (i, item) in items.iter_mut().enumerate() {
                    self.item(i, |p| p.prune(item, below, embedded));
                }
            }
            _ => {}
        }
    }
}
