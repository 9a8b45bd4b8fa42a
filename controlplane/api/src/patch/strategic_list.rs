//! Lists in strategic merge patches: merged item by item, by key or by value, and put in order.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apimachinery/pkg/util/strategicpatch/patch.go`, from `mergeSlice` on.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::{
    meta::{FieldRule, PatchMeta, TypeRef},
    strategic::{DIRECTIVE, bad_arg_type, bad_patch_type, cleaned, go_map, go_text, list_of_lists, merge_object},
};
use crate::{apply::internal, error::ApiError};

/// A list that is merged item by item.
pub(super) struct List<'a> {
    pub(super) meta: &'a PatchMeta,
    pub(super) item: TypeRef,
    pub(super) rule: FieldRule,
    pub(super) name: &'a str,
}

fn is_delete(item: &Value) -> bool {
    item.get(DIRECTIVE).is_some_and(|d| d == "delete")
}

/// Whether the items of the lists are objects; an error when they are not all of one type.
fn are_objects(old: &[Value], patch: &[Value]) -> Result<bool, ApiError> {
    let kind = |v: &Value| match v {
        Value::Number(n) if n.is_f64() => (1, false),
        Value::Object(_) => (2, true),
        Value::Array(_) => (3, false),
        Value::Null => (4, false),
        Value::Bool(_) => (5, false),
        Value::String(_) => (6, false),
        Value::Number(_) => (7, false),
    };
    let mut kinds = old.iter().chain(patch).map(kind);
    match kinds.next() {
        Some((3, _)) => Err(list_of_lists()),
        Some(first) if kinds.all(|k| k == first) => Ok(first.1),
        _ => {
            let lists = [go_text(&Value::from(old)), go_text(&Value::from(patch))].join(" ");
            Err(internal(format!("list element types are not identical: [{lists}]")))
        }
    }
}

impl List<'_> {
    /// The list with a patch merged into it, the patch's items in its order.
    pub(super) fn merge(&self, old: Vec<Value>, patch: &[Value]) -> Result<Vec<Value>, ApiError> {
        if old.is_empty() && patch.is_empty() {
            return Ok(old);
        }
        if !are_objects(&old, patch)? {
            let merged = deduplicated(old.iter().chain(patch).cloned().collect());
            return self.ordered(merged, patch, &old);
        }
        if self.rule.key.is_none() {
            return Err(internal(format!("cannot merge lists without merge key for {}", self.name)));
        }
        let (old, changes) = self.directives(old, patch)?;
        let mut merged = old.clone();
        let mut known = HashMap::new();
        for (at, item) in old.iter().enumerate() {
            known.entry(self.identity(item)?.clone()).or_insert(at);
        }
        for change in &changes {
            self.merge_item(&mut merged, &mut known, change)?;
        }
        self.ordered(merged, &changes, &old)
    }

    /// Carries out `$patch` in items: what is left of the list and the changes that are left.
    fn directives(&self, mut old: Vec<Value>, patch: &[Value]) -> Result<(Vec<Value>, Vec<Value>), ApiError> {
        let mut changes = Vec::with_capacity(patch.len());
        let mut gone = HashSet::new();
        let mut is_replaced = false;
        for item in patch {
            let Some(directive) = item.get(DIRECTIVE) else {
                changes.push(item.clone());
                continue;
            };
            match directive.as_str() {
                Some("delete") => {
                    gone.insert(self.identity(item)?);
                }
                Some("replace") => is_replaced = true,
                Some("merge") => return Err(internal("merging lists cannot yet be specified in the patch".to_owned())),
                _ => return Err(bad_patch_type(directive, item.as_object().unwrap_or(&Default::default()))),
            }
        }
        if is_replaced {
            return Ok((changes.iter().map(cleaned).collect(), Vec::new()));
        }
        old.retain(|item| self.key_of(item).is_none_or(|key| !gone.contains(key)));
        Ok((old, changes))
    }

    /// `known`: where the items of each identity stand.
    fn merge_item(
        &self,
        merged: &mut Vec<Value>,
        known: &mut HashMap<Value, usize>,
        change: &Value,
    ) -> Result<(), ApiError> {
        let at = *known.entry(self.identity(change)?.clone()).or_insert(merged.len());
        match (merged.get_mut(at), change) {
            (Some(Value::Object(old)), Value::Object(new)) => {
                *old = merge_object(self.meta, self.item, std::mem::take(old), new)?;
            }
            _ => merged.push(cleaned(change)),
        }
        Ok(())
    }

    /// What tells an item apart, if it has it: the value of its merge key, or the plain value itself.
    fn key_of<'v>(&self, item: &'v Value) -> Option<&'v Value> {
        match self.rule.key {
            Some(key) => item.get(key),
            None => Some(item),
        }
    }

    fn identity<'v>(&self, item: &'v Value) -> Result<&'v Value, ApiError> {
        self.key_of(item).ok_or_else(|| match (item, self.rule.key) {
            (Value::Object(fields), Some(key)) => {
                internal(format!("map: {} does not contain declared merge key: {key}", go_map(fields)))
            }
            (other, _) => bad_arg_type("map[string]interface {}", other),
        })
    }

    fn identities<'v>(&self, items: &'v [Value]) -> Result<Vec<&'v Value>, ApiError> {
        items.iter().map(|item| self.identity(item)).collect()
    }

    /// Whether the items of a patch stand in the order that it asks for.
    pub(super) fn check_order(&self, patch: &[Value], order: &[Value]) -> Result<(), ApiError> {
        if order.is_empty() || patch.is_empty() {
            return Ok(());
        }
        let mut places = self.identities(order)?.into_iter();
        let items = patch.iter().filter(|item| !is_delete(item) && item.get(DIRECTIVE).is_none());
        for item in items {
            let identity = self.identity(item)?;
            if !places.any(|place| place == identity) {
                let (patch, order) = (go_text(&Value::from(patch)), go_text(&Value::from(order)));
                return Err(internal(format!(
                    "The order in patch list:\n{patch}\n doesn't match $setElementOrder list:\n{order}\n"
                )));
            }
        }
        Ok(())
    }

    /// The list by which Kubernetes places the items that a patch does not name. Where the patch deletes items, its new
    /// ones take their room at the end of the old list (a slice that is changed in place), which clients have come to see.
    pub(super) fn places_after(&self, mut old: Vec<Value>, patch: &[Value]) -> Vec<Value> {
        let gone: HashSet<&Value> = patch.iter().filter(|i| is_delete(i)).filter_map(|i| self.key_of(i)).collect();
        if self.rule.key.is_none() || !self.rule.merge || gone.is_empty() {
            return old;
        }
        let room = old.len();
        old.retain(|item| self.key_of(item).is_none_or(|key| !gone.contains(key)));
        let known: HashSet<Value> = old.iter().filter_map(|item| self.key_of(item)).cloned().collect();
        let is_new = |item: &&Value| self.key_of(item).is_some_and(|key| !known.contains(key));
        let new = patch.iter().filter(|item| item.get(DIRECTIVE).is_none()).filter(is_new);
        old.extend(new.take(room - old.len()).cloned());
        old
    }

    /// Items named in `wanted` in that order; the others keep their relative order and stand before the first
    /// wanted item that followed them in the old list.
    pub(super) fn ordered(&self, merged: Vec<Value>, wanted: &[Value], old: &[Value]) -> Result<Vec<Value>, ApiError> {
        let (wanted, old) = (places(&self.identities(wanted)?), places(&self.identities(old)?));
        let (mut named, mut others) = (Vec::new(), Vec::new());
        for item in merged {
            let identity = self.identity(&item)?;
            let place = old.get(identity).copied();
            match wanted.get(identity).copied() {
                Some(rank) => named.push((rank, place, item)),
                None => others.push((place, item)),
            }
        }
        named.sort_by_key(|(rank, ..)| *rank);
        others.sort_by_key(|(place, _)| *place);
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

/// Without plain values that are there already. As in the source, the last value takes the place of one that goes.
fn deduplicated(mut items: Vec<Value>) -> Vec<Value> {
    let mut seen = HashSet::with_capacity(items.len());
    let mut at = 0;
    while let Some(item) = items.get(at) {
        if seen.insert(item.clone()) {
            at += 1;
        } else {
            items.swap_remove(at);
        }
    }
    items
}

/// Where each value stands first.
fn places<'v>(values: &[&'v Value]) -> HashMap<&'v Value, usize> {
    let mut out = HashMap::with_capacity(values.len());
    for (at, value) in values.iter().enumerate() {
        out.entry(*value).or_insert(at);
    }
    out
}
