//! The test cases of structured-merge-diff, taken from its `merge/*_test.go` and `typed/*_test.go` into `smd.json`
//! (The Kubernetes Authors, Apache-2.0).
//!
//! Left out are those that need converters, those of what only clients do (extracting), and values of the wrong scalar type,
//! which are found when an object is decoded. Where one manager of a case
//! both updates and applies, its sets are looked at together: Kubernetes keeps them apart, the library does not.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::super::{
    Operation, Reset, Schemas, Writer,
    compare::compare,
    field_set::{to_field_set, validate},
    managed::{Id, ManagedFields},
    merge::merge,
    remove::remove_items,
    set::Set,
    updater::{Failure, Updater},
};
use crate::schema::{ListKind, ListType, MapType, MergeKey, RootType, Type, TypeId, Types};

struct Schema<'v> {
    by_name: BTreeMap<&'v str, &'v Value>,
    known: BTreeMap<&'v str, TypeId>,
    types: Types,
    /// What stands for values of unknown type that are owned as a whole.
    whole: Type,
}

/// The types of a schema of structured-merge-diff.
fn root_type(types: &Value, root: &str, whole: Type) -> RootType {
    let by_name = types.as_array().unwrap().iter().map(|t| (t["name"].as_str().unwrap(), t)).collect();
    let mut schema = Schema { by_name, known: BTreeMap::new(), types: Types::new(), whole };
    let root = schema.named(root);
    RootType { types: schema.types.into(), root }
}

impl<'v> Schema<'v> {
    fn named(&mut self, name: &'v str) -> TypeId {
        if let Some(id) = self.known.get(name) {
            return *id;
        }
        let id = self.types.add(Type::Any);
        self.known.insert(name, id);
        if name == "__untyped_atomic_" {
            self.types.set(id, self.whole.clone());
        } else if name != "__untyped_deduced_" {
            let atom = *self.by_name.get(name).unwrap_or_else(|| panic!("no type {name}"));
            let made = self.atom(atom);
            self.types.set(id, made);
        }
        id
    }

    fn reference(&mut self, used: &'v Value) -> TypeId {
        let Some(name) = used["namedType"].as_str() else {
            let made = self.atom(used);
            return self.types.add(made);
        };
        let id = self.named(name);
        match (used["elementRelationship"].as_str(), self.types.get(id).clone()) {
            (Some(how), Type::Map(map)) => self.types.add(Type::Map(MapType { atomic: how == "atomic", ..map })),
            _ => id,
        }
    }

    fn atom(&mut self, atom: &'v Value) -> Type {
        if atom["map"].is_object() && atom["list"].is_object() {
            return Type::Any;
        }
        if atom["map"].is_object() { self.map(&atom["map"]) } else { self.list_or_scalar(atom) }
    }

    fn map(&mut self, map: &'v Value) -> Type {
        let fields = map["fields"].as_array().into_iter().flatten();
        let fields = fields.map(|f| (f["name"].as_str().unwrap().into(), self.reference(&f["type"]))).collect();
        let rest = map.get("elementType").map(|t| self.reference(t));
        Type::Map(MapType { fields, rest, atomic: map["elementRelationship"] == "atomic" })
    }

    fn list_or_scalar(&mut self, atom: &'v Value) -> Type {
        let Some(list) = atom.get("list") else { return Type::Scalar };
        let items = self.reference(&list["elementType"]);
        let kind = match (list["elementRelationship"].as_str(), list["keys"].as_array()) {
            (Some("associative"), Some(keys)) => {
                let element = &list["elementType"];
                let element = element["namedType"].as_str().map_or(element, |n| self.by_name[n]);
                let key = |k: &Value| {
                    let name = k.as_str().unwrap();
                    let fields = element["map"]["fields"].as_array().unwrap();
                    let default = fields.iter().find(|f| f["name"] == name).and_then(|f| f.get("default")).cloned();
                    MergeKey { name: name.into(), default }
                };
                ListKind::Map(keys.iter().map(key).collect())
            }
            (Some("associative"), None) => ListKind::Set,
            _ => ListKind::Atomic,
        };
        Type::List(ListType { items, kind })
    }
}

fn cases() -> Value {
    serde_json::from_str(include_str!("smd.json")).unwrap()
}

fn set(fields: &Value) -> Set {
    Set::from_fields(fields).unwrap()
}

/// What the state of a case is after its operations.
struct State {
    types: RootType,
    live: Option<Value>,
    managed: ManagedFields,
}

impl State {
    fn run(&mut self, op: &Value, what: &str) {
        let (manager, version) = (op["manager"].as_str().unwrap(), op["version"].as_str().unwrap());
        let time = jiff::Timestamp::UNIX_EPOCH;
        let writer = Writer { manager, subresource: "", api_version: version, time };
        let updater = Updater::new(Schemas::from(&self.types), &writer, &Reset(&[]));
        let (object, managed) = (&op["object"], self.managed.clone());
        if op["op"] == "Update" {
            let id = Id::of(&writer, Operation::Update);
            self.managed = updater.update(self.live.as_ref(), object, managed, id);
            self.live = Some(object.clone());
            return;
        }
        if let Err(why) = validate(&self.types, object) {
            assert!(what.contains("Errors/"), "{what}: {why}");
            return;
        }
        assert!(!what.contains("Errors/"), "{what}");
        match updater.apply(self.live.as_ref(), object, managed, op["op"] == "ForceApply") {
            Ok((live, managed)) => {
                assert_eq!(op.get("conflicts"), None, "{what}: no conflict");
                (self.live, self.managed) = (Some(live), managed);
            }
            Err(Failure::Other(error)) => panic!("{what}: {error}"),
            Err(Failure::Conflicts(found)) => {
                let found: BTreeSet<String> = found
                    .iter()
                    .map(|c| {
                        let path: Vec<String> = c.path.iter().map(super::super::fields::write).collect();
                        json!([c.manager.manager, path]).to_string()
                    })
                    .collect();
                let wanted = op["conflicts"].as_array().unwrap_or_else(|| panic!("{what}: {found:?}"));
                assert_eq!(found, wanted.iter().map(ToString::to_string).collect(), "{what}");
            }
        }
    }

    /// The fields of each manager, of all versions and operations.
    fn owned(&self) -> BTreeMap<String, Set> {
        let mut out: BTreeMap<String, Set> = BTreeMap::new();
        for entry in &self.managed.entries {
            let set = out.entry(entry.id.manager.clone()).or_default();
            *set = std::mem::take(set).union(entry.fields.clone().into_set());
        }
        out
    }
}

fn without_empty(value: &Value) -> Value {
    let is_filled = |v: &Value| match v {
        Value::Null => false,
        Value::Object(fields) => !fields.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => true,
    };
    match value {
        Value::Object(fields) => {
            let kept = fields.iter().map(|(k, v)| (k.clone(), without_empty(v)));
            kept.filter(|(_, v)| is_filled(v)).collect()
        }
        Value::Array(items) => items.iter().map(without_empty).collect(),
        other => other.clone(),
    }
}

#[test]
fn who_owns_what_after_updates_and_applies() {
    let all = cases();
    let types = |name: &Value| match all["types"].get(name.as_str().unwrap()) {
        Some(types) => root_type(&types[1], types[0].as_str().unwrap(), Type::Scalar),
        None => RootType::any(),
    };
    for case in all["merge"].as_array().unwrap() {
        let what = case["name"].as_str().unwrap();
        let mut state = State { types: types(&case["types"]), live: None, managed: ManagedFields::default() };
        for op in case["ops"].as_array().unwrap() {
            if op["op"] == "ChangeParser" {
                state.types = types(&op["types"]);
            } else {
                state.run(op, what);
            }
        }
        if let Some(expected) = case.get("object") {
            // What is emptied goes or is empty, where the library leaves a null.
            let (live, expected) = (without_empty(&state.live.clone().unwrap_or_default()), without_empty(expected));
            assert!(compare(&state.types, Some(&expected), &live).is_same(), "{what}: {live} and not {expected}");
        }
        if let Some(Value::Object(expected)) = case.get("managed") {
            let expected: BTreeMap<String, Set> = expected.iter().map(|(k, v)| (k.clone(), set(&v[0]))).collect();
            let text = |m: BTreeMap<String, Set>| -> Vec<String> {
                m.iter().map(|(k, v)| format!("{k} {}", v.to_fields())).collect()
            };
            assert_eq!(text(state.owned()), text(expected), "{what}");
        }
    }
}

#[test]
fn the_typed_operations() {
    for case in cases()["typed"].as_array().unwrap() {
        let whole = if case["kind"] == "validate" { Type::Any } else { Type::Scalar };
        let types = root_type(&case["types"], case["root"].as_str().unwrap(), whole);
        for (i, row) in case["rows"].as_array().unwrap().iter().enumerate() {
            let kind = case["kind"].as_str().unwrap();
            let what = format!("{kind} {} {i}: {row}", case["name"]);
            match kind {
                "merge" => assert_eq!(merge(&types, &row[0], &row[1]).as_ref(), Ok(&row[2]), "{what}"),
                "fields" => assert_eq!(to_field_set(&types, &row[0]).to_fields(), set(&row[1]).to_fields(), "{what}"),
                "remove" => assert_eq!(remove_items(&types, &row[0], &set(&row[1])), row[2], "{what}"),
                "compare" => {
                    let found = compare(&types, Some(&row[0]), &row[1]);
                    let shown = [found.removed, found.modified, found.added].map(|s| s.to_fields());
                    assert_eq!(shown, [2, 3, 4].map(|n| set(&row[n]).to_fields()), "{what}");
                }
                "validate" => assert_eq!(validate(&types, &row[1]).is_ok(), row[0] == "valid", "{what}"),
                other => panic!("{other}"),
            }
        }
    }
}
