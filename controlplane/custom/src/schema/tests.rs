//! Schemas and what they make of values.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;
use podium_api::{FieldErrors, FieldPath};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn props(yaml: &str) -> JSONSchemaProps {
    serde_yaml::from_str(yaml).unwrap()
}

fn schema(yaml: &str) -> Schema {
    Schema::new(&props(yaml))
}

fn value(yaml: &str) -> Value {
    serde_yaml::from_str(yaml).unwrap()
}

fn shown(errs: &FieldErrors) -> Vec<String> {
    errs.0.iter().map(ToString::to_string).collect()
}

#[track_caller]
fn check(of: &str, given: &str, expected: &[&str]) {
    let schema = schema(of);
    let mut errs = FieldErrors::new();
    let given = value(given);
    schema.check(&given, None, &mut errs);
    schema.check_lists(&FieldPath::default(), &given, &mut errs);
    schema.check_rules(&given, None, &mut errs);
    assert_eq!(shown(&errs), expected, "{of}: {given}");
}

#[test]
fn unknown_fields_are_pruned_and_named() {
    for (of, given, kept, paths) in [
        ("{type: object, properties: {a: {type: string}}}", "{a: x, b: y, kind: K}", "{a: x, kind: K}", vec!["b"]),
        (
            "{type: object, properties: {a: {type: array, items: {type: object, properties: {b: {type: string}}}}}}",
            "{a: [{b: x, c: y}, {d: z}]}",
            "{a: [{b: x}, {}]}",
            vec!["a[0].c", "a[1].d"],
        ),
        (
            "{type: object, properties: {m: {type: object, additionalProperties: {type: object, properties: {b: {type: string}}}}}}",
            "{m: {x: {b: x, c: y}}}",
            "{m: {x: {b: x}}}",
            vec!["m.x.c"],
        ),
        (
            "{type: object, properties: {p: {type: object, x-kubernetes-preserve-unknown-fields: true,
              properties: {a: {type: object, properties: {b: {type: string}}}}}}}",
            "{p: {free: {x: 1}, a: {b: x, c: y}}}",
            "{p: {free: {x: 1}, a: {b: x}}}",
            vec!["p.a.c"],
        ),
        (
            "{type: object, x-kubernetes-preserve-unknown-fields: true, properties: {a: {type: object}}}",
            "{a: {x: 1}, b: 1}",
            "{a: {}, b: 1}",
            vec!["a.x"],
        ),
        (
            "{type: object, properties: {e: {type: object, x-kubernetes-embedded-resource: true,
              properties: {spec: {type: object}}}}}",
            "{e: {apiVersion: v1, kind: K, metadata: {name: n, what: 1}, spec: {x: 1}, y: 2}}",
            "{e: {apiVersion: v1, kind: K, metadata: {name: n}, spec: {}}}",
            vec!["e.metadata.what", "e.spec.x", "e.y"],
        ),
    ] {
        let mut given = value(given);
        let found = schema(of).prune(&mut given, true);
        assert_eq!((&given, &found), (&value(kept), &paths.into_iter().map(str::to_owned).collect()), "{of}");
    }
}

#[test]
fn defaults_fill_what_is_missing() {
    let of = schema(
        "{type: object, properties: {a: {type: string, default: x}, n: {type: string, nullable: true, default: y},
          o: {type: object, default: {}, properties: {b: {type: integer, default: 1}}},
          l: {type: array, items: {type: object, properties: {c: {type: integer, default: 2}}}},
          m: {type: object, additionalProperties: {type: object, properties: {d: {type: integer, default: 3}}}}}}",
    );
    for (given, expected) in [
        ("{}", "{a: x, n: y, o: {b: 1}}"),
        ("{a: null, n: null}", "{a: x, n: null, o: {b: 1}}"),
        (
            "{a: z, o: {b: 5}, l: [{}, {c: 9}], m: {k: {}}}",
            "{a: z, n: y, o: {b: 5}, l: [{c: 2}, {c: 9}], m: {k: {d: 3}}}",
        ),
    ] {
        let mut filled = value(given);
        of.drop_nulls(&mut filled);
        of.fill_defaults(&mut filled);
        assert_eq!(filled, value(expected), "{given}");
        let once = filled.clone();
        of.fill_defaults(&mut filled);
        assert_eq!(filled, once);
    }
}

#[test]
fn values_are_checked_in_kubernetes_words() {
    check("{type: object, required: [a]}", "{}", &["a: Required value"]);
    check(
        "{type: object, properties: {a: {type: integer}}}",
        "{a: x}",
        &["a: Invalid value: \"string\": a in body must be of type integer: \"string\""],
    );
    check(
        "{type: object, properties: {a: {type: string, maxLength: 1, pattern: '^b'}}}",
        "{a: xx}",
        &["a: Too long: may not be more than 1 bytes", "a: Invalid value: \"xx\": a in body should match '^b'"],
    );
    check(
        "{type: object, properties: {a: {type: string, format: ipv4}, b: {type: string, minLength: 2}}}",
        "{a: x, b: y}",
        &[
            "a: Invalid value: \"x\": a in body must be of type ipv4: \"x\"",
            "b: Invalid value: \"y\": b in body should be at least 2 chars long",
        ],
    );
    check(
        "{type: object, properties: {a: {type: number, maximum: 5, exclusiveMaximum: true, multipleOf: 2}}}",
        "{a: 5}",
        &[
            "a: Invalid value: 5: a in body should be less than 5",
            "a: Invalid value: 5: a in body should be a multiple of 2",
        ],
    );
    check(
        "{type: object, properties: {a: {type: array, maxItems: 1, items: {type: string}}, b: {type: object,
          maxProperties: 1, additionalProperties: {type: integer}}}}",
        "{a: [x, y], b: {x: 1, y: 2}}",
        &["a: Too many: 2: must have at most 1 item", "b: Too many: 2: must have at most 1 item"],
    );
    check(
        "{type: object, properties: {a: {x-kubernetes-int-or-string: true}, b: {type: string, nullable: true}}}",
        "{a: true, b: null}",
        &["a: Invalid value: \"boolean\": a in body must be of type integer,string: \"boolean\""],
    );
    check(
        "{type: object, properties: {a: {type: integer, oneOf: [{maximum: 1}, {minimum: 0}]}}}",
        "{a: 1}",
        &[
            "<nil>: Invalid value: \"\": \"a\" must validate one and only one schema (oneOf). Found 2 valid alternatives",
        ],
    );
    check(
        "{type: object, properties: {a: {type: integer, anyOf: [{maximum: 1}], not: {minimum: 5}}}}",
        "{a: 7}",
        &[
            "<nil>: Invalid value: \"\": \"a\" must validate at least one schema (anyOf)",
            "a: Invalid value: 7: a in body should be less than or equal to 1",
            "<nil>: Invalid value: \"\": \"a\" must not validate the schema (not)",
        ],
    );
    check(
        "{type: object, properties: {a: {type: array, x-kubernetes-list-type: set, items: {type: string}}}}",
        "{a: [x, y, x]}",
        &["a[2]: Duplicate value: \"x\""],
    );
}

#[test]
fn rules_see_typed_values() {
    let of = "{type: object, properties: {
        t: {type: string, format: date-time}, d: {type: string, format: duration}, b: {type: string, format: byte},
        i: {x-kubernetes-int-or-string: true}, n: {type: number}, a-b: {type: integer}, namespace: {type: string},
        l: {type: array, items: {type: string}}, m: {type: object, additionalProperties: {type: string}}},
        x-kubernetes-validations: [
          {rule: 'self.t.getFullYear() == 2020 && self.d > duration(\"1m\") && self.b == b\"hi\"', message: types},
          {rule: 'type(self.i) == int ? self.i < 5 : self.i == \"50%\"', message: int or string},
          {rule: 'self.n == 1.0 && self.a__dash__b == 2 && self.__namespace__ == \"x\"', message: names},
          {rule: 'self.l.all(x, x.startsWith(\"a\")) && self.m[\"k.k\"] == \"v\" && !has(self.m.z)', message: lists},
          {rule: 'self.l.size() > 5', messageExpression: '\"only \" + string(self.l.size())'},
          {rule: 'self.n > 5.0', reason: FieldValueForbidden, fieldPath: .n}]}";
    check(
        of,
        "{t: '2020-01-01T00:00:00Z', d: 1h, b: aGk=, i: 50%, n: 1, a-b: 2, namespace: x, l: [ab, ac], m: {k.k: v}}",
        &["<nil>: Invalid value: only 2", "n: Forbidden: failed rule: self.n > 5.0"],
    );
}

#[test]
fn transitions_are_for_changes() {
    let of = schema(
        "{type: object, properties: {l: {type: array, x-kubernetes-list-type: map, x-kubernetes-list-map-keys: [k],
          items: {type: object, properties: {k: {type: string}, v: {type: integer,
            x-kubernetes-validations: [{rule: self >= oldSelf, message: only up}]}}}},
          o: {type: integer, x-kubernetes-validations: [
            {rule: 'oldSelf.hasValue() ? self > oldSelf.value() : self == 0', optionalOldSelf: true, message: first 0}]}}}",
    );
    for (old, new, expected) in [
        (None, "{l: [{k: a, v: 1}], o: 0}", vec![]),
        (None, "{o: 1}", vec!["o: Invalid value: 1: first 0"]),
        (Some("{l: [{k: a, v: 1}, {k: b, v: 5}]}"), "{l: [{k: b, v: 5}, {k: a, v: 2}, {k: c, v: 0}]}", vec![]),
        (Some("{l: [{k: a, v: 3}]}"), "{l: [{k: x, v: 0}, {k: a, v: 2}]}", vec!["l[1].v: Invalid value: 2: only up"]),
        (Some("{o: 3}"), "{o: 2}", vec!["o: Invalid value: 2: first 0"]),
    ] {
        let mut errs = FieldErrors::new();
        of.check_rules(&value(new), old.map(value).as_ref(), &mut errs);
        assert_eq!(shown(&errs), expected, "{old:?} -> {new}");
    }
}

#[test]
fn what_was_wrong_may_stay_as_it_is() {
    let of = schema("{type: object, properties: {a: {type: string, enum: [x]}, b: {type: string}}}");
    let (old, new) = (value("{a: wrong, b: '1'}"), value("{a: wrong, b: '2'}"));
    let mut errs = FieldErrors::new();
    of.check(&new, Some(&old), &mut errs);
    assert_eq!(shown(&errs), Vec::<String>::new());
    of.check(&value("{a: other}"), Some(&old), &mut errs);
    assert_eq!(shown(&errs), ["a: Unsupported value: \"other\": supported values: \"x\""]);
}

#[test]
fn rules_share_a_budget() {
    let of = schema(
        "{type: object, properties: {l: {type: array, items: {type: integer}}},
          x-kubernetes-validations: [{rule: 'self.l.all(a, self.l.all(b, a + b >= 0))', message: slow}]}",
    );
    let mut errs = FieldErrors::new();
    let list: Vec<u32> = (0..5000).collect();
    of.check_rules(&json!({"l": list}), None, &mut errs);
    let text = shown(&errs).concat();
    assert!(text.contains("no further validation rules will be run due to call cost exceeds limit"), "{text}");
}

#[test]
fn what_is_not_structural_is_named() {
    let root = FieldPath::new("s");
    for (of, expected) in [
        ("{type: object}", vec![]),
        ("{}", vec!["s.type: Required value: must not be empty at the root"]),
        ("{type: string}", vec!["s.type: Invalid value: \"string\": must be object at the root"]),
        (
            "{type: object, properties: {a: {type: array}, b: {}}}",
            vec![
                "s.properties[a].items: Required value: must be specified",
                "s.properties[b].type: Required value: must not be empty for specified object fields",
            ],
        ),
        (
            "{type: object, anyOf: [{properties: {a: {type: string}}}]}",
            vec![
                "s.anyOf[0].properties[a].type: Forbidden: must be empty to be structural",
                "s.properties[a]: Required value: because it is defined in s.anyOf[0].properties[a]",
            ],
        ),
        (
            "{type: object, properties: {i: {x-kubernetes-int-or-string: true, anyOf: [{type: integer}, {type: string}]}}}",
            vec![],
        ),
        (
            "{type: object, properties: {metadata: {type: object, properties: {labels: {type: object}}}}}",
            vec![
                "s.properties[metadata]: Forbidden: must not specify anything other than name and generateName, but \
                 metadata is implicitly specified",
            ],
        ),
        (
            "{type: object, additionalProperties: {type: string}}",
            vec!["s.additionalProperties: Forbidden: must not be used at the root"],
        ),
    ] {
        assert_eq!(shown(&structural_errors(&root, &props(of))), expected, "{of}");
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-c]{0,3}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-c]", inner, 0..4).prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn nothing_panics_and_pruning_is_idempotent(mut given in any_json(), old in any_json()) {
        let of = schema(
            "{type: object, properties: {a: {type: array, x-kubernetes-list-type: map, x-kubernetes-list-map-keys: [a],
              items: {type: object, properties: {a: {type: string, default: x}, b: {x-kubernetes-int-or-string: true}}}},
              b: {type: object, additionalProperties: {type: string}, x-kubernetes-validations: [{rule: 'self.all(k, self[k] != k)'}]},
              c: {type: object, x-kubernetes-preserve-unknown-fields: true}}}",
        );
        of.prune(&mut given, true);
        of.drop_nulls(&mut given);
        of.fill_defaults(&mut given);
        let mut errs = FieldErrors::new();
        of.check(&given, Some(&old), &mut errs);
        of.check_lists(&FieldPath::default(), &given, &mut errs);
        of.check_rules(&given, Some(&old), &mut errs);
        let once = given.clone();
        prop_assert_eq!(of.prune(&mut given, true), Vec::<String>::new());
        prop_assert_eq!(given, once);
    }
}
