//! VolumeAttachment: a volume on its way to a node, or off it.
//!
//! # Source
//! Kubernetes `pkg/apis/storage/validation/validation.go` (`ValidateVolumeAttachment*`),
//! `pkg/printers/internalversion/printers.go` (`printVolumeAttachment`).

use k8s_openapi::api::storage::v1::{
    VolumeAttachment, VolumeAttachmentSource, VolumeAttachmentSpec, VolumeAttachmentStatus,
};

use super::csi::validate_driver_name;
use crate::{
    field::{FieldErrors, FieldPath},
    kind::{Cell, Column, Kind, Names, Scope, Sub},
};

impl Kind for VolumeAttachment {
    const NAMES: Names =
        Names::new("storage.k8s.io", "v1", "VolumeAttachment", "volumeattachments", "volumeattachment");
    const SCOPE: Scope = Scope::Cluster;
    const RETURNS_DELETED: bool = true;
    const SUBRESOURCES: &'static [Sub<Self>] = &[Sub::STATUS];
    const COLUMNS: &'static [Column<Self>] = &[
        Column::NAME,
        Column::<Self>::text("Attacher", |a, _| Cell::from(a.spec.attacher.as_str()))
            .names()
            .field::<VolumeAttachmentSpec>("attacher"),
        Column::<Self>::text("PV", |a, _| Cell::from(a.spec.source.persistent_volume_name.clone().unwrap_or_default()))
            .field::<VolumeAttachmentSource>("persistentVolumeName"),
        Column::<Self>::text("Node", |a, _| Cell::from(a.spec.node_name.as_str()))
            .field::<VolumeAttachmentSpec>("nodeName"),
        Column::<Self>::bool("Attached", |a, _| Cell::from(a.status.as_ref().is_some_and(|s| s.attached)))
            .field::<VolumeAttachmentStatus>("attached"),
        Column::AGE,
    ];

    crate::kind::status_apart!();

    fn validate(&self, errs: &mut FieldErrors) {
        let path = FieldPath::new("spec");
        validate_driver_name(&self.spec.attacher, &path.child("attacher"), errs);
        let source = &self.spec.source;
        let at = path.child("source");
        match (&source.persistent_volume_name, &source.inline_volume_spec) {
            (None, None) => errs.required(&at, "must specify exactly one of inlineVolumeSpec and persistentVolumeName"),
            (Some(_), Some(_)) => {
                errs.invalid(&at, "", "must specify exactly one of inlineVolumeSpec and persistentVolumeName");
            }
            (Some(name), None) if name.is_empty() => {
                errs.required(&at.child("persistentVolumeName"), "must specify non empty persistentVolumeName");
            }
            _ => {}
        }
        if self.spec.node_name.is_empty() {
            errs.required(&path.child("nodeName"), "");
        }
    }

    fn validate_update(&self, old: &Self, errs: &mut FieldErrors) {
        errs.immutable(&FieldPath::new("spec"), &self.spec, &old.spec);
    }
}
