//! Who a pod of a StatefulSet is: its ordinal, its names, its claims, and how it is made.
//!
//! # Source
//! Kubernetes `pkg/controller/statefulset/stateful_set_utils.go`.

use std::collections::BTreeSet;

use k8s_openapi::{
    api::{
        apps::v1::{StatefulSet, StatefulSetSpec},
        core::v1::{PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, Pod, Volume},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::history::Version;
use crate::{
    controller_history::{REVISION_HASH, label},
    owners::controller_ref,
};

/// Label of a pod: its own name, so that a Service can select one pod.
pub(super) const POD_NAME: &str = "statefulset.kubernetes.io/pod-name";
/// Label of a pod: its ordinal.
pub(super) const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

pub(super) fn set_name(set: &StatefulSet) -> &str {
    set.metadata.name.as_deref().unwrap_or_default()
}

/// The ordinal in the name of one of the set's pods; `None` for any other name.
pub(super) fn ordinal(set: &StatefulSet, meta: &ObjectMeta) -> Option<i32> {
    ordinal_in(meta.name.as_deref()?.strip_prefix(set_name(set))?)
}

/// The number in `-3`.
fn ordinal_in(rest: &str) -> Option<i32> {
    let digits = rest.strip_prefix('-')?;
    digits.parse().ok().filter(|n: &i32| *n >= 0 && n.to_string() == digits)
}

pub(super) fn pod_name(set: &StatefulSet, ordinal: i32) -> String {
    format!("{}-{ordinal}", set_name(set))
}

/// Whether a claim of this name is one that the set makes.
pub(super) fn makes_claim(set: &StatefulSet, name: &str) -> bool {
    let templates = set.spec.iter().flat_map(|s| s.volume_claim_templates.iter().flatten());
    let mut prefixes = templates.map(|t| format!("{}-{}", template_name(t), set_name(set)));
    prefixes.any(|prefix| name.strip_prefix(&prefix).and_then(ordinal_in).is_some())
}

fn template_name(template: &PersistentVolumeClaim) -> &str {
    template.metadata.name.as_deref().unwrap_or_default()
}

/// The claims of one pod, each as it is to be made, in the order of the templates.
pub(super) fn claims(set: &StatefulSet, spec: &StatefulSetSpec, ordinal: i32) -> Vec<PersistentVolumeClaim> {
    let templates = spec.volume_claim_templates.iter().flatten();
    let claim = |template: &PersistentVolumeClaim| {
        let mut metadata = template.metadata.clone();
        let matched = spec.selector.match_labels.clone().unwrap_or_default();
        metadata.labels.get_or_insert_default().extend(matched);
        metadata.name = Some(format!("{}-{}-{ordinal}", template_name(template), set_name(set)));
        metadata.namespace.clone_from(&set.metadata.namespace);
        PersistentVolumeClaim { metadata, spec: template.spec.clone(), status: None }
    };
    templates.map(claim).collect()
}

/// A pod's volumes: those of its claims, and the others of `known`.
pub(super) fn volumes(set: &StatefulSet, spec: &StatefulSetSpec, ordinal: i32, known: Vec<Volume>) -> Vec<Volume> {
    let templates = spec.volume_claim_templates.iter().flatten();
    let volume = |template: &PersistentVolumeClaim| {
        let claim_name = format!("{}-{}-{ordinal}", template_name(template), set_name(set));
        let source = PersistentVolumeClaimVolumeSource { claim_name, read_only: None };
        Volume { name: template_name(template).to_owned(), persistent_volume_claim: Some(source), ..Volume::default() }
    };
    let mut all: Vec<Volume> = templates.map(volume).collect();
    let taken: BTreeSet<String> = all.iter().map(|v| v.name.clone()).collect();
    all.extend(known.into_iter().filter(|v| !taken.contains(&v.name)));
    all
}

/// Whether a pod's volumes are its claims.
pub(super) fn has_its_volumes(set: &StatefulSet, spec: &StatefulSetSpec, ordinal: i32, pod: &Pod) -> bool {
    let claim = |v: &Volume| v.persistent_volume_claim.as_ref().map(|c| c.claim_name.clone());
    let known: Vec<&Volume> = pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()).collect();
    let wanted = volumes(set, spec, ordinal, Vec::new());
    wanted.iter().all(|w| known.iter().any(|v| v.name == w.name && claim(v) == claim(w)))
}

/// Whether a pod is labelled with its name.
pub(super) fn has_its_name(pod: &Pod) -> bool {
    Some(label(&pod.metadata, POD_NAME)) == pod.metadata.name.as_deref()
}

/// The pod of an ordinal in one version of the template.
pub(super) fn new_pod(set: &StatefulSet, spec: &StatefulSetSpec, version: &Version, ordinal: i32) -> Pod {
    let given = version.template.metadata.clone().unwrap_or_default();
    let name = pod_name(set, ordinal);
    let mut labels = given.labels.unwrap_or_default();
    labels.insert(POD_NAME.to_owned(), name.clone());
    labels.insert(POD_INDEX.to_owned(), ordinal.to_string());
    labels.insert(REVISION_HASH.to_owned(), version.name.clone());
    let mut pod_spec = version.template.spec.clone().unwrap_or_default();
    pod_spec.hostname = Some(name.clone());
    pod_spec.subdomain = spec.service_name.clone().filter(|service| !service.is_empty());
    let known = pod_spec.volumes.take().unwrap_or_default();
    pod_spec.volumes = Some(volumes(set, spec, ordinal, known)).filter(|all| !all.is_empty());
    Pod {
        metadata: ObjectMeta {
            name: Some(name),
            generate_name: Some(format!("{}-", set_name(set))),
            namespace: set.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: given.annotations,
            finalizers: given.finalizers,
            owner_references: Some(vec![controller_ref(set)]),
            ..ObjectMeta::default()
        },
        spec: Some(pod_spec),
        status: None,
    }
}
