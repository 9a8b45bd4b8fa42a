//! From client-side apply to server-side apply: `kubectl apply --server-side` takes over what `kubectl apply` had set.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apimachinery/pkg/util/managedfields/internal/lastapplied{,manager,updater}.go`.

use serde_json::{Map, Value};

use super::{
    compare::compare,
    conflict::Conflict,
    field_set::{to_field_set, validate},
    fields::escape_html,
    set::Set,
};
use crate::schema::RootType;

/// The manager that takes over.
pub(super) const KUBECTL: &str = "kubectl";
const ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Most bytes of all annotations of an object.
const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;

/// The conflicts that are left when what was last applied on the client's side, and still stands, may be taken over.
pub(super) fn remaining(types: &RootType, api_version: &str, live: &Value, conflicts: Vec<Conflict>) -> Vec<Conflict> {
    match allowed(types, api_version, live) {
        Some(allowed) => conflicts.into_iter().filter(|c| !allowed.has(&c.path)).collect(),
        None => conflicts,
    }
}

fn annotation(object: &Value) -> Option<&str> {
    let text = object.get("metadata")?.get("annotations")?.get(ANNOTATION)?.as_str()?;
    (!text.is_empty()).then_some(text)
}

fn allowed(types: &RootType, api_version: &str, live: &Value) -> Option<Set> {
    let last: Value = serde_json::from_str(annotation(live)?).ok()?;
    if last.get("apiVersion")?.as_str()? != api_version {
        return None;
    }
    validate(types, live).ok()?;
    validate(types, &last).ok()?;
    let changed = compare(types, Some(&last), live);
    let set = to_field_set(types, &last);
    Some(set.difference(&changed.modified).difference(&changed.added).difference(&changed.removed))
}

/// Brings the annotation of the client's side up to date, where there is one.
pub(super) fn refresh(object: &mut Value, config: &Value) {
    if annotation(object).is_none() {
        return;
    }
    let text = to_annotation(config);
    let annotations = object.get_mut("metadata").and_then(|m| m.get_mut("annotations"));
    let Some(Value::Object(annotations)) = annotations else { return };
    annotations.insert(ANNOTATION.to_owned(), text.into());
    let size = |(k, v): (&String, &Value)| k.len() + v.as_str().map_or(0, str::len);
    if annotations.iter().map(size).sum::<usize>() > ANNOTATIONS_BYTES_MAX {
        annotations.remove(ANNOTATION);
    }
}

fn to_annotation(config: &Value) -> String {
    let mut config = sorted(config);
    if let Some(Value::Object(annotations)) = config.get_mut("metadata").and_then(|m| m.get_mut("annotations")) {
        annotations.remove(ANNOTATION);
    }
    format!("{}\n", escape_html(config.to_string()))
}

/// With all fields in alphabetical order, as Go writes them.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<(&String, &Value)> = fields.iter().collect();
            fields.sort_by_key(|(name, _)| *name);
            Value::Object(fields.into_iter().map(|(k, v)| (k.clone(), sorted(v))).collect::<Map<_, _>>())
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        other => other.clone(),
    }
}
