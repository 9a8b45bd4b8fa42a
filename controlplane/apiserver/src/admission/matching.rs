//! Which requests a webhook or a policy is about: rules, selectors, match conditions.
//!
//! Everything is compiled once for each state of a configuration. Matching reads caches only and calls nobody.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apiserver/pkg/admission/plugin/webhook/predicates` and `.../matchconditions`.

use std::sync::Arc;

use k8s_openapi::{
    api::{
        admissionregistration::v1::{MatchCondition, MatchResources, NamedRuleWithOperations, RuleWithOperations},
        core::v1::Namespace,
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use podium_api::{ApiError, Kind as _, Object, Scope, Selector};
use podium_custom::cel::{
    self, AdmissionEnv, Attributes, Budget, COST_PER_OBJECT_MAX, CompileError, Decision, Env, Expression, Vars,
};
use serde_json::Value;

use super::{Operation, Request};
use crate::{
    auth::{self, Authorizer as _, Identity},
    rbac::Rbac,
    registry::{Registry, Resource},
};

const GROUP: &str = "admissionregistration.k8s.io";

/// What a rule is held against.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) operation: Operation,
    pub(super) group: &'a str,
    pub(super) version: &'a str,
    pub(super) resource: &'a str,
    pub(super) subresource: &'a str,
    pub(super) scope: Scope,
}

impl<'a> Asked<'a> {
    pub(super) fn of(request: &'a Request<'_>) -> Self {
        let names = &request.resource.names;
        Self {
            operation: request.operation,
            group: names.group,
            version: names.version,
            resource: names.plural,
            subresource: request.subresource,
            scope: request.resource.scope,
        }
    }
}

/// Whether a rule is about a request.
pub(super) fn rule_matches(rule: &RuleWithOperations, asked: &Asked<'_>) -> bool {
    let any = |list: &Option<Vec<String>>, wanted: &str| list.iter().flatten().any(|v| v == "*" || v == wanted);
    let scope = match rule.scope.as_deref() {
        Some("Namespaced") => asked.scope == Scope::Namespaced,
        Some("Cluster") => asked.scope == Scope::Cluster,
        _ => true,
    };
    scope
        && any(&rule.operations, asked.operation.as_str())
        && any(&rule.api_groups, asked.group)
        && any(&rule.api_versions, asked.version)
        && rule.resources.iter().flatten().any(|r| resource_matches(r, asked.resource, asked.subresource))
}

fn resource_matches(rule: &str, resource: &str, subresource: &str) -> bool {
    let (of, sub) = rule.split_once('/').unwrap_or((rule, ""));
    (of == "*" || of == resource) && (sub == subresource || sub == "*")
}

/// Whether the server's rules about requests themselves are meant, which no webhook and no policy may lock.
pub(super) fn is_exempt(resource: &Resource) -> bool {
    resource.names.group == GROUP
}

/// The version in which rules are about a request: its own, or another one of the same objects when `equivalent`.
pub(super) fn matching_version(
    registry: &Registry,
    request: &Request<'_>,
    equivalent: bool,
    matches: impl Fn(&Asked<'_>) -> bool,
) -> Option<Option<Arc<Resource>>> {
    let asked = Asked::of(request);
    if matches(&asked) {
        return Some(None);
    }
    if !equivalent {
        return None;
    }
    let served = registry.served();
    let other = served.all().iter().filter(|r| Arc::ptr_eq(&r.cache, &request.resource.cache)).find(|other| {
        let names = &other.names;
        matches(&Asked { group: names.group, version: names.version, resource: names.plural, ..asked })
    });
    other.cloned().map(Some)
}

/// Selectors by namespace and by object.
#[derive(Debug)]
pub(super) struct Selectors {
    namespace: Selector,
    object: Selector,
}

impl Selectors {
    pub(super) fn new(namespace: Option<&LabelSelector>, object: Option<&LabelSelector>) -> Self {
        // What is missing selects everything, and was filled in so; what cannot be read was refused when it was made.
        let read = |selector: Option<&LabelSelector>| match selector {
            None => Selector::everything(),
            some => Selector::from_label_selector(some).unwrap_or_else(|_| Selector::nothing()),
        };
        Self { namespace: read(namespace), object: read(object) }
    }

    pub(super) fn match_request(&self, registry: &Registry, request: &Request<'_>) -> Result<bool, ApiError> {
        Ok(self.matches_object(request) && self.matches_namespace(registry, request)?)
    }

    fn matches_object(&self, request: &Request<'_>) -> bool {
        let matches = |object: &dyn Object| self.object.matches_option(object.meta().labels.as_ref());
        // Options have no labels, nor do they lack any.
        if request.operation == Operation::Connect {
            return self.object.is_everything();
        }
        self.object.is_everything()
            || request.object.as_deref().is_some_and(matches)
            || request.old.is_some_and(matches)
    }

    fn matches_namespace(&self, registry: &Registry, request: &Request<'_>) -> Result<bool, ApiError> {
        if self.namespace.is_everything() {
            return Ok(true);
        }
        // A namespace is judged by its own labels, also when it is only being made.
        if is_namespace(request.resource) {
            let object = request.object.as_deref().or(request.old);
            return Ok(object.is_some_and(|o| self.namespace.matches_option(o.meta().labels.as_ref())));
        }
        if request.namespace.is_empty() {
            return Ok(true);
        }
        let names = &Namespace::NAMES;
        let found = registry.of(names)?.cache.get("", request.namespace);
        let found = found.ok_or_else(|| ApiError::not_found(names, request.namespace))?;
        Ok(self.namespace.matches_option(found.object.meta().labels.as_ref()))
    }
}

/// What a policy or a binding is about.
pub(super) struct Matcher {
    rules: Vec<(RuleWithOperations, Vec<String>)>,
    excluded: Vec<(RuleWithOperations, Vec<String>)>,
    /// A binding without rules is about all that its policy is about.
    unruled: bool,
    equivalent: bool,
    selectors: Selectors,
}

impl Matcher {
    pub(super) fn new(resources: &MatchResources) -> Self {
        let read = |rules: Option<&Vec<NamedRuleWithOperations>>| {
            rules.into_iter().flatten().map(|r| (plain(r), r.resource_names.clone().unwrap_or_default())).collect()
        };
        Self {
            rules: read(resources.resource_rules.as_ref()),
            excluded: read(resources.exclude_resource_rules.as_ref()),
            unruled: resources.resource_rules.as_ref().is_none_or(Vec::is_empty),
            equivalent: resources.match_policy.as_deref() != Some("Exact"),
            selectors: Selectors::new(resources.namespace_selector.as_ref(), resources.object_selector.as_ref()),
        }
    }

    /// Whether it is about a request: `Some(Some(_))` when in another version than that of the request.
    pub(super) fn matches(
        &self,
        registry: &Registry,
        request: &Request<'_>,
    ) -> Result<Option<Option<Arc<Resource>>>, ApiError> {
        let named = |names: &[String]| names.is_empty() || names.iter().any(|n| n == request.name);
        let any = |rules: &[(RuleWithOperations, Vec<String>)], asked: &Asked<'_>| {
            rules.iter().any(|(rule, names)| named(names) && rule_matches(rule, asked))
        };
        let excluded = |asked: &Asked<'_>| any(&self.excluded, asked);
        if matching_version(registry, request, self.equivalent, excluded).is_some() {
            return Ok(None);
        }
        let wanted = |asked: &Asked<'_>| self.unruled || any(&self.rules, asked);
        let Some(version) = matching_version(registry, request, self.equivalent, wanted) else { return Ok(None) };
        Ok(self.selectors.match_request(registry, request)?.then_some(version))
    }
}

fn plain(rule: &NamedRuleWithOperations) -> RuleWithOperations {
    RuleWithOperations {
        operations: rule.operations.clone(),
        api_groups: rule.api_groups.clone(),
        api_versions: rule.api_versions.clone(),
        resources: rule.resources.clone(),
        scope: rule.scope.clone(),
    }
}

pub(super) fn is_namespace(resource: &Resource) -> bool {
    resource.names.group.is_empty() && resource.names.kind == Namespace::NAMES.kind
}

/// A condition in CEL.
pub(super) type Condition = (String, Result<Expression, CompileError>);

/// Compiles conditions. What is wrong with them is told where they are used.
pub(super) fn conditions(given: Option<&[MatchCondition]>, params: bool) -> Vec<Condition> {
    let env = Env::admission(AdmissionEnv { authorizer: true, params, ..AdmissionEnv::default() });
    let compile =
        |c: &MatchCondition| (c.name.clone(), Expression::compile_as(&c.expression, &env, &[cel::Type::Bool]));
    given.unwrap_or_default().iter().map(compile).collect()
}

/// Whether all conditions hold. One that does not counts more than one that fails.
///
/// # Errors
/// What failed.
pub(super) fn conditions_hold<'a>(
    conditions: &'a [Condition],
    vars: &Vars<'a>,
    budget: &Budget,
) -> Result<bool, String> {
    let mut failed = Vec::new();
    for (name, condition) in conditions {
        let holds = match condition {
            Ok(condition) => condition.holds(vars, budget).map_err(|e| e.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match holds {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(error) => failed.push(format!("expression '{name}' resulted in error: {error}")),
        }
    }
    match failed.as_slice() {
        [] => Ok(true),
        [one] => Err(one.clone()),
        many => Err(format!("[{}]", many.join(", "))),
    }
}

/// What expressions see of a request.
pub(super) struct Seen {
    pub(super) object: Value,
    pub(super) old: Value,
    pub(super) request: Value,
    asking: Asking,
    attributes: Attributes,
}

impl Seen {
    /// `review`: the request of an `AdmissionReview`.
    pub(super) fn new(registry: &Registry, request: &Request<'_>, review: &Value) -> Self {
        let mut shown = review.clone();
        let mut take = |field: &str| shown.get_mut(field).map(Value::take).unwrap_or_default();
        let (object, old) = (take("object"), take("oldObject"));
        if let Some(shown) = shown.as_object_mut() {
            ["object", "oldObject", "uid"].iter().for_each(|field| drop(shown.remove(*field)));
        }
        let names = &request.resource.names;
        let attributes = Attributes {
            group: names.group.to_owned(),
            resource: names.plural.to_owned(),
            subresource: request.subresource.to_owned(),
            namespace: request.namespace.to_owned(),
            name: request.name.to_owned(),
            ..Attributes::default()
        };
        let asking = Asking { who: request.context.who.clone(), rbac: registry.rbac().clone() };
        Self { object, old, request: shown, asking, attributes }
    }

    pub(super) fn vars(&self) -> Vars<'_> {
        Vars::new()
            .json("object", &self.object)
            .json("oldObject", &self.old)
            .json("request", &self.request)
            .null("namespaceObject")
            .authorizer(&self.asking, self.attributes.clone())
    }

    pub(super) fn budget() -> Budget {
        Budget::new(COST_PER_OBJECT_MAX)
    }
}

/// Asks the authorizer as the user of the request.
struct Asking {
    who: Identity,
    rbac: Arc<Rbac>,
}

impl cel::Authorizer for Asking {
    fn authorize(&self, asked: &Attributes) -> Decision {
        let account = asked.service_account.as_ref().map(|(namespace, name)| {
            Identity::new(
                format!("system:serviceaccount:{namespace}:{name}"),
                &["system:serviceaccounts", &format!("system:serviceaccounts:{namespace}"), "system:authenticated"],
            )
        });
        let what = auth::Attributes {
            verb: &asked.verb,
            group: &asked.group,
            resource: &asked.resource,
            subresource: &asked.subresource,
            namespace: &asked.namespace,
            name: &asked.name,
            path: asked.path.as_deref().unwrap_or_default(),
        };
        let auth::Decision { allowed, reason } = self.rbac.decide(account.as_ref().unwrap_or(&self.who), &what);
        Decision { allowed, reason, error: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(operations: &str, group: &str, version: &str, resources: &str, scope: &str) -> RuleWithOperations {
        let list = |text: &str| Some(text.split(',').map(str::to_owned).collect());
        RuleWithOperations {
            operations: list(operations),
            api_groups: list(group),
            api_versions: list(version),
            resources: list(resources),
            scope: Some(scope.to_owned()),
        }
    }

    #[test]
    fn rules() {
        let pod = Asked {
            operation: Operation::Create,
            group: "",
            version: "v1",
            resource: "pods",
            subresource: "",
            scope: Scope::Namespaced,
        };
        let status = Asked { operation: Operation::Update, subresource: "status", ..pod };
        let deployment = Asked { group: "apps", resource: "deployments", ..pod };
        let node = Asked { resource: "nodes", scope: Scope::Cluster, ..pod };
        for (rule, asked, wanted) in [
            (rule("CREATE", "", "v1", "pods", "*"), pod, true),
            (rule("*", "*", "*", "*", "*"), pod, true),
            (rule("*", "*", "*", "*", "*"), status, false),
            (rule("*", "*", "*", "*/*", "*"), pod, true),
            (rule("*", "*", "*", "*/*", "*"), status, true),
            (rule("*", "", "v1", "pods/*", "*"), pod, true),
            (rule("*", "", "v1", "pods/*", "*"), status, true),
            (rule("*", "", "v1", "pods/status", "*"), status, true),
            (rule("*", "", "v1", "pods/status", "*"), pod, false),
            (rule("*", "", "v1", "*/status", "*"), status, true),
            (rule("*", "", "v1", "*/scale", "*"), status, false),
            (rule("UPDATE,DELETE", "", "v1", "pods", "*"), pod, false),
            (rule("CREATE", "apps", "v1", "pods", "*"), pod, false),
            (rule("CREATE", "", "v1beta1", "pods", "*"), pod, false),
            (rule("CREATE", "", "v1", "pods,services", "Namespaced"), pod, true),
            (rule("CREATE", "", "v1", "pods", "Cluster"), pod, false),
            (rule("CREATE", "", "v1", "*", "Cluster"), node, true),
            (rule("CREATE", "", "v1", "*", "Namespaced"), node, false),
            (rule("CREATE", ",apps", "v1", "deployments", "*"), deployment, true),
        ] {
            assert_eq!(rule_matches(&rule, &asked), wanted, "{rule:?} {asked:?}");
        }
    }
}
