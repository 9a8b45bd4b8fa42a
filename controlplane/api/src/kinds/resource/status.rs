//! The status of a ResourceClaim: which devices it was given, and who may use them.

use std::collections::BTreeSet;

use k8s_openapi::api::resource::v1::{
    AllocatedDeviceStatus, AllocationResult, DeviceRequestAllocationResult, ResourceClaim, ResourceClaimStatus,
};

use super::{
    CONFIGS_MAX, at_most,
    claim::{RequestNames, validate_request_name, validate_requests, validate_tolerations},
    unique, validate_configuration, validate_driver_name, validate_label, validate_pool_name,
};
use crate::{
    field::{FieldErrors, FieldPath},
    kinds::pod::validate_node_selector,
};

const RESERVED_FOR_MAX: usize = 256;
const RESULTS_MAX: usize = 32;

/// The state in a word or two, as `kubectl get` prints it.
pub(super) fn state(claim: &ResourceClaim) -> String {
    let status = claim.status.as_ref();
    let mut words = Vec::new();
    if claim.metadata.deletion_timestamp.is_some() {
        words.push("deleted");
    }
    if status.is_none_or(|s| s.allocation.is_none()) {
        if claim.metadata.deletion_timestamp.is_none() {
            words.push("pending");
        }
    } else {
        words.push("allocated");
        let reserved = status.is_some_and(|s| s.reserved_for.as_ref().is_some_and(|r| !r.is_empty()));
        if reserved {
            words.push("reserved");
        }
    }
    words.join(",")
}

type DeviceId<'a> = (&'a str, &'a str, &'a str);

fn results(status: Option<&ResourceClaimStatus>) -> &[DeviceRequestAllocationResult] {
    let devices = status.and_then(|s| s.allocation.as_ref()).and_then(|a| a.devices.as_ref());
    devices.and_then(|d| d.results.as_deref()).unwrap_or_default()
}

fn given(status: Option<&ResourceClaimStatus>) -> BTreeSet<DeviceId<'_>> {
    results(status).iter().map(|r| (r.driver.as_str(), r.pool.as_str(), r.device.as_str())).collect()
}

fn id(device: &AllocatedDeviceStatus) -> DeviceId<'_> {
    (&device.driver, &device.pool, &device.device)
}

/// What was said of devices that the claim no longer has goes with them.
pub(super) fn drop_deallocated(new: &mut ResourceClaim, old: &ResourceClaim) {
    let Some(mut status) = new.status.take() else { return };
    let kept = given(Some(&status)).into_iter().map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned()));
    let kept: BTreeSet<_> = kept.collect();
    let gone = |device: &AllocatedDeviceStatus| {
        let owned = (device.driver.clone(), device.pool.clone(), device.device.clone());
        given(old.status.as_ref()).contains(&id(device)) && !kept.contains(&owned)
    };
    status.devices = status.devices.map(|mut devices| {
        devices.retain(|device| !gone(device));
        devices
    });
    status.devices = status.devices.filter(|devices| !devices.is_empty());
    new.status = Some(status);
}

pub(super) fn validate(new: &ResourceClaim, old: &ResourceClaim, names: &RequestNames<'_>, errs: &mut FieldErrors) {
    let (empty, path) = (ResourceClaimStatus::default(), FieldPath::new("status"));
    let status = new.status.as_ref().unwrap_or(&empty);
    let before = old.status.as_ref().unwrap_or(&empty);
    validate_reservations(new, status, before, errs);
    let had = given(new.status.as_ref());
    let devices = status.devices.as_deref().unwrap_or_default();
    let mut known = BTreeSet::new();
    for (i, device) in devices.iter().enumerate() {
        let at = path.child("devices").index(i);
        if !known.insert((id(device), device.share_id.as_deref())) {
            errs.duplicate(&at, format!("{}/{}/{}", device.driver, device.pool, device.device));
        }
        validate_device(device, &had, &at, errs);
    }
    match (&status.allocation, &before.allocation) {
        (Some(new), Some(old)) => errs.immutable(&path.child("allocation"), new, old),
        (Some(new), None) => validate_allocation(new, names, &path.child("allocation"), errs),
        (None, _) => {}
    }
}

fn validate_reservations(
    claim: &ResourceClaim,
    status: &ResourceClaimStatus,
    old: &ResourceClaimStatus,
    errs: &mut FieldErrors,
) {
    let path = FieldPath::new("status").child("reservedFor");
    let reserved = status.reserved_for.as_deref().unwrap_or_default();
    at_most(reserved.len(), RESERVED_FOR_MAX, &path, errs);
    unique(reserved.iter().map(|r| r.uid.as_str()), |i| path.index(i).child("uid"), errs);
    for (i, user) in reserved.iter().enumerate() {
        let at = path.index(i);
        for (field, value) in [("resource", &user.resource), ("name", &user.name), ("uid", &user.uid)] {
            if value.is_empty() {
                errs.required(&at.child(field), "");
            }
        }
    }
    let added = reserved.iter().any(|r| !old.reserved_for.iter().flatten().any(|o| o == r));
    if reserved.is_empty() {
    } else if status.allocation.is_none() {
        errs.forbidden(&path, "may not be specified when `allocated` is not set");
    } else if claim.metadata.deletion_timestamp.is_some() && added {
        let detail = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
        errs.forbidden(&path, detail);
    }
}

fn validate_device(
    device: &AllocatedDeviceStatus,
    had: &BTreeSet<DeviceId<'_>>,
    path: &FieldPath,
    errs: &mut FieldErrors,
) {
    validate_driver_name(&device.driver, &path.child("driver"), errs);
    validate_pool_name(&device.pool, &path.child("pool"), errs);
    validate_label(&device.device, &path.child("device"), errs);
    if !had.contains(&id(device)) {
        let name = format!("{}/{}/{}", device.driver, device.pool, device.device);
        errs.invalid(path, name, "must be an allocated device in the claim");
    }
}

fn validate_allocation(
    allocation: &AllocationResult,
    names: &RequestNames<'_>,
    path: &FieldPath,
    errs: &mut FieldErrors,
) {
    if let Some(selector) = &allocation.node_selector {
        validate_node_selector(selector, &path.child("nodeSelector"), errs);
    }
    let Some(devices) = &allocation.devices else { return };
    let path = path.child("devices");
    let results = devices.results.as_deref().unwrap_or_default();
    at_most(results.len(), RESULTS_MAX, &path.child("results"), errs);
    for (i, result) in results.iter().enumerate() {
        let at = path.child("results").index(i);
        validate_request_name(&result.request, names, &at.child("request"), errs);
        validate_driver_name(&result.driver, &at.child("driver"), errs);
        validate_pool_name(&result.pool, &at.child("pool"), errs);
        validate_label(&result.device, &at.child("device"), errs);
        validate_tolerations(result.tolerations.as_deref(), &at, errs);
    }
    let configs = devices.config.as_deref().unwrap_or_default();
    at_most(configs.len(), 2 * CONFIGS_MAX, &path.child("config"), errs);
    for (i, config) in configs.iter().enumerate() {
        let at = path.child("config").index(i);
        match config.source.as_str() {
            "" => errs.required(&at.child("source"), ""),
            "FromClaim" | "FromClass" => {}
            other => errs.not_supported(&at.child("source"), other, &["FromClaim", "FromClass"]),
        }
        validate_requests(config.requests.as_deref(), names, &at.child("requests"), errs);
        validate_configuration(config.opaque.as_ref(), &at, errs);
    }
}
