//! Ownership that was written when a type was granular, brought to a type that is atomic now.
//!
//! # Source
//! `sigs.k8s.io/structured-merge-diff/typed/reconcile_schema.go`.

use super::{
    element::PathElement,
    set::Set,
    typed::{Ty, Walk, field_type},
};
use crate::schema::{ListKind, RootType, Type};

/// The set as the types have it now.
pub(crate) fn reconcile(root: &RootType, set: Set) -> Set {
    let mut change = Change::default();
    Walk::new(root).reconcile(Some(root.root), &set, true, &mut change);
    if change.atomic.is_empty() {
        return set;
    }
    set.recursive_difference(&change.atomic).union(change.atomic)
}

#[derive(Default)]
struct Change {
    path: Vec<PathElement>,
    /// What is owned as a whole now.
    atomic: Set,
}

impl Walk<'_> {
    /// `is_whole`: nothing below is owned by itself.
    fn reconcile(self, ty: Ty, below: &Set, is_whole: bool, change: &mut Change) {
        let is_atomic = match self.get(ty) {
            Type::Any | Type::Scalar => return,
            Type::Map(map) => map.atomic && !below.is_empty(),
            Type::List(list) => list.kind == ListKind::Atomic,
        };
        if is_atomic && !is_whole {
            change.atomic.insert(&change.path);
            return;
        }
        for node in below.nodes() {
            let ty = match (self.get(ty), &node.element) {
                (Type::Map(map), PathElement::Field(name)) => field_type(Some(map), name).0,
                (Type::Map(map), _) => map.rest,
                (Type::List(list), _) => Some(list.items),
                _ => None,
            };
            if ty.is_none() {
                continue;
            }
            change.path.push(node.element.clone());
            let is_whole = node.member && node.below.is_empty();
            self.reconcile(ty, &node.below, is_whole, change);
            change.path.pop();
        }
    }
}
