//! The objects that parametrise a policy.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apiserver/pkg/admission/plugin/policy/generic/policy_dispatcher.go` (`CollectParams`).

use k8s_openapi::api::admissionregistration::v1::{ParamKind, ParamRef};
use podium_api::{ApiError, Scope, Selector};
use serde_json::Value;

use crate::registry::{Registry, cache::Filter};

/// The parameters of a policy under a binding, `null` where there are to be none; the inner error is for the policy's
/// failure policy to judge.
pub(super) async fn find(
    registry: &Registry,
    requested: &str,
    (kind, by): (Option<&ParamKind>, Option<&ParamRef>),
) -> Result<Result<Vec<Value>, String>, ApiError> {
    let (Some(kind), Some(by)) = (kind, by) else { return Ok(Ok(vec![Value::Null])) };
    let (version, name) = (kind.api_version.as_deref().unwrap_or_default(), kind.kind.as_deref().unwrap_or_default());
    let (group, short) = version.rsplit_once('/').unwrap_or(("", version));
    let Some(resource) = registry.served().find_kind(group, short, name).cloned() else {
        return Ok(Err(format!("failed to find resource referenced by paramKind: '{version}, Kind={name}'")));
    };
    let given = by.namespace.as_deref().unwrap_or_default();
    let namespace = match resource.scope {
        Scope::Cluster if !given.is_empty() => {
            return Ok(Err("paramRef.namespace must not be provided for a cluster-scoped `paramKind`".to_owned()));
        }
        Scope::Cluster => "",
        Scope::Namespaced if given.is_empty() => requested,
        Scope::Namespaced => given,
    };
    if resource.scope == Scope::Namespaced && namespace.is_empty() {
        let why = "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources";
        return Ok(Err(why.to_owned()));
    }
    let found = match by.name.as_deref().filter(|n| !n.is_empty()) {
        Some(name) => resource.cache.get(namespace, name).into_iter().collect(),
        None => {
            let Ok(labels) = Selector::from_label_selector(by.selector.as_ref()) else {
                return Ok(Err("paramRef.selector cannot be read".to_owned()));
            };
            resource.cache.list(&Filter { namespace: namespace.to_owned(), labels, ..Filter::default() }).entries
        }
    };
    if found.is_empty() && by.parameter_not_found_action.as_deref() == Some("Deny") {
        return Ok(Err("no params found for policy binding with `Deny` parameterNotFoundAction".to_owned()));
    }
    let shown = resource.view_all(found).await?;
    shown.iter().map(|entry| entry.bare_tree()).collect::<Result<_, _>>().map(Ok)
}
