//! Validation of the metadata that every object has: names, labels, annotations, owners, finalizers.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apimachinery/pkg/api/validation/objectmeta.go`.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::{
    field::{FieldErrors, FieldPath},
    kind::{Names, Scope},
    names,
};

const ANNOTATIONS_BYTES_MAX: usize = 256 * 1024;
const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";

/// Checks the metadata of an object that is about to be stored: its name is set (generated names too) and, for
/// namespaced kinds, its namespace.
pub fn validate_meta(meta: &ObjectMeta, names: &Names, scope: Scope, errs: &mut FieldErrors) {
    let path = FieldPath::new("metadata");
    if let Some(prefix) = meta.generate_name.as_deref().filter(|n| !n.is_empty()) {
        errs.invalid_each(&path.child("generateName"), prefix, names.name_rule.check_prefix(prefix));
    }
    match meta.name.as_deref().unwrap_or_default() {
        "" => errs.required(&path.child("name"), "name or generateName is required"),
        name => errs.invalid_each(&path.child("name"), name, names.name_rule.check(name)),
    }
    validate_namespace(meta, scope, &path.child("namespace"), errs);
    if let Some(generation) = meta.generation.filter(|g| *g < 0) {
        errs.invalid(&path.child("generation"), generation, "must be greater than or equal to 0");
    }
    validate_rest(meta, &path, errs);
    if !names.any_finalizers {
        validate_finalizer_domains(meta.finalizers.as_deref().unwrap_or_default(), &path.child("finalizers"), errs);
    }
}

/// Checks what a change of an object did to its metadata. Beside [`validate_meta`].
pub fn validate_meta_update(new: &ObjectMeta, old: &ObjectMeta, errs: &mut FieldErrors) {
    let path = FieldPath::new("metadata");
    if old.deletion_timestamp.is_some() {
        let known = old.finalizers.as_deref().unwrap_or_default();
        let added: Vec<_> = new.finalizers.iter().flatten().filter(|f| !known.contains(f)).collect();
        if !added.is_empty() {
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers {added:?}"
            );
            errs.forbidden(&path.child("finalizers"), &detail);
        }
    }
    if new.generation.unwrap_or_default() < old.generation.unwrap_or_default() {
        errs.invalid(&path.child("generation"), new.generation, "must not be decremented");
    }
    errs.immutable(&path.child("name"), &new.name, &old.name);
    errs.immutable(&path.child("namespace"), &new.namespace, &old.namespace);
    errs.immutable(&path.child("uid"), &new.uid, &old.uid);
    errs.immutable(&path.child("creationTimestamp"), &new.creation_timestamp, &old.creation_timestamp);
    errs.immutable(&path.child("deletionTimestamp"), &new.deletion_timestamp, &old.deletion_timestamp);
    errs.immutable(
        &path.child("deletionGracePeriodSeconds"),
        &new.deletion_grace_period_seconds,
        &old.deletion_grace_period_seconds,
    );
}

/// Checks labels, of an object or of a pod template.
pub fn validate_labels(labels: Option<&BTreeMap<String, String>>, path: &FieldPath, errs: &mut FieldErrors) {
    for (key, value) in labels.into_iter().flatten() {
        errs.invalid_each(path, key.as_str(), names::is_qualified_name(key));
        errs.invalid_each(path, value.as_str(), names::is_label_value(value));
    }
}

/// Checks annotations, of an object or of a pod template.
pub fn validate_annotations(annotations: Option<&BTreeMap<String, String>>, path: &FieldPath, errs: &mut FieldErrors) {
    let mut bytes = 0;
    for (key, value) in annotations.into_iter().flatten() {
        bytes += key.len() + value.len();
        errs.invalid_each(path, key.as_str(), names::is_qualified_name(&key.to_lowercase()));
    }
    if bytes > ANNOTATIONS_BYTES_MAX {
        errs.too_long(path, ANNOTATIONS_BYTES_MAX);
    }
}

fn validate_namespace(meta: &ObjectMeta, scope: Scope, path: &FieldPath, errs: &mut FieldErrors) {
    match (scope, meta.namespace.as_deref().unwrap_or_default()) {
        (Scope::Namespaced, "") => errs.required(path, ""),
        (Scope::Namespaced, namespace) => errs.invalid_each(path, namespace, names::is_dns1123_label(namespace)),
        (Scope::Cluster, "") => {}
        (Scope::Cluster, _) => errs.forbidden(path, "not allowed on this type"),
    }
}

fn validate_rest(meta: &ObjectMeta, path: &FieldPath, errs: &mut FieldErrors) {
    validate_labels(meta.labels.as_ref(), &path.child("labels"), errs);
    validate_annotations(meta.annotations.as_ref(), &path.child("annotations"), errs);
    validate_owners(meta.owner_references.as_deref().unwrap_or_default(), &path.child("ownerReferences"), errs);
    validate_finalizers(meta.finalizers.as_deref().unwrap_or_default(), &path.child("finalizers"), errs);
}

/// Checks the metadata that a template gives to what is made of it.
pub(crate) fn validate_template_meta(meta: &ObjectMeta, path: &FieldPath, errs: &mut FieldErrors) {
    validate_labels(meta.labels.as_ref(), &path.child("labels"), errs);
    validate_annotations(meta.annotations.as_ref(), &path.child("annotations"), errs);
}

fn validate_owners(owners: &[OwnerReference], path: &FieldPath, errs: &mut FieldErrors) {
    let mut controller: Option<&OwnerReference> = None;
    for owner in owners {
        validate_owner(owner, path, errs);
        if owner.controller != Some(true) {
            continue;
        }
        if let Some(first) = controller {
            let detail = format!(
                "Only one reference can have Controller set to true. Found \"true\" in references for {}/{} and {}/{}",
                first.kind, first.name, owner.kind, owner.name
            );
            errs.invalid(path, serde_json::to_value(owners).unwrap_or_default(), &detail);
        } else {
            controller = Some(owner);
        }
    }
}

fn validate_owner(owner: &OwnerReference, path: &FieldPath, errs: &mut FieldErrors) {
    let version = owner.api_version.rsplit('/').next().unwrap_or_default();
    if version.is_empty() {
        errs.invalid(&path.child("apiVersion"), owner.api_version.as_str(), "version must not be empty");
    }
    for (field, value) in [("kind", &owner.kind), ("name", &owner.name), ("uid", &owner.uid)] {
        if value.is_empty() {
            errs.invalid(&path.child(field), value.as_str(), "must not be empty");
        }
    }
    if owner.kind == "Event" && owner.api_version == "v1" {
        let value = serde_json::to_value(owner).unwrap_or_default();
        errs.invalid(path, value, "/v1, Kind=Event is disallowed from being an owner");
    }
}

fn validate_finalizers(finalizers: &[String], path: &FieldPath, errs: &mut FieldErrors) {
    for finalizer in finalizers {
        errs.invalid_each(path, finalizer.as_str(), names::is_qualified_name(finalizer));
    }
    let has = |name: &str| finalizers.iter().any(|f| f == name);
    if has(ORPHAN) && has(FOREGROUND) {
        let detail = format!("finalizer {ORPHAN} and {FOREGROUND} cannot be both set");
        errs.invalid(path, finalizers, &detail);
    }
}

/// Whether a finalizer belongs to nobody in particular: it has no domain before its name and is none of Kubernetes' own.
fn has_no_domain(finalizer: &str) -> bool {
    !finalizer.contains('/') && !matches!(finalizer, "kubernetes" | ORPHAN | FOREGROUND)
}

fn validate_finalizer_domains(finalizers: &[String], path: &FieldPath, errs: &mut FieldErrors) {
    for (i, finalizer) in finalizers.iter().enumerate() {
        if has_no_domain(finalizer) && names::is_qualified_name(finalizer).is_empty() {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            errs.invalid(&path.index(i), finalizer.as_str(), detail);
        }
    }
}

/// What is not as it should be in the finalizers that a write adds, where [`Names::any_finalizers`] lets them pass.
///
/// # Source
/// Kubernetes `apiextensions-apiserver/pkg/registry/customresource/validator.go` (`validateKubeFinalizerName`).
pub fn finalizer_warnings(new: &ObjectMeta, old: Option<&ObjectMeta>) -> Vec<String> {
    let known = old.and_then(|o| o.finalizers.as_deref()).unwrap_or_default();
    let mut added: Vec<&String> = new.finalizers.iter().flatten().filter(|f| !known.contains(f)).collect();
    added.sort_unstable();
    added.dedup();
    let bare = added.into_iter().filter(|f| has_no_domain(f));
    bare.map(|finalizer| {
        let wanted = if finalizer.contains('.') { "name including a path (/)" } else { "name" };
        format!(
            "metadata.finalizers: {finalizer:?}: prefer a domain-qualified finalizer {wanted} to avoid accidental \
             conflicts with other finalizer writers"
        )
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::Kind;
    use k8s_openapi::api::core::v1::{Namespace, Pod, Service};

    fn meta(json: serde_json::Value) -> ObjectMeta {
        serde_json::from_value(json).unwrap()
    }

    fn check<K: Kind>(json: serde_json::Value, wanted: &[&str]) {
        let mut errs = FieldErrors::new();
        validate_meta(&meta(json.clone()), &K::NAMES, K::SCOPE, &mut errs);
        let got: Vec<_> = errs.0.iter().map(ToString::to_string).collect();
        assert_eq!(got.len(), wanted.len(), "{json}: {got:#?}");
        for (got, wanted) in got.iter().zip(wanted) {
            assert!(got.starts_with(wanted), "{json}:\n got {got}\nwant {wanted}");
        }
    }

    #[test]
    fn finalizers_without_a_domain() {
        let custom = Names::new("a.io", "v1", "A", "as", "a").any_finalizers();
        let new = meta(serde_json::json!({"name": "a", "finalizers": ["x", "a.b", "orphan", "a.b/c", "old"]}));
        let old = meta(serde_json::json!({"name": "a", "finalizers": ["old"]}));
        let mut errs = FieldErrors::new();
        validate_meta(&new, &custom, Scope::Cluster, &mut errs);
        assert!(errs.is_empty(), "{:?}", errs.0);
        let why = "to avoid accidental conflicts with other finalizer writers";
        assert_eq!(
            finalizer_warnings(&new, Some(&old)),
            [
                format!(
                    "metadata.finalizers: \"a.b\": prefer a domain-qualified finalizer name including a path (/) {why}"
                ),
                format!("metadata.finalizers: \"x\": prefer a domain-qualified finalizer name {why}"),
            ]
        );
    }

    #[test]
    fn metadata() {
        use serde_json::json;
        check::<Pod>(json!({"name": "a.b", "namespace": "n"}), &[]);
        check::<Pod>(json!({"namespace": "n"}), &["metadata.name: Required value: name or generateName is required"]);
        check::<Pod>(json!({"name": "a"}), &["metadata.namespace: Required value"]);
        check::<Namespace>(
            json!({"name": "a.b"}),
            &["metadata.name: Invalid value: \"a.b\": a lowercase RFC 1123 label"],
        );
        check::<Service>(
            json!({"name": "1a", "namespace": "n"}),
            &["metadata.name: Invalid value: \"1a\": a DNS-1035 label"],
        );
        check::<Namespace>(
            json!({"name": "a", "namespace": "b"}),
            &["metadata.namespace: Forbidden: not allowed on this type"],
        );
        check::<Pod>(
            json!({"name": "a", "namespace": "n", "labels": {"a b": "c", "d": "e f"}, "annotations": {"X/Y/z": ""}}),
            &[
                "metadata.labels: Invalid value: \"a b\": name part must consist of",
                "metadata.labels: Invalid value: \"e f\": a valid label must be",
                "metadata.annotations: Invalid value: \"X/Y/z\": a qualified name must",
            ],
        );
        check::<Pod>(
            json!({"name": "a", "namespace": "n", "finalizers": ["x", "orphan", "foregroundDeletion", "a.b/c"]}),
            &[
                "metadata.finalizers: Invalid value: [\"x\",\"orphan\",\"foregroundDeletion\",\"a.b/c\"]: finalizer orphan",
                "metadata.finalizers[0]: Invalid value: \"x\": name is neither a standard finalizer name nor",
            ],
        );
        let owner =
            |name: &str| json!({"apiVersion": "v1", "kind": "Pod", "name": name, "uid": "u", "controller": true});
        check::<Pod>(
            json!({"name": "a", "namespace": "n", "ownerReferences": [owner("a"), owner("")]}),
            &[
                "metadata.ownerReferences.name: Invalid value: \"\": must not be empty",
                "metadata.ownerReferences: Invalid",
            ],
        );
    }

    #[test]
    fn what_an_update_may_not_change() {
        use serde_json::json;
        let old = meta(json!({"name": "a", "uid": "u", "generation": 3, "deletionTimestamp": "2026-01-01T00:00:00Z"}));
        let mut new = old.clone();
        let mut errs = FieldErrors::new();
        validate_meta_update(&new, &old, &mut errs);
        assert!(errs.is_empty(), "{errs:?}");
        new.uid = Some("v".to_owned());
        new.generation = Some(2);
        new.finalizers = Some(vec!["a/b".to_owned()]);
        validate_meta_update(&new, &old, &mut errs);
        let got: Vec<_> = errs.0.iter().map(ToString::to_string).collect();
        assert_eq!(
            got,
            [
                "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new \
                 finalizers [\"a/b\"]",
                "metadata.generation: Invalid value: 2: must not be decremented",
                "metadata.uid: Invalid value: \"v\": field is immutable",
            ]
        );
    }
}
