//! StorageClass and VolumeAttributesClass: kinds of volumes that are made when they are asked for.
//!
//! # Source
//! Kubernetes `pkg/apis/storage/validation/validation.go`, `pkg/apis/storage/v1/defaults.go`,
//! `pkg/printers/internalversion/printers.go` (`printStorageClass`).

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::{
    core::v1::TopologySelectorTerm,
    storage::v1::{StorageClass, VolumeAttributesClass},
};

use crate::{
    field::{FieldErrors, FieldPath},
    kind::{Cell, Column, Kind, Names, Scope},
    names,
};

const PARAMETERS_MAX: usize = 512;
const PARAMETER_BYTES_MAX: usize = 256 * 1024;
const DEFAULT: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

impl Kind for StorageClass {
    const NAMES: Names =
        Names::new("storage.k8s.io", "v1", "StorageClass", "storageclasses", "storageclass").short(&["sc"]);
    const SCOPE: Scope = Scope::Cluster;
    const RETURNS_DELETED: bool = true;
    const COLUMNS: &'static [Column<Self>] = &[
        Column::<Self>::text("Name", |c, _| Cell::from(name(c))).object_name(),
        Column::<Self>::text("Provisioner", |c, _| Cell::from(c.provisioner.as_str()))
            .field::<StorageClass>("provisioner"),
        Column::<Self>::text("ReclaimPolicy", |c, _| Cell::from(c.reclaim_policy.as_deref().unwrap_or("Delete")))
            .field::<StorageClass>("reclaimPolicy"),
        Column::<Self>::text("VolumeBindingMode", |c, _| {
            Cell::from(c.volume_binding_mode.as_deref().unwrap_or("Immediate"))
        })
        .field::<StorageClass>("volumeBindingMode"),
        Column::<Self>::text("AllowVolumeExpansion", |c, _| Cell::from(c.allow_volume_expansion.unwrap_or(false)))
            .field::<StorageClass>("allowVolumeExpansion"),
        Column::AGE,
    ];

    fn fill_defaults(&mut self) {
        self.reclaim_policy.get_or_insert_with(|| "Delete".to_owned());
        self.volume_binding_mode.get_or_insert_with(|| "Immediate".to_owned());
    }

    fn validate(&self, errs: &mut FieldErrors) {
        let path = FieldPath::new("provisioner");
        if self.provisioner.is_empty() {
            errs.required(&path, "");
        } else {
            errs.invalid_each(&path, &self.provisioner, names::is_qualified_name(&self.provisioner.to_lowercase()));
        }
        validate_parameters(self.parameters.as_ref(), &FieldPath::new("parameters"), true, errs);
        if let Some(policy) = self.reclaim_policy.as_deref().filter(|p| !matches!(*p, "Delete" | "Retain")) {
            errs.not_supported(&FieldPath::new("reclaimPolicy"), policy, &["Delete", "Retain"]);
        }
        let path = FieldPath::new("volumeBindingMode");
        match self.volume_binding_mode.as_deref() {
            None => errs.required(&path, ""),
            Some("Immediate" | "WaitForFirstConsumer") => {}
            Some(other) => errs.not_supported(&path, other, &["Immediate", "WaitForFirstConsumer"]),
        }
        let terms = self.allowed_topologies.as_deref().unwrap_or_default();
        for (i, term) in terms.iter().enumerate() {
            let path = FieldPath::new("allowedTopologies").index(i).child("matchLabelExpressions");
            validate_topology(term, &path, errs);
            for _ in terms[..i].iter().filter(|other| meaning(other) == meaning(term)) {
                errs.duplicate(&path, "");
            }
        }
    }

    fn validate_update(&self, old: &Self, errs: &mut FieldErrors) {
        if self.parameters != old.parameters {
            errs.forbidden(&FieldPath::new("parameters"), "updates to parameters are forbidden.");
        }
        if self.provisioner != old.provisioner {
            errs.forbidden(&FieldPath::new("provisioner"), "updates to provisioner are forbidden.");
        }
        if self.reclaim_policy != old.reclaim_policy {
            errs.forbidden(&FieldPath::new("reclaimPolicy"), "updates to reclaimPolicy are forbidden.");
        }
        errs.immutable(&FieldPath::new("volumeBindingMode"), &self.volume_binding_mode, &old.volume_binding_mode);
    }
}

impl Kind for VolumeAttributesClass {
    const NAMES: Names =
        Names::new("storage.k8s.io", "v1", "VolumeAttributesClass", "volumeattributesclasses", "volumeattributesclass")
            .short(&["vac"]);
    const SCOPE: Scope = Scope::Cluster;
    const RETURNS_DELETED: bool = true;
    const COLUMNS: &'static [Column<Self>] = &[
        Column::NAME,
        Column::<Self>::text("DriverName", |c, _| Cell::from(c.driver_name.as_str()))
            .field::<VolumeAttributesClass>("driverName"),
        Column::AGE,
    ];

    fn validate(&self, errs: &mut FieldErrors) {
        let path = FieldPath::new("driverName");
        if self.driver_name.is_empty() {
            errs.required(&path, "");
        } else {
            errs.invalid_each(&path, &self.driver_name, names::is_dns1123_subdomain(&self.driver_name.to_lowercase()));
        }
        validate_parameters(self.parameters.as_ref(), &FieldPath::new("parameters"), false, errs);
    }

    fn validate_update(&self, old: &Self, errs: &mut FieldErrors) {
        if self.driver_name != old.driver_name {
            errs.forbidden(&FieldPath::new("driverName"), "updates to driverName are forbidden.");
        }
        if self.parameters != old.parameters {
            errs.forbidden(&FieldPath::new("parameters"), "updates to parameters are forbidden.");
        }
    }
}

fn name(class: &StorageClass) -> String {
    let name = class.metadata.name.clone().unwrap_or_default();
    let annotations = class.metadata.annotations.as_ref();
    let is_default = DEFAULT.iter().any(|key| annotations.and_then(|a| a.get(*key)).is_some_and(|v| v == "true"));
    if is_default { format!("{name} (default)") } else { name }
}

fn validate_topology(term: &TopologySelectorTerm, path: &FieldPath, errs: &mut FieldErrors) {
    let mut seen = BTreeSet::new();
    for (i, requirement) in term.match_label_expressions.iter().flatten().enumerate() {
        let at = path.index(i);
        if requirement.values.is_empty() {
            errs.required(&at.child("values"), "");
        }
        for (j, value) in requirement.values.iter().enumerate() {
            if requirement.values[..j].contains(value) {
                errs.duplicate(&at.child("values").index(j), value.as_str());
            }
        }
        errs.invalid_each(&at.child("key"), &requirement.key, names::is_qualified_name(&requirement.key));
        if !seen.insert(&requirement.key) {
            errs.duplicate(&at.child("key"), requirement.key.as_str());
        }
    }
}

/// What a term asks for, in no order.
fn meaning(term: &TopologySelectorTerm) -> BTreeMap<&str, BTreeSet<&str>> {
    let requirements = term.match_label_expressions.iter().flatten();
    requirements.map(|r| (r.key.as_str(), r.values.iter().map(String::as_str).collect())).collect()
}

fn validate_parameters(
    parameters: Option<&BTreeMap<String, String>>,
    path: &FieldPath,
    may_be_empty: bool,
    errs: &mut FieldErrors,
) {
    let empty = BTreeMap::new();
    let parameters = parameters.unwrap_or(&empty);
    if parameters.len() > PARAMETERS_MAX {
        return errs.too_long(path, PARAMETERS_MAX);
    }
    if parameters.keys().any(String::is_empty) {
        errs.invalid(path, "", "field can not be empty.");
    }
    let bytes: usize = parameters.iter().map(|(k, v)| k.len() + v.len()).sum();
    if bytes > PARAMETER_BYTES_MAX {
        errs.too_long(path, PARAMETER_BYTES_MAX);
    }
    if parameters.is_empty() && !may_be_empty {
        errs.required(path, "must contain at least one key/value pair");
    }
}
