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

/// What becomes of an object or list of which nothing is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Emptied {
    /// It is `null`, so that the path is still there: between the steps of an apply.
    Null,
    /// It goes with what it held: in what is stored, since `null` is nothing that custom resources may hold.
    Gone,
}

/// The value without the paths of a set.
pub(crate) fn remove_items(root: &RootType, value: &Value, paths: &Set, emptied: Emptied) -> Value {
    Remover { walk: Walk::new(root), emptied }.value(Some(root.root), value, paths)
}

#[derive(Clone, Copy)]
struct Remover<'t> {
    walk: Walk<'t>,
    emptied: Emptied,
}

impl Remover<'_> {
    fn value(self, ty: Ty, value: &Value, paths: &Set) -> Value {
        match (self.walk.shape(ty, value.is_object()), value) {
            (Shape::Map(map), Value::Object(fields)) => self.fields(map, fields, paths),
            (Shape::List(list), Value::Array(items)) => self.items(list, items, paths),
            (Shape::Leaf, Value::Object(_) | Value::Array(_)) => Value::Null,
            (_, other) => other.clone(),
        }
    }

    fn fields(self, map: Option<&MapType>, fields: &Object, paths: &Set) -> Value {
        let mut out = Object::new();
        for (name, value) in fields {
            let kept = match paths.get(&PathElement::field(name)) {
                Some(node) if node.member => continue,
                Some(node) => self.value(field_type(map, name).0, value, &node.below),
                None => value.clone(),
            };
            if self.emptied == Emptied::Null || !kept.is_null() || value.is_null() {
                out.insert(name.clone(), kept);
            }
        }
        if out.is_empty() { Value::Null } else { Value::Object(out) }
    }

    fn items(self, list: &ListType, items: &[Value], paths: &Set) -> Value {
        let mut out = Vec::with_capacity(items.len());
        for item in items {
            let node = item_element(list, item).ok().and_then(|e| paths.get(&e));
            match node {
                Some(node) if node.member => {}
                Some(node) => out.push(self.value(Some(list.items), item, &node.below)),
                None => out.push(item.clone()),
            }
        }
        if out.is_empty() { Value::Null } else { Value::Array(out) }
    }
}
