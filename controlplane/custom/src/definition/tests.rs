//! Definitions and what is wrong with them.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use podium_api::FieldErrors;
use serde_json::{Value, json};

use super::*;

const SCHEMA: &str = "/spec/versions/0/schema/openAPIV3Schema";

fn definition() -> Value {
    json!({
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced", "conversion": {"strategy": "None"},
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                "type": "object", "properties": {
                    "spec": {"type": "object", "properties": {"a": {"type": "string"}}},
                    "status": {"type": "object"},
                },
            }}}],
        },
        "status": {"storedVersions": ["v1"]},
    })
}

fn read(value: &Value) -> CustomResourceDefinition {
    serde_json::from_value(value.clone()).unwrap()
}

fn wrong(value: &Value, old: Option<&Value>) -> Vec<String> {
    let mut errs = FieldErrors::new();
    validate_definition(&read(value), old.map(read).as_ref(), &mut errs);
    errs.0.iter().map(ToString::to_string).collect()
}

#[track_caller]
fn check(pointer: &str, value: Value, expected: &[&str]) {
    let mut changed = definition();
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    changed.pointer_mut(parent).unwrap()[field] = value;
    assert_eq!(wrong(&changed, None), expected, "{pointer}");
}

#[test]
fn names_and_versions() {
    assert_eq!(wrong(&definition(), None), Vec::<String>::new());
    check(
        "/spec/names/kind",
        json!("Wid get"),
        &[
            "spec.names.kind: Invalid value: \"Wid get\": may have mixed case, but should otherwise match: a DNS-1035 label \
         must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an \
         alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')",
        ],
    );
    check(
        "/spec/names/listKind",
        json!("Widget"),
        &["spec.names.listKind: Invalid value: \"Widget\": kind and listKind may not be the same"],
    );
    check(
        "/spec/scope",
        json!("Galaxy"),
        &["spec.scope: Unsupported value: \"Galaxy\": supported values: \"Cluster\", \"Namespaced\""],
    );
    check("/spec/versions/0/schema", json!(null), &["spec.versions[0].schema.openAPIV3Schema: Required value"]);
    check(
        "/spec/versions/0/deprecationWarning",
        json!("old"),
        &["spec.versions[0].deprecationWarning: Invalid value: \"old\": can only be set for deprecated versions"],
    );
    check(
        "/spec/conversion",
        json!({"strategy": "Webhook"}),
        &[
            "spec.conversion.webhookClientConfig: Required value: required when strategy is set to Webhook",
            "spec.conversion.conversionReviewVersions: Required value",
        ],
    );
    check(
        "/spec/preserveUnknownFields",
        json!(true),
        &[
            "spec.preserveUnknownFields: Invalid value: true: cannot set to true, set x-kubernetes-preserve-unknown-fields to \
         true in spec.versions[*].schema instead",
        ],
    );
}

#[test]
fn schemas() {
    let at = "spec.versions[0].schema.openAPIV3Schema";
    let below = |field: &str| format!("{SCHEMA}/properties/spec/{field}");
    check(
        &below("uniqueItems"),
        json!(true),
        &[&format!(
            "{at}.properties[spec].uniqueItems: Forbidden: uniqueItems cannot be set to true since the runtime complexity \
         becomes quadratic"
        )],
    );
    check(
        &below("additionalProperties"),
        json!({"type": "string"}),
        &[&format!(
            "{at}.properties[spec].additionalProperties: Forbidden: additionalProperties and properties are mutual exclusive"
        )],
    );
    check(
        &below("properties/a"),
        json!({"type": "array", "items": {"type": "object"}, "x-kubernetes-list-type": "map"}),
        &[&format!(
            "{at}.properties[spec].properties[a].x-kubernetes-list-map-keys: Required value: must not be empty if \
             x-kubernetes-list-type is map"
        )],
    );
    check(
        &below("properties/a/default"),
        json!(5),
        &[&format!(
            "{at}.properties[spec].properties[a].default: Invalid value: \"integer\":  in body must be of type string: \
         \"integer\""
        )],
    );
    check(
        &below("default"),
        json!({"x": 1}),
        &[&format!("{at}.properties[spec].default: Invalid value: {{\"x\":1}}: must not have unknown fields")],
    );
    check(
        &below("x-kubernetes-validations"),
        json!([{"rule": " "}]),
        &[&format!("{at}.properties[spec].x-kubernetes-validations[0].rule: Required value: rule is not specified")],
    );
}

#[test]
fn rules_cost() {
    let at = "spec.versions[0].schema.openAPIV3Schema.properties[spec]";
    let list = |limits: &str| {
        let mut list = json!({"type": "array", "items": {"type": "string"}, "x-kubernetes-validations": [
            {"rule": "self.all(a, self.exists_one(b, a == b))"},
        ]});
        if limits == "bounded" {
            list["maxItems"] = json!(20);
            list["items"]["maxLength"] = json!(20);
        }
        list
    };
    check(&format!("{SCHEMA}/properties/spec/properties/a"), list("bounded"), &[]);
    let mut costly = definition();
    costly.pointer_mut(&format!("{SCHEMA}/properties/spec/properties")).unwrap()["a"] = list("");
    let found = wrong(&costly, None);
    assert!(found[0].starts_with(&format!(
        "{at}.properties[a].x-kubernetes-validations[0].rule: Forbidden: estimated rule cost exceeds budget by factor of \
         more than 100x (try simplifying the rule, or adding maxItems, maxProperties, and maxLength"
    )));
    assert!(
        found[1].ends_with("contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema")
    );
    // Once accepted, a rule may cost what it costs; all together still not.
    assert!(wrong(&costly, Some(&costly)).iter().all(|e| !e.contains("estimated rule cost exceeds")));
    check(
        &format!("{SCHEMA}/properties/spec/properties/a"),
        json!({"type": "array", "maxItems": 5, "items": {"type": "integer", "x-kubernetes-validations": [{"rule": "self > oldSelf"}]}}),
        &[&format!(
            "{at}.properties[a].items.x-kubernetes-validations[0].rule: Invalid value: \"self > oldSelf\": oldSelf cannot be \
             used on the uncorrelatable portion of the schema within {at}.properties[a]"
        )],
    );
}

#[test]
fn what_must_not_change() {
    let mut old = definition();
    old["status"]["conditions"] = json!([{"type": "Established", "status": "True"}]);
    let mut new = old.clone();
    new["spec"]["scope"] = json!("Cluster");
    new["spec"]["names"]["kind"] = json!("Gadget");
    assert_eq!(
        wrong(&new, Some(&old)),
        [
            "spec.scope: Invalid value: \"Cluster\": field is immutable",
            "spec.names.kind: Invalid value: \"Gadget\": field is immutable",
        ]
    );
    let mut new = old.clone();
    new["spec"]["versions"][0]["name"] = json!("v2");
    new["status"]["storedVersions"] = json!(["v1", "v2"]);
    assert_eq!(
        wrong(&new, Some(&old)),
        [
            "status.storedVersions[0]: Invalid value: \"v1\": missing from spec.versions; v1 was previously a storage version, \
         and must remain in spec.versions until a storage migration ensures no data remains persisted in v1 and removes v1 \
         from status.storedVersions",
        ]
    );
}
