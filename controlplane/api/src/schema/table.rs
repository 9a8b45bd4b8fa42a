//! The table of list types: what Kubernetes' types say beyond plain JSON schema about merging and ownership.
//!
//! Read once from `table.txt`, which `generate.py` writes and whose first lines explain its form.

use std::{collections::HashMap, sync::LazyLock};

use serde_json::Value;

use super::types::MergeKey;

/// What tells the items of a list apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListWord {
    /// `set`: their values.
    Set,
    /// `map`: some of their fields.
    Map,
}

/// What the table says of a field or of a schema.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Extension {
    /// The list type; lists without one are atomic.
    pub list: Option<ListWord>,
    /// The fields that tell the items of a [`ListWord::Map`] apart.
    pub keys: Vec<MergeKey>,
    /// Whether an object is owned as a whole (`true`) or, against its own type, field by field (`false`).
    pub atomic: Option<bool>,
    /// Whether Kubernetes' own objects always have the field, empty at least: a struct or list that is no pointer.
    pub by_value: bool,
    /// `patchStrategy`, for example `merge,retainKeys`.
    pub patch_strategy: Option<&'static str>,
    /// `patchMergeKey`.
    pub patch_merge_key: Option<&'static str>,
}

impl Extension {
    /// As properties of an OpenAPI schema: `x-kubernetes-list-type` and the like.
    pub fn properties(&self) -> Vec<(&'static str, Value)> {
        let mut out = Vec::new();
        match self.list {
            Some(ListWord::Set) => out.push(("x-kubernetes-list-type", "set".into())),
            Some(ListWord::Map) => {
                let keys: Vec<Value> = self.keys.iter().map(|k| Value::from(&*k.name)).collect();
                out.push(("x-kubernetes-list-map-keys", keys.into()));
                out.push(("x-kubernetes-list-type", "map".into()));
            }
            None => {}
        }
        if let Some(atomic) = self.atomic {
            out.push(("x-kubernetes-map-type", if atomic { "atomic" } else { "granular" }.into()));
        }
        if let Some(key) = self.patch_merge_key {
            out.push(("x-kubernetes-patch-merge-key", key.into()));
        }
        if let Some(strategy) = self.patch_strategy {
            out.push(("x-kubernetes-patch-strategy", strategy.into()));
        }
        out
    }

    fn parse(words: &[&'static str]) -> Option<Self> {
        let mut out = Self::default();
        for word in words {
            if *word == "value" {
                out.by_value = true;
                continue;
            }
            match word.split_once('=')? {
                ("list", "set") => out.list = Some(ListWord::Set),
                ("list", "map") => out.list = Some(ListWord::Map),
                ("key", key) => out.keys.push(merge_key(key)?),
                ("map", "atomic") => out.atomic = Some(true),
                ("map", "granular") => out.atomic = Some(false),
                ("strategy", strategy) => out.patch_strategy = Some(strategy),
                ("mergeKey", key) => out.patch_merge_key = Some(key),
                _ => return None,
            }
        }
        Some(out)
    }
}

fn merge_key(word: &str) -> Option<MergeKey> {
    match word.split_once(':') {
        None => Some(MergeKey { name: word.into(), default: None }),
        Some((name, default)) => {
            Some(MergeKey { name: name.into(), default: Some(serde_json::from_str(default).ok()?) })
        }
    }
}

/// What the table says of a field of a schema, by the schema's name (`io.k8s.api.core.v1.PodSpec`); the field `.` is the
/// schema itself. Arrays of which it says nothing are atomic (`x-kubernetes-list-type: atomic`), objects granular.
pub fn list_extension(schema: &str, field: &str) -> Option<&'static Extension> {
    TABLE.get(schema)?.get(field)
}

type Table = HashMap<&'static str, HashMap<&'static str, Extension>>;

static TABLE: LazyLock<Table> =
    LazyLock::new(|| parse(include_str!("table.txt")).expect("invariant: table.txt is well-formed"));

fn parse(text: &'static str) -> Option<Table> {
    let mut table = Table::new();
    for block in text.split("\n\n").skip(1) {
        let mut lines = block.lines();
        let schema = lines.next()?;
        let mut fields = HashMap::new();
        for line in lines {
            let words: Vec<&str> = line.split(' ').collect();
            let (field, words) = words.split_first()?;
            fields.insert(*field, Extension::parse(words)?);
        }
        table.insert(schema, fields);
    }
    Some(table)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_table_says_what_kubernetes_says() {
        for (schema, field, expected) in [
            (
                "io.k8s.api.core.v1.Container",
                "ports",
                json!({
                    "x-kubernetes-list-map-keys": ["containerPort", "protocol"], "x-kubernetes-list-type": "map",
                    "x-kubernetes-patch-merge-key": "containerPort", "x-kubernetes-patch-strategy": "merge",
                }),
            ),
            (
                "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta",
                "finalizers",
                json!({ "x-kubernetes-list-type": "set", "x-kubernetes-patch-strategy": "merge" }),
            ),
            ("io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector", ".", json!({ "x-kubernetes-map-type": "atomic" })),
            ("io.k8s.api.core.v1.PersistentVolumeSpec", "claimRef", json!({ "x-kubernetes-map-type": "granular" })),
            ("io.k8s.api.apps.v1.DeploymentSpec", "strategy", json!({ "x-kubernetes-patch-strategy": "retainKeys" })),
        ] {
            let found = list_extension(schema, field).map(|e| e.properties()).unwrap_or_default();
            let found: serde_json::Map<_, _> = found.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
            assert_eq!(Value::Object(found), expected, "{schema} {field}");
        }
        assert_eq!(list_extension("io.k8s.api.core.v1.Container", "args"), None);
        let ports = list_extension("io.k8s.api.core.v1.Container", "ports").unwrap();
        assert_eq!(ports.keys[1], MergeKey { name: "protocol".into(), default: Some(json!("TCP")) });
    }

    #[test]
    fn malformed_tables_are_refused() {
        for text in ["#\n\nschema\nfield list=heap", "#\n\nschema\nfield key=a:", "#\n\nschema\nfield word"] {
            assert!(parse(text).is_none(), "{text}");
        }
    }
}
