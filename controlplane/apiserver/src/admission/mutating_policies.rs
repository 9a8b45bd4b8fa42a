//! `MutatingAdmissionPolicy`: changes in CEL of what is written, switched on by bindings.
//!
//! A change is an object that is merged in as by server-side apply, or a JSON patch. Each sees what those before it made.
//! A policy is compiled once for each of its revisions, and refused when that fails.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apiserver/pkg/admission/plugin/policy/mutating/{dispatcher,compilation}.go` and
//! `patch/{smd,json_patch}.go` there.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use k8s_openapi::{
    api::admissionregistration::v1::{MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding, Mutation},
    apimachinery::pkg::apis::meta::v1::StatusCause,
};
use podium_api::{
    ApiError, FieldErrors, FieldPath, Reason,
    apply::{self, ManagedFields, Reset, Writer},
    patch::{self, PatchBody},
};
use podium_custom::cel::{AdmissionEnv, Env, Expression, Type};
use serde_json::Value;

use super::{
    Plugin, Request, Step,
    compile::{Base, Compiler, Given},
    compiled::{self, Active, Binding, Compiled},
    hooks,
    matching::{self, Matcher, Seen},
    policies::{namespace_object, refuse_broken},
    policy_params,
};
use crate::registry::{Registry, Resource};

/// How an expression's value is put into the object.
enum Change {
    /// Merged, as by an apply.
    Merge(Expression),
    /// As a JSON patch.
    Patch(Expression),
}

/// A policy, ready to change requests.
struct Policy {
    base: Base,
    changes: Vec<Change>,
    /// Asked again when others changed the object after it.
    reinvoked: bool,
}

impl compiled::Policy for Policy {
    type Written = MutatingAdmissionPolicy;
    type Binding = MutatingAdmissionPolicyBinding;

    fn compile(written: &MutatingAdmissionPolicy, errs: &mut FieldErrors) -> Self {
        let spec = written.spec.clone().unwrap_or_default();
        let given = Given {
            name: written.metadata.name.as_ref(),
            failure_policy: spec.failure_policy.as_ref(),
            constraints: spec.match_constraints.as_ref(),
            conditions: spec.match_conditions.as_ref(),
            variables: spec.variables.as_ref(),
            param_kind: spec.param_kind.as_ref(),
        };
        let full = AdmissionEnv { authorizer: true, patches: true, ..AdmissionEnv::default() };
        let (base, changes) = Base::compile(&given, errs, full, |compiler, [env, _]| {
            let mut changes = Vec::new();
            for (i, mutation) in spec.mutations.iter().flatten().enumerate() {
                changes.extend(change(compiler, mutation, env, &FieldPath::new("spec.mutations").index(i)));
            }
            changes
        });
        Self { base, changes, reinvoked: spec.reinvocation_policy.as_deref() == Some("IfNeeded") }
    }

    fn same_spec(one: &MutatingAdmissionPolicy, other: &MutatingAdmissionPolicy) -> bool {
        one.spec == other.spec
    }

    fn bind(binding: &MutatingAdmissionPolicyBinding) -> (String, Binding) {
        let spec = binding.spec.clone().unwrap_or_default();
        let bound = Binding {
            name: binding.metadata.name.clone().unwrap_or_default(),
            params: spec.param_ref,
            matcher: spec.match_resources.as_ref().map(Matcher::new),
            actions: Vec::new(),
        };
        (spec.policy_name.unwrap_or_default(), bound)
    }
}

fn change(compiler: &mut Compiler<'_>, mutation: &Mutation, env: &Env, path: &FieldPath) -> Option<Change> {
    let text = |t: Option<&String>| t.cloned().unwrap_or_default();
    if mutation.patch_type == "JSONPatch" {
        let given = text(mutation.json_patch.as_ref().and_then(|p| p.expression.as_ref()));
        let of = [Type::list(Type::built("JSONPatch"))];
        return compiler.compile(&given, env, &of, &path.child("jsonPatch").child("expression")).map(Change::Patch);
    }
    let given = text(mutation.apply_configuration.as_ref().and_then(|c| c.expression.as_ref()));
    let of = [Type::built("Object")];
    compiler.compile(&given, env, &of, &path.child("applyConfiguration").child("expression")).map(Change::Merge)
}

/// The plug-in.
pub(super) struct MutatingPolicies(Compiled<Policy>);

impl MutatingPolicies {
    pub(super) fn new() -> Self {
        Self(Compiled::new())
    }
}

#[async_trait]
impl Plugin for MutatingPolicies {
    fn name(&self) -> &'static str {
        "MutatingAdmissionPolicy"
    }

    fn handles(&self, step: Step, request: &Request<'_>) -> bool {
        match (step, matching::is_exempt(request.resource)) {
            (Step::Admit, exempt) => !exempt && hooks::changes(request.operation),
            (Step::Validate, exempt) => exempt,
        }
    }

    async fn mutate(&self, registry: &Registry, request: &mut Request<'_>) -> Result<(), ApiError> {
        let active = self.0.active(registry);
        if active.is_empty() {
            return Ok(());
        }
        let invocations = invocations(&active, registry, request).await?;
        if request.reinvocation.is_again() {
            request.reinvocation.policies.require_if_changed(request.object.as_deref());
        }
        let mut denied = invocations.denied;
        for one in &invocations.wanted {
            if let Err(why) = one.invoke(registry, request).await? {
                denied.extend(one.policy.base.fails.then(|| shown(one.policy, one.binding, &why)));
            }
        }
        request.reinvocation.policies.finished(request.object.as_deref());
        refusal(request, denied)
    }

    /// Refuses policies whose expressions cannot be used.
    async fn validate(&self, _registry: &Registry, request: &Request<'_>) -> Result<(), ApiError> {
        refuse_broken::<Policy>(request)
    }
}

fn shown(policy: &Policy, binding: &Binding, why: &str) -> String {
    format!("policy '{}' with binding '{}' denied request: {why}", policy.base.name, binding.name)
}

/// The first of what was wrong, with all as causes.
fn refusal(request: &Request<'_>, denied: Vec<String>) -> Result<(), ApiError> {
    let Some(first) = denied.first().cloned() else { return Ok(()) };
    let mut error = request.forbidden(&first);
    error.message = first;
    error.reason = Reason::Invalid;
    let cause = |message| StatusCause { message: Some(message), ..StatusCause::default() };
    error.details.get_or_insert_default().causes = Some(denied.into_iter().map(cause).collect());
    Err(error)
}

/// One policy under one binding with one parameter.
struct Invocation<'a> {
    policy: &'a Policy,
    binding: &'a Binding,
    param: Value,
    /// The version that the policy is about, when it is not that of the request.
    version: Option<Arc<Resource>>,
}

struct Invocations<'a> {
    wanted: Vec<Invocation<'a>>,
    /// Why those are not asked that cannot be, where that refuses.
    denied: Vec<String>,
}

/// What is about a request, as it was before any policy changed it.
async fn invocations<'a>(
    active: &'a BTreeMap<String, Active<Policy>>,
    registry: &Registry,
    request: &Request<'_>,
) -> Result<Invocations<'a>, ApiError> {
    let (mut wanted, mut denied) = (Vec::new(), Vec::new());
    for Active { policy, bindings, .. } in active.values() {
        let Some(version) = policy.base.matcher.matches(registry, request)? else { continue };
        for binding in bindings {
            if let Some(matcher) = &binding.matcher
                && matcher.matches(registry, request)?.is_none()
            {
                continue;
            }
            let by = (policy.base.param_kind.as_ref(), binding.params.as_ref());
            match policy_params::find(registry, request.namespace, by).await? {
                Ok(params) => wanted.extend(params.into_iter().map(|param| {
                    let version = version.clone();
                    Invocation { policy, binding, param, version }
                })),
                Err(why) if policy.base.fails => {
                    denied.push(shown(policy, binding, &format!("failed to configure binding: {why}")));
                }
                Err(_) => {}
            }
        }
    }
    Ok(Invocations { wanted, denied })
}

impl Invocation<'_> {
    /// A name that no other has.
    fn key(&self) -> String {
        let text = |field: &str| self.param["metadata"][field].as_str().unwrap_or_default();
        format!("{}/{}/{}/{}", self.policy.base.name, self.binding.name, text("namespace"), text("name"))
    }

    /// Makes all changes; the inner error is for the failure policy to judge.
    async fn invoke(&self, registry: &Registry, request: &mut Request<'_>) -> Result<Result<(), String>, ApiError> {
        let base = &self.policy.base;
        if let Some(broken) = &base.broken {
            return Ok(Err(broken.clone()));
        }
        let namespace = namespace_object(registry, request)?;
        let version = self.version.as_deref();
        let review = hooks::review(request, version, "").await?;
        match self.is_meant(&Seen::new(registry, request, &review), &namespace) {
            Ok(true) => {}
            Ok(false) => return Ok(Ok(())),
            Err(why) => return Ok(Err(why)),
        }
        let key = self.key();
        if request.reinvocation.is_again() && !request.reinvocation.policies.is_due(&key) {
            return Ok(Ok(()));
        }
        let (mut outcome, mut differs) = (Ok(()), false);
        for change in &self.policy.changes {
            let review = hooks::review(request, version, "").await?;
            let done = match self.evaluate(&Seen::new(registry, request, &review), change, &namespace) {
                Ok(made) => {
                    let put = |shown: &Resource, live| put(shown, live, change, made);
                    hooks::change(request, version, put).await.map_err(|error| error.message)
                }
                Err(why) => Err(why),
            };
            differs |= *done.as_ref().unwrap_or(&false);
            outcome = outcome.and(done.map(|_| ()));
        }
        let reinvocation = &mut request.reinvocation;
        if differs {
            reinvocation.policies.require();
            reinvocation.changed();
        }
        if self.policy.reinvoked {
            reinvocation.policies.asked(key);
        }
        Ok(outcome)
    }

    /// Whether the policy's conditions hold.
    fn is_meant(&self, seen: &Seen, namespace: &Value) -> Result<bool, String> {
        let vars = seen.vars().json("namespaceObject", namespace).json("params", &self.param);
        let vars = self.policy.base.with_variables(vars);
        matching::conditions_hold(&self.policy.base.conditions, &vars, &Seen::budget())
    }

    /// What an expression says to change.
    fn evaluate(&self, seen: &Seen, change: &Change, namespace: &Value) -> Result<Value, String> {
        let vars = seen.vars().json("namespaceObject", namespace).json("params", &self.param);
        let vars = self.policy.base.with_variables(vars);
        let (Change::Merge(expression) | Change::Patch(expression)) = change;
        let failed = |error: &dyn std::fmt::Display| {
            format!("expression '{}' resulted in error: {error}", expression.text().trim())
        };
        let made = expression.evaluate(&vars, &Seen::budget()).map_err(|e| failed(&e))?;
        made.to_json().map_err(|e| failed(&e))
    }
}

/// An object with what an expression made put in.
fn put(shown: &Resource, live: Value, change: &Change, made: Value) -> Result<Value, ApiError> {
    match change {
        Change::Patch(_) => patch::apply(&*shown.kind, live, &PatchBody::Json(made)),
        Change::Merge(_) => merged(shown, &live, made),
    }
}

/// The object with a configuration merged in, list items by their keys. Nothing is taken away.
fn merged(shown: &Resource, live: &Value, mut config: Value) -> Result<Value, ApiError> {
    let version = shown.names.api_version();
    for field in ["apiVersion", "kind"] {
        config[field] = live[field].clone();
    }
    let writer =
        Writer { manager: "policy", subresource: "", api_version: &version, time: jiff::Timestamp::UNIX_EPOCH };
    let none = ManagedFields::default();
    apply::apply(&shown.kind.types(), Some(live), &config, none, &writer, &Reset(&[]), true).map(|(merged, _)| merged)
}
