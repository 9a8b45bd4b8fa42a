//! Strategic merge patch: objects merge field by field, keyed lists item by item, with Kubernetes' directives
//! `$patch`, `$retainKeys`, `$deleteFromPrimitiveList/…` and `$setElementOrder/…`.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apimachinery/pkg/util/strategicpatch/patch.go`.

use serde_json::{Map, Value};

use super::{
    meta::{FieldRule, PatchMeta, TypeRef},
    strategic_list::List,
    unprocessable,
};
use crate::{apply::internal, error::ApiError};

pub(super) const DIRECTIVE: &str = "$patch";
pub(super) const RETAIN_KEYS: &str = "$retainKeys";
pub(super) const DELETE_PRIMITIVES: &str = "$deleteFromPrimitiveList/";
pub(super) const ELEMENT_ORDER: &str = "$setElementOrder/";

pub(super) type Object = Map<String, Value>;

pub(super) fn apply(meta: &PatchMeta, current: Value, patch: &Value) -> Result<Value, ApiError> {
    let (Value::Object(current), Value::Object(patch)) = (current, patch) else {
        return Err(ApiError::bad_request("a strategic merge patch and its target must be JSON objects"));
    };
    Ok(Value::Object(merge_object(meta, meta.root(), current, patch)?))
}

/// 500, as Kubernetes has it for a directive that it does not know.
pub(super) fn bad_patch_type(directive: &Value, holder: &Object) -> ApiError {
    internal(format!("unknown patch type: {} in map: {}", go_text(directive), go_map(holder)))
}

/// 500 for a value of another type than was expected.
pub(super) fn bad_arg_type(expected: &str, found: &Value) -> ApiError {
    let found = match found {
        Value::Null => "%!s(<nil>)",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    };
    internal(format!("expected a {expected}, but received a {found}"))
}

/// 422 for lists in lists.
pub(super) fn list_of_lists() -> ApiError {
    unprocessable("lists of lists are not supported")
}

/// A value as Go prints it.
pub(super) fn go_text(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(go_text).collect::<Vec<_>>().join(" ")),
        Value::Object(fields) => go_map(fields),
        other => other.to_string(),
    }
}

pub(super) fn go_map(fields: &Object) -> String {
    let mut fields: Vec<(&String, &Value)> = fields.iter().collect();
    fields.sort_by_key(|(name, _)| *name);
    let fields: Vec<String> = fields.into_iter().map(|(k, v)| format!("{k}:{}", go_text(v))).collect();
    format!("map[{}]", fields.join(" "))
}

pub(super) fn merge_object(
    meta: &PatchMeta,
    of: TypeRef,
    mut current: Object,
    patch: &Object,
) -> Result<Object, ApiError> {
    match patch.get(DIRECTIVE) {
        None => {}
        Some(directive) if directive == "replace" => return Ok(without_directives(patch)),
        Some(directive) if directive == "delete" => return Ok(Object::new()),
        Some(directive) => return Err(bad_patch_type(directive, patch)),
    }
    retain_keys(&mut current, patch)?;
    for (key, order) in patch {
        if let Some(name) = key.strip_prefix(ELEMENT_ORDER) {
            merge_ordered(meta, of, &mut current, name, patch.get(name), order)?;
        }
    }
    for (key, value) in patch {
        if key == RETAIN_KEYS || key.starts_with(ELEMENT_ORDER) {
            continue;
        }
        if let Some(name) = key.strip_prefix(DELETE_PRIMITIVES) {
            delete_primitives(&mut current, name, value)?;
        } else if !(value.is_array() && patch.contains_key(&format!("{ELEMENT_ORDER}{key}"))) {
            merge_field(meta, of, &mut current, key, value)?;
        }
    }
    Ok(current)
}

/// One field of a patch into the object that holds it.
fn merge_field(meta: &PatchMeta, of: TypeRef, current: &mut Object, key: &str, value: &Value) -> Result<(), ApiError> {
    let (rule, inner) = meta.field(of, key);
    let merged = match (current.remove(key), value) {
        (_, Value::Null) => return Ok(()),
        (Some(Value::Object(_)), Value::Object(new)) if rule.replace => Value::Object(without_directives(new)),
        (Some(Value::Object(old)), Value::Object(new)) => Value::Object(merge_object(meta, inner, old, new)?),
        (Some(Value::Array(old)), Value::Array(new)) if rule.merge => {
            Value::Array(List { meta, item: inner, rule, name: key }.merge(old, new)?)
        }
        (_, new) if new.get(DIRECTIVE).is_some() => return Ok(()),
        (_, new) => cleaned(new),
    };
    current.insert(key.to_owned(), merged);
    Ok(())
}

/// A new value: without `null` fields and without directives.
pub(super) fn cleaned(value: &Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(without_directives(fields)),
        Value::Array(items) => Value::Array(items.iter().filter(|i| i.get(DIRECTIVE).is_none()).map(cleaned).collect()),
        other => other.clone(),
    }
}

fn without_directives(fields: &Object) -> Object {
    let is_directive = |key: &str| {
        key == DIRECTIVE || key == RETAIN_KEYS || key.starts_with(DELETE_PRIMITIVES) || key.starts_with(ELEMENT_ORDER)
    };
    let is_kept = |key: &str, value: &Value| !is_directive(key) && !value.is_null() && value.get(DIRECTIVE).is_none();
    let kept = fields.iter().filter(|(key, value)| is_kept(key, value));
    kept.map(|(key, value)| (key.clone(), cleaned(value))).collect()
}

/// Drops the fields that the patch does not list in `$retainKeys`.
fn retain_keys(current: &mut Object, patch: &Object) -> Result<(), ApiError> {
    let bad_format = || ApiError::bad_request("invalid patch format of retainKeys");
    let Some(directive) = patch.get(RETAIN_KEYS) else { return Ok(()) };
    let keys = directive.as_array().ok_or_else(bad_format)?;
    let listed = |key: &str| keys.iter().any(|k| k == key);
    let is_directive =
        |key: &str| key == RETAIN_KEYS || key.starts_with(DELETE_PRIMITIVES) || key.starts_with(ELEMENT_ORDER);
    if patch.iter().any(|(key, value)| !is_directive(key) && !value.is_null() && !listed(key)) {
        return Err(bad_format());
    }
    current.retain(|key, _| listed(key));
    Ok(())
}

fn delete_primitives(current: &mut Object, name: &str, value: &Value) -> Result<(), ApiError> {
    let Some(gone) = value.as_array() else {
        if value.is_null() {
            current.remove(name);
        }
        return Ok(());
    };
    if let Some(Value::Array(list)) = current.get_mut(name) {
        if list.iter().chain(gone).any(Value::is_object) {
            return Err(ApiError::bad_request("invalid patch format of primitive list"));
        }
        list.retain(|item| !gone.contains(item));
    }
    Ok(())
}

/// A list for which the patch says the order of its items.
fn merge_ordered(
    meta: &PatchMeta,
    of: TypeRef,
    current: &mut Object,
    name: &str,
    patch: Option<&Value>,
    order: &Value,
) -> Result<(), ApiError> {
    fn list(value: &Value) -> Result<&Vec<Value>, ApiError> {
        value.as_array().ok_or_else(|| bad_arg_type("[]interface {}", value))
    }
    let order = list(order)?;
    let (rule, item): (FieldRule, TypeRef) = meta.field(of, name);
    let old = current.get(name).map(list).transpose()?.cloned();
    let patch = patch.map(list).transpose()?;
    let of_list = List { meta, item, rule, name };
    of_list.check_order(patch.map_or(&[], Vec::as_slice), order)?;
    let merged = match (&old, patch) {
        (None, None) => return Ok(()),
        (Some(old), None) => old.clone(),
        (None, Some(patch)) => patch.iter().filter(|i| i.get(DIRECTIVE).is_none()).map(cleaned).collect(),
        (Some(old), Some(patch)) if rule.merge => of_list.merge(old.clone(), patch)?,
        (Some(_), Some(patch)) => patch.clone(),
    };
    let places = of_list.places_after(old.unwrap_or_default(), patch.map_or(&[], Vec::as_slice));
    let ordered = of_list.ordered(merged, order, &places)?;
    current.insert(name.to_owned(), Value::Array(ordered));
    Ok(())
}
