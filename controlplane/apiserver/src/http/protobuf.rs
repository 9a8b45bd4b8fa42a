//! Request bodies in Kubernetes' protobuf, as kubectl's `create` commands and typed Go clients send them, read into the
//! same tree that JSON is read into. Answers are never written in it.
//!
//! The messages stand in `protobuf_messages.txt`, one line for each field: number, JSON name, type. `[]` is a list, `{}`
//! a map with string keys, `^` a message whose fields stand in its parent, a trailing `?` a field that is left out when
//! it has its zero value (Go writes those, and JSON would not have them). Fields that are not listed are skipped.
//!
//! # Source
//! `types.go` of `k8s.io/api` and `k8s.io/apimachinery`;
//! `staging/src/k8s.io/apimachinery/pkg/runtime/serializer/protobuf/protobuf.go` for the envelope.

use std::{collections::HashMap, sync::LazyLock};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use podium_api::ApiError;
use serde_json::{Map, Value};

/// The media type.
pub(crate) const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

const MAGIC: &[u8] = b"k8s\0";
/// Deeper messages than any kind has.
const DEPTH_MAX: usize = 32;
const WIRE_VARINT: u64 = 0;
const WIRE_FIXED64: u64 = 1;
const WIRE_BYTES: u64 = 2;
const WIRE_FIXED32: u64 = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    One,
    List,
    Map,
}

#[derive(Debug, Clone, Copy)]
struct Field {
    /// `^`: its fields stand in the parent.
    name: &'static str,
    shape: Shape,
    kind: &'static str,
    omit_zero: bool,
}

type Message = HashMap<u64, Field>;

static MESSAGES: LazyLock<HashMap<&'static str, Message>> = LazyLock::new(|| {
    let mut messages: HashMap<&str, Message> = HashMap::new();
    let mut current = "";
    for line in include_str!("protobuf_messages.txt").lines() {
        match line.strip_prefix(' ').and_then(field) {
            Some((number, field)) => {
                messages.entry(current).or_default().insert(number, field);
            }
            None => current = line,
        }
    }
    messages
});

fn field(line: &'static str) -> Option<(u64, Field)> {
    let mut parts = line.split(' ');
    let (number, name, kind) = (parts.next()?, parts.next()?, parts.next()?);
    let (kind, omit_zero) = kind.strip_suffix('?').map_or((kind, false), |kind| (kind, true));
    let (shape, kind) = match (kind.strip_prefix("[]"), kind.strip_prefix("{}")) {
        (Some(kind), _) => (Shape::List, kind),
        (_, Some(kind)) => (Shape::Map, kind),
        _ => (Shape::One, kind),
    };
    Some((number.parse().ok()?, Field { name, shape, kind, omit_zero }))
}

/// Reads a body: the envelope, then the object that it names.
///
/// # Errors
/// 400 when it is malformed or of a kind that has no description here.
pub(crate) fn read(body: &[u8]) -> Result<Value, ApiError> {
    decode(body).map_err(|what| ApiError::bad_request(format!("error decoding the protobuf request body: {what}")))
}

fn decode(body: &[u8]) -> Result<Value, String> {
    let envelope = body.strip_prefix(MAGIC).ok_or("it does not begin with the prefix of Kubernetes")?;
    let (mut version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    each_field(envelope, |number, item| {
        match (number, item) {
            (1, Item::Bytes(meta)) => each_field(meta, |number, item| {
                match (number, item) {
                    (1, Item::Bytes(b)) => version = text(b)?,
                    (2, Item::Bytes(b)) => kind = text(b)?,
                    _ => {}
                }
                Ok(())
            })?,
            (2, Item::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
        Ok(())
    })?;
    let name = message_name(&version, &kind);
    let mut object =
        message(&name, raw, 0)?.ok_or_else(|| format!("no kind {kind:?} in version {version:?} is known"))?;
    object.insert("apiVersion".to_owned(), version.into());
    object.insert("kind".to_owned(), kind.into());
    Ok(Value::Object(object))
}

/// `apps.Deployment` for `apps/v1` and `Deployment`.
fn message_name(version: &str, kind: &str) -> String {
    let group = version.split_once('/').map_or("core", |(group, _)| group.split('.').next().unwrap_or_default());
    let name = format!("{group}.{kind}");
    if MESSAGES.contains_key(name.as_str()) { name } else { format!("meta.{kind}") }
}

fn message(name: &str, bytes: &[u8], depth: usize) -> Result<Option<Map<String, Value>>, String> {
    if depth > DEPTH_MAX {
        return Err("it is nested too deeply".to_owned());
    }
    let Some(fields) = MESSAGES.get(name) else { return Ok(None) };
    let mut out = Map::new();
    each_field(bytes, |number, item| match fields.get(&number) {
        Some(field) => put(&mut out, field, item, depth),
        None => Ok(()),
    })?;
    Ok(Some(out))
}

fn put(out: &mut Map<String, Value>, field: &Field, item: Item<'_>, depth: usize) -> Result<(), String> {
    match field.shape {
        Shape::One => {
            let value = value(field.kind, item, depth)?;
            match value {
                Value::Object(inner) if field.name == "^" => out.extend(inner),
                Value::Null => {}
                value if field.omit_zero && is_zero(&value) => {}
                value => {
                    out.insert(field.name.to_owned(), value);
                }
            }
        }
        Shape::List => {
            let list = out.entry(field.name).or_insert_with(|| Value::Array(Vec::new()));
            let Value::Array(list) = list else { return Err(format!("{} is no list", field.name)) };
            match (field.kind, item) {
                // Numbers may be packed.
                ("int", Item::Bytes(mut packed)) => {
                    while !packed.is_empty() {
                        list.push(signed(varint(&mut packed)?).into());
                    }
                }
                (kind, item) => list.push(value(kind, item, depth)?),
            }
        }
        Shape::Map => {
            let Item::Bytes(entry) = item else { return Err(format!("{} is no map", field.name)) };
            let (key, value) = map_entry(field.kind, entry, depth)?;
            let map = out.entry(field.name).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(map) = map {
                map.insert(key, value);
            }
        }
    }
    Ok(())
}

fn map_entry(kind: &'static str, entry: &[u8], depth: usize) -> Result<(String, Value), String> {
    let (mut key, mut found) = (String::new(), None);
    each_field(entry, |number, item| {
        match (number, item) {
            (1, Item::Bytes(bytes)) => key = text(bytes)?,
            (2, item) => found = Some(value(kind, item, depth)?),
            _ => {}
        }
        Ok(())
    })?;
    let missing = || value(kind, Item::Bytes(&[]), depth);
    Ok((key, found.map_or_else(missing, Ok)?))
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0),
        Value::String(s) => s.is_empty(),
        Value::Array(a) => a.is_empty(),
        Value::Object(o) => o.is_empty(),
    }
}

fn value(kind: &str, item: Item<'_>, depth: usize) -> Result<Value, String> {
    Ok(match (kind, item) {
        ("str", Item::Bytes(b)) => text(b)?.into(),
        ("bytes", Item::Bytes(b)) => STANDARD.encode(b).into(),
        ("int", Item::Number(n)) => signed(n).into(),
        ("bool", Item::Number(n)) => (n != 0).into(),
        ("dbl", Item::Number(n)) => f64::from_bits(n).into(),
        ("time", Item::Bytes(b)) => time(b, 0)?,
        ("microtime", Item::Bytes(b)) => time(b, 6)?,
        ("quantity", Item::Bytes(b)) => first_text(b)?.into(),
        ("raw", Item::Bytes(b)) => raw(b)?,
        ("intstr", Item::Bytes(b)) => int_or_string(b)?,
        (name, Item::Bytes(b)) => {
            let object = message(name, b, depth + 1)?.ok_or_else(|| format!("{name} is not described"))?;
            Value::Object(object)
        }
        (kind, Item::Number(_)) => return Err(format!("a number stands where {kind} should")),
    })
}

fn first_text(bytes: &[u8]) -> Result<String, String> {
    let mut out = String::new();
    each_field(bytes, |number, item| {
        if let (1, Item::Bytes(b)) = (number, item) {
            out = text(b)?;
        }
        Ok(())
    })?;
    Ok(out)
}

/// JSON inside of protobuf.
fn raw(bytes: &[u8]) -> Result<Value, String> {
    let mut out = Value::Null;
    each_field(bytes, |number, item| {
        if let (1, Item::Bytes(b)) = (number, item) {
            out = serde_json::from_slice(b).map_err(|e| e.to_string())?;
        }
        Ok(())
    })?;
    Ok(out)
}

fn int_or_string(bytes: &[u8]) -> Result<Value, String> {
    let (mut is_string, mut number, mut string) = (false, 0, String::new());
    each_field(bytes, |field, item| {
        match (field, item) {
            (1, Item::Number(n)) => is_string = n != 0,
            (2, Item::Number(n)) => number = signed(n),
            (3, Item::Bytes(b)) => string = text(b)?,
            _ => {}
        }
        Ok(())
    })?;
    Ok(if is_string { string.into() } else { number.into() })
}

/// The zero time is no time.
fn time(bytes: &[u8], digits: usize) -> Result<Value, String> {
    let (mut seconds, mut nanos) = (None, 0);
    each_field(bytes, |number, item| {
        match (number, item) {
            (1, Item::Number(n)) => seconds = Some(signed(n)),
            (2, Item::Number(n)) => nanos = i32::try_from(signed(n)).map_err(|e| e.to_string())?,
            _ => {}
        }
        Ok(())
    })?;
    let Some(seconds) = seconds else { return Ok(Value::Null) };
    let time = Timestamp::new(seconds, if digits == 0 { 0 } else { nanos }).map_err(|e| e.to_string())?;
    Ok(format!("{time:.digits$}").into())
}

fn text(bytes: &[u8]) -> Result<String, String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| "a text is not UTF-8".to_owned())
}

fn signed(number: u64) -> i64 {
    number.cast_signed()
}

#[derive(Clone, Copy)]
enum Item<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn each_field<'a>(
    mut bytes: &'a [u8],
    mut field: impl FnMut(u64, Item<'a>) -> Result<(), String>,
) -> Result<(), String> {
    while !bytes.is_empty() {
        let tag = varint(&mut bytes)?;
        let item = match tag & 7 {
            WIRE_VARINT => Item::Number(varint(&mut bytes)?),
            WIRE_FIXED64 => Item::Number(fixed(take(&mut bytes, 8)?)),
            WIRE_FIXED32 => Item::Number(fixed(take(&mut bytes, 4)?)),
            WIRE_BYTES => {
                let length = usize::try_from(varint(&mut bytes)?).map_err(|e| e.to_string())?;
                Item::Bytes(take(&mut bytes, length)?)
            }
            other => return Err(format!("wire type {other} is not used by Kubernetes")),
        };
        field(tag >> 3, item)?;
    }
    Ok(())
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8], String> {
    let (head, tail) = bytes.split_at_checked(length).ok_or("it is cut short")?;
    *bytes = tail;
    Ok(head)
}

fn fixed(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |n, b| (n << 8) | u64::from(*b))
}

fn varint(bytes: &mut &[u8]) -> Result<u64, String> {
    let mut out = 0u64;
    for i in 0..10 {
        let byte = take(bytes, 1)?[0];
        out |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Ok(out);
        }
    }
    Err("a number is too long".to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A length-delimited field.
    fn bytes(number: u8, content: impl AsRef<[u8]>) -> Vec<u8> {
        let content = content.as_ref();
        [&[number << 3 | 2, u8::try_from(content.len()).unwrap()], content].concat()
    }

    fn number(field: u8, value: u8) -> Vec<u8> {
        vec![field << 3, value]
    }

    fn body(version: &str, kind: &str, object: &[Vec<u8>]) -> Vec<u8> {
        let meta = [bytes(1, version), bytes(2, kind)].concat();
        [MAGIC.to_vec(), bytes(1, meta), bytes(2, object.concat()), bytes(3, ""), bytes(4, "")].concat()
    }

    #[test]
    fn objects() {
        let label = [bytes(1, "k"), bytes(2, "v")].concat();
        let meta = [bytes(1, "n"), bytes(2, ""), number(7, 0), bytes(8, ""), bytes(11, label)].concat();
        let secret = body("v1", "Secret", &[bytes(1, &meta), bytes(2, [bytes(1, "a"), bytes(2, "b")].concat())]);
        assert_eq!(
            read(&secret).unwrap(),
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "n", "labels": {"k": "v"}}, "data": {"a": "Yg=="}})
        );
        let deployment = body("apps/v1", "Deployment", &[bytes(2, number(1, 0)), bytes(3, "")]);
        assert_eq!(
            read(&deployment).unwrap(),
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replicas": 0}})
        );
        let port = [number(3, 80), bytes(4, [number(1, 1), bytes(3, "http")].concat())].concat();
        let service = read(&body("v1", "Service", &[bytes(2, bytes(1, port))])).unwrap();
        assert_eq!(service["spec"]["ports"], json!([{"port": 80, "targetPort": "http"}]));
        let time = bytes(8, number(1, 5));
        let dated = read(&body("v1", "ConfigMap", &[bytes(1, time)])).unwrap();
        assert_eq!(dated["metadata"]["creationTimestamp"], "1970-01-01T00:00:05Z");
        let delete = read(&body("v1", "DeleteOptions", &[number(1, 0)])).unwrap();
        assert_eq!(delete["gracePeriodSeconds"], 0);
    }

    #[test]
    fn what_is_malformed_is_refused() {
        let good = body("v1", "ConfigMap", &[bytes(1, bytes(1, "name"))]);
        for (bad, message) in [
            (b"".to_vec(), "it does not begin with the prefix"),
            (good[..good.len() - 6].to_vec(), "it is cut short"),
            (body("v9", "Nothing", &[]), "no kind \"Nothing\" in version \"v9\" is known"),
            (body("v1", "ConfigMap", &[number(1, 1)]), "a number stands where meta.ObjectMeta should"),
            (body("v1", "ConfigMap", &[bytes(1, bytes(1, [0xff]))]), "a text is not UTF-8"),
            ([MAGIC, &[0x0b]].concat(), "wire type 3"),
        ] {
            let error = read(&bad).unwrap_err();
            assert!(error.message.contains(message), "{error}");
        }
    }

    #[test]
    fn every_message_that_is_named_is_described() {
        let plain = ["str", "int", "bool", "bytes", "dbl", "time", "microtime", "quantity", "raw", "intstr"];
        for (name, fields) in MESSAGES.iter() {
            for field in fields.values() {
                assert!(plain.contains(&field.kind) || MESSAGES.contains_key(field.kind), "{name}: {field:?}");
            }
        }
        for kind in podium_api::kinds::all() {
            let names = kind.names();
            let name = message_name(&names.api_version(), names.kind);
            assert!(MESSAGES.contains_key(name.as_str()), "{name}");
        }
    }
}
