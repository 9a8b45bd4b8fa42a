//! OpenAPI v2: one document of everything, made of the parts of v3. Older clients read it, and whoever wants all at once.
//!
//! What v2 has no words for (alternatives, null) is left out, so that clients do not refuse what the server takes.
//!
//! # Source
//! Kubernetes `api/openapi-spec/swagger.json`; apiextensions-apiserver `pkg/controller/openapi/v2/conversion.go`;
//! kube-openapi `pkg/handler/handler.go`.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::{hash, info, is_builtin, parts, proto, schemas};
use crate::{object::KindRef, schema::REF_PREFIX};

/// The media type of [`Document::protobuf`].
pub const PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// Its older name, that clients still ask for. `@` may not stand in a media type, so no answer is called that.
pub const PROTOBUF_OLD: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// The document, in both of its forms.
#[derive(Debug)]
pub struct Document {
    /// As JSON.
    pub json: Bytes,
    /// As gnostic's `openapi.v2.Document`.
    pub protobuf: Bytes,
    /// Changes when the document does.
    pub hash: String,
}

impl Document {
    pub(super) fn new(kinds: &[KindRef]) -> Self {
        let document = document(kinds);
        let json = Bytes::from(document.to_string());
        let hash = hash(&json);
        Self { protobuf: proto::encode(&document).into(), json, hash }
    }
}

pub(super) fn document(kinds: &[KindRef]) -> Value {
    let mut definitions = schemas::of_kinds(kinds);
    definitions.extend(schemas::of_discovery());
    for (name, schema) in &mut definitions {
        match schema {
            Value::Object(fields) if is_builtin(name) => convert(fields, true),
            Value::Object(fields) => convert_custom(fields),
            _ => {}
        }
    }
    let mut parameters = Map::new();
    let mut paths = Map::new();
    for part in parts(kinds).values() {
        for (path, item) in part.paths() {
            paths.insert(path, path_item(item, &mut parameters));
        }
    }
    json!({
        "swagger": "2.0", "info": info(), "paths": paths, "definitions": definitions, "parameters": parameters,
    })
}

/// A custom resource: when its root takes anything, kubectl is told of no field at all, or it would refuse the others.
fn convert_custom(schema: &mut Map<String, Value>) {
    if schema.get(PRESERVE) == Some(&true.into()) {
        schema.retain(|key, _| key == "x-kubernetes-group-version-kind");
        schema.insert("type".to_owned(), "object".into());
        return;
    }
    convert(schema, false);
}

const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";

/// From v3 to v2. Kubernetes drops the defaults of its own types, and keeps those of custom resources.
pub(super) fn convert(schema: &mut Map<String, Value>, builtin: bool) {
    hoist_reference(schema);
    if let Some(Value::String(target)) = schema.get_mut("$ref")
        && let Some(name) = target.strip_prefix(REF_PREFIX)
    {
        *target = format!("#/definitions/{name}");
    }
    let alternatives = schema.remove("oneOf");
    if builtin {
        schema.remove("default");
        if alternatives.is_some() && !schema.contains_key("type") {
            schema.insert("type".to_owned(), "string".into());
        }
    }
    ["anyOf", "allOf", "not"].iter().for_each(|key| drop(schema.remove(*key)));
    open_up(schema);
    let nullable = |property: &Value| property.get("nullable") == Some(&true.into());
    if let Some(Value::Object(properties)) = schema.get("properties") {
        let gone: Vec<String> = properties.iter().filter(|(_, p)| nullable(p)).map(|(name, _)| name.clone()).collect();
        if !gone.is_empty() {
            drop_required(schema, &gone);
        }
    }
    for (key, value) in schema.iter_mut() {
        match (key.as_str(), value) {
            ("properties", Value::Object(properties)) => {
                properties.values_mut().filter_map(Value::as_object_mut).for_each(|p| convert(p, builtin));
            }
            ("items" | "additionalProperties", Value::Object(of)) => convert(of, builtin),
            _ => {}
        }
    }
}

/// `{allOf: [{$ref}], …}` is `{$ref, …}` again.
fn hoist_reference(schema: &mut Map<String, Value>) {
    let target = match schema.get("allOf").and_then(Value::as_array).map(Vec::as_slice) {
        Some([Value::Object(one)]) if one.len() == 1 => one.get("$ref").cloned(),
        _ => None,
    };
    if let Some(target) = target {
        schema.remove("allOf");
        schema.insert("$ref".to_owned(), target);
    }
}

/// kubectl cannot cope with types of what may be null or anything.
fn open_up(schema: &mut Map<String, Value>) {
    let is = |schema: &Map<String, Value>, key: &str| schema.get(key) == Some(&true.into());
    let (nullable, preserves) = (is(schema, "nullable"), is(schema, PRESERVE));
    schema.remove("nullable");
    if nullable || preserves {
        schema.remove("items");
        schema.remove("properties");
    }
    let kind = schema.get("type").and_then(Value::as_str).unwrap_or_default();
    let no_items = kind == "array" && !schema.contains_key("items");
    if nullable || no_items || (preserves && kind == "object") {
        schema.remove("type");
    }
}

fn drop_required(schema: &mut Map<String, Value>, gone: &[String]) {
    let Some(Value::Array(required)) = schema.get_mut("required") else { return };
    required.retain(|field| !gone.iter().any(|g| field == g));
    if required.is_empty() {
        schema.remove("required");
    }
}

fn path_item(item: Value, parameters: &mut Map<String, Value>) -> Value {
    let Value::Object(item) = item else { return item };
    let convert = |(key, value): (String, Value)| match (key.as_str(), value) {
        ("parameters", Value::Array(list)) => (key, list.into_iter().map(|p| parameter(p, parameters)).collect()),
        (_, Value::Object(operation)) => {
            let operation = self::operation(operation, parameters);
            (key, operation)
        }
        (_, other) => (key, other),
    };
    item.into_iter().map(convert).collect::<Map<_, _>>().into()
}

/// A parameter is told once, under its name and a hash, and referred to.
fn parameter(mut parameter: Value, known: &mut Map<String, Value>) -> Value {
    if let Value::Object(fields) = &mut parameter
        && let Some(Value::Object(schema)) = fields.remove("schema")
    {
        fields.extend(schema);
    }
    let digest = hash(parameter.to_string().as_bytes());
    let name = parameter["name"].as_str().unwrap_or_default();
    let key = format!("{name}-{}", &digest[..8]);
    known.entry(key.clone()).or_insert(parameter);
    json!({ "$ref": format!("#/parameters/{key}") })
}

fn operation(mut operation: Map<String, Value>, known: &mut Map<String, Value>) -> Value {
    let mut parameters: Vec<Value> = match operation.remove("parameters") {
        Some(Value::Array(list)) => list.into_iter().map(|p| parameter(p, known)).collect(),
        _ => Vec::new(),
    };
    if let Some(body) = operation.remove("requestBody") {
        let (schema, types) = content(&body);
        let mut parameter = json!({ "name": "body", "in": "body", "schema": schema });
        if body["required"] == true {
            parameter["required"] = true.into();
        }
        parameters.insert(0, parameter);
        operation.insert("consumes".to_owned(), types.into());
    }
    operation.insert("parameters".to_owned(), parameters.into());
    operation.insert("schemes".to_owned(), json!(["https"]));
    let mut produces = Vec::new();
    if let Some(Value::Object(responses)) = operation.get_mut("responses") {
        for response in responses.values_mut() {
            let (schema, types) = content(response);
            let mut told = json!({ "description": response["description"] });
            if !types.is_empty() {
                told["schema"] = schema;
                produces = types;
            }
            *response = told;
        }
    }
    operation.insert("produces".to_owned(), produces.into());
    operation.into()
}

/// The schema of a body and its media types.
fn content(of: &Value) -> (Value, Vec<String>) {
    let Some(Value::Object(content)) = of.get("content") else { return (Value::Null, Vec::new()) };
    let mut schema = content.values().next().map(|c| c["schema"].clone()).unwrap_or_default();
    if let Value::Object(fields) = &mut schema {
        convert(fields, true);
    }
    (schema, content.keys().cloned().collect())
}
