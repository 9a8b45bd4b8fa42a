//! Validation of annotations that mean something to pods: costs of deletion, and what were fields of their own later.
//!
//! # Source
//! Kubernetes `pkg/apis/core/validation/validation.go`, `ValidatePodSpecificAnnotations`,
//! `validateSeccompAnnotationsAndFields`, `validateAppArmorAnnotationsAndFieldsMatchOnCreate`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::PodSpec;

use super::{
    container::{all_containers, validate_descending_path},
    update::MIRROR,
};
use crate::field::{FieldErrors, FieldPath};

const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
/// What AppArmor profiles of containers were once named by.
pub(super) const APP_ARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";
const LOCALHOST: &str = "localhost/";

type Annotations<'a> = Option<&'a BTreeMap<String, String>>;

/// Checks the annotations at `path` of a pod or a template.
pub(super) fn validate(annotations: Annotations<'_>, spec: &PodSpec, path: &FieldPath, errs: &mut FieldErrors) {
    let unbound = spec.node_name.as_deref().unwrap_or_default().is_empty();
    for (key, value) in annotations.into_iter().flatten() {
        let at = path.key(key);
        if key == MIRROR && unbound {
            errs.invalid(&at, value.as_str(), "must set spec.nodeName if mirror pod annotation is set");
        } else if key == DELETION_COST && !is_cost(value) {
            errs.invalid(&at, value.as_str(), "must be a 32bit integer");
        } else if key == SECCOMP_POD || key.starts_with(SECCOMP_CONTAINER) {
            validate_seccomp(value, &path.child(key), errs);
        } else if let Some(name) = key.strip_prefix(APP_ARMOR) {
            validate_app_armor(name, value, spec, &at, errs);
        }
    }
}

/// A number without zeros before it.
fn is_cost(value: &str) -> bool {
    let digits = value.strip_prefix('-').unwrap_or(value);
    let plain = digits.bytes().all(|b| b.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    plain && value.parse::<i32>().is_ok()
}

fn validate_seccomp(profile: &str, path: &FieldPath, errs: &mut FieldErrors) {
    match profile {
        "runtime/default" | "docker/default" | "unconfined" => {}
        _ => match profile.strip_prefix(LOCALHOST) {
            Some(file) => validate_descending_path(file, path, errs),
            None => errs.invalid(path, profile, "must be a valid seccomp profile"),
        },
    }
}

fn validate_app_armor(container: &str, profile: &str, spec: &PodSpec, path: &FieldPath, errs: &mut FieldErrors) {
    let mut found = false;
    all_containers(spec, path, |c, _| found |= c.name == container);
    if !found {
        errs.invalid(path, container, "container not found");
    }
    let known = matches!(profile, "" | "runtime/default" | "unconfined") || profile.starts_with(LOCALHOST);
    if !known {
        errs.invalid(path, profile, &format!("invalid AppArmor profile name: {profile:?}"));
    }
}

/// What annotations and fields of the spec at `path` both say must be the same.
pub(super) fn validate_profiles(
    annotations: Annotations<'_>,
    spec: &PodSpec,
    path: &FieldPath,
    errs: &mut FieldErrors,
) {
    let Some(annotations) = annotations else { return };
    let of_pod = spec.security_context.as_ref();
    if let (Some(text), Some(profile)) = (annotations.get(SECCOMP_POD), of_pod.and_then(|c| c.seccomp_profile.as_ref()))
    {
        let field = (profile.type_.as_str(), profile.localhost_profile.as_deref());
        same("seccomp", text, field, &path.child("securityContext").child("seccompProfile"), errs);
    }
    all_containers(spec, path, |container, path| {
        let context = container.security_context.as_ref();
        let at = path.child("securityContext");
        if let (Some(text), Some(profile)) = (
            annotations.get(&format!("{SECCOMP_CONTAINER}{}", container.name)),
            context.and_then(|c| c.seccomp_profile.as_ref()),
        ) {
            let field = (profile.type_.as_str(), profile.localhost_profile.as_deref());
            same("seccomp", text, field, &at.child("seccompProfile"), errs);
        }
        let armor = context.and_then(|c| c.app_armor_profile.as_ref());
        let armor = armor.or_else(|| of_pod.and_then(|c| c.app_armor_profile.as_ref()));
        if let (Some(text), Some(profile)) = (annotations.get(&format!("{APP_ARMOR}{}", container.name)), armor) {
            let field = (profile.type_.as_str(), profile.localhost_profile.as_deref());
            same("apparmor", text, field, &at.child("appArmorProfile"), errs);
        }
    });
}

fn same(what: &str, annotation: &str, (kind, file): (&str, Option<&str>), path: &FieldPath, errs: &mut FieldErrors) {
    let local = annotation.strip_prefix(LOCALHOST);
    let same_kind = match kind {
        "Unconfined" => annotation == "unconfined",
        "RuntimeDefault" => annotation == "runtime/default" || (what == "seccomp" && annotation == "docker/default"),
        "Localhost" => local.is_some(),
        _ => true,
    };
    if !same_kind {
        errs.forbidden(&path.child("type"), &format!("{what} type in annotation and field must match"));
    } else if kind == "Localhost" && local != file {
        let detail = format!("{what} profile in annotation and field must match");
        errs.forbidden(&path.child("localhostProfile"), &detail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs() {
        for (value, wanted) in
            [("0", true), ("-5", true), ("12", true), ("+5", false), ("05", false), ("", false), ("9999999999", false)]
        {
            assert_eq!(is_cost(value), wanted, "{value}");
        }
    }
}
