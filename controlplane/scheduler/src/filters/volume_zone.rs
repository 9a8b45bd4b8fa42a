//! A volume that is labelled with zones or regions is used there.
//!
//! # Source
//! Kubernetes `plugins/volumezone/volume_zone.go`.

use podium_api::ObjectKey;

use crate::{Changes, Filter, NodeInfo, Prepared, PreparedFilter, Snapshot, Verdict, subject::Subject};

/// The labels, today's and yesterday's.
const LABELS: [(&str, &str); 4] = [
    ("topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"),
    ("topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region"),
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
];

/// Compares labels of volumes and nodes.
pub struct VolumeZone;

/// Label, the same by its other name, and values that will do.
struct Zones(Vec<(&'static str, &'static str, Vec<String>)>);

impl Filter for VolumeZone {
    fn name(&self) -> &'static str {
        "VolumeZone"
    }

    fn unblocked_by(&self) -> Changes {
        Changes::NODE_ADDED | Changes::NODE_LABELS | Changes::VOLUMES
    }

    fn prepare<'p>(&self, subject: &Subject<'p>, snapshot: &Snapshot) -> Prepared<'p> {
        let mut zones = Vec::new();
        for used in &subject.pod.claims {
            let claim = snapshot.volumes.claim(&ObjectKey::new(&*subject.pod.key.namespace, &*used.name));
            let Some(volume) = claim.and_then(|c| snapshot.volumes.volume(&c.volume)) else { continue };
            for (label, other) in LABELS {
                if let Some(values) = volume.labels.get(label) {
                    zones.push((label, other, values.split("__").map(str::to_owned).collect()));
                }
            }
        }
        if zones.is_empty() { Prepared::Skip } else { Prepared::Check(Box::new(Zones(zones))) }
    }
}

impl PreparedFilter for Zones {
    fn check(&self, _snapshot: &Snapshot, _slot: u32, node: &NodeInfo) -> Verdict {
        // A node that knows nothing of zones is in a cluster that has none.
        let knows = LABELS.iter().any(|(label, _)| node.labels.contains_key(*label));
        let fits = self.0.iter().all(|(label, other, values)| {
            let here = node.labels.get(*label).or_else(|| node.labels.get(*other));
            here.is_some_and(|here| values.contains(here))
        });
        if !knows || fits { Verdict::Fits } else { Verdict::never("node(s) had no available volume zone") }
    }
}
