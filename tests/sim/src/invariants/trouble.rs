//! [`Trouble`]: nodes whose pods may be removed for what is wrong with the node.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use podium_api::k8s_openapi::api::core::v1::Node;
use tokio::time::Instant;

/// For so long after a node was in trouble its pods may be removed for that.
const TROUBLE_SECONDS: u64 = 120;

/// The nodes that are in trouble, or were a short time ago.
#[derive(Default)]
pub(super) struct Trouble {
    last: BTreeMap<String, Instant>,
    /// Whoever has taken them away may have done so for good.
    absent: BTreeSet<String>,
}

impl Trouble {
    pub(super) fn node(&mut self, node: &Node, gone: bool) {
        let name = node.metadata.name.clone().unwrap_or_default();
        let mut taints = node.spec.iter().flat_map(|s| s.taints.iter().flatten());
        let was_absent = if gone { self.absent.insert(name.clone()) } else { self.absent.remove(&name) };
        // Without the effect when nobody is driven away, since too many are lost: a DaemonSet still does not want a pod there.
        let lost = |key: &str| matches!(key, "node.kubernetes.io/unreachable" | "node.kubernetes.io/not-ready");
        if was_absent || taints.any(|taint| taint.effect == "NoExecute" || lost(&taint.key)) {
            self.last.insert(name, Instant::now());
        }
    }

    pub(super) fn is_in(&self, node: &str) -> bool {
        let trouble = Duration::from_secs(TROUBLE_SECONDS);
        self.absent.contains(node) || self.last.get(node).is_some_and(|at| at.elapsed() < trouble)
    }
}
