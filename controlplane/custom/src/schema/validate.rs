//! Checks values against a schema: types, limits, formats, and the logic of `allOf` and its kin.
//!
//! What a change left as it was is not held against it: only what is new must be right.
//!
//! # Source
//! kube-openapi `pkg/validation/validate` and its messages in `pkg/validation/errors/schema.go`;
//! Kubernetes `apiextensions-apiserver/pkg/apiserver/validation/{validation,ratcheting}.go`.

use podium_api::{
    FieldErrors, FieldPath,
    field::{FieldError, FieldReason},
};
use serde_json::Value;

use super::{Additional, Kind, Limits, ListKind, Schema, formats, kind_name, or_nil};

/// Errors of one object that are shown.
const ERRORS_MAX: usize = 500;

impl Schema {
    /// Says what is wrong with a value. `old`: what stood there before, which needs not be right again.
    pub fn check(&self, value: &Value, old: Option<&Value>, errs: &mut FieldErrors) {
        let mut check = Check { errs: Vec::new() };
        check.schema(self, &FieldPath::default(), value, old);
        errs.0.extend(check.errs);
    }

    fn accepts(&self, path: &FieldPath, value: &Value) -> Result<(), Vec<FieldError>> {
        let mut check = Check { errs: Vec::new() };
        check.schema(self, path, value, None);
        if check.errs.is_empty() { Ok(()) } else { Err(check.errs) }
    }
}

struct Check {
    errs: Vec<FieldError>,
}

fn name_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn has_kind(kind: Kind, value: &Value) -> bool {
    match kind {
        Kind::Any => true,
        Kind::Object => value.is_object(),
        Kind::Array => value.is_array(),
        Kind::String => value.is_string(),
        Kind::Boolean => value.is_boolean(),
        Kind::Number => value.is_number(),
        Kind::Integer => value.as_f64().is_some_and(|n| n.fract() == 0.0),
    }
}

impl Check {
    fn push(&mut self, path: &FieldPath, reason: FieldReason, message: String) {
        if self.errs.len() < ERRORS_MAX {
            self.errs.push(FieldError { field: or_nil(path), reason, message });
        }
    }

    fn invalid(&mut self, path: &FieldPath, value: &Value, detail: &str) {
        self.push(path, FieldReason::Invalid, format!("Invalid value: {value}: {path} in body {detail}"));
    }

    fn wrong_type(&mut self, path: &FieldPath, wanted: &str, got: &str) {
        let message = format!("Invalid value: {got:?}: {path} in body must be of type {wanted}: {got:?}");
        self.push(path, FieldReason::TypeInvalid, message);
    }

    /// Messages about whole schemas have no field.
    fn composite(&mut self, message: String) {
        self.push(&FieldPath::new("<nil>"), FieldReason::Invalid, format!("Invalid value: \"\": {message}"));
    }

    fn schema(&mut self, schema: &Schema, path: &FieldPath, value: &Value, old: Option<&Value>) {
        if old == Some(value) || value.is_null() && schema.nullable {
            return;
        }
        if schema.int_or_string {
            if !value.is_string() && !has_kind(Kind::Integer, value) {
                self.wrong_type(path, "integer,string", name_of(value));
                return;
            }
        } else if !has_kind(schema.kind, value) {
            self.wrong_type(path, kind_name(schema.kind), name_of(value));
            return;
        }
        self.limits(&schema.limits, path, value);
        self.junctors(&schema.limits, path, value);
        match value {
            Value::Object(fields) => {
                for (name, given) in fields {
                    self.member(schema, path, name, given, old);
                }
            }
            Value::Array(items) => {
                let Some(of) = &schema.items else { return };
                for (i, item) in items.iter().enumerate() {
                    self.schema(of, &path.index(i), item, old_item(schema, item, i, old));
                }
            }
            _ => {}
        }
    }

    fn member(&mut self, schema: &Schema, path: &FieldPath, name: &str, given: &Value, old: Option<&Value>) {
        let old = old.and_then(|o| o.get(name));
        match (schema.properties.get(name), &schema.additional) {
            (Some(property), _) => self.schema(property, &path.child(name), given, old),
            (None, Additional::Schema(of)) => self.schema(of, &path.child(name), given, old),
            (None, Additional::Allowed(false)) if !schema.preserve && schema.properties.is_empty() => {
                let path = path.child(name);
                let message = format!("Invalid value: \"\": {path} in body is a forbidden property");
                self.push(&path, FieldReason::Invalid, message);
            }
            _ => {}
        }
    }

    fn limits(&mut self, limits: &Limits, path: &FieldPath, value: &Value) {
        if let Some(allowed) = &limits.one_of_values
            && !allowed.iter().any(|a| same(a, value))
        {
            let show = |v: &Value| v.as_str().map_or_else(|| format!("{:?}", v.to_string()), |s| format!("{s:?}"));
            let list = allowed.iter().map(show).collect::<Vec<_>>().join(", ");
            let message = format!("Unsupported value: {value}: supported values: {list}");
            self.push(path, FieldReason::NotSupported, message);
        }
        match value {
            Value::Number(number) => self.number(limits, path, value, number.as_f64().unwrap_or(f64::NAN)),
            Value::String(text) => self.text(limits, path, value, text),
            Value::Array(items) => self.array(limits, path, value, items),
            Value::Object(fields) => self.object(limits, path, value, fields),
            _ => {}
        }
    }

    fn number(&mut self, limits: &Limits, path: &FieldPath, value: &Value, n: f64) {
        match limits.maximum {
            Some((max, true)) if n >= max => self.invalid(path, value, &format!("should be less than {max}")),
            Some((max, false)) if n > max => {
                self.invalid(path, value, &format!("should be less than or equal to {max}"));
            }
            _ => {}
        }
        match limits.minimum {
            Some((min, true)) if n <= min => self.invalid(path, value, &format!("should be greater than {min}")),
            Some((min, false)) if n < min => {
                self.invalid(path, value, &format!("should be greater than or equal to {min}"));
            }
            _ => {}
        }
        if let Some(of) = limits.multiple_of
            && of > 0.0
            && (n / of).fract() != 0.0
        {
            self.invalid(path, value, &format!("should be a multiple of {of}"));
        }
    }

    fn text(&mut self, limits: &Limits, path: &FieldPath, value: &Value, text: &str) {
        let length = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
        if let Some(max) = limits.max_length.filter(|max| length > *max) {
            self.push(path, FieldReason::TooLong, format!("Too long: may not be more than {max} bytes"));
        }
        if let Some(min) = limits.min_length.filter(|min| length < *min) {
            self.invalid(path, value, &format!("should be at least {min} chars long"));
        }
        if let Some(pattern) = &limits.pattern
            && !pattern.regex.as_ref().is_some_and(|r| r.is_match(text))
        {
            self.invalid(path, value, &format!("should match '{}'", pattern.text));
        }
        if let Some(format) = &limits.format
            && !formats::fits(format, text)
        {
            let message = format!("Invalid value: {value}: {path} in body must be of type {format}: {value}");
            self.push(path, FieldReason::TypeInvalid, message);
        }
    }

    fn array(&mut self, limits: &Limits, path: &FieldPath, value: &Value, items: &[Value]) {
        let length = i64::try_from(items.len()).unwrap_or(i64::MAX);
        self.too_many(path, length, limits.max_items);
        if let Some(min) = limits.min_items.filter(|min| length < *min) {
            self.invalid(path, &Value::from(length), &format!("should have at least {min} items"));
        }
        if limits.unique_items {
            let mut seen = std::collections::HashSet::new();
            if !items.iter().all(|item| seen.insert(item.to_string())) {
                self.invalid(path, value, "shouldn't contain duplicates");
            }
        }
    }

    fn too_many(&mut self, path: &FieldPath, count: i64, max: Option<i64>) {
        if let Some(max) = max.filter(|max| count > *max) {
            let plural = if max == 1 { "" } else { "s" };
            let message = format!("Too many: {count}: must have at most {max} item{plural}");
            self.push(path, FieldReason::TooMany, message);
        }
    }

    fn object(&mut self, limits: &Limits, path: &FieldPath, value: &Value, fields: &serde_json::Map<String, Value>) {
        let count = i64::try_from(fields.len()).unwrap_or(i64::MAX);
        self.too_many(path, count, limits.max_properties);
        if let Some(min) = limits.min_properties.filter(|min| count < *min) {
            self.invalid(path, value, &format!("should have at least {min} properties"));
        }
        for name in limits.required.iter().filter(|name| !fields.contains_key(*name)) {
            self.push(&path.child(name), FieldReason::Required, "Required value".to_owned());
        }
    }

    fn junctors(&mut self, limits: &Limits, path: &FieldPath, value: &Value) {
        let place = format!("{:?}", path.to_string());
        if !limits.any_of.is_empty() {
            let (valid, best) = alternatives(&limits.any_of, path, value);
            if valid == 0 {
                self.composite(format!("{place} must validate at least one schema (anyOf)"));
                self.errs.extend(best);
            }
        }
        if !limits.one_of.is_empty() {
            let (valid, best) = alternatives(&limits.one_of, path, value);
            if valid != 1 {
                let found =
                    if valid == 0 { "Found none valid".into() } else { format!("Found {valid} valid alternatives") };
                self.composite(format!("{place} must validate one and only one schema (oneOf). {found}"));
                self.errs.extend(best);
            }
        }
        if !limits.all_of.is_empty() {
            let failed: Vec<FieldError> =
                limits.all_of.iter().filter_map(|of| of.accepts(path, value).err()).flatten().collect();
            if !failed.is_empty() {
                let all = limits.all_of.iter().all(|of| of.accepts(path, value).is_err());
                let none = if all { ". None validated" } else { "" };
                self.errs.extend(failed);
                self.composite(format!("{place} must validate all the schemas (allOf){none}"));
            }
        }
        if let Some(not) = &limits.not
            && not.accepts(path, value).is_ok()
        {
            self.composite(format!("{place} must not validate the schema (not)"));
        }
    }
}

/// How many accept a value, and the fewest errors when none does.
fn alternatives(of: &[Schema], path: &FieldPath, value: &Value) -> (usize, Vec<FieldError>) {
    let mut best: Option<Vec<FieldError>> = None;
    let mut valid = 0;
    for schema in of {
        match schema.accepts(path, value) {
            Ok(()) => valid += 1,
            Err(errors) if best.as_ref().is_none_or(|b| errors.len() < b.len()) => best = Some(errors),
            Err(_) => {}
        }
    }
    (valid, if valid == 0 { best.unwrap_or_default() } else { Vec::new() })
}

/// `1` and `1.0` are the same.
fn same(a: &Value, b: &Value) -> bool {
    a == b || a.as_f64().zip(b.as_f64()).is_some_and(|(a, b)| a == b)
}

/// What an item was before: only the keys of maps tell.
pub(super) fn old_item<'v>(schema: &Schema, item: &Value, _i: usize, old: Option<&'v Value>) -> Option<&'v Value> {
    let ListKind::Map(keys) = &schema.list else { return None };
    let default =
        |key: &str| schema.items.as_ref().and_then(|s| s.properties.get(key)).and_then(|s| s.default.as_ref());
    let key_of = |v: &'v Value, key: &str| v.get(key);
    let same_key = |other: &'v Value, key: &String| {
        let mine = item.get(key).or_else(|| default(key));
        let theirs = match key_of(other, key) {
            Some(found) => Some(found),
            None => default(key).filter(|d| mine == Some(*d)).map(|_| &Value::Null),
        };
        mine == theirs || mine.is_some() && theirs == Some(&Value::Null)
    };
    old?.as_array()?.iter().find(|other| keys.iter().all(|key| same_key(other, key)))
}
