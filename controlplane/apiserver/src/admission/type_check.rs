//! `status.typeChecking` of ValidatingAdmissionPolicies: what their expressions get wrong about the kinds that they are for.
//!
//! Only kinds that a policy names can be checked, at most [`KINDS_MAX`] of them; wildcards are passed over. A warning keeps
//! nobody from anything. A policy is checked once for each of its generations.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apiserver/pkg/admission/plugin/policy/validating/typechecking.go`,
//! `pkg/controller/validatingadmissionpolicystatus/controller.go`.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use k8s_openapi::api::admissionregistration::v1::{NamedRuleWithOperations, ValidatingAdmissionPolicy};
use podium_api::{ApiError, Kind as _, KindRef, openapi};
use podium_client::Delta;
use podium_custom::cel::{AdmissionEnv, CompileError, Env, Expression, Type};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::{
    auth::{Identity, MASTERS},
    registry::{Part, Registry, WriteContext, cache::Filter, served::Served},
};

/// How many kinds one rule of a policy is checked against.
const KINDS_MAX: usize = 10;
/// As in Kubernetes: who the status is from.
const MANAGER: &str = "validatingadmissionpolicy-status";
/// How long a status waits that could not be written.
const RETRY: Duration = Duration::from_secs(5);

/// Checks every policy that comes or changes, for as long as the server runs.
pub(crate) async fn run(registry: Arc<Registry>, stop: CancellationToken) {
    let Ok(resource) = registry.of(&ValidatingAdmissionPolicy::NAMES) else { return };
    let mut changes = resource.cache.subscribe(Filter::default());
    let mut failed: BTreeSet<String> = BTreeSet::new();
    loop {
        let names: Vec<String> = tokio::select! {
            () = stop.cancelled() => return,
            change = changes.recv() => match change {
                None => return,
                Some(Delta::Put { new, .. }) => new.meta().name.clone().into_iter().collect(),
                Some(_) => Vec::new(),
            },
            () = tokio::time::sleep(RETRY), if !failed.is_empty() => std::mem::take(&mut failed).into_iter().collect(),
        };
        for name in names {
            if let Err(error) = look_at(&registry, &name).await {
                tracing::warn!(policy = name, %error, "the status of a policy cannot be written");
                failed.insert(name);
            }
        }
    }
}

async fn look_at(registry: &Registry, name: &str) -> Result<(), ApiError> {
    let resource = registry.of(&ValidatingAdmissionPolicy::NAMES)?;
    let Some(entry) = resource.cache.get("", name) else { return Ok(()) };
    let Some(policy) = entry.object.clone().downcast_arc::<ValidatingAdmissionPolicy>() else { return Ok(()) };
    let generation = policy.metadata.generation.unwrap_or_default();
    let observed = policy.status.as_ref().and_then(|s| s.observed_generation).unwrap_or_default();
    if generation <= observed {
        return Ok(());
    }
    let served = registry.served();
    // Reading all fields of some kinds takes milliseconds.
    let checked = tokio::task::spawn_blocking(move || warnings(&policy, &served)).await;
    let warnings = checked.map_err(|error| ApiError::internal(format!("checking types: {error}")))?;
    let mut checking = json!({});
    if !warnings.is_empty() {
        checking["expressionWarnings"] = warnings.into();
    }
    let config = json!({
        "apiVersion": ValidatingAdmissionPolicy::NAMES.api_version(), "kind": ValidatingAdmissionPolicy::NAMES.kind,
        "metadata": {"name": name}, "status": {"observedGeneration": generation, "typeChecking": checking},
    });
    let who = Identity::new("system:kube-controller-manager", &[MASTERS]);
    let context = WriteContext::new(&who, MANAGER).unchecked();
    match registry.apply(&resource, ("", name), Part::Status, &context, (&config, true)).await {
        Err(error) if error.is_not_found() => Ok(()),
        result => result.map(|_| ()),
    }
}

/// A kind, as messages show it, and its type.
struct Checked {
    shown: String,
    of: Type,
}

fn checked(kind: &KindRef) -> Option<Checked> {
    let names = kind.names();
    let of = Type::of_openapi(&openapi::schemas_of(kind), &kind.schema_name(), names.kind)?;
    Some(Checked { shown: format!("{}/{}, Kind={}", names.group, names.version, names.kind), of })
}

/// The `expressionWarnings` of a policy.
fn warnings(policy: &ValidatingAdmissionPolicy, served: &Served) -> Vec<Value> {
    let Some(spec) = &policy.spec else { return Vec::new() };
    let rules = spec.match_constraints.iter().flat_map(|m| m.resource_rules.iter().flatten());
    let kinds: Vec<Checked> = kinds(rules, served).iter().filter_map(checked).collect();
    let params = spec.param_kind.as_ref().map(|kind| {
        let version = kind.api_version.as_deref().unwrap_or_default();
        let (group, version) = version.rsplit_once('/').unwrap_or(("", version));
        let found = served.find_kind(group, version, kind.kind.as_deref().unwrap_or_default());
        found.and_then(|resource| checked(&resource.kind)).map_or(Type::Dyn, |checked| checked.of)
    });
    let variables: Vec<(&str, &str)> =
        spec.variables.iter().flatten().map(|v| (v.name.as_str(), v.expression.as_str())).collect();
    let envs: Vec<(&str, Env)> =
        kinds.iter().map(|kind| (kind.shown.as_str(), env(&kind.of, params.as_ref(), &variables))).collect();
    let mut found = Vec::new();
    for (i, rule) in spec.validations.iter().flatten().enumerate() {
        let message = rule.message_expression.as_deref().filter(|m| !m.is_empty());
        for (field, text) in [("expression", Some(rule.expression.as_str())), ("messageExpression", message)] {
            let wrong: Vec<String> =
                text.iter().flat_map(|text| envs.iter().filter_map(|env| check(text, env))).collect();
            if !wrong.is_empty() {
                let path = format!("spec.validations[{i}].{field}");
                found.push(json!({"fieldRef": path, "warning": wrong.join("\n")}));
            }
        }
    }
    found
}

fn env(object: &Type, params: Option<&Type>, variables: &[(&str, &str)]) -> Env {
    let with = AdmissionEnv { params: params.is_some(), authorizer: true, variables: true, patches: false };
    let mut env = Env::admission(with).variable("object", object.clone()).variable("oldObject", object.clone());
    if let Some(params) = params {
        env = env.variable("params", params.clone());
    }
    for (name, text) in variables {
        let of = Expression::compile(text.trim(), &env).map_or(Type::Dyn, |e| e.result().clone());
        env.compose(name, of);
    }
    env
}

fn check(text: &str, (shown, env): &(&str, Env)) -> Option<String> {
    let (CompileError::Invalid(why) | CompileError::Result(why)) = Expression::compile(text, env).err()?;
    Some(format!("{shown}: {why}\n"))
}

/// The kinds that rules name, sorted.
fn kinds<'r>(rules: impl Iterator<Item = &'r NamedRuleWithOperations>, served: &Served) -> Vec<KindRef> {
    let mut found: Vec<KindRef> = Vec::new();
    for rule in rules {
        let (Some(groups), Some(versions)) = (named(&rule.api_groups), named(&rule.api_versions)) else { continue };
        let mut resources: Vec<&str> = rule.resources.iter().flatten().map(String::as_str).collect();
        resources.retain(|r| !r.contains(['*', '/']));
        resources.sort_unstable();
        let all = groups.iter().flat_map(|g| versions.iter().map(move |v| (g, v)));
        let all = all.flat_map(|(g, v)| resources.iter().filter_map(move |r| served.find(g, v, r)));
        for resource in all.take(KINDS_MAX) {
            if !found.iter().any(|kind| kind.names() == resource.names) {
                found.push(resource.kind.clone());
            }
        }
    }
    found.sort_by_key(|kind| (kind.names().group, kind.names().version, kind.names().kind));
    found
}

/// All of a list, sorted; `None` when it names everything.
fn named(list: &Option<Vec<String>>) -> Option<Vec<&str>> {
    let mut names: Vec<&str> = list.iter().flatten().map(String::as_str).collect();
    names.sort_unstable();
    (!names.iter().any(|name| name.contains('*'))).then_some(names)
}
