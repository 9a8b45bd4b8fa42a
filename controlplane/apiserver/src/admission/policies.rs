//! `ValidatingAdmissionPolicy`: rules in CEL about what is written, switched on by bindings.
//!
//! A policy is compiled once for each of its revisions, and refused when that fails. Does nothing without bindings.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apiserver/pkg/admission/plugin/policy/validating/{dispatcher,validator}.go`.

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use k8s_openapi::{
    api::{
        admissionregistration::v1::{
            ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, ValidatingAdmissionPolicyBindingSpec,
        },
        core::v1::Namespace,
    },
    apimachinery::pkg::apis::meta::v1::StatusCause,
};
use parking_lot::Mutex;
use podium_api::{ApiError, FieldErrors, Kind as _, Reason, Revision};
use podium_custom::cel::Value as Cel;
use serde_json::{Value, json};

use super::{
    Plugin, Request, hooks, matching,
    matching::{Matcher, Seen},
    policy::{Decision, Policy},
    policy_params,
};
use crate::registry::{Registry, cache::Filter};

/// The longest value of an audit annotation, in characters.
const ANNOTATION_MAX: usize = 10 * 1024;

/// The plug-in.
pub(super) struct ValidatingPolicies(Mutex<HashMap<String, (Revision, Arc<Policy>)>>);

impl ValidatingPolicies {
    pub(super) fn new() -> Self {
        Self(Mutex::default())
    }

    fn policy(&self, registry: &Registry, name: &str) -> Option<Arc<Policy>> {
        let entry = registry.of(&ValidatingAdmissionPolicy::NAMES).ok()?.cache.get("", name);
        let Some(entry) = entry else {
            self.0.lock().remove(name);
            return None;
        };
        let mut compiled = self.0.lock();
        if let Some((at, policy)) = compiled.get(name)
            && *at == entry.revision()
        {
            return Some(policy.clone());
        }
        let policy = entry.object.downcast_ref::<ValidatingAdmissionPolicy>()?;
        let policy = Arc::new(Policy::compile(policy, &mut FieldErrors::new()));
        compiled.insert(name.to_owned(), (entry.revision(), policy.clone()));
        Some(policy)
    }
}

#[async_trait]
impl Plugin for ValidatingPolicies {
    fn name(&self) -> &'static str {
        "ValidatingAdmissionPolicy"
    }

    async fn validate(&self, registry: &Registry, request: &Request<'_>) -> Result<(), ApiError> {
        if matching::is_exempt(request.resource) {
            return check(request);
        }
        let Ok(bindings) = registry.of(&ValidatingAdmissionPolicyBinding::NAMES) else { return Ok(()) };
        if bindings.cache.len() == 0 {
            return Ok(());
        }
        let mut denied = None;
        for entry in bindings.cache.list(&Filter::default()).entries {
            let binding = entry.object.downcast_ref::<ValidatingAdmissionPolicyBinding>();
            let Some(spec) = binding.map(|b| &b.spec) else { continue };
            let Some(policy) = self.policy(registry, &spec.policy_name) else { continue };
            let name = entry.object.meta().name.as_deref().unwrap_or_default();
            let found = Judgement { registry, request, policy: &policy, spec, name }.judge().await?;
            denied = denied.or(found);
        }
        denied.map_or(Ok(()), Err)
    }
}

/// Refuses policies whose expressions cannot be used.
fn check(request: &Request<'_>) -> Result<(), ApiError> {
    let policy = request.object.as_deref().and_then(|o| o.downcast_ref::<ValidatingAdmissionPolicy>());
    let Some(policy) = policy.filter(|_| request.subresource.is_empty()) else { return Ok(()) };
    let old = request.old.and_then(|o| o.downcast_ref::<ValidatingAdmissionPolicy>());
    let mut errs = FieldErrors::new();
    if old.is_none_or(|old| old.spec != policy.spec) {
        Policy::compile(policy, &mut errs);
    }
    if errs.is_empty() {
        return Ok(());
    }
    Err(ApiError::invalid(&ValidatingAdmissionPolicy::NAMES, request.name, errs))
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
    spec: &'a ValidatingAdmissionPolicyBindingSpec,
    name: &'a str,
}

impl Judgement<'_> {
    /// The refusal, if it is one.
    async fn judge(&self) -> Result<Option<ApiError>, ApiError> {
        let Some(version) = self.policy.matcher.matches(self.registry, self.request)? else { return Ok(None) };
        if let Some(resources) = &self.spec.match_resources
            && Matcher::new(resources).matches(self.registry, self.request)?.is_none()
        {
            return Ok(None);
        }
        let by = (self.policy.param_kind.as_ref(), self.spec.param_ref.as_ref());
        let params = policy_params::find(self.registry, self.request.namespace, by).await?;
        let params = match params {
            Ok(params) => params,
            Err(_) if !self.policy.fails => return Ok(None),
            Err(why) => {
                let decision = Decision::failed(format!("failed to configure binding: {why}"));
                return Ok(Some(self.denied(&decision)));
            }
        };
        let review = hooks::review(self.request, version.as_deref(), "").await?;
        let seen = Seen::new(self.request, &review);
        let namespace = namespace_object(self.registry, self.request)?;
        let decisions = params.iter().flat_map(|param| self.evaluate(&seen, &namespace, param)).collect();
        Ok(self.act(decisions))
    }

    /// What does not hold.
    fn evaluate(&self, seen: &Seen, namespace: &Value, param: &Value) -> Vec<Decision> {
        let policy = self.policy;
        let failed = |why: String| if policy.fails { vec![Decision::failed(why)] } else { Vec::new() };
        if let Some(broken) = &policy.broken {
            return failed(broken.clone());
        }
        let budget = Seen::budget();
        let mut vars = seen.vars().json("namespaceObject", namespace).json("params", param);
        for (name, expression) in &policy.variables {
            vars = vars.variable(name, expression);
        }
        match matching::conditions_hold(&policy.conditions, &vars, &budget) {
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
            self.request.context.annotate(format!("{}/{key}", self.policy.name), text);
        }
    }

    /// Denies, warns and notes, as the binding says.
    fn act(&self, decisions: Vec<Decision>) -> Option<ApiError> {
        let (policy, binding, context) = (&self.policy.name, self.name, self.request.context);
        let does = |action: &str| self.spec.validation_actions.iter().any(|a| a == action);
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
                    "validationActions": self.spec.validation_actions,
                })
            };
            let all: Value = decisions.iter().map(one).collect();
            context.annotate("validation.policy.admission.k8s.io/validation_failure", all.to_string());
        }
        decisions.first().filter(|_| does("Deny")).map(|decision| self.denied(decision))
    }

    fn denied(&self, decision: &Decision) -> ApiError {
        let (policy, binding) = (&self.policy.name, self.name);
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
