//! Whether one rule allows one thing.
//!
//! # Source
//! Kubernetes `pkg/apis/rbac/v1/evaluation_helpers.go`.

use k8s_openapi::api::rbac::v1::PolicyRule;

use crate::auth::Attributes;

/// Whether a rule allows something.
pub(super) fn allows(rule: &PolicyRule, what: &Attributes<'_>) -> bool {
    if !has(&rule.verbs, what.verb) {
        return false;
    }
    if what.resource.is_empty() {
        return list(rule.non_resource_urls.as_ref()).iter().any(|url| url_covers(url, what.path));
    }
    let names = list(rule.resource_names.as_ref());
    has(list(rule.api_groups.as_ref()), what.group)
        && list(rule.resources.as_ref()).iter().any(|known| is_resource(known, what))
        && (names.is_empty() || names.iter().any(|name| name == what.name))
}

/// A list that may be absent.
pub(super) fn list(list: Option<&Vec<String>>) -> &[String] {
    list.map(Vec::as_slice).unwrap_or_default()
}

/// Whether a list has something, or everything.
pub(super) fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|known| known == "*" || known == wanted)
}

/// Whether a path, perhaps with `*` at its end, stands for another.
pub(super) fn url_covers(known: &str, path: &str) -> bool {
    known == path || known.ends_with('*') && path.starts_with(known.trim_end_matches('*'))
}

/// `*`, `pods`, `pods/log`, `*/log`.
fn is_resource(known: &str, what: &Attributes<'_>) -> bool {
    if known == "*" {
        return true;
    }
    match (known.split_once('/'), what.subresource) {
        (None, "") => known == what.resource,
        (Some((resource, sub)), wanted) if !wanted.is_empty() => {
            sub == wanted && (resource == "*" || resource == what.resource)
        }
        _ => false,
    }
}
