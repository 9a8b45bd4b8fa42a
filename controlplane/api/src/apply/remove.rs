//! Removing paths from a value.
//!
//! # Source
//! `sigs.k8s.io/structured-merge-diff/typed/remove.go`.

use serde_json::Value;

use super::{
    element::PathElement,
    set::Set,
    typed::{Object, Shape, Ty, Walk, field_type, item_element},
};
use crate::schema::{ListType, MapType, RootType};

/// The value without the paths of a set. An object or list of which nothing is left is `null`, so that its path is still
/// there for whoever owns it.
pub(crate) fn remove_items(root: &RootType, value: &Value, paths: &Set) -> Value {
    Remover { walk: Walk::new(root) }.value(Some(root.root), value, paths, None)
}

/// The same as it is stored, since custom resources may hold no `null`: an object or list of which nothing is left goes,
/// or is empty where somebody owns it as such.
pub(crate) fn remove_for_good(root: &RootType, value: &Value, paths: &Set, owned: &Set) -> Value {
    Remover { walk: Walk::new(root) }.value(Some(root.root), value, paths, Some(owned))
}

#[derive(Clone, Copy)]
struct Remover<'t> {
    walk: Walk<'t>,
}

static NOTHING: Set = Set::EMPTY;

/// What is owned below an element, and whether it is owned itself.
fn step<'s>(owned: Option<&'s Set>, element: &PathElement) -> (Option<&'s Set>, bool) {
    let Some(owned) = owned else { return (None, false) };
    match owned.get(element) {
        Some(node) => (Some(&node.below), node.member),
        None => (Some(&NOTHING), false),
    }
}

/// What stays where `value` was; `None` when nothing does.
fn settled(kept: Value, value: &Value, for_good: bool, is_owned: bool) -> Option<Value> {
    if !for_good || !kept.is_null() || value.is_null() {
        return Some(kept);
    }
    is_owned.then(|| if value.is_array() { Value::Array(Vec::new()) } else { Value::Object(Object::new()) })
}

impl Remover<'_> {
    fn value(self, ty: Ty, value: &Value, paths: &Set, owned: Option<&Set>) -> Value {
        match (self.walk.shape(ty, value.is_object()), value) {
            (Shape::Map(map), Value::Object(fields)) => self.fields(map, fields, paths, owned),
            (Shape::List(list), Value::Array(items)) => self.items(list, items, paths, owned),
            (Shape::Leaf, Value::Object(_) | Value::Array(_)) => Value::Null,
            (_, other) => other.clone(),
        }
    }

    fn fields(self, map: Option<&MapType>, fields: &Object, paths: &Set, owned: Option<&Set>) -> Value {
        let mut out = Object::new();
        for (name, value) in fields {
            let element = PathElement::field(name);
            let (below, is_owned) = step(owned, &element);
            let kept = match paths.get(&element) {
                Some(node) if node.member => continue,
                Some(node) => self.value(field_type(map, name).0, value, &node.below, below),
                None => value.clone(),
            };
            if let Some(kept) = settled(kept, value, owned.is_some(), is_owned) {
                out.insert(name.clone(), kept);
            }
        }
        if out.is_empty() { Value::Null } else { Value::Object(out) }
    }

    fn items(self, list: &ListType, items: &[Value], paths: &Set, owned: Option<&Set>) -> Value {
        let mut out = Vec::with_capacity(items.len());
        for item in items {
            let element = item_element(list, item).ok();
            let node = element.as_ref().and_then(|e| paths.get(e));
            let (Some(node), Some(element)) = (node, &element) else {
                out.push(item.clone());
                continue;
            };
            if !node.member {
                let (below, is_owned) = step(owned, element);
                let kept = self.value(Some(list.items), item, &node.below, below);
                out.extend(settled(kept, item, owned.is_some(), is_owned));
            }
        }
        if out.is_empty() { Value::Null } else { Value::Array(out) }
    }
}
