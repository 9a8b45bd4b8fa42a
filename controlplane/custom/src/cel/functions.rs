//! What operators and functions do with values.
//!
//! # Source
//! cel-go `common/types`, `common/stdlib`, and Kubernetes `staging/src/k8s.io/apiserver/pkg/cel/library`.

use std::{cmp::Ordering, collections::BTreeMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};

use super::{
    EvalError, Type,
    ast::Op,
    convert,
    eval::{Machine, Result, key_of},
    library, strings, temporal,
    value::{Key, Value},
};
use crate::schema::ListKind;

type Checked<T> = std::result::Result<T, EvalError>;

pub(crate) fn overflow() -> EvalError {
    EvalError::new("integer overflow")
}

/// Whether two values are the same.
pub(crate) fn equal<'a>(machine: &Machine<'a, '_>, a: &Value<'a>, b: &Value<'a>) -> Checked<bool> {
    machine.spend(1)?;
    if let (Some(a), Some(b)) = (Number::of(a), Number::of(b)) {
        return Ok(a.compare(b) == Some(Ordering::Equal));
    }
    Ok(match (a, b) {
        (Value::Null, Value::Null) => true,
        (Value::Bool(a), Value::Bool(b)) => a == b,
        (Value::String(x), Value::String(y)) => {
            machine.spend_bytes(x.len().min(y.len()))?;
            **x == **y
        }
        (Value::Bytes(x), Value::Bytes(y)) => {
            machine.spend_bytes(x.len().min(y.len()))?;
            x == y
        }
        (Value::Duration(a), Value::Duration(b)) => a == b,
        (Value::Timestamp(a), Value::Timestamp(b)) => a == b,
        (Value::Type(a), Value::Type(b)) => same_type(a, b),
        (Value::Optional(a), Value::Optional(b)) => match (a, b) {
            (Some(a), Some(b)) => equal(machine, a, b)?,
            (a, b) => a.is_none() && b.is_none(),
        },
        (Value::Library(a, _), Value::Library(b, _)) => a.opaque_eq(&**b),
        (Value::List(_) | Value::JsonList(..), Value::List(_) | Value::JsonList(..)) => same_lists(machine, a, b)?,
        (
            Value::Map(_) | Value::JsonMap(..) | Value::Built(_),
            Value::Map(_) | Value::JsonMap(..) | Value::Built(_),
        ) => same_maps(machine, a, b)?,
        _ => false,
    })
}

fn same_type(a: &Type, b: &Type) -> bool {
    match (a, b) {
        (Type::List(_), Type::List(_)) | (Type::Map(..), Type::Map(..)) | (Type::Optional(_), Type::Optional(_)) => {
            true
        }
        (a, b) => a == b,
    }
}

fn same_lists<'a>(machine: &Machine<'a, '_>, a: &Value<'a>, b: &Value<'a>) -> Checked<bool> {
    if a.size() != b.size() {
        return Ok(false);
    }
    if list_kind(a).is_some() {
        return contains_all(machine, a, b);
    }
    for i in 0..usize::try_from(a.size()).unwrap_or(0) {
        let (Some(a), Some(b)) = (a.nth(i), b.nth(i)) else { return Ok(false) };
        if !equal(machine, &a, &b)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Of a list of the input whose order means nothing.
fn list_kind<'a>(value: &Value<'a>) -> Option<&'a ListKind> {
    match value {
        Value::JsonList(_, Some(schema)) if schema.list != ListKind::Atomic => Some(&schema.list),
        _ => None,
    }
}

/// Whether all items of `b` are in `a`.
pub(crate) fn contains_all<'a>(machine: &Machine<'a, '_>, a: &Value<'a>, b: &Value<'a>) -> Checked<bool> {
    for i in 0..usize::try_from(b.size()).unwrap_or(0) {
        let Some(item) = b.nth(i) else { return Ok(false) };
        if position(machine, a, &item)?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Where an item first is.
pub(crate) fn position<'a>(machine: &Machine<'a, '_>, list: &Value<'a>, item: &Value<'a>) -> Checked<Option<usize>> {
    for i in 0..usize::try_from(list.size()).unwrap_or(0) {
        if let Some(other) = list.nth(i)
            && equal(machine, &other, item)?
        {
            return Ok(Some(i));
        }
    }
    Ok(None)
}

fn same_maps<'a>(machine: &Machine<'a, '_>, a: &Value<'a>, b: &Value<'a>) -> Checked<bool> {
    let (Some(left), Some(right)) = (a.entries(), b.entries()) else { return Ok(false) };
    machine.spend(left.len() as u64)?;
    if left.len() != right.len() {
        return Ok(false);
    }
    for (key, value) in left {
        match b.item(&key) {
            Ok(other) if equal(machine, &value, &other)? => {}
            _ => return Ok(false),
        }
    }
    Ok(true)
}

/// A number of any of the three types, for comparing across them.
#[derive(Clone, Copy)]
enum Number {
    Whole(i128),
    Double(f64),
}

impl Number {
    fn of(value: &Value<'_>) -> Option<Self> {
        Some(match value {
            Value::Int(n) => Self::Whole(i128::from(*n)),
            Value::Uint(n) => Self::Whole(i128::from(*n)),
            Value::Double(n) => Self::Double(*n),
            _ => return None,
        })
    }

    #[expect(clippy::cast_precision_loss, reason = "as cel-go compares")]
    fn compare(self, other: Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Whole(a), Self::Whole(b)) => Some(a.cmp(&b)),
            (Self::Whole(a), Self::Double(b)) => (a as f64).partial_cmp(&b),
            (Self::Double(a), Self::Whole(b)) => a.partial_cmp(&(b as f64)),
            (Self::Double(a), Self::Double(b)) => a.partial_cmp(&b),
        }
    }
}

/// Which of two values comes first.
pub(crate) fn compare<'a>(machine: &Machine<'a, '_>, a: &Value<'a>, b: &Value<'a>) -> Checked<Ordering> {
    machine.spend(1)?;
    if let (Some(a), Some(b)) = (Number::of(a), Number::of(b)) {
        return a.compare(b).ok_or_else(|| EvalError::new("NaN values cannot be ordered"));
    }
    Ok(match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::String(a), Value::String(b)) => {
            machine.spend_bytes(a.len().min(b.len()))?;
            a.cmp(b)
        }
        (Value::Bytes(a), Value::Bytes(b)) => {
            machine.spend_bytes(a.len().min(b.len()))?;
            a.cmp(b)
        }
        (Value::Duration(a), Value::Duration(b)) => a.cmp(b),
        (Value::Timestamp(a), Value::Timestamp(b)) => a.cmp(b),
        _ => return Err(EvalError::overload()),
    })
}

/// Sorts by keys that must be comparable.
pub(crate) fn sort<'a, T>(machine: &Machine<'a, '_>, items: &mut [T], key: impl Fn(&T) -> &Value<'a>) -> Checked<()> {
    let mut failed = None;
    items.sort_by(|a, b| match compare(machine, key(a), key(b)) {
        Ok(order) => order,
        Err(error) => {
            failed.get_or_insert(error);
            Ordering::Equal
        }
    });
    failed.map_or(Ok(()), Err)
}

/// An operator with two sides.
pub(crate) fn binary<'a>(machine: &Machine<'a, '_>, op: Op, a: &Value<'a>, b: &Value<'a>) -> Result<'a> {
    let ordered = |wanted: fn(Ordering) -> bool| compare(machine, a, b).map(|o| Value::Bool(wanted(o)));
    match op {
        Op::Eq => equal(machine, a, b).map(Value::Bool),
        Op::Ne => equal(machine, a, b).map(|same| Value::Bool(!same)),
        Op::Lt => ordered(Ordering::is_lt),
        Op::Le => ordered(Ordering::is_le),
        Op::Gt => ordered(Ordering::is_gt),
        Op::Ge => ordered(Ordering::is_ge),
        Op::In => contains(machine, b, a).map(Value::Bool),
        Op::Add => add(machine, a, b),
        Op::Sub => subtract(a, b),
        Op::Mul | Op::Div | Op::Rem => multiply(op, a, b),
    }
}

fn contains<'a>(machine: &Machine<'a, '_>, container: &Value<'a>, item: &Value<'a>) -> Checked<bool> {
    match container {
        Value::List(_) | Value::JsonList(..) => Ok(position(machine, container, item)?.is_some()),
        Value::Map(_) | Value::JsonMap(..) | Value::Built(_) => {
            Ok(key_of(item).is_ok() && container.item(item).is_ok())
        }
        _ => Err(EvalError::overload()),
    }
}

pub(crate) fn add<'a>(machine: &Machine<'a, '_>, a: &Value<'a>, b: &Value<'a>) -> Result<'a> {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => a.checked_add(*b).map(Value::Int).ok_or_else(overflow),
        (Value::Uint(a), Value::Uint(b)) => {
            a.checked_add(*b).map(Value::Uint).ok_or_else(|| EvalError::new("unsigned integer overflow"))
        }
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a + b)),
        (Value::String(a), Value::String(b)) => {
            machine.spend_bytes(a.len() + b.len())?;
            Ok(Value::string([&**a, &**b].concat()))
        }
        (Value::Bytes(a), Value::Bytes(b)) => {
            machine.spend_bytes(a.len() + b.len())?;
            Ok(Value::Bytes(Arc::from([&**a, &**b].concat())))
        }
        (Value::Duration(a), Value::Duration(b)) => a.checked_add(*b).and_then(duration).ok_or_else(overflow),
        (Value::Timestamp(t), Value::Duration(d)) | (Value::Duration(d), Value::Timestamp(t)) => moved(*t, *d),
        (Value::List(_) | Value::JsonList(..), Value::List(_) | Value::JsonList(..)) => joined(machine, a, b),
        _ => Err(EvalError::overload()),
    }
}

/// Durations fit into 64 bits of nanoseconds.
fn duration<'a>(d: SignedDuration) -> Option<Value<'a>> {
    i64::try_from(d.as_nanos()).ok().map(|n| Value::Duration(SignedDuration::from_nanos(n)))
}

fn moved<'a>(t: Timestamp, d: SignedDuration) -> Result<'a> {
    let moved = t.checked_add(d).ok().filter(|t| temporal::in_range(*t));
    moved.map(Value::Timestamp).ok_or_else(|| EvalError::new("timestamp overflow"))
}

/// Lists one after the other; those of the input that are sets or maps as such.
fn joined<'a>(machine: &Machine<'a, '_>, a: &Value<'a>, b: &Value<'a>) -> Result<'a> {
    machine.spend(a.size() + b.size())?;
    let (Some(mut items), Some(more)) = (a.items(), b.items()) else { return Err(EvalError::overload()) };
    match list_kind(a) {
        None => items.extend(more),
        Some(ListKind::Map(keys)) => {
            for item in more {
                let same = |other: &Value<'a>| same_keys(machine, keys, other, &item);
                let found = find(&items, same)?;
                match found {
                    Some(i) => items[i] = item,
                    None => items.push(item),
                }
            }
        }
        Some(_) => {
            for item in more {
                if find(&items, |other| equal(machine, other, &item))?.is_none() {
                    items.push(item);
                }
            }
        }
    }
    Ok(Value::list(items))
}

fn find<'a>(items: &[Value<'a>], test: impl Fn(&Value<'a>) -> Checked<bool>) -> Checked<Option<usize>> {
    for (i, item) in items.iter().enumerate() {
        if test(item)? {
            return Ok(Some(i));
        }
    }
    Ok(None)
}

fn same_keys<'a>(machine: &Machine<'a, '_>, keys: &[String], a: &Value<'a>, b: &Value<'a>) -> Checked<bool> {
    for key in keys {
        let key = super::escape(key).unwrap_or(key.into());
        let same = match (a.field(&key)?, b.field(&key)?) {
            (Some(a), Some(b)) => equal(machine, &a, &b)?,
            (a, b) => a.is_none() && b.is_none(),
        };
        if !same {
            return Ok(false);
        }
    }
    Ok(true)
}

fn subtract<'a>(a: &Value<'a>, b: &Value<'a>) -> Result<'a> {
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => a.checked_sub(*b).map(Value::Int).ok_or_else(overflow),
        (Value::Uint(a), Value::Uint(b)) => {
            a.checked_sub(*b).map(Value::Uint).ok_or_else(|| EvalError::new("unsigned integer overflow"))
        }
        (Value::Double(a), Value::Double(b)) => Ok(Value::Double(a - b)),
        (Value::Duration(a), Value::Duration(b)) => a.checked_sub(*b).and_then(duration).ok_or_else(overflow),
        (Value::Timestamp(t), Value::Duration(d)) => d.checked_neg().ok_or_else(overflow).and_then(|d| moved(*t, d)),
        (Value::Timestamp(a), Value::Timestamp(b)) => duration(a.duration_since(*b)).ok_or_else(overflow),
        _ => Err(EvalError::overload()),
    }
}

fn multiply<'a>(op: Op, a: &Value<'a>, b: &Value<'a>) -> Result<'a> {
    let by_zero = || EvalError::new(if op == Op::Div { "division by zero" } else { "modulus by zero" });
    match (a, b) {
        (Value::Int(_), Value::Int(0)) | (Value::Uint(_), Value::Uint(0)) if op != Op::Mul => Err(by_zero()),
        (Value::Int(a), Value::Int(b)) => match op {
            Op::Mul => a.checked_mul(*b),
            Op::Div => a.checked_div(*b),
            _ => a.checked_rem(*b),
        }
        .map(Value::Int)
        .ok_or_else(overflow),
        (Value::Uint(a), Value::Uint(b)) => match op {
            Op::Mul => a.checked_mul(*b),
            Op::Div => a.checked_div(*b),
            _ => a.checked_rem(*b),
        }
        .map(Value::Uint)
        .ok_or_else(|| EvalError::new("unsigned integer overflow")),
        (Value::Double(a), Value::Double(b)) if op == Op::Mul => Ok(Value::Double(a * b)),
        (Value::Double(a), Value::Double(b)) if op == Op::Div => Ok(Value::Double(a / b)),
        _ => Err(EvalError::overload()),
    }
}

/// A function or method by its name; the target of a method is the first value.
pub(crate) fn call<'a>(machine: &Machine<'a, '_>, name: &str, is_method: bool, args: Vec<Value<'a>>) -> Result<'a> {
    match (name, args.as_slice()) {
        ("dyn", [value]) => Ok(value.clone()),
        ("type", [value]) => Ok(Value::Type(value.type_of())),
        ("size", [value]) => size(machine, value),
        ("int", [value]) => convert::to_int(value),
        ("uint", [value]) => convert::to_uint(value),
        ("double", [value]) => convert::to_double(value),
        ("bool", [value]) => convert::to_bool(value),
        ("bytes", [Value::String(s)]) => {
            machine.spend_bytes(s.len())?;
            Ok(Value::Bytes(Arc::from(s.as_bytes())))
        }
        ("bytes", [Value::Bytes(b)]) => Ok(Value::Bytes(Arc::clone(b))),
        ("string", [value]) if !matches!(value, Value::Library(..)) => convert::to_string(machine, value),
        ("timestamp", [value]) => convert::to_timestamp(value),
        ("duration", [value]) => convert::to_duration(value),
        ("optional.none", []) => Ok(Value::Optional(None)),
        ("optional.of", [value]) => Ok(Value::some(value.clone())),
        ("optional.ofNonZeroValue", [value]) => {
            Ok(if is_zero(value) { Value::Optional(None) } else { Value::some(value.clone()) })
        }
        ("hasValue", [Value::Optional(inner)]) => Ok(Value::Bool(inner.is_some())),
        ("value", [Value::Optional(inner)]) => {
            inner.as_ref().map(|v| (**v).clone()).ok_or_else(|| EvalError::new("optional.none() dereference"))
        }
        ("or" | "orValue", [Value::Optional(None), other]) => Ok(other.clone()),
        (_, [Value::Timestamp(_) | Value::Duration(_), ..]) if name.starts_with("get") => convert::parts(name, &args),
        _ => lists(machine, name, is_method, args),
    }
}

fn lists<'a>(machine: &Machine<'a, '_>, name: &str, is_method: bool, args: Vec<Value<'a>>) -> Result<'a> {
    match (name, args.as_slice()) {
        ("sets.contains", [a, b]) => contains_all(machine, a, b).map(Value::Bool),
        ("sets.equivalent", [a, b]) => Ok(Value::Bool(contains_all(machine, a, b)? && contains_all(machine, b, a)?)),
        ("sets.intersects", [a, b]) => {
            for item in b.items().unwrap_or_default() {
                if position(machine, a, &item)?.is_some() {
                    return Ok(Value::Bool(true));
                }
            }
            Ok(Value::Bool(false))
        }
        ("lists.range", [Value::Int(n)]) => {
            let n = u64::try_from(*n).unwrap_or(0);
            machine.spend(n)?;
            Ok(Value::list((0..i64::try_from(n).unwrap_or(0)).map(Value::Int).collect()))
        }
        (_, [Value::List(_) | Value::JsonList(..), ..]) if is_method && name != "format" => {
            list_method(machine, name, &args)
        }
        ("first" | "last" | "flatten", _) => Err(EvalError::overload()),
        _ => match strings::call(machine, name, is_method, &args) {
            Some(result) => result,
            None => library::call(machine, name, is_method, args),
        },
    }
}

fn list_method<'a>(machine: &Machine<'a, '_>, name: &str, args: &[Value<'a>]) -> Result<'a> {
    let list = &args[0];
    machine.spend(list.size())?;
    let mut items = list.items().unwrap_or_default();
    let found = |i: Option<usize>| Value::Int(i.and_then(|i| i64::try_from(i).ok()).unwrap_or(-1));
    match (name, &args[1..]) {
        ("isSorted", []) => {
            for pair in items.windows(2) {
                if compare(machine, &pair[0], &pair[1])?.is_gt() {
                    return Ok(Value::Bool(false));
                }
            }
            Ok(Value::Bool(true))
        }
        ("sum", []) => {
            let mut items = items.into_iter();
            let first = items.next().unwrap_or(Value::Int(0));
            items.try_fold(first, |sum, item| add(machine, &sum, &item))
        }
        ("min" | "max", []) => extreme(machine, name == "max", items),
        ("indexOf", [item]) => position(machine, list, item).map(found),
        ("lastIndexOf", [item]) => {
            for (i, other) in items.iter().enumerate().rev() {
                if equal(machine, other, item)? {
                    return Ok(found(Some(i)));
                }
            }
            Ok(found(None))
        }
        ("includes", [item]) => position(machine, list, item).map(|i| Value::Bool(i.is_some())),
        ("slice", [Value::Int(from), Value::Int(to)]) => slice(items, *from, *to),
        ("flatten", []) => flatten(machine, items, 1).map(Value::list),
        ("flatten", [Value::Int(depth)]) if *depth >= 0 => flatten(machine, items, (*depth).min(64)).map(Value::list),
        ("distinct", []) => {
            let mut kept: Vec<Value<'a>> = Vec::new();
            for item in items {
                if find(&kept, |other| equal(machine, other, &item))?.is_none() {
                    kept.push(item);
                }
            }
            Ok(Value::list(kept))
        }
        ("sort", []) => {
            sort(machine, &mut items, |v| v)?;
            Ok(Value::list(items))
        }
        ("reverse", []) => {
            items.reverse();
            Ok(Value::list(items))
        }
        ("first", []) => Ok(Value::Optional(items.into_iter().next().map(Arc::new))),
        ("last", []) => Ok(Value::Optional(items.pop().map(Arc::new))),
        ("join", []) => strings::join(machine, &items, ""),
        ("join", [Value::String(separator)]) => strings::join(machine, &items, separator),
        _ => Err(EvalError::overload()),
    }
}

fn extreme<'a>(machine: &Machine<'a, '_>, greatest: bool, items: Vec<Value<'a>>) -> Result<'a> {
    let mut items = items.into_iter();
    let name = if greatest { "max" } else { "min" };
    let mut best = items.next().ok_or_else(|| EvalError::new(format!("{name} called on empty list")))?;
    for item in items {
        let order = compare(machine, &item, &best)?;
        if if greatest { order.is_gt() } else { order.is_lt() } {
            best = item;
        }
    }
    Ok(best)
}

fn slice<'a>(items: Vec<Value<'a>>, from: i64, to: i64) -> Result<'a> {
    let wrong = |why: &str| Err(EvalError::new(format!("cannot slice({from}, {to}), {why}")));
    match (usize::try_from(from), usize::try_from(to)) {
        (Ok(f), Ok(t)) if f > t => wrong("start index must be less than or equal to end index"),
        (Ok(f), Ok(t)) => match items.get(f..t) {
            Some(part) => Ok(Value::list(part.to_vec())),
            None => wrong(&format!("list is length {}", items.len())),
        },
        _ => wrong("negative indexes not supported"),
    }
}

fn flatten<'a>(machine: &Machine<'a, '_>, items: Vec<Value<'a>>, depth: i64) -> Checked<Vec<Value<'a>>> {
    let mut flat = Vec::new();
    for item in items {
        machine.spend(1)?;
        match item.items() {
            Some(inner) if depth > 0 => flat.extend(flatten(machine, inner, depth - 1)?),
            _ => flat.push(item),
        }
    }
    Ok(flat)
}

fn size<'a>(machine: &Machine<'a, '_>, value: &Value<'a>) -> Result<'a> {
    let size = match value {
        Value::String(text) => {
            machine.spend_bytes(text.len())?;
            text.chars().count() as u64
        }
        Value::Bytes(_) | Value::List(_) | Value::Map(_) | Value::JsonList(..) | Value::JsonMap(..) => value.size(),
        _ => return Err(EvalError::overload()),
    };
    Ok(Value::Int(i64::try_from(size).unwrap_or(i64::MAX)))
}

fn is_zero(value: &Value<'_>) -> bool {
    match value {
        Value::Null | Value::Bool(false) | Value::Int(0) | Value::Uint(0) | Value::Optional(None) => true,
        Value::Double(n) => *n == 0.0,
        Value::Duration(d) => d.is_zero(),
        Value::String(_)
        | Value::Bytes(_)
        | Value::List(_)
        | Value::Map(_)
        | Value::JsonList(..)
        | Value::JsonMap(..) => value.size() == 0,
        Value::Built(built) => built.fields.is_empty(),
        _ => false,
    }
}

/// A map from texts.
pub(crate) fn text_map<'a>(entries: impl IntoIterator<Item = (String, Value<'a>)>) -> Value<'a> {
    let map: BTreeMap<Key, Value<'a>> = entries.into_iter().map(|(k, v)| (Key::String(Arc::from(k)), v)).collect();
    Value::Map(Arc::new(map))
}
