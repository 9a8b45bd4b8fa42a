//! A JSON tree read from any serde format, that notices fields standing twice and has a bound on its nodes (so that
//! YAML aliases cannot blow it up).

use std::{collections::BTreeSet, fmt};

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Most values in one tree.
pub(crate) const NODES_MAX: usize = 1_000_000;
/// Most duplicates that are listed.
const DUPLICATES_MAX: usize = 100;

/// What is done about a field that stands twice.
pub(crate) enum Duplicates {
    /// Its path is noted and the last value counts.
    Collect(Vec<String>),
    /// It is an error.
    Refuse,
    /// It is an error, but for the first so many.
    RefuseAfter(usize),
    /// It is noted as Kubernetes words it, in the order of the text, and so is the first of each of some paths.
    Order(Order),
}

/// What [`Duplicates::Order`] looks for and finds.
#[derive(Default)]
pub(crate) struct Order {
    pub(crate) unknown: BTreeSet<String>,
    pub(crate) findings: Vec<String>,
}

impl Duplicates {
    pub(crate) fn into_paths(self) -> Vec<String> {
        match self {
            Self::Collect(paths) => paths,
            _ => Vec::new(),
        }
    }

    /// Notes a key. Answers with the error, if that is one.
    fn note(&mut self, path: &str, key: &str, is_duplicate: bool) -> Option<String> {
        match self {
            Self::Order(order) if is_duplicate => {
                if order.findings.len() < DUPLICATES_MAX {
                    order.findings.push(format!("duplicate field \"{path}\""));
                }
            }
            Self::Order(order) => {
                if order.unknown.remove(path) {
                    order.findings.push(format!("unknown field \"{path}\""));
                }
            }
            _ if !is_duplicate => {}
            Self::Refuse => return Some(format!("duplicate field \"{path}\"")),
            Self::RefuseAfter(0) => return Some(format!("key {key:?} already set in map")),
            Self::RefuseAfter(left) => *left -= 1,
            Self::Collect(paths) if paths.len() < DUPLICATES_MAX => paths.push(path.to_owned()),
            Self::Collect(_) => {}
        }
        None
    }
}

struct State<'a> {
    duplicates: &'a mut Duplicates,
    nodes: usize,
    /// `.key` and `[index]` of where reading is.
    path: String,
}

/// Reads one tree.
pub(crate) struct Tree<'a>(State<'a>);

impl<'a> Tree<'a> {
    pub(crate) fn new(duplicates: &'a mut Duplicates) -> Self {
        Self(State { duplicates, nodes: 0, path: String::new() })
    }
}

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(mut self, deserializer: D) -> Result<Value, D::Error> {
        Node(&mut self.0).deserialize(deserializer)
    }
}

struct Node<'s, 'a>(&'s mut State<'a>);

impl<'de> DeserializeSeed<'de> for Node<'_, '_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.0.nodes += 1;
        if self.0.nodes > NODES_MAX {
            return Err(D::Error::custom(format_args!("more than {NODES_MAX} values")));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_, '_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }
    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_f64<E: Error>(self, v: f64) -> Result<Value, E> {
        Number::from_f64(v).map(Value::Number).ok_or_else(|| E::custom("numbers must be finite"))
    }
    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(v.into())
    }
    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let state = self.0;
        let (mut items, length) = (Vec::new(), state.path.len());
        loop {
            state.path.push_str(&format!("[{}]", items.len()));
            let item = seq.next_element_seed(Node(state))?;
            state.path.truncate(length);
            match item {
                Some(item) => items.push(item),
                None => return Ok(Value::Array(items)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let state = self.0;
        let (mut fields, length) = (Map::new(), state.path.len());
        while let Some(key) = map.next_key_seed(KeySeed { state: &mut *state, fields: &fields })? {
            let value = map.next_value_seed(Node(state))?;
            state.path.truncate(length);
            fields.insert(key, value);
        }
        Ok(Value::Object(fields))
    }
}

/// A key of a map: YAML's numbers and booleans count as text, as with kubectl. Adds itself to the path. Duplicates are
/// refused here, so that the error has the place of the key.
struct KeySeed<'s, 'a> {
    state: &'s mut State<'a>,
    fields: &'s Map<String, Value>,
}

impl KeySeed<'_, '_> {
    fn accept<E: Error>(self, key: String) -> Result<String, E> {
        let path = &mut self.state.path;
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(&key);
        let is_duplicate = self.fields.contains_key(&key);
        match self.state.duplicates.note(path, &key, is_duplicate) {
            Some(error) => Err(E::custom(error)),
            None => Ok(key),
        }
    }
}

impl<'de> DeserializeSeed<'de> for KeySeed<'_, '_> {
    type Value = String;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for KeySeed<'_, '_> {
    type Value = String;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text as key")
    }
    fn visit_str<E: Error>(self, v: &str) -> Result<String, E> {
        self.accept(v.to_owned())
    }
    fn visit_string<E: Error>(self, v: String) -> Result<String, E> {
        self.accept(v)
    }
    fn visit_bool<E: Error>(self, v: bool) -> Result<String, E> {
        self.accept(v.to_string())
    }
    fn visit_i64<E: Error>(self, v: i64) -> Result<String, E> {
        self.accept(v.to_string())
    }
    fn visit_u64<E: Error>(self, v: u64) -> Result<String, E> {
        self.accept(v.to_string())
    }
}
