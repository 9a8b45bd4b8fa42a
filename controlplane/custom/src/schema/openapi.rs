//! The schema of a kind for OpenAPI documents.
//!
//! # Source
//! Kubernetes `apiextensions-apiserver/pkg/controller/openapi/builder/builder.go`.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;
use podium_api::Names;
use serde_json::{Map, Value, json};

const API_VERSION: &str = "APIVersion defines the versioned schema of this representation of an object. Servers should \
    convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: \
    https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";
const KIND: &str = "Kind is a string value representing the REST resource this object represents. Servers may infer this \
    from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: \
    https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";
const METADATA: &str = "Standard object's metadata. More info: \
    https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";

/// The schema of whole objects; `meta` is (a reference to) that of their metadata.
pub(crate) fn root(props: &JSONSchemaProps, meta: &Value, names: &Names) -> Value {
    let mut schema = match serde_json::to_value(props) {
        Ok(Value::Object(schema)) => schema,
        _ => Map::new(),
    };
    if schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true))
        && schema.get("properties").is_none()
    {
        schema.entry("type").or_insert("object".into());
    }
    spread_int_or_string(&mut schema);
    let mut described = meta.clone();
    if let Value::Object(fields) = &mut described {
        fields.insert("description".to_owned(), METADATA.into());
    }
    let properties = schema.entry("properties").or_insert_with(|| json!({}));
    if let Value::Object(properties) = properties {
        properties.insert("apiVersion".to_owned(), json!({"description": API_VERSION, "type": "string"}));
        properties.insert("kind".to_owned(), json!({"description": KIND, "type": "string"}));
        properties.insert("metadata".to_owned(), described);
    }
    schema.entry("type").or_insert("object".into());
    let gvk = json!([{"group": names.group, "version": names.version, "kind": names.kind}]);
    schema.insert("x-kubernetes-group-version-kind".to_owned(), gvk);
    Value::Object(schema)
}

/// What has the extension has no type; clients are told of both.
fn spread_int_or_string(schema: &mut Map<String, Value>) {
    for (name, value) in schema.iter_mut() {
        match (name.as_str(), value) {
            ("properties", Value::Object(properties)) => {
                properties.values_mut().filter_map(Value::as_object_mut).for_each(spread_int_or_string);
            }
            ("items" | "additionalProperties", Value::Object(of)) => spread_int_or_string(of),
            _ => {}
        }
    }
    if schema.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) && !schema.contains_key("anyOf") {
        schema.insert("anyOf".to_owned(), json!([{"type": "integer"}, {"type": "string"}]));
    }
}
