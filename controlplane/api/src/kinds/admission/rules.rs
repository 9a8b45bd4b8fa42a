//! Which requests are meant: rules, selectors, match conditions, and what policies have in common beside.

use std::collections::BTreeSet;

use k8s_openapi::{
    api::admissionregistration::v1::{
        MatchCondition, MatchResources, NamedRuleWithOperations, ParamKind, ParamRef, RuleWithOperations, Variable,
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};

use crate::{
    field::{FieldErrors, FieldPath},
    kind::Cell,
    kinds::label_selector,
    names,
};

const OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const MATCH_CONDITIONS_MAX: usize = 64;
pub(super) const MATCH_POLICIES: &[&str] = &["Equivalent", "Exact"];

/// A value out of a closed list; nothing where none is set.
pub(super) fn one_of(value: Option<&str>, allowed: &[&str], path: &FieldPath, errs: &mut FieldErrors) {
    if let Some(value) = value.filter(|v| !allowed.contains(v)) {
        errs.not_supported(path, value, allowed);
    }
}

/// The same, where a value must be set.
pub(super) fn required_one_of(value: Option<&str>, allowed: &[&str], path: &FieldPath, errs: &mut FieldErrors) {
    match value.unwrap_or_default() {
        "" => errs.required(path, ""),
        value => one_of(Some(value), allowed, path, errs),
    }
}

pub(super) fn default_text(field: &mut Option<String>, default: &str) {
    field.get_or_insert_with(|| default.to_owned());
}

pub(super) fn default_resources(resources: Option<&mut MatchResources>) {
    let Some(resources) = resources else { return };
    default_text(&mut resources.match_policy, "Equivalent");
    resources.namespace_selector.get_or_insert_default();
    resources.object_selector.get_or_insert_default();
    let rules = resources.resource_rules.iter_mut().flatten();
    for rule in rules.chain(resources.exclude_resource_rules.iter_mut().flatten()) {
        default_text(&mut rule.scope, "*");
    }
}

/// A rule without its names: what webhooks and policies have in common.
fn plain(rule: &NamedRuleWithOperations) -> RuleWithOperations {
    RuleWithOperations {
        api_groups: rule.api_groups.clone(),
        api_versions: rule.api_versions.clone(),
        operations: rule.operations.clone(),
        resources: rule.resources.clone(),
        scope: rule.scope.clone(),
    }
}

pub(super) fn validate_rule(rule: &RuleWithOperations, path: &FieldPath, errs: &mut FieldErrors) {
    let at = path.child("operations");
    let operations = validate_alone(rule.operations.as_deref(), "operations", &at, errs);
    for (i, operation) in operations.iter().enumerate() {
        one_of(Some(operation), OPERATIONS, &at.index(i), errs);
    }
    validate_alone(rule.api_groups.as_deref(), "API groups", &path.child("apiGroups"), errs);
    let at = path.child("apiVersions");
    let versions = validate_alone(rule.api_versions.as_deref(), "API versions", &at, errs);
    for (i, _) in versions.iter().enumerate().filter(|(_, v)| v.is_empty()) {
        errs.required(&at.index(i), "");
    }
    validate_resources(rule.resources.as_deref().unwrap_or_default(), &path.child("resources"), errs);
    one_of(rule.scope.as_deref(), &["*", "Cluster", "Namespaced"], &path.child("scope"), errs);
}

/// A list that is not empty and in which `*` stands alone.
fn validate_alone<'a>(
    list: Option<&'a [String]>,
    what: &str,
    path: &FieldPath,
    errs: &mut FieldErrors,
) -> &'a [String] {
    let list = list.unwrap_or_default();
    if list.is_empty() {
        errs.required(path, "");
    }
    if list.len() > 1 && list.iter().any(|v| v == "*") {
        errs.invalid(path, list, &format!("if '*' is present, must not specify other {what}"));
    }
    list
}

fn validate_resources(resources: &[String], path: &FieldPath, errs: &mut FieldErrors) {
    if resources.is_empty() {
        errs.required(path, "");
    }
    let (mut all_subs_of, mut of_all) = (BTreeSet::new(), BTreeSet::new());
    let mut whole = false;
    for (i, text) in resources.iter().enumerate() {
        let at = path.index(i);
        let Some((resource, sub)) = text.split_once('/') else {
            if text.is_empty() {
                errs.required(&at, "");
            } else {
                whole = text != "*";
            }
            continue;
        };
        if all_subs_of.contains(resource) {
            errs.invalid(&at, text.as_str(), &format!("if '{resource}/*' is present, must not specify {text}"));
        }
        if of_all.contains(sub) {
            errs.invalid(&at, text.as_str(), &format!("if '*/{sub}' is present, must not specify {text}"));
        }
        if sub == "*" {
            all_subs_of.insert(resource);
        }
        if resource == "*" {
            of_all.insert(sub);
        }
    }
    let has = |wanted: &str| resources.iter().any(|r| r == wanted);
    if resources.len() > 1 && has("*/*") {
        errs.invalid(path, resources, "if '*/*' is present, must not specify other resources");
    }
    if whole && has("*") {
        let detail = "if '*' is present, must not specify other resources without subresources";
        errs.invalid(path, resources, detail);
    }
}

fn validate_named_rule(rule: &NamedRuleWithOperations, path: &FieldPath, errs: &mut FieldErrors) {
    let mut seen = BTreeSet::new();
    for (i, name) in rule.resource_names.iter().flatten().enumerate() {
        let at = path.child("resourceNames").index(i);
        errs.invalid_each(&at, name, names::is_path_segment(name));
        if !seen.insert(name) {
            errs.duplicate(&at, name.as_str());
        }
    }
    validate_rule(&plain(rule), path, errs);
}

pub(super) fn validate_match_resources(resources: &MatchResources, path: &FieldPath, errs: &mut FieldErrors) {
    required_one_of(resources.match_policy.as_deref(), MATCH_POLICIES, &path.child("matchPolicy"), errs);
    validate_selector(resources.namespace_selector.as_ref(), true, &path.child("namespaceSelector"), errs);
    validate_selector(resources.object_selector.as_ref(), true, &path.child("objectSelector"), errs);
    for (i, rule) in resources.resource_rules.iter().flatten().enumerate() {
        validate_named_rule(rule, &path.child("resourceRules").index(i), errs);
    }
    for (i, rule) in resources.exclude_resource_rules.iter().flatten().enumerate() {
        validate_named_rule(rule, &path.child("excludeResourceRules").index(i), errs);
    }
}

/// The constraints of a policy, which must name resources.
pub(super) fn validate_constraints(resources: Option<&MatchResources>, path: &FieldPath, errs: &mut FieldErrors) {
    let Some(resources) = resources else { return errs.required(path, "") };
    validate_match_resources(resources, path, errs);
    if resources.resource_rules.as_ref().is_none_or(Vec::is_empty) {
        errs.required(&path.child("resourceRules"), "");
    }
}

/// Only what creates or changes objects can be mutated.
pub(super) fn validate_mutable(resources: &MatchResources, path: &FieldPath, errs: &mut FieldErrors) {
    let rules = resources.resource_rules.iter().flatten();
    for operation in rules.flat_map(|r| r.operations.iter().flatten()) {
        let at = path.child("resourceRules").child("operations");
        one_of(Some(operation), &["*", "CONNECT", "CREATE", "UPDATE"], &at, errs);
    }
}

pub(super) fn validate_selector(
    selector: Option<&LabelSelector>,
    required: bool,
    path: &FieldPath,
    errs: &mut FieldErrors,
) {
    match selector {
        Some(selector) => label_selector::validate(selector, path, errs),
        None if required => errs.required(path, ""),
        None => {}
    }
}

pub(super) fn validate_conditions(conditions: Option<&[MatchCondition]>, path: &FieldPath, errs: &mut FieldErrors) {
    let conditions = conditions.unwrap_or_default();
    if conditions.len() > MATCH_CONDITIONS_MAX {
        errs.too_many(path, conditions.len(), MATCH_CONDITIONS_MAX);
    }
    let mut seen = BTreeSet::new();
    for (i, condition) in conditions.iter().enumerate() {
        let at = path.index(i);
        if condition.expression.trim().is_empty() {
            errs.required(&at.child("expression"), "");
        }
        match condition.name.as_str() {
            "" => errs.required(&at.child("name"), ""),
            name => {
                errs.invalid_each(&at.child("name"), name, names::is_qualified_name(name));
                if !seen.insert(name) {
                    errs.duplicate(&at.child("name"), name);
                }
            }
        }
    }
}

pub(super) fn validate_variables(variables: Option<&[Variable]>, path: &FieldPath, errs: &mut FieldErrors) {
    for (i, variable) in variables.unwrap_or_default().iter().enumerate() {
        let at = path.index(i);
        if variable.name.trim().is_empty() {
            errs.required(&at.child("name"), "name is not specified");
        } else if !is_cel_identifier(&variable.name) {
            errs.invalid(&at.child("name"), variable.name.as_str(), "name is not a valid CEL identifier");
        }
        if variable.expression.trim().is_empty() {
            errs.required(&at.child("expression"), "expression is not specified");
        }
    }
}

fn is_cel_identifier(name: &str) -> bool {
    let well_formed = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    well_formed && !name.starts_with(|c: char| c.is_ascii_digit()) && !names::CEL_RESERVED.contains(&name)
}

pub(super) fn validate_param_kind(kind: &ParamKind, path: &FieldPath, errs: &mut FieldErrors) {
    let (at, text) = (path.child("apiVersion"), kind.api_version.as_deref().unwrap_or_default());
    let (group, version) = match text.split_once('/') {
        None => ("", text),
        Some(parts) => parts,
    };
    if text.is_empty() {
        errs.required(&at, "");
    } else if version.contains('/') {
        errs.invalid(&at, text, &format!("unexpected GroupVersion string: {text}"));
    } else {
        joined(&at, group, names::is_dns1123_subdomain(group), group.is_empty(), errs);
        if version.is_empty() {
            errs.invalid(&at, text, "version must be specified");
        }
        joined(&at, version, names::is_dns1035_label(version), version.is_empty(), errs);
    }
    match kind.kind.as_deref().unwrap_or_default() {
        "" => errs.required(&path.child("kind"), ""),
        kind => {
            let messages = names::is_dns1035_label(&kind.to_lowercase());
            if !messages.is_empty() {
                let detail = format!("may have mixed case, but should otherwise match: {}", messages.join(","));
                errs.invalid(&path.child("kind"), kind, &detail);
            }
        }
    }
}

/// All messages about one value as one error.
fn joined(path: &FieldPath, value: &str, messages: Vec<String>, empty: bool, errs: &mut FieldErrors) {
    if !empty && !messages.is_empty() {
        errs.invalid(path, value, &messages.join(","));
    }
}

pub(super) fn validate_param_ref(param: &ParamRef, path: &FieldPath, errs: &mut FieldErrors) {
    let name = param.name.as_deref().unwrap_or_default();
    let both = "name and selector are mutually exclusive";
    if !name.is_empty() {
        errs.invalid_each(&path.child("name"), name, names::is_path_segment(name));
        if param.selector.is_some() {
            errs.forbidden(&path.child("name"), both);
        }
    }
    match &param.selector {
        Some(selector) => {
            label_selector::validate(selector, &path.child("selector"), errs);
            if !name.is_empty() {
                errs.forbidden(&path.child("selector"), both);
            }
        }
        None if name.is_empty() => errs.required(path, "one of name or selector must be specified"),
        None => {}
    }
    let action = param.parameter_not_found_action.as_deref();
    required_one_of(action, &["Deny", "Allow"], &path.child("parameterNotFoundAction"), errs);
}

pub(super) fn kind_shown(kind: Option<&ParamKind>) -> Cell {
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    kind.map_or_else(|| "<unset>".into(), |k| format!("{}/{}", part(&k.api_version), part(&k.kind)).into())
}

pub(super) fn param_shown(param: Option<&ParamRef>) -> Cell {
    let Some(param) = param else { return "<unset>".into() };
    match (param.name.as_deref().unwrap_or_default(), param.namespace.as_deref().unwrap_or_default()) {
        // Whether the parameters live in namespaces cannot be told from here.
        ("", _) => param.selector.as_ref().map_or("<unset>".into(), |s| label_selector::shown(Some(s)).into()),
        (name, "") => format!("*/{name}").into(),
        (name, namespace) => format!("{namespace}/{name}").into(),
    }
}
