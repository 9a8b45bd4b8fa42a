//! Field paths and the errors that validation collects, all at once, in Kubernetes' words.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apimachinery/pkg/util/validation/field/errors.go`.

use std::fmt;

/// A path like `spec.containers[0].name`, built while validation walks down.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldPath(String);

impl FieldPath {
    /// The path of a top-level field; may contain dots.
    pub fn new(root: &str) -> Self {
        Self(root.to_owned())
    }

    /// The path of a field below this one.
    pub fn child(&self, name: &str) -> Self {
        if self.0.is_empty() { Self::new(name) } else { Self(format!("{}.{name}", self.0)) }
    }

    /// The path of a list item.
    pub fn index(&self, i: usize) -> Self {
        Self(format!("{}[{i}]", self.0))
    }

    /// The path of a map entry.
    pub fn key(&self, key: &str) -> Self {
        Self(format!("{}[{key}]", self.0))
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is wrong with a field; the reason of a cause in a `Status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldReason {
    /// `FieldValueInvalid`
    Invalid,
    /// `FieldValueRequired`
    Required,
    /// `FieldValueNotSupported`
    NotSupported,
    /// `FieldValueDuplicate`
    Duplicate,
    /// `FieldValueForbidden`
    Forbidden,
    /// `FieldValueTooLong`
    TooLong,
    /// `FieldValueTooMany`
    TooMany,
    /// `FieldValueNotFound`
    NotFound,
    /// `FieldValueTypeInvalid`
    TypeInvalid,
}

impl FieldReason {
    /// The reason of the cause.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "FieldValueInvalid",
            Self::Required => "FieldValueRequired",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::NotFound => "FieldValueNotFound",
            Self::TypeInvalid => "FieldValueTypeInvalid",
        }
    }
}

/// One field error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// Where.
    pub field: FieldPath,
    /// What kind of mistake.
    pub reason: FieldReason,
    /// The whole message without the path, for example `Invalid value: -1: must be greater than or equal to 0`.
    pub message: String,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// The errors of one validation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldErrors(pub Vec<FieldError>);

impl FieldErrors {
    /// No errors yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn push(&mut self, field: &FieldPath, reason: FieldReason, message: String) {
        self.0.push(FieldError { field: field.clone(), reason, message });
    }

    /// `Invalid value: "x": detail`. Strings are shown quoted, other values as JSON.
    pub fn invalid(&mut self, field: &FieldPath, value: impl Into<serde_json::Value>, detail: &str) {
        self.push(field, FieldReason::Invalid, format!("Invalid value: {}: {detail}", value.into()));
    }

    /// `Invalid value: detail`, where the value would tell nothing.
    pub fn invalid_without_value(&mut self, field: &FieldPath, detail: &str) {
        self.push(field, FieldReason::Invalid, format!("Invalid value: {detail}"));
    }

    /// `Required value: detail`.
    pub fn required(&mut self, field: &FieldPath, detail: &str) {
        let message = if detail.is_empty() { "Required value".to_owned() } else { format!("Required value: {detail}") };
        self.push(field, FieldReason::Required, message);
    }

    /// `Unsupported value: "x": supported values: "a", "b"`.
    pub fn not_supported(&mut self, field: &FieldPath, value: &str, supported: &[&str]) {
        self.not_supported_value(field, value, supported);
    }

    /// The same of a value that is no text.
    pub fn not_supported_value(&mut self, field: &FieldPath, value: impl Into<serde_json::Value>, supported: &[&str]) {
        let value = value.into();
        let list = supported.iter().map(|s| format!("{s:?}")).collect::<Vec<_>>().join(", ");
        self.push(field, FieldReason::NotSupported, format!("Unsupported value: {value}: supported values: {list}"));
    }

    /// `Duplicate value: "x"`.
    pub fn duplicate(&mut self, field: &FieldPath, value: impl Into<serde_json::Value>) {
        self.push(field, FieldReason::Duplicate, format!("Duplicate value: {}", value.into()));
    }

    /// `Forbidden: detail`.
    pub fn forbidden(&mut self, field: &FieldPath, detail: &str) {
        self.push(field, FieldReason::Forbidden, format!("Forbidden: {detail}"));
    }

    /// `Too long: may not be more than n bytes`.
    pub fn too_long(&mut self, field: &FieldPath, bytes_max: usize) {
        self.push(field, FieldReason::TooLong, format!("Too long: may not be more than {bytes_max} bytes"));
    }

    /// `Not found: "x"`.
    pub fn not_found(&mut self, field: &FieldPath, value: &str) {
        self.push(field, FieldReason::NotFound, format!("Not found: {value:?}"));
    }

    /// `Not found: "x": detail`.
    pub fn not_found_because(&mut self, field: &FieldPath, value: &str, detail: &str) {
        self.push(field, FieldReason::NotFound, format!("Not found: {value:?}: {detail}"));
    }

    /// `Duplicate value: "x": detail`.
    pub fn duplicate_because(&mut self, field: &FieldPath, value: impl Into<serde_json::Value>, detail: &str) {
        self.push(field, FieldReason::Duplicate, format!("Duplicate value: {}: {detail}", value.into()));
    }

    /// One `Invalid value` for each message about one value.
    pub fn invalid_each(&mut self, field: &FieldPath, value: &str, messages: Vec<String>) {
        for message in messages {
            self.invalid(field, value, &message);
        }
    }

    /// `Invalid value: …: field is immutable` unless both are the same. What is empty is the same as what is not there:
    /// clients in Go know no difference, and send one for the other.
    pub fn immutable<T: PartialEq + serde::Serialize>(&mut self, field: &FieldPath, new: &T, old: &T) {
        if new == old {
            return;
        }
        let value = |v: &T| serde_json::to_value(v).unwrap_or_default();
        let text = |v| if v == "" { serde_json::Value::Null } else { v };
        if text(without_empty(value(new))) != text(without_empty(value(old))) {
            self.invalid(field, value(new), "field is immutable");
        }
    }

    /// `Invalid value: -1: must be greater than or equal to 0` for a negative number.
    pub fn non_negative(&mut self, field: &FieldPath, value: i64) {
        if value < 0 {
            self.invalid(field, value, "must be greater than or equal to 0");
        }
    }

    /// `Too many: n: must have at most m items`.
    pub fn too_many(&mut self, field: &FieldPath, items: usize, items_max: usize) {
        let plural = if items_max == 1 { "" } else { "s" };
        let message = format!("Too many: {items}: must have at most {items_max} item{plural}");
        self.push(field, FieldReason::TooMany, message);
    }
}

/// A tree without lists and objects that hold nothing.
fn without_empty(value: serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::Object(fields) => {
            let kept = fields.into_iter().map(|(name, v)| (name, without_empty(v))).filter(|(_, v)| !v.is_null());
            Some(Value::Object(kept.collect())).filter(|v| *v != serde_json::json!({})).unwrap_or_default()
        }
        Value::Array(items) if items.is_empty() => Value::Null,
        Value::Array(items) => Value::Array(items.into_iter().map(without_empty).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn empty_is_as_good_as_absent() {
        let changes = |new: Value, old: Value| {
            let mut errs = FieldErrors::new();
            errs.immutable(&FieldPath::new("spec"), &new, &old);
            !errs.is_empty()
        };
        for (new, old, changed) in [
            (json!(""), json!(null), false),
            (json!({"a": 1, "l": []}), json!({"a": 1, "m": {"n": {}}}), false),
            (json!({"a": ""}), json!({}), true),
            (json!([{}]), json!([]), true),
            (json!(0), json!(null), true),
        ] {
            assert_eq!(changes(new.clone(), old.clone()), changed, "{new} after {old}");
        }
    }
}
