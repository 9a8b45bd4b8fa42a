//! [`Types`]: how the values of a kind are put together, for everything that merges, compares or prunes them.
//!
//! An arena, since schemas may be recursive. Built once for a kind: of a built-in one from its JSON schema and the table
//! of list types, of a custom one from its CustomResourceDefinition.
//!
//! # Source
//! `sigs.k8s.io/structured-merge-diff/schema/elements.go`.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use serde_json::Value;

/// A type inside a [`Types`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TypeId(u32);

/// One type.
#[derive(Debug, Clone, PartialEq)]
pub enum Type {
    /// A string, number or boolean.
    Scalar,
    /// Anything: objects are then taken field by field, lists as a whole.
    Any,
    /// An object.
    Map(MapType),
    /// A list.
    List(ListType),
}

/// An object: known fields, others, or both.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MapType {
    /// The known fields.
    pub fields: HashMap<Box<str>, TypeId>,
    /// The type of fields that are not listed; `None`: there are none.
    pub rest: Option<TypeId>,
    /// Owned and replaced as a whole.
    pub atomic: bool,
}

/// A list.
#[derive(Debug, Clone, PartialEq)]
pub struct ListType {
    /// The type of its items.
    pub items: TypeId,
    /// What tells the items apart.
    pub kind: ListKind,
}

/// What tells the items of a list apart.
#[derive(Debug, Clone, PartialEq)]
pub enum ListKind {
    /// Nothing: owned and replaced as a whole.
    Atomic,
    /// Their values.
    Set,
    /// Some of their fields.
    Map(Box<[MergeKey]>),
}

/// A field that tells the items of a list apart.
#[derive(Debug, Clone, PartialEq)]
pub struct MergeKey {
    /// Name of the field.
    pub name: Box<str>,
    /// What it counts as when an item does not have it.
    pub default: Option<Value>,
}

/// Types that refer to each other.
#[derive(Debug, Clone, Default)]
pub struct Types {
    types: Vec<Type>,
    by_value: HashSet<TypeId>,
}

impl Types {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a type. At most 2^32 of them.
    pub fn add(&mut self, new: Type) -> TypeId {
        let id = TypeId(u32::try_from(self.types.len()).unwrap_or(u32::MAX));
        self.types.push(new);
        id
    }

    /// Replaces a type, for those that refer to themselves.
    pub fn set(&mut self, id: TypeId, new: Type) {
        if let Some(slot) = self.types.get_mut(id.0 as usize) {
            *slot = new;
        }
    }

    /// Says of a type that fields of it are always there in Kubernetes' own objects, empty at least: structs and lists that
    /// are no pointers and are not left out when empty. Nobody owns that they are there.
    pub fn set_by_value(&mut self, id: TypeId) {
        self.by_value.insert(id);
    }

    /// See [`Types::set_by_value`].
    pub fn is_by_value(&self, id: TypeId) -> bool {
        self.by_value.contains(&id)
    }

    /// A type; [`Type::Any`] for an id of another arena.
    pub fn get(&self, id: TypeId) -> &Type {
        self.types.get(id.0 as usize).unwrap_or(&Type::Any)
    }
}

/// The types of a kind and which of them the whole object has.
#[derive(Debug, Clone)]
pub struct RootType {
    /// The arena.
    pub types: Arc<Types>,
    /// The whole object.
    pub root: TypeId,
}

impl RootType {
    /// An object of which nothing is known.
    pub fn any() -> Self {
        let mut types = Types::new();
        let root = types.add(Type::Any);
        Self { types: Arc::new(types), root }
    }
}
