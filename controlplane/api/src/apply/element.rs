//! [`PathElement`]: one step of a path into an object, and the order of steps and of JSON values.
//!
//! # Source
//! `sigs.k8s.io/structured-merge-diff/fieldpath/element.go` and `value/value.go`.

use std::{cmp::Ordering, fmt};

use serde_json::{Number, Value};

use super::fields::value_text;

/// One step of a path. The variants are in the order in which Kubernetes sorts them.
#[derive(Debug, Clone)]
pub(crate) enum PathElement {
    /// A field of an object.
    Field(Box<str>),
    /// The item of a list that has these fields, sorted by name.
    Key(Box<[(Box<str>, Value)]>),
    /// The item of a set that has this value.
    Value(Value),
    /// The item of a list at this place.
    Index(i64),
}

impl PathElement {
    pub(crate) fn field(name: &str) -> Self {
        Self::Field(name.into())
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Field(_) => 0,
            Self::Key(_) => 1,
            Self::Value(_) => 2,
            Self::Index(_) => 3,
        }
    }
}

impl Ord for PathElement {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Field(a), Self::Field(b)) => a.cmp(b),
            (Self::Key(a), Self::Key(b)) => {
                let pairs = a.iter().zip(b.iter());
                let orders = pairs.map(|(x, y)| x.0.cmp(&y.0).then_with(|| compare_values(&x.1, &y.1)));
                lexical(orders, a.len(), b.len())
            }
            (Self::Value(a), Self::Value(b)) => compare_values(a, b),
            (Self::Index(a), Self::Index(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for PathElement {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for PathElement {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for PathElement {}

/// As conflicts and errors show it: `.spec`, `[name="a"]`, `[="finalizer"]`, `[0]`.
impl fmt::Display for PathElement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Key(keys) => {
                f.write_str("[")?;
                for (i, (name, value)) in keys.iter().enumerate() {
                    let comma = if i > 0 { "," } else { "" };
                    write!(f, "{comma}{name}={}", value_text(value))?;
                }
                f.write_str("]")
            }
            Self::Value(value) => write!(f, "[={}]", value_text(value)),
            Self::Index(index) => write!(f, "[{index}]"),
        }
    }
}

fn lexical(mut pairs: impl Iterator<Item = Ordering>, left: usize, right: usize) -> Ordering {
    pairs.find(|o| o.is_ne()).unwrap_or_else(|| left.cmp(&right))
}

/// A total order of JSON values: numbers by value, then strings, booleans, lists, objects, null.
pub(crate) fn compare_values(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => compare_numbers(a, b),
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Array(a), Value::Array(b)) => {
            lexical(a.iter().zip(b).map(|(x, y)| compare_values(x, y)), a.len(), b.len())
        }
        (Value::Object(a), Value::Object(b)) => {
            let sorted = |m: &'_ serde_json::Map<String, Value>| {
                let mut pairs: Vec<(String, Value)> = m.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
                pairs.sort_by(|x, y| x.0.cmp(&y.0));
                pairs
            };
            let (a, b) = (sorted(a), sorted(b));
            let pairs = a.iter().zip(&b);
            let orders = pairs.map(|(x, y)| x.0.cmp(&y.0).then_with(|| compare_values(&x.1, &y.1)));
            lexical(orders, a.len(), b.len())
        }
        _ => value_rank(a).cmp(&value_rank(b)),
    }
}

fn value_rank(value: &Value) -> u8 {
    match value {
        Value::Number(_) => 0,
        Value::String(_) => 1,
        Value::Bool(_) => 2,
        Value::Array(_) => 3,
        Value::Object(_) => 4,
        Value::Null => 5,
    }
}

fn compare_numbers(a: &Number, b: &Number) -> Ordering {
    if let (Some(a), Some(b)) = (a.as_i64(), b.as_i64()) {
        return a.cmp(&b);
    }
    if let (Some(a), Some(b)) = (a.as_u64(), b.as_u64()) {
        return a.cmp(&b);
    }
    a.as_f64().partial_cmp(&b.as_f64()).unwrap_or(Ordering::Equal)
}

/// Whether two values are the same; `1` and `1.0` are.
pub(crate) fn same_value(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || compare_numbers(a, b).is_eq(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(x, y)| same_value(x, y)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(k, x)| b.get(k).is_some_and(|y| same_value(x, y)))
        }
        _ => a == b,
    }
}
