//! Strategic merge patch: objects merge field by field, keyed lists item by item, with Kubernetes' directives
//! `$patch`, `$retainKeys`, `$deleteFromPrimitiveList/…` and `$setElementOrder/…`.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apimachinery/pkg/util/strategicpatch/patch.go`.

use serde_json::{Map, Value};

use super::{
    meta::{FieldRule, PatchMeta, TypeRef},
    unprocessable,
};
use crate::error::ApiError;

pub(super) const DIRECTIVE: &str = "$patch";
pub(super) const RETAIN_KEYS: &str = "$retainKeys";
pub(super) const DELETE_PRIMITIVES: &str = "$deleteFromPrimitiveList/";
pub(super) const ELEMENT_ORDER: &str = "$setElementOrder/";

type Object = Map<String, Value>;

pub(super) fn apply(meta: &PatchMeta, current: Value, patch: &Value) -> Result<Value, ApiError> {
    let (Value::Object(current), Value::Object(patch)) = (current, patch) else {
        return Err(ApiError::bad_request("a strategic merge patch and its target must be JSON objects"));
    };
    Ok(Value::Object(merge_object(meta, meta.root(), current, patch)?))
}

fn bad_directive(what: &str, value: &Value) -> ApiError {
    ApiError::bad_request(format!("unrecognized type of patch: {what} {value}"))
}

fn merge_object(meta: &PatchMeta, of: TypeRef, mut current: Object, patch: &Object) -> Result<Object, ApiError> {
    match patch.get(DIRECTIVE).map(|d| d.as_str().ok_or(d)) {
        None | Some(Ok("merge")) => {}
        Some(Ok("replace")) => return Ok(without_directives(patch)),
        Some(Ok("delete")) => return Ok(Object::new()),
        Some(_) => return Err(bad_directive(DIRECTIVE, &patch[DIRECTIVE])),
    }
    retain_keys(&mut current, patch)?;
    for (key, value) in patch {
        if key == DIRECTIVE || key == RETAIN_KEYS {
            continue;
        }
        if let Some(name) = key.strip_prefix(DELETE_PRIMITIVES) {
            delete_primitives(&mut current, name, value)?;
        } else if let Some(name) = key.strip_prefix(ELEMENT_ORDER) {
            if !patch.contains_key(name) {
                order_only(meta, of, &mut current, name, value)?;
            }
        } else {
            let order = patch.get(&format!("{ELEMENT_ORDER}{key}"));
            merge_field(meta, of, &mut current, key, value, order)?;
        }
    }
    Ok(current)
}

/// One field of a patch into the object that holds it.
fn merge_field(
    meta: &PatchMeta,
    of: TypeRef,
    current: &mut Object,
    key: &str,
    value: &Value,
    order: Option<&Value>,
) -> Result<(), ApiError> {
    let (rule, inner) = meta.field(of, key);
    let merged = match (current.remove(key), value) {
        (_, Value::Null) => return Ok(()),
        (Some(Value::Object(old)), Value::Object(new)) if !rule.replace => {
            Value::Object(merge_object(meta, inner, old, new)?)
        }
        (None, Value::Object(new)) if new.get(DIRECTIVE).is_some_and(|d| d == "delete") => return Ok(()),
        (old, Value::Array(new)) if rule.merge => {
            let old = match old {
                Some(Value::Array(old)) => old,
                _ => Vec::new(),
            };
            let list = List { meta, item: inner, rule, name: key };
            Value::Array(list.merge(old, new, order)?)
        }
        (_, new) => cleaned(new),
    };
    current.insert(key.to_owned(), merged);
    Ok(())
}

/// A new value: without `null` fields and without directives.
fn cleaned(value: &Value) -> Value {
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
    let kept = fields.iter().filter(|(key, value)| !is_directive(key) && !value.is_null());
    kept.map(|(key, value)| (key.clone(), cleaned(value))).collect()
}

/// Drops the fields that the patch does not list in `$retainKeys`.
fn retain_keys(current: &mut Object, patch: &Object) -> Result<(), ApiError> {
    let Some(directive) = patch.get(RETAIN_KEYS) else { return Ok(()) };
    let Some(keys) = directive.as_array() else { return Err(bad_directive(RETAIN_KEYS, directive)) };
    let listed = |key: &str| keys.iter().any(|k| k == key);
    let stray = patch.iter().find(|(key, value)| !key.starts_with('$') && !value.is_null() && !listed(key));
    if let Some((key, _)) = stray {
        let message = format!("invalid patch format of $retainKeys: it does not list {key:?}, which the patch sets");
        return Err(ApiError::bad_request(message));
    }
    current.retain(|key, _| listed(key));
    Ok(())
}

fn delete_primitives(current: &mut Object, name: &str, value: &Value) -> Result<(), ApiError> {
    let Some(gone) = value.as_array() else { return Err(bad_directive(DELETE_PRIMITIVES, value)) };
    if let Some(Value::Array(list)) = current.get_mut(name) {
        list.retain(|item| !gone.contains(item));
    }
    Ok(())
}

/// `$setElementOrder` for a list that the patch does not otherwise change.
fn order_only(meta: &PatchMeta, of: TypeRef, current: &mut Object, name: &str, order: &Value) -> Result<(), ApiError> {
    let (rule, item) = meta.field(of, name);
    if !rule.merge {
        return Ok(());
    }
    if let Some(Value::Array(old)) = current.get_mut(name) {
        let list = List { meta, item, rule, name };
        *old = list.merge(std::mem::take(old), &[], Some(order))?;
    }
    Ok(())
}

/// A list that is merged item by item.
struct List<'a> {
    meta: &'a PatchMeta,
    item: TypeRef,
    rule: FieldRule,
    name: &'a str,
}

impl List<'_> {
    fn merge(&self, old: Vec<Value>, patch: &[Value], order: Option<&Value>) -> Result<Vec<Value>, ApiError> {
        let order = match order {
            None => None,
            Some(Value::Array(order)) => Some(order.as_slice()),
            Some(other) => return Err(bad_directive(ELEMENT_ORDER, other)),
        };
        let places: Vec<Value> = old.iter().map(|item| self.identity(item)).collect::<Result<_, _>>()?;
        let Some(changes) = self.without_special(patch)? else {
            return Ok(patch.iter().filter(|item| item.get(DIRECTIVE).is_none()).map(cleaned).collect());
        };
        let mut merged = old;
        self.delete_items(&mut merged, patch)?;
        for change in &changes {
            self.merge_item(&mut merged, change)?;
        }
        let wanted = match order {
            Some(order) => order.iter().map(|item| self.identity(item)).collect::<Result<Vec<_>, _>>()?,
            None => changes.iter().map(|item| self.identity(item)).collect::<Result<Vec<_>, _>>()?,
        };
        self.ordered(merged, &wanted, &places)
    }

    /// The items that are no directives; `None` when one of them says that the list is replaced.
    fn without_special<'v>(&self, patch: &'v [Value]) -> Result<Option<Vec<&'v Value>>, ApiError> {
        let mut changes = Vec::with_capacity(patch.len());
        for item in patch {
            match item.get(DIRECTIVE).map(|d| d.as_str().unwrap_or_default()) {
                None | Some("merge") => changes.push(item),
                Some("replace") => return Ok(None),
                Some("delete") => {}
                Some(_) => return Err(bad_directive(DIRECTIVE, &item[DIRECTIVE])),
            }
        }
        Ok(Some(changes))
    }

    fn delete_items(&self, merged: &mut Vec<Value>, patch: &[Value]) -> Result<(), ApiError> {
        for item in patch.iter().filter(|item| item.get(DIRECTIVE).is_some_and(|d| d == "delete")) {
            let gone = self.identity(item)?;
            let mut kept = Vec::with_capacity(merged.len());
            for item in merged.drain(..) {
                if self.identity(&item)? != gone {
                    kept.push(item);
                }
            }
            *merged = kept;
        }
        Ok(())
    }

    fn merge_item(&self, merged: &mut Vec<Value>, change: &Value) -> Result<(), ApiError> {
        let identity = self.identity(change)?;
        for place in merged.iter_mut() {
            if self.identity(place)? != identity {
                continue;
            }
            if let (Value::Object(old), Value::Object(new)) = (&mut *place, change) {
                *old = merge_object(self.meta, self.item, std::mem::take(old), new)?;
            }
            return Ok(());
        }
        merged.push(cleaned(change));
        Ok(())
    }

    /// What tells an item apart: the value of its merge key, or the plain value itself.
    fn identity(&self, item: &Value) -> Result<Value, ApiError> {
        match (self.rule.key, item) {
            (Some(key), Value::Object(fields)) => fields.get(key).cloned().ok_or_else(|| {
                unprocessable(format!("{}: {item} does not contain declared merge key: {key}", self.name))
            }),
            (None, Value::Object(_) | Value::Array(_)) | (Some(_), _) => {
                let wanted = self.rule.key.map_or("plain values".to_owned(), |key| format!("objects with {key:?}"));
                Err(unprocessable(format!("{}: expected a list of {wanted}, found {item}", self.name)))
            }
            (None, plain) => Ok(plain.clone()),
        }
    }

    /// Items named in `wanted` in that order; the others keep their relative order and stand before the first
    /// wanted item that followed them in the old list.
    fn ordered(&self, merged: Vec<Value>, wanted: &[Value], places: &[Value]) -> Result<Vec<Value>, ApiError> {
        let (mut named, mut others) = (Vec::new(), Vec::new());
        for item in merged {
            let identity = self.identity(&item)?;
            let old = places.iter().position(|p| *p == identity);
            match wanted.iter().position(|w| *w == identity) {
                Some(rank) => named.push((rank, old, item)),
                None => others.push((old, item)),
            }
        }
        named.sort_by_key(|(rank, ..)| *rank);
        others.sort_by_key(|(old, _)| old.unwrap_or(usize::MAX));
        let mut others = others.into_iter().peekable();
        let mut out = Vec::with_capacity(named.len() + others.len());
        for (_, place, item) in named {
            while others.peek().is_some_and(|(old, _)| matches!((old, place), (Some(o), Some(p)) if *o < p)) {
                out.extend(others.next().map(|(_, item)| item));
            }
            out.push(item);
        }
        out.extend(others.map(|(_, item)| item));
        Ok(out)
    }
}
