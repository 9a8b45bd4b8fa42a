//! Whether the rules that somebody has cover those that they want to give, and what is missing in words.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/component-helpers/auth/rbac/validation/policy_comparator.go`,
//! `pkg/registry/rbac/validation/policy_compact.go`.

use std::collections::BTreeSet;

use k8s_openapi::api::rbac::v1::PolicyRule;

use super::rules::{has, list, url_covers};

/// One verb on one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Right<'a> {
    Resource { group: &'a str, resource: &'a str, name: Option<&'a str>, verb: &'a str },
    Url { url: &'a str, verb: &'a str },
}

/// What of `wanted` the rules that are `held` do not cover, one line for each thing, sorted. Empty: nothing.
pub(super) fn missing(held: &[PolicyRule], wanted: &[PolicyRule]) -> BTreeSet<String> {
    let mut left: Vec<Right<'_>> = Vec::new();
    for rule in wanted {
        each(rule, |right| {
            if !held.iter().any(|own| covers(own, &right)) {
                left.push(right);
            }
        });
    }
    describe(&left)
}

fn each<'a>(rule: &'a PolicyRule, mut f: impl FnMut(Right<'a>)) {
    let names: Vec<Option<&str>> = match list(rule.resource_names.as_ref()) {
        [] => vec![None],
        names => names.iter().map(|name| Some(name.as_str())).collect(),
    };
    for group in list(rule.api_groups.as_ref()) {
        for resource in list(rule.resources.as_ref()) {
            for verb in &rule.verbs {
                for name in &names {
                    f(Right::Resource { group, resource, name: *name, verb });
                }
            }
        }
    }
    for url in list(rule.non_resource_urls.as_ref()) {
        rule.verbs.iter().for_each(|verb| f(Right::Url { url, verb }));
    }
}

fn covers(own: &PolicyRule, right: &Right<'_>) -> bool {
    match right {
        Right::Url { url, verb } => {
            let urls = list(own.non_resource_urls.as_ref());
            has(&own.verbs, verb) && urls.iter().any(|known| url_covers(known, url))
        }
        Right::Resource { group, resource, name, verb } => {
            let names = list(own.resource_names.as_ref());
            has(&own.verbs, verb)
                && has(list(own.api_groups.as_ref()), group)
                && list(own.resources.as_ref()).iter().any(|known| covers_resource(known, resource))
                && (names.is_empty() || name.is_some_and(|name| names.iter().any(|known| known == name)))
        }
    }
}

/// `*` covers all, `*/scale` covers `pods/scale`.
fn covers_resource(known: &str, resource: &str) -> bool {
    let any = |sub: &str| known.strip_prefix("*/") == Some(sub);
    known == "*" || known == resource || resource.split_once('/').is_some_and(|(_, sub)| any(sub))
}

/// Verbs on the same resource share a line.
fn describe(rights: &[Right<'_>]) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for right in rights {
        match right {
            Right::Url { url, verb } => {
                lines.insert(format!("{{NonResourceURLs:[{url:?}], Verbs:[{verb:?}]}}"));
            }
            Right::Resource { group, resource, name, .. } => {
                let same = |other: &Right<'_>| match other {
                    Right::Resource { group: g, resource: r, name: n, verb }
                        if (g, r, n) == (group, resource, name) =>
                    {
                        Some(format!("{verb:?}"))
                    }
                    _ => None,
                };
                let mut verbs: Vec<String> = Vec::new();
                for verb in rights.iter().filter_map(same) {
                    if !verbs.contains(&verb) {
                        verbs.push(verb);
                    }
                }
                let names = name.map(|name| format!("ResourceNames:[{name:?}], ")).unwrap_or_default();
                let verbs = verbs.join(" ");
                let line = format!("{{APIGroups:[{group:?}], Resources:[{resource:?}], {names}Verbs:[{verbs}]}}");
                lines.insert(line);
            }
        }
    }
    lines
}
