//! Pod templates, as ReplicaSets and Deployments carry them.
//!
//! # Source
//! Kubernetes `pkg/apis/apps/validation/validation.go`, `ValidatePodTemplateSpecForReplicaSet`.

use k8s_openapi::{
    api::core::v1::{Container, PodTemplateSpec},
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};

use super::{defaults, spec};
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
    meta::validate_annotations(of.and_then(|m| m.annotations.as_ref()), &path.child("annotations"), errs);
    let default = Default::default();
    let pod = template.spec.as_ref().unwrap_or(&default);
    spec::validate(pod, &path.child("spec"), errs);
    if pod.ephemeral_containers.as_ref().is_some_and(|c| !c.is_empty()) {
        let at = path.child("spec").child("ephemeralContainers");
        errs.forbidden(&at, "ephemeral containers not allowed in pod template");
    }
}

/// Checks a template whose pods are to run for ever and to be found by `selector`.
pub(in crate::kinds) fn validate_template(
    template: &PodTemplateSpec,
    selector: &LabelSelector,
    path: &FieldPath,
    errs: &mut FieldErrors,
) {
    let labels = template.metadata.as_ref().and_then(|m| m.labels.as_ref());
    let meta_path = path.child("metadata");
    if label_selector::is_empty(selector) || !label_selector_matches(Some(selector), labels) {
        let value = serde_json::to_value(labels).unwrap_or_default();
        errs.invalid(&meta_path.child("labels"), value, "`selector` does not match template `labels`");
    }
    meta::validate_labels(labels, &meta_path.child("labels"), errs);
    let annotations = template.metadata.as_ref().and_then(|m| m.annotations.as_ref());
    meta::validate_annotations(annotations, &meta_path.child("annotations"), errs);
    let default = Default::default();
    let pod = template.spec.as_ref().unwrap_or(&default);
    let spec_path = path.child("spec");
    spec::validate(pod, &spec_path, errs);
    let restart = pod.restart_policy.as_deref().unwrap_or_default();
    if restart != "Always" {
        errs.not_supported(&spec_path.child("restartPolicy"), restart, &["Always"]);
    }
    if pod.active_deadline_seconds.is_some() {
        let detail = "activeDeadlineSeconds in ReplicaSet is not Supported";
        errs.forbidden(&spec_path.child("activeDeadlineSeconds"), detail);
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
