//! [`Value`]: what an expression works on. JSON is borrowed and read where it is looked at; nothing is copied before.

use std::{collections::BTreeMap, ops::Deref, sync::Arc};

use base64::Engine;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map as JsonMap, Value as Json};

use super::{Attributes, Decision, Type, temporal};
use crate::schema::{Kind, Schema};

/// A text: borrowed or shared.
#[derive(Debug, Clone)]
pub enum Text<'a> {
    /// Of the input.
    Borrowed(&'a str),
    /// Made.
    Shared(Arc<str>),
}

impl Deref for Text<'_> {
    type Target = str;
    fn deref(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Shared(text) => text,
        }
    }
}

/// A key of a map.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// A boolean.
    Bool(bool),
    /// A number; unsigned ones are the same keys as signed ones.
    Int(i128),
    /// A text.
    String(Arc<str>),
}

/// An object that an expression made: `Object{...}` or `JSONPatch{...}`.
#[derive(Debug, Clone)]
pub struct Built<'a> {
    /// Name of the type.
    pub name: String,
    /// The fields that were given.
    pub fields: BTreeMap<String, Value<'a>>,
}

/// A value.
#[derive(Clone)]
pub enum Value<'a> {
    /// `null`
    Null,
    /// A boolean.
    Bool(bool),
    /// A signed number.
    Int(i64),
    /// An unsigned number.
    Uint(u64),
    /// A floating point number.
    Double(f64),
    /// A text.
    String(Text<'a>),
    /// Bytes.
    Bytes(Arc<[u8]>),
    /// A list that an expression made.
    List(Arc<Vec<Value<'a>>>),
    /// A map that an expression made.
    Map(Arc<BTreeMap<Key, Value<'a>>>),
    /// A list of the input.
    JsonList(&'a [Json], Option<&'a Schema>),
    /// An object of the input.
    JsonMap(&'a JsonMap<String, Json>, Option<&'a Schema>),
    /// A duration.
    Duration(SignedDuration),
    /// A time.
    Timestamp(Timestamp),
    /// A type.
    Type(Type),
    /// A value that may be absent.
    Optional(Option<Arc<Value<'a>>>),
    /// An object that an expression made.
    Built(Arc<Built<'a>>),
    /// A value of a library: a quantity, an address, a version.
    Library(Arc<dyn kube_cel::cel::objects::Opaque>, &'static str),
    /// `authorizer`, with what has been said so far.
    Authorizer(Arc<Attributes>),
    /// `authorizer.group(g)`
    GroupCheck(Arc<Attributes>),
    /// `authorizer.path(p)`
    PathCheck(Arc<Attributes>),
    /// `authorizer.group(g).resource(r)`
    ResourceCheck(Arc<Attributes>),
    /// What the authorizer said.
    Decision(Arc<Decision>),
}

impl std::fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.to_json() {
            Ok(json) => write!(f, "{}({json})", self.type_name()),
            Err(_) => write!(f, "{}(..)", self.type_name()),
        }
    }
}

impl<'a> Value<'a> {
    /// A value of the input, read as its schema says.
    pub fn json(json: &'a Json, schema: Option<&'a Schema>) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(b) => Self::Bool(*b),
            Json::Number(n) => number(n, schema),
            Json::String(s) => text(s, schema),
            Json::Array(items) => Self::JsonList(items, schema),
            Json::Object(fields) => Self::JsonMap(fields, schema),
        }
    }

    /// A text.
    pub fn string(text: impl Into<Arc<str>>) -> Self {
        Self::String(Text::Shared(text.into()))
    }

    /// A list.
    pub fn list(items: Vec<Self>) -> Self {
        Self::List(Arc::new(items))
    }

    pub(crate) fn some(value: Self) -> Self {
        Self::Optional(Some(Arc::new(value)))
    }

    pub(crate) fn resource_check(attributes: Attributes) -> Self {
        Self::ResourceCheck(Arc::new(attributes))
    }

    /// Its boolean.
    pub fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(b) = self { Some(*b) } else { None }
    }

    /// Its text.
    pub fn as_str(&self) -> Option<&str> {
        if let Self::String(text) = self { Some(text) } else { None }
    }

    /// Whether it is `null`.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// As JSON: what was made by `Object{...}` and `JSONPatch{...}` included. Numbers that JSON has not become `null`.
    ///
    /// # Errors
    /// For values that JSON has no form for (types, absent values, those of libraries but quantities and the like).
    pub fn to_json(&self) -> Result<Json, super::EvalError> {
        use super::EvalError;
        Ok(match self {
            Self::Null => Json::Null,
            Self::Bool(b) => Json::Bool(*b),
            Self::Int(n) => Json::from(*n),
            Self::Uint(n) => Json::from(*n),
            Self::Double(n) => Json::from(*n),
            Self::String(text) => Json::from(&**text),
            Self::Bytes(bytes) => Json::from(base64::engine::general_purpose::STANDARD.encode(bytes)),
            Self::List(items) => Json::Array(items.iter().map(Self::to_json).collect::<Result<_, _>>()?),
            Self::Map(entries) => {
                let entry = |(k, v): (&Key, &Self)| Ok::<_, EvalError>((key_text(k), v.to_json()?));
                Json::Object(entries.iter().map(entry).collect::<Result<_, _>>()?)
            }
            Self::JsonList(items, _) => Json::Array(items.to_vec()),
            Self::JsonMap(fields, _) => Json::Object((*fields).clone()),
            Self::Duration(d) => Json::from(temporal::show_duration(*d)),
            Self::Timestamp(t) => Json::from(temporal::show_timestamp(*t)),
            Self::Built(built) => {
                let entry = |(k, v): (&String, &Self)| Ok::<_, EvalError>((k.clone(), v.to_json()?));
                Json::Object(built.fields.iter().map(entry).collect::<Result<_, _>>()?)
            }
            Self::Optional(Some(value)) => value.to_json()?,
            other => return Err(EvalError::new(format!("{} cannot be converted to JSON", other.type_name()))),
        })
    }

    /// The name of its type.
    pub fn type_name(&self) -> String {
        self.type_of().to_string()
    }

    /// Its type.
    pub fn type_of(&self) -> Type {
        match self {
            Self::Null => Type::Null,
            Self::Bool(_) => Type::Bool,
            Self::Int(_) => Type::Int,
            Self::Uint(_) => Type::Uint,
            Self::Double(_) => Type::Double,
            Self::String(_) => Type::String,
            Self::Bytes(_) => Type::Bytes,
            Self::List(_) | Self::JsonList(..) => Type::list(Type::Dyn),
            Self::Map(_) | Self::JsonMap(..) => Type::map(Type::Dyn, Type::Dyn),
            Self::Duration(_) => Type::Duration,
            Self::Timestamp(_) => Type::Timestamp,
            Self::Type(_) => Type::Type,
            Self::Optional(_) => Type::optional(Type::Dyn),
            Self::Built(built) => {
                Type::Struct(Arc::new(super::Struct { name: built.name.clone(), ..Default::default() }))
            }
            Self::Library(_, name) => Type::Opaque(name),
            Self::Authorizer(_) => Type::Opaque("kubernetes.authorization.Authorizer"),
            Self::GroupCheck(_) => Type::Opaque("kubernetes.authorization.GroupCheck"),
            Self::PathCheck(_) => Type::Opaque("kubernetes.authorization.PathCheck"),
            Self::ResourceCheck(_) => Type::Opaque("kubernetes.authorization.ResourceCheck"),
            Self::Decision(_) => Type::Opaque("kubernetes.authorization.Decision"),
        }
    }

    /// How much there is of it: bytes of a text, items of a list; 1 for the rest.
    pub(crate) fn size(&self) -> u64 {
        let size = match self {
            Self::String(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
            Self::List(items) => items.len(),
            Self::Map(entries) => entries.len(),
            Self::JsonList(items, _) => items.len(),
            Self::JsonMap(fields, _) => fields.len(),
            _ => 1,
        };
        size as u64
    }
}

pub(crate) fn key_text(key: &Key) -> String {
    match key {
        Key::Bool(b) => b.to_string(),
        Key::Int(n) => n.to_string(),
        Key::String(s) => s.to_string(),
    }
}

fn number<'a>(n: &serde_json::Number, schema: Option<&Schema>) -> Value<'a> {
    let kind = schema.filter(|s| !s.int_or_string).map_or(Kind::Any, |s| s.kind);
    let double = n.as_f64().unwrap_or(f64::NAN);
    match (kind, n.as_i64(), n.as_u64()) {
        (Kind::Number, ..) => Value::Double(double),
        (_, Some(n), _) => Value::Int(n),
        (_, None, Some(n)) => Value::Uint(n),
        #[expect(clippy::cast_possible_truncation, reason = "checked: a whole number in range")]
        (Kind::Integer, ..) if double.fract() == 0.0 && double.abs() < 9e18 => Value::Int(double as i64),
        _ => Value::Double(double),
    }
}

fn text<'a>(s: &'a str, schema: Option<&Schema>) -> Value<'a> {
    let plain = Value::String(Text::Borrowed(s));
    let Some(schema) = schema.filter(|s| !s.int_or_string && s.kind == Kind::String) else { return plain };
    let read = match schema.limits.format.as_deref() {
        Some("date-time") => temporal::parse_timestamp(s).map(Value::Timestamp),
        Some("date") => temporal::parse_date(s).map(Value::Timestamp),
        Some("duration") => temporal::parse_duration(s).map(Value::Duration),
        Some("byte") => {
            base64::engine::general_purpose::STANDARD.decode(s).ok().map(|bytes| Value::Bytes(Arc::from(bytes)))
        }
        _ => None,
    };
    read.unwrap_or(plain)
}
