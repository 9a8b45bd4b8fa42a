//! OpenAPI v2 as gnostic's protobuf, written from its JSON.
//!
//! A subset: what [`super::v2`] makes. Unknown keys of a schema are left out, those that begin with `x-` are extensions.
//!
//! # Source
//! gnostic `openapiv2/OpenAPIv2.proto`: the names and numbers of the fields.

use serde_json::{Map, Value};

type Fields = Map<String, Value>;

/// How the value of a field is written.
#[derive(Clone, Copy)]
enum As {
    Text,
    Flag,
    Int,
    Double,
    Texts,
    /// gnostic's `Any`: YAML in text.
    Any,
    Anys,
    /// A message.
    One(fn(&Value) -> Vec<u8>),
    /// A list of messages.
    Many(fn(&Value) -> Vec<u8>),
    /// A message of named messages in its first field.
    Named(fn(&Value) -> Vec<u8>),
}

type Shape = &'static [(&'static str, u32, As)];

/// The document.
pub(super) fn encode(document: &Value) -> Vec<u8> {
    const DOCUMENT: Shape = &[
        ("swagger", 1, As::Text),
        ("info", 2, As::One(info)),
        ("paths", 8, As::One(paths)),
        ("definitions", 9, As::Named(schema)),
        ("parameters", 10, As::Named(parameter)),
    ];
    message(document, DOCUMENT, 16)
}

fn info(value: &Value) -> Vec<u8> {
    message(value, &[("title", 1, As::Text), ("version", 2, As::Text)], 7)
}

fn paths(value: &Value) -> Vec<u8> {
    named(value, 2, path_item)
}

fn path_item(value: &Value) -> Vec<u8> {
    const PATH_ITEM: Shape = &[
        ("get", 2, As::One(operation)),
        ("put", 3, As::One(operation)),
        ("post", 4, As::One(operation)),
        ("delete", 5, As::One(operation)),
        ("options", 6, As::One(operation)),
        ("head", 7, As::One(operation)),
        ("patch", 8, As::One(operation)),
        ("parameters", 9, As::Many(parameters_item)),
    ];
    message(value, PATH_ITEM, 10)
}

fn operation(value: &Value) -> Vec<u8> {
    const OPERATION: Shape = &[
        ("tags", 1, As::Texts),
        ("description", 3, As::Text),
        ("operationId", 5, As::Text),
        ("produces", 6, As::Texts),
        ("consumes", 7, As::Texts),
        ("parameters", 8, As::Many(parameters_item)),
        ("responses", 9, As::One(responses)),
        ("schemes", 10, As::Texts),
    ];
    message(value, OPERATION, 13)
}

fn responses(value: &Value) -> Vec<u8> {
    named(value, 1, |response| {
        let shape: Shape = &[("description", 1, As::Text), ("schema", 2, As::One(|s| wrapped(1, &schema(s))))];
        wrapped(1, &message(response, shape, 5))
    })
}

fn parameters_item(value: &Value) -> Vec<u8> {
    if value.get("$ref").is_some() {
        return wrapped(2, &message(value, &[("$ref", 1, As::Text)], 0));
    }
    wrapped(1, &parameter(value))
}

/// `Parameter`: of the body, of the query or of the path.
fn parameter(value: &Value) -> Vec<u8> {
    const BODY: Shape = &[
        ("description", 1, As::Text),
        ("name", 2, As::Text),
        ("in", 3, As::Text),
        ("required", 4, As::Flag),
        ("schema", 5, As::One(schema)),
    ];
    const QUERY: Shape = &[
        ("required", 1, As::Flag),
        ("in", 2, As::Text),
        ("description", 3, As::Text),
        ("name", 4, As::Text),
        ("type", 6, As::Text),
        ("uniqueItems", 20, As::Flag),
    ];
    const PATH: Shape = &[
        ("required", 1, As::Flag),
        ("in", 2, As::Text),
        ("description", 3, As::Text),
        ("name", 4, As::Text),
        ("type", 5, As::Text),
        ("uniqueItems", 19, As::Flag),
    ];
    match value.get("in").and_then(Value::as_str) {
        Some("body") => wrapped(1, &message(value, BODY, 6)),
        Some("path") => wrapped(2, &wrapped(4, &message(value, PATH, 22))),
        _ => wrapped(2, &wrapped(3, &message(value, QUERY, 23))),
    }
}

fn schema(value: &Value) -> Vec<u8> {
    const SCHEMA: Shape = &[
        ("$ref", 1, As::Text),
        ("format", 2, As::Text),
        ("title", 3, As::Text),
        ("description", 4, As::Text),
        ("default", 5, As::Any),
        ("multipleOf", 6, As::Double),
        ("maximum", 7, As::Double),
        ("exclusiveMaximum", 8, As::Flag),
        ("minimum", 9, As::Double),
        ("exclusiveMinimum", 10, As::Flag),
        ("maxLength", 11, As::Int),
        ("minLength", 12, As::Int),
        ("pattern", 13, As::Text),
        ("maxItems", 14, As::Int),
        ("minItems", 15, As::Int),
        ("uniqueItems", 16, As::Flag),
        ("maxProperties", 17, As::Int),
        ("minProperties", 18, As::Int),
        ("required", 19, As::Texts),
        ("enum", 20, As::Anys),
        ("additionalProperties", 21, As::One(additional)),
        ("type", 22, As::One(|of| wrapped(1, of.as_str().unwrap_or_default().as_bytes()))),
        ("items", 23, As::One(|of| wrapped(1, &schema(of)))),
        ("properties", 25, As::Named(schema)),
        ("example", 30, As::Any),
    ];
    message(value, SCHEMA, 31)
}

fn additional(value: &Value) -> Vec<u8> {
    match value {
        Value::Bool(allowed) => [tag(2, VARINT), vec![u8::from(*allowed)]].concat(),
        _ => wrapped(1, &schema(value)),
    }
}

/// Any value, as YAML: JSON is YAML.
fn any(value: &Value) -> Vec<u8> {
    wrapped(2, format!("{value}\n").as_bytes())
}

/// A message of fields, with what begins with `x-` in its field of extensions.
fn message(value: &Value, shape: Shape, extensions: u32) -> Vec<u8> {
    let mut out = Vec::new();
    let Value::Object(fields) = value else { return out };
    for (key, number, how) in shape {
        if let Some(value) = fields.get(*key) {
            field(&mut out, *number, *how, value);
        }
    }
    if extensions > 0 {
        for (key, value) in extended(fields) {
            put(&mut out, extensions, &pair(key, &any(value)));
        }
    }
    out
}

fn extended(fields: &Fields) -> impl Iterator<Item = (&String, &Value)> {
    fields.iter().filter(|(key, _)| key.starts_with("x-"))
}

fn field(out: &mut Vec<u8>, number: u32, how: As, value: &Value) {
    let list = || value.as_array().map(Vec::as_slice).unwrap_or_default();
    match how {
        As::Text => put(out, number, value.as_str().unwrap_or_default().as_bytes()),
        As::Flag => {
            out.extend(tag(number, VARINT));
            out.push(u8::from(value.as_bool().unwrap_or_default()));
        }
        As::Int => {
            out.extend(tag(number, VARINT));
            let whole = value.as_i64().or_else(|| value.as_f64().map(|f| f as i64));
            varint(out, whole.unwrap_or_default().cast_unsigned());
        }
        As::Double => {
            out.extend(tag(number, 1));
            out.extend(value.as_f64().unwrap_or_default().to_le_bytes());
        }
        As::Texts => list().iter().filter_map(Value::as_str).for_each(|text| put(out, number, text.as_bytes())),
        As::Any => put(out, number, &any(value)),
        As::Anys => list().iter().for_each(|one| put(out, number, &any(one))),
        As::One(make) => put(out, number, &make(value)),
        As::Many(make) => list().iter().for_each(|one| put(out, number, &make(one))),
        As::Named(make) => put(out, number, &named(value, 1, make)),
    }
}

/// Pairs of names and messages, each in a field of this number.
fn named(value: &Value, number: u32, make: fn(&Value) -> Vec<u8>) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in value.as_object().into_iter().flatten() {
        put(&mut out, number, &pair(name, &make(value)));
    }
    out
}

fn pair(name: &str, value: &[u8]) -> Vec<u8> {
    [wrapped(1, name.as_bytes()), wrapped(2, value)].concat()
}

fn wrapped(number: u32, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + 6);
    put(&mut out, number, bytes);
    out
}

fn put(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    out.extend(tag(number, 2));
    varint(out, bytes.len() as u64);
    out.extend(bytes);
}

const VARINT: u32 = 0;

fn tag(number: u32, wire: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(2);
    varint(&mut out, u64::from(number << 3 | wire));
    out
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn messages() {
        for (made, expected) in [
            (schema(&json!({"type": "string"})), &b"\xb2\x01\x08\n\x06string"[..]),
            (schema(&json!({"$ref": "#/d/X", "unknown": 1})), b"\n\x05#/d/X"),
            (schema(&json!({"maxLength": 300})), b"\x58\xac\x02"),
            (schema(&json!({"minimum": 1})), b"\x49\0\0\0\0\0\0\xf0?"),
            (schema(&json!({"items": {"format": "f"}})), b"\xba\x01\x05\n\x03\x12\x01f"),
            (schema(&json!({"additionalProperties": true})), b"\xaa\x01\x02\x10\x01"),
            (schema(&json!({"x-a": [1]})), b"\xfa\x01\x0d\n\x03x-a\x12\x06\x12\x04[1]\n"),
            (schema(&json!({"properties": {"p": {"format": "f"}}})), b"\xca\x01\x0a\n\x08\n\x01p\x12\x03\x12\x01f"),
            (parameters_item(&json!({"$ref": "#/p"})), b"\x12\x05\n\x03#/p"),
            (parameter(&json!({"in": "body", "name": "body"})), b"\n\x0c\x12\x04body\x1a\x04body"),
            (encode(&json!({"swagger": "2.0"})), b"\n\x032.0"),
        ] {
            assert_eq!(made, expected, "{}", String::from_utf8_lossy(&made));
        }
    }
}
