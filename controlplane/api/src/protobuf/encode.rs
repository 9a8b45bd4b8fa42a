//! From JSON to messages, guided by the same table.
//!
//! Fields are written in the order of their numbers, and only those that JSON has: what is not there is zero to Go, and a
//! zero where Go has a pointer would be there. What JSON has and the table has not is left out.

use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{
    MAGIC,
    table::{Kind, Or, Shape, TABLE, Table},
};

/// An object, or a list of objects of one kind, as a body. `None` when there is no protobuf for its kind.
pub fn encode(object: &Value) -> Option<Vec<u8>> {
    let (version, kind) = (object["apiVersion"].as_str()?, object["kind"].as_str()?);
    let fields = object.as_object()?;
    let encoder = Encoder { table: &TABLE };
    let mut raw = Vec::new();
    if let Some(root) = TABLE.root(version, kind) {
        encoder.message(&mut raw, root, fields);
    } else {
        let items = TABLE.root(version, kind.strip_suffix("List")?)?;
        encoder.list(&mut raw, items, fields);
    }
    let mut out = MAGIC.to_vec();
    nested(&mut out, 1, |out| {
        bytes(out, 1, version.as_bytes());
        bytes(out, 2, kind.as_bytes());
    });
    bytes(&mut out, 2, &raw);
    bytes(&mut out, 3, b"");
    bytes(&mut out, 4, b"");
    Some(out)
}

/// One event of a watch, framed by its length: `ADDED` and so on, with an object that [`encode`] wrote.
///
/// `None` when it does not fit into a frame (4 GiB).
///
/// # Source
/// Kubernetes `staging/src/k8s.io/apimachinery/pkg/runtime/serializer/protobuf/protobuf.go` (`LengthDelimitedFramer`).
pub fn encode_event(kind: &str, object: &[u8]) -> Option<Vec<u8>> {
    let mut event = Vec::new();
    bytes(&mut event, 1, kind.as_bytes());
    nested(&mut event, 2, |out| bytes(out, 1, object));
    let mut out = u32::try_from(event.len()).ok()?.to_be_bytes().to_vec();
    out.extend_from_slice(&event);
    Some(out)
}

struct Encoder<'t> {
    table: &'t Table,
}

impl Encoder<'_> {
    fn list(&self, out: &mut Vec<u8>, item: usize, list: &Map<String, Value>) {
        if let Some(Value::Object(meta)) = list.get("metadata") {
            nested(out, 1, |out| self.message(out, self.table.list_meta(), meta));
        }
        for item_fields in
            list.get("items").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_object)
        {
            nested(out, 2, |out| self.message(out, item, item_fields));
        }
    }

    fn message(&self, out: &mut Vec<u8>, index: usize, object: &Map<String, Value>) {
        for field in self.table.message(index).map(|m| m.fields.as_slice()).unwrap_or_default() {
            let value = object.get(field.name).filter(|v| !v.is_null());
            match (field.shape, field.kind, value) {
                (Shape::Embedded, Kind::Message(index), _) => {
                    nested(out, field.number, |out| self.message(out, index, object));
                }
                (Shape::One, _, Some(value)) => self.value(out, field.number, field.kind, value),
                (Shape::List, _, Some(Value::Array(list))) => {
                    list.iter().for_each(|v| self.value(out, field.number, field.kind, v));
                }
                (Shape::Map, _, Some(Value::Object(map))) => map.iter().for_each(|(key, value)| {
                    nested(out, field.number, |out| {
                        bytes(out, 1, key.as_bytes());
                        self.value(out, 2, field.kind, value);
                    });
                }),
                _ => {}
            }
        }
    }

    /// What is not of its type is left out: objects that were read have been checked.
    fn value(&self, out: &mut Vec<u8>, field: u64, kind: Kind, value: &Value) {
        match (kind, value) {
            (Kind::String, Value::String(text)) => bytes(out, field, text.as_bytes()),
            (Kind::Bytes, Value::String(text)) => bytes(out, field, &BASE64_STANDARD.decode(text).unwrap_or_default()),
            (Kind::Bool, Value::Bool(set)) => number(out, field, i64::from(*set)),
            (Kind::Int32 | Kind::Int64, Value::Number(n)) => number(out, field, n.as_i64().unwrap_or_default()),
            (Kind::Double, Value::Number(n)) => {
                varint(out, field << 3 | 1);
                out.extend_from_slice(&n.as_f64().unwrap_or_default().to_le_bytes());
            }
            (Kind::Quantity, _) => {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                nested(out, field, |out| bytes(out, 1, text.as_bytes()));
            }
            (Kind::IntOrString, _) => nested(out, field, |out| {
                number(out, 1, i64::from(value.is_string()));
                number(out, 2, value.as_i64().unwrap_or_default());
                bytes(out, 3, value.as_str().unwrap_or_default().as_bytes());
            }),
            (Kind::Time | Kind::MicroTime, Value::String(text)) => time(out, field, text),
            (Kind::Json, _) => nested(out, field, |out| bytes(out, 1, value.to_string().as_bytes())),
            (Kind::Strings, Value::Array(list)) => nested(out, field, |out| strings(out, 1, list)),
            (Kind::Empty, Value::Object(_)) => bytes(out, field, b""),
            (Kind::SchemaOr(index, or), _) => nested(out, field, |out| self.schema_or(out, index, or, value)),
            (Kind::Message(index), Value::Object(object)) => {
                nested(out, field, |out| self.message(out, index, object));
            }
            _ => {}
        }
    }

    fn schema_or(&self, out: &mut Vec<u8>, index: usize, or: Or, value: &Value) {
        match (or, value) {
            (Or::Bool, Value::Bool(allows)) => number(out, 1, i64::from(*allows)),
            (Or::Bool, schema) => {
                number(out, 1, 1);
                self.value(out, 2, Kind::Message(index), schema);
            }
            (Or::List, Value::Array(list)) => list.iter().for_each(|v| self.value(out, 2, Kind::Message(index), v)),
            (Or::Strings, Value::Array(list)) => strings(out, 2, list),
            (Or::List | Or::Strings, schema) => self.value(out, 1, Kind::Message(index), schema),
        }
    }
}

fn time(out: &mut Vec<u8>, field: u64, text: &str) {
    if let Ok(when) = text.parse::<Timestamp>() {
        nested(out, field, |out| {
            number(out, 1, when.as_second());
            number(out, 2, when.subsec_nanosecond().into());
        });
    }
}

fn strings(out: &mut Vec<u8>, field: u64, list: &[Value]) {
    list.iter().filter_map(Value::as_str).for_each(|text| bytes(out, field, text.as_bytes()));
}

pub(super) fn nested(out: &mut Vec<u8>, field: u64, write: impl FnOnce(&mut Vec<u8>)) {
    let mut inner = Vec::new();
    write(&mut inner);
    bytes(out, field, &inner);
}

pub(super) fn bytes(out: &mut Vec<u8>, field: u64, value: &[u8]) {
    varint(out, field << 3 | 2);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

fn number(out: &mut Vec<u8>, field: u64, value: i64) {
    varint(out, field << 3);
    varint(out, value.cast_unsigned());
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}
