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
    names,
};

const METADATA_BYTES_MAX: usize = 256 * 1024;
const MESSAGE_BYTES_MAX: usize = 1024;

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
                errs.forbidden(&at, "must specify exactly one of inlineVolumeSpec and persistentVolumeName");
            }
            (Some(name), None) if name.is_empty() => {
                errs.required(&at.child("persistentVolumeName"), "must specify non empty persistentVolumeName");
            }
            _ => {}
        }
        let node = self.spec.node_name.as_str();
        errs.invalid_each(&path.child("nodeName"), node, names::is_dns1123_subdomain(node));
        if let Some(name) = &source.persistent_volume_name {
            errs.invalid_each(&at.child("persistentVolumeName"), name, names::is_dns1123_subdomain(name));
        }
    }

    fn validate_status_update(&self, _old: &Self, errs: &mut FieldErrors) {
        let (Some(status), path) = (&self.status, FieldPath::new("status")) else { return };
        let bytes: usize = status.attachment_metadata.iter().flatten().map(|(k, v)| k.len() + v.len()).sum();
        if bytes > METADATA_BYTES_MAX {
            errs.too_long(&path.child("attachmentMetadata"), METADATA_BYTES_MAX);
        }
        for (field, error) in [("attachError", &status.attach_error), ("detachError", &status.detach_error)] {
            let message = error.as_ref().and_then(|e| e.message.as_deref()).unwrap_or_default();
            if message.len() > MESSAGE_BYTES_MAX {
                // The other bound is what Kubernetes speaks of.
                errs.too_long(&path.child(field).child("message"), METADATA_BYTES_MAX);
            }
        }
    }

    fn validate_update(&self, old: &Self, errs: &mut FieldErrors) {
        errs.immutable(&FieldPath::new("spec"), &self.spec, &old.spec);
    }
}
