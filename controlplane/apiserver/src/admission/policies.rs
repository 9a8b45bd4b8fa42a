//! `ValidatingAdmissionPolicy`: rules in CEL about what is written, switched on by bindings.
//!
//! A policy is compiled once for each of its revisions, and refused when that fails. Does nothing without bindings.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apiserver/pkg/admission/plugin/policy/validating/{dispatcher,validator}.go`.

use async_trait::async_trait;
use k8s_openapi::{api::core::v1::Namespace, apimachinery::pkg::apis::meta::v1::StatusCause};
use podium_api::{ApiError, FieldErrors, Kind as _, Reason};
use podium_custom::cel::Value as Cel;
use serde_json::{Value, json};

use super::{
    Plugin, Request, Step,
    compiled::{self, Active, Binding, Compiled},
    hooks,
    matching::{self, Seen},
    policy::{Decision, Policy},
    policy_params,
};
use crate::registry::{Registry, Resource};

/// The longest value of an audit annotation, in characters.
const ANNOTATION_MAX: usize = 10 * 1024;

/// The plug-in.
pub(super) struct ValidatingPolicies(Compiled<Policy>);

impl ValidatingPolicies {
    pub(super) fn new() -> Self {
        Self(Compiled::new())
    }
}

#[async_trait]
impl Plugin for ValidatingPolicies {
    fn name(&self) -> &'static str {
        "ValidatingAdmissionPolicy"
    }

    fn handles(&self, step: Step, _request: &Request<'_>) -> bool {
        step == Step::Validate
    }

    async fn validate(&self, registry: &Registry, request: &Request<'_>) -> Result<(), ApiError> {
        if matching::is_exempt(request.resource) {
            return refuse_broken::<Policy>(request);
        }
        let mut denied = None;
        for Active { policy, bindings, .. } in self.0.active(registry).values() {
            let Some(version) = policy.base.matcher.matches(registry, request)? else { continue };
            for binding in bindings {
                let judgement = Judgement { registry, request, policy, binding };
                let found = judgement.judge(version.as_deref()).await?;
                denied = denied.or(found);
            }
        }
        denied.map_or(Ok(()), Err)
    }
}

/// Refuses policies whose expressions cannot be used. What was stored once is not judged again.
pub(super) fn refuse_broken<P: compiled::Policy>(request: &Request<'_>) -> Result<(), ApiError> {
    let Some(policy) = request.new_as::<P::Written>().filter(|_| request.subresource.is_empty()) else { return Ok(()) };
    let old = request.old.and_then(|o| o.downcast_ref::<P::Written>());
    let mut errs = FieldErrors::new();
    if old.is_none_or(|old| !P::same_spec(old, policy)) {
        P::compile(policy, &mut errs);
    }
    if errs.is_empty() {
        return Ok(());
    }
    Err(ApiError::invalid(&request.resource.names, request.name, errs))
}

/// The namespace that a request is about; `null` where there is none.
pub(super) fn namespace_object(registry: &Registry, request: &Request<'_>) -> Result<Value, ApiError> {
    let name = request.namespace;
    if name.is_empty() || matching::is_namespace(request.resource) {
        return Ok(Value::Null);
    }
    let names = &Namespace::NAMES;
    registry.of(names)?.cache.get("", name).ok_or_else(|| ApiError::not_found(names, name))?.bare_tree()
}

/// One policy under one binding about one request.
struct Judgement<'a> {
    registry: &'a Registry,
    request: &'a Request<'a>,
    policy: &'a Policy,
    binding: &'a Binding,
}

impl Judgement<'_> {
    /// The refusal, if it is one. `version`: in which the policy is about the request, when not its own.
    async fn judge(&self, version: Option<&Resource>) -> Result<Option<ApiError>, ApiError> {
        if let Some(matcher) = &self.binding.matcher
            && matcher.matches(self.registry, self.request)?.is_none()
        {
            return Ok(None);
        }
        let by = (self.policy.base.param_kind.as_ref(), self.binding.params.as_ref());
        let params = match policy_params::find(self.registry, self.request.namespace, by).await? {
            Ok(params) => params,
            Err(_) if !self.policy.base.fails => return Ok(None),
            Err(why) => {
                let decision = Decision::failed(format!("failed to configure binding: {why}"));
                return Ok(Some(self.denied(&decision)));
            }
        };
        let review = hooks::review(self.request, version, "").await?;
        let seen = Seen::new(self.registry, self.request, &review);
        let namespace = namespace_object(self.registry, self.request)?;
        let decisions = params.iter().flat_map(|param| self.evaluate(&seen, &namespace, param)).collect();
        Ok(self.act(decisions))
    }

    /// What does not hold.
    fn evaluate(&self, seen: &Seen, namespace: &Value, param: &Value) -> Vec<Decision> {
        let policy = self.policy;
        let failed = |why: String| if policy.base.fails { vec![Decision::failed(why)] } else { Vec::new() };
        if let Some(broken) = &policy.base.broken {
            return failed(broken.clone());
        }
        let budget = Seen::budget();
        let vars = seen.vars().json("namespaceObject", namespace).json("params", param);
        let vars = policy.base.with_variables(vars);
        match matching::conditions_hold(&policy.base.conditions, &vars, &budget) {
            Ok(true) => {}
            Ok(false) => return Vec::new(),
            Err(why) => return failed(why),
        }
        let mut decisions = Vec::new();
        for (index, rule) in policy.rules.iter().enumerate() {
            match rule.expression.holds(&vars, &budget) {
                Ok(true) => {}
                Ok(false) => {
                    let computed = rule.message_expression.as_ref().and_then(|e| e.evaluate(&vars, &budget).ok());
                    let computed = computed.and_then(|value| value.as_str().map(str::to_owned));
                    decisions.push(rule.denied(index, computed));
                }
                Err(error) => {
                    let text = rule.expression.text();
                    decisions.extend(failed(format!("expression '{text}' resulted in error: {error}")));
                }
            }
        }
        for (key, expression) in &policy.annotations {
            match expression.evaluate(&vars, &budget) {
                Ok(value) => self.annotate(key, &value),
                Err(error) => decisions.extend(failed(error.to_string())),
            }
        }
        decisions
    }

    fn annotate(&self, key: &str, value: &Cel<'_>) {
        let text: String = value.as_str().unwrap_or_default().trim().chars().take(ANNOTATION_MAX).collect();
        if !text.is_empty() {
            self.request.context.annotate(format!("{}/{key}", self.policy.base.name), text);
        }
    }

    /// Denies, warns and notes, as the binding says.
    fn act(&self, decisions: Vec<Decision>) -> Option<ApiError> {
        let (policy, binding, context) = (&self.policy.base.name, &self.binding.name, self.request.context);
        let does = |action: &str| self.binding.actions.iter().any(|a| a == action);
        if does("Warn") {
            for Decision { message, .. } in &decisions {
                context.warn(format!(
                    "Validation failed for ValidatingAdmissionPolicy '{policy}' with binding '{binding}': {message}"
                ));
            }
        }
        if does("Audit") && !decisions.is_empty() {
            let one = |d: &Decision| {
                json!({
                    "message": d.message, "policy": policy, "binding": binding, "expressionIndex": d.index,
                    "validationActions": self.binding.actions,
                })
            };
            let all: Value = decisions.iter().map(one).collect();
            context.annotate("validation.policy.admission.k8s.io/validation_failure", all.to_string());
        }
        decisions.first().filter(|_| does("Deny")).map(|decision| self.denied(decision))
    }

    fn denied(&self, decision: &Decision) -> ApiError {
        let (policy, binding) = (&self.policy.base.name, &self.binding.name);
        let message = &decision.message;
        let why = format!("ValidatingAdmissionPolicy '{policy}' with binding '{binding}' denied request: {message}");
        let mut error = ApiError::forbidden(&self.request.resource.names, self.request.name, &why);
        error.reason = match decision.reason.as_str() {
            "Forbidden" => Reason::Forbidden,
            "Unauthorized" => Reason::Unauthorized,
            "RequestEntityTooLarge" => Reason::RequestEntityTooLarge,
            _ => Reason::Invalid,
        };
        let cause = StatusCause { message: Some(why), ..StatusCause::default() };
        error.details.get_or_insert_default().causes = Some(vec![cause]);
        error
    }
}
