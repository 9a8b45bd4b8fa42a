//! `x-kubernetes-validations`: compiled with the types of the schema, evaluated over values.
//!
//! # Source
//! Kubernetes `apiextensions-apiserver/pkg/apiserver/schema/cel/{compilation,validation}.go`,
//! `apiserver/pkg/cel/common/schemas.go`.

use std::{collections::BTreeMap, sync::Arc, sync::OnceLock};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::ValidationRule;
use podium_api::{
    FieldErrors, FieldPath,
    field::{FieldError, FieldReason},
};
use serde_json::Value;

use super::{Kind, Schema, validate::old_item};
use crate::cel::{
    Budget, COST_PER_OBJECT_MAX, CompileError, Env, EvalError, Expression, Field, REQUEST_BYTES_MAX, Size, Struct,
    Type, Value as CelValue, Vars, escape,
};

/// A rule of a schema.
#[derive(Debug)]
pub struct Rule {
    /// As written.
    pub written: ValidationRule,
    compiled: OnceLock<Result<Compiled, String>>,
}

impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written
    }
}

/// What is evaluated.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(crate) rule: Expression,
    pub(crate) message: Option<Result<Expression, String>>,
    pub(crate) uses_old: bool,
}

impl Rule {
    pub(crate) fn new(written: &ValidationRule) -> Self {
        Self { written: written.clone(), compiled: OnceLock::new() }
    }

    /// Compiled, with the schema that it belongs to.
    pub(crate) fn compiled(&self, schema: &Schema) -> &Result<Compiled, String> {
        self.compiled.get_or_init(|| compile(&self.written, schema))
    }
}

fn compile(written: &ValidationRule, schema: &Schema) -> Result<Compiled, String> {
    let declared = declare(schema).ok_or("failed to convert to declType for CEL validation rules")?;
    let optional = written.optional_old_self == Some(true);
    let old = if optional { Type::optional(declared.of.clone()) } else { declared.of.clone() };
    let mut env = Env::new();
    env.declare("self", declared.of, declared.size.clone());
    env.declare("oldSelf", old, declared.size);
    let rule = Expression::compile_as(&written.rule, &env, &[Type::Bool]).map_err(|error| match error {
        CompileError::Invalid(text) => format!("compilation failed: {text}"),
        CompileError::Result(_) => "cel expression must evaluate to a bool".to_owned(),
    })?;
    let message = written.message_expression.as_deref().filter(|m| !m.trim().is_empty()).map(|text| {
        Expression::compile_as(text, &env, &[Type::String]).map_err(|error| match error {
            CompileError::Invalid(text) => format!("messageExpression compilation failed: {text}"),
            CompileError::Result(_) => "messageExpression must evaluate to a string".to_owned(),
        })
    });
    let uses_old = rule.names("oldSelf");
    Ok(Compiled { rule, message, uses_old })
}

/// What expressions know of the values of a schema.
pub(crate) struct Declared {
    pub(crate) of: Type,
    pub(crate) size: Size,
    /// The fewest bytes that one takes in a request.
    pub(crate) bytes_min: u64,
}

fn simple(of: Type, max: u64, bytes_min: u64) -> Declared {
    Declared { of, size: Size::at_most(max), bytes_min }
}

fn count(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

/// The type of the values of a schema; `None` when expressions cannot see them.
pub(crate) fn declare(schema: &Schema) -> Option<Declared> {
    let any = REQUEST_BYTES_MAX - 2;
    let bytes = schema.limits.max_length.map(|n| count(n).saturating_mul(4));
    if schema.int_or_string {
        return Some(simple(Type::Dyn, bytes.unwrap_or(any), 1));
    }
    Some(match schema.kind {
        Kind::Any => return None,
        Kind::Boolean => simple(Type::Bool, 1, 4),
        Kind::Integer => simple(Type::Int, 1, 1),
        Kind::Number => simple(Type::Double, 1, 1),
        Kind::String => match schema.limits.format.as_deref() {
            Some("byte") => simple(Type::Bytes, schema.limits.max_length.map_or(any, count), 2),
            Some("duration") => simple(Type::Duration, 32, 3),
            Some("date") => simple(Type::Timestamp, 12, 12),
            Some("date-time") => simple(Type::Timestamp, 32, 21),
            _ => {
                let longest = |values: &Vec<Value>| {
                    values.iter().filter_map(Value::as_str).map(str::len).max().unwrap_or(0) as u64
                };
                let of_values = schema.limits.one_of_values.as_ref().map(longest);
                simple(Type::String, bytes.or(of_values).unwrap_or(any), 2)
            }
        },
        Kind::Array => {
            let item = declare(schema.items.as_deref()?)?;
            let max = schema.limits.max_items.map_or((REQUEST_BYTES_MAX - 2) / (item.bytes_min + 1), count);
            Declared { of: Type::list(item.of), size: Size::of_items(max, item.size), bytes_min: 2 }
        }
        Kind::Object if schema.is_map() => {
            let super::Additional::Schema(values) = &schema.additional else { return None };
            let value = declare(values)?;
            let max = schema.limits.max_properties.map_or((REQUEST_BYTES_MAX - 2) / (value.bytes_min + 6), count);
            let size = Size::of_items(max, value.size);
            Declared { of: Type::map(Type::String, value.of), size, bytes_min: 2 }
        }
        Kind::Object => structure(schema),
    })
}

fn structure(schema: &Schema) -> Declared {
    let mut fields: BTreeMap<String, Field> = BTreeMap::new();
    let mut bytes_min = 2;
    if schema.resource {
        let text = || Field { of: Type::String, size: Size::UNKNOWN };
        fields.extend([("apiVersion".to_owned(), text()), ("kind".to_owned(), text())]);
        let meta = structure(super::metadata());
        fields.insert("metadata".to_owned(), Field { of: meta.of, size: meta.size });
    }
    for (name, property) in &schema.properties {
        if schema.resource && name == "metadata" {
            continue;
        }
        let Some(declared) = declare(property) else { continue };
        if property.default.is_none() && schema.limits.required.contains(name) {
            bytes_min += name.len() as u64 + declared.bytes_min + 4;
        }
        if let Some(name) = escape(name) {
            fields.insert(name.into_owned(), Field { of: declared.of, size: declared.size });
        }
    }
    let of = Type::Struct(Arc::new(Struct { name: "object".to_owned(), fields, open: false }));
    Declared { of, size: Size::at_most(1), bytes_min }
}

/// Compiles the rules of a schema and of all below, so that the first object does not wait for it.
pub fn compile_rules(schema: &Schema) {
    for rule in &schema.rules {
        let _ = rule.compiled(schema);
    }
    schema.properties.values().for_each(compile_rules);
    schema.items.iter().for_each(|items| compile_rules(items));
    if let super::Additional::Schema(of) = &schema.additional {
        compile_rules(of);
    }
}

fn has_rules(schema: &Schema) -> bool {
    !schema.rules.is_empty()
        || schema.properties.values().any(has_rules)
        || schema.items.as_deref().is_some_and(has_rules)
        || matches!(&schema.additional, super::Additional::Schema(of) if has_rules(of))
}

impl Schema {
    /// The type that expressions know its values by; `dyn` when they cannot see them.
    pub fn expression_type(&self) -> Type {
        declare(self).map_or(Type::Dyn, |declared| declared.of)
    }

    /// Whether there are rules here or below.
    pub fn has_rules(&self) -> bool {
        has_rules(self)
    }

    /// Evaluates the rules over a value and what it was before.
    pub fn check_rules(&self, value: &Value, old: Option<&Value>, errs: &mut FieldErrors) {
        let mut run = Run { budget: Budget::new(COST_PER_OBJECT_MAX), errs: Vec::new(), over: false };
        run.node(self, &FieldPath::default(), value, old);
        errs.0.extend(run.errs);
    }
}

struct Run {
    budget: Budget,
    errs: Vec<FieldError>,
    over: bool,
}

const OUT_OF_BUDGET: &str =
    "validation failed due to running out of cost budget, no further validation rules will be run";

impl Run {
    fn node(&mut self, schema: &Schema, path: &FieldPath, value: &Value, old: Option<&Value>) {
        if self.over || value.is_null() {
            return;
        }
        self.rules(schema, path, value, old.filter(|o| !o.is_null()));
        match value {
            Value::Object(fields) => {
                for (name, given) in fields {
                    if let Some(of) = schema.field(name) {
                        let below = if schema.is_map() { path.key(name) } else { path.child(name) };
                        self.node(of, &below, given, old.and_then(|o| o.get(name)));
                    }
                }
            }
            Value::Array(items) => {
                let Some(of) = &schema.items else { return };
                for (i, item) in items.iter().enumerate() {
                    self.node(of, &path.index(i), item, old_item(schema, item, i, old));
                }
            }
            _ => {}
        }
    }

    fn push(&mut self, field: &FieldPath, reason: FieldReason, message: String) {
        self.errs.push(FieldError { field: super::or_nil(field), reason, message });
    }

    fn invalid(&mut self, schema: &Schema, path: &FieldPath, detail: &str) {
        let kind = super::kind_name(schema.kind);
        self.push(path, FieldReason::Invalid, format!("Invalid value: {kind:?}: {detail}"));
    }

    fn rules(&mut self, schema: &Schema, path: &FieldPath, value: &Value, old: Option<&Value>) {
        for rule in schema.rules.iter().filter(|r| !r.written.rule.trim().is_empty()) {
            if self.over {
                return;
            }
            if self.budget.left() == 0 {
                self.over = true;
                self.invalid(schema, path, OUT_OF_BUDGET);
                return;
            }
            match rule.compiled(schema) {
                Err(error) => self.invalid(schema, path, &format!("rule compile error: {error}")),
                Ok(compiled) => self.rule(schema, &rule.written, compiled, path, (value, old)),
            }
        }
    }

    fn rule(
        &mut self,
        schema: &Schema,
        written: &ValidationRule,
        compiled: &Compiled,
        path: &FieldPath,
        (value, old): (&Value, Option<&Value>),
    ) {
        let optional = written.optional_old_self == Some(true);
        let unchanged = !compiled.uses_old && old == Some(value);
        if unchanged || compiled.uses_old && old.is_none() && !optional {
            return;
        }
        let mut vars = Vars::new().typed("self", value, schema);
        let before = old.map(|old| CelValue::json(old, Some(schema)));
        vars = vars.value(
            "oldSelf",
            match (before, optional) {
                (before, true) => CelValue::Optional(before.map(Arc::new)),
                (Some(before), false) => before,
                (None, false) => CelValue::Null,
            },
        );
        match compiled.rule.holds(&vars, &self.budget) {
            Ok(true) => {}
            Ok(false) => self.failed(schema, written, compiled, path, value, &vars),
            Err(EvalError::Cost) => {
                self.over = true;
                let detail = if self.budget.left() == 0 {
                    OUT_OF_BUDGET.to_owned()
                } else {
                    format!(
                        "'operation cancelled: actual cost limit exceeded': no further validation rules will be run due \
                         to call cost exceeds limit for rule: {}",
                        shown(written)
                    )
                };
                self.invalid(schema, path, &detail);
            }
            Err(EvalError::Failed(error)) if error.starts_with("no such overload") => {
                let detail = format!(
                    "'{error}': call arguments did not match a supported operator, function or macro signature for \
                     rule: {}",
                    shown(written)
                );
                self.invalid(schema, path, &detail);
            }
            Err(EvalError::Failed(error)) => {
                self.invalid(schema, path, &format!("{error} evaluating rule: {}", shown(written)));
            }
        }
    }

    fn failed<'a>(
        &mut self,
        schema: &Schema,
        written: &ValidationRule,
        compiled: &'a Compiled,
        path: &FieldPath,
        value: &Value,
        vars: &Vars<'a>,
    ) {
        let made = compiled.message.as_ref().and_then(|m| m.as_ref().ok()).and_then(|message| {
            let text = message.evaluate(vars, &self.budget).ok()?;
            let text = text.as_str()?.trim().to_owned();
            (!text.is_empty() && text.len() <= 5 * 1024 && !text.contains('\n')).then_some(text)
        });
        let detail = made.unwrap_or_else(|| match written.message.as_deref() {
            Some(message) if !message.is_empty() => message.trim().to_owned(),
            _ => format!("failed rule: {}", written.rule.trim()),
        });
        let path = match written.field_path.as_deref().map(str::trim) {
            Some(below) if !below.is_empty() => path.child(below.trim_start_matches('.')),
            _ => path.clone(),
        };
        let shown = match value {
            Value::Object(_) | Value::Array(_) => String::new(),
            scalar => format!(": {scalar}"),
        };
        let _ = schema;
        let (reason, message) = match written.reason.as_deref() {
            Some("FieldValueForbidden") => (FieldReason::Forbidden, format!("Forbidden: {detail}")),
            Some("FieldValueRequired") => (FieldReason::Required, format!("Required value: {detail}")),
            Some("FieldValueDuplicate") => (FieldReason::Duplicate, format!("Duplicate value{shown}")),
            _ => (FieldReason::Invalid, format!("Invalid value{shown}: {detail}")),
        };
        self.push(&path, reason, message);
    }
}

/// A rule as errors show it: its message, or itself.
fn shown(written: &ValidationRule) -> String {
    match written.message.as_deref() {
        Some(message) if !message.is_empty() => message.trim().to_owned(),
        _ => written.rule.trim().to_owned(),
    }
}
