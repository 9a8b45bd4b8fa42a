//! ServiceCIDR: the addresses that Services are given.
//!
//! # Source
//! Kubernetes `pkg/apis/networking/validation/validation.go`, `pkg/registry/networking/servicecidr/strategy.go`,
//! `pkg/printers/internalversion/printers.go` (`printServiceCIDR`).

use k8s_openapi::api::networking::v1::{ServiceCIDR, ServiceCIDRSpec};

use super::condition;
use crate::{
    field::{FieldErrors, FieldPath},
    ip::{Cidr, is_canonical_cidr},
    kind::{Cell, Column, Kind, Names, Scope, Sub},
};

impl Kind for ServiceCIDR {
    const NAMES: Names = Names::new("networking.k8s.io", "v1", "ServiceCIDR", "servicecidrs", "servicecidr");
    const SCOPE: Scope = Scope::Cluster;
    const SUBRESOURCES: &'static [Sub<Self>] = &[Sub::STATUS];
    const COLUMNS: &'static [Column<Self>] = &[
        Column::NAME,
        Column::<Self>::text("CIDRs", |s, _| Cell::from(cidrs(s).join(","))).field::<ServiceCIDRSpec>("cidrs"),
        Column::AGE,
    ];

    fn fill_tree(tree: &mut Cell) {
        condition::fill_times(tree);
    }

    fn fill_defaults(&mut self) {
        self.spec.get_or_insert_default();
    }

    crate::kind::status_apart!();

    fn validate(&self, errs: &mut FieldErrors) {
        let (path, cidrs) = (path(), cidrs(self));
        match cidrs.len() {
            0 => return errs.required(&path, "at least one CIDR required"),
            1 | 2 => {}
            _ => {
                let spec = serde_json::to_value(&self.spec).unwrap_or_default();
                return errs.invalid(&path, spec, "may only hold up to 2 values");
            }
        }
        for (i, cidr) in cidrs.iter().enumerate() {
            errs.invalid_each(&path.index(i), cidr, is_canonical_cidr(cidr));
        }
        let families: Vec<bool> = cidrs.iter().filter_map(|c| Cidr::parse(c)).map(Cidr::is_ipv4).collect();
        if matches!(*families, [first, second] if first == second) {
            let detail = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
            errs.invalid(&path, cidrs, detail);
        }
    }

    fn validate_update(&self, old: &Self, errs: &mut FieldErrors) {
        let (new, old) = (cidrs(self), cidrs(old));
        // One family may be added, nothing else may change.
        if new.len() != old.len() && (old.len(), new.len()) != (1, 2) {
            return errs.invalid(&path(), new, "field is immutable");
        }
        for (i, (new, old)) in new.iter().zip(old).enumerate() {
            errs.immutable(&path().index(i), new, old);
        }
    }
}

fn path() -> FieldPath {
    FieldPath::new("spec").child("cidrs")
}

fn cidrs(object: &ServiceCIDR) -> &[String] {
    object.spec.as_ref().and_then(|s| s.cidrs.as_deref()).unwrap_or_default()
}
