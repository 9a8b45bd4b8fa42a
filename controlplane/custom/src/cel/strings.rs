//! What can be done with texts. Positions count characters, as in cel-go.
//!
//! # Source
//! cel-go `ext/strings.go`, Kubernetes `staging/src/k8s.io/apiserver/pkg/cel/library/regex.go`.

use std::{cell::RefCell, collections::HashMap};

use regex::{Regex, RegexBuilder};

use super::{
    EvalError,
    eval::{Machine, Result},
    value::Value,
};

/// Bytes of a compiled pattern.
const PATTERN_BYTES_MAX: usize = 1 << 20;
/// Patterns kept compiled by each thread.
const PATTERNS_MAX: usize = 256;

thread_local! {
    static PATTERNS: RefCell<HashMap<String, Regex>> = RefCell::default();
}

/// A compiled pattern. Matching takes time in proportion to the text, whatever the pattern.
pub(crate) fn pattern(text: &str) -> std::result::Result<Regex, String> {
    if let Some(known) = PATTERNS.with_borrow(|known| known.get(text).cloned()) {
        return Ok(known);
    }
    let compiled = RegexBuilder::new(&super::pattern::from_go(text))
        .size_limit(PATTERN_BYTES_MAX)
        .dfa_size_limit(PATTERN_BYTES_MAX)
        .nest_limit(100)
        .build()
        .map_err(|error| format!("error parsing regexp: {error}"))?;
    PATTERNS.with_borrow_mut(|known| {
        if known.len() >= PATTERNS_MAX {
            known.clear();
        }
        known.insert(text.to_owned(), compiled.clone());
    });
    Ok(compiled)
}

fn matcher(machine: &Machine<'_, '_>, text: &str, regex: &str) -> std::result::Result<Regex, EvalError> {
    let steps = (text.len() as u64 + 1).div_ceil(10);
    machine.spend(steps.saturating_mul((regex.len() as u64).div_ceil(4)))?;
    pattern(regex).map_err(EvalError::new)
}

fn int<'a>(n: usize) -> Value<'a> {
    Value::Int(i64::try_from(n).unwrap_or(i64::MAX))
}

fn out_of_range(n: i64) -> EvalError {
    EvalError::new(format!("index out of range: {n}"))
}

/// A function on texts; `None` when it is none.
pub(crate) fn call<'a>(
    machine: &Machine<'a, '_>,
    name: &str,
    is_method: bool,
    args: &[Value<'a>],
) -> Option<Result<'a>> {
    let Some(Value::String(text)) = args.first() else { return None };
    let text: &str = text;
    let paid = machine.spend_bytes(text.len());
    if let Err(error) = paid {
        return Some(Err(error));
    }
    let second = args.get(1);
    let other = second.and_then(Value::as_str);
    let done = |value| Some(Ok(value));
    match (name, is_method, args.len()) {
        ("contains", true, 2) => done(Value::Bool(text.contains(other?))),
        ("startsWith", true, 2) => done(Value::Bool(text.starts_with(other?))),
        ("endsWith", true, 2) => done(Value::Bool(text.ends_with(other?))),
        ("matches", _, 2) => Some(matcher(machine, text, other?).map(|r| Value::Bool(r.is_match(text)))),
        ("lowerAscii", true, 1) => done(Value::string(text.to_ascii_lowercase())),
        ("upperAscii", true, 1) => done(Value::string(text.to_ascii_uppercase())),
        ("trim", true, 1) => done(Value::string(text.trim())),
        ("reverse", true, 1) => done(Value::string(text.chars().rev().collect::<String>())),
        ("strings.quote", false, 1) => done(Value::string(quote(text))),
        ("charAt" | "substring", true, _) => Some(part(name, text, args)),
        ("indexOf" | "lastIndexOf", true, 2 | 3) => Some(index_of(name, text, args)),
        ("replace", true, 3 | 4) => Some(replace(machine, text, args)),
        ("split", true, 2 | 3) => Some(split(machine, text, args)),
        ("find", true, 2) => {
            Some(matcher(machine, text, other?).map(|r| Value::string(r.find(text).map_or("", |m| m.as_str()))))
        }
        ("findAll", true, 2 | 3) => Some(find_all(machine, text, args)),
        _ => None,
    }
}

fn find_all<'a>(machine: &Machine<'a, '_>, text: &str, args: &[Value<'a>]) -> Result<'a> {
    let limit = match &args[2..] {
        [] => usize::MAX,
        [Value::Int(n)] => usize::try_from(*n).unwrap_or(usize::MAX),
        _ => return Err(EvalError::overload()),
    };
    let regex = matcher(machine, text, args[1].as_str().ok_or_else(EvalError::overload)?)?;
    let mut found = Vec::new();
    for hit in regex.find_iter(text).take(limit) {
        machine.spend(1)?;
        found.push(Value::string(hit.as_str()));
    }
    Ok(Value::list(found))
}

fn part<'a>(name: &str, text: &str, args: &[Value<'a>]) -> Result<'a> {
    let chars = text.chars().count();
    let position = |n: i64| usize::try_from(n).ok().filter(|n| *n <= chars).ok_or_else(|| out_of_range(n));
    let (from, to) = match (name, &args[1..]) {
        ("charAt", [Value::Int(n)]) => (position(*n)?, position(*n)? + 1),
        ("substring", [Value::Int(n)]) => (position(*n)?, chars),
        ("substring", [Value::Int(n), Value::Int(m)]) => (position(*n)?, position(*m)?),
        _ => return Err(EvalError::overload()),
    };
    if from > to {
        return Err(EvalError::new(format!("invalid substring range. start: {from}, end: {to}")));
    }
    Ok(Value::string(text.chars().skip(from).take(to - from).collect::<String>()))
}

fn index_of<'a>(name: &str, text: &str, args: &[Value<'a>]) -> Result<'a> {
    let Value::String(wanted) = &args[1] else { return Err(EvalError::overload()) };
    let chars = text.chars().count();
    let offset = match &args[2..] {
        [] => None,
        [Value::Int(n)] => Some(usize::try_from(*n).ok().filter(|n| *n <= chars).ok_or_else(|| out_of_range(*n))?),
        _ => return Err(EvalError::overload()),
    };
    let byte_at = |n: usize| text.char_indices().nth(n).map_or(text.len(), |(i, _)| i);
    let found = if name == "indexOf" {
        let from = byte_at(offset.unwrap_or(0));
        text[from..].find(&**wanted).map(|i| from + i)
    } else {
        let end = offset.map_or(text.len(), |n| (byte_at(n) + wanted.len()).min(text.len()));
        let end = (end..=text.len()).find(|i| text.is_char_boundary(*i)).unwrap_or(text.len());
        text[..end].rfind(&**wanted)
    };
    Ok(found.map_or(Value::Int(-1), |byte| int(text[..byte].chars().count())))
}

fn replace<'a>(machine: &Machine<'a, '_>, text: &str, args: &[Value<'a>]) -> Result<'a> {
    let (Value::String(from), Value::String(to)) = (&args[1], &args[2]) else { return Err(EvalError::overload()) };
    let limit = match &args[3..] {
        [] => usize::MAX,
        [Value::Int(n)] => usize::try_from(*n).unwrap_or(usize::MAX),
        _ => return Err(EvalError::overload()),
    };
    let hits = text.matches(&**from).take(limit).count();
    machine.spend_bytes(text.len().saturating_add(hits.saturating_mul(to.len())))?;
    Ok(Value::string(text.replacen(&**from, to, limit)))
}

fn split<'a>(machine: &Machine<'a, '_>, text: &str, args: &[Value<'a>]) -> Result<'a> {
    let Value::String(separator) = &args[1] else { return Err(EvalError::overload()) };
    let limit = match &args[2..] {
        [] => -1,
        [Value::Int(n)] => *n,
        _ => return Err(EvalError::overload()),
    };
    if limit == 0 {
        return Ok(Value::list(Vec::new()));
    }
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let parts: Vec<String> = if separator.is_empty() {
        machine.spend(text.len() as u64)?;
        let mut parts: Vec<String> = text.chars().take(limit - 1).map(String::from).collect();
        let rest: String = text.chars().skip(limit - 1).collect();
        parts.extend((!rest.is_empty()).then_some(rest));
        parts
    } else {
        machine.spend(text.matches(&**separator).count() as u64 + 1)?;
        text.splitn(limit, &**separator).map(str::to_owned).collect()
    };
    Ok(Value::list(parts.into_iter().map(Value::string).collect()))
}

/// Texts one after the other.
pub(crate) fn join<'a>(machine: &Machine<'a, '_>, items: &[Value<'a>], separator: &str) -> Result<'a> {
    let texts: Option<Vec<&str>> = items.iter().map(Value::as_str).collect();
    let texts = texts.ok_or_else(EvalError::overload)?;
    machine.spend_bytes(texts.iter().map(|t| t.len() + separator.len()).sum())?;
    Ok(Value::string(texts.join(separator)))
}

fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A floating point number as Go's `%g` shows it.
pub(crate) fn double(n: f64) -> String {
    if n.is_nan() {
        return "NaN".to_owned();
    }
    if n.is_infinite() {
        return if n > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let exponent = if n == 0.0 { 0.0 } else { n.abs().log10().floor() };
    if (-5.0..21.0).contains(&exponent) {
        return n.to_string();
    }
    let text = format!("{n:e}");
    match text.split_once('e') {
        Some((mantissa, exponent)) => {
            let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |d| ('-', d));
            format!("{mantissa}e{sign}{digits:0>2}")
        }
        None => text,
    }
}
