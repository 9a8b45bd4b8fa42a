//! A claim that only one pod may use has one pod.

use podium_api::ObjectKey;

use crate::{Changes, Filter, NodeInfo, Prepared, PreparedFilter, Snapshot, Verdict, subject::Subject};

/// Looks at claims with the access mode `ReadWriteOncePod`.
pub struct VolumeRestrictions;

/// Claims that only one pod may use.
struct Alone(Vec<ObjectKey>);

impl Filter for VolumeRestrictions {
    fn name(&self) -> &'static str {
        "VolumeRestrictions"
    }

    fn unblocked_by(&self) -> Changes {
        Changes::POD_REMOVED | Changes::VOLUMES
    }

    fn prepare<'p>(&self, subject: &Subject<'p>, snapshot: &Snapshot) -> Prepared<'p> {
        let keys = subject.pod.claims.iter().map(|c| ObjectKey::new(&*subject.pod.key.namespace, &*c.name));
        let alone: Vec<_> = keys.filter(|key| snapshot.volumes.claim(key).is_some_and(|c| c.one_pod)).collect();
        if alone.is_empty() { Prepared::Skip } else { Prepared::Check(Box::new(Alone(alone))) }
    }
}

impl PreparedFilter for Alone {
    fn check(&self, snapshot: &Snapshot, _slot: u32, _node: &NodeInfo) -> Verdict {
        if self.0.iter().any(|claim| snapshot.claim_users(claim) > 0) {
            return Verdict::not_now(
                "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode",
            );
        }
        Verdict::Fits
    }
}
