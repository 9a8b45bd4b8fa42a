//! Avoids nodes with `PreferNoSchedule` taints that the pod does not tolerate.

use k8s_openapi::api::core::v1::Toleration;

use crate::{
    NodeInfo, PreparedScore, Score, Snapshot, filters::tolerates, plugin::normalize_by_highest, subject::Subject,
};

/// The fewer such taints the better.
pub struct PreferredTaints;

struct Tolerations<'p>(&'p [Toleration]);

impl Score for PreferredTaints {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn prepare<'p>(
        &self,
        subject: &Subject<'p>,
        snapshot: &'p Snapshot,
        _feasible: &[u32],
    ) -> Option<Box<dyn PreparedScore + 'p>> {
        if snapshot.census.soft_tainted == 0 { None } else { Some(Box::new(Tolerations(&subject.pod.tolerations))) }
    }
}

impl PreparedScore for Tolerations<'_> {
    fn score(&self, _slot: u32, node: &NodeInfo) -> i64 {
        let tolerated = |key: &str, value: Option<&String>, effect: &str| {
            tolerates(self.0, key, value.map_or("", String::as_str), effect)
        };
        let intolerable = node.soft_taints.iter().filter(|t| !tolerated(&t.key, t.value.as_ref(), &t.effect));
        i64::try_from(intolerable.count()).unwrap_or(i64::MAX)
    }

    fn normalize(&self, scores: &mut [i64]) {
        normalize_by_highest(scores, true);
    }
}
