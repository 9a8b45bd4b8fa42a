//! IPAddress: who uses an address of a ServiceCIDR.
//!
//! # Source
//! Kubernetes `pkg/apis/networking/validation/validation.go`, `pkg/registry/networking/ipaddress/strategy.go`,
//! `pkg/printers/internalversion/printers.go` (`printIPAddress`).

use k8s_openapi::api::networking::v1::{IPAddress, IPAddressSpec, ParentReference};

use crate::{
    field::{FieldErrors, FieldPath},
    kind::{Cell, Column, Kind, Names, Scope},
    names::{self, NameRule},
};

impl Kind for IPAddress {
    const NAMES: Names = Names::new("networking.k8s.io", "v1", "IPAddress", "ipaddresses", "ipaddress")
        .short(&["ip"])
        .name_rule(NameRule::Ip);
    const SCOPE: Scope = Scope::Cluster;
    const COLUMNS: &'static [Column<Self>] = &[
        Column::NAME,
        Column::<Self>::text("ParentRef", |ip, _| Cell::from(parent(&ip.spec.parent_ref)))
            .field::<IPAddressSpec>("parentRef"),
        Column::AGE,
    ];

    fn validate(&self, errs: &mut FieldErrors) {
        let (parent, path) = (&self.spec.parent_ref, FieldPath::new("spec").child("parentRef"));
        if *parent == ParentReference::default() {
            return errs.required(&path, "");
        }
        if let Some(group) = parent.group.as_deref().filter(|g| !g.is_empty()) {
            errs.invalid_each(&path.child("group"), group, names::is_dns1123_subdomain(group));
        }
        for (field, text) in [("resource", &parent.resource), ("name", &parent.name)] {
            if text.is_empty() {
                errs.required(&path.child(field), "");
            }
            errs.invalid_each(&path.child(field), text, names::is_path_segment(text));
        }
        if let Some(namespace) = &parent.namespace {
            errs.invalid_each(&path.child("namespace"), namespace, names::is_path_segment(namespace));
        }
    }

    fn validate_update(&self, old: &Self, errs: &mut FieldErrors) {
        let path = FieldPath::new("spec").child("parentRef");
        errs.immutable(&path, &self.spec.parent_ref, &old.spec.parent_ref);
    }
}

/// `services/default/kubernetes`.
fn parent(parent: &ParentReference) -> String {
    let resource = match parent.group.as_deref().unwrap_or_default() {
        "" => parent.resource.clone(),
        group => format!("{}.{group}", parent.resource),
    };
    match parent.namespace.as_deref().unwrap_or_default() {
        "" => format!("{}/{}", resource.to_lowercase(), parent.name),
        namespace => format!("{}/{namespace}/{}", resource.to_lowercase(), parent.name),
    }
}
