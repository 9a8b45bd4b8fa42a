//! Validation of what containers see of volumes: mounts and devices.
//!
//! # Source
//! Kubernetes `pkg/apis/core/validation/validation.go`, `ValidateVolumeMounts`, `ValidateVolumeDevices`.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Container, Volume, VolumeDevice, VolumeMount};

use super::container::validate_descending_path;
use crate::field::{FieldErrors, FieldPath};

type Volumes<'a> = BTreeMap<&'a str, &'a Volume>;

/// Checks the mounts and devices of the container at `path`.
pub(super) fn validate(container: &Container, volumes: &Volumes<'_>, path: &FieldPath, errs: &mut FieldErrors) {
    let mounts = container.volume_mounts.as_deref().unwrap_or_default();
    let devices = container.volume_devices.as_deref().unwrap_or_default();
    let at = path.child("volumeMounts");
    let mut places = BTreeSet::new();
    for (i, mount) in mounts.iter().enumerate() {
        validate_mount(mount, volumes, &at.index(i), errs);
        if !places.insert(mount.mount_path.as_str()) {
            errs.invalid(&at.index(i).child("mountPath"), mount.mount_path.as_str(), "must be unique");
        }
        if devices.iter().any(|d| d.name == mount.name) {
            let detail = "must not already exist in volumeDevices";
            errs.invalid(&at.index(i).child("name"), mount.name.as_str(), detail);
        }
        if devices.iter().any(|d| d.device_path == mount.mount_path) {
            let detail = "must not already exist as a path in volumeDevices";
            errs.invalid(&at.index(i).child("mountPath"), mount.mount_path.as_str(), detail);
        }
        validate_sub_paths(mount, volumes, &at, i, errs);
        validate_propagation(mount, container, &at, errs);
        validate_recursive(mount, &at.child("recursiveReadOnly"), errs);
    }
    validate_devices(devices, mounts, volumes, &path.child("volumeDevices"), errs);
}

fn validate_mount(mount: &VolumeMount, volumes: &Volumes<'_>, path: &FieldPath, errs: &mut FieldErrors) {
    if mount.name.is_empty() {
        errs.required(&path.child("name"), "");
    }
    if !volumes.contains_key(mount.name.as_str()) {
        errs.not_found(&path.child("name"), &mount.name);
    }
    if mount.mount_path.is_empty() {
        errs.required(&path.child("mountPath"), "");
    }
}

/// Some of these errors name the list, not the item, as those of Kubernetes do.
fn validate_sub_paths(mount: &VolumeMount, volumes: &Volumes<'_>, path: &FieldPath, i: usize, errs: &mut FieldErrors) {
    let parts = [("subPath", &mount.sub_path), ("subPathExpr", &mount.sub_path_expr)];
    let given = parts.map(|(field, text)| (field, text.as_deref().unwrap_or_default()));
    let is_image = volumes.get(mount.name.as_str()).is_some_and(|v| v.image.is_some());
    for (field, text) in given.iter().filter(|(_, text)| is_image && !text.is_empty()) {
        errs.invalid(&path.index(i).child(field), *text, "not allowed in image volume sources");
    }
    let [(_, plain), (_, expression)] = given;
    validate_descending_path(plain, &path.child("subPath"), errs);
    if !plain.is_empty() && !expression.is_empty() {
        let at = path.index(i).child("subPathExpr");
        errs.invalid(&at, expression, "subPathExpr and subPath are mutually exclusive");
    }
    validate_descending_path(expression, &path.child("subPathExpr"), errs);
}

fn validate_propagation(mount: &VolumeMount, container: &Container, path: &FieldPath, errs: &mut FieldErrors) {
    let Some(mode) = mount.mount_propagation.as_deref() else { return };
    let (at, supported) = (path.child("mountPropagation"), ["Bidirectional", "HostToContainer", "None"]);
    if !supported.contains(&mode) {
        errs.not_supported(&at, mode, &supported);
    }
    let privileged = container.security_context.as_ref().and_then(|c| c.privileged) == Some(true);
    if mode == "Bidirectional" && !privileged {
        errs.forbidden(&at, "Bidirectional mount propagation is available only to privileged containers");
    }
}

fn validate_recursive(mount: &VolumeMount, path: &FieldPath, errs: &mut FieldErrors) {
    match mount.recursive_read_only.as_deref() {
        None | Some("Disabled") => {}
        Some("Enabled" | "IfPossible") => {
            if mount.read_only != Some(true) {
                errs.forbidden(path, "may only be specified when readOnly is true");
            }
            if mount.mount_propagation.as_deref().is_some_and(|p| p != "None") {
                errs.forbidden(path, "may only be specified when mountPropagation is None or not specified");
            }
        }
        Some(other) => errs.not_supported(path, other, &["Disabled", "Enabled", "IfPossible"]),
    }
}

fn validate_devices(
    devices: &[VolumeDevice],
    mounts: &[VolumeMount],
    volumes: &Volumes<'_>,
    path: &FieldPath,
    errs: &mut FieldErrors,
) {
    let (mut names, mut places) = (BTreeSet::new(), BTreeSet::new());
    for (i, device) in devices.iter().enumerate() {
        let (name, place) = (device.name.as_str(), device.device_path.as_str());
        let (name_at, place_at) = (path.index(i).child("name"), path.index(i).child("devicePath"));
        if name.is_empty() {
            errs.required(&name_at, "");
        } else if !names.insert(name) {
            errs.invalid(&name_at, name, "must be unique");
        }
        match volumes.get(name) {
            None => errs.not_found(&name_at, name),
            Some(volume) if volume.persistent_volume_claim.is_none() && volume.ephemeral.is_none() => {
                let detail = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode";
                errs.invalid(&name_at, name, detail);
            }
            Some(_) => {}
        }
        if place.is_empty() {
            errs.required(&place_at, "");
        }
        if place.split('/').any(|part| part == "..") {
            errs.invalid(&place_at, place, "can not contain backsteps ('..')");
        } else if !places.insert(place) {
            errs.invalid(&place_at, place, "must be unique");
        }
        if mounts.iter().any(|m| m.name == name) {
            errs.invalid(&name_at, name, "must not already exist in volumeMounts");
        }
        if mounts.iter().any(|m| m.mount_path == place) {
            errs.invalid(&place_at, place, "must not already exist as a path in volumeMounts");
        }
    }
}
