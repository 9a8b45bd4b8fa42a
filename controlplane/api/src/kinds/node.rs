//! Node: a machine that runs pods.
//!
//! A node comes with its status, which its agent writes when it registers.
//!
//! # Source
//! Kubernetes `pkg/registry/core/node/strategy.go`, `pkg/apis/core/validation/validation.go` (`ValidateNode`),
//! `pkg/printers/internalversion/printers.go` (`printNode`).

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Node, NodeSpec, NodeStatus, NodeSystemInfo, Taint};

use super::{
    pod::{EFFECTS, one_of},
    resource_name,
};
use crate::{
    field::{FieldErrors, FieldPath},
    ip::is_cidr,
    kind::{Cell, Column, Field, Kind, Names, Scope, Sub, Verb},
    names,
};

impl Kind for Node {
    const NAMES: Names = Names::new("", "v1", "Node", "nodes", "node").short(&["no"]);
    const SCOPE: Scope = Scope::Cluster;
    const SUBRESOURCES: &'static [Sub<Self>] = &[Sub::verb("proxy", Verb::Proxy), Sub::STATUS];
    const FIELDS: &'static [Field<Self>] =
        &[Field { path: "spec.unschedulable", value: |n| unschedulable(n).to_string() }];
    const COLUMNS: &'static [Column<Self>] = &[
        Column::NAME,
        Column::<Self>::text("Status", |n, _| Cell::from(status(n))).help("The status of the node"),
        Column::<Self>::text("Roles", |n, _| Cell::from(roles(n))).help("The roles of the node"),
        Column::AGE,
        Column::<Self>::text("Version", |n, _| Cell::from(info(n, |i| &i.kubelet_version).unwrap_or_default()))
            .field::<NodeSystemInfo>("kubeletVersion"),
        Column::<Self>::wide_text("Internal-IP", |n, _| Cell::from(address(n, "InternalIP")))
            .field::<NodeStatus>("addresses"),
        Column::<Self>::wide_text("External-IP", |n, _| Cell::from(address(n, "ExternalIP")))
            .field::<NodeStatus>("addresses"),
        Column::<Self>::wide_text("OS-Image", |n, _| known(info(n, |i| &i.os_image)))
            .field::<NodeSystemInfo>("osImage"),
        Column::<Self>::wide_text("Kernel-Version", |n, _| known(info(n, |i| &i.kernel_version)))
            .field::<NodeSystemInfo>("kernelVersion"),
        Column::<Self>::wide_text("Container-Runtime", |n, _| known(info(n, |i| &i.container_runtime_version)))
            .field::<NodeSystemInfo>("containerRuntimeVersion"),
    ];

    fn fill_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        match (spec.pod_cidr.clone().filter(|cidr| !cidr.is_empty()), spec.pod_cidrs.as_deref().unwrap_or_default()) {
            (None, []) => {}
            (None, [first, ..]) => spec.pod_cidr = Some(first.clone()),
            (Some(cidr), [first, ..]) if *first == cidr => {}
            (Some(cidr), _) => spec.pod_cidrs = Some(vec![cidr]),
        }
        let Some(status) = &mut self.status else { return };
        if status.allocatable.is_none() {
            status.allocatable.clone_from(&status.capacity);
        }
    }

    crate::kind::status_kept!();

    fn validate(&self, errs: &mut FieldErrors) {
        let default = NodeSpec::default();
        let spec = self.spec.as_ref().unwrap_or(&default);
        let taints = spec.taints.as_deref().unwrap_or_default();
        // This is where Kubernetes says that they are.
        validate_taints(taints, &FieldPath::new("metadata").child("taints"), errs);
        validate_amounts(self, errs);
    }

    fn validate_create(&self, errs: &mut FieldErrors) {
        let cidrs = self.spec.as_ref().and_then(|s| s.pod_cidrs.as_deref()).unwrap_or_default();
        validate_cidrs(cidrs, &FieldPath::new("spec").child("podCIDRs"), errs);
    }

    fn validate_update(&self, old: &Self, errs: &mut FieldErrors) {
        let path = FieldPath::new("spec");
        let cidrs = |n: &Self| n.spec.as_ref().and_then(|s| s.pod_cidrs.clone()).unwrap_or_default();
        if !cidrs(old).is_empty() && cidrs(self) != cidrs(old) {
            let detail = "node updates may not change podCIDR except from \"\" to valid";
            errs.forbidden(&path.child("podCIDRs"), detail);
        }
        let provider = |n: &Self| n.spec.as_ref().and_then(|s| s.provider_id.clone()).unwrap_or_default();
        if !provider(old).is_empty() && provider(self) != provider(old) {
            let detail = "node updates may not change providerID except from \"\" to valid";
            errs.forbidden(&path.child("providerID"), detail);
        }
        let external = |n: &Self| n.spec.as_ref().and_then(|s| s.external_id.clone()).unwrap_or_default();
        if external(self) != external(old) {
            errs.forbidden(&path.child("externalID"), "may not be updated");
        }
    }

    fn validate_status_update(&self, _old: &Self, errs: &mut FieldErrors) {
        validate_amounts(self, errs);
        let mut seen = BTreeSet::new();
        let at = FieldPath::new("status").child("addresses");
        for (i, address) in self.status.iter().flat_map(|s| s.addresses.iter().flatten()).enumerate() {
            if !seen.insert((&address.type_, &address.address)) {
                errs.duplicate(&at.index(i), serde_json::to_value(address).unwrap_or_default());
            }
        }
    }
}

fn validate_amounts(node: &Node, errs: &mut FieldErrors) {
    let Some(status) = &node.status else { return };
    for (field, amounts) in [("capacity", &status.capacity), ("allocatable", &status.allocatable)] {
        for (name, amount) in amounts.iter().flatten() {
            resource_name::validate_amount(name, amount, &FieldPath::new("status").child(field).child(name), errs);
        }
    }
}

fn validate_taints(taints: &[Taint], path: &FieldPath, errs: &mut FieldErrors) {
    let mut seen = BTreeSet::new();
    for (i, taint) in taints.iter().enumerate() {
        let at = path.index(i);
        errs.invalid_each(&at.child("key"), &taint.key, names::is_qualified_name(&taint.key));
        let value = taint.value.as_deref().unwrap_or_default();
        let messages = names::is_label_value(value);
        if !messages.is_empty() {
            errs.invalid(&at.child("value"), value, &messages.join(";"));
        }
        one_of(&at.child("effect"), Some(&taint.effect), &EFFECTS, errs);
        if !seen.insert((&taint.key, &taint.effect)) {
            let value = serde_json::to_value(taint).unwrap_or_default();
            errs.duplicate_because(&at, value, "taints must be unique by key and effect pair");
        }
    }
}

/// At most one network of each family.
fn validate_cidrs(cidrs: &[String], path: &FieldPath, errs: &mut FieldErrors) {
    for (i, cidr) in cidrs.iter().enumerate() {
        errs.invalid_each(&path.index(i), cidr, is_cidr(cidr));
    }
    let v6 = cidrs.iter().filter(|cidr| cidr.contains(':')).count();
    if cidrs.len() > 1 && (v6 == 0 || v6 == cidrs.len() || cidrs.len() > 2) {
        errs.invalid(path, cidrs, "may specify no more than one CIDR for each IP family");
    }
    for (i, cidr) in cidrs.iter().enumerate().filter(|(i, cidr)| cidrs[..*i].contains(cidr)) {
        errs.duplicate(&path.index(i), cidr.as_str());
    }
}

fn unschedulable(node: &Node) -> bool {
    node.spec.as_ref().and_then(|s| s.unschedulable).unwrap_or_default()
}

fn status(node: &Node) -> String {
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    let ready = match conditions.iter().find(|c| c.type_ == "Ready") {
        Some(c) if c.status == "True" => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    if unschedulable(node) { format!("{ready},SchedulingDisabled") } else { ready.to_owned() }
}

fn roles(node: &Node) -> String {
    let role = |(key, value): (&String, &String)| match key.strip_prefix("node-role.kubernetes.io/") {
        Some(role) => Some(role.to_owned()),
        None if key == "kubernetes.io/role" => Some(value.clone()),
        None => None,
    };
    let labels = node.metadata.labels.iter().flatten();
    let roles: BTreeSet<String> = labels.filter_map(role).filter(|r| !r.is_empty()).collect();
    if roles.is_empty() { "<none>".to_owned() } else { roles.into_iter().collect::<Vec<_>>().join(",") }
}

fn address(node: &Node, kind: &str) -> String {
    let addresses = node.status.as_ref().and_then(|s| s.addresses.as_deref()).unwrap_or_default();
    let found = addresses.iter().find(|a| a.type_ == kind);
    found.map_or_else(|| "<none>".to_owned(), |a| a.address.clone())
}

fn info(node: &Node, of: fn(&NodeSystemInfo) -> &String) -> Option<String> {
    node.status.as_ref()?.node_info.as_ref().map(|i| of(i).clone())
}

fn known(text: Option<String>) -> Cell {
    Cell::from(text.filter(|t| !t.is_empty()).unwrap_or_else(|| "<unknown>".to_owned()))
}
