//! What a write adds, changes and removes.
//!
//! Never fails: a list whose items cannot be told apart is compared as a whole. This runs on every write of every
//! object, so that nothing is allocated for what did not change.
//!
//! # Source
//! `sigs.k8s.io/structured-merge-diff/typed/compare.go`.

use std::{collections::BTreeMap, sync::LazyLock};

use serde_json::Value;

use super::{
    element::{PathElement, same_value},
    set::{Gathered, Set},
    typed::{Object, Shape, Ty, Walk, field_type, item_element},
};
use crate::schema::{ListType, MapType, RootType, Type};

/// The paths in which two values differ.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Comparison {
    /// Only in the first.
    pub(crate) removed: Set,
    /// In both, not with the same value.
    pub(crate) modified: Set,
    /// Only in the second.
    pub(crate) added: Set,
}

impl Comparison {
    pub(crate) fn is_same(&self) -> bool {
        self.removed.is_empty() && self.modified.is_empty() && self.added.is_empty()
    }

    /// Leaves out some paths and all below them.
    pub(crate) fn without(self, paths: &Set) -> Self {
        Self {
            removed: self.removed.recursive_difference(paths),
            modified: self.modified.recursive_difference(paths),
            added: self.added.recursive_difference(paths),
        }
    }
}

static EMPTY_OBJECT: LazyLock<Value> = LazyLock::new(|| Value::Object(Object::new()));

/// Compares two objects of a type; `None` is a new, empty object.
pub(crate) fn compare(root: &RootType, old: Option<&Value>, new: &Value) -> Comparison {
    let old = old.unwrap_or(&EMPTY_OBJECT);
    Walk::new(root).compare(Some(root.root), Some(old), Some(new)).below
}

/// What differs below a path, and whether the path itself was added, changed or removed.
#[derive(Default)]
struct Delta {
    below: Comparison,
    added: bool,
    modified: bool,
    removed: bool,
}

/// A [`Comparison`] in the making.
#[derive(Default)]
struct Differences {
    removed: Gathered,
    modified: Gathered,
    added: Gathered,
}

impl Differences {
    fn finish(self) -> Comparison {
        Comparison { removed: self.removed.finish(), modified: self.modified.finish(), added: self.added.finish() }
    }
}

impl Delta {
    fn add_to(self, element: impl FnOnce() -> PathElement, out: &mut Differences) {
        if self.is_same() {
            return;
        }
        let element = element();
        out.added.push(element.clone(), self.added, self.below.added);
        out.removed.push(element.clone(), self.removed, self.below.removed);
        out.modified.push(element, self.modified, self.below.modified);
    }

    fn is_same(&self) -> bool {
        !self.added && !self.modified && !self.removed && self.below.is_same()
    }
}

fn leaf(old: Option<&Value>, new: Option<&Value>) -> Delta {
    let modified = matches!((old, new), (Some(old), Some(new)) if !same_value(old, new));
    Delta { added: old.is_none(), removed: new.is_none(), modified, below: Comparison::default() }
}

fn is_wildcard(value: Option<&Value>) -> bool {
    value.is_none_or(Value::is_null)
}

impl Walk<'_> {
    fn compare(self, ty: Ty, old: Option<&Value>, new: Option<&Value>) -> Delta {
        let is_object = |v: Option<&Value>| v.is_some_and(Value::is_object);
        let objects = (is_object(old), is_object(new));
        let mixed = match objects {
            (true, false) => !is_wildcard(new),
            (false, true) => !is_wildcard(old),
            _ => false,
        };
        if mixed && *self.get(ty) == Type::Any {
            return self.compare_mixed(old, new);
        }
        match self.shape(ty, objects.0 || objects.1) {
            Shape::Leaf => leaf(old, new),
            Shape::Map(map) => self.compare_maps(map, old, new),
            Shape::List(list) => self.compare_lists(list, old, new),
        }
    }

    /// An object of unknown type that becomes something else, or the other way round.
    fn compare_mixed(self, old: Option<&Value>, new: Option<&Value>) -> Delta {
        let mut delta = self.compare_maps(None, old.filter(|v| v.is_object()), new.filter(|v| v.is_object()));
        (delta.added, delta.removed, delta.modified) = (false, false, true);
        delta
    }

    fn compare_maps(self, map: Option<&MapType>, old: Option<&Value>, new: Option<&Value>) -> Delta {
        let Some((before, after)) = either(filled_object(old), filled_object(new)) else { return leaf(old, new) };
        let mut below = Differences::default();
        for (name, value) in after.into_iter().flatten() {
            let (ty, _) = field_type(map, name);
            let was = before.and_then(|m| m.get(name)).or_else(|| self.implied(ty, old));
            self.compare(ty, was, Some(value)).add_to(|| PathElement::field(name), &mut below);
        }
        let gone = |name: &String| after.is_none_or(|m| !m.contains_key(name));
        for (name, value) in before.into_iter().flatten().filter(|(name, _)| gone(name)) {
            let (ty, _) = field_type(map, name);
            let is = self.implied(ty, new);
            self.compare(ty, Some(value), is).add_to(|| PathElement::field(name), &mut below);
        }
        Delta { added: old.is_none(), removed: new.is_none(), modified: false, below: below.finish() }
    }

    /// What a field that is not there counts as in an object that is: Kubernetes' own objects always have some.
    fn implied(self, ty: Ty, around: Option<&Value>) -> Option<&'static Value> {
        if around.is_none() || !self.always_there(ty) {
            return None;
        }
        Some(match self.get(ty) {
            Type::Map(_) => &EMPTY_OBJECT,
            _ => &Value::Null,
        })
    }

    fn compare_lists(self, list: &ListType, old: Option<&Value>, new: Option<&Value>) -> Delta {
        let Some((before, after)) = either(filled_list(old), filled_list(new)) else { return leaf(old, new) };
        if before == after {
            return Delta::default();
        }
        let Ok(pairs) = pair_up(list, before, after) else { return leaf(old, new) };
        let mut below = Differences::default();
        for (element, (olds, news)) in pairs {
            self.compare_items(list, &olds, &news).add_to(|| element, &mut below);
        }
        Delta { added: old.is_none(), removed: new.is_none(), modified: false, below: below.finish() }
    }

    /// The items of one key, of which there may be several.
    fn compare_items(self, list: &ListType, olds: &[&Value], news: &[&Value]) -> Delta {
        let item = |old, new| self.compare(Some(list.items), old, new);
        match (olds, news) {
            ([] | [_], [] | [_]) => item(olds.first().copied(), news.first().copied()),
            ([_, _, ..], [_, _, ..]) => {
                let same = olds.len() == news.len() && olds.iter().zip(news).all(|(a, b)| same_value(a, b));
                Delta { modified: !same, ..Delta::default() }
            }
            ([_, _, ..], _) => {
                let new = news.first().map(|new| item(None, Some(new)));
                Delta { removed: true, ..new.unwrap_or_default() }
            }
            (_, _) => {
                let old = olds.first().map(|old| item(Some(old), None));
                Delta { added: true, ..old.unwrap_or_default() }
            }
        }
    }
}

fn filled_object(value: Option<&Value>) -> Option<&Object> {
    value.and_then(Value::as_object).filter(|m| !m.is_empty())
}

fn filled_list(value: Option<&Value>) -> Option<&Vec<Value>> {
    value.and_then(Value::as_array).filter(|l| !l.is_empty())
}

fn either<T>(a: Option<T>, b: Option<T>) -> Option<(Option<T>, Option<T>)> {
    (a.is_some() || b.is_some()).then_some((a, b))
}

type Pairs<'v> = BTreeMap<PathElement, (Vec<&'v Value>, Vec<&'v Value>)>;

fn pair_up<'v>(
    list: &ListType,
    before: Option<&'v Vec<Value>>,
    after: Option<&'v Vec<Value>>,
) -> Result<Pairs<'v>, String> {
    let mut pairs = Pairs::new();
    for item in before.into_iter().flatten() {
        pairs.entry(item_element(list, item)?).or_default().0.push(item);
    }
    for item in after.into_iter().flatten() {
        pairs.entry(item_element(list, item)?).or_default().1.push(item);
    }
    Ok(pairs)
}
