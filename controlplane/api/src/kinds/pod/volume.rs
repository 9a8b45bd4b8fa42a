//! Validation of a pod's volumes: what each one is, and that it is one thing only.
//!
//! The types that pods share with PersistentVolumes are judged in [`super::volume_source`].
//!
//! # Source
//! Kubernetes `pkg/apis/core/validation/validation.go`, `ValidateVolumes`, `validateVolumeSource`.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{
    ClusterTrustBundleProjection, DownwardAPIVolumeFile, KeyToPath, ProjectedVolumeSource,
    ServiceAccountTokenProjection, Volume,
};

use super::{
    container::{validate_descending_path, validate_pull_policy},
    env::{validate_field_ref, validate_resource_ref},
    spec::Of,
    volume_source::{self, Given},
};
use crate::{
    field::{FieldErrors, FieldPath},
    kinds::{label_selector, storage},
    meta, names,
    quantity::Quantity,
};

const FILE_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
const TOKEN_SECONDS_MIN: i64 = 10 * 60;
const TOKEN_SECONDS_MAX: i64 = 1 << 32;

/// Checks all volumes; those that are right can be mounted.
pub(super) fn validate_all<'a>(
    volumes: &'a [Volume],
    of: Of<'_>,
    path: &FieldPath,
    errs: &mut FieldErrors,
) -> BTreeMap<&'a str, &'a Volume> {
    let mut known = BTreeMap::new();
    for (i, volume) in volumes.iter().enumerate() {
        let at = path.index(i);
        let before = errs.0.len();
        validate(volume, of, &at, errs);
        let name = volume.name.as_str();
        if name.is_empty() {
            errs.required(&at.child("name"), "");
        } else {
            errs.invalid_each(&at.child("name"), name, names::is_dns1123_label(name));
        }
        if known.contains_key(name) {
            errs.duplicate(&at.child("name"), name);
        }
        if errs.0.len() == before {
            known.insert(name, volume);
        }
        validate_not_made(volume, volumes, of, &at, errs);
    }
    known
}

/// A claim that is made for a volume of this very pod is not there yet.
fn validate_not_made(volume: &Volume, all: &[Volume], of: Of<'_>, path: &FieldPath, errs: &mut FieldErrors) {
    let (Some(claim), Of::Pod(pod)) = (&volume.persistent_volume_claim, of) else { return };
    let mut made = all.iter().filter(|v| v.ephemeral.is_some() && !pod.is_empty());
    if made.any(|v| claim.claim_name == format!("{pod}-{}", v.name)) {
        let detail = "must not reference a PVC that gets created for an ephemeral volume";
        errs.invalid(&path.child("persistentVolumeClaim").child("claimName"), claim.claim_name.as_str(), detail);
    }
}

/// The fields that say what a volume is, of which there should be one, in the order in which they are judged.
pub(super) fn sources(volume: &Volume) -> Vec<&'static str> {
    let given = [
        ("emptyDir", volume.empty_dir.is_some()),
        ("hostPath", volume.host_path.is_some()),
        ("gitRepo", volume.git_repo.is_some()),
        ("gcePersistentDisk", volume.gce_persistent_disk.is_some()),
        ("awsElasticBlockStore", volume.aws_elastic_block_store.is_some()),
        ("secret", volume.secret.is_some()),
        ("nfs", volume.nfs.is_some()),
        ("iscsi", volume.iscsi.is_some()),
        ("glusterfs", volume.glusterfs.is_some()),
        ("flocker", volume.flocker.is_some()),
        ("persistentVolumeClaim", volume.persistent_volume_claim.is_some()),
        ("rbd", volume.rbd.is_some()),
        ("cinder", volume.cinder.is_some()),
        ("cephfs", volume.cephfs.is_some()),
        ("quobyte", volume.quobyte.is_some()),
        ("downwardAPI", volume.downward_api.is_some()),
        ("fc", volume.fc.is_some()),
        ("flexVolume", volume.flex_volume.is_some()),
        ("configMap", volume.config_map.is_some()),
        ("azureFile", volume.azure_file.is_some()),
        ("vsphereVolume", volume.vsphere_volume.is_some()),
        ("photonPersistentDisk", volume.photon_persistent_disk.is_some()),
        ("portworxVolume", volume.portworx_volume.is_some()),
        ("azureDisk", volume.azure_disk.is_some()),
        ("storageos", volume.storageos.is_some()),
        ("projected", volume.projected.is_some()),
        ("scaleIO", volume.scale_io.is_some()),
        ("csi", volume.csi.is_some()),
        ("ephemeral", volume.ephemeral.is_some()),
        ("image", volume.image.is_some()),
    ];
    given.into_iter().filter(|(_, given)| *given).map(|(name, _)| name).collect()
}

fn validate(volume: &Volume, of: Of<'_>, path: &FieldPath, errs: &mut FieldErrors) {
    let given = sources(volume);
    let Some((first, more)) = given.split_first() else {
        return errs.required(path, "must specify a volume type");
    };
    validate_source(first, volume, of, path, errs);
    for field in more {
        errs.forbidden(&path.child(volume_source::name_in_errors(field)), "may not specify more than 1 volume type");
    }
}

fn validate_source(field: &str, volume: &Volume, of: Of<'_>, path: &FieldPath, errs: &mut FieldErrors) {
    let at = path.child(field);
    match field {
        "emptyDir" => {
            let limit = volume.empty_dir.as_ref().and_then(|e| e.size_limit.as_ref());
            if limit.is_some_and(|l| l.0.parse::<Quantity>().map_or(true, |q| q.is_negative())) {
                errs.forbidden(&at.child("sizeLimit"), "SizeLimit field must be a valid resource quantity");
            }
        }
        "configMap" => {
            let source = volume.config_map.clone().unwrap_or_default();
            required(&source.name, &at.child("name"), errs);
            validate_mode(source.default_mode, &at.child("defaultMode"), errs);
            validate_items(source.items.as_deref(), &at, errs);
        }
        "secret" => {
            let source = volume.secret.clone().unwrap_or_default();
            required(source.secret_name.as_deref().unwrap_or_default(), &at.child("secretName"), errs);
            validate_mode(source.default_mode, &at.child("defaultMode"), errs);
            validate_items(source.items.as_deref(), &at, errs);
        }
        "downwardAPI" => {
            let source = volume.downward_api.clone().unwrap_or_default();
            validate_mode(source.default_mode, &at.child("defaultMode"), errs);
            validate_files(source.items.as_deref(), &at, errs);
        }
        "projected" => validate_projected(&volume.projected.clone().unwrap_or_default(), &at, errs),
        "persistentVolumeClaim" => {
            let claim = volume.persistent_volume_claim.as_ref().map_or("", |c| c.claim_name.as_str());
            required(claim, &at.child("claimName"), errs);
        }
        "ephemeral" => validate_ephemeral(volume, of, path, errs),
        "image" => {
            let source = volume.image.clone().unwrap_or_default();
            if of != Of::Template {
                required(source.reference.as_deref().unwrap_or_default(), &at.child("reference"), errs);
            }
            validate_pull_policy(source.pull_policy.as_deref(), &at.child("pullPolicy"), errs);
        }
        _ => {
            // The types that few use are judged as trees, which they and those of PersistentVolumes look alike in.
            let tree = serde_json::to_value(volume).unwrap_or_default();
            volume_source::validate(field, &tree[field], Given::InPod(&volume.name), path, errs);
        }
    }
}

fn validate_ephemeral(volume: &Volume, of: Of<'_>, path: &FieldPath, errs: &mut FieldErrors) {
    let at = path.child("ephemeral").child("volumeClaimTemplate");
    match volume.ephemeral.as_ref().and_then(|e| e.volume_claim_template.as_ref()) {
        None => errs.required(&at, ""),
        Some(template) => {
            let of = template.metadata.as_ref();
            let path = at.child("metadata");
            meta::validate_annotations(of.and_then(|m| m.annotations.as_ref()), &path.child("annotations"), errs);
            meta::validate_labels(of.and_then(|m| m.labels.as_ref()), &path.child("labels"), errs);
            let tree = serde_json::to_value(of).unwrap_or_default();
            let fields = tree.as_object().into_iter().flatten().map(|(field, _)| field.as_str());
            for field in fields.filter(|f| !matches!(*f, "annotations" | "labels")) {
                errs.forbidden(&path.child(field), "cannot be set");
            }
            storage::validate_claim_spec(&template.spec, &at.child("spec"), errs);
        }
    }
    if let Of::Pod(pod) = of
        && !pod.is_empty()
        && !volume.name.is_empty()
    {
        let claim = format!("{pod}-{}", volume.name);
        for message in names::is_dns1123_subdomain(&claim) {
            errs.invalid(&path.child("name"), volume.name.as_str(), &format!("PVC name {claim:?}: {message}"));
        }
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

fn validate_items(items: Option<&[KeyToPath]>, path: &FieldPath, errs: &mut FieldErrors) {
    for (i, item) in items.into_iter().flatten().enumerate() {
        let at = path.child("items").index(i);
        required(&item.key, &at.child("key"), errs);
        required(&item.path, &at.child("path"), errs);
        validate_file_path(&item.path, &at.child("path"), errs);
        validate_mode(item.mode, &at.child("mode"), errs);
    }
}

fn validate_file_path(text: &str, path: &FieldPath, errs: &mut FieldErrors) {
    validate_descending_path(text, path, errs);
    // `..data` and the like are how a node replaces all files of a volume at once.
    if text.starts_with("..") && !text.starts_with("../") {
        errs.invalid(path, text, "must not start with '..'");
    }
}

/// Which file is wrong is not said, as Kubernetes does not.
fn validate_files(files: Option<&[DownwardAPIVolumeFile]>, path: &FieldPath, errs: &mut FieldErrors) {
    for file in files.into_iter().flatten() {
        required(&file.path, &path.child("path"), errs);
        validate_file_path(&file.path, &path.child("path"), errs);
        match (&file.field_ref, &file.resource_field_ref) {
            (Some(field), other) => {
                validate_field_ref(field, FILE_FIELDS, &path.child("fieldRef"), errs);
                if other.is_some() {
                    let detail = "fieldRef and resourceFieldRef can not be specified simultaneously";
                    errs.invalid(path, "resource", detail);
                }
            }
            (None, Some(resource)) => validate_resource_ref(resource, true, &path.child("resourceFieldRef"), errs),
            (None, None) => errs.required(path, "one of fieldRef and resourceFieldRef is required"),
        }
        validate_mode(file.mode, &path.child("mode"), errs);
    }
}

fn validate_projected(projected: &ProjectedVolumeSource, path: &FieldPath, errs: &mut FieldErrors) {
    validate_mode(projected.default_mode, &path.child("defaultMode"), errs);
    let mut places = BTreeSet::new();
    let mut place = |text: &str, shown: &str, errs: &mut FieldErrors| {
        if !text.is_empty() && !places.insert(text.to_owned()) {
            errs.invalid(path, shown, "conflicting duplicate paths");
        }
    };
    for (i, source) in projected.sources.iter().flatten().enumerate() {
        let at = path.child("sources").index(i);
        let lists = [
            ("secret", source.secret.as_ref().map(|s| (&s.name, s.items.as_deref()))),
            ("configMap", source.config_map.as_ref().map(|m| (&m.name, m.items.as_deref()))),
        ];
        for (field, list) in lists {
            let Some((name, items)) = list else { continue };
            required(name, &at.child(field).child("name"), errs);
            validate_items(items, &at.child(field), errs);
            items.into_iter().flatten().for_each(|item| place(&item.path, name, errs));
        }
        if let Some(files) = &source.downward_api {
            validate_files(files.items.as_deref(), &at.child("downwardAPI"), errs);
            files.items.iter().flatten().for_each(|file| place(&file.path, &file.path, errs));
        }
        if let Some(token) = &source.service_account_token {
            validate_token(token, path, &at.child("serviceAccountToken"), errs);
        }
        if let Some(bundle) = &source.cluster_trust_bundle {
            validate_bundle(bundle, &at.child("clusterTrustBundle"), errs);
            place(&bundle.path, &bundle.path, errs);
        }
        let given = [
            source.secret.is_some(),
            source.config_map.is_some(),
            source.downward_api.is_some(),
            source.service_account_token.is_some(),
            source.cluster_trust_bundle.is_some(),
            source.pod_certificate.is_some(),
        ];
        if given.iter().filter(|given| **given).count() > 1 {
            errs.forbidden(&at, "may not specify more than 1 volume type per source");
        }
    }
}

/// What is wrong with its path is said of the volume's, as Kubernetes does.
fn validate_token(token: &ServiceAccountTokenProjection, volume: &FieldPath, path: &FieldPath, errs: &mut FieldErrors) {
    let seconds = token.expiration_seconds.unwrap_or_default();
    let at = path.child("expirationSeconds");
    if seconds < TOKEN_SECONDS_MIN {
        errs.invalid(&at, seconds, "may not specify a duration less than 10 minutes");
    }
    if seconds > TOKEN_SECONDS_MAX {
        errs.invalid(&at, seconds, "may not specify a duration larger than 2^32 seconds");
    }
    required(&token.path, &volume.child("path"), errs);
    validate_file_path(&token.path, &volume.child("path"), errs);
}

fn validate_bundle(bundle: &ClusterTrustBundleProjection, path: &FieldPath, errs: &mut FieldErrors) {
    match (bundle.name.as_deref(), bundle.signer_name.as_deref()) {
        (Some(_), Some(_)) => {
            let shown = serde_json::to_value(bundle).unwrap_or_default();
            errs.invalid(path, shown, "only one of name and signerName may be used");
        }
        (Some(name), None) => {
            if name.is_empty() {
                errs.required(&path.child("name"), "must be a valid object name");
            }
            // Bundles of a signer are called `signer:name`, with colons for slashes.
            let own = name.rsplit(':').next().unwrap_or_default();
            for message in names::is_dns1123_subdomain(own) {
                let detail = format!("not a valid clustertrustbundlename: {message}");
                errs.invalid(&path.child("name"), name, &detail);
            }
            if let Some(selector) = &bundle.label_selector {
                let shown = serde_json::to_value(selector).unwrap_or_default();
                errs.invalid(&path.child("labelSelector"), shown, "labelSelector must be unset if name is specified");
            }
        }
        (None, Some(signer)) => {
            if signer.is_empty() {
                errs.required(&path.child("signerName"), "must be a valid signer name");
            }
            if let Some(selector) = &bundle.label_selector {
                label_selector::validate(selector, &path.child("labelSelector"), errs);
            }
        }
        (None, None) => errs.required(path, "either name or signerName must be specified"),
    }
    required(&bundle.path, &path.child("path"), errs);
    validate_file_path(&bundle.path, &path.child("path"), errs);
}
