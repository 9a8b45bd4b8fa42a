//! `PodTopologyLabels`: a pod that is put on a node gets the labels that say where the node is.
//!
//! # Source
//! Kubernetes `plugin/pkg/admission/podtopologylabels/admission.go`.

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Node, Pod};
use podium_api::{ApiError, Kind as _};

use super::{Operation, Plugin, Request, Step};
use crate::registry::Registry;

const LABELS: [&str; 2] = ["topology.kubernetes.io/region", "topology.kubernetes.io/zone"];

/// The plug-in.
pub(super) struct TopologyLabels;

#[async_trait]
impl Plugin for TopologyLabels {
    fn name(&self) -> &'static str {
        "PodTopologyLabels"
    }

    fn handles(&self, step: Step, request: &Request<'_>) -> bool {
        step == Step::Admit
            && request.operation == Operation::Update
            && request.subresource == "binding"
            && request.is_about::<Pod>()
    }

    async fn mutate(&self, registry: &Registry, request: &mut Request<'_>) -> Result<(), ApiError> {
        let Some(pod) = request.new_as_mut::<Pod>() else { return Ok(()) };
        let Some(node) = pod.spec.as_ref().and_then(|s| s.node_name.as_deref()) else { return Ok(()) };
        // A pod may be put on a node that is not there: its agent may come later.
        let Some(node) = registry.of(&Node::NAMES)?.cache.get("", node) else { return Ok(()) };
        let Some(known) = node.object.meta().labels.as_ref() else { return Ok(()) };
        for label in LABELS {
            if let Some(value) = known.get(label) {
                pod.metadata.labels.get_or_insert_default().insert(label.to_owned(), value.clone());
            }
        }
        Ok(())
    }
}
