//! The contract of kinds: what holds for each of them, whatever is in the objects.

use std::collections::{BTreeMap, BTreeSet};

use expect_test::expect_file;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{all, answered};
use crate::{
    field::FieldErrors,
    kind::{Scope, Storage},
    object::{KindRef, Object, kind_of},
};

pub(crate) mod examples;
mod rules;
mod rules_access;
mod rules_admission;
mod rules_extension;
mod rules_sets;
mod rules_storage;
mod rules_workload;

/// When all tests take place.
fn now() -> Timestamp {
    "2026-01-02T03:04:05Z".parse().unwrap()
}

/// The kind and the object of a manifest; all its fields must be known.
pub(crate) fn read(manifest: &Value) -> (KindRef, Box<dyn Object>) {
    let text = |field: &str| manifest[field].as_str().unwrap_or_default().to_owned();
    let of = |k: &KindRef| k.names().kind == text("kind") && k.names().api_version() == text("apiVersion");
    let kind = every().into_iter().find(of).unwrap_or_else(|| panic!("no kind for {manifest}"));
    let decoded = kind.decode_value(manifest.clone()).unwrap();
    assert_eq!(decoded.unknown, Vec::<String>::new(), "{manifest}");
    (kind, decoded.object)
}

/// All kinds, those that are not stored and the request for tokens too.
pub(crate) fn every() -> Vec<KindRef> {
    let token = kind_of::<k8s_openapi::api::authentication::v1::TokenRequest>();
    all().into_iter().chain(answered()).chain([token]).collect()
}

/// What is wrong with a manifest that is to be created.
fn errors(manifest: &Value) -> Vec<String> {
    let (kind, mut object) = read(manifest);
    kind.fill_defaults(object.as_mut());
    kind.prepare_create(object.as_mut());
    let mut errs = FieldErrors::new();
    if kind.storage() == Storage::Stored {
        crate::meta::validate_meta(object.meta(), &kind.names(), kind.scope(), &mut errs);
    }
    kind.validate(object.as_ref(), &mut errs);
    kind.validate_create(object.as_ref(), &mut errs);
    errs.0.iter().map(ToString::to_string).collect()
}

/// What is wrong with a change from one manifest to another.
fn update_errors(old: &Value, new: &Value) -> Vec<String> {
    let (kind, mut old) = read(old);
    kind.fill_defaults(old.as_mut());
    kind.prepare_create(old.as_mut());
    let (_, mut new) = read(new);
    kind.fill_defaults(new.as_mut());
    kind.prepare_update(new.as_mut(), old.as_ref());
    let mut errs = FieldErrors::new();
    kind.validate(new.as_ref(), &mut errs);
    kind.validate_update(new.as_ref(), old.as_ref(), &mut errs);
    errs.0.iter().map(ToString::to_string).collect()
}

fn bare(kind: &KindRef) -> Value {
    let mut meta = json!({"name": "a"});
    if kind.scope() == Scope::Namespaced {
        meta["namespace"] = json!("default");
    }
    json!({"apiVersion": kind.names().api_version(), "kind": kind.names().kind, "metadata": meta})
}

/// The manifest of an object, with a name in its place when `rest` has none.
fn object(version: &str, kind: &str, rest: &str) -> Value {
    let of = |k: &KindRef| k.names().kind == kind && k.names().api_version() == version;
    let namespaced = every().iter().find(|k| of(k)).is_none_or(|k| k.scope() == Scope::Namespaced);
    let mut object = examples::yaml(rest);
    object["apiVersion"] = version.into();
    object["kind"] = kind.into();
    if object["metadata"].is_null() {
        object["metadata"] = if namespaced { json!({"name": "a", "namespace": "n"}) } else { json!({"name": "a"}) };
    }
    object
}

#[test]
fn names_are_unique() {
    let (mut resources, mut kinds, mut words) = (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
    for kind in every() {
        let names = kind.names();
        assert!(resources.insert((names.group, names.version, names.plural)), "{names:?}");
        assert!(kinds.insert((names.group, names.version, names.kind)), "{names:?}");
        assert_eq!(names.singular, names.kind.to_lowercase());
        for word in names.short.iter().chain([&names.plural, &names.singular]) {
            // What several groups and versions serve has one name.
            assert_eq!(*words.entry(*word).or_insert(names.plural), names.plural, "{word}");
        }
    }
}

#[test]
fn discovery() {
    let line = |k: &KindRef| {
        let names = k.names();
        let subs: Vec<_> = k.subresources().iter().map(|s| s.name).collect();
        let columns: Vec<_> =
            k.columns().iter().map(|c| format!("{}{}", c.name, if c.priority > 0 { "*" } else { "" })).collect();
        format!(
            "{} {:?} {:?} {:?} subresources {subs:?}\n  columns {}\n  fields {}\n",
            names.qualified_resource(),
            k.scope(),
            names.short,
            names.categories,
            columns.join(", "),
            if k.selectable_fields().is_empty() { "none".to_owned() } else { k.selectable_fields().join(" ") },
        )
    };
    let got: String = every().iter().map(line).collect();
    expect_file!["discovery.txt"].assert_eq(&got);
}

/// Names, types and formats of all columns, and what is said of them.
#[test]
fn columns() {
    let mut got = String::new();
    for kind in every() {
        got += &format!("{} {}\n", kind.names().api_version(), kind.names().kind);
        for column in kind.columns() {
            assert_ne!(column.help, "", "{kind:?}: {}", column.name);
            let (word, rest) =
                column.help.split_at(column.help.len().min(100).min(column.help.find('\n').unwrap_or(100)));
            let more = if rest.is_empty() { "" } else { "…" };
            let wide = if column.priority > 0 { "*" } else { "" };
            let format = if column.format.is_empty() { String::new() } else { format!("/{}", column.format) };
            got += &format!("  {}{wide} {:?}{format}: {word}{more}\n", column.name, column.kind);
        }
    }
    expect_file!["columns.txt"].assert_eq(&got);
}

#[test]
fn objects_read_back_and_defaults_are_idempotent() {
    for manifest in every().iter().map(bare).chain(examples::all()) {
        let (kind, mut object) = read(&manifest);
        kind.fill_defaults(object.as_mut());
        let once = object.to_value().unwrap();
        kind.fill_defaults(object.as_mut());
        assert_eq!(once, object.to_value().unwrap(), "defaults are not idempotent");
        kind.prepare_create(object.as_mut());
        let stored = object.to_value().unwrap();
        kind.fill_defaults(object.as_mut());
        assert_eq!(stored, object.to_value().unwrap(), "defaults change what was prepared");
        let back = kind.decode(&object.to_json().unwrap()).unwrap();
        assert!(back.unknown.is_empty() && back.object.same_as(object.as_ref()), "{stored}");
    }
}

#[test]
fn an_update_without_change_is_right_and_changes_nothing() {
    for manifest in examples::all() {
        let (kind, mut old) = read(&manifest);
        kind.fill_defaults(old.as_mut());
        kind.prepare_create(old.as_mut());
        let mut new = old.boxed_clone();
        kind.fill_defaults(new.as_mut());
        kind.prepare_update(new.as_mut(), old.as_ref());
        assert!(new.same_as(old.as_ref()), "{manifest}");
        assert_ne!(kind.generation_differs(new.as_ref(), old.as_ref()), Some(true), "{manifest}");
        let mut errs = FieldErrors::new();
        kind.validate_update(new.as_ref(), old.as_ref(), &mut errs);
        kind.validate_status_update(new.as_ref(), old.as_ref(), &mut errs);
        assert!(errs.is_empty(), "{errs:?}");
    }
}

#[test]
fn examples_are_right_and_each_kind_has_one() {
    let mut seen = BTreeSet::new();
    for manifest in examples::all() {
        assert_eq!(errors(&manifest), Vec::<String>::new(), "{manifest}");
        seen.insert((
            manifest["apiVersion"].as_str().unwrap().to_owned(),
            manifest["kind"].as_str().unwrap().to_owned(),
        ));
    }
    assert_eq!(seen.len(), every().len());
}

#[test]
fn tables() {
    let mut got = String::new();
    for manifest in examples::all() {
        let (kind, mut object) = read(&manifest);
        kind.fill_defaults(object.as_mut());
        let cells = kind.row(object.as_ref(), now());
        let cells: Vec<_> = cells.iter().map(|c| c.as_str().map_or_else(|| c.to_string(), str::to_owned)).collect();
        got += &format!("{}: {}\n", kind.names().kind, cells.join(" | "));
    }
    expect_file!["tables.txt"].assert_eq(&got);
}

/// Calls everything that a kind does; nothing may panic.
fn exercise(kind: &KindRef, object: &dyn Object, old: &dyn Object) {
    assert_eq!(kind.row(object, now()).len(), kind.columns().len());
    for field in kind.selectable_fields() {
        assert!(kind.selectable(object, field).is_some());
    }
    let mut errs = FieldErrors::new();
    crate::meta::validate_meta(object.meta(), &kind.names(), kind.scope(), &mut errs);
    crate::meta::validate_meta_update(object.meta(), old.meta(), &mut errs);
    kind.validate(object, &mut errs);
    kind.validate_update(object, old, &mut errs);
    kind.validate_status_update(object, old, &mut errs);
    kind.generation_differs(object, old);
    kind.grace_seconds(object, None);
    kind.grace_seconds(object, Some(-1));
    kind.scale(object);
    let mut new = object.boxed_clone();
    kind.fill_defaults(new.as_mut());
    kind.prepare_create(new.as_mut());
    kind.validate(new.as_ref(), &mut errs);
    let mut new = object.boxed_clone();
    kind.prepare_update(new.as_mut(), old);
    kind.validate_update(new.as_ref(), old, &mut errs);
    let mut new = object.boxed_clone();
    kind.prepare_status_update(new.as_mut(), old);
    kind.set_scale(new.as_mut(), -1);
}

/// All values with one place changed to something odd.
fn odd(value: &Value) -> Vec<Value> {
    let mut all = vec![Value::Null, json!(""), json!(-1), json!(i64::MAX), json!("é\u{0}/.."), json!([]), json!({})];
    match value {
        Value::Object(map) => {
            for key in map.keys() {
                for changed in odd(&map[key]) {
                    let mut map = map.clone();
                    map.insert(key.clone(), changed);
                    all.push(Value::Object(map));
                }
            }
        }
        Value::Array(list) => {
            all.push(list.iter().chain(list).cloned().collect());
            for i in 0..list.len() {
                for changed in odd(&list[i]) {
                    let mut list = list.clone();
                    list[i] = changed;
                    all.push(Value::Array(list));
                }
            }
        }
        _ => {}
    }
    all
}

#[test]
fn nothing_panics_on_odd_objects() {
    let mut tried = 0;
    for manifest in every().iter().map(bare).chain(examples::all()) {
        let (kind, old) = read(&manifest);
        let empty = bare(&kind);
        for mut changed in odd(&manifest).into_iter().filter(Value::is_object) {
            changed["apiVersion"] = empty["apiVersion"].clone();
            changed["kind"] = empty["kind"].clone();
            // What has not the right types is refused by decoding, with words.
            let Ok(decoded) = kind.decode_value(changed) else { continue };
            exercise(&kind, decoded.object.as_ref(), old.as_ref());
            exercise(&kind, old.as_ref(), decoded.object.as_ref());
            tried += 1;
        }
    }
    assert!(tried > 500, "only {tried} objects could be read");
}
