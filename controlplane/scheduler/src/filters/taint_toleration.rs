//! A node with a `NoSchedule` or `NoExecute` taint takes only pods that tolerate it.

use k8s_openapi::api::core::v1::{Taint, Toleration};

use crate::{Changes, Filter, NodeInfo, PodInfo, PreparedFilter, Unmet, Verdict};

/// Compares taints with tolerations.
pub struct TaintToleration;

struct Tolerations<'p>(&'p [Toleration]);

impl Filter for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn unblocked_by(&self) -> Changes {
        Changes::NODE_ADDED | Changes::NODE_TAINTS
    }

    fn prepare<'p>(&self, pod: &'p PodInfo) -> Option<Box<dyn PreparedFilter + 'p>> {
        Some(Box::new(Tolerations(&pod.tolerations)))
    }
}

impl PreparedFilter for Tolerations<'_> {
    fn check<'n>(&self, node: &'n NodeInfo) -> Verdict<'n> {
        let value = |t: &'n Taint| t.value.as_deref().unwrap_or_default();
        let untolerated = node.taints.iter().find(|t| !tolerates(self.0, &t.key, value(t), &t.effect));
        match untolerated {
            None => Verdict::Fits,
            Some(taint) => {
                let reason = Unmet::Taint { key: &taint.key, value: value(taint) };
                Verdict::Unfit { reason, preemption_helps: false }
            }
        }
    }
}

/// Whether one of the tolerations covers a taint.
///
/// # Source
/// Kubernetes `staging/src/k8s.io/api/core/v1/toleration.go`, `ToleratesTaint`.
pub(crate) fn tolerates(tolerations: &[Toleration], key: &str, value: &str, effect: &str) -> bool {
    let covers = |wanted: Option<&str>, actual: &str| wanted.is_none_or(|w| w.is_empty() || w == actual);
    tolerations.iter().any(|t| {
        let value_matches = match t.operator.as_deref() {
            None | Some("" | "Equal") => t.value.as_deref().unwrap_or_default() == value,
            Some("Exists") => true,
            Some(_) => false,
        };
        covers(t.effect.as_deref(), effect) && covers(t.key.as_deref(), key) && value_matches
    })
}
