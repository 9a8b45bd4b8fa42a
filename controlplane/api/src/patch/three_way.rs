//! The patch that `apply` sends: from what was applied last, what shall be and what is now, a strategic merge patch
//! that sets what differs and deletes only what was applied before and is wanted no more.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apimachinery/pkg/util/strategicpatch/patch.go`, `CreateThreeWayMergePatch`.

use serde_json::{Map, Value, json};

use super::{
    meta::{FieldRule, PatchMeta, TypeRef},
    strategic::{DELETE_PRIMITIVES, DIRECTIVE, ELEMENT_ORDER, RETAIN_KEYS},
};

type Object = Map<String, Value>;

/// The patch that brings `current` to `modified`, deleting what `original` had and `modified` has not. An empty
/// object when there is nothing to do. Without `meta` (kinds without merge keys) it is a merge patch.
pub fn three_way(meta: Option<&PatchMeta>, original: &Value, modified: &Value, current: &Value) -> Value {
    let none = Object::new();
    let object = |v: &'_ Value| v.as_object().cloned();
    let original = object(original).unwrap_or_default();
    let current = object(current).unwrap_or_default();
    let modified = modified.as_object().unwrap_or(&none);
    let root = meta.and_then(PatchMeta::root);
    Value::Object(Diff { meta }.objects(root, FieldRule::default(), &original, modified, &current))
}

struct Diff<'a> {
    meta: Option<&'a PatchMeta>,
}

fn as_object(value: Option<&Value>) -> Object {
    value.and_then(Value::as_object).cloned().unwrap_or_default()
}

fn as_list(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

impl Diff<'_> {
    fn objects(&self, of: TypeRef, rule: FieldRule, original: &Object, modified: &Object, current: &Object) -> Object {
        let mut patch = Object::new();
        for (key, wanted) in modified {
            self.field(of, key, wanted, original.get(key), current.get(key), &mut patch);
        }
        for key in original.keys().filter(|key| !modified.contains_key(*key) && current.contains_key(*key)) {
            patch.insert(key.clone(), Value::Null);
        }
        let has_more = || current.iter().any(|(key, value)| !value.is_null() && !modified.contains_key(key));
        if rule.retain_keys && (!patch.is_empty() || has_more()) {
            let mut kept: Vec<&String> = modified.iter().filter(|(_, v)| !v.is_null()).map(|(k, _)| k).collect();
            kept.sort();
            if !kept.is_empty() {
                patch.insert(RETAIN_KEYS.to_owned(), json!(kept));
            }
        }
        patch
    }

    fn field(
        &self,
        of: TypeRef,
        key: &str,
        wanted: &Value,
        original: Option<&Value>,
        current: Option<&Value>,
        patch: &mut Object,
    ) {
        let (rule, inner) = self.meta.map_or_else(Default::default, |meta| meta.field(of, key));
        match (wanted, current) {
            (Value::Null, None) => {}
            (_, None) => {
                patch.insert(key.to_owned(), wanted.clone());
            }
            (Value::Object(modified), Some(Value::Object(now))) if !rule.replace => {
                let changes = self.objects(inner, rule, &as_object(original), modified, now);
                if !changes.is_empty() {
                    patch.insert(key.to_owned(), Value::Object(changes));
                }
            }
            (Value::Array(modified), Some(Value::Array(now))) if rule.merge => match rule.key {
                Some(merge_key) => {
                    self.keyed_list(inner, rule, key, merge_key, [as_list(original), modified, now], patch);
                }
                None => primitive_list(key, [as_list(original), modified, now], patch),
            },
            (wanted, Some(now)) if wanted != now => {
                patch.insert(key.to_owned(), wanted.clone());
            }
            _ => {}
        }
    }

    /// `lists`: original, modified, current.
    fn keyed_list(
        &self,
        item: TypeRef,
        rule: FieldRule,
        name: &str,
        merge_key: &str,
        [original, modified, current]: [&[Value]; 3],
        patch: &mut Object,
    ) {
        let find = |list: &'_ [Value], id: &Value| list.iter().find(|i| i.get(merge_key) == Some(id)).cloned();
        let ids = |list: &[Value]| list.iter().filter_map(|i| i.get(merge_key)).cloned().collect::<Vec<Value>>();
        let (wanted, now) = (ids(modified), ids(current));
        let mut changes = Vec::new();
        for new in modified {
            let Some(id) = new.get(merge_key) else { continue };
            let Some(Value::Object(old)) = find(current, id) else {
                changes.push(new.clone());
                continue;
            };
            let Value::Object(new) = new else { continue };
            let item_rule = FieldRule { retain_keys: rule.retain_keys, ..FieldRule::default() };
            let mut change = self.objects(item, item_rule, &as_object(find(original, id).as_ref()), new, &old);
            if !change.is_empty() {
                change.insert(merge_key.to_owned(), id.clone());
                changes.push(Value::Object(change));
            }
        }
        for id in ids(original).into_iter().filter(|id| !wanted.contains(id) && now.contains(id)) {
            let mut gone = Object::new();
            gone.insert(DIRECTIVE.to_owned(), "delete".into());
            gone.insert(merge_key.to_owned(), id);
            changes.push(Value::Object(gone));
        }
        if !changes.is_empty() || reordered(&wanted, &now) {
            let order: Vec<Value> = wanted.into_iter().map(|id| json!({ merge_key: id })).collect();
            patch.insert(format!("{ELEMENT_ORDER}{name}"), Value::Array(order));
        }
        if !changes.is_empty() {
            patch.insert(name.to_owned(), Value::Array(changes));
        }
    }
}

fn primitive_list(name: &str, [original, modified, current]: [&[Value]; 3], patch: &mut Object) {
    let added: Vec<Value> = modified.iter().filter(|i| !current.contains(i)).cloned().collect();
    let gone: Vec<Value> = original.iter().filter(|i| !modified.contains(i) && current.contains(i)).cloned().collect();
    if !added.is_empty() || !gone.is_empty() || reordered(modified, current) {
        patch.insert(format!("{ELEMENT_ORDER}{name}"), Value::Array(modified.to_vec()));
    }
    if !added.is_empty() {
        patch.insert(name.to_owned(), Value::Array(added));
    }
    if !gone.is_empty() {
        patch.insert(format!("{DELETE_PRIMITIVES}{name}"), Value::Array(gone));
    }
}

/// Whether what is in both lists stands in another order.
fn reordered(wanted: &[Value], now: &[Value]) -> bool {
    let of_wanted = wanted.iter().filter(|id| now.contains(id));
    let of_now = now.iter().filter(|id| wanted.contains(id));
    !of_wanted.eq(of_now)
}
