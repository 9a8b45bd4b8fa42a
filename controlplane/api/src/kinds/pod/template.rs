//! Pod templates, as ReplicaSets and Deployments carry them.
//!
//! # Source
//! Kubernetes `pkg/apis/apps/validation/validation.go`, `ValidatePodTemplateSpecForReplicaSet`.

use k8s_openapi::{
    api::core::v1::{Container, PodTemplateSpec},
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};

use super::{
    annotations, defaults,
    spec::{self, Of},
};
use crate::{
    field::{FieldErrors, FieldPath},
    kinds::label_selector,
    meta,
    selector::label_selector_matches,
};

/// Fills the defaults of a template.
pub(in crate::kinds) fn fill_template_defaults(template: &mut PodTemplateSpec) {
    defaults::pod_spec(template.spec.get_or_insert_default());
}

/// Checks a template by itself, whatever its pods are for.
pub(in crate::kinds) fn validate_any_template(template: &PodTemplateSpec, path: &FieldPath, errs: &mut FieldErrors) {
    let of = template.metadata.as_ref();
    meta::validate_labels(of.and_then(|m| m.labels.as_ref()), &path.child("labels"), errs);
    let annotations = of.and_then(|m| m.annotations.as_ref());
    meta::validate_annotations(annotations, &path.child("annotations"), errs);
    let default = Default::default();
    let pod = template.spec.as_ref().unwrap_or(&default);
    annotations::validate(annotations, pod, &path.child("annotations"), errs);
    spec::validate(pod, Of::Template, &path.child("spec"), errs);
    annotations::validate_profiles(annotations, pod, &path.child("spec"), errs);
    if pod.ephemeral_containers.as_ref().is_some_and(|c| !c.is_empty()) {
        let at = path.child("spec").child("ephemeralContainers");
        errs.forbidden(&at, "ephemeral containers not allowed in pod template");
    }
}

/// Checks a template whose pods are to run for ever and to be found by `selector`. `of`: the kind that has it.
pub(in crate::kinds) fn validate_template(
    template: &PodTemplateSpec,
    selector: &LabelSelector,
    of: &str,
    path: &FieldPath,
    errs: &mut FieldErrors,
) {
    let labels = template.metadata.as_ref().and_then(|m| m.labels.as_ref());
    // No selector finds nothing; that of a ReplicationController is a map, and an empty one finds all.
    let missing = label_selector::is_empty(selector);
    let finds_all = missing && of == "ReplicationController";
    if !finds_all && (missing || !label_selector_matches(Some(selector), labels)) {
        let value = serde_json::to_value(labels).unwrap_or_default();
        let at = path.child("metadata").child("labels");
        errs.invalid(&at, value, "`selector` does not match template `labels`");
    }
    validate_any_template(template, path, errs);
    let default = Default::default();
    let pod = template.spec.as_ref().unwrap_or(&default);
    let path = path.child("spec");
    let restart = pod.restart_policy.as_deref().unwrap_or_default();
    if restart != "Always" {
        errs.not_supported(&path.child("restartPolicy"), restart, &["Always"]);
    }
    if pod.active_deadline_seconds.is_some() {
        let detail = format!("activeDeadlineSeconds in {of} is not Supported");
        errs.forbidden(&path.child("activeDeadlineSeconds"), &detail);
    }
}

/// The names of the containers, for a wide column.
pub(in crate::kinds) fn template_containers(template: Option<&PodTemplateSpec>) -> String {
    joined(template, |c| c.name.clone())
}

/// The images of the containers, for a wide column.
pub(in crate::kinds) fn template_images(template: Option<&PodTemplateSpec>) -> String {
    joined(template, |c| c.image.clone().unwrap_or_default())
}

fn joined(template: Option<&PodTemplateSpec>, of: fn(&Container) -> String) -> String {
    let containers = template.and_then(|t| t.spec.as_ref()).map(|s| s.containers.as_slice()).unwrap_or_default();
    containers.iter().map(of).collect::<Vec<_>>().join(",")
}
