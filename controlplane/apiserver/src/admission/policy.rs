//! A `ValidatingAdmissionPolicy`, compiled.

use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, Validation,
};
use podium_api::{FieldErrors, FieldPath};
use podium_custom::cel::{AdmissionEnv, Env, Expression, Type};

use super::{
    compile::{Base, Compiler, Given},
    compiled::{self, Binding},
    matching::Matcher,
};

/// The longest message that an expression may make, in bytes.
const MESSAGE_MAX: usize = 5 * 1024;

/// A policy, ready to be held against requests.
pub(super) struct Policy {
    pub(super) base: Base,
    pub(super) rules: Vec<Rule>,
    pub(super) annotations: Vec<(String, Expression)>,
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
    fn compile(
        compiler: &mut Compiler<'_>,
        given: &Validation,
        [full, messages]: [&Env; 2],
        path: &FieldPath,
    ) -> Option<Self> {
        let expression = compiler.compile(&given.expression, full, &[Type::Bool], &path.child("expression"));
        let message_path = path.child("messageExpression");
        let message = given.message_expression.as_deref().filter(|m| !m.is_empty());
        let message_expression = message.and_then(|m| compiler.compile(m, messages, &[Type::String], &message_path));
        Some(Self {
            expression: expression?,
            message_expression,
            message: given.message.clone().unwrap_or_default(),
            reason: given.reason.clone().unwrap_or_default(),
        })
    }

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

impl compiled::Policy for Policy {
    type Written = ValidatingAdmissionPolicy;
    type Binding = ValidatingAdmissionPolicyBinding;

    fn compile(written: &ValidatingAdmissionPolicy, errs: &mut FieldErrors) -> Self {
        let spec = written.spec.clone().unwrap_or_default();
        let given = Given {
            name: written.metadata.name.as_ref(),
            failure_policy: spec.failure_policy.as_ref(),
            constraints: spec.match_constraints.as_ref(),
            conditions: spec.match_conditions.as_ref(),
            variables: spec.variables.as_ref(),
            param_kind: spec.param_kind.as_ref(),
        };
        let root = FieldPath::new("spec");
        let full = AdmissionEnv { authorizer: true, ..AdmissionEnv::default() };
        let (base, (rules, annotations)) = Base::compile(&given, errs, full, |compiler, envs| {
            let mut rules = Vec::new();
            for (i, rule) in spec.validations.iter().flatten().enumerate() {
                rules.extend(Rule::compile(compiler, rule, envs, &root.child("validations").index(i)));
            }
            let mut annotations = Vec::new();
            for (i, given) in spec.audit_annotations.iter().flatten().enumerate() {
                let path = root.child("auditAnnotations").index(i).child("valueExpression");
                let value = compiler.compile(&given.value_expression, envs[0], &[Type::String, Type::Null], &path);
                annotations.extend(value.map(|e| (given.key.clone(), e)));
            }
            (rules, annotations)
        });
        Self { base, rules, annotations }
    }

    fn same_spec(one: &ValidatingAdmissionPolicy, other: &ValidatingAdmissionPolicy) -> bool {
        one.spec == other.spec
    }

    fn bind(binding: &ValidatingAdmissionPolicyBinding) -> (String, Binding) {
        let spec = &binding.spec;
        let bound = Binding {
            name: binding.metadata.name.clone().unwrap_or_default(),
            params: spec.param_ref.clone(),
            matcher: spec.match_resources.as_ref().map(Matcher::new),
            actions: spec.validation_actions.clone(),
        };
        (spec.policy_name.clone(), bound)
    }
}
