//! From the schemas of the types to those of OpenAPI documents: merge keys, kinds, lists, and references that nothing
//! stands beside.

use serde_json::{Map, Value, json};

use crate::{kind::Names, object::KindRef, patch::meta, schema::REF_PREFIX};

const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";

/// Completes the schemas of these kinds.
pub(super) fn finish(schemas: &mut Map<String, Value>, kinds: &[&KindRef]) {
    for (name, schema) in schemas.iter_mut() {
        add_merge_keys(name, schema);
        wrap_references(schema);
        spell_out_alternatives(name, schema);
    }
    for kind in kinds {
        let (names, name) = (kind.names(), kind.schema_name());
        if let Some(Value::Object(schema)) = schemas.get_mut(&name) {
            drop_required_metadata(schema);
            schema.insert("x-kubernetes-group-version-kind".to_owned(), json!([gvk(&names, names.kind)]));
        }
        schemas.insert(format!("{name}List"), list(&names, &name));
    }
    schemas.insert(LIST_META.to_owned(), list_meta());
}

/// The types ask for metadata, Kubernetes does not: the server names what is missing in it.
fn drop_required_metadata(schema: &mut Map<String, Value>) {
    let Some(Value::Array(required)) = schema.get_mut("required") else { return };
    required.retain(|field| field != "metadata");
    if required.is_empty() {
        schema.remove("required");
    }
}

pub(super) fn gvk(names: &Names, kind: &str) -> Value {
    json!({ "group": names.group, "version": names.version, "kind": kind })
}

pub(super) fn reference(name: &str) -> Value {
    json!({ "$ref": format!("{REF_PREFIX}{name}") })
}

fn add_merge_keys(name: &str, schema: &mut Value) {
    let Some(Value::Object(properties)) = schema.get_mut("properties") else { return };
    for (field, property) in properties {
        let (Some(rule), Value::Object(property)) = (meta::rule(name, field), property) else { continue };
        if let Some(strategy) = rule.strategy() {
            property.insert("x-kubernetes-patch-strategy".to_owned(), strategy.into());
        }
        if let Some(key) = rule.key {
            property.insert("x-kubernetes-patch-merge-key".to_owned(), key.into());
        }
    }
}

/// `{$ref, description}` becomes `{allOf: [{$ref}], description}`: OpenAPI 3.0 ignores what stands beside `$ref`.
fn wrap_references(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.values_mut().for_each(wrap_references);
            if fields.len() > 1
                && fields.get("$ref").is_some_and(Value::is_string)
                && let Some(target) = fields.remove("$ref")
            {
                fields.insert("allOf".to_owned(), json!([{ "$ref": target }]));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(wrap_references),
        _ => {}
    }
}

fn spell_out_alternatives(name: &str, schema: &mut Value) {
    let alternatives = match name.rsplit('.').next() {
        Some("IntOrString") => {
            schema["format"] = "int-or-string".into();
            json!([{ "type": "integer" }, { "type": "string" }])
        }
        Some("Quantity") => json!([{ "type": "string" }, { "type": "number" }]),
        _ => return,
    };
    if let Value::Object(fields) = schema {
        fields.remove("x-kubernetes-int-or-string");
        fields.insert("oneOf".to_owned(), alternatives);
    }
}

fn list(names: &Names, item: &str) -> Value {
    let kind = format!("{}List", names.kind);
    json!({
        "description": format!("{kind} is a collection of {}.", names.kind),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": { "description": "The version of this representation of an object.", "type": "string" },
            "items": { "description": format!("The {} objects.", names.kind), "type": "array", "items": reference(item) },
            "kind": { "description": "The kind of this list.", "type": "string" },
            "metadata": { "description": "Standard list metadata.", "allOf": [reference(LIST_META)] },
        },
        "x-kubernetes-group-version-kind": [gvk(names, &kind)],
    })
}

fn list_meta() -> Value {
    json!({
        "description": "ListMeta describes metadata that synthetic resources must have, including lists and various status objects.",
        "type": "object",
        "properties": {
            "continue": { "description": "Set when there is more to list: pass it to the next request.", "type": "string" },
            "remainingItemCount": { "description": "How many items are left to list, if known.", "type": "integer", "format": "int64" },
            "resourceVersion": { "description": "The version of the cluster's state that the list shows.", "type": "string" },
            "selfLink": { "description": "Deprecated: no longer set.", "type": "string" },
        },
    })
}
