//! A node with a `NoSchedule` or `NoExecute` taint takes only pods that tolerate it.

use k8s_openapi::api::core::v1::Toleration;

use crate::{Changes, Filter, NodeInfo, PodInfo, Prepared, PreparedFilter, Snapshot, Verdict, subject::Subject};

/// Compares taints with tolerations.
pub struct TaintToleration;

struct Tolerations<'p>(&'p PodInfo);

impl Filter for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn unblocked_by(&self) -> Changes {
        Changes::NODE_ADDED | Changes::NODE_TAINTS
    }

    fn prepare<'p>(&self, subject: &Subject<'p>, snapshot: &Snapshot) -> Prepared<'p> {
        if snapshot.census.tainted == 0 { Prepared::Skip } else { Prepared::Check(Box::new(Tolerations(subject.pod))) }
    }
}

impl PreparedFilter for Tolerations<'_> {
    fn check(&self, _snapshot: &Snapshot, _slot: u32, node: &NodeInfo) -> Verdict {
        if tolerates_all(self.0, node) { Verdict::Fits } else { Verdict::never("node(s) had untolerated taint(s)") }
    }
}

/// Whether a pod tolerates what keeps others off a node.
pub(crate) fn tolerates_all(pod: &PodInfo, node: &NodeInfo) -> bool {
    node.taints.iter().all(|t| tolerates(&pod.tolerations, &t.key, t.value.as_deref().unwrap_or_default(), &t.effect))
}

/// Whether a pod tolerates everything.
pub(crate) fn honors_all_taints(pod: &PodInfo) -> bool {
    let empty = |text: &Option<String>| text.as_deref().unwrap_or_default().is_empty();
    pod.tolerations.iter().any(|t| empty(&t.key) && empty(&t.effect) && t.operator.as_deref() == Some("Exists"))
}

/// Whether one of the tolerations covers a taint.
///
/// # Source
/// Kubernetes `staging/src/k8s.io/component-helpers/scheduling/corev1/helpers.go`, `TolerationsTolerateTaint`.
pub(crate) fn tolerates(tolerations: &[Toleration], key: &str, value: &str, effect: &str) -> bool {
    let covers = |wanted: Option<&str>, actual: &str| wanted.is_none_or(|w| w.is_empty() || w == actual);
    let compared = |wanted: Option<&str>, holds: fn(i64, i64) -> bool| {
        let numbers = value.parse().ok().zip(wanted.unwrap_or_default().parse().ok());
        numbers.is_some_and(|(actual, bound)| holds(actual, bound))
    };
    tolerations.iter().any(|t| {
        covers(t.effect.as_deref(), effect)
            && covers(t.key.as_deref(), key)
            && match t.operator.as_deref() {
                None | Some("" | "Equal") => t.value.as_deref().unwrap_or_default() == value,
                Some("Exists") => true,
                Some("Gt") => compared(t.value.as_deref(), |actual, bound| actual > bound),
                Some("Lt") => compared(t.value.as_deref(), |actual, bound| actual < bound),
                Some(_) => false,
            }
    })
}
