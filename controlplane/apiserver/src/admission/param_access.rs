//! Who makes a policy read parameters has to be allowed to read them: otherwise what it says would tell of them.
//!
//! # Source
//! Kubernetes `pkg/registry/admissionregistration/{validating,mutating}admissionpolicy{,binding}/authz.go`.

use async_trait::async_trait;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding, ParamKind, ParamRef, ValidatingAdmissionPolicy,
    ValidatingAdmissionPolicyBinding,
};
use podium_api::{ApiError, FieldErrors, FieldPath, Kind, Object};

use super::{Operation, Plugin, Request, Step, matching};
use crate::{
    auth::{Attributes, Authorizer as _, Identity, MASTERS},
    registry::Registry,
};

/// The plug-in.
pub(super) struct ParamAccess;

#[async_trait]
impl Plugin for ParamAccess {
    fn name(&self) -> &'static str {
        "PolicyParamAccess"
    }

    fn handles(&self, step: Step, request: &Request<'_>) -> bool {
        step == Step::Validate
            && request.operation != Operation::Delete
            && request.subresource.is_empty()
            && matching::is_exempt(request.resource)
            && !request.context.who.groups.iter().any(|group| group == MASTERS)
    }

    async fn validate(&self, registry: &Registry, request: &Request<'_>) -> Result<(), ApiError> {
        let Some(new) = request.object.as_deref() else { return Ok(()) };
        let who = request.context.who;
        let refusal = match (kind_of(new), reference_of(new)) {
            (Some(kind), _) if request.old.and_then(kind_of) != Some(kind) => all(registry, who, kind),
            (_, Some(by)) if request.old.and_then(reference_of) != Some(by) => one(registry, who, by),
            _ => None,
        };
        let Some((field, why)) = refusal else { return Ok(()) };
        let mut errs = FieldErrors::new();
        errs.forbidden(&FieldPath::new("spec").child(field), &why);
        Err(ApiError::invalid(&request.resource.names, request.name, errs))
    }
}

type Refusal = Option<(&'static str, String)>;

/// Whether somebody may read every object of a kind.
fn all(registry: &Registry, who: &Identity, kind: &ParamKind) -> Refusal {
    let (group, resource) = resource(registry, Some(kind));
    let everything = Attributes { name: "*", namespace: "*", ..Attributes::default() };
    let what = Attributes { verb: "get", group: &group, resource: &resource, ..everything };
    if registry.rbac().allows(who, &what) {
        return None;
    }
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let why = format!(
        "user {} must have \"get\" permission on all objects of the referenced paramKind (kind={}, apiVersion={})",
        shown(who),
        text(&kind.kind),
        text(&kind.api_version)
    );
    Some(("paramKind", why))
}

/// Whether somebody may read the object that a binding refers to.
fn one(registry: &Registry, who: &Identity, (policy, by): (Policy<'_>, &ParamRef)) -> Refusal {
    let (group, resource) = resource(registry, policy.kind(registry).as_ref());
    let text = |field: &'_ Option<String>| field.clone().unwrap_or_default();
    let (name, namespace) = (text(&by.name), text(&by.namespace));
    let place = Attributes { name: &name, namespace: &namespace, ..Attributes::default() };
    let what = Attributes { verb: "get", group: &group, resource: &resource, ..place };
    if registry.rbac().allows(who, &what) {
        return None;
    }
    let why = format!("user {} does not have \"get\" permission on the object referenced by paramRef", shown(who));
    Some(("paramRef", why))
}

/// Group and plural of a kind; all where it is not known.
fn resource(registry: &Registry, kind: Option<&ParamKind>) -> (String, String) {
    let all = || "*".to_owned();
    let Some(kind) = kind else { return (all(), all()) };
    let version = kind.api_version.as_deref().unwrap_or_default();
    let (group, short) = version.rsplit_once('/').unwrap_or(("", version));
    let name = kind.kind.as_deref().unwrap_or_default();
    let served = registry.served();
    let plural = served.find_kind(group, short, name).map(|found| found.names.plural.to_owned());
    (group.to_owned(), plural.unwrap_or_else(all))
}

/// The kind of the parameters of a policy.
fn kind_of(object: &dyn Object) -> Option<&ParamKind> {
    if let Some(policy) = object.downcast_ref::<ValidatingAdmissionPolicy>() {
        return policy.spec.as_ref()?.param_kind.as_ref();
    }
    object.downcast_ref::<MutatingAdmissionPolicy>()?.spec.as_ref()?.param_kind.as_ref()
}

/// The policy that a binding is of.
#[derive(Clone, Copy, PartialEq)]
enum Policy<'a> {
    Validating(&'a str),
    Mutating(&'a str),
}

impl Policy<'_> {
    fn kind(self, registry: &Registry) -> Option<ParamKind> {
        let (names, name) = match self {
            Self::Validating(name) => (ValidatingAdmissionPolicy::NAMES, name),
            Self::Mutating(name) => (MutatingAdmissionPolicy::NAMES, name),
        };
        let entry = registry.of(&names).ok()?.cache.get("", name)?;
        kind_of(&*entry.object).cloned()
    }
}

/// What a binding refers to.
fn reference_of(object: &dyn Object) -> Option<(Policy<'_>, &ParamRef)> {
    if let Some(binding) = object.downcast_ref::<ValidatingAdmissionPolicyBinding>() {
        let spec = &binding.spec;
        return Some((Policy::Validating(&spec.policy_name), spec.param_ref.as_ref()?));
    }
    let spec = object.downcast_ref::<MutatingAdmissionPolicyBinding>()?.spec.as_ref()?;
    Some((Policy::Mutating(spec.policy_name.as_deref()?), spec.param_ref.as_ref()?))
}

/// Somebody, as Kubernetes shows them here.
fn shown(who: &Identity) -> String {
    let extra: Vec<String> = who.extra.iter().map(|(key, values)| format!("{key}:[{}]", values.join(" "))).collect();
    format!("&{{{} {} [{}] map[{}]}}", who.user, who.uid, who.groups.join(" "), extra.join(" "))
}
