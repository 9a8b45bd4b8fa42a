//! ResourceSlice: devices that a driver has to give.

use k8s_openapi::{
    api::resource::v1::{CounterSet, Device, DeviceAttribute, DeviceTaint, ResourceSlice, ResourceSliceSpec},
    apimachinery::pkg::api::resource::Quantity,
};

use super::{
    GROUP, at_most, unique, validate_attribute_name, validate_driver_name, validate_label, validate_pool_name,
};
use crate::{
    field::{FieldErrors, FieldPath},
    kind::{Cell, Column, Field, Kind, Names, Scope},
    kinds::pod::validate_node_selector,
    names,
};

const DEVICES_MAX: usize = 128;
const ADVANCED_DEVICES_MAX: usize = 64;
const COUNTER_SETS_MAX: usize = 8;
const ATTRIBUTES_MAX: usize = 32;
const TAINTS_MAX: usize = 16;
const CONSUMPTIONS_MAX: usize = 2;
const VALUE_BYTES_MAX: usize = 64;
const TAINT_EFFECTS: [&str; 3] = ["NoExecute", "NoSchedule", "None"];

impl Kind for ResourceSlice {
    const NAMES: Names = Names::new(GROUP, "v1", "ResourceSlice", "resourceslices", "resourceslice");
    const SCOPE: Scope = Scope::Cluster;
    const RETURNS_DELETED: bool = true;
    const FIELDS: &'static [Field<Self>] = &[
        Field { path: "spec.nodeName", value: |s| s.spec.node_name.clone().unwrap_or_default() },
        Field { path: "spec.driver", value: |s| s.spec.driver.clone() },
    ];
    const COLUMNS: &'static [Column<Self>] = &[
        Column::NAME,
        Column::<Self>::text("Node", |s, _| {
            let spec = &s.spec;
            let other = if spec.all_nodes == Some(true) { "<all>" } else { "<unset>" };
            Cell::from(spec.node_name.as_deref().filter(|n| !n.is_empty()).unwrap_or(other))
        })
        .field::<ResourceSliceSpec>("nodeName"),
        Column::<Self>::text("Driver", |s, _| Cell::from(s.spec.driver.as_str())).field::<ResourceSliceSpec>("driver"),
        Column::<Self>::text("Pool", |s, _| Cell::from(s.spec.pool.name.as_str())).field::<ResourceSliceSpec>("pool"),
        Column::AGE,
    ];

    fn fill_defaults(&mut self) {
        for device in self.spec.devices.iter_mut().flatten() {
            for mapping in device.node_allocatable_resource_mappings.iter_mut().flat_map(|m| m.values_mut()) {
                mapping.allocation_multiplier.get_or_insert_with(|| Quantity("1".to_owned()));
            }
        }
    }

    crate::kind::generation_of_spec!();

    fn validate(&self, errs: &mut FieldErrors) {
        let (spec, path) = (&self.spec, FieldPath::new("spec"));
        validate_driver_name(&spec.driver, &path.child("driver"), errs);
        let pool = path.child("pool");
        validate_pool_name(&spec.pool.name, &pool.child("name"), errs);
        if spec.pool.resource_slice_count <= 0 {
            errs.invalid(
                &pool.child("resourceSliceCount"),
                spec.pool.resource_slice_count,
                "must be greater than zero",
            );
        }
        if spec.pool.generation < 0 {
            let detail = "must be greater than or equal to zero";
            errs.invalid(&pool.child("generation"), spec.pool.generation, detail);
        }
        validate_place(spec, &path, errs);
        validate_content(spec, &path, errs);
    }

    fn validate_update(&self, old: &Self, errs: &mut FieldErrors) {
        let path = FieldPath::new("spec");
        errs.immutable(&path.child("pool").child("name"), &self.spec.pool.name, &old.spec.pool.name);
        errs.immutable(&path.child("driver"), &self.spec.driver, &old.spec.driver);
        errs.immutable(&path.child("nodeName"), &self.spec.node_name, &old.spec.node_name);
    }
}

/// Exactly one way to say which nodes reach the devices.
fn validate_place(spec: &ResourceSliceSpec, path: &FieldPath, errs: &mut FieldErrors) {
    let mut ways = Vec::new();
    match spec.node_name.as_deref() {
        None => {}
        Some("") => errs.invalid(&path.child("nodeName"), "", "must be either unset or set to a non-empty string"),
        Some(name) => {
            ways.push("`nodeName`");
            errs.invalid_each(&path.child("nodeName"), name, names::is_dns1123_subdomain(name));
        }
    }
    if let Some(selector) = &spec.node_selector {
        ways.push("`nodeSelector`");
        let at = path.child("nodeSelector");
        validate_node_selector(selector, &at, errs);
        if selector.node_selector_terms.len() != 1 {
            let terms = serde_json::to_value(&selector.node_selector_terms).unwrap_or_default();
            errs.invalid(&at.child("nodeSelectorTerms"), terms, "must have exactly one node selector term");
        }
    }
    let flags = [
        ("allNodes", "`allNodes`", spec.all_nodes),
        ("perDeviceNodeSelection", "`perDeviceNodeSelection`", spec.per_device_node_selection),
    ];
    for (field, quoted, flag) in flags {
        match flag {
            None => {}
            Some(true) => ways.push(quoted),
            Some(false) => errs.invalid(&path.child(field), false, "must be either unset or set to true"),
        }
    }
    let detail = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    match ways.len() {
        0 => errs.required(path, detail),
        1 => {}
        _ => {
            let detail = format!("{detail}, but multiple fields are set");
            errs.invalid(path, format!("{{{}}}", ways.join(", ")), &detail);
        }
    }
}

fn validate_content(spec: &ResourceSliceSpec, path: &FieldPath, errs: &mut FieldErrors) {
    if spec.shared_counters.is_some() && spec.devices.is_some() {
        errs.invalid(path, "", "only one of `sharedCounters` or `devices` is allowed");
    }
    let devices = spec.devices.as_deref().unwrap_or_default();
    let advanced = devices.iter().any(|d| {
        d.taints.iter().flatten().count() > 0
            || d.consumes_counters.iter().flatten().count() > 0
            || d.attributes.iter().flat_map(|a| a.values()).any(is_list)
    });
    let at = path.child("devices");
    at_most(devices.len(), if advanced { ADVANCED_DEVICES_MAX } else { DEVICES_MAX }, &at, errs);
    unique(devices.iter().map(|d| d.name.as_str()), |i| at.index(i).child("name"), errs);
    for (i, device) in devices.iter().enumerate() {
        validate_device(device, spec.per_device_node_selection == Some(true), &at.index(i), errs);
    }
    let counters = spec.shared_counters.as_deref().unwrap_or_default();
    let at = path.child("sharedCounters");
    at_most(counters.len(), COUNTER_SETS_MAX, &at, errs);
    unique(counters.iter().map(|c| c.name.as_str()), |i| at.index(i).child("name"), errs);
    for (i, set) in counters.iter().enumerate() {
        validate_counter_set(set, &at.index(i), errs);
    }
}

fn validate_counter_set(set: &CounterSet, path: &FieldPath, errs: &mut FieldErrors) {
    validate_name(&set.name, &path.child("name"), errs);
    validate_counters(set.counters.keys(), &path.child("counters"), errs);
}

fn validate_name(name: &str, path: &FieldPath, errs: &mut FieldErrors) {
    if name.is_empty() {
        return errs.required(path, "");
    }
    validate_label(name, path, errs);
}

fn validate_counters<'a>(names: impl Iterator<Item = &'a String>, path: &FieldPath, errs: &mut FieldErrors) {
    let mut empty = true;
    for name in names {
        empty = false;
        validate_label(name, path, errs);
    }
    if empty {
        errs.required(path, "");
    }
}

fn validate_device(device: &Device, selects_node: bool, path: &FieldPath, errs: &mut FieldErrors) {
    validate_label(&device.name, &path.child("name"), errs);
    let attributes = device.attributes.iter().flatten();
    let total = attributes.clone().count() + device.capacity.iter().flatten().count();
    if total > ATTRIBUTES_MAX {
        let detail = format!("the total number of attributes and capacities must not exceed {ATTRIBUTES_MAX}");
        errs.invalid(path, total, &detail);
    }
    for (name, attribute) in attributes {
        let at = path.child("attributes");
        validate_attribute_name(name, false, &at, errs);
        validate_attribute(attribute, &at.key(name), errs);
    }
    for (name, capacity) in device.capacity.iter().flatten() {
        let at = path.child("capacity");
        validate_attribute_name(name, false, &at, errs);
        if capacity.request_policy.is_some() && device.allow_multiple_allocations != Some(true) {
            errs.forbidden(&at.key(name).child("requestPolicy"), "allowMultipleAllocations must be true");
        }
    }
    let taints = device.taints.as_deref().unwrap_or_default();
    at_most(taints.len(), TAINTS_MAX, &path.child("taints"), errs);
    for (i, taint) in taints.iter().enumerate() {
        validate_taint(taint, &path.child("taints").index(i), errs);
    }
    let consumed = device.consumes_counters.as_deref().unwrap_or_default();
    let at = path.child("consumesCounters");
    at_most(consumed.len(), CONSUMPTIONS_MAX, &at, errs);
    unique(consumed.iter().map(|c| c.counter_set.as_str()), |i| at.index(i).child("counterSet"), errs);
    for (i, set) in consumed.iter().enumerate() {
        validate_name(&set.counter_set, &at.index(i).child("counterSet"), errs);
        validate_counters(set.counters.keys(), &at.index(i).child("counters"), errs);
    }
    validate_device_place(device, selects_node, path, errs);
}

fn validate_device_place(device: &Device, selects_node: bool, path: &FieldPath, errs: &mut FieldErrors) {
    let mut ways = Vec::new();
    ways.extend(device.node_name.as_ref().map(|_| "`nodeName`"));
    ways.extend(device.node_selector.as_ref().map(|_| "`nodeSelector`"));
    ways.extend(device.all_nodes.map(|_| "`allNodes`"));
    let detail = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is \
                  set to true in the ResourceSlice spec";
    match (selects_node, ways.len()) {
        (true, 0) => errs.required(path, detail),
        (true, 1) | (false, 0) => {}
        (true, _) => errs.invalid(path, format!("{{{}}}", ways.join(", ")), detail),
        (false, _) => errs.invalid(
            path,
            serde_json::Value::Null,
            "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the \
             ResourceSlice spec",
        ),
    }
    if device.all_nodes == Some(false) && selects_node {
        errs.invalid(&path.child("allNodes"), false, "must be either unset or set to true");
    }
}

fn is_list(attribute: &DeviceAttribute) -> bool {
    attribute.bools.is_some() || attribute.ints.is_some() || attribute.strings.is_some() || attribute.versions.is_some()
}

fn validate_attribute(attribute: &DeviceAttribute, path: &FieldPath, errs: &mut FieldErrors) {
    let values = [
        attribute.bool.is_some(),
        attribute.int.is_some(),
        attribute.string.is_some(),
        attribute.version.is_some(),
        attribute.bools.is_some(),
        attribute.ints.is_some(),
        attribute.strings.is_some(),
        attribute.versions.is_some(),
    ];
    if values.into_iter().filter(|set| *set).count() != 1 {
        errs.invalid(path, "", "exactly one value must be specified");
    }
    for (field, value) in [("string", &attribute.string), ("version", &attribute.version)] {
        if value.as_ref().is_some_and(|v| v.len() > VALUE_BYTES_MAX) {
            errs.too_long(&path.child(field), VALUE_BYTES_MAX);
        }
    }
}

fn validate_taint(taint: &DeviceTaint, path: &FieldPath, errs: &mut FieldErrors) {
    errs.invalid_each(&path.child("key"), &taint.key, names::is_qualified_name(&taint.key));
    if let Some(value) = taint.value.as_deref().filter(|v| !v.is_empty()) {
        errs.invalid_each(&path.child("value"), value, names::is_label_value(value));
    }
    match taint.effect.as_str() {
        "" => errs.required(&path.child("effect"), ""),
        effect if TAINT_EFFECTS.contains(&effect) => {}
        other => errs.not_supported(&path.child("effect"), other, &TAINT_EFFECTS),
    }
}
