//! PersistentVolume: a volume that is there.
//!
//! # Source
//! Kubernetes `pkg/apis/core/validation/validation.go` (`ValidatePersistentVolume*`),
//! `pkg/printers/internalversion/printers.go` (`printPersistentVolume`).

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeSpec, PersistentVolumeStatus, VolumeNodeAffinity};
use serde_json::Value;

use super::{VOLUME_MODES, claim::CLASS_ANNOTATION, short_modes, validate_modes};
use crate::{
    field::{FieldErrors, FieldPath},
    kind::{Cell, Column, Kind, Names, Scope, Sub},
    kinds::pod,
    names,
    quantity::Quantity,
};

const RECLAIM_POLICIES: [&str; 3] = ["Delete", "Recycle", "Retain"];
/// The fields that say what a volume is, in the order in which they are judged; exactly one of them is set.
const SOURCES: [&str; 22] = [
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "glusterfs",
    "flocker",
    "nfs",
    "rbd",
    "quobyte",
    "cephfs",
    "iscsi",
    "cinder",
    "fc",
    "flexVolume",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "scaleIO",
    "local",
    "storageos",
    "csi",
];
/// Labels of nodes, with the names that they got for good.
const FINAL_LABELS: [(&str, &str); 5] = [
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
    ("beta.kubernetes.io/os", "kubernetes.io/os"),
    ("beta.kubernetes.io/arch", "kubernetes.io/arch"),
    ("beta.kubernetes.io/instance-type", "node.kubernetes.io/instance-type"),
];

impl Kind for PersistentVolume {
    const NAMES: Names =
        Names::new("", "v1", "PersistentVolume", "persistentvolumes", "persistentvolume").short(&["pv"]);
    const SCOPE: Scope = Scope::Cluster;
    const RETURNS_DELETED: bool = true;
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

    crate::kind::status_kept!();

    fn validate(&self, errs: &mut FieldErrors) {
        let default = PersistentVolumeSpec::default();
        let name = self.metadata.name.as_deref().unwrap_or_default();
        validate_spec(self.spec.as_ref().unwrap_or(&default), name, &FieldPath::new("spec"), errs);
    }

    fn validate_update(&self, old: &Self, errs: &mut FieldErrors) {
        let path = FieldPath::new("spec");
        let (Some(new), Some(old)) = (&self.spec, &old.spec) else { return };
        let (now, had) = (source(new), source(old));
        if without_first_secret(now, &had) != had {
            errs.forbidden(
                &path.child("persistentvolumesource"),
                "spec.persistentvolumesource is immutable after creation",
            );
        }
        errs.immutable(&FieldPath::new("volumeMode"), &new.volume_mode, &old.volume_mode);
        if old.node_affinity.is_some() && !same_nodes(new, old) {
            let shown = serde_json::to_value(&new.node_affinity).unwrap_or_default();
            let detail = "field is immutable, except for updating from beta label to GA";
            errs.invalid(&FieldPath::new("nodeAffinity"), shown, detail);
        }
        if old.volume_attributes_class_name.is_some() && new.volume_attributes_class_name.is_none() {
            let at = path.child("volumeAttributesClassName");
            errs.forbidden(&at, "update from non-nil value to nil is forbidden");
        }
    }
}

/// The secret by which a volume is made larger may come later.
fn without_first_secret(mut new: Sources, old: &Sources) -> Sources {
    let secret = "controllerExpandSecretRef";
    let had = old.iter().find(|(name, _)| *name == "csi").is_some_and(|(_, csi)| csi.get(secret).is_some());
    if let Some((_, Value::Object(csi))) = new.iter_mut().find(|(name, _)| *name == "csi").filter(|_| !had) {
        csi.remove(secret);
    }
    new
}

/// Whether two volumes are for the same nodes, where labels of nodes may have got their final names.
fn same_nodes(new: &PersistentVolumeSpec, old: &PersistentVolumeSpec) -> bool {
    let mut old = old.node_affinity.clone();
    let terms = |affinity: &Option<VolumeNodeAffinity>| {
        affinity.as_ref().and_then(|a| a.required.as_ref()).map(|r| r.node_selector_terms.clone()).unwrap_or_default()
    };
    let new_terms = terms(&new.node_affinity);
    let old_terms = old.as_mut().and_then(|a| a.required.as_mut()).map(|r| r.node_selector_terms.as_mut_slice());
    for (old, new) in old_terms.unwrap_or_default().iter_mut().zip(&new_terms) {
        let (had, now) = (old.match_expressions.iter_mut().flatten(), new.match_expressions.iter().flatten());
        for (had, now) in had.zip(now) {
            if FINAL_LABELS.iter().any(|(beta, last)| *beta == had.key && *last == now.key) {
                had.key.clone_from(&now.key);
            }
        }
    }
    new.node_affinity == old
}

fn validate_spec(spec: &PersistentVolumeSpec, name: &str, path: &FieldPath, errs: &mut FieldErrors) {
    let modes = spec.access_modes.as_deref().unwrap_or_default();
    if modes.is_empty() {
        errs.required(&path.child("accessModes"), "");
    }
    validate_modes(modes, &path.child("accessModes"), errs);
    validate_capacity(spec, &path.child("capacity"), errs);
    let policy = spec.persistent_volume_reclaim_policy.as_deref().filter(|p| !p.is_empty());
    if let Some(policy) = policy.filter(|p| !RECLAIM_POLICIES.contains(p)) {
        errs.not_supported(&path.child("persistentVolumeReclaimPolicy"), policy, &RECLAIM_POLICIES);
    }
    if let Some(affinity) = &spec.node_affinity {
        let at = path.child("nodeAffinity").child("required");
        match &affinity.required {
            None => errs.required(&at, "must specify required node constraints"),
            Some(selector) => pod::validate_node_selector(selector, &at, errs),
        }
    }
    validate_sources(spec, name, path, errs);
    let root = spec.host_path.as_ref().is_some_and(|p| p.path.starts_with('/') && p.path.trim_matches('/').is_empty());
    if root && policy == Some("Recycle") {
        let detail = "may not be 'recycle' for a hostPath mount of '/'";
        errs.forbidden(&path.child("persistentVolumeReclaimPolicy"), detail);
    }
    if let Some(class) = spec.storage_class_name.as_deref().filter(|c| !c.is_empty()) {
        errs.invalid_each(&path.child("storageClassName"), class, names::is_dns1123_subdomain(class));
    }
    if let Some(mode) = spec.volume_mode.as_deref().filter(|m| !VOLUME_MODES.contains(m)) {
        errs.not_supported(&path.child("volumeMode"), mode, &VOLUME_MODES);
    }
    if let Some(class) = spec.volume_attributes_class_name.as_deref() {
        let at = path.child("volumeAttributesClassName");
        match class {
            "" => errs.required(&at, "an empty string is disallowed"),
            class => errs.invalid_each(&at, class, names::is_dns1123_subdomain(class)),
        }
        if spec.csi.is_none() {
            errs.required(&path.child("csi"), "has to be specified when using volumeAttributesClassName");
        }
    }
}

fn validate_capacity(spec: &PersistentVolumeSpec, path: &FieldPath, errs: &mut FieldErrors) {
    let capacity = spec.capacity.clone().unwrap_or_default();
    if capacity.is_empty() {
        errs.required(path, "");
    }
    if capacity.len() > 1 || !capacity.contains_key("storage") {
        errs.not_supported_value(path, serde_json::to_value(&capacity).unwrap_or_default(), &["storage"]);
    }
    for (name, amount) in &capacity {
        let at = path.key(name);
        if let Ok(read) = amount.0.parse::<Quantity>() {
            if read.is_negative() {
                errs.invalid(&at, read.value(), "must be a valid resource quantity");
            }
            if read.is_negative() || read.is_zero() {
                errs.invalid(&at, read.to_string(), "must be greater than zero");
            }
        } else {
            pod::validate_quantity(amount, &at, errs);
        }
    }
}

fn validate_sources(spec: &PersistentVolumeSpec, name: &str, path: &FieldPath, errs: &mut FieldErrors) {
    let given = source(spec);
    let Some(((first, tree), more)) = given.split_first() else {
        return errs.required(path, "must specify a volume type");
    };
    pod::validate_volume_source(first, tree, pod::Given::Persistent(name), path, errs);
    if *first == "local" && spec.node_affinity.is_none() {
        errs.required(&path.child("nodeAffinity"), "Local volume requires node affinity");
    }
    for (field, _) in more {
        errs.forbidden(&path.child(field), "may not specify more than 1 volume type");
    }
}

type Sources = Vec<(&'static str, Value)>;

/// The fields that say what the volume is, of which there should be one.
fn source(spec: &PersistentVolumeSpec) -> Sources {
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
