//! Avoids nodes with `PreferNoSchedule` taints that the pod does not tolerate.

use k8s_openapi::api::core::v1::Toleration;

use crate::{NodeInfo, PodInfo, PreparedScore, Score, Snapshot, filters::tolerates};

/// 100 without such a taint, halved by each.
pub struct PreferredTaints;

struct Tolerations<'p>(&'p [Toleration]);

impl Score for PreferredTaints {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn prepare<'p>(&self, pod: &'p PodInfo, _snapshot: &'p Snapshot) -> Option<Box<dyn PreparedScore + 'p>> {
        Some(Box::new(Tolerations(&pod.tolerations)))
    }
}

impl PreparedScore for Tolerations<'_> {
    fn score(&self, node: &NodeInfo) -> u32 {
        let intolerable = |t: &&_| -> bool {
            let t: &k8s_openapi::api::core::v1::Taint = t;
            !tolerates(self.0, &t.key, t.value.as_deref().unwrap_or_default(), &t.effect)
        };
        let count = node.soft_taints.iter().filter(intolerable).count();
        100_u32 >> count.min(31)
    }
}
