//! Kubernetes' own cases of strategic merge patches, taken from apimachinery's `strategicpatch/patch_test.go` into
//! `cases.json` (The Kubernetes Authors, Apache-2.0).

use serde_json::{Map, Value};

use super::{FieldRule, PatchMeta, strategic, three_way};

const MERGE: FieldRule = FieldRule { merge: true, retain_keys: false, replace: false, key: None };
const BY_NAME: FieldRule = FieldRule { key: Some("name"), ..MERGE };
const NONE: FieldRule = FieldRule { merge: false, ..MERGE };

/// The types of the cases, `MergeItem` and `RetainKeysMergeItem`.
fn types() -> PatchMeta {
    let item = vec![
        ("mergingList", BY_NAME, Some(0)),
        ("nonMergingList", NONE, Some(0)),
        ("mergingIntList", MERGE, None),
        ("mergeItemPtr", BY_NAME, Some(0)),
        ("replacingItem", FieldRule { replace: true, ..NONE }, None),
        ("retainKeysMap", FieldRule { retain_keys: true, ..NONE }, Some(1)),
        ("retainKeysMergingList", FieldRule { retain_keys: true, ..BY_NAME }, Some(0)),
    ];
    let retained =
        vec![("mergingIntList", MERGE, None), ("mergingList", BY_NAME, Some(0)), ("nonMergingList", NONE, Some(0))];
    PatchMeta::made(vec![item, retained])
}

/// Lists that are merged, in a fixed order: most cases do not say which one they expect.
fn sorted(value: &Value) -> Value {
    let Value::Object(fields) = value else { return value.clone() };
    let sorted_field = |(name, value): (&String, &Value)| {
        let value = match value {
            Value::Array(items) if matches!(&**name, "mergingList" | "retainKeysMergingList" | "mergingIntList") => {
                let mut items: Vec<Value> = items.iter().map(sorted).collect();
                items.sort_by_key(|i| i.get("name").unwrap_or(i).to_string());
                items.into()
            }
            other => sorted(other),
        };
        (name.clone(), value)
    };
    Value::Object(fields.iter().map(sorted_field).collect::<Map<_, _>>())
}

#[test]
fn patches_do_what_they_do_in_kubernetes() {
    let (types, cases) = (types(), serde_json::from_str::<Value>(include_str!("cases.json")).unwrap());
    for case in cases.as_array().unwrap() {
        let normal = |v: &Value| if case["sort"] == true { sorted(v) } else { v.clone() };
        let check = |what: &str, current: &Value, patch: &Value, expected: &Value| {
            let name = format!("{} ({what}): {patch}", case["name"]);
            let current = if current.is_null() { Value::Object(Map::new()) } else { current.clone() };
            match (strategic::apply(&types, current, patch), case["error"].as_str()) {
                (Ok(found), None) => assert_eq!(normal(&found), normal(expected), "{name}"),
                (Err(error), Some(part)) => assert!(error.message.contains(part), "{name}: {error}"),
                (Ok(found), Some(_)) => panic!("{name}: {found}"),
                (Err(error), None) => panic!("{name}: {error}"),
            }
        };
        if let Some(patch) = case.get("twoWay") {
            let expected = case.get("twoWayResult").unwrap_or(&case["modified"]);
            check("two-way", &case["original"], patch, expected);
        }
        let Some((patch, result)) = case.get("threeWay").zip(case.get("result")) else { continue };
        check("three-way", &case["current"], patch, result);
        // Ours tells items with the same key not apart.
        let has_duplicates = case["name"].as_str().is_some_and(|n| n.contains("duplicate"));
        if case.get("error").is_none() && !has_duplicates {
            let made = three_way(Some(&types), &case["original"], &case["modified"], &case["current"]);
            check("made", &case["current"], &made, result);
        }
    }
}
