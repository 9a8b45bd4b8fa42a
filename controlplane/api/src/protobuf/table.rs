//! The messages that bodies are made of, read once from `messages.txt`.
//!
//! The file is part of the program and its form is explained in its first lines; `generate.py` writes it.

use std::{collections::HashMap, sync::LazyLock};

/// The table.
pub(super) static TABLE: LazyLock<Table> =
    LazyLock::new(|| Table::parse(include_str!("messages.txt")).expect("invariant: messages.txt is well-formed"));

/// All messages.
pub(super) struct Table {
    messages: Vec<Message>,
    list_meta: usize,
}

/// A message.
pub(super) struct Message {
    /// When it may be a body by itself: `apiVersion` (`*` for any) and `kind`.
    pub(super) root: Option<(&'static str, &'static str)>,
    /// In the order of their numbers.
    pub(super) fields: Vec<Field>,
}

/// A field of a message.
pub(super) struct Field {
    pub(super) number: u64,
    pub(super) name: &'static str,
    pub(super) shape: Shape,
    pub(super) kind: Kind,
    /// Whether a zero on the wire was put there on purpose: Go leaves pointers out, but writes all other zeros.
    pub(super) zero_is_meant: bool,
}

/// How often a field stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    One,
    /// The fields of this message are, in JSON, those of the message around it.
    Embedded,
    List,
    Map,
}

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    String,
    Bytes,
    Bool,
    Int32,
    Int64,
    Double,
    Quantity,
    IntOrString,
    Time,
    MicroTime,
    /// JSON in a field of bytes.
    Json,
    /// A list of texts in JSON, a message with one field around it on the wire.
    Strings,
    /// An object without fields.
    Empty,
    /// One schema (of this message) or something else.
    SchemaOr(usize, Or),
    Message(usize),
}

/// What may stand where a schema may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Or {
    /// `items`: a list of schemas.
    List,
    /// `additionalProperties`: whether there may be any.
    Bool,
    /// `dependencies`: names of properties.
    Strings,
}

/// The message of schemas, in which fields may be a schema or something else.
const SCHEMA: &str = "apiextensions.v1.JsonSchemaProps";
/// The metadata of lists.
const LIST_META: &str = "meta.v1.ListMeta";

impl Table {
    fn parse(text: &'static str) -> Result<Self, String> {
        let lines = text.lines().filter(|l| !l.starts_with('#')).map(str::trim_end);
        let lines: Vec<&str> = lines.collect();
        let blocks: Vec<&[&str]> = lines.split(|l| l.is_empty()).filter(|b| !b.is_empty()).collect();
        let name = |block: &[&'static str]| block.first().and_then(|l| l.split(' ').next()).unwrap_or_default();
        let index: HashMap<&str, usize> = blocks.iter().enumerate().map(|(i, b)| (name(b), i)).collect();
        let list_meta = *index.get(LIST_META).unwrap_or(&0);
        let messages = blocks.iter().map(|block| Message::parse(block, &index)).collect::<Result<_, _>>()?;
        Ok(Self { messages, list_meta })
    }

    /// The message that holds the metadata of lists.
    pub(super) fn list_meta(&self) -> usize {
        self.list_meta
    }

    /// The message that holds objects of a kind.
    pub(super) fn root(&self, version: &str, kind: &str) -> Option<usize> {
        self.messages.iter().position(|m| m.root.is_some_and(|(v, k)| k == kind && (v == version || v == "*")))
    }

    /// Whether it has a kind under this very version.
    pub(super) fn has(&self, version: &str, kind: &str) -> bool {
        self.messages.iter().any(|m| m.root == Some((version, kind)))
    }

    /// The message that a field refers to.
    pub(super) fn message(&self, index: usize) -> Option<&Message> {
        self.messages.get(index)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    /// A message that holds itself.
    #[cfg(test)]
    pub(super) fn with_loop() -> Self {
        Self::parse("a\n1 a a\n").expect("invariant: it is well-formed")
    }
}

impl Message {
    fn parse(block: &[&'static str], index: &HashMap<&str, usize>) -> Result<Self, String> {
        let (head, fields) = block.split_first().ok_or("an empty block")?;
        let root = match *head.split(' ').collect::<Vec<_>>() {
            [_] => None,
            [_, version, kind] => Some((version, kind)),
            _ => return Err(format!("{head}: not a message")),
        };
        let mut fields = fields.iter().map(|line| Field::parse(line, index)).collect::<Result<Vec<_>, _>>()?;
        fields.sort_by_key(|f| f.number);
        Ok(Self { root, fields })
    }

    /// The field with a number.
    pub(super) fn field(&self, number: u64) -> Option<&Field> {
        let at = self.fields.binary_search_by_key(&number, |f| f.number).ok()?;
        self.fields.get(at)
    }
}

impl Field {
    fn parse(line: &'static str, index: &HashMap<&str, usize>) -> Result<Self, String> {
        let (number, name, kind, zero_is_meant) = match *line.split(' ').collect::<Vec<_>>() {
            [number, name, kind] => (number, name, kind, false),
            [number, name, kind, "?"] => (number, name, kind, true),
            _ => return Err(format!("{line}: not a field")),
        };
        let number = number.parse().map_err(|e| format!("{line}: {e}"))?;
        let (shape, kind) = match (name, kind.strip_prefix("[]"), kind.strip_prefix("{}")) {
            (_, Some(item), _) => (Shape::List, item),
            (_, _, Some(value)) => (Shape::Map, value),
            (".", ..) => (Shape::Embedded, kind),
            _ => (Shape::One, kind),
        };
        let kind = Kind::parse(kind, index).ok_or_else(|| format!("{line}: unknown type"))?;
        Ok(Self { number, name, shape, kind, zero_is_meant })
    }
}

impl Kind {
    fn parse(text: &str, index: &HashMap<&str, usize>) -> Option<Self> {
        Some(match text {
            "string" => Self::String,
            "bytes" => Self::Bytes,
            "bool" => Self::Bool,
            "int32" => Self::Int32,
            "int64" => Self::Int64,
            "double" => Self::Double,
            "quantity" => Self::Quantity,
            "intorstring" => Self::IntOrString,
            "time" => Self::Time,
            "microtime" => Self::MicroTime,
            "json" => Self::Json,
            "strings" => Self::Strings,
            "empty" => Self::Empty,
            "schemaorlist" => Self::SchemaOr(*index.get(SCHEMA)?, Or::List),
            "schemaorbool" => Self::SchemaOr(*index.get(SCHEMA)?, Or::Bool),
            "schemaorstrings" => Self::SchemaOr(*index.get(SCHEMA)?, Or::Strings),
            message => Self::Message(*index.get(message)?),
        })
    }
}
