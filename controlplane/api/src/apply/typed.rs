//! Values seen through their types: which of them are leaves, and what tells the items of a list apart.
//!
//! # Source
//! `sigs.k8s.io/structured-merge-diff/typed/helpers.go`.

use serde_json::{Map, Value};

use super::element::PathElement;
use crate::schema::{ListKind, ListType, MapType, MergeKey, RootType, Type, TypeId, Types};

pub(super) type Object = Map<String, Value>;

/// A type; `None` where nothing is known.
pub(super) type Ty = Option<TypeId>;

/// The types that a walk goes by.
#[derive(Clone, Copy)]
pub(super) struct Walk<'t> {
    types: &'t Types,
}

/// How a value of a type is taken apart.
pub(super) enum Shape<'t> {
    /// Not at all.
    Leaf,
    /// Field by field; `None` when no field is known.
    Map(Option<&'t MapType>),
    /// Item by item.
    List(&'t ListType),
}

impl<'t> Walk<'t> {
    pub(super) fn new(root: &'t RootType) -> Self {
        Self { types: &root.types }
    }

    pub(super) fn get(self, ty: Ty) -> &'t Type {
        ty.map_or(&Type::Any, |id| self.types.get(id))
    }

    /// Values of unknown type are taken apart when they are objects.
    pub(super) fn shape(self, ty: Ty, is_object: bool) -> Shape<'t> {
        match self.get(ty) {
            Type::Any if is_object => Shape::Map(None),
            Type::Any | Type::Scalar => Shape::Leaf,
            Type::Map(map) if map.atomic => Shape::Leaf,
            Type::Map(map) => Shape::Map(Some(map)),
            Type::List(list) if list.kind == ListKind::Atomic => Shape::Leaf,
            Type::List(list) => Shape::List(list),
        }
    }

    /// Whether Kubernetes' own objects always have this field: a struct that is no pointer.
    pub(super) fn always_there(self, ty: Ty) -> bool {
        ty.is_some_and(|id| self.types.is_by_value(id))
    }
}

/// The type of a field and whether it is a known one.
pub(super) fn field_type(map: Option<&MapType>, name: &str) -> (Ty, bool) {
    let Some(map) = map else { return (None, false) };
    match map.fields.get(name) {
        Some(id) => (Some(*id), true),
        None => (map.rest, false),
    }
}

/// What tells an item of a list apart.
pub(super) fn item_element(list: &ListType, item: &Value) -> Result<PathElement, String> {
    match &list.kind {
        ListKind::Atomic => Err("invalid indexing of non-associative list".to_owned()),
        ListKind::Set => set_element(item),
        ListKind::Map(keys) => keyed_element(keys, item),
    }
}

fn set_element(item: &Value) -> Result<PathElement, String> {
    let why = match item {
        Value::Object(_) => "associative list without keys has an element that's a map type",
        Value::Array(_) => "not supported: associative list with lists as elements",
        Value::Null => "associative list without keys has an element that's an explicit null",
        plain => return Ok(PathElement::Value(plain.clone())),
    };
    Err(why.to_owned())
}

fn keyed_element(keys: &[MergeKey], item: &Value) -> Result<PathElement, String> {
    let fields = match item {
        Value::Object(fields) => fields,
        Value::Null => return Err("associative list with keys may not have a null element".to_owned()),
        _ => return Err("associative list with keys may not have non-map elements".to_owned()),
    };
    let value = |key: &MergeKey| fields.get(&*key.name).or(key.default.as_ref()).cloned();
    let mut found: Vec<(Box<str>, Value)> =
        keys.iter().filter_map(|key| Some((key.name.clone(), value(key)?))).collect();
    if found.is_empty() {
        let names: Vec<String> = keys.iter().map(|k| format!("{:?}", k.name)).collect();
        let names = names.join(" ");
        return Err(format!(
            "associative list with keys has an element that omits all key fields [{names}] (and doesn't have default values for any key fields)"
        ));
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(PathElement::Key(found.into()))
}

/// The elements of all items of a list.
pub(super) fn item_elements(list: &ListType, items: &[Value]) -> Result<Vec<PathElement>, String> {
    items.iter().map(|item| item_element(list, item)).collect()
}
