//! What nodes may read because of the pods that are bound to them: Secrets and ConfigMaps that these name, and tokens of
//! their ServiceAccounts. All else that nodes may do is granted to the group `system:nodes` as to anybody, by RBAC; what
//! they may change of it is confined by the admission plug-in `NodeRestriction`.
//!
//! # Source
//! Kubernetes `plugin/pkg/auth/authorizer/node/node_authorizer.go`, `graph.go`.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMapProjection, Container, EnvFromSource, EnvVar, Pod, PodSpec, Volume};
use podium_api::{FieldSelector, Kind as _};

use crate::{
    auth::{Attributes, Authorizer, Decision, Identity},
    rbac::Rbac,
    registry::{Registry, cache::Filter},
};

/// Which node somebody is.
pub(crate) fn node_of(who: &Identity) -> Option<&str> {
    let node = who.user.strip_prefix("system:node:").filter(|name| !name.is_empty())?;
    who.groups.iter().any(|group| group == "system:nodes").then_some(node)
}

/// RBAC, and what nodes may read beside it.
pub(crate) struct WithNodes {
    pub(crate) rbac: Arc<Rbac>,
    pub(crate) registry: Arc<Registry>,
}

impl Authorizer for WithNodes {
    fn allows(&self, who: &Identity, what: &Attributes<'_>) -> bool {
        self.rbac.allows(who, what) || self.is_needed(who, what)
    }

    fn decide(&self, who: &Identity, what: &Attributes<'_>) -> Decision {
        match self.rbac.decide(who, what) {
            Decision { allowed: false, .. } if self.is_needed(who, what) => {
                Decision { allowed: true, reason: String::new() }
            }
            Decision { allowed: false, reason } if node_of(who).is_some() && needs(what).is_some() => {
                let node = "no relationship found between node".to_owned();
                let why = format!("{node} '{}' and this object", node_of(who).unwrap_or_default());
                Decision { allowed: false, reason: if reason.is_empty() { why } else { reason } }
            }
            decision => decision,
        }
    }
}

impl WithNodes {
    fn is_needed(&self, who: &Identity, what: &Attributes<'_>) -> bool {
        let (Some(node), Some(need)) = (node_of(who), needs(what)) else { return false };
        let Ok(pods) = self.registry.of(&Pod::NAMES) else { return false };
        let Ok(fields) = FieldSelector::parse(&format!("spec.nodeName={node}")) else { return false };
        let filter = Filter { namespace: what.namespace.to_owned(), fields, ..Filter::default() };
        let entries = pods.cache.list(&filter).entries;
        let mut specs = entries.iter().filter_map(|entry| entry.object.downcast_ref::<Pod>()?.spec.as_ref());
        specs.any(|spec| names(spec, need, what.name))
    }
}

/// What a pod can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Secret,
    ConfigMap,
    Account,
}

/// What a request is about, if pods decide about it.
fn needs(what: &Attributes<'_>) -> Option<Need> {
    if !what.group.is_empty() || what.name.is_empty() || what.namespace.is_empty() {
        return None;
    }
    let reads = matches!(what.verb, "get" | "list" | "watch");
    match (what.resource, what.subresource) {
        ("secrets", "") if reads => Some(Need::Secret),
        ("configmaps", "") if reads => Some(Need::ConfigMap),
        ("serviceaccounts", "token") if what.verb == "create" => Some(Need::Account),
        _ => None,
    }
}

/// Whether a pod names it.
fn names(spec: &PodSpec, need: Need, name: &str) -> bool {
    let volumes = || spec.volumes.iter().flatten();
    match need {
        Need::Account => spec.service_account_name.as_deref() == Some(name),
        Need::Secret => {
            let pulls = spec.image_pull_secrets.iter().flatten();
            pulls.into_iter().any(|secret| secret.name == name)
                || volumes().any(|volume| mounts_secret(volume, name))
                || environments(spec).any(|(env, from)| {
                    from.iter().any(|f| f.secret_ref.as_ref().is_some_and(|s| s.name == name))
                        || env
                            .iter()
                            .filter_map(|var| var.value_from.as_ref()?.secret_key_ref.as_ref())
                            .any(|s| s.name == name)
                })
        }
        Need::ConfigMap => {
            volumes().any(|volume| mounts_map(volume, name))
                || environments(spec).any(|(env, from)| {
                    from.iter().any(|f| f.config_map_ref.as_ref().is_some_and(|m| m.name == name))
                        || env
                            .iter()
                            .filter_map(|var| var.value_from.as_ref()?.config_map_key_ref.as_ref())
                            .any(|m| m.name == name)
                })
        }
    }
}

fn mounts_secret(volume: &Volume, name: &str) -> bool {
    let mut projected = volume.projected.iter().flat_map(|p| p.sources.iter().flatten());
    volume.secret.as_ref().is_some_and(|s| s.secret_name.as_deref() == Some(name))
        || projected.any(|source| source.secret.as_ref().is_some_and(|s| s.name == name))
}

fn mounts_map(volume: &Volume, name: &str) -> bool {
    let of = |map: &ConfigMapProjection| map.name == name;
    let mut projected = volume.projected.iter().flat_map(|p| p.sources.iter().flatten());
    volume.config_map.as_ref().is_some_and(|map| map.name == name)
        || projected.any(|source| source.config_map.as_ref().is_some_and(of))
}

type Environment<'a> = (&'a [EnvVar], &'a [EnvFromSource]);

/// Where the containers take their environment from.
fn environments(spec: &PodSpec) -> impl Iterator<Item = Environment<'_>> {
    fn of(c: &Container) -> Environment<'_> {
        (c.env.as_deref().unwrap_or_default(), c.env_from.as_deref().unwrap_or_default())
    }
    let late = spec.ephemeral_containers.iter().flatten();
    let late = late.map(|c| (c.env.as_deref().unwrap_or_default(), c.env_from.as_deref().unwrap_or_default()));
    spec.init_containers.iter().flatten().chain(&spec.containers).map(of).chain(late)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn who_is_a_node() {
        for (user, group, node) in [
            ("system:node:n1", "system:nodes", Some("n1")),
            ("system:node:n1", "devs", None),
            ("system:node:", "system:nodes", None),
            ("jane", "system:nodes", None),
        ] {
            assert_eq!(node_of(&Identity::new(user, &[group])), node, "{user} {group}");
        }
    }

    #[test]
    fn pods_name_what_they_need() {
        let spec: PodSpec = serde_json::from_value(json!({
            "serviceAccountName": "web",
            "imagePullSecrets": [{ "name": "pull" }],
            "initContainers": [{ "name": "i", "envFrom": [{ "secretRef": { "name": "all" } }] }],
            "containers": [{ "name": "c", "envFrom": [{ "configMapRef": { "name": "map-all" } }], "env": [
                { "name": "A", "valueFrom": { "secretKeyRef": { "name": "one", "key": "k" } } },
                { "name": "B", "valueFrom": { "configMapKeyRef": { "name": "map-one", "key": "k" } } } ] }],
            "ephemeralContainers": [{ "name": "e", "envFrom": [{ "secretRef": { "name": "late" } }] }],
            "volumes": [
                { "name": "s", "secret": { "secretName": "mounted" } },
                { "name": "m", "configMap": { "name": "map-mounted" } },
                { "name": "p", "projected": { "sources": [
                    { "secret": { "name": "part" } }, { "configMap": { "name": "map-part" } } ] } },
            ],
        }))
        .unwrap();
        for name in ["pull", "all", "one", "late", "mounted", "part"] {
            assert!(names(&spec, Need::Secret, name), "{name}");
            assert!(!names(&spec, Need::ConfigMap, name), "{name}");
        }
        for name in ["map-all", "map-one", "map-mounted", "map-part"] {
            assert!(names(&spec, Need::ConfigMap, name), "{name}");
            assert!(!names(&spec, Need::Secret, name), "{name}");
        }
        assert!(names(&spec, Need::Account, "web") && !names(&spec, Need::Account, "default"));
    }

    #[test]
    fn only_reading_one_by_its_name_is_asked_of_pods() {
        let what = |verb, resource, subresource, name| {
            needs(&Attributes { verb, resource, subresource, namespace: "d", name, ..Attributes::default() })
        };
        assert_eq!(what("get", "secrets", "", "a"), Some(Need::Secret));
        assert_eq!(what("watch", "configmaps", "", "a"), Some(Need::ConfigMap));
        assert_eq!(what("create", "serviceaccounts", "token", "a"), Some(Need::Account));
        for (verb, resource, subresource, name) in [
            ("list", "secrets", "", ""),
            ("update", "secrets", "", "a"),
            ("get", "serviceaccounts", "token", "a"),
            ("get", "pods", "", "a"),
        ] {
            assert_eq!(what(verb, resource, subresource, name), None, "{verb} {resource}");
        }
    }
}
