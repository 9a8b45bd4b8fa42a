//! From messages to JSON, guided by the table.
//!
//! Go writes every field that is no pointer, zero or not, and leaves the zeros out of JSON: so they are dropped here.

use std::fmt;

use base64::{Engine, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{
    table::{Field, Kind, Or, Shape, Table},
    wire::{Reader, Wire},
};

/// How deep messages may stand in each other. The kinds that are served need less than 20.
const DEPTH_MAX: usize = 64;

/// What is wrong and where.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Problem {
    /// From the object down to the field, empty at the object itself.
    path: String,
    what: String,
}

impl Problem {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self { path: String::new(), what: what.into() }
    }

    fn inside(mut self, field: &str) -> Self {
        self.path = match self.path.as_str() {
            "" => field.to_owned(),
            path => format!("{field}.{path}"),
        };
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => f.write_str(&self.what),
            path => write!(f, "{path}: {}", self.what),
        }
    }
}

/// Reads messages of a table.
pub(super) struct Decoder<'t> {
    table: &'t Table,
    depth: usize,
}

impl<'t> Decoder<'t> {
    pub(super) fn new(table: &'t Table) -> Self {
        Self { table, depth: 0 }
    }

    /// Reads a message into an object. What stands twice is merged or overwritten, as protobuf wants it.
    pub(super) fn message(
        &mut self,
        index: usize,
        bytes: &[u8],
        object: &mut Map<String, Value>,
    ) -> Result<(), Problem> {
        if self.depth == DEPTH_MAX {
            return Err(Problem::new(format!("messages stand in each other more than {DEPTH_MAX} deep")));
        }
        let message = self.table.message(index).ok_or_else(|| Problem::new("its message is not known"))?;
        self.depth += 1;
        let mut reader = Reader::new(bytes);
        while let Some((number, wire)) = reader.field()? {
            if let Some(field) = message.field(number) {
                let embedded = field.shape == Shape::Embedded;
                self.field(field, wire, object).map_err(|e| if embedded { e } else { e.inside(field.name) })?;
            }
        }
        self.depth -= 1;
        Ok(())
    }

    fn field(&mut self, field: &Field, wire: Wire<'_>, object: &mut Map<String, Value>) -> Result<(), Problem> {
        match (field.shape, field.kind) {
            (Shape::Embedded, Kind::Message(index)) => self.message(index, wire.bytes()?, object),
            (Shape::One, Kind::Message(index)) => {
                let inner = object.entry(field.name).or_insert_with(|| Value::Object(Map::new()));
                inner.as_object_mut().map_or(Ok(()), |inner| self.message(index, wire.bytes()?, inner))
            }
            (Shape::One, Kind::SchemaOr(index, or)) => {
                let value = self.schema_or(index, or, wire.bytes()?)?;
                object.insert(field.name.to_owned(), value);
                Ok(())
            }
            (Shape::One | Shape::Embedded, kind) => {
                match scalar(kind, wire)?.filter(|v| field.zero_is_meant || !is_zero(v, kind)) {
                    Some(value) => object.insert(field.name.to_owned(), value),
                    None => object.remove(field.name),
                };
                Ok(())
            }
            (Shape::List, kind) => {
                let list = object.entry(field.name).or_insert_with(|| Value::Array(Vec::new()));
                list.as_array_mut().map_or(Ok(()), |list| self.items(kind, wire, list))
            }
            (Shape::Map, kind) => {
                let (key, value) = self.entry(kind, wire.bytes()?)?;
                let map = object.entry(field.name).or_insert_with(|| Value::Object(Map::new()));
                if let Some(map) = map.as_object_mut() {
                    map.insert(key, value);
                }
                Ok(())
            }
        }
    }

    /// One item, or several numbers in a row.
    fn items(&mut self, kind: Kind, wire: Wire<'_>, list: &mut Vec<Value>) -> Result<(), Problem> {
        match (kind, wire) {
            (Kind::Bool | Kind::Int32 | Kind::Int64, Wire::Bytes(packed)) => {
                let mut reader = Reader::new(packed);
                while let Some(number) = reader.packed()? {
                    list.extend(scalar(kind, Wire::Varint(number))?);
                }
            }
            _ => list.push(self.value(kind, wire)?),
        }
        Ok(())
    }

    fn value(&mut self, kind: Kind, wire: Wire<'_>) -> Result<Value, Problem> {
        match kind {
            Kind::Message(index) => self.object(index, wire),
            Kind::SchemaOr(index, or) => self.schema_or(index, or, wire.bytes()?),
            kind => Ok(scalar(kind, wire)?.unwrap_or_default()),
        }
    }

    fn object(&mut self, index: usize, wire: Wire<'_>) -> Result<Value, Problem> {
        let mut object = Map::new();
        self.message(index, wire.bytes()?, &mut object)?;
        Ok(Value::Object(object))
    }

    /// A schema, or else what its place allows.
    fn schema_or(&mut self, index: usize, or: Or, bytes: &[u8]) -> Result<Value, Problem> {
        let (mut schema, mut allows, mut list) = (None, false, Vec::new());
        let mut reader = Reader::new(bytes);
        while let Some((number, wire)) = reader.field()? {
            match (or, number) {
                (Or::Bool, 1) => allows = wire.varint()? != 0,
                (Or::List, 1) | (Or::Bool, 2) | (Or::Strings, 1) => schema = Some(self.object(index, wire)?),
                (Or::List, 2) => list.push(self.object(index, wire)?),
                (Or::Strings, 2) => list.push(wire.text()?.into()),
                _ => {}
            }
        }
        Ok(match (schema, or) {
            (Some(schema), _) => schema,
            (None, Or::Bool) => allows.into(),
            (None, Or::List | Or::Strings) => list.into(),
        })
    }

    /// An entry of a map: a message of key and value, either of which may be missing.
    fn entry(&mut self, kind: Kind, bytes: &[u8]) -> Result<(String, Value), Problem> {
        let (mut key, mut value) = (String::new(), Wire::Bytes(&[]));
        let mut reader = Reader::new(bytes);
        while let Some((number, wire)) = reader.field()? {
            match number {
                1 => wire.text()?.clone_into(&mut key),
                2 => value = wire,
                _ => {}
            }
        }
        let value = self.value(kind, value).map_err(|e| e.inside(&key))?;
        Ok((key, value))
    }
}

/// A value that is no message in the table; nothing for those that say that there is none.
fn scalar(kind: Kind, wire: Wire<'_>) -> Result<Option<Value>, Problem> {
    Ok(Some(match kind {
        Kind::String => wire.text()?.into(),
        Kind::Bytes => BASE64_STANDARD.encode(wire.bytes()?).into(),
        Kind::Bool => (wire.varint()? != 0).into(),
        Kind::Int32 => int32(wire)?.into(),
        Kind::Int64 => wire.varint()?.cast_signed().into(),
        Kind::Double => finite(wire.double()?)?,
        Kind::Quantity => quantity(wire.bytes()?)?.into(),
        Kind::IntOrString => int_or_string(wire.bytes()?)?,
        Kind::Time => return time(wire.bytes()?, |t| t.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
        Kind::MicroTime => return time(wire.bytes()?, |t| t.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()),
        Kind::Json => return json(wire.bytes()?),
        Kind::Strings => strings(wire.bytes()?)?.into(),
        Kind::Empty => Value::Object(Map::new()),
        Kind::Message(_) | Kind::SchemaOr(..) => return Ok(None),
    }))
}

fn is_zero(value: &Value, kind: Kind) -> bool {
    match value {
        Value::String(text) => text.is_empty(),
        Value::Bool(set) => !set,
        Value::Number(number) => kind != Kind::IntOrString && number.as_f64() == Some(0.0),
        _ => false,
    }
}

/// Negative numbers come in 64 bits.
fn int32(wire: Wire<'_>) -> Result<i32, Problem> {
    let number = wire.varint()?.cast_signed();
    i32::try_from(number).map_err(|_| Problem::new(format!("{number} does not fit into 32 bits")))
}

fn finite(number: f64) -> Result<Value, Problem> {
    let number = serde_json::Number::from_f64(number);
    number.map(Value::Number).ok_or_else(|| Problem::new("numbers must be finite"))
}

fn quantity(bytes: &[u8]) -> Result<String, Problem> {
    let mut text = "";
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.field()? {
        if number == 1 {
            text = wire.text()?;
        }
    }
    Ok(if text.is_empty() { "0" } else { text }.to_owned())
}

fn int_or_string(bytes: &[u8]) -> Result<Value, Problem> {
    let (mut kind, mut int, mut text) = (0, 0, "");
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.field()? {
        match number {
            1 => kind = wire.varint()?,
            2 => int = int32(wire)?,
            3 => text = wire.text()?,
            _ => {}
        }
    }
    match kind {
        0 => Ok(int.into()),
        1 => Ok(text.into()),
        other => Err(Problem::new(format!("type {other} is neither 0 (number) nor 1 (string)"))),
    }
}

/// No bytes at all are the time that is not set.
fn time(bytes: &[u8], write: fn(Timestamp) -> String) -> Result<Option<Value>, Problem> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let (mut seconds, mut nanos) = (0, 0);
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.field()? {
        match number {
            1 => seconds = wire.varint()?.cast_signed(),
            2 => nanos = int32(wire)?,
            _ => {}
        }
    }
    let when = Timestamp::new(seconds, nanos).map_err(|e| Problem::new(format!("not a time: {e}")))?;
    Ok(Some(write(when).into()))
}

fn strings(bytes: &[u8]) -> Result<Vec<Value>, Problem> {
    let mut list = Vec::new();
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.field()? {
        if number == 1 {
            list.push(wire.text()?.into());
        }
    }
    Ok(list)
}

fn json(bytes: &[u8]) -> Result<Option<Value>, Problem> {
    let mut raw: &[u8] = &[];
    let mut reader = Reader::new(bytes);
    while let Some((number, wire)) = reader.field()? {
        if number == 1 {
            raw = wire.bytes()?;
        }
    }
    if raw.is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(raw).map(Some).map_err(|e| Problem::new(format!("the JSON in it cannot be read: {e}")))
}
