//! Nobody gives what they do not have: writes of roles and bindings are refused that would.
//!
//! Whoever may `escalate` a role may write anything into it, whoever may `bind` a role may give it to anybody.
//!
//! # Source
//! Kubernetes `pkg/registry/rbac/{role,clusterrole,rolebinding,clusterrolebinding}/policybased/storage.go`,
//! `pkg/registry/rbac/escalation_check.go`.

use async_trait::async_trait;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef};
use podium_api::{ApiError, Object};

use super::{Rbac, covers, index, is_master};
use crate::{
    admission::{Operation, Plugin, Request, Step},
    auth::{Attributes, Authorizer as _},
    registry::Registry,
};

/// The check, as one of those that judge writes.
pub(crate) struct Escalation;

#[async_trait]
impl Plugin for Escalation {
    fn name(&self) -> &'static str {
        "RBACEscalation"
    }

    fn handles(&self, step: Step, request: &Request<'_>) -> bool {
        let ours = || {
            request.is_about::<ClusterRole>()
                || request.is_about::<Role>()
                || request.is_about::<ClusterRoleBinding>()
                || request.is_about::<RoleBinding>()
        };
        step == Step::Validate
            && request.operation != Operation::Delete
            && request.subresource.is_empty()
            && ours()
            && !is_master(request.context.who)
    }

    async fn validate(&self, registry: &Registry, request: &Request<'_>) -> Result<(), ApiError> {
        let Some(new) = request.object.as_deref() else { return Ok(()) };
        if request.old.is_some_and(|old| is_only_cleaned(new, old)) {
            return Ok(());
        }
        let rbac = registry.rbac();
        match index::parts(new) {
            Some((role, _)) => binding(rbac, request, role),
            None => rules(rbac, request, new),
        }
    }
}

/// A binding: of a role that one may bind, or that gives nothing new.
fn binding(rbac: &Rbac, request: &Request<'_>, role: &RoleRef) -> Result<(), ApiError> {
    let resource = match role.kind.as_str() {
        "ClusterRole" => "clusterroles",
        _ => "roles",
    };
    let what = Attributes {
        verb: "bind",
        group: role.api_group.as_deref().unwrap_or_default(),
        resource,
        namespace: request.namespace,
        name: &role.name,
        ..Attributes::default()
    };
    if rbac.allows(request.context.who, &what) {
        return Ok(());
    }
    confirm(rbac, request, &rbac.rules_of(role, request.namespace)?).map_err(|why| request.forbidden(&why))
}

/// A role: one that one may escalate, or that gives nothing new.
fn rules(rbac: &Rbac, request: &Request<'_>, new: &dyn Object) -> Result<(), ApiError> {
    let names = &request.resource.names;
    let what = Attributes {
        verb: "escalate",
        group: names.group,
        resource: names.plural,
        namespace: request.namespace,
        name: request.name,
        ..Attributes::default()
    };
    if rbac.allows(request.context.who, &what) {
        return Ok(());
    }
    let wanted = match (new.downcast_ref::<ClusterRole>(), new.downcast_ref::<Role>()) {
        (Some(role), _) => role.rules.as_deref(),
        (_, Some(role)) => role.rules.as_deref(),
        _ => None,
    };
    confirm(rbac, request, wanted.unwrap_or_default()).map_err(|why| request.forbidden(&why))?;
    let aggregates = |object: &dyn Object| {
        let rule = object.downcast_ref::<ClusterRole>().and_then(|role| role.aggregation_rule.as_ref());
        rule.and_then(|rule| rule.cluster_role_selectors.as_ref()).is_some_and(|s| !s.is_empty())
    };
    if aggregates(new) || request.old.is_some_and(aggregates) {
        let why = "must have cluster-admin privileges to use the aggregationRule";
        confirm(rbac, request, &everything()).map_err(|_| request.forbidden(why))?;
    }
    Ok(())
}

/// Says what of some rules the writer does not have.
fn confirm(rbac: &Rbac, request: &Request<'_>, wanted: &[PolicyRule]) -> Result<(), String> {
    let who = request.context.who;
    let (held, errors) = rbac.rules(who, request.namespace);
    let missing = covers::missing(&held, wanted);
    if missing.is_empty() {
        return Ok(());
    }
    let groups: Vec<String> = who.groups.iter().map(|group| format!("{group:?}")).collect();
    let lines: Vec<String> = missing.into_iter().collect();
    let mut why = format!(
        "user {:?} (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
        who.user,
        groups.join(" "),
        lines.join("\n")
    );
    if !errors.is_empty() {
        why.push_str(&format!("; resolution errors: [{errors}]"));
    }
    Err(why)
}

fn everything() -> [PolicyRule; 2] {
    let all = || vec!["*".to_owned()];
    let resources =
        PolicyRule { verbs: all(), api_groups: Some(all()), resources: Some(all()), ..PolicyRule::default() };
    let urls = PolicyRule { verbs: all(), non_resource_urls: Some(all()), ..PolicyRule::default() };
    [resources, urls]
}

/// Whether nothing changed but what keeps an object from being collected.
fn is_only_cleaned(new: &dyn Object, old: &dyn Object) -> bool {
    let known = old.meta();
    let mut copy = new.boxed_clone();
    let meta = copy.meta_mut();
    meta.owner_references.clone_from(&known.owner_references);
    meta.finalizers.clone_from(&known.finalizers);
    copy.same_as(old)
}
