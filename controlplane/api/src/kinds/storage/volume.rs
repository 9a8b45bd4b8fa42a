//! PersistentVolume: a volume that is there.
//!
//! # Source
//! Kubernetes `pkg/apis/core/validation/validation.go` (`ValidatePersistentVolume*`),
//! `pkg/printers/internalversion/printers.go` (`printPersistentVolume`).

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeSpec, PersistentVolumeStatus};
use serde_json::Value;

use super::{ACCESS_MODES, VOLUME_MODES, claim::CLASS_ANNOTATION, short_modes};
use crate::{
    field::{FieldErrors, FieldPath},
    kind::{Cell, Column, Kind, Names, Scope, Sub},
    kinds::pod::validate_quantity,
    names,
};

const RECLAIM_POLICIES: [&str; 3] = ["Delete", "Recycle", "Retain"];
/// The fields that say what a volume is; exactly one of them is set.
const SOURCES: [&str; 22] = [
    "awsElasticBlockStore",
    "azureDisk",
    "azureFile",
    "cephfs",
    "cinder",
    "csi",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "glusterfs",
    "hostPath",
    "iscsi",
    "local",
    "nfs",
    "photonPersistentDisk",
    "portworxVolume",
    "quobyte",
    "rbd",
    "scaleIO",
    "storageos",
    "vsphereVolume",
];

impl Kind for PersistentVolume {
    const NAMES: Names =
        Names::new("", "v1", "PersistentVolume", "persistentvolumes", "persistentvolume").short(&["pv"]);
    const SCOPE: Scope = Scope::Cluster;
    const SUBRESOURCES: &'static [Sub<Self>] = &[Sub::STATUS];
    const COLUMNS: &'static [Column<Self>] = &[
        Column::NAME,
        Column::<Self>::text("Capacity", |v, _| {
            let capacity = spec(v).and_then(|s| s.capacity.as_ref()).and_then(|c| c.get("storage"));
            Cell::from(capacity.map(|q| q.0.clone()).unwrap_or_default())
        })
        .field::<PersistentVolumeSpec>("capacity"),
        Column::<Self>::text("Access Modes", |v, _| {
            Cell::from(short_modes(spec(v).and_then(|s| s.access_modes.as_ref())))
        })
        .field::<PersistentVolumeSpec>("accessModes"),
        Column::<Self>::text("Reclaim Policy", |v, _| {
            Cell::from(spec(v).and_then(|s| s.persistent_volume_reclaim_policy.clone()).unwrap_or_default())
        })
        .field::<PersistentVolumeSpec>("persistentVolumeReclaimPolicy"),
        Column::<Self>::text("Status", |v, _| Cell::from(phase(v))).field::<PersistentVolumeStatus>("phase"),
        Column::<Self>::text("Claim", |v, _| Cell::from(claim(v))).field::<PersistentVolumeSpec>("claimRef"),
        Column::<Self>::text("StorageClass", |v, _| Cell::from(class(v))).help("StorageClass of the pv"),
        Column::<Self>::text("VolumeAttributesClass", |v, _| {
            let class = spec(v).and_then(|s| s.volume_attributes_class_name.clone());
            Cell::from(class.unwrap_or_else(|| "<unset>".to_owned()))
        })
        .help("VolumeAttributesClass of the pv"),
        Column::<Self>::text("Reason", |v, _| {
            Cell::from(v.status.as_ref().and_then(|s| s.reason.clone()).unwrap_or_default())
        })
        .field::<PersistentVolumeStatus>("reason"),
        Column::AGE,
        Column::<Self>::wide_text("VolumeMode", |v, _| {
            Cell::from(spec(v).and_then(|s| s.volume_mode.clone()).unwrap_or_else(|| "<unset>".to_owned()))
        })
        .field::<PersistentVolumeSpec>("volumeMode"),
    ];

    fn fill_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        spec.persistent_volume_reclaim_policy.get_or_insert_with(|| "Retain".to_owned());
        spec.volume_mode.get_or_insert_with(|| "Filesystem".to_owned());
        if let Some(path) = &mut spec.host_path {
            path.type_.get_or_insert_with(String::new);
        }
        self.status.get_or_insert_default().phase.get_or_insert_with(|| "Pending".to_owned());
    }

    fn prepare_create(&mut self) {
        let pending = Some("Pending".to_owned());
        self.status = Some(PersistentVolumeStatus { phase: pending, ..PersistentVolumeStatus::default() });
    }

    fn prepare_update(&mut self, old: &Self) {
        self.status.clone_from(&old.status);
    }

    fn prepare_status_update(&mut self, old: &Self) {
        self.spec.clone_from(&old.spec);
    }

    fn validate(&self, errs: &mut FieldErrors) {
        let default = PersistentVolumeSpec::default();
        validate_spec(self.spec.as_ref().unwrap_or(&default), &FieldPath::new("spec"), errs);
    }

    fn validate_update(&self, old: &Self, errs: &mut FieldErrors) {
        let path = FieldPath::new("spec");
        let (Some(new), Some(old)) = (&self.spec, &old.spec) else { return };
        if source(new) != source(old) {
            errs.forbidden(
                &path.child("persistentvolumesource"),
                "spec.persistentvolumesource is immutable after creation",
            );
        }
        errs.immutable(&path.child("volumeMode"), &new.volume_mode, &old.volume_mode);
    }
}

fn validate_spec(spec: &PersistentVolumeSpec, path: &FieldPath, errs: &mut FieldErrors) {
    let at = path.child("accessModes");
    let modes = spec.access_modes.as_deref().unwrap_or_default();
    if modes.is_empty() {
        errs.required(&at, "");
    }
    for mode in modes.iter().filter(|m| !ACCESS_MODES.contains(&m.as_str())) {
        errs.not_supported(&at, mode, &ACCESS_MODES);
    }
    if modes.len() > 1 && modes.iter().any(|m| m == "ReadWriteOncePod") {
        errs.forbidden(&at, "may not use ReadWriteOncePod with other access modes");
    }
    let at = path.child("capacity");
    match &spec.capacity {
        None => errs.required(&at, ""),
        Some(capacity) if capacity.is_empty() => errs.required(&at, ""),
        Some(capacity) => {
            if capacity.len() > 1 || !capacity.contains_key("storage") {
                errs.not_supported(&at, &capacity.keys().cloned().collect::<Vec<_>>().join(","), &["storage"]);
            }
            for (name, amount) in capacity {
                validate_quantity(amount, &at.key(name), errs);
            }
        }
    }
    if let Some(policy) = spec.persistent_volume_reclaim_policy.as_deref().filter(|p| !RECLAIM_POLICIES.contains(p)) {
        errs.not_supported(&path.child("persistentVolumeReclaimPolicy"), policy, &RECLAIM_POLICIES);
    }
    if let Some(mode) = spec.volume_mode.as_deref().filter(|m| !VOLUME_MODES.contains(m)) {
        errs.not_supported(&path.child("volumeMode"), mode, &VOLUME_MODES);
    }
    if let Some(class) = spec.storage_class_name.as_deref().filter(|c| !c.is_empty()) {
        errs.invalid_each(&path.child("storageClassName"), class, names::is_dns1123_subdomain(class));
    }
    match source(spec).len() {
        0 => errs.required(path, "must specify a volume type"),
        1 => {}
        _ => errs.forbidden(path, "may not specify more than 1 volume type"),
    }
    if spec.local.is_some() && spec.node_affinity.is_none() {
        errs.required(&path.child("nodeAffinity"), "Local volume requires node affinity");
    }
}

/// The fields that say what the volume is.
fn source(spec: &PersistentVolumeSpec) -> Vec<(&'static str, Value)> {
    let tree = serde_json::to_value(spec).unwrap_or_default();
    SOURCES.iter().filter_map(|name| Some((*name, tree.get(*name)?.clone()))).collect()
}

fn spec(volume: &PersistentVolume) -> Option<&PersistentVolumeSpec> {
    volume.spec.as_ref()
}

fn phase(volume: &PersistentVolume) -> String {
    match &volume.metadata.deletion_timestamp {
        Some(_) => "Terminating".to_owned(),
        None => volume.status.as_ref().and_then(|s| s.phase.clone()).unwrap_or_default(),
    }
}

fn claim(volume: &PersistentVolume) -> String {
    let Some(claim) = spec(volume).and_then(|s| s.claim_ref.as_ref()) else { return String::new() };
    let text = |t: &Option<String>| t.clone().unwrap_or_default();
    format!("{}/{}", text(&claim.namespace), text(&claim.name))
}

fn class(volume: &PersistentVolume) -> String {
    let old = volume.metadata.annotations.as_ref().and_then(|a| a.get(CLASS_ANNOTATION));
    old.or(spec(volume).and_then(|s| s.storage_class_name.as_ref())).cloned().unwrap_or_default()
}
