//! Rules, what covers them, and what is granted from the start.

use std::collections::BTreeSet;

use k8s_openapi::api::rbac::v1::{ClusterRole, Subject};
use podium_api::{FieldErrors, Kind as _};

use super::{covers, policy, policy::Policy, rules::allows};
use crate::auth::Attributes;

#[test]
fn what_a_rule_allows() {
    let asked = |text: &'static str| {
        let words: Vec<&str> = text.split(' ').collect();
        match words.as_slice() {
            [verb, path] => Attributes { verb, path, ..Attributes::default() },
            [verb, group, resource, name] => {
                let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
                let group = if *group == "core" { "" } else { group };
                Attributes { verb, group, resource, subresource, name, path: "/x", ..Attributes::default() }
            }
            other => panic!("{other:?}"),
        }
    };
    for (rule, what, wanted) in [
        ("get core: pods", "get core pods a", true),
        ("get core: pods", "list core pods a", false),
        ("get core: pods", "get apps pods a", false),
        ("get core: pods", "get core pods/log a", false),
        ("get core: pods/log", "get core pods/log a", true),
        ("get core: pods/log", "get core pods a", false),
        ("get core: */log", "get core pods/log a", true),
        ("get core: */log", "get core pods/logs a", false),
        ("get core: */log", "get core pods a", false),
        ("get core: pods/*", "get core pods/log a", false),
        ("get core: *", "get core pods/log a", true),
        ("* *: *", "impersonate core users a", true),
        ("* *: *", "get /metrics", false),
        ("* *", "get core pods a", false),
        ("* *", "get /metrics", true),
        ("get core: pods = a,b", "get core pods b", true),
        ("get core: pods = a,b", "get core pods c", false),
        ("list core: pods = a", "list core pods ", false),
        ("get /api,/apis/*", "get /api", true),
        ("get /api,/apis/*", "get /apis", false),
        ("get /api,/apis/*", "get /apis/apps/v1", true),
        ("get /healthz*", "get /healthz/store", true),
        ("get /healthz*", "post /healthz", false),
        ("get *: pods", "get any.group pods a", true),
        ("create,get core: pods", "get core pods a", true),
    ] {
        assert_eq!(allows(&policy::rule(rule).unwrap(), &asked(what)), wanted, "{rule}: {what}");
    }
}

#[test]
fn what_is_missing() {
    for (held, wanted, missing) in [
        ("* *: *", "all core: pods", ""),
        ("get core: pods", "get,list core: pods", r#"{APIGroups:[""], Resources:["pods"], Verbs:["list"]}"#),
        ("get core: pods = a", "get core: pods", r#"{APIGroups:[""], Resources:["pods"], Verbs:["get"]}"#),
        ("get core: pods", "get core: pods = a", ""),
        (
            "get core: pods = b",
            "get core: pods = a,b",
            r#"{APIGroups:[""], Resources:["pods"], ResourceNames:["a"], Verbs:["get"]}"#,
        ),
        ("get core: */scale", "get core: pods/scale", ""),
        ("get core: pods", "get core: pods/scale", r#"{APIGroups:[""], Resources:["pods/scale"], Verbs:["get"]}"#),
        ("get core: pods", "* core: pods", r#"{APIGroups:[""], Resources:["pods"], Verbs:["*"]}"#),
        ("get /apis/*", "get /apis/apps", ""),
        ("get /apis/*", "get /api", r#"{NonResourceURLs:["/api"], Verbs:["get"]}"#),
        ("* *: *", "get /api", r#"{NonResourceURLs:["/api"], Verbs:["get"]}"#),
        ("* *", "get core: pods", r#"{APIGroups:[""], Resources:["pods"], Verbs:["get"]}"#),
        (
            "get apps: a",
            "get,list core,apps: pods",
            "{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"get\" \"list\"]}\n\
             {APIGroups:[\"apps\"], Resources:[\"pods\"], Verbs:[\"get\" \"list\"]}",
        ),
    ] {
        let [own, new] = [held, wanted].map(|rule| policy::rule(rule).unwrap());
        let found: Vec<String> = covers::missing(&[own], &[new]).into_iter().collect();
        assert_eq!(found.join("\n"), missing, "{held}: {wanted}");
    }
}

/// Every line of the text is read, and what comes of it is valid, named once, and refers to what is there.
#[test]
fn what_every_cluster_grants() {
    let policy = Policy::built_in();
    let lines = include_str!("policy.txt").lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
    let directive = |line: &&str| ["role ", "label ", "aggregates ", "to "].iter().any(|d| line.starts_with(d));
    let (directives, rules): (Vec<&str>, Vec<&str>) = lines.partition(directive);
    let unread: Vec<_> = rules.iter().filter(|line| policy::rule(line).is_none()).collect();
    assert!(unread.is_empty(), "{unread:?}");
    let of = |role: &Option<Vec<_>>| role.as_ref().map_or(0, Vec::len);
    let made = policy.cluster_roles.iter().map(|r| of(&r.rules)).chain(policy.roles.iter().map(|r| of(&r.rules)));
    assert_eq!(made.sum::<usize>(), rules.len());
    let roles = policy.cluster_roles.len() + policy.roles.len();
    assert_eq!(roles, directives.iter().filter(|line| line.starts_with("role ")).count());
    let mut errs = FieldErrors::new();
    policy.cluster_roles.iter().for_each(|role| role.validate(&mut errs));
    policy.roles.iter().for_each(|role| role.validate(&mut errs));
    policy.cluster_role_bindings.iter().for_each(|binding| binding.validate(&mut errs));
    policy.role_bindings.iter().for_each(|binding| binding.validate(&mut errs));
    assert!(errs.is_empty(), "{errs:?}");
    let names: BTreeSet<&str> = policy.cluster_roles.iter().filter_map(|r| r.metadata.name.as_deref()).collect();
    assert_eq!(names.len(), policy.cluster_roles.len(), "each name once");
    for binding in &policy.cluster_role_bindings {
        assert!(names.contains(binding.role_ref.name.as_str()), "{}", binding.role_ref.name);
    }
    for binding in &policy.role_bindings {
        let own = |name: Option<&String>| name == Some(&binding.role_ref.name);
        let there = policy.roles.iter().find(|role| own(role.metadata.name.as_ref()));
        assert!(there.is_some(), "{}", binding.role_ref.name);
    }
    let unbound: Vec<&str> = policy.cluster_role_bindings.iter().filter_map(no_subject).collect();
    assert_eq!(unbound, ["system:node"]);
    let view = |role: &&ClusterRole| role.metadata.name.as_deref() == Some("view");
    assert!(policy.cluster_roles.iter().find(view).is_some_and(|role| role.aggregation_rule.is_some()));
}

fn no_subject(binding: &k8s_openapi::api::rbac::v1::ClusterRoleBinding) -> Option<&str> {
    let subjects: &[Subject] = binding.subjects.as_deref().unwrap_or_default();
    if subjects.is_empty() { binding.metadata.name.as_deref() } else { None }
}
