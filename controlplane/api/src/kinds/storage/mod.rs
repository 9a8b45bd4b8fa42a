//! Volumes that outlive pods, what makes them, and who serves them.

mod attachment;
mod claim;
mod class;
mod csi;
mod volume;

pub(super) use claim::{fill_claim_defaults, validate_claim_spec};

/// How a volume may be mounted.
const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
const VOLUME_MODES: [&str; 2] = ["Block", "Filesystem"];

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
