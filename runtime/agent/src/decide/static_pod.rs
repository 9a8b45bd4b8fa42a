//! Pods from files: from a manifest to the pod that runs, and to the mirror of it that the API shows. Pure.
//!
//! A static pod's uid is a hash of its manifest, so that a changed file is another pod. The mirror has a uid of its own and
//! carries the hash in an annotation: whatever the API says about the mirror is about the static pod of that hash.
//!
//! # Source
//! Kubernetes `pkg/kubelet/config/common.go` (`applyDefaults`), `pkg/kubelet/pod/mirror_client.go`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Pod, Toleration},
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use podium_api::{FieldErrors, Kind as _};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{
    admission::{self, SOURCE},
    status,
};

/// Annotation of a mirror: the static pod's hash.
pub(crate) const MIRROR: &str = "kubernetes.io/config.mirror";
const HASH: &str = "kubernetes.io/config.hash";
const SEEN: &str = "kubernetes.io/config.seen";

/// The static pod that a mirror stands for, by its uid; `None`: the pod is no mirror.
pub(crate) fn mirrored(pod: &Pod) -> Option<&str> {
    pod.metadata.annotations.as_ref()?.get(MIRROR).map(String::as_str)
}

/// Whether a pod is the one that a file describes, not a mirror of it.
pub(crate) fn is_file(pod: &Pod) -> bool {
    admission::is_static(pod) && mirrored(pod).is_none()
}

/// Reads a static pod. `value`: the manifest as a tree.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn read(value: &Value, node: &str, now: Timestamp) -> Result<Pod, String> {
    if value["kind"] != "Pod" {
        return Err(format!("a static pod is of kind Pod, not {}", value["kind"]));
    }
    let mut pod: Pod = serde_json::from_value(value.clone()).map_err(|error| error.to_string())?;
    let bytes = serde_json::to_vec(value).map_err(|error| error.to_string())?;
    let mut hasher = Sha256::new();
    hasher.update(bytes);
    hasher.update(node);
    let hash: String = hasher.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let meta = &mut pod.metadata;
    let name = meta.name.take().unwrap_or_default();
    meta.name = Some(format!("{name}-{node}"));
    meta.namespace = Some(meta.namespace.take().filter(|n| !n.is_empty()).unwrap_or_else(|| "default".to_owned()));
    meta.uid = Some(hash.clone());
    meta.creation_timestamp = Some(status::time(now));
    let annotations = meta.annotations.get_or_insert_default();
    annotations.insert(HASH.to_owned(), hash);
    annotations.insert(SOURCE.to_owned(), "file".to_owned());
    annotations.insert(SEEN.to_owned(), now.to_string());
    pod.status = None;
    let spec = pod.spec.get_or_insert_default();
    spec.node_name = Some(node.to_owned());
    // Nothing drives it away: nobody would start it elsewhere.
    let all = Toleration {
        operator: Some("Exists".to_owned()),
        effect: Some("NoExecute".to_owned()),
        ..Toleration::default()
    };
    let tolerations = spec.tolerations.get_or_insert_default();
    if !tolerations.contains(&all) {
        tolerations.push(all);
    }
    pod.fill_defaults();
    let mut errors = FieldErrors::default();
    pod.validate(&mut errors);
    let found: Vec<_> = errors.0.iter().map(ToString::to_string).collect();
    if !found.is_empty() {
        return Err(found.join("; "));
    }
    refused_references(&pod).map_or(Ok(pod), Err)
}

/// A static pod runs without the API: it may not need anything of it.
fn refused_references(pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    if spec.service_account_name.as_deref().is_some_and(|name| !name.is_empty()) {
        return Some("static pods may not reference service accounts".to_owned());
    }
    None
}

/// The mirror of a static pod. `owner`: the Node's uid.
pub(crate) fn mirror(pod: &Pod, node: &str, owner: &str) -> Pod {
    let mut mirror = pod.clone();
    let meta = &mut mirror.metadata;
    let hash = meta.uid.take().unwrap_or_default();
    meta.creation_timestamp = None;
    meta.resource_version = None;
    meta.annotations.get_or_insert_with(BTreeMap::new).insert(MIRROR.to_owned(), hash);
    meta.owner_references = Some(vec![OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: node.to_owned(),
        uid: owner.to_owned(),
        controller: Some(true),
        ..OwnerReference::default()
    }]);
    mirror.status = None;
    mirror
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn manifest(image: &str) -> Value {
        json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "web" },
            "spec": { "containers": [{ "name": "app", "image": image }] } })
    }

    #[test]
    fn a_manifest_becomes_a_pod_of_this_node() {
        let now = Timestamp::UNIX_EPOCH;
        let one = read(&manifest("file://a.wasm"), "n1", now).unwrap();
        let (meta, spec) = (&one.metadata, one.spec.as_ref().unwrap());
        assert_eq!((meta.name.as_deref(), meta.namespace.as_deref()), (Some("web-n1"), Some("default")));
        assert_eq!((spec.node_name.as_deref(), spec.restart_policy.as_deref()), (Some("n1"), Some("Always")));
        let again = read(&manifest("file://a.wasm"), "n1", Timestamp::from_second(9).unwrap()).unwrap();
        let other = read(&manifest("file://b.wasm"), "n1", now).unwrap();
        assert_eq!(meta.uid, again.metadata.uid, "the same file is the same pod");
        assert_ne!(meta.uid, other.metadata.uid, "another file is another pod");

        let mirror = mirror(&one, "n1", "node-uid");
        assert_eq!(mirrored(&mirror), meta.uid.as_deref());
        assert_eq!(mirrored(&one), None);
        let annotations = mirror.metadata.annotations.unwrap();
        assert_eq!(annotations["kubernetes.io/config.source"], "file");
        assert_eq!(annotations["kubernetes.io/config.hash"], meta.uid.clone().unwrap());
        let owner = &mirror.metadata.owner_references.unwrap()[0];
        assert_eq!((owner.kind.as_str(), owner.uid.as_str(), owner.controller), ("Node", "node-uid", Some(true)));
    }

    #[test]
    fn what_is_no_static_pod() {
        let mut account = manifest("file://a.wasm");
        account["spec"]["serviceAccountName"] = "robot".into();
        let mut nameless = manifest("file://a.wasm");
        nameless["spec"]["containers"][0]["name"] = "".into();
        let cases = [
            (json!({ "kind": "Service" }), "a static pod is of kind Pod"),
            (account, "static pods may not reference service accounts"),
            (nameless, "spec.containers[0].name: Required value"),
        ];
        for (value, expected) in cases {
            let found = read(&value, "n1", Timestamp::UNIX_EPOCH).unwrap_err();
            assert!(found.contains(expected), "{found}");
        }
    }
}
