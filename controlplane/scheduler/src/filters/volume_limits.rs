//! A node can attach only so many volumes of a driver.
//!
//! Nodes whose CSINode says nothing of a driver are not limited. A claim without a volume counts as one of its class's
//! driver.
//!
//! # Source
//! Kubernetes `plugins/nodevolumelimits/csi.go`.

use std::collections::BTreeSet;

use podium_api::ObjectKey;

use crate::{
    Changes, Filter, NodeInfo, Prepared, PreparedFilter, Snapshot, Verdict, subject::Subject, volumes::Attached,
};

/// Counts volumes of CSI drivers.
pub struct NodeVolumeLimits;

/// What the pod wants attached.
struct Wanted(BTreeSet<Attached>);

impl Filter for NodeVolumeLimits {
    fn name(&self) -> &'static str {
        "NodeVolumeLimits"
    }

    fn unblocked_by(&self) -> Changes {
        Changes::NODE_ADDED | Changes::POD_REMOVED | Changes::VOLUMES
    }

    fn prepare<'p>(&self, subject: &Subject<'p>, snapshot: &Snapshot) -> Prepared<'p> {
        if !snapshot.volumes.limits_any() {
            return Prepared::Skip;
        }
        let keys = subject.pod.claims.iter().map(|c| ObjectKey::new(&*subject.pod.key.namespace, &*c.name));
        let wanted: BTreeSet<_> = keys.filter_map(|key| snapshot.volumes.attached(&key)).collect();
        if wanted.is_empty() { Prepared::Skip } else { Prepared::Check(Box::new(Wanted(wanted))) }
    }
}

impl PreparedFilter for Wanted {
    /// Allocates, for pods with such volumes only: one volume counts once, however many pods of the node use it.
    fn check(&self, snapshot: &Snapshot, slot: u32, node: &NodeInfo) -> Verdict {
        let drivers: BTreeSet<&str> = self.0.iter().map(|wanted| wanted.driver.as_str()).collect();
        for driver in drivers {
            let Some(limit) = snapshot.volumes.limit(&node.name, driver) else { continue };
            let there = snapshot.claims_on(slot).filter_map(|claim| snapshot.volumes.attached(claim));
            let there: BTreeSet<Attached> = there.filter(|attached| attached.driver == driver).collect();
            let new = self.0.iter().filter(|wanted| wanted.driver == driver && !there.contains(wanted)).count();
            if new > 0 && there.len() + new > limit {
                return Verdict::not_now("node(s) exceed max volume count");
            }
        }
        Verdict::Fits
    }
}
