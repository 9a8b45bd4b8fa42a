//! One right object of each kind, with most of what a kind can say.

use serde::Deserialize as _;
use serde_json::Value;

/// All examples.
pub(crate) fn all() -> Vec<Value> {
    let manifests = serde_yaml::Deserializer::from_str(include_str!("../../../examples.yaml"));
    manifests.map(|manifest| Value::deserialize(manifest).unwrap()).collect()
}

/// A manifest as a tree.
pub(super) fn yaml(text: &str) -> Value {
    serde_yaml::from_str(text).unwrap()
}
