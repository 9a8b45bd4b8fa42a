//! `TaintNodesByCondition`: a node is made with the taint of one that is not ready, so that nothing is placed on it
//! before it says that it is. The node controller takes the taint away.
//!
//! # Source
//! Kubernetes `plugin/pkg/admission/nodetaint/admission.go`.

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Node, Taint};
use podium_api::ApiError;

use super::{Plugin, Request, Step};
use crate::registry::Registry;

const KEY: &str = "node.kubernetes.io/not-ready";
const EFFECT: &str = "NoSchedule";

/// The plug-in.
pub(super) struct TaintNodes;

#[async_trait]
impl Plugin for TaintNodes {
    fn name(&self) -> &'static str {
        "TaintNodesByCondition"
    }

    fn handles(&self, step: Step, request: &Request<'_>) -> bool {
        step == Step::Admit && request.creates::<Node>()
    }

    async fn mutate(&self, _registry: &Registry, request: &mut Request<'_>) -> Result<(), ApiError> {
        let Some(node) = request.new_as_mut::<Node>() else { return Ok(()) };
        let taints = node.spec.get_or_insert_default().taints.get_or_insert_default();
        if !taints.iter().any(|t| t.key == KEY && t.effect == EFFECT) {
            taints.push(Taint { key: KEY.to_owned(), effect: EFFECT.to_owned(), ..Taint::default() });
        }
        Ok(())
    }
}
