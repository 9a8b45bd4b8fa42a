//! `DefaultTolerationSeconds`: pods stay for five minutes on a node that is not ready or cannot be reached, unless they
//! say otherwise.
//!
//! # Source
//! Kubernetes `plugin/pkg/admission/defaulttolerationseconds/admission.go`.

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Pod, PodSpec, Toleration};
use podium_api::ApiError;

use super::{Operation, Plugin, Request, Step};
use crate::registry::Registry;

const SECONDS: i64 = 300;
const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

/// The plug-in.
pub(super) struct DefaultTolerations;

#[async_trait]
impl Plugin for DefaultTolerations {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    fn handles(&self, step: Step, request: &Request<'_>) -> bool {
        step == Step::Admit
            && matches!(request.operation, Operation::Create | Operation::Update)
            && request.subresource.is_empty()
            && request.is_about::<Pod>()
    }

    async fn mutate(&self, _registry: &Registry, request: &mut Request<'_>) -> Result<(), ApiError> {
        if let Some(pod) = request.new_as_mut::<Pod>() {
            fill(pod.spec.get_or_insert_default());
        }
        Ok(())
    }
}

fn fill(spec: &mut PodSpec) {
    for key in TAINTS {
        let says = |t: &Toleration| {
            let of = t.key.as_deref().unwrap_or_default();
            let effect = t.effect.as_deref().unwrap_or_default();
            (of.is_empty() || of == key) && (effect.is_empty() || effect == "NoExecute")
        };
        if spec.tolerations.iter().flatten().any(says) {
            continue;
        }
        spec.tolerations.get_or_insert_with(|| Vec::with_capacity(TAINTS.len())).push(Toleration {
            key: Some(key.to_owned()),
            operator: Some("Exists".to_owned()),
            effect: Some("NoExecute".to_owned()),
            toleration_seconds: Some(SECONDS),
            value: None,
        });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_pod_says_itself_counts() {
        let default =
            |key: &str| json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300});
        let [not_ready, unreachable] = TAINTS.map(default);
        for (given, wanted) in [
            (json!([]), json!([not_ready, unreachable])),
            (json!([{"operator": "Exists"}]), json!([{"operator": "Exists"}])),
            (json!([{"key": TAINTS[0], "effect": "NoSchedule"}]), {
                json!([{"key": TAINTS[0], "effect": "NoSchedule"}, not_ready, unreachable])
            }),
            (json!([{"key": TAINTS[1], "operator": "Exists"}]), {
                json!([{"key": TAINTS[1], "operator": "Exists"}, not_ready])
            }),
        ] {
            let mut spec: PodSpec = serde_json::from_value(json!({"containers": [], "tolerations": given})).unwrap();
            fill(&mut spec);
            assert_eq!(serde_json::to_value(&spec.tolerations).unwrap(), wanted);
        }
    }
}
