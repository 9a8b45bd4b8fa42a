//! What drivers of the Container Storage Interface say of themselves. Stored for those who bring such drivers.
//!
//! # Source
//! Kubernetes `pkg/apis/storage/validation/validation.go`, `pkg/apis/storage/v1/defaults.go`,
//! `pkg/printers/internalversion/printers.go` (`printCSIDriver`, `printCSINode`, `printCSIStorageCapacity`).

use std::collections::BTreeSet;

use k8s_openapi::api::storage::v1::{CSIDriver, CSIDriverSpec, CSINode, CSINodeDriver, CSIStorageCapacity};

use crate::{
    field::{FieldErrors, FieldPath},
    kind::{Cell, Column, Kind, Names, Scope},
    kinds::{label_selector, pod::validate_quantity},
    names,
};

const GROUP: &str = "storage.k8s.io";
const DRIVER_NAME_MAX: usize = 63;
const NODE_ID_MAX: usize = 256;
const EXPIRATION_SECONDS_MIN: i64 = 600;
const FS_GROUP_POLICIES: [&str; 3] = ["File", "None", "ReadWriteOnceWithFSType"];
const LIFECYCLE_MODES: [&str; 2] = ["Ephemeral", "Persistent"];

impl Kind for CSIDriver {
    const NAMES: Names = Names::new(GROUP, "v1", "CSIDriver", "csidrivers", "csidriver");
    const SCOPE: Scope = Scope::Cluster;
    const RETURNS_DELETED: bool = true;
    const COLUMNS: &'static [Column<Self>] = &[
        Column::NAME,
        Column::<Self>::bool("AttachRequired", |d, _| Cell::from(d.spec.attach_required.unwrap_or(true)))
            .field::<CSIDriverSpec>("attachRequired"),
        Column::<Self>::bool("PodInfoOnMount", |d, _| Cell::from(d.spec.pod_info_on_mount.unwrap_or(false)))
            .field::<CSIDriverSpec>("podInfoOnMount"),
        Column::<Self>::bool("StorageCapacity", |d, _| Cell::from(d.spec.storage_capacity.unwrap_or(false)))
            .field::<CSIDriverSpec>("storageCapacity"),
        Column::<Self>::text("TokenRequests", |d, _| {
            let audiences = d.spec.token_requests.iter().flatten().map(|r| r.audience.as_str()).collect::<Vec<_>>();
            Cell::from(if audiences.is_empty() { "<unset>".to_owned() } else { audiences.join(",") })
        })
        .field::<CSIDriverSpec>("tokenRequests"),
        Column::<Self>::bool("RequiresRepublish", |d, _| Cell::from(d.spec.requires_republish.unwrap_or(false)))
            .field::<CSIDriverSpec>("requiresRepublish"),
        Column::<Self>::text("Modes", |d, _| {
            let modes = d.spec.volume_lifecycle_modes.as_ref().map(|m| m.join(",")).filter(|m| !m.is_empty());
            Cell::from(modes.unwrap_or_else(|| "<none>".to_owned()))
        })
        .field::<CSIDriverSpec>("volumeLifecycleModes"),
        Column::AGE,
    ];

    fn fill_defaults(&mut self) {
        let spec = &mut self.spec;
        spec.attach_required.get_or_insert(true);
        spec.pod_info_on_mount.get_or_insert(false);
        spec.storage_capacity.get_or_insert(false);
        spec.fs_group_policy.get_or_insert_with(|| "ReadWriteOnceWithFSType".to_owned());
        spec.requires_republish.get_or_insert(false);
        spec.se_linux_mount.get_or_insert(false);
        let modes = spec.volume_lifecycle_modes.get_or_insert_default();
        if modes.is_empty() {
            modes.push("Persistent".to_owned());
        }
    }

    crate::kind::generation_of_spec!();

    fn validate(&self, errs: &mut FieldErrors) {
        let path = FieldPath::new("spec");
        let name = self.metadata.name.as_deref().unwrap_or_default();
        validate_driver_name(name, &FieldPath::new("name"), errs);
        if let Some(policy) = self.spec.fs_group_policy.as_deref().filter(|p| !FS_GROUP_POLICIES.contains(p)) {
            errs.not_supported(&path.child("fsGroupPolicy"), policy, &FS_GROUP_POLICIES);
        }
        for mode in self.spec.volume_lifecycle_modes.iter().flatten().filter(|m| !LIFECYCLE_MODES.contains(&m.as_str()))
        {
            errs.not_supported(&path.child("volumeLifecycleModes"), mode, &LIFECYCLE_MODES);
        }
        let mut audiences = BTreeSet::new();
        for (i, request) in self.spec.token_requests.iter().flatten().enumerate() {
            let at = path.child("tokenRequests").index(i);
            if !audiences.insert(request.audience.as_str()) {
                errs.duplicate(&at.child("audience"), request.audience.as_str());
            }
            let seconds = request.expiration_seconds.unwrap_or(EXPIRATION_SECONDS_MIN);
            let at = at.child("expirationSeconds");
            if seconds < EXPIRATION_SECONDS_MIN {
                errs.invalid(&at, seconds, "may not specify a duration less than 10 minutes");
            } else if seconds > 1 << 32 {
                errs.invalid(&at, seconds, "may not specify a duration larger than 2^32 seconds");
            }
        }
    }

    fn validate_update(&self, old: &Self, errs: &mut FieldErrors) {
        let path = FieldPath::new("spec");
        errs.immutable(&path.child("attachedRequired"), &self.spec.attach_required, &old.spec.attach_required);
        let modes = |driver: &Self| driver.spec.volume_lifecycle_modes.clone();
        errs.immutable(&path.child("volumeLifecycleModes"), &modes(self), &modes(old));
    }
}

impl Kind for CSINode {
    const NAMES: Names = Names::new(GROUP, "v1", "CSINode", "csinodes", "csinode");
    const SCOPE: Scope = Scope::Cluster;
    const RETURNS_DELETED: bool = true;
    const COLUMNS: &'static [Column<Self>] = &[
        Column::NAME,
        Column::<Self>::int("Drivers", |n, _| Cell::from(n.spec.drivers.len()))
            .help("Drivers indicates the number of CSI drivers registered on the node"),
        Column::AGE,
    ];

    fn validate(&self, errs: &mut FieldErrors) {
        let path = FieldPath::new("spec").child("drivers");
        let mut known = BTreeSet::new();
        for (i, driver) in self.spec.drivers.iter().enumerate() {
            let at = path.index(i);
            validate_driver_name(&driver.name, &at.child("name"), errs);
            if !known.insert(driver.name.as_str()) {
                errs.duplicate(&at.child("name"), driver.name.as_str());
            }
            match driver.node_id.len() {
                0 => errs.required(&at.child("nodeID"), ""),
                n if n > NODE_ID_MAX => {
                    let detail = format!("must be {NODE_ID_MAX} characters or less");
                    errs.invalid(&at.child("nodeID"), driver.node_id.as_str(), &detail);
                }
                _ => {}
            }
            let count = driver.allocatable.as_ref().and_then(|a| a.count).unwrap_or_default();
            errs.non_negative(&at.child("allocatable").child("count"), i64::from(count));
            let keys = driver.topology_keys.as_deref().unwrap_or_default();
            for (i, key) in keys.iter().enumerate() {
                if key.is_empty() {
                    errs.required(&at, "");
                }
                if keys[..i].contains(key) {
                    errs.duplicate(&at, key.as_str());
                }
                names::is_qualified_name(key).iter().for_each(|message| errs.invalid(&at, keys, message));
            }
        }
    }

    fn validate_update(&self, old: &Self, errs: &mut FieldErrors) {
        for known in &old.spec.drivers {
            for driver in self.spec.drivers.iter().filter(|d| d.name == known.name) {
                // How many volumes there may be changes with the node.
                if *driver != (CSINodeDriver { allocatable: driver.allocatable.clone(), ..known.clone() }) {
                    let value = serde_json::to_value(driver).unwrap_or_default();
                    errs.invalid(&FieldPath::new("CSINodeDriver"), value, "field is immutable");
                }
            }
        }
    }
}

impl Kind for CSIStorageCapacity {
    const NAMES: Names = Names::new(GROUP, "v1", "CSIStorageCapacity", "csistoragecapacities", "csistoragecapacity");
    const SCOPE: Scope = Scope::Namespaced;
    const COLUMNS: &'static [Column<Self>] = &[
        Column::NAME,
        Column::<Self>::text("StorageClassName", |c, _| Cell::from(c.storage_class_name.as_str()))
            .field::<CSIStorageCapacity>("storageClassName"),
        Column::<Self>::text("Capacity", |c, _| {
            Cell::from(c.capacity.as_ref().map_or_else(|| "<unset>".to_owned(), |q| q.0.clone()))
        })
        .field::<CSIStorageCapacity>("capacity"),
    ];

    fn validate(&self, errs: &mut FieldErrors) {
        let path = FieldPath::new("storageClassName");
        if self.storage_class_name.is_empty() {
            errs.required(&path, "");
        } else {
            errs.invalid_each(&path, &self.storage_class_name, names::is_dns1123_subdomain(&self.storage_class_name));
        }
        if let Some(topology) = &self.node_topology {
            label_selector::validate(topology, &FieldPath::new("nodeTopology"), errs);
        }
        for (field, amount) in [("capacity", &self.capacity), ("maximumVolumeSize", &self.maximum_volume_size)] {
            if let Some(amount) = amount {
                validate_quantity(amount, &FieldPath::new(field), errs);
            }
        }
    }

    fn validate_update(&self, old: &Self, errs: &mut FieldErrors) {
        errs.immutable(&FieldPath::new("nodeTopology"), &self.node_topology, &old.node_topology);
        errs.immutable(&FieldPath::new("storageClassName"), &self.storage_class_name, &old.storage_class_name);
    }
}

/// Drivers are named like domains.
pub(in crate::kinds) fn validate_driver_name(name: &str, path: &FieldPath, errs: &mut FieldErrors) {
    if name.is_empty() {
        return errs.required(path, "");
    }
    if name.len() > DRIVER_NAME_MAX {
        errs.too_long(path, DRIVER_NAME_MAX);
    }
    errs.invalid_each(path, name, names::is_dns1123_subdomain(&name.to_lowercase()));
}
