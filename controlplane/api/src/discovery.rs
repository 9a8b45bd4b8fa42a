//! Discovery: what the API serves, in its legacy form (`APIResourceList`, `APIGroupList`) and aggregated
//! (`APIGroupDiscoveryList`). Pure functions of the list of kinds.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apiserver/pkg/endpoints/installer.go` and `pkg/endpoints/discovery/aggregated`.

use serde_json::{Value, json};

use crate::{
    kind::{Names, Scope, Storage, Verb},
    object::{KindRef, SubresourceBehaviour, SubresourceInfo},
};

mod aggregated;
#[cfg(test)]
mod compatibility;
mod order;

pub use aggregated::{AGGREGATED_MEDIA_TYPE, Beta, aggregated_core, aggregated_groups};
pub use order::priorities;

/// Group, version and kind of what a resource or subresource takes and answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseKind {
    /// API group, empty for core.
    pub group: &'static str,
    /// Version in the group.
    pub version: &'static str,
    /// Kind.
    pub kind: &'static str,
}

impl ResponseKind {
    /// The kind itself.
    pub fn of(names: &Names) -> Self {
        Self { group: names.group, version: names.version, kind: names.kind }
    }

    /// What a subresource of a kind speaks.
    pub fn of_subresource(names: &Names, sub: &SubresourceInfo) -> Self {
        match sub.behaviour {
            SubresourceBehaviour::Scale => Self { group: "autoscaling", version: "v1", kind: "Scale" },
            SubresourceBehaviour::Verb(Verb::Binding) => Self { group: "", version: "v1", kind: "Binding" },
            SubresourceBehaviour::Verb(Verb::Eviction) => Self { group: "policy", version: "v1", kind: "Eviction" },
            SubresourceBehaviour::Verb(Verb::Token) => {
                Self { group: "authentication.k8s.io", version: "v1", kind: "TokenRequest" }
            }
            SubresourceBehaviour::Verb(Verb::Exec) => Self { group: "", version: "v1", kind: "PodExecOptions" },
            SubresourceBehaviour::Verb(Verb::Attach) => Self { group: "", version: "v1", kind: "PodAttachOptions" },
            SubresourceBehaviour::Verb(Verb::PortForward) => {
                Self { group: "", version: "v1", kind: "PodPortForwardOptions" }
            }
            SubresourceBehaviour::Verb(Verb::Proxy) => {
                let kind = match names.kind {
                    "Pod" => "PodProxyOptions",
                    "Service" => "ServiceProxyOptions",
                    _ => "NodeProxyOptions",
                };
                Self { group: "", version: "v1", kind }
            }
            SubresourceBehaviour::Status | SubresourceBehaviour::Part | SubresourceBehaviour::Verb(_) => {
                Self::of(names)
            }
        }
    }

    fn json(&self) -> Value {
        json!({ "group": self.group, "version": self.version, "kind": self.kind })
    }
}

/// The verbs of a kind. A kind with a finalizing subresource (Namespace) cannot be deleted as a collection: each of
/// its deletions is a process of its own.
pub fn verbs(kind: &KindRef) -> Vec<&'static str> {
    match kind.storage() {
        Storage::Answered => return vec!["create"],
        Storage::Computed => return vec!["get", "list"],
        Storage::Stored => {}
    }
    let finalizes = kind.subresources().iter().any(|s| s.behaviour == SubresourceBehaviour::Verb(Verb::Finalize));
    let all = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
    all.into_iter().filter(|verb| !(finalizes && *verb == "deletecollection")).collect()
}

/// The verbs of a subresource.
pub fn subresource_verbs(sub: &SubresourceInfo) -> &'static [&'static str] {
    match sub.behaviour {
        SubresourceBehaviour::Status | SubresourceBehaviour::Scale | SubresourceBehaviour::Part => {
            &["get", "patch", "update"]
        }
        SubresourceBehaviour::Verb(Verb::Binding | Verb::Eviction | Verb::Token) => &["create"],
        SubresourceBehaviour::Verb(Verb::Log | Verb::CoreDump) => &["get"],
        SubresourceBehaviour::Verb(Verb::Exec | Verb::Attach | Verb::PortForward) => &["create", "get"],
        SubresourceBehaviour::Verb(Verb::Proxy) => &["create", "delete", "get", "patch", "update"],
        SubresourceBehaviour::Verb(Verb::Finalize) => &["update"],
    }
}

/// The groups in the order of their priority (core excepted), each with its versions, the preferred one first.
pub(crate) fn groups(kinds: &[KindRef]) -> Vec<(&'static str, Vec<&'static str>)> {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for names in kinds.iter().map(|k| k.names()).filter(|n| !n.group.is_empty()) {
        match groups.iter_mut().find(|(group, _)| *group == names.group) {
            Some((_, versions)) if versions.contains(&names.version) => {}
            Some((_, versions)) => versions.push(names.version),
            None => groups.push((names.group, vec![names.version])),
        }
    }
    groups.sort_by(|(a, _), (b, _)| order::by_priority(a, b));
    groups.iter_mut().for_each(|(_, versions)| versions.sort_by(|a, b| order::by_version(a, b)));
    groups
}

/// The kinds of a group and version, by resource name.
fn kinds_of<'a>(kinds: &'a [KindRef], group: &str, version: &str) -> Vec<&'a KindRef> {
    let matches = |k: &&KindRef| k.names().group == group && k.names().version == version;
    let mut found: Vec<&KindRef> = kinds.iter().filter(matches).collect();
    found.sort_by_key(|k| k.names().plural);
    found
}

fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

/// `GET /`: what there is to ask for. `others`: paths that are no part of the API.
pub fn paths(kinds: &[KindRef], others: &[&str]) -> Value {
    let mut paths: Vec<String> = others.iter().map(|p| (*p).to_owned()).collect();
    paths.extend(["/api", "/api/v1", "/apis", "/apis/"].map(str::to_owned));
    for (group, versions) in groups(kinds) {
        paths.push(format!("/apis/{group}"));
        paths.extend(versions.iter().map(|version| format!("/apis/{group}/{version}")));
    }
    paths.sort();
    json!({ "paths": paths })
}

/// `GET /api`. `server_address`: host and port that clients reach this server at.
pub fn core_versions(server_address: &str) -> Value {
    json!({
        "kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [{ "clientCIDR": "0.0.0.0/0", "serverAddress": server_address }],
    })
}

/// `GET /apis`.
pub fn group_list(kinds: &[KindRef]) -> Value {
    let items: Vec<Value> = groups(kinds).iter().map(|(group, versions)| group_json(group, versions)).collect();
    json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": items })
}

/// `GET /apis/{group}`; `None` when nothing of the group is served.
pub fn group(kinds: &[KindRef], group: &str) -> Option<Value> {
    let groups = groups(kinds);
    let (_, versions) = groups.iter().find(|(name, _)| *name == group)?;
    let mut out = group_json(group, versions);
    out["kind"] = "APIGroup".into();
    out["apiVersion"] = "v1".into();
    Some(out)
}

fn group_json(group: &str, versions: &[&str]) -> Value {
    let version = |v: &&str| json!({ "groupVersion": api_version(group, v), "version": v });
    let versions: Vec<Value> = versions.iter().map(version).collect();
    json!({ "name": group, "preferredVersion": versions.first(), "versions": versions })
}

/// `GET /api/v1` (with an empty group) and `GET /apis/{group}/{version}`; `None` when nothing of it is served.
pub fn resource_list(kinds: &[KindRef], group: &str, version: &str) -> Option<Value> {
    let kinds = kinds_of(kinds, group, version);
    if kinds.is_empty() {
        return None;
    }
    let resources: Vec<Value> = kinds.into_iter().flat_map(resources).collect();
    let group_version = api_version(group, version);
    Some(json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources,
    }))
}

/// A kind and its subresources.
fn resources(kind: &KindRef) -> Vec<Value> {
    let names = kind.names();
    let namespaced = kind.scope() == Scope::Namespaced;
    let mut main = json!({
        "name": names.plural, "singularName": names.singular, "namespaced": namespaced, "kind": names.kind,
        "verbs": verbs(kind),
    });
    if kind.storage() == Storage::Stored {
        main["storageVersionHash"] = storage_version_hash(kind).into();
    }
    if !names.short.is_empty() {
        main["shortNames"] = json!(names.short);
    }
    if !names.categories.is_empty() {
        main["categories"] = json!(names.categories);
    }
    let sub = |sub: SubresourceInfo| {
        let speaks = ResponseKind::of_subresource(&names, &sub);
        let mut out = json!({
            "name": format!("{}/{}", names.plural, sub.name), "singularName": "", "namespaced": namespaced,
            "kind": speaks.kind, "verbs": subresource_verbs(&sub),
        });
        if speaks.group != names.group || speaks.version != names.version {
            out["group"] = speaks.group.into();
            out["version"] = speaks.version.into();
        }
        out
    };
    let mut subs = kind.subresources();
    subs.sort_by_key(|s| s.name);
    std::iter::once(main).chain(subs.into_iter().map(sub)).collect()
}

/// Tells clients whether objects are stored in another form than before.
fn storage_version_hash(kind: &KindRef) -> String {
    use base64::Engine;
    use sha2::Digest;
    let names = kind.stored_as().map_or_else(|| kind.names(), |stored| stored.names());
    let hash = sha2::Sha256::digest(format!("{}/{}/{}", names.group, names.version, names.kind));
    base64::engine::general_purpose::STANDARD.encode(&hash[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource<'a>(list: &'a Value, key: &str, name: &str) -> &'a Value {
        list.as_array().and_then(|l| l.iter().find(|r| r[key] == name)).unwrap_or(&Value::Null)
    }

    #[test]
    fn legacy_lists() {
        let kinds = crate::kinds::all();
        let core = resource_list(&kinds, "", "v1").unwrap();
        assert_eq!((&core["groupVersion"], &core["kind"]), (&json!("v1"), &json!("APIResourceList")));
        let pods = resource(&core["resources"], "name", "pods");
        assert_eq!(pods["shortNames"], json!(["po"]));
        assert_eq!(
            pods["verbs"],
            json!(["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"])
        );
        let eviction = resource(&core["resources"], "name", "pods/eviction");
        assert_eq!(
            (&eviction["group"], &eviction["kind"], &eviction["verbs"]),
            (&json!("policy"), &json!("Eviction"), &json!(["create"]))
        );
        let namespaces = resource(&core["resources"], "name", "namespaces");
        assert!(!namespaces["verbs"].as_array().unwrap().contains(&json!("deletecollection")));
        // As every Kubernetes says.
        assert_eq!(pods["storageVersionHash"], "xPOwRZ+Yhw8=");
        let apps = resource_list(&kinds, "apps", "v1").unwrap();
        let scale = resource(&apps["resources"], "name", "deployments/scale");
        assert_eq!(
            (&scale["group"], &scale["version"], &scale["kind"]),
            (&json!("autoscaling"), &json!("v1"), &json!("Scale"))
        );
        assert_eq!(resource_list(&kinds, "apps", "v9"), None);
        assert_eq!(group(&kinds, "nope"), None);
        assert_eq!(group(&kinds, "apps").unwrap()["preferredVersion"]["groupVersion"], json!("apps/v1"));
        assert!(group_list(&kinds)["groups"].as_array().unwrap().iter().all(|g| g["name"] != ""));
    }

    #[test]
    fn names_are_unique() {
        let mut seen = std::collections::HashSet::new();
        let mut short = std::collections::HashMap::new();
        for names in crate::kinds::served().iter().map(|k| k.names()) {
            assert!(seen.insert((names.group, names.version, names.plural)), "{names:?}");
            for word in names.short {
                // What several groups and versions serve has one name.
                assert_eq!(*short.entry(*word).or_insert(names.plural), names.plural, "{word} is used twice");
            }
        }
    }

    #[test]
    fn the_root_lists_paths() {
        let paths = paths(&crate::kinds::all(), &["/version"]);
        for path in ["/api/v1", "/apis/apps", "/apis/apps/v1", "/version"] {
            assert!(paths["paths"].as_array().unwrap().contains(&json!(path)), "{path}");
        }
    }
}
