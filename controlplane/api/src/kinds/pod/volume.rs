//! Validation of volumes. Those that Podium can mount are checked in depth; of others only that there is one at all.
//!
//! # Source
//! Kubernetes `pkg/apis/core/validation/validation.go`, `ValidateVolumes`.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, KeyToPath, ProjectedVolumeSource, Volume};

use super::{
    container::validate_descending_path,
    env::{validate_field_ref, validate_resource_ref},
    resources::validate_quantity,
};
use crate::{
    field::{FieldErrors, FieldPath},
    names,
};

const FILE_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];

/// Checks all volumes; the names of those that can be mounted.
pub(super) fn validate_all<'a>(volumes: &'a [Volume], path: &FieldPath, errs: &mut FieldErrors) -> BTreeSet<&'a str> {
    let mut names_seen = BTreeSet::new();
    for (i, volume) in volumes.iter().enumerate() {
        let at = path.index(i);
        let before = errs.0.len();
        validate(volume, &at, errs);
        let name = volume.name.as_str();
        if name.is_empty() {
            errs.required(&at.child("name"), "");
        } else {
            errs.invalid_each(&at.child("name"), name, names::is_dns1123_label(name));
            if names_seen.contains(name) {
                errs.duplicate(&at.child("name"), name);
            }
        }
        if errs.0.len() == before {
            names_seen.insert(name);
        }
    }
    names_seen
}

/// The fields that say what a volume is; there should be one.
pub(super) fn sources(volume: &Volume) -> Vec<&'static str> {
    let given = [
        ("awsElasticBlockStore", volume.aws_elastic_block_store.is_some()),
        ("azureDisk", volume.azure_disk.is_some()),
        ("azureFile", volume.azure_file.is_some()),
        ("cephfs", volume.cephfs.is_some()),
        ("cinder", volume.cinder.is_some()),
        ("configMap", volume.config_map.is_some()),
        ("csi", volume.csi.is_some()),
        ("downwardAPI", volume.downward_api.is_some()),
        ("emptyDir", volume.empty_dir.is_some()),
        ("ephemeral", volume.ephemeral.is_some()),
        ("fc", volume.fc.is_some()),
        ("flexVolume", volume.flex_volume.is_some()),
        ("flocker", volume.flocker.is_some()),
        ("gcePersistentDisk", volume.gce_persistent_disk.is_some()),
        ("gitRepo", volume.git_repo.is_some()),
        ("glusterfs", volume.glusterfs.is_some()),
        ("hostPath", volume.host_path.is_some()),
        ("image", volume.image.is_some()),
        ("iscsi", volume.iscsi.is_some()),
        ("nfs", volume.nfs.is_some()),
        ("persistentVolumeClaim", volume.persistent_volume_claim.is_some()),
        ("photonPersistentDisk", volume.photon_persistent_disk.is_some()),
        ("portworxVolume", volume.portworx_volume.is_some()),
        ("projected", volume.projected.is_some()),
        ("quobyte", volume.quobyte.is_some()),
        ("rbd", volume.rbd.is_some()),
        ("scaleIO", volume.scale_io.is_some()),
        ("storageos", volume.storageos.is_some()),
        ("vsphereVolume", volume.vsphere_volume.is_some()),
    ];
    given.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect()
}

fn validate(volume: &Volume, path: &FieldPath, errs: &mut FieldErrors) {
    match sources(volume).as_slice() {
        [] => errs.required(path, "must specify a volume type"),
        [_, more @ ..] => {
            for field in more {
                errs.forbidden(&path.child(field), "may not specify more than 1 volume type");
            }
        }
    }
    if let Some(source) = &volume.config_map {
        let at = path.child("configMap");
        required(&source.name, &at.child("name"), errs);
        validate_items(source.items.as_deref(), source.default_mode, &at, errs);
    }
    if let Some(source) = &volume.secret {
        let at = path.child("secret");
        required(source.secret_name.as_deref().unwrap_or_default(), &at.child("secretName"), errs);
        validate_items(source.items.as_deref(), source.default_mode, &at, errs);
    }
    if let Some(limit) = volume.empty_dir.as_ref().and_then(|e| e.size_limit.as_ref()) {
        validate_quantity(limit, &path.child("emptyDir").child("sizeLimit"), errs);
    }
    if let Some(source) = &volume.host_path {
        validate_host_path(&source.path, source.type_.as_deref(), &path.child("hostPath"), errs);
    }
    if let Some(source) = &volume.downward_api {
        let at = path.child("downwardAPI");
        validate_mode(source.default_mode, &at.child("defaultMode"), errs);
        validate_files(source.items.as_deref(), &at, errs);
    }
    if let Some(source) = &volume.projected {
        validate_projected(source, &path.child("projected"), errs);
    }
    if let Some(source) = &volume.persistent_volume_claim {
        required(&source.claim_name, &path.child("persistentVolumeClaim").child("claimName"), errs);
    }
}

fn required(text: &str, path: &FieldPath, errs: &mut FieldErrors) {
    if text.is_empty() {
        errs.required(path, "");
    }
}

fn validate_mode(mode: Option<i32>, path: &FieldPath, errs: &mut FieldErrors) {
    if let Some(mode) = mode.filter(|m| !(0..=0o777).contains(m)) {
        errs.invalid(path, mode, "must be a number between 0 and 0777 (octal), both inclusive");
    }
}

fn validate_items(items: Option<&[KeyToPath]>, default_mode: Option<i32>, path: &FieldPath, errs: &mut FieldErrors) {
    validate_mode(default_mode, &path.child("defaultMode"), errs);
    for (i, item) in items.into_iter().flatten().enumerate() {
        let at = path.child("items").index(i);
        required(&item.key, &at.child("key"), errs);
        validate_file_path(&item.path, &at.child("path"), errs);
        validate_mode(item.mode, &at.child("mode"), errs);
    }
}

fn validate_file_path(text: &str, path: &FieldPath, errs: &mut FieldErrors) {
    required(text, path, errs);
    validate_descending_path(text, path, errs);
    // `..data` and the like are how a node replaces all files of a volume at once.
    if text.starts_with("..") && !text.starts_with("../") && text != ".." {
        errs.invalid(path, text, "must not start with '..'");
    }
}

fn validate_host_path(host_path: &str, kind: Option<&str>, path: &FieldPath, errs: &mut FieldErrors) {
    required(host_path, &path.child("path"), errs);
    if host_path.split('/').any(|part| part == "..") {
        errs.invalid(&path.child("path"), host_path, "must not contain '..'");
    }
    let supported =
        ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];
    if let Some(kind) = kind.filter(|k| !supported.contains(k)) {
        errs.not_supported(&path.child("type"), kind, &supported);
    }
}

fn validate_files(files: Option<&[DownwardAPIVolumeFile]>, path: &FieldPath, errs: &mut FieldErrors) {
    for (i, file) in files.into_iter().flatten().enumerate() {
        let at = path.child("items").index(i);
        validate_file_path(&file.path, &at.child("path"), errs);
        match (&file.field_ref, &file.resource_field_ref) {
            (Some(_), Some(_)) => {
                errs.invalid(&at, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously");
            }
            (Some(field), None) => validate_field_ref(field, FILE_FIELDS, &at.child("fieldRef"), errs),
            (None, Some(resource)) => validate_resource_ref(resource, true, &at.child("resourceFieldRef"), errs),
            (None, None) => errs.required(&at, "one of fieldRef and resourceFieldRef is required"),
        }
        validate_mode(file.mode, &at.child("mode"), errs);
    }
}

fn validate_projected(projected: &ProjectedVolumeSource, path: &FieldPath, errs: &mut FieldErrors) {
    validate_mode(projected.default_mode, &path.child("defaultMode"), errs);
    for (i, source) in projected.sources.iter().flatten().enumerate() {
        let at = path.child("sources").index(i);
        if let Some(secret) = &source.secret {
            required(&secret.name, &at.child("secret").child("name"), errs);
            validate_items(secret.items.as_deref(), None, &at.child("secret"), errs);
        }
        if let Some(map) = &source.config_map {
            required(&map.name, &at.child("configMap").child("name"), errs);
            validate_items(map.items.as_deref(), None, &at.child("configMap"), errs);
        }
        if let Some(files) = &source.downward_api {
            validate_files(files.items.as_deref(), &at.child("downwardAPI"), errs);
        }
        if let Some(token) = &source.service_account_token {
            required(&token.path, &at.child("serviceAccountToken").child("path"), errs);
        }
    }
}
