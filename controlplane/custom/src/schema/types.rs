//! A schema as types for server-side apply: what is owned field by field, what as a whole.
//!
//! # Source
//! Kubernetes `apimachinery/pkg/util/managedfields` over `apiextensions-apiserver/pkg/controller/openapi/builder`.

use std::sync::Arc;

use podium_api::schema::{ListKind as Items, ListType, MapType, MergeKey, RootType, Type, TypeId, Types};

use super::{Additional, Kind, ListKind, Schema};

/// The types of whole objects.
pub(crate) fn root_type(schema: &Schema) -> RootType {
    let mut types = Types::new();
    let any = types.add(Type::Any);
    let mut made = made(schema, &mut types, any);
    if let Type::Map(map) = &mut made {
        let scalar = types.add(Type::Scalar);
        let meta = metadata(&mut types, any, scalar);
        map.fields.extend([("apiVersion".into(), scalar), ("kind".into(), scalar), ("metadata".into(), meta)]);
    }
    let root = types.add(made);
    RootType { types: Arc::new(types), root }
}

/// Labels and annotations by key, finalizers by value, owners by uid.
fn metadata(types: &mut Types, any: TypeId, scalar: TypeId) -> TypeId {
    let texts = types.add(Type::Map(MapType { rest: Some(scalar), ..MapType::default() }));
    let finalizers = types.add(Type::List(ListType { items: scalar, kind: Items::Set }));
    let owner = types.add(Type::Map(MapType { rest: Some(any), atomic: true, ..MapType::default() }));
    let uid = MergeKey { name: "uid".into(), default: None };
    let owners = types.add(Type::List(ListType { items: owner, kind: Items::Map([uid].into()) }));
    let mut map = MapType::default();
    for (name, of) in
        [("labels", texts), ("annotations", texts), ("finalizers", finalizers), ("ownerReferences", owners)]
    {
        map.fields.insert(name.into(), of);
    }
    for name in [
        "name",
        "generateName",
        "namespace",
        "selfLink",
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        map.fields.insert(name.into(), scalar);
    }
    map.fields.insert("managedFields".into(), any);
    types.add(Type::Map(map))
}

fn add(schema: &Schema, types: &mut Types, any: TypeId) -> TypeId {
    let new = made(schema, types, any);
    types.add(new)
}

fn made(schema: &Schema, types: &mut Types, any: TypeId) -> Type {
    if schema.int_or_string {
        return Type::Scalar;
    }
    match schema.kind {
        Kind::Any => Type::Any,
        Kind::Object => {
            let mut map = MapType { atomic: schema.atomic, ..MapType::default() };
            for (name, property) in &schema.properties {
                let of = add(property, types, any);
                map.fields.insert(name.as_str().into(), of);
            }
            map.rest = match &schema.additional {
                Additional::Schema(of) => Some(add(of, types, any)),
                Additional::Allowed(true) => Some(any),
                _ if schema.preserve => Some(any),
                _ => None,
            };
            if schema.embedded {
                for name in ["apiVersion", "kind", "metadata"] {
                    map.fields.entry(name.into()).or_insert(any);
                }
            }
            Type::Map(map)
        }
        Kind::Array => {
            let items = schema.items.as_deref().map_or(any, |of| add(of, types, any));
            let key = |name: &String| {
                let property = schema.items.as_deref().and_then(|of| of.properties.get(name));
                MergeKey { name: name.as_str().into(), default: property.and_then(|p| p.default.clone()) }
            };
            let kind = match &schema.list {
                ListKind::Atomic => Items::Atomic,
                ListKind::Set => Items::Set,
                ListKind::Map(keys) => Items::Map(keys.iter().map(key).collect()),
            };
            Type::List(ListType { items, kind })
        }
        Kind::String | Kind::Integer | Kind::Number | Kind::Boolean => Type::Scalar,
    }
}
