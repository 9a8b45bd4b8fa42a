//! A `ValidatingAdmissionPolicy`, compiled.

use k8s_openapi::api::admissionregistration::v1::{ParamKind, ValidatingAdmissionPolicy, Validation};
use podium_api::{FieldErrors, FieldPath};
use podium_custom::cel::{AdmissionEnv, Env, Expression, Type};

use super::matching::{self, Condition, Matcher};

/// The longest message that an expression may make, in bytes.
const MESSAGE_MAX: usize = 5 * 1024;

/// A policy, ready to be held against requests.
pub(super) struct Policy {
    pub(super) name: String,
    /// Whether a failing expression refuses.
    pub(super) fails: bool,
    pub(super) matcher: Matcher,
    pub(super) param_kind: Option<ParamKind>,
    pub(super) conditions: Vec<Condition>,
    pub(super) variables: Vec<(String, Expression)>,
    pub(super) rules: Vec<Rule>,
    pub(super) annotations: Vec<(String, Expression)>,
    /// Why it cannot be used.
    pub(super) broken: Option<String>,
}

/// What has to hold.
pub(super) struct Rule {
    pub(super) expression: Expression,
    pub(super) message_expression: Option<Expression>,
    message: String,
    reason: String,
}

/// What does not hold.
pub(super) struct Decision {
    pub(super) index: usize,
    pub(super) message: String,
    pub(super) reason: String,
}

impl Decision {
    pub(super) fn failed(message: String) -> Self {
        Self { index: 0, message, reason: String::new() }
    }
}

impl Rule {
    /// `computed`: by the rule's message expression.
    pub(super) fn denied(&self, index: usize, computed: Option<String>) -> Decision {
        let usable = |m: &String| !m.is_empty() && m.len() <= MESSAGE_MAX && !m.contains('\n');
        let computed = computed.map(|m| m.trim().to_owned()).filter(usable);
        let given = || Some(self.message.trim().to_owned()).filter(|m| !m.is_empty());
        let message =
            computed.or_else(given).unwrap_or_else(|| format!("failed expression: {}", self.expression.text().trim()));
        Decision { index, message, reason: self.reason.clone() }
    }
}

/// Compiles one expression after the other and keeps what is wrong with them.
struct Compiler<'a> {
    errs: &'a mut FieldErrors,
    broken: Option<String>,
}

impl Compiler<'_> {
    fn compile(&mut self, text: &str, env: &Env, types: &[Type], path: &FieldPath) -> Option<Expression> {
        let text = text.trim();
        let compiled =
            if types.is_empty() { Expression::compile(text, env) } else { Expression::compile_as(text, env, types) };
        compiled
            .map_err(|error| {
                self.errs.invalid(path, text, &error.to_string());
                self.broken.get_or_insert_with(|| error.to_string());
            })
            .ok()
    }

    fn rule(&mut self, given: &Validation, env: &Env, messages: &Env, path: &FieldPath) -> Option<Rule> {
        let expression = self.compile(&given.expression, env, &[Type::Bool], &path.child("expression"));
        let message_path = path.child("messageExpression");
        let message = given.message_expression.as_deref().filter(|m| !m.is_empty());
        let message_expression = message.and_then(|m| self.compile(m, messages, &[Type::String], &message_path));
        Some(Rule {
            expression: expression?,
            message_expression,
            message: given.message.clone().unwrap_or_default(),
            reason: given.reason.clone().unwrap_or_default(),
        })
    }
}

impl Policy {
    /// `errs` gets what is wrong with the expressions.
    pub(super) fn compile(policy: &ValidatingAdmissionPolicy, errs: &mut FieldErrors) -> Self {
        let spec = policy.spec.clone().unwrap_or_default();
        let params = spec.param_kind.is_some();
        let mut env =
            Env::admission(AdmissionEnv { params, authorizer: true, variables: true, ..AdmissionEnv::default() });
        let mut messages = Env::admission(AdmissionEnv { params, variables: true, ..AdmissionEnv::default() });
        let root = FieldPath::new("spec");
        let mut compiler = Compiler { errs, broken: None };
        let mut variables = Vec::new();
        for (i, variable) in spec.variables.iter().flatten().enumerate() {
            let path = root.child("variables").index(i).child("expression");
            let Some(expression) = compiler.compile(&variable.expression, &env, &[], &path) else { continue };
            env.compose(&variable.name, expression.result().clone());
            messages.compose(&variable.name, expression.result().clone());
            variables.push((variable.name.clone(), expression));
        }
        let mut rules = Vec::new();
        for (i, rule) in spec.validations.iter().flatten().enumerate() {
            rules.extend(compiler.rule(rule, &env, &messages, &root.child("validations").index(i)));
        }
        let mut annotations = Vec::new();
        for (i, given) in spec.audit_annotations.iter().flatten().enumerate() {
            let path = root.child("auditAnnotations").index(i).child("valueExpression");
            let value = compiler.compile(&given.value_expression, &env, &[Type::String, Type::Null], &path);
            annotations.extend(value.map(|e| (given.key.clone(), e)));
        }
        let conditions = matching::conditions(spec.match_conditions.as_deref(), params);
        for (i, (_, condition)) in conditions.iter().enumerate() {
            if let Err(error) = condition {
                let path = root.child("matchConditions").index(i).child("expression");
                compiler.errs.invalid(&path, spec_text(spec.match_conditions.as_deref(), i), &error.to_string());
            }
        }
        let broken = compiler.broken;
        Self {
            name: policy.metadata.name.clone().unwrap_or_default(),
            fails: spec.failure_policy.as_deref() != Some("Ignore"),
            matcher: Matcher::new(&spec.match_constraints.unwrap_or_default()),
            param_kind: spec.param_kind,
            conditions,
            variables,
            rules,
            annotations,
            broken,
        }
    }
}

fn spec_text(conditions: Option<&[k8s_openapi::api::admissionregistration::v1::MatchCondition]>, i: usize) -> String {
    conditions.and_then(|c| c.get(i)).map(|c| c.expression.clone()).unwrap_or_default()
}
