//! PersistentVolumeClaim: a wish for a volume.
//!
//! # Source
//! Kubernetes `pkg/apis/core/validation/validation.go` (`ValidatePersistentVolumeClaim*`),
//! `pkg/printers/internalversion/printers.go` (`printPersistentVolumeClaim`).

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeClaimStatus};

use super::{ACCESS_MODES, VOLUME_MODES, short_modes};
use crate::{
    field::{FieldErrors, FieldPath},
    kind::{Cell, Column, Kind, Names, Scope, Sub},
    kinds::{label_selector, pod::validate_quantity},
    names,
    quantity::Quantity,
};

/// The old place of the class.
pub(super) const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

impl Kind for PersistentVolumeClaim {
    const NAMES: Names =
        Names::new("", "v1", "PersistentVolumeClaim", "persistentvolumeclaims", "persistentvolumeclaim")
            .short(&["pvc"]);
    const SCOPE: Scope = Scope::Namespaced;
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
    }

    fn prepare_update(&mut self, old: &Self) {
        self.status.clone_from(&old.status);
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
        if old_spec.storage_class_name.is_none() {
            allowed.storage_class_name = None;
        }
        allowed.volume_attributes_class_name.clone_from(&old_spec.volume_attributes_class_name);
        let (wanted, had) = (size(new), size(old_spec));
        let bound = old.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound");
        if bound {
            allowed.resources.clone_from(&old_spec.resources);
        }
        if allowed != *old_spec {
            let detail = "spec is immutable after creation except resources.requests and volumeAttributesClassName for \
                          bound claims";
            errs.forbidden(&path, detail);
        }
        if let (Some(wanted), Some(had)) = (wanted, had)
            && wanted < had
        {
            let at = path.child("resources").child("requests").child("storage");
            errs.forbidden(&at, "field can not be less than status.capacity");
        }
    }

    fn validate_status_update(&self, _old: &Self, errs: &mut FieldErrors) {
        let path = FieldPath::new("status");
        let Some(status) = &self.status else { return };
        for (name, amount) in status.capacity.iter().flatten() {
            validate_quantity(amount, &path.child("capacity").key(name), errs);
        }
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
    for mode in modes.iter().filter(|m| !ACCESS_MODES.contains(&m.as_str())) {
        errs.not_supported(&at, mode, &ACCESS_MODES);
    }
    if modes.len() > 1 && modes.iter().any(|m| m == "ReadWriteOncePod") {
        errs.forbidden(&at, "may not use ReadWriteOncePod with other access modes");
    }
    if let Some(selector) = &spec.selector {
        label_selector::validate(selector, &path.child("selector"), errs);
    }
    let at = path.child("resources").key("storage");
    match spec.resources.as_ref().and_then(|r| r.requests.as_ref()).and_then(|r| r.get("storage")) {
        None => errs.required(&at, ""),
        Some(amount) => {
            if validate_quantity(amount, &at, errs).is_some_and(|q| q.is_zero()) {
                errs.invalid(&at, amount.0.as_str(), "must be greater than zero");
            }
        }
    }
    if let Some(class) = spec.storage_class_name.as_deref().filter(|c| !c.is_empty()) {
        errs.invalid_each(&path.child("storageClassName"), class, names::is_dns1123_subdomain(class));
    }
    if let Some(mode) = spec.volume_mode.as_deref().filter(|m| !VOLUME_MODES.contains(m)) {
        errs.not_supported(&path.child("volumeMode"), mode, &VOLUME_MODES);
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
