//! `MutatingAdmissionPolicy`: changes in CEL of what is written, switched on by bindings.
//!
//! A change is an object that is merged in as by server-side apply, or a JSON patch. Each sees what those before it made.
//! A policy is compiled once for each of its revisions, and refused when that fails.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apiserver/pkg/admission/plugin/policy/mutating/{dispatcher,compilation}.go` and
//! `patch/{smd,json_patch}.go` there.

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding, Mutation, ParamKind,
};
use parking_lot::Mutex;
use podium_api::{
    ApiError, FieldErrors, FieldPath, Kind as _, Reason, Revision,
    apply::{self, ManagedFields, Reset, Writer},
    patch::{self, PatchBody},
};
use podium_custom::cel::{AdmissionEnv, Env, Expression, Type};
use serde_json::Value;

use super::{
    Plugin, Request, hooks, matching,
    matching::{Condition, Matcher, Seen},
    policies::namespace_object,
    policy_params,
};
use crate::registry::{Registry, cache::Filter};

/// How an expression's value is put into the object.
enum Change {
    /// Merged, as by an apply.
    Merge(Expression),
    /// As a JSON patch.
    Patch(Expression),
}

/// A policy, ready to change requests.
struct Policy {
    name: String,
    /// Whether a failing expression refuses.
    fails: bool,
    matcher: Matcher,
    param_kind: Option<ParamKind>,
    conditions: Vec<Condition>,
    variables: Vec<(String, Expression)>,
    changes: Vec<Change>,
    /// Why it cannot be used.
    broken: Option<String>,
}

impl Policy {
    /// `errs` gets what is wrong with the expressions.
    fn compile(policy: &MutatingAdmissionPolicy, errs: &mut FieldErrors) -> Self {
        let spec = policy.spec.clone().unwrap_or_default();
        let params = spec.param_kind.is_some();
        let mut env = Env::admission(AdmissionEnv { params, authorizer: true, variables: true, patches: true });
        let root = FieldPath::new("spec");
        let mut broken = None;
        let mut compile = |text: &str, env: &Env, types: &[Type], path: &FieldPath| {
            let text = text.trim();
            let compiled = if types.is_empty() {
                Expression::compile(text, env)
            } else {
                Expression::compile_as(text, env, types)
            };
            compiled
                .map_err(|error| {
                    errs.invalid(path, text, &error.to_string());
                    broken.get_or_insert_with(|| error.to_string());
                })
                .ok()
        };
        let mut variables = Vec::new();
        for (i, variable) in spec.variables.iter().flatten().enumerate() {
            let path = root.child("variables").index(i).child("expression");
            let Some(expression) = compile(&variable.expression, &env, &[], &path) else { continue };
            env.compose(&variable.name, expression.result().clone());
            variables.push((variable.name.clone(), expression));
        }
        let mut changes = Vec::new();
        for (i, mutation) in spec.mutations.iter().flatten().enumerate() {
            let path = root.child("mutations").index(i);
            changes.extend(change(mutation, &path, &mut |text, of, path| compile(text, &env, of, path)));
        }
        let conditions = matching::conditions(spec.match_conditions.as_deref(), params);
        for (i, (_, condition)) in conditions.iter().enumerate() {
            if let Err(error) = condition {
                let text = spec.match_conditions.iter().flatten().nth(i).map(|c| c.expression.clone());
                let path = root.child("matchConditions").index(i).child("expression");
                errs.invalid(&path, text.unwrap_or_default(), &error.to_string());
            }
        }
        Self {
            name: policy.metadata.name.clone().unwrap_or_default(),
            fails: spec.failure_policy.as_deref() != Some("Ignore"),
            matcher: Matcher::new(&spec.match_constraints.unwrap_or_default()),
            param_kind: spec.param_kind,
            conditions,
            variables,
            changes,
            broken,
        }
    }
}

/// Compiles an expression that has to have one of some types.
type Compile<'c> = dyn FnMut(&str, &[Type], &FieldPath) -> Option<Expression> + 'c;

fn change(mutation: &Mutation, path: &FieldPath, compile: &mut Compile<'_>) -> Option<Change> {
    let text = |t: Option<&String>| t.cloned().unwrap_or_default();
    if mutation.patch_type == "JSONPatch" {
        let given = text(mutation.json_patch.as_ref().and_then(|p| p.expression.as_ref()));
        let of = [Type::list(Type::built("JSONPatch"))];
        return compile(&given, &of, &path.child("jsonPatch").child("expression")).map(Change::Patch);
    }
    let given = text(mutation.apply_configuration.as_ref().and_then(|c| c.expression.as_ref()));
    let of = [Type::built("Object")];
    compile(&given, &of, &path.child("applyConfiguration").child("expression")).map(Change::Merge)
}

/// The plug-in.
#[derive(Default)]
pub(super) struct MutatingPolicies(Mutex<HashMap<String, (Revision, Arc<Policy>)>>);

impl MutatingPolicies {
    fn policy(&self, registry: &Registry, name: &str) -> Option<Arc<Policy>> {
        let entry = registry.of(&MutatingAdmissionPolicy::NAMES).ok()?.cache.get("", name);
        let mut compiled = self.0.lock();
        let Some(entry) = entry else {
            compiled.remove(name);
            return None;
        };
        if let Some((at, policy)) = compiled.get(name)
            && *at == entry.revision()
        {
            return Some(policy.clone());
        }
        let policy = entry.object.downcast_ref::<MutatingAdmissionPolicy>()?;
        let policy = Arc::new(Policy::compile(policy, &mut FieldErrors::new()));
        compiled.insert(name.to_owned(), (entry.revision(), policy.clone()));
        Some(policy)
    }
}

#[async_trait]
impl Plugin for MutatingPolicies {
    fn name(&self) -> &'static str {
        "MutatingAdmissionPolicy"
    }

    async fn mutate(&self, registry: &Registry, request: &mut Request<'_>) -> Result<(), ApiError> {
        if matching::is_exempt(request.resource) || !hooks::changes(request.operation) {
            return Ok(());
        }
        let Ok(bindings) = registry.of(&MutatingAdmissionPolicyBinding::NAMES) else { return Ok(()) };
        if bindings.cache.len() == 0 {
            return Ok(());
        }
        for entry in bindings.cache.list(&Filter::default()).entries {
            let Some(binding) = entry.object.downcast_ref::<MutatingAdmissionPolicyBinding>() else { continue };
            let spec = binding.spec.clone().unwrap_or_default();
            let Some(policy) = self.policy(registry, spec.policy_name.as_deref().unwrap_or_default()) else { continue };
            if policy.matcher.matches(registry, request)?.is_none() {
                continue;
            }
            if let Some(resources) = &spec.match_resources
                && Matcher::new(resources).matches(registry, request)?.is_none()
            {
                continue;
            }
            let by = (policy.param_kind.as_ref(), spec.param_ref.as_ref());
            let outcome = match policy_params::find(registry, request.namespace, by).await? {
                Ok(params) => mutate(registry, request, &policy, &params).await?,
                Err(why) => Err(format!("failed to configure binding: {why}")),
            };
            if let Err(why) = outcome.or_else(|why| if policy.fails { Err(why) } else { Ok(()) }) {
                let name = binding.metadata.name.as_deref().unwrap_or_default();
                let why = format!("policy '{}' with binding '{name}' denied request: {why}", policy.name);
                let mut error = ApiError::forbidden(&request.resource.names, request.name, &why);
                error.reason = Reason::Invalid;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Refuses policies whose expressions cannot be used.
    async fn validate(&self, _registry: &Registry, request: &Request<'_>) -> Result<(), ApiError> {
        let policy = request.object.as_deref().and_then(|o| o.downcast_ref::<MutatingAdmissionPolicy>());
        let Some(policy) = policy.filter(|_| request.subresource.is_empty()) else { return Ok(()) };
        let old = request.old.and_then(|o| o.downcast_ref::<MutatingAdmissionPolicy>());
        let mut errs = FieldErrors::new();
        if old.is_none_or(|old| old.spec != policy.spec) {
            Policy::compile(policy, &mut errs);
        }
        if errs.is_empty() {
            return Ok(());
        }
        Err(ApiError::invalid(&MutatingAdmissionPolicy::NAMES, request.name, errs))
    }
}

/// Makes all changes of a policy for each of its parameters; the inner error is for its failure policy to judge.
async fn mutate(
    registry: &Registry,
    request: &mut Request<'_>,
    policy: &Policy,
    params: &[Value],
) -> Result<Result<(), String>, ApiError> {
    if let Some(broken) = &policy.broken {
        return Ok(Err(broken.clone()));
    }
    let namespace = namespace_object(registry, request)?;
    for param in params {
        for change in &policy.changes {
            let review = hooks::review(request, None, "").await?;
            let made = match evaluate(&Seen::new(request, &review), policy, change, (&namespace, param)) {
                Ok(Some(made)) => made,
                Ok(None) => break,
                Err(why) => return Ok(Err(why)),
            };
            if let Err(error) = put(request, change, made) {
                return Ok(Err(error.message));
            }
        }
    }
    Ok(Ok(()))
}

/// What an expression says to change; `None` when the policy's conditions do not hold.
fn evaluate(
    seen: &Seen,
    policy: &Policy,
    change: &Change,
    (namespace, param): (&Value, &Value),
) -> Result<Option<Value>, String> {
    let budget = Seen::budget();
    let mut vars = seen.vars().json("namespaceObject", namespace).json("params", param);
    for (name, expression) in &policy.variables {
        vars = vars.variable(name, expression);
    }
    if !matching::conditions_hold(&policy.conditions, &vars, &budget)? {
        return Ok(None);
    }
    let (Change::Merge(expression) | Change::Patch(expression)) = change;
    let failed =
        |error: &dyn std::fmt::Display| format!("expression '{}' resulted in error: {error}", expression.text().trim());
    let made = expression.evaluate(&vars, &budget).map_err(|e| failed(&e))?;
    made.to_json().map(Some).map_err(|e| failed(&e))
}

/// Puts what an expression made into the object.
fn put(request: &mut Request<'_>, change: &Change, made: Value) -> Result<(), ApiError> {
    let kind = &request.resource.kind;
    let Some(object) = request.object.as_deref() else { return Ok(()) };
    let tree = object.to_value().map_err(|e| ApiError::internal(format!("encoding an object: {e}")))?;
    let changed = match change {
        Change::Patch(_) => patch::apply(&**kind, tree, &PatchBody::Json(made))?,
        Change::Merge(_) => merged(request, tree, made)?,
    };
    let mut object = kind.decode_value(changed)?.object;
    kind.fill_defaults(&mut *object);
    request.object = Some(object);
    Ok(())
}

/// The object with a configuration merged in, list items by their keys. Nothing is taken away.
fn merged(request: &Request<'_>, live: Value, mut config: Value) -> Result<Value, ApiError> {
    let version = request.resource.names.api_version();
    for field in ["apiVersion", "kind"] {
        config[field] = live[field].clone();
    }
    let writer =
        Writer { manager: "policy", subresource: "", api_version: &version, time: jiff::Timestamp::UNIX_EPOCH };
    let types = request.resource.kind.types();
    let none = ManagedFields::default();
    apply::apply(&types, Some(&live), &config, none, &writer, &Reset(&[]), true).map(|(merged, _)| merged)
}
