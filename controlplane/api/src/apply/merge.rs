//! Merging a configuration into an object: nothing is removed, the configuration's leaves win, lists take the
//! configuration's order for the items that it names.
//!
//! # Source
//! `sigs.k8s.io/structured-merge-diff/typed/merge.go`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{
    element::PathElement,
    typed::{Object, Shape, Ty, Walk, field_type, item_elements},
};
use crate::schema::{ListType, MapType, RootType, Type};

/// The object with the configuration merged into it.
///
/// # Errors
/// What is wrong with the keys of a list.
pub(crate) fn merge(root: &RootType, live: &Value, config: &Value) -> Result<Value, String> {
    Walk::new(root).merge(Some(root.root), live, config)
}

impl Walk<'_> {
    fn merge(self, ty: Ty, live: &Value, config: &Value) -> Result<Value, String> {
        if *self.get(ty) == Type::Any {
            return match (live, config) {
                (Value::Object(old), Value::Object(new)) if !old.is_empty() => self.merge_maps(None, old, new),
                (Value::Object(old), Value::Null) if !old.is_empty() => Ok(live.clone()),
                _ => Ok(config.clone()),
            };
        }
        match self.shape(ty, true) {
            Shape::Leaf => Ok(config.clone()),
            Shape::Map(map) => match (live, config) {
                (Value::Object(old), Value::Object(new)) => self.merge_maps(map, old, new),
                (Value::Object(old), Value::Null) if !old.is_empty() => Ok(live.clone()),
                _ => Ok(config.clone()),
            },
            Shape::List(list) => match (live, config) {
                (Value::Array(old), Value::Array(new)) if !(old.is_empty() && new.is_empty()) => {
                    self.merge_lists(list, old, new)
                }
                (Value::Array(old), Value::Null) if !old.is_empty() => Ok(live.clone()),
                _ => Ok(config.clone()),
            },
        }
    }

    fn merge_maps(self, map: Option<&MapType>, old: &Object, new: &Object) -> Result<Value, String> {
        let mut out = old.clone();
        for (name, value) in new {
            let (ty, _) = field_type(map, name);
            let merged = match old.get(name) {
                Some(old) => self.merge(ty, old, value)?,
                None => value.clone(),
            };
            out.insert(name.clone(), merged);
        }
        Ok(Value::Object(out))
    }

    fn merge_lists(self, list: &ListType, old: &[Value], new: &[Value]) -> Result<Value, String> {
        let zip = Zip::new(list, old, new)?;
        let mut out = Vec::with_capacity(old.len().max(new.len()));
        for step in zip.order() {
            match step {
                Step::Old(at) => out.extend(old.get(at).cloned()),
                Step::New(at) => {
                    let Some((element, value)) = zip.new.get(at).zip(new.get(at)) else { continue };
                    // Of duplicates none is merged: the new item stands for all of them.
                    let merged = match zip.in_old.get(element) {
                        Some(Some(was)) => self.merge(Some(list.items), was, value)?,
                        _ => value.clone(),
                    };
                    out.push(merged);
                }
            }
        }
        Ok(Value::Array(out))
    }
}

enum Step {
    /// The old item at this place stays as it is.
    Old(usize),
    /// The new item at this place, merged with its old self if there is one.
    New(usize),
}

/// Two lists by the keys of their items.
struct Zip<'v> {
    old: Vec<PathElement>,
    new: Vec<PathElement>,
    /// The old items, `None` for those that are there more than once.
    in_old: BTreeMap<PathElement, Option<&'v Value>>,
    in_new: BTreeSet<PathElement>,
}

impl<'v> Zip<'v> {
    fn new(list: &ListType, old: &'v [Value], new: &[Value]) -> Result<Self, String> {
        let new = item_elements(list, new)?;
        let mut in_new = BTreeSet::new();
        for element in &new {
            if !in_new.insert(element.clone()) {
                return Err(format!("duplicate entries for key {element}"));
            }
        }
        let elements = item_elements(list, old)?;
        let mut in_old = BTreeMap::new();
        for (element, item) in elements.iter().zip(old) {
            in_old.entry(element.clone()).and_modify(|seen| *seen = None).or_insert(Some(item));
        }
        Ok(Self { old: elements, new, in_old, in_new })
    }

    /// New items in their order; old ones that are not among them keep their place relative to those that are.
    fn order(&self) -> Vec<Step> {
        let mut steps = Vec::with_capacity(self.old.len() + self.new.len());
        let mut shared = self.new.iter().filter(|e| self.in_old.contains_key(*e));
        let mut next_shared = shared.next();
        let mut merged: BTreeSet<&PathElement> = BTreeSet::new();
        let (mut old_at, mut new_at) = (0, 0);
        loop {
            let (old, new) = (self.old.get(old_at), self.new.get(new_at));
            if old.is_none() && new.is_none() {
                return steps;
            }
            if let (Some(old), Some(new)) = (old, new) {
                if old == new {
                    merged.insert(new);
                    steps.push(Step::New(new_at));
                    (old_at, new_at) = (old_at + 1, new_at + 1);
                    next_shared = shared.next();
                    continue;
                }
                if self.in_new.contains(old) && next_shared.is_some_and(|next| next != old) {
                    // Shared, but not the one that is wanted now.
                    old_at += 1;
                    continue;
                }
            }
            if let Some(old) = old {
                if !self.in_new.contains(old) {
                    steps.push(Step::Old(old_at));
                    old_at += 1;
                    continue;
                }
                if merged.contains(old) {
                    old_at += 1;
                }
            }
            if let Some(new) = new {
                merged.insert(new);
                steps.push(Step::New(new_at));
                new_at += 1;
                if next_shared == Some(new) {
                    next_shared = shared.next();
                }
            }
        }
    }
}
