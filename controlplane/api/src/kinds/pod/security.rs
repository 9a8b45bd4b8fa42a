//! Validation of security contexts, of pods and of containers, and of what an operating system has not.
//!
//! # Source
//! Kubernetes `pkg/apis/core/validation/validation.go`, `validatePodSpecSecurityContext`, `ValidateSecurityContext`,
//! `validateHostUsers`, `validateOS`.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{
    AppArmorProfile, Container, PodSecurityContext, PodSpec, SeccompProfile, SecurityContext, Sysctl,
};
use serde_json::Value;

use super::{
    container::{all_containers, validate_descending_path},
    windows,
};
use crate::{
    field::{FieldErrors, FieldPath},
    names,
};

const SYSCTL_BYTES_MAX: usize = 253;
const SYSCTL: &str = "^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
const PROFILES: [&str; 3] = ["Localhost", "RuntimeDefault", "Unconfined"];
const PROFILE_BYTES_MAX: usize = 4095;

/// Checks the security context of the pod whose spec is at `path`, and what depends on it.
pub(super) fn validate_of_pod(spec: &PodSpec, path: &FieldPath, errs: &mut FieldErrors) {
    let Some(context) = &spec.security_context else { return };
    let at = path.child("securityContext");
    for (field, id) in
        [("fsGroup", context.fs_group), ("runAsUser", context.run_as_user), ("runAsGroup", context.run_as_group)]
    {
        validate_id(id, &at.child(field), errs);
    }
    for (i, group) in context.supplemental_groups.iter().flatten().enumerate() {
        validate_id(Some(*group), &at.child("supplementalGroups").index(i), errs);
    }
    if spec.share_process_namespace == Some(true) && spec.host_pid == Some(true) {
        let detail = "ShareProcessNamespace and HostPID cannot both be enabled";
        errs.invalid(&at.child("shareProcessNamespace"), true, detail);
    }
    validate_sysctls(context.sysctls.as_deref().unwrap_or_default(), &at.child("sysctls"), errs);
    validate_seccomp(context.seccomp_profile.as_ref(), &at.child("seccompProfile"), errs);
    windows::validate_options(context.windows_options.as_ref(), &at.child("windowsOptions"), errs);
    validate_app_armor(context.app_armor_profile.as_ref(), &at.child("appArmorProfile"), errs);
    validate_policies(context, &at, errs);
}

fn validate_policies(context: &PodSecurityContext, path: &FieldPath, errs: &mut FieldErrors) {
    let policies: [(&str, &Option<String>, &[&str]); 3] = [
        ("fsGroupChangePolicy", &context.fs_group_change_policy, &["Always", "OnRootMismatch"]),
        ("supplementalGroupsPolicy", &context.supplemental_groups_policy, &["Merge", "Strict"]),
        ("seLinuxChangePolicy", &context.se_linux_change_policy, &["MountOption", "Recursive"]),
    ];
    for (field, policy, supported) in policies {
        if let Some(policy) = policy.as_deref().filter(|p| !supported.contains(p)) {
            errs.not_supported(&path.child(field), policy, supported);
        }
    }
}

/// A user or group number.
fn validate_id(id: Option<i64>, path: &FieldPath, errs: &mut FieldErrors) {
    let Some(id) = id else { return };
    for message in names::in_range(id, 0, i64::from(i32::MAX)) {
        errs.invalid(path, id, &message);
    }
}

fn validate_sysctls(sysctls: &[Sysctl], path: &FieldPath, errs: &mut FieldErrors) {
    let mut seen = BTreeSet::new();
    for (i, sysctl) in sysctls.iter().enumerate() {
        let (at, name) = (path.index(i).child("name"), sysctl.name.as_str());
        if name.is_empty() {
            errs.required(&at, "");
        } else if !is_sysctl(name) {
            let detail = format!("must have at most {SYSCTL_BYTES_MAX} characters and match regex {SYSCTL}");
            errs.invalid(&at, name, &detail);
        } else if !seen.insert(name) {
            errs.duplicate(&at, name);
        }
    }
}

fn is_sysctl(name: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let segment = |text: &str| {
        let bytes = text.as_bytes();
        edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(|b| edge(Some(b)) || matches!(b, b'-' | b'_'))
    };
    name.len() <= SYSCTL_BYTES_MAX && name.split(['.', '/']).all(segment)
}

fn validate_seccomp(profile: Option<&SeccompProfile>, path: &FieldPath, errs: &mut FieldErrors) {
    let Some(profile) = profile else { return };
    let kind = profile.type_.as_str();
    if kind.is_empty() {
        errs.required(&path.child("type"), "type is required when seccompProfile is set");
    } else if !PROFILES.contains(&kind) {
        errs.not_supported(&path.child("type"), kind, &PROFILES);
    }
    let at = path.child("localhostProfile");
    match (&profile.localhost_profile, kind == "Localhost") {
        (None, true) => errs.required(&at, "must be set when seccomp type is Localhost"),
        (Some(file), true) => validate_descending_path(file, &at, errs),
        (Some(_), false) => {
            let shown = serde_json::to_value(profile).unwrap_or_default();
            errs.invalid(&at, shown, "can only be set when seccomp type is Localhost");
        }
        (None, false) => {}
    }
}

fn validate_app_armor(profile: Option<&AppArmorProfile>, path: &FieldPath, errs: &mut FieldErrors) {
    let Some(profile) = profile else { return };
    let at = path.child("localhostProfile");
    let missing = "must be set when AppArmor type is Localhost";
    match (profile.type_.as_str(), profile.localhost_profile.as_deref()) {
        ("Localhost", None) => errs.required(&at, missing),
        ("Localhost", Some(name)) => {
            if name.trim() != name {
                errs.invalid(&at, name, "must not be padded with whitespace");
            } else if name.is_empty() {
                errs.required(&at, missing);
            }
            if name.len() > PROFILE_BYTES_MAX {
                errs.too_long(&at, PROFILE_BYTES_MAX);
            }
        }
        ("RuntimeDefault" | "Unconfined", Some(name)) => {
            errs.invalid(&at, name, "can only be set when AppArmor type is Localhost");
        }
        ("RuntimeDefault" | "Unconfined", None) => {}
        ("", _) => errs.required(&path.child("type"), "type is required when appArmorProfile is set"),
        (other, _) => errs.not_supported(&path.child("type"), other, &PROFILES),
    }
}

/// Checks the security context of a container. `host_users`: whether its pod shares the users of its node.
pub(super) fn validate(context: &SecurityContext, host_users: bool, path: &FieldPath, errs: &mut FieldErrors) {
    validate_id(context.run_as_user, &path.child("runAsUser"), errs);
    validate_id(context.run_as_group, &path.child("runAsGroup"), errs);
    if let Some(mount) = context.proc_mount.as_deref() {
        let at = path.child("procMount");
        if !matches!(mount, "Default" | "Unmasked") {
            errs.not_supported(&at, mount, &["Default", "Unmasked"]);
        }
        if host_users && mount == "Unmasked" {
            errs.invalid(&at, mount, "`hostUsers` must be false to use `Unmasked`");
        }
    }
    validate_seccomp(context.seccomp_profile.as_ref(), &path.child("seccompProfile"), errs);
    if context.allow_privilege_escalation == Some(false) {
        let shown = || serde_json::to_value(context).unwrap_or_default();
        if context.privileged == Some(true) {
            errs.invalid(path, shown(), "cannot set `allowPrivilegeEscalation` to false and `privileged` to true");
        }
        let added = context.capabilities.iter().flat_map(|c| c.add.iter().flatten());
        for _ in added.filter(|c| *c == "CAP_SYS_ADMIN") {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errs.invalid(path, shown(), detail);
        }
    }
    windows::validate_options(context.windows_options.as_ref(), &path.child("windowsOptions"), errs);
    validate_app_armor(context.app_armor_profile.as_ref(), &path.child("appArmorProfile"), errs);
}

/// A pod with users of its own shares nothing else of its node.
pub(super) fn validate_host_users(spec: &PodSpec, path: &FieldPath, errs: &mut FieldErrors) {
    if spec.host_users != Some(false) {
        return;
    }
    let shared = [("hostNetwork", spec.host_network), ("HostPID", spec.host_pid), ("HostIPC", spec.host_ipc)];
    for (field, _) in shared.iter().filter(|(_, shared)| *shared == Some(true)) {
        errs.forbidden(&path.child(field), "when `pod.Spec.HostUsers` is false");
    }
}

/// Checks the operating system that a pod names, and that nothing is set that this has not.
pub(super) fn validate_os(spec: &PodSpec, path: &FieldPath, errs: &mut FieldErrors) {
    let Some(os) = &spec.os else { return };
    match os.name.as_str() {
        "" => errs.required(&path.child("os").child("name"), "cannot be empty"),
        "linux" => {
            let detail = "windows options cannot be set for a linux pod";
            forbid_in_contexts(spec, &["windowsOptions"], &["windowsOptions"], detail, path, errs);
        }
        "windows" => {
            let on_pod = [
                ("hostUsers", spec.host_users.is_some()),
                ("hostPID", spec.host_pid == Some(true)),
                ("hostIPC", spec.host_ipc == Some(true)),
                ("shareProcessNamespace", spec.share_process_namespace.is_some()),
            ];
            for (field, _) in on_pod.iter().filter(|(_, set)| *set) {
                errs.forbidden(&path.child(field), "cannot be set for a windows pod");
            }
            forbid_in_contexts(
                spec,
                windows::NOT_ON_PODS,
                windows::NOT_ON_CONTAINERS,
                "cannot be set for a windows pod",
                path,
                errs,
            );
        }
        other => errs.not_supported(&path.child("os"), other, &["linux", "windows"]),
    }
}

fn forbid_in_contexts(
    spec: &PodSpec,
    of_pod: &[&str],
    of_containers: &[&str],
    detail: &str,
    path: &FieldPath,
    errs: &mut FieldErrors,
) {
    let forbid = |context: Value, fields: &[&str], path: &FieldPath, errs: &mut FieldErrors| {
        let set = |field: &&&str| context.get(**field).is_some_and(|v| v.as_array().is_none_or(|a| !a.is_empty()));
        for field in fields.iter().filter(set) {
            errs.forbidden(&path.child("securityContext").child(field), detail);
        }
    };
    let tree = |context: Option<&SecurityContext>| serde_json::to_value(context).unwrap_or_default();
    forbid(serde_json::to_value(&spec.security_context).unwrap_or_default(), of_pod, path, errs);
    all_containers(spec, path, |container: &Container, path: &FieldPath| {
        forbid(tree(container.security_context.as_ref()), of_containers, path, errs);
    });
}
