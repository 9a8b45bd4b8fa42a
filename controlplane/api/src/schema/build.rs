//! The [`Types`] of the built-in kinds: their JSON schemas and the table of list types, put together.
//!
//! Quantities, times and integers-or-strings are scalars; what the schema says nothing of (raw JSON) is [`Type::Any`].

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, PoisonError, RwLock},
};

use serde_json::{Map, Value};

use super::{
    Extension, ListKind, ListType, ListWord, MapType, RootType, Type, TypeId, Types, definitions, list_extension,
    referred,
};
use crate::object::AnyKind;

/// One entry for each built-in kind, made when it is first written.
static CACHE: RwLock<BTreeMap<String, RootType>> = RwLock::new(BTreeMap::new());

/// How the values of a built-in kind are put together.
pub(crate) fn types_of(kind: &dyn AnyKind) -> RootType {
    let name = kind.schema_name();
    if let Some(cached) = CACHE.read().unwrap_or_else(PoisonError::into_inner).get(&name) {
        return cached.clone();
    }
    let root = Builder::root(&name, &definitions([kind]));
    CACHE.write().unwrap_or_else(PoisonError::into_inner).insert(name, root.clone());
    root
}

/// A schema of its own, and how a field uses it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Use<'s> {
    name: &'s str,
    /// What the field says of atomicity, against the schema.
    atomic: Option<bool>,
    by_value: bool,
}

struct Builder<'s> {
    schemas: &'s Map<String, Value>,
    types: Types,
    named: HashMap<Use<'s>, TypeId>,
}

impl<'s> Builder<'s> {
    fn root(name: &str, schemas: &'s Map<String, Value>) -> RootType {
        let Some((name, _)) = schemas.get_key_value(name) else { return RootType::any() };
        let mut builder = Self { schemas, types: Types::new(), named: HashMap::new() };
        let root = builder.named(Use { name, atomic: None, by_value: false });
        RootType { types: Arc::new(builder.types), root }
    }

    fn named(&mut self, used: Use<'s>) -> TypeId {
        if let Some(id) = self.named.get(&used) {
            return *id;
        }
        // Known before it is complete, for schemas that refer to themselves.
        let id = self.types.add(Type::Any);
        self.named.insert(used.clone(), id);
        if used.by_value {
            self.types.set_by_value(id);
        }
        let whole = list_extension(used.name, ".").and_then(|e| e.atomic).unwrap_or(false);
        let made = match self.schemas.get(used.name) {
            Some(schema) => self.named_type(used.name, schema, used.atomic.unwrap_or(whole)),
            None => Type::Any,
        };
        self.types.set(id, made);
        id
    }

    fn named_type(&mut self, name: &'s str, schema: &'s Value, atomic: bool) -> Type {
        let is_scalar = schema.get("x-kubernetes-int-or-string").is_some();
        match schema.get("type").and_then(Value::as_str) {
            _ if is_scalar => Type::Scalar,
            Some("string" | "integer" | "number" | "boolean") => Type::Scalar,
            Some("object") => self.object(name, schema, atomic),
            _ => Type::Any,
        }
    }

    fn object(&mut self, name: &'s str, schema: &'s Value, atomic: bool) -> Type {
        let mut map = MapType { atomic, ..MapType::default() };
        for (field, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            let ty = self.field(property, list_extension(name, field));
            map.fields.insert(field.as_str().into(), ty);
        }
        map.rest = schema.get("additionalProperties").filter(|p| p.is_object()).map(|p| self.field(p, None));
        if map.fields.is_empty() && map.rest.is_none() { Type::Any } else { Type::Map(map) }
    }

    fn field(&mut self, property: &'s Value, extension: Option<&'static Extension>) -> TypeId {
        let (atomic, by_value) = extension.map_or((None, false), |e| (e.atomic, e.by_value));
        if let Some(name) = referred(property) {
            return self.named(Use { name, atomic, by_value });
        }
        let made = match property.get("type").and_then(Value::as_str) {
            Some("array") => self.list(property, extension),
            Some("object") => self.object("", property, atomic.unwrap_or(false)),
            Some(_) => Type::Scalar,
            None if property.get("x-kubernetes-int-or-string").is_some() => Type::Scalar,
            None => Type::Any,
        };
        let id = self.types.add(made);
        if by_value {
            self.types.set_by_value(id);
        }
        id
    }

    fn list(&mut self, property: &'s Value, extension: Option<&'static Extension>) -> Type {
        let items = match property.get("items") {
            Some(items) => self.field(items, None),
            None => self.types.add(Type::Any),
        };
        let kind = match extension.map(|e| (e.list, &e.keys)) {
            Some((Some(ListWord::Set), _)) => ListKind::Set,
            Some((Some(ListWord::Map), keys)) => ListKind::Map(keys.as_slice().into()),
            _ => ListKind::Atomic,
        };
        Type::List(ListType { items, kind })
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::{
        apps::v1::Deployment,
        core::v1::{ConfigMap, Pod, Service},
    };

    use super::*;
    use crate::kind_of;

    /// What a path leads to: `.name` a field, `*` any field, `[]` an item.
    fn at(root: &RootType, path: &str) -> String {
        let mut id = root.root;
        for step in path.split_whitespace() {
            id = match root.types.get(id) {
                Type::List(list) if step == "[]" => list.items,
                Type::Map(map) if step == "*" => map.rest.unwrap(),
                Type::Map(map) => *map.fields.get(step).unwrap_or_else(|| panic!("{step} in {path}")),
                other => panic!("{step} in {path}: {other:?}"),
            };
        }
        let described = match root.types.get(id) {
            Type::Scalar => "scalar".to_owned(),
            Type::Any => "any".to_owned(),
            Type::Map(map) => if map.atomic { "atomic map" } else { "map" }.to_owned(),
            Type::List(ListType { kind: ListKind::Atomic, .. }) => "atomic list".to_owned(),
            Type::List(ListType { kind: ListKind::Set, .. }) => "set".to_owned(),
            Type::List(ListType { kind: ListKind::Map(keys), .. }) => {
                format!("list by {}", keys.iter().map(|k| &*k.name).collect::<Vec<_>>().join(" "))
            }
        };
        if root.types.is_by_value(id) { format!("{described}, always there") } else { described }
    }

    #[test]
    fn the_types_of_built_in_kinds_are_those_of_kubernetes() {
        let pod = kind_of::<Pod>().types();
        let deployment = kind_of::<Deployment>().types();
        let service = kind_of::<Service>().types();
        let map = kind_of::<ConfigMap>().types();
        for (root, path, expected) in [
            (&pod, "", "map"),
            (&pod, "spec", "map, always there"),
            (&pod, "metadata labels", "map"),
            (&pod, "metadata labels *", "scalar"),
            (&pod, "metadata finalizers", "set"),
            (&pod, "metadata ownerReferences", "list by uid"),
            (&pod, "metadata ownerReferences []", "atomic map"),
            (&pod, "metadata creationTimestamp", "scalar"),
            (&pod, "metadata managedFields", "atomic list"),
            (&pod, "metadata managedFields [] fieldsV1", "any"),
            (&pod, "spec containers", "list by name, always there"),
            (&pod, "spec initContainers", "list by name"),
            (&pod, "spec containers [] ports", "list by containerPort protocol"),
            (&pod, "spec containers [] args", "atomic list"),
            (&pod, "spec containers [] resources", "map, always there"),
            (&pod, "spec containers [] resources limits *", "scalar"),
            (&pod, "spec containers [] livenessProbe httpGet port", "scalar"),
            (&pod, "spec nodeSelector", "atomic map"),
            (&pod, "spec tolerations", "atomic list"),
            (&pod, "spec topologySpreadConstraints", "list by topologyKey whenUnsatisfiable"),
            (&pod, "status conditions", "list by type"),
            (&deployment, "spec selector", "atomic map"),
            (&deployment, "spec template spec containers [] env", "list by name"),
            (&deployment, "spec template spec containers [] env [] valueFrom configMapKeyRef", "atomic map"),
            (&service, "spec ports", "list by port protocol"),
            (&service, "spec selector", "atomic map"),
            (&map, "data", "map"),
            (&map, "binaryData *", "scalar"),
        ] {
            assert_eq!(at(root, path), expected, "{path}");
        }
    }

    #[test]
    fn every_kind_has_types() {
        for kind in crate::kinds::all() {
            let root = kind.types();
            assert!(matches!(root.types.get(root.root), Type::Map(_)), "{}", kind.schema_name());
            assert!(Arc::ptr_eq(&root.types, &kind.types().types));
        }
    }
}
