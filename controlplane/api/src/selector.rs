//! Label selectors and field selectors: parsing, matching, printing.
//!
//! A [`Selector`] without requirements matches everything; an absent `LabelSelector` matches nothing.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apimachinery/pkg/labels/selector.go` and `pkg/fields/selector.go`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::{
    error::ApiError,
    names,
    object::{AnyKind, Object},
};

mod lexer;

/// Longest selector that is read, in bytes.
pub const SELECTOR_BYTES_MAX: usize = 64 * 1024;

/// Why a text is no selector, in Kubernetes' words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(pub String);

impl From<SelectorError> for ApiError {
    fn from(error: SelectorError) -> Self {
        Self::bad_request(error.0)
    }
}

/// How a label is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operator {
    /// `k=v`
    Equals,
    /// `k!=v`: also true when the label is missing.
    NotEquals,
    /// `k in (a,b)`
    In,
    /// `k notin (a,b)`: also true when the label is missing.
    NotIn,
    /// `k`
    Exists,
    /// `!k`
    DoesNotExist,
    /// `k>5`
    GreaterThan,
    /// `k<5`
    LessThan,
}

/// One condition on a label.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// How it is compared.
    pub operator: Operator,
    /// With what.
    pub values: BTreeSet<String>,
}

impl Requirement {
    fn new(key: &str, operator: Operator, values: BTreeSet<String>) -> Result<Self, SelectorError> {
        let bad = |what: String| Err(SelectorError(what));
        match operator {
            Operator::In | Operator::NotIn if values.is_empty() => {
                return bad("values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty".into());
            }
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
                return bad("values: Invalid value: values set must be empty for exists and does not exist".into());
            }
            Operator::GreaterThan | Operator::LessThan => {
                if let Some(value) = values.iter().find(|v| v.parse::<i64>().is_err()) {
                    return bad(format!(
                        "values[0]: Invalid value: {value:?}: for 'Gt', 'Lt' operators, the value must be an integer"
                    ));
                }
            }
            _ => {}
        }
        check_key(key)?;
        values.iter().try_for_each(|value| check_value(key, value))?;
        Ok(Self { key: key.to_owned(), operator, values })
    }

    /// Whether labels fulfil it.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let Some(value) = labels.get(&self.key) else {
            return matches!(self.operator, Operator::NotEquals | Operator::NotIn | Operator::DoesNotExist);
        };
        let number = || Some((value.parse::<i64>().ok()?, self.values.first()?.parse::<i64>().ok()?));
        match self.operator {
            Operator::Equals | Operator::In => self.values.contains(value),
            Operator::NotEquals | Operator::NotIn => !self.values.contains(value),
            Operator::Exists => true,
            Operator::DoesNotExist => false,
            Operator::GreaterThan => number().is_some_and(|(label, wanted)| label > wanted),
            Operator::LessThan => number().is_some_and(|(label, wanted)| label < wanted),
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = || self.values.iter().map(String::as_str).collect::<Vec<_>>().join(",");
        match self.operator {
            Operator::Equals => write!(f, "{}={}", self.key, values()),
            Operator::NotEquals => write!(f, "{}!={}", self.key, values()),
            Operator::In => write!(f, "{} in ({})", self.key, values()),
            Operator::NotIn => write!(f, "{} notin ({})", self.key, values()),
            Operator::Exists => f.write_str(&self.key),
            Operator::DoesNotExist => write!(f, "!{}", self.key),
            Operator::GreaterThan => write!(f, "{}>{}", self.key, values()),
            Operator::LessThan => write!(f, "{}<{}", self.key, values()),
        }
    }
}

/// Conditions on labels, all of which must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Selector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

impl Selector {
    /// Matches everything.
    pub fn everything() -> Self {
        Self::default()
    }

    /// Matches nothing.
    pub fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    /// Matches what has all of these labels.
    pub fn from_labels(labels: &BTreeMap<String, String>) -> Self {
        let equals = |(key, value): (&String, &String)| Requirement {
            key: key.clone(),
            operator: Operator::Equals,
            values: BTreeSet::from([value.clone()]),
        };
        Self { requirements: labels.iter().map(equals).collect(), nothing: false }
    }

    /// Reads the string form: `a=b,c!=d,e in (x,y),!f,g notin (z)`.
    ///
    /// # Errors
    /// In Kubernetes' words, with what was found and what was expected.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        if text.len() > SELECTOR_BYTES_MAX {
            return Err(SelectorError(format!("selector is longer than {SELECTOR_BYTES_MAX} bytes")));
        }
        let mut requirements = lexer::Parser::new(text).parse()?;
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Self { requirements, nothing: false })
    }

    /// The selector that a `LabelSelector` means. `None` matches nothing, an empty one everything.
    ///
    /// # Errors
    /// An unknown operator, or values where none may be, or none where some must be.
    pub fn from_label_selector(selector: Option<&LabelSelector>) -> Result<Self, SelectorError> {
        let Some(selector) = selector else { return Ok(Self::nothing()) };
        let mut requirements =
            selector.match_labels.as_ref().map(|l| Self::from_labels(l).requirements).unwrap_or_default();
        for requirement in &requirements {
            check_key(&requirement.key)?;
        }
        for expression in selector.match_expressions.iter().flatten() {
            let operator = match expression.operator.as_str() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => return Err(SelectorError(format!("{other:?} is not a valid label selector operator"))),
            };
            let values = expression.values.iter().flatten().cloned().collect();
            requirements.push(Requirement::new(&expression.key, operator, values)?);
        }
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Self { requirements, nothing: false })
    }

    /// Whether labels fulfil all requirements.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(labels))
    }

    /// [`Selector::matches`] for the labels of an object's metadata.
    pub fn matches_option(&self, labels: Option<&BTreeMap<String, String>>) -> bool {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        self.matches(labels.unwrap_or(&NONE))
    }

    /// Whether it matches everything.
    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    /// Whether it matches nothing by construction.
    pub fn is_nothing(&self) -> bool {
        self.nothing
    }

    /// Its conditions.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }
}

impl FromStr for Selector {
    type Err = SelectorError;
    fn from_str(text: &str) -> Result<Self, SelectorError> {
        Self::parse(text)
    }
}

/// The string form; of nothing it is empty, as in Kubernetes.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, requirement) in self.requirements.iter().enumerate() {
            write!(f, "{}{requirement}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// Whether a `LabelSelector` matches; `None` and malformed ones match nothing.
pub fn label_selector_matches(selector: Option<&LabelSelector>, labels: Option<&BTreeMap<String, String>>) -> bool {
    Selector::from_label_selector(selector).is_ok_and(|s| s.matches_option(labels))
}

/// A `LabelSelector` in its string form, as in `status.selector` of a Scale.
///
/// # Errors
/// As [`Selector::from_label_selector`].
pub fn label_selector_string(selector: Option<&LabelSelector>) -> Result<String, SelectorError> {
    Selector::from_label_selector(selector).map(|s| s.to_string())
}

fn check_key(key: &str) -> Result<(), SelectorError> {
    match names::is_qualified_name(key).as_slice() {
        [] => Ok(()),
        wrong => Err(SelectorError(format!("key: Invalid value: {key:?}: {}", wrong.join("; ")))),
    }
}

fn check_value(key: &str, value: &str) -> Result<(), SelectorError> {
    match names::is_label_value(value).as_slice() {
        [] => Ok(()),
        wrong => Err(SelectorError(format!("values[0][{key}]: Invalid value: {value:?}: {}", wrong.join("; ")))),
    }
}

/// One condition of a field selector.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FieldRequirement {
    /// Path of the field, for example `spec.nodeName`.
    pub path: String,
    /// Its value.
    pub value: String,
    /// Whether the field must have the value (`=`), or must not (`!=`).
    pub equal: bool,
}

/// Conditions on fields, all of which must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct FieldSelector(pub Vec<FieldRequirement>);

impl FieldSelector {
    /// Reads `a=b,c==d,e!=f`; `\,`, `\=` and `\\` stand for themselves in values.
    ///
    /// # Errors
    /// In Kubernetes' words.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        if text.len() > SELECTOR_BYTES_MAX {
            return Err(SelectorError(format!("selector is longer than {SELECTOR_BYTES_MAX} bytes")));
        }
        let mut out = Vec::new();
        for term in split_terms(text).into_iter().filter(|term| !term.is_empty()) {
            let Some((path, operator, value)) = split_term(term) else {
                return Err(SelectorError(format!("invalid selector: '{text}'; can't understand '{term}'")));
            };
            let value = unescape(value).map_err(SelectorError)?;
            out.push(FieldRequirement { path: path.to_owned(), value, equal: operator != "!=" });
        }
        Ok(Self(out))
    }

    /// Refuses fields that the kind cannot select by.
    ///
    /// # Errors
    /// 400 `field label not supported: …`.
    pub fn check(&self, kind: &dyn AnyKind) -> Result<(), ApiError> {
        let known = kind.selectable_fields();
        let has = |path: &str| matches!(path, "metadata.name" | "metadata.namespace") || known.contains(&path);
        match self.0.iter().find(|r| !has(&r.path)) {
            None => Ok(()),
            Some(r) => Err(ApiError::bad_request(format!("field label not supported: {}", r.path))),
        }
    }

    /// Whether an object fulfils all conditions. A field that the kind does not have is never equal to anything.
    pub fn matches(&self, kind: &dyn AnyKind, object: &dyn Object) -> bool {
        self.0.iter().all(|r| {
            let value = match r.path.as_str() {
                "metadata.name" => Some(object.meta().name.clone().unwrap_or_default()),
                "metadata.namespace" => Some(object.meta().namespace.clone().unwrap_or_default()),
                path => kind.selectable(object, path),
            };
            value.is_some_and(|v| (v == r.value) == r.equal)
        })
    }

    /// Whether there are no conditions.
    pub fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    /// The value that `path` must have, if one condition says so.
    pub fn exact(&self, path: &str) -> Option<&str> {
        self.0.iter().find(|r| r.equal && r.path == path).map(|r| r.value.as_str())
    }
}

impl FromStr for FieldSelector {
    type Err = SelectorError;
    fn from_str(text: &str) -> Result<Self, SelectorError> {
        Self::parse(text)
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, r) in self.0.iter().enumerate() {
            let (comma, operator) = (if i == 0 { "" } else { "," }, if r.equal { "=" } else { "!=" });
            let value = r.value.replace('\\', r"\\").replace(',', r"\,").replace('=', r"\=");
            write!(f, "{comma}{}{operator}{value}", r.path)?;
        }
        Ok(())
    }
}

/// Splits at commas that no backslash stands before.
fn split_terms(text: &str) -> Vec<&str> {
    let (mut terms, mut start, mut escaped) = (Vec::new(), 0, false);
    for (i, c) in text.char_indices() {
        if c == ',' && !escaped {
            terms.push(&text[start..i]);
            start = i + 1;
        }
        escaped = c == '\\' && !escaped;
    }
    terms.push(&text[start..]);
    terms
}

fn split_term(term: &str) -> Option<(&str, &str, &str)> {
    term.char_indices().find_map(|(i, _)| {
        ["!=", "==", "="].iter().find_map(|operator| {
            let value = term[i..].strip_prefix(operator)?;
            Some((&term[..i], *operator, value))
        })
    })
}

fn unescape(value: &str) -> Result<String, String> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(next @ ('\\' | ',' | '=')) => out.push(next),
                Some(next) => return Err(format!("invalid field selector: invalid escape sequence: \\{next}")),
                None => return Err("invalid field selector: invalid escape sequence: \\".to_owned()),
            },
            ',' | '=' => return Err(format!("invalid field selector: unescaped character in value: {c}")),
            c => out.push(c),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests;
