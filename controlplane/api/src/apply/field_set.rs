//! Which paths a value holds, and whether it has the shape of its type.
//!
//! # Source
//! `sigs.k8s.io/structured-merge-diff/typed/tofieldset.go`, `validate.go` and `fieldpath/set.go`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{
    element::PathElement,
    set::{Gathered, Set},
    typed::{Shape, Ty, Walk, field_type, item_element},
};
use crate::schema::{ListType, MapType, RootType, Type};

/// The leaves and items of a value.
pub(crate) fn to_field_set(root: &RootType, value: &Value) -> Set {
    Walk::new(root).field_set(Some(root.root), value).0
}

/// The set with the known fields above its paths: a set of `a.b.c` gets `a`, and `a.b` unless `a` is a map.
pub(crate) fn with_named_fields(root: &RootType, set: &Set) -> Set {
    Walk::new(root).with_named_fields(Some(root.root), set)
}

/// What keeps a configuration from being applied: unknown fields, lists with duplicate or missing keys, objects and
/// lists in place of each other.
pub(crate) fn validate(root: &RootType, value: &Value) -> Result<(), String> {
    let mut faults = Faults::default();
    Walk::new(root).validate(Some(root.root), value, &mut faults);
    match faults.found.as_slice() {
        [] => Ok(()),
        [one] => Err(one.clone()),
        many => Err(format!("errors:\n  {}", many.join("\n  "))),
    }
}

#[derive(Default)]
struct Faults {
    path: Vec<PathElement>,
    found: Vec<String>,
}

/// Most faults that an error names.
const FAULTS_MAX: usize = 100;

impl Faults {
    fn push(&mut self, message: &str) {
        if self.found.len() < FAULTS_MAX {
            let path = super::set::path_text(&self.path);
            self.found.push(if path.is_empty() { message.to_owned() } else { format!("{path}: {message}") });
        }
    }
}

impl Walk<'_> {
    /// The paths below a value and whether the value itself is one.
    fn field_set(self, ty: Ty, value: &Value) -> (Set, bool) {
        match self.shape(ty, value.is_object() || value.is_null()) {
            Shape::Leaf => (Set::new(), true),
            Shape::Map(map) => (self.fields_of(map, value), false),
            Shape::List(list) => (self.items_of(list, value), false),
        }
    }

    fn fields_of(self, map: Option<&MapType>, value: &Value) -> Set {
        let mut gathered = Gathered::default();
        for (name, value) in value.as_object().into_iter().flatten() {
            let (ty, is_known) = field_type(map, name);
            let (below, member) = self.field_set(ty, value);
            let is_empty = value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty);
            gathered.push(PathElement::field(name), member || is_empty || !is_known, below);
        }
        gathered.finish()
    }

    fn items_of(self, list: &ListType, value: &Value) -> Set {
        let Some(items) = value.as_array() else { return Set::new() };
        let mut found: BTreeMap<PathElement, Option<&Value>> = BTreeMap::new();
        for item in items {
            let Ok(element) = item_element(list, item) else { continue };
            // Of duplicates only the key is owned.
            found.entry(element).and_modify(|seen| *seen = None).or_insert(Some(item));
        }
        let mut gathered = Gathered::default();
        for (element, item) in found {
            let below = item.map(|item| self.field_set(Some(list.items), item).0).unwrap_or_default();
            gathered.push(element, true, below);
        }
        gathered.finish()
    }

    fn with_named_fields(self, ty: Ty, set: &Set) -> Set {
        let mut out = Gathered::default();
        for node in set.nodes() {
            let (below_ty, is_known) = match (self.get(ty), &node.element) {
                (Type::Map(map), PathElement::Field(name)) => field_type(Some(map), name),
                (Type::List(list), PathElement::Key(_)) => (Some(list.items), false),
                _ => (None, false),
            };
            let below = self.with_named_fields(below_ty, &node.below);
            out.push(node.element.clone(), node.member || is_known, below);
        }
        out.finish()
    }

    fn validate(self, ty: Ty, value: &Value, faults: &mut Faults) {
        match (self.get(ty), value) {
            (_, Value::Null) | (Type::Any, _) => {}
            (Type::Scalar, Value::Object(_) | Value::Array(_)) => {
                faults.push(&format!("expected any scalar, got &{{{value}}}"));
            }
            (Type::Scalar, _) => {}
            (Type::Map(map), Value::Object(fields)) => self.validate_fields(map, fields, faults),
            (Type::Map(_), _) => faults.push(&format!("expected map, got &{{{value}}}")),
            (Type::List(list), Value::Array(items)) => self.validate_items(list, items, faults),
            (Type::List(_), _) => faults.push(&format!("expected list, got &{{{value}}}")),
        }
    }

    fn validate_fields(self, map: &MapType, fields: &super::typed::Object, faults: &mut Faults) {
        for (name, value) in fields {
            faults.path.push(PathElement::field(name));
            match field_type(Some(map), name) {
                (None, false) => faults.push("field not declared in schema"),
                (ty, _) => self.validate(ty, value, faults),
            }
            faults.path.pop();
        }
    }

    fn validate_items(self, list: &ListType, items: &[Value], faults: &mut Faults) {
        let mut seen = BTreeSet::new();
        for (i, item) in items.iter().enumerate() {
            let element = if list.kind == crate::schema::ListKind::Atomic {
                PathElement::Index(i64::try_from(i).unwrap_or(i64::MAX))
            } else {
                match item_element(list, item) {
                    Ok(element) => element,
                    Err(why) => return faults.push(&format!("element {i}: {why}")),
                }
            };
            faults.path.push(element.clone());
            self.validate(Some(list.items), item, faults);
            faults.path.pop();
            let key = element.to_string();
            if !seen.insert(element) {
                faults.push(&format!("duplicate entries for key {key}"));
            }
        }
    }
}
