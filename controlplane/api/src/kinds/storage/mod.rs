//! Volumes that outlive pods, what makes them, and who serves them.

mod attachment;
mod claim;
mod class;
mod csi;
mod volume;

use crate::field::{FieldErrors, FieldPath};

pub(super) use claim::{fill_claim_defaults, validate_claim_spec};
pub(super) use csi::validate_driver_name;

/// How a volume may be mounted.
const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
const VOLUME_MODES: [&str; 2] = ["Block", "Filesystem"];

/// Checks how a volume may be used.
fn validate_modes(modes: &[String], path: &FieldPath, errs: &mut FieldErrors) {
    for mode in modes.iter().filter(|m| !ACCESS_MODES.contains(&m.as_str())) {
        errs.not_supported(path, mode, &ACCESS_MODES);
    }
    let alone = |mode: &&String| mode.as_str() == "ReadWriteOncePod";
    let other = |mode: &&String| !alone(mode) && ACCESS_MODES.contains(&mode.as_str());
    if modes.iter().any(|m| alone(&m)) && modes.iter().any(|m| other(&m)) {
        errs.forbidden(path, "may not use ReadWriteOncePod with other access modes");
    }
}

/// `RWO,ROX`, as `kubectl get` prints it.
fn short_modes(modes: Option<&Vec<String>>) -> String {
    let short = |mode: &&str| match *mode {
        "ReadWriteOnce" => Some("RWO"),
        "ReadOnlyMany" => Some("ROX"),
        "ReadWriteMany" => Some("RWX"),
        "ReadWriteOncePod" => Some("RWOP"),
        _ => None,
    };
    let given: Vec<&str> = modes.into_iter().flatten().map(String::as_str).collect();
    let order = ["ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod"];
    order.iter().filter(|mode| given.contains(mode)).filter_map(short).collect::<Vec<_>>().join(",")
}
