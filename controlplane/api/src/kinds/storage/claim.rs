//! PersistentVolumeClaim: a wish for a volume.
//!
//! # Source
//! Kubernetes `pkg/apis/core/validation/validation.go` (`ValidatePersistentVolumeClaim*`),
//! `pkg/printers/internalversion/printers.go` (`printPersistentVolumeClaim`).

use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeClaimStatus, TypedLocalObjectReference,
    TypedObjectReference,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as WireQuantity;

use super::{VOLUME_MODES, short_modes, validate_modes};
use crate::{
    field::{FieldErrors, FieldPath},
    kind::{Cell, Column, Kind, Names, Scope, Sub},
    kinds::{label_selector, pod},
    names,
    quantity::Quantity,
};

/// The old place of the class.
pub(super) const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

/// How far a claim's volume is on its way to another size.
const RESIZES: [&str; 5] = [
    "ControllerResizeInProgress",
    "ControllerResizeInfeasible",
    "NodeResizeInProgress",
    "NodeResizeInfeasible",
    "NodeResizePending",
];

impl Kind for PersistentVolumeClaim {
    const NAMES: Names =
        Names::new("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", "persistentvolumeclaim")
            .short(&["pvc"]);
    const SCOPE: Scope = Scope::Namespaced;
    const RETURNS_DELETED: bool = true;
    const SUBRESOURCES: &'static [Sub<Self>] = &[Sub::STATUS];
    const COLUMNS: &'static [Column<Self>] = &[
        Column::NAME,
        Column::<Self>::text("Status", |c, _| Cell::from(phase(c))).field::<PersistentVolumeClaimStatus>("phase"),
        Column::<Self>::text("Volume", |c, _| {
            Cell::from(spec(c).and_then(|s| s.volume_name.clone()).unwrap_or_default())
        })
        .field::<PersistentVolumeClaimSpec>("volumeName"),
        Column::<Self>::text("Capacity", |c, _| Cell::from(capacity(c)))
            .field::<PersistentVolumeClaimStatus>("capacity"),
        Column::<Self>::text("Access Modes", |c, _| Cell::from(modes(c)))
            .field::<PersistentVolumeClaimStatus>("accessModes"),
        Column::<Self>::text("StorageClass", |c, _| Cell::from(class(c))).help("StorageClass of the pvc"),
        Column::<Self>::text("VolumeAttributesClass", |c, _| {
            let class = spec(c).and_then(|s| s.volume_attributes_class_name.clone());
            Cell::from(class.unwrap_or_else(|| "<unset>".to_owned()))
        })
        .help("VolumeAttributesClass of the pvc"),
        Column::AGE,
        Column::<Self>::wide_text("VolumeMode", |c, _| {
            Cell::from(spec(c).and_then(|s| s.volume_mode.clone()).unwrap_or_else(|| "<unset>".to_owned()))
        })
        .field::<PersistentVolumeClaimSpec>("volumeMode"),
    ];

    fn fill_defaults(&mut self) {
        fill_claim_defaults(self);
    }

    fn prepare_create(&mut self) {
        let pending = Some("Pending".to_owned());
        self.status = Some(PersistentVolumeClaimStatus { phase: pending, ..PersistentVolumeClaimStatus::default() });
        let spec = self.spec.get_or_insert_default();
        // What this field cannot name is left out; the newer one names it.
        spec.data_source = spec.data_source.take().filter(is_claim_or_snapshot);
        normalize_data_sources(spec);
    }

    fn prepare_update(&mut self, old: &Self) {
        self.status.clone_from(&old.status);
        normalize_data_sources(self.spec.get_or_insert_default());
    }

    fn prepare_status_update(&mut self, old: &Self) {
        self.spec.clone_from(&old.spec);
    }

    fn validate(&self, errs: &mut FieldErrors) {
        let default = PersistentVolumeClaimSpec::default();
        validate_claim_spec(self.spec.as_ref().unwrap_or(&default), &FieldPath::new("spec"), errs);
    }

    fn validate_update(&self, old: &Self, errs: &mut FieldErrors) {
        let path = FieldPath::new("spec");
        let (Some(new), Some(old_spec)) = (&self.spec, &old.spec) else { return };
        let mut allowed = new.clone();
        // What may change: the volume once it is bound, a first class, a greater size.
        if old_spec.volume_name.as_deref().unwrap_or_default().is_empty() {
            allowed.volume_name.clone_from(&old_spec.volume_name);
        }
        if old_spec.storage_class_name.is_none() && may_get_class(self, old) {
            allowed.storage_class_name = None;
        }
        let old_class = annotation(old);
        if annotation(self) != old_class && new.storage_class_name.as_deref() != Some(old_class) {
            let at = FieldPath::new("metadata").child("annotations").child(CLASS_ANNOTATION);
            errs.invalid(&at, annotation(self), "field is immutable");
        }
        let bound = old.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound");
        if bound {
            let had = old_spec.resources.as_ref().and_then(|r| r.requests.as_ref()?.get("storage")).cloned();
            let requests = allowed.resources.as_mut().and_then(|r| r.requests.as_mut());
            if let (Some(requests), Some(had)) = (requests, had) {
                requests.insert("storage".to_owned(), had);
            }
            if allowed.volume_attributes_class_name.is_some() {
                allowed.volume_attributes_class_name.clone_from(&old_spec.volume_attributes_class_name);
            }
        }
        if allowed != *old_spec {
            let detail = "spec is immutable after creation except resources.requests and volumeAttributesClassName for \
                          bound claims";
            let diff = pod::differences(&path, &allowed, old_spec);
            errs.forbidden(&path, &format!("{detail}\n{diff}"));
        }
        if let (Some(wanted), Some(had)) = (size(new), size(old_spec))
            && wanted < had
            && wanted <= given(old)
        {
            let at = path.child("resources").child("requests").child("storage");
            errs.forbidden(&at, "field can not be less than status.capacity");
        }
        errs.immutable(&FieldPath::new("volumeMode"), &new.volume_mode, &old_spec.volume_mode);
        if old_spec.volume_attributes_class_name.is_some() {
            let at = path.child("volumeAttributesClassName");
            match new.volume_attributes_class_name.as_deref() {
                None => errs.forbidden(&at, "update from non-nil value to nil is forbidden"),
                Some("") if old_spec.volume_attributes_class_name.as_deref() != Some("") => {
                    errs.forbidden(&at, "update from non-nil value to an empty string is forbidden");
                }
                Some(_) => {}
            }
        }
    }

    fn validate_status_update(&self, _old: &Self, errs: &mut FieldErrors) {
        let path = FieldPath::new("status");
        let Some(status) = &self.status else { return };
        for (name, amount) in status.capacity.iter().flatten() {
            validate_given(amount, &path.child("capacity").key(name), errs);
        }
        let at = path.child("allocatedResourceStatus");
        for (name, state) in status.allocated_resource_statuses.iter().flatten() {
            validate_resource(name, &at, errs);
            if !RESIZES.contains(&state.as_str()) {
                errs.not_supported(&at, name, &RESIZES);
            }
        }
        for (name, amount) in status.allocated_resources.iter().flatten() {
            let at = path.child("allocatedResources");
            validate_resource(name, &at, errs);
            validate_given(amount, &at.key(name), errs);
        }
    }
}

fn validate_given(amount: &WireQuantity, path: &FieldPath, errs: &mut FieldErrors) {
    match amount.0.parse::<Quantity>() {
        Ok(read) if read.is_negative() => {
            errs.invalid(path, read.value(), "must be a valid resource quantity");
        }
        Ok(_) => {}
        Err(_) => {
            pod::validate_quantity(amount, path, errs);
        }
    }
}

/// Of what Kubernetes itself knows, a claim has but storage.
fn validate_resource(name: &str, path: &FieldPath, errs: &mut FieldErrors) {
    let messages = names::is_qualified_name(name);
    let native = !name.contains('/') || name.contains("kubernetes.io/");
    if messages.is_empty() && native && name != "storage" {
        errs.not_supported(path, name, &["storage"]);
    }
    errs.invalid_each(path, name, messages);
}

/// Whether a claim without a class may get this one now.
fn may_get_class(new: &PersistentVolumeClaim, old: &PersistentVolumeClaim) -> bool {
    let wanted = spec(new).and_then(|s| s.storage_class_name.as_deref());
    let had = old.metadata.annotations.as_ref().and_then(|a| a.get(CLASS_ANNOTATION));
    wanted.is_some() && had.is_none_or(|had| wanted == Some(had))
}

fn annotation(claim: &PersistentVolumeClaim) -> &str {
    let all = claim.metadata.annotations.as_ref();
    all.and_then(|a| a.get(CLASS_ANNOTATION)).map(String::as_str).unwrap_or_default()
}

/// What the volume of a claim has.
fn given(claim: &PersistentVolumeClaim) -> Quantity {
    let capacity = claim.status.as_ref().and_then(|s| s.capacity.as_ref()?.get("storage"));
    capacity.and_then(|q| q.0.parse().ok()).unwrap_or(Quantity::ZERO)
}

fn is_claim_or_snapshot(source: &TypedLocalObjectReference) -> bool {
    let of = (source.api_group.as_deref().unwrap_or_default(), source.kind.as_str());
    matches!(of, ("", "PersistentVolumeClaim") | ("snapshot.storage.k8s.io", "VolumeSnapshot"))
}

/// What one of the two fields says, the other says too.
fn normalize_data_sources(spec: &mut PersistentVolumeClaimSpec) {
    match (&spec.data_source, &spec.data_source_ref) {
        (Some(source), None) => {
            spec.data_source_ref = Some(TypedObjectReference {
                api_group: source.api_group.clone(),
                kind: source.kind.clone(),
                name: source.name.clone(),
                namespace: None,
            });
        }
        (None, Some(source)) if source.namespace.as_deref().unwrap_or_default().is_empty() => {
            let local = TypedLocalObjectReference {
                api_group: source.api_group.clone(),
                kind: source.kind.clone(),
                name: source.name.clone(),
            };
            spec.data_source = Some(local);
        }
        _ => {}
    }
}

/// The phase and the mode.
pub(in crate::kinds) fn fill_claim_defaults(claim: &mut PersistentVolumeClaim) {
    claim.spec.get_or_insert_default().volume_mode.get_or_insert_with(|| "Filesystem".to_owned());
    claim.status.get_or_insert_default().phase.get_or_insert_with(|| "Pending".to_owned());
}

/// Checks what a claim asks for.
pub(in crate::kinds) fn validate_claim_spec(
    spec: &PersistentVolumeClaimSpec,
    path: &FieldPath,
    errs: &mut FieldErrors,
) {
    let modes = spec.access_modes.as_deref().unwrap_or_default();
    let at = path.child("accessModes");
    if modes.is_empty() {
        errs.required(&at, "at least 1 access mode is required");
    }
    if let Some(selector) = &spec.selector {
        label_selector::validate(selector, &path.child("selector"), errs);
    }
    validate_modes(modes, &at, errs);
    let at = path.child("resources").key("storage");
    match spec.resources.as_ref().and_then(|r| r.requests.as_ref()).and_then(|r| r.get("storage")) {
        None => errs.required(&at, ""),
        Some(amount) => match amount.0.parse::<Quantity>() {
            Ok(read) if read.is_negative() || read.is_zero() => {
                errs.invalid(&at, read.to_string(), "must be greater than zero");
            }
            Ok(_) => {}
            Err(_) => {
                pod::validate_quantity(amount, &at, errs);
            }
        },
    }
    let classes = [
        ("storageClassName", &spec.storage_class_name),
        ("volumeAttributesClassName", &spec.volume_attributes_class_name),
    ];
    for (field, class) in classes {
        if let Some(class) = class.as_deref().filter(|c| !c.is_empty()) {
            errs.invalid_each(&path.child(field), class, names::is_dns1123_subdomain(class));
        }
    }
    if let Some(mode) = spec.volume_mode.as_deref().filter(|m| !VOLUME_MODES.contains(m)) {
        errs.not_supported(&path.child("volumeMode"), mode, &VOLUME_MODES);
    }
    validate_data_sources(spec, path, errs);
}

fn validate_data_sources(spec: &PersistentVolumeClaimSpec, path: &FieldPath, errs: &mut FieldErrors) {
    let (local, any) = (spec.data_source.as_ref(), spec.data_source_ref.as_ref());
    let given = [
        ("dataSource", local.map(|s| (&s.api_group, &s.kind, &s.name))),
        ("dataSourceRef", any.map(|s| (&s.api_group, &s.kind, &s.name))),
    ];
    for (field, source) in given {
        let Some((group, kind, name)) = source else { continue };
        let at = path.child(field);
        for (field, text) in [("name", name), ("kind", kind)] {
            if text.is_empty() {
                errs.required(&at.child(field), "");
            }
        }
        match group.as_deref().unwrap_or_default() {
            "" if kind != "PersistentVolumeClaim" => {
                let detail = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
                errs.invalid(&at, kind.as_str(), detail);
            }
            "" => {}
            group => errs.invalid_each(&at.child("apiGroup"), group, names::is_dns1123_subdomain(group)),
        }
    }
    let (Some(local), Some(any)) = (local, any) else { return };
    let shown = path.child("dataSource").to_string();
    if any.namespace.as_ref().is_some_and(|n| !n.is_empty()) {
        errs.invalid(path, shown, "may not be specified when dataSourceRef.namespace is specified");
    } else if (&local.api_group, &local.kind, &local.name) != (&any.api_group, &any.kind, &any.name) {
        errs.invalid(path, shown, "must match dataSourceRef");
    }
    if let Some(namespace) = any.namespace.as_deref().filter(|n| !n.is_empty()) {
        let at = path.child("dataSourceRef").child("namespace");
        errs.invalid_each(&at, namespace, names::is_dns1123_label(namespace));
    }
}

fn size(spec: &PersistentVolumeClaimSpec) -> Option<Quantity> {
    spec.resources.as_ref()?.requests.as_ref()?.get("storage")?.0.parse().ok()
}

fn spec(claim: &PersistentVolumeClaim) -> Option<&PersistentVolumeClaimSpec> {
    claim.spec.as_ref()
}

fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    spec(claim).and_then(|s| s.volume_name.as_deref()).is_some_and(|v| !v.is_empty())
}

fn phase(claim: &PersistentVolumeClaim) -> String {
    match &claim.metadata.deletion_timestamp {
        Some(_) => "Terminating".to_owned(),
        None => claim.status.as_ref().and_then(|s| s.phase.clone()).unwrap_or_default(),
    }
}

fn capacity(claim: &PersistentVolumeClaim) -> String {
    let capacity = claim.status.as_ref().and_then(|s| s.capacity.as_ref()).and_then(|c| c.get("storage"));
    capacity.filter(|_| is_bound(claim)).map(|q| q.0.clone()).unwrap_or_default()
}

fn modes(claim: &PersistentVolumeClaim) -> String {
    let modes = claim.status.as_ref().and_then(|s| s.access_modes.as_ref());
    if is_bound(claim) { short_modes(modes) } else { String::new() }
}

fn class(claim: &PersistentVolumeClaim) -> String {
    let old = claim.metadata.annotations.as_ref().and_then(|a| a.get(CLASS_ANNOTATION));
    old.or(spec(claim).and_then(|s| s.storage_class_name.as_ref())).cloned().unwrap_or_default()
}
