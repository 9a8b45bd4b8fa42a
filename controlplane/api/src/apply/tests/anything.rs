//! What holds for any object of any kind.

use std::sync::LazyLock;

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Service};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{
    super::{
        ManagedFields, Operation, Reset, Schemas, apply,
        compare::compare,
        element::PathElement,
        field_set::{to_field_set, validate},
        managed::Id,
        merge::merge,
        remove::remove_items,
        set::Set,
        update,
        updater::Updater,
    },
    kinds::{shown, types, writer},
};
use crate::schema::RootType;

static KINDS: LazyLock<Vec<RootType>> =
    LazyLock::new(|| vec![types::<Deployment>(), types::<Service>(), RootType::any()]);

fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (0..3_i64).prop_map(Value::from),
        "[ab]{0,1}".prop_map(Value::from)
    ];
    let key = prop::sample::select(vec![
        "a",
        "spec",
        "metadata",
        "labels",
        "finalizers",
        "template",
        "containers",
        "name",
        "ports",
        "port",
        "selector",
        "status",
        "conditions",
        "type",
    ]);
    leaf.prop_recursive(6, 48, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(key.clone().prop_map(str::to_owned), inner, 0..4)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

/// A Service as one may apply it.
fn service() -> impl Strategy<Value = Value> {
    let map = |max: usize| prop::collection::btree_map("[abc]", "[xy]", 0..max);
    let port = (1..4_u16, prop::option::of("[xy]"), any::<bool>()).prop_map(|(port, name, udp)| {
        let mut fields = Map::from_iter([("port".to_owned(), json!(port))]);
        fields.extend(name.map(|n| ("name".to_owned(), json!(n))));
        fields.extend(udp.then(|| ("protocol".to_owned(), json!("UDP"))));
        Value::Object(fields)
    });
    let ports = prop::collection::vec(port, 0..4).prop_map(|ports| {
        let mut seen = std::collections::BTreeSet::new();
        let key = |p: &Value| (p["port"].as_u64(), p.get("protocol").is_some());
        ports.into_iter().filter(|p| seen.insert(key(p))).collect::<Vec<_>>()
    });
    let finalizers = prop::collection::btree_set("[fgh]", 0..3);
    (map(3), prop::option::of(map(2)), ports, finalizers).prop_map(|(labels, selector, ports, finalizers)| {
        let mut object = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "s", "labels": labels},
            "spec": {"selector": selector.unwrap_or_default()},
        });
        // Nobody owns an empty list.
        if !ports.is_empty() {
            object["spec"]["ports"] = ports.into();
        }
        if !finalizers.is_empty() {
            object["metadata"]["finalizers"] = json!(finalizers);
        }
        object
    })
}

fn set() -> impl Strategy<Value = Set> {
    let element = prop_oneof![
        "[a-c.:<\"]{0,2}".prop_map(|s| PathElement::field(&s)),
        (0..3_i64).prop_map(PathElement::Index),
        prop_oneof![Just(json!(1)), Just(json!("x")), Just(json!(true)), Just(json!(null))]
            .prop_map(PathElement::Value),
        prop::collection::btree_map("[ab]", 0..3_i64, 1..3)
            .prop_map(|m| { PathElement::Key(m.into_iter().map(|(k, v)| (k.into(), json!(v))).collect()) }),
    ];
    prop::collection::vec(prop::collection::vec(element, 1..4), 0..8).prop_map(|paths| {
        let mut set = Set::new();
        for path in paths {
            set.insert(&path);
        }
        set
    })
}

const STATUS: Reset<'static> = Reset(&["status"]);

proptest! {
    #[test]
    fn sets_survive_their_json(set in set()) {
        let json = set.to_fields();
        let read = Set::from_fields(&mut serde_json::Deserializer::from_str(&json)).unwrap();
        prop_assert_eq!(read.to_fields(), json);
        prop_assert_eq!(read, set);
    }

    #[test]
    fn the_algebra_of_sets(a in set(), b in set()) {
        let both = a.intersection(&b);
        prop_assert_eq!(&a.clone().difference(&b).union(both.clone()), &a);
        prop_assert_eq!(b.intersection(&a), both);
        prop_assert_eq!(a.clone().union(b.clone()), b.clone().union(a.clone()));
        prop_assert!(a.clone().difference(&a).is_empty());
        for path in a.clone().union(b.clone()).paths() {
            prop_assert!(a.has(&path) || b.has(&path));
        }
    }

    #[test]
    fn nothing_panics(a in anything(), b in anything(), paths in set()) {
        for types in &*KINDS {
            let _ = (validate(types, &a), merge(types, &a, &b), to_field_set(types, &a), remove_items(types, &a, &paths));
            let me = writer("me", "v1", 1);
            let updater = Updater::new(Schemas::from(types), &me, &STATUS);
            let owned = update(types, Some(&a), &b, ManagedFields::default(), &me, &STATUS).unwrap();
            let _ = updater.apply(Some(&b), &a, owned.clone(), true);
            let _ = updater.update(Some(&b), &a, owned, Id::of(&me, Operation::Update));
        }
    }

    #[test]
    fn what_is_the_same_does_not_differ(a in anything(), b in anything()) {
        for types in &*KINDS {
            prop_assert!(compare(types, Some(&a), &a).is_same());
            let there = compare(types, Some(&a), &b);
            let back = compare(types, Some(&b), &a);
            prop_assert_eq!(there.added, back.removed);
            prop_assert_eq!(there.modified, back.modified);
        }
    }

    #[test]
    fn applying_twice_is_applying_once(live in service(), config in service()) {
        let types = &KINDS[1];
        let owned = update(types, None, &live, ManagedFields::default(), &writer("a", "v1", 1), &STATUS).unwrap();
        let (once, first) = apply(types, Some(&live), &config, owned, &writer("me", "v1", 2), &STATUS, true).unwrap();
        let (twice, second) =
            apply(types, Some(&once), &config, first.clone(), &writer("me", "v1", 3), &STATUS, false).unwrap();
        prop_assert_eq!(once, twice);
        prop_assert_eq!(shown(&first), shown(&second));
    }

    #[test]
    fn applying_nothing_gives_back_what_was_not_owned(first in service(), second in service()) {
        let types = &KINDS[1];
        let nothing = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}});
        let (alone, owned) =
            apply(types, None, &first, ManagedFields::default(), &writer("one", "v1", 1), &STATUS, false).unwrap();
        let (both, owned) =
            apply(types, Some(&alone), &second, owned, &writer("two", "v1", 2), &STATUS, true).unwrap();
        let (left, owned) = apply(types, Some(&both), &nothing, owned, &writer("one", "v1", 3), &STATUS, false).unwrap();
        prop_assert!(compare(types, Some(&second), &left).without(&to_field_set(types, &nothing)).is_same(), "{} {}", left, second);
        let (left, owned) = apply(types, Some(&left), &nothing, owned, &writer("two", "v1", 4), &STATUS, false).unwrap();
        prop_assert_eq!(left, nothing);
        prop_assert!(owned.is_empty());
    }
}
