//! The rules of a schema: their form, that they compile, and what they can cost.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{JSONSchemaProps, ValidationRule};
use podium_api::{FieldErrors, FieldPath};

use super::columns;
use crate::{
    cel::REQUEST_BYTES_MAX,
    schema::{Additional, Schema, declare},
};

/// Cost of one rule over all values of an object.
const RULE_COST_MAX: u64 = 10_000_000;
/// Cost of all rules of a schema.
const SCHEMA_COST_MAX: u64 = 100_000_000;
/// Rules that are named as the expensive ones.
const EXPENSIVE_MAX: usize = 4;

pub(super) fn check(props: &JSONSchemaProps, unchanged: bool, path: &FieldPath, errs: &mut FieldErrors) {
    let mut schema = Schema::new(props);
    schema.resource = true;
    let mut walk = Walk { errs, unchanged, total: 0, expensive: Vec::new() };
    walk.schema(props, &schema, path, Some(1), None);
    let Walk { total, mut expensive, .. } = walk;
    if total <= SCHEMA_COST_MAX {
        return;
    }
    expensive.sort_by_key(|(cost, _)| std::cmp::Reverse(*cost));
    for (_, at) in expensive.iter().take(EXPENSIVE_MAX) {
        let detail = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
        errs.forbidden(at, detail);
    }
    let name = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
    errs.forbidden(path, &too_expensive(name, total, SCHEMA_COST_MAX));
}

#[expect(clippy::cast_precision_loss, reason = "shown with few digits")]
fn too_expensive(name: &str, cost: u64, max: u64) -> String {
    let factor = cost as f64 / max as f64;
    let factor = if factor > 100.0 {
        "more than 100x".to_owned()
    } else if factor < 1.5 {
        format!("{factor:.6}x")
    } else {
        format!("{factor:.1}x")
    };
    format!(
        "{name} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and \
         maxLength where arrays, maps, and strings are declared)"
    )
}

struct Walk<'e> {
    errs: &'e mut FieldErrors,
    /// What was accepted once may cost what it costs.
    unchanged: bool,
    total: u64,
    expensive: Vec<(u64, FieldPath)>,
}

fn times(a: Option<u64>, b: Option<i64>) -> Option<u64> {
    a?.checked_mul(u64::try_from(b?).ok()?)
}

impl Walk<'_> {
    /// `count`: how often values of this schema can be there; `None`: without bound. `lost`: where items of lists that
    /// cannot be told apart begin.
    fn schema(
        &mut self,
        props: &JSONSchemaProps,
        schema: &Schema,
        path: &FieldPath,
        count: Option<u64>,
        lost: Option<&FieldPath>,
    ) {
        for (name, of) in &schema.properties {
            let Some(below) = props.properties.as_ref().and_then(|p| p.get(name)) else { continue };
            let lost = lost.or(schema.atomic.then_some(path));
            self.schema(below, of, &path.child("properties").key(name), count, lost);
        }
        if let (Additional::Schema(of), Some(below)) = (&schema.additional, crate::schema::additional(props)) {
            let count = times(count, schema.limits.max_properties);
            self.schema(below, of, &path.child("additionalProperties"), count, lost);
        }
        if let (Some(of), Some(below)) = (&schema.items, crate::schema::items(props)) {
            let told_apart = matches!(schema.list, crate::schema::ListKind::Map(_));
            let lost = lost.or((!told_apart).then_some(path));
            let count = times(count, schema.limits.max_items);
            self.schema(below, of, &path.child("items"), count, lost);
        }
        for (i, rule) in schema.rules.iter().enumerate() {
            let at = path.child("x-kubernetes-validations").index(i);
            let before = self.errs.0.len();
            self.form(&rule.written, props, &at);
            if self.errs.0.len() == before {
                self.compile(rule, schema, &at, count, lost);
            }
        }
    }

    fn form(&mut self, rule: &ValidationRule, props: &JSONSchemaProps, path: &FieldPath) {
        let breaks = |text: &str| text.contains(['\n', '\r']);
        let message = rule.message.as_deref().unwrap_or_default();
        if rule.rule.trim().is_empty() {
            self.errs.required(&path.child("rule"), "rule is not specified");
        } else if !message.is_empty() && message.trim().is_empty() {
            self.errs.invalid(&path.child("message"), message, "must be non-empty if specified");
        } else if breaks(message.trim()) {
            self.errs.invalid(&path.child("message"), message, "must not contain line breaks");
        } else if breaks(rule.rule.trim()) && message.trim().is_empty() {
            let detail = "message must be specified if rule contains line breaks";
            self.errs.required(&path.child("message"), detail);
        }
        if rule.message_expression.as_deref().is_some_and(|m| !m.is_empty() && m.trim().is_empty()) {
            let detail = "messageExpression must be non-empty if specified";
            self.errs.required(&path.child("messageExpression"), detail);
        }
        const REASONS: [&str; 4] =
            ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];
        if let Some(reason) = rule.reason.as_deref().filter(|r| !REASONS.contains(r)) {
            self.errs.not_supported(&path.child("reason"), reason, &REASONS);
        }
        let Some(field) = rule.field_path.as_deref().filter(|f| !f.is_empty()) else { return };
        let at = path.child("fieldPath");
        if field.trim().is_empty() {
            self.errs.invalid(&at, field, "must be non-empty if specified");
        }
        if breaks(field) {
            self.errs.invalid(&at, field, "must not contain line breaks");
        }
        if !field.contains('[') && columns::field(field.trim(), props).is_err() {
            self.errs.invalid(&at, field, "must be a valid path");
        }
    }

    fn compile(
        &mut self,
        rule: &crate::schema::Rule,
        schema: &Schema,
        path: &FieldPath,
        count: Option<u64>,
        lost: Option<&FieldPath>,
    ) {
        let at = path.child("rule");
        let shown = serde_json::to_value(&rule.written).unwrap_or_default();
        let compiled = match rule.compiled(schema) {
            Ok(compiled) => compiled,
            Err(error) => return self.errs.invalid(&at, shown, error),
        };
        let bytes_min = declare(schema).map_or(0, |d| d.bytes_min);
        let count = count.unwrap_or(REQUEST_BYTES_MAX / (bytes_min + 1));
        self.cost("estimated rule cost", compiled.rule.max_cost().saturating_mul(count), &at);
        let at = path.child("messageExpression");
        match &compiled.message {
            Some(Err(error)) => self.errs.invalid(&at, shown, error),
            Some(Ok(message)) => self.cost("estimated messageExpression cost", message.max_cost(), &at),
            None => {}
        }
        if let (true, Some(lost)) = (compiled.uses_old, lost) {
            let detail = format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {lost}");
            self.errs.invalid(&path.child("rule"), rule.written.rule.as_str(), &detail);
        }
        if let (false, Some(optional)) = (compiled.uses_old, rule.written.optional_old_self) {
            let detail = "may not be set if oldSelf is not used in rule";
            self.errs.invalid(&path.child("optionalOldSelf"), optional, detail);
        }
    }

    fn cost(&mut self, name: &str, cost: u64, at: &FieldPath) {
        if cost > RULE_COST_MAX && !self.unchanged {
            self.errs.forbidden(at, &too_expensive(name, cost, RULE_COST_MAX));
        }
        self.total = self.total.saturating_add(cost);
        self.expensive.push((cost, at.clone()));
    }
}
