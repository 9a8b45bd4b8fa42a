//! Confirms to the network who pods of other nodes are: as the API has them, not as their node says.

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;
use podium_api::ObjectKey;
use podium_client::{ApiExt as _, ApiRef};
use podium_network::{Claim, Workloads};

/// The pods of the cluster.
pub(crate) struct BoundPods(ApiRef);

impl BoundPods {
    pub(crate) fn new(api: ApiRef) -> Self {
        Self(api)
    }
}

#[async_trait]
impl Workloads for BoundPods {
    async fn confirm(&self, claim: Claim<'_>) -> Option<bool> {
        let found = self.0.get_typed::<Pod>(&ObjectKey::new(claim.namespace, claim.pod)).await;
        // One that is gone from the API may still run: it is nobody then.
        found
            .inspect_err(|error| tracing::debug!(%error, ?claim, "nobody says who this pod is"))
            .ok()
            .map(|pod| is(&pod, claim))
    }
}

fn is(pod: &Pod, claim: Claim<'_>) -> bool {
    let Some(spec) = &pod.spec else { return false };
    spec.node_name.as_deref() == Some(claim.node) && spec.service_account_name.as_deref() == Some(claim.service_account)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use podium_client::{Api as _, ModelApi, SystemClock};
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn a_pod_is_who_the_cluster_says() {
        let api = Arc::new(ModelApi::new(Arc::new(SystemClock)));
        let spec = json!({"nodeName": "b", "serviceAccountName": "robot", "containers": [{"name": "c", "image": "x"}]});
        let pod = json!({"metadata": {"namespace": "shop", "name": "web"}, "spec": spec});
        api.create(Box::new(serde_json::from_value::<Pod>(pod).unwrap())).await.unwrap();
        let pods = BoundPods::new(api);
        for (node, namespace, pod, service_account, expected) in [
            ("b", "shop", "web", "robot", Some(true)),
            ("c", "shop", "web", "robot", Some(false)),
            ("b", "shop", "web", "admin", Some(false)),
            ("b", "shop", "gone", "robot", None),
            ("b", "kube-system", "web", "robot", None),
        ] {
            let claim = Claim { node, namespace, pod, service_account };
            assert_eq!(pods.confirm(claim).await, expected, "{claim:?}");
        }
    }
}
