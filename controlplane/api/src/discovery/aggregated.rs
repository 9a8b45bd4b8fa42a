//! Aggregated discovery: everything that is served, in two answers.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apiserver/pkg/endpoints/discovery/aggregated`.

use serde_json::{Value, json};

use super::{ResponseKind, groups, kinds_of, subresource_verbs, verbs};
use crate::{
    kind::Scope,
    object::{KindRef, SubresourceInfo},
};

/// The media type of aggregated discovery in its stable form.
pub const AGGREGATED_MEDIA_TYPE: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// Whether `v2beta1` was asked for, which is the same but for its name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Beta(pub bool);

/// Aggregated discovery for `GET /api`: the core group.
pub fn aggregated_core(kinds: &[KindRef], beta: Beta) -> Value {
    discovery_list(beta, vec![group_discovery(kinds, "", &["v1"])])
}

/// Aggregated discovery for `GET /apis`: all other groups.
pub fn aggregated_groups(kinds: &[KindRef], beta: Beta) -> Value {
    let items = groups(kinds).iter().map(|(group, versions)| group_discovery(kinds, group, versions)).collect();
    discovery_list(beta, items)
}

fn discovery_list(beta: Beta, items: Vec<Value>) -> Value {
    let version = if beta.0 { "apidiscovery.k8s.io/v2beta1" } else { "apidiscovery.k8s.io/v2" };
    json!({ "kind": "APIGroupDiscoveryList", "apiVersion": version, "metadata": {}, "items": items })
}

fn group_discovery(kinds: &[KindRef], group: &str, versions: &[&str]) -> Value {
    let version = |version: &&str| {
        let resources: Vec<Value> = kinds_of(kinds, group, version).into_iter().map(resource_discovery).collect();
        json!({ "version": version, "freshness": "Current", "resources": resources })
    };
    let versions: Vec<Value> = versions.iter().map(version).collect();
    json!({ "metadata": { "name": group, "creationTimestamp": null }, "versions": versions })
}

fn resource_discovery(kind: &KindRef) -> Value {
    let names = kind.names();
    let sub = |sub: &SubresourceInfo| {
        json!({
            "subresource": sub.name, "responseKind": ResponseKind::of_subresource(&names, sub).json(),
            "verbs": subresource_verbs(sub),
        })
    };
    let mut out = json!({
        "resource": names.plural, "responseKind": ResponseKind::of(&names).json(), "singularResource": names.singular,
        "scope": if kind.scope() == Scope::Namespaced { "Namespaced" } else { "Cluster" }, "verbs": verbs(kind),
    });
    let mut subs = kind.subresources();
    subs.sort_by_key(|s| s.name);
    let lists = [
        ("shortNames", json!(names.short)),
        ("categories", json!(names.categories)),
        ("subresources", subs.iter().map(sub).collect::<Vec<_>>().into()),
    ];
    for (key, list) in lists {
        if list.as_array().is_some_and(|l| !l.is_empty()) {
            out[key] = list;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_as_legacy() {
        let kinds = crate::kinds::served();
        let names = |list: &Value| -> Vec<String> {
            let groups = list["items"].as_array().unwrap().iter();
            let versions = groups.flat_map(|g| g["versions"].as_array().unwrap());
            let resources = versions.flat_map(|v| v["resources"].as_array().unwrap());
            resources
                .flat_map(|r| {
                    let name = r["resource"].as_str().unwrap().to_owned();
                    let subs = r["subresources"].as_array().cloned().unwrap_or_default();
                    let subs: Vec<_> =
                        subs.iter().map(|s| format!("{name}/{}", s["subresource"].as_str().unwrap())).collect();
                    std::iter::once(name).chain(subs)
                })
                .collect()
        };
        let core = aggregated_core(&kinds, Beta(false));
        let rest = aggregated_groups(&kinds, Beta(false));
        let mut legacy = Vec::new();
        for (group, versions) in std::iter::once(("", vec!["v1"])).chain(groups(&kinds)) {
            for version in versions {
                let list = super::super::resource_list(&kinds, group, version).unwrap();
                let list = list["resources"].as_array().unwrap().clone();
                legacy.extend(list.iter().map(|r| r["name"].as_str().unwrap().to_owned()));
            }
        }
        assert_eq!([names(&core), names(&rest)].concat(), legacy);
        assert_eq!(aggregated_core(&kinds, Beta(true))["apiVersion"], "apidiscovery.k8s.io/v2beta1");
    }

    #[test]
    fn a_resource() {
        let kinds = crate::kinds::served();
        let core = aggregated_core(&kinds, Beta(false));
        let find = |list: &Value, key: &str, name: &str| -> Value {
            list.as_array().unwrap().iter().find(|r| r[key] == name).unwrap().clone()
        };
        let pods = find(&core["items"][0]["versions"][0]["resources"], "resource", "pods");
        let binding = find(&pods["subresources"], "subresource", "binding");
        assert_eq!(binding["responseKind"], json!({"group": "", "version": "v1", "kind": "Binding"}));
        assert_eq!((&pods["scope"], &pods["singularResource"]), (&json!("Namespaced"), &json!("pod")));
        assert_eq!(core["items"][0]["versions"][0]["freshness"], "Current");
    }
}
