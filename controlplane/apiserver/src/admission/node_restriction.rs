//! `NodeRestriction`: a node changes itself, its Lease and the pods that are bound to it, and nothing of others.
//!
//! # Source
//! Kubernetes `plugin/pkg/admission/noderestriction/admission.go`.

use async_trait::async_trait;
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{Node, Pod},
};
use podium_api::ApiError;

use super::{Operation, Plugin, Request, Step, mountable};
use crate::{node_authorizer::node_of, registry::Registry};

const LEASES: &str = "kube-node-lease";
/// Labels that say what nodes are trusted with are not theirs to set.
const RESTRICTED: &str = "node-restriction.kubernetes.io";

/// The plug-in.
pub(super) struct NodeRestriction;

#[async_trait]
impl Plugin for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    fn handles(&self, step: Step, request: &Request<'_>) -> bool {
        step == Step::Validate
            && request.operation != Operation::Connect
            && node_of(request.context.who).is_some()
            && (request.is_about::<Pod>() || request.is_about::<Node>() || request.is_about::<Lease>())
    }

    async fn validate(&self, _registry: &Registry, request: &Request<'_>) -> Result<(), ApiError> {
        let Some(node) = node_of(request.context.who) else { return Ok(()) };
        let judged = match () {
            () if request.is_about::<Pod>() => of_pod(request, node),
            () if request.is_about::<Node>() => of_node(request, node),
            () => of_lease(request, node),
        };
        judged.map_err(|why| request.forbidden(&why))
    }
}

fn of_pod(request: &Request<'_>, node: &str) -> Result<(), String> {
    let bound = |pod: Option<&Pod>| pod.and_then(|p| p.spec.as_ref()?.node_name.as_deref()) == Some(node);
    let old = request.old.and_then(|old| old.downcast_ref::<Pod>());
    let own = |verb: &str| match bound(old) {
        true => Ok(()),
        false => Err(format!("node {node:?} can only {verb} pods with spec.nodeName set to itself")),
    };
    match (request.operation, request.subresource) {
        (Operation::Create, "") => {
            let Some(pod) = request.new_as::<Pod>() else { return Ok(()) };
            if !mountable::is_mirror(pod) {
                return Err(format!(
                    "pod does not have \"kubernetes.io/config.mirror\" annotation, node {node:?} can only create mirror pods"
                ));
            }
            if !bound(Some(pod)) {
                return Err(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
            }
            mountable::judge_mirror(pod)
        }
        // An eviction comes by as the deletion that it is.
        (Operation::Update, "status") => own("update pod status for"),
        (Operation::Delete, "") => own("delete"),
        (_, subresource) => Err(format!("unexpected operation or pod subresource {subresource:?} of node {node:?}")),
    }
}

fn of_node(request: &Request<'_>, node: &str) -> Result<(), String> {
    let new = request.new_as::<Node>();
    // A node that is being made has no name in the path.
    let name = match request.operation {
        Operation::Create => new.and_then(|n| n.metadata.name.as_deref()).unwrap_or_default(),
        _ => request.name,
    };
    if name != node {
        return Err(format!("node {node:?} is not allowed to modify node {name:?}"));
    }
    if request.operation == Operation::Delete {
        return Err(format!("node {node:?} is not allowed to delete itself"));
    }
    let old = request.old.and_then(|old| old.downcast_ref::<Node>());
    if let (Some(new), Some(old)) = (new, old)
        && new.spec.as_ref().and_then(|s| s.taints.as_ref()) != old.spec.as_ref().and_then(|s| s.taints.as_ref())
    {
        return Err(format!("node {node:?} is not allowed to modify taints"));
    }
    let changed = new.into_iter().flat_map(|n| n.metadata.labels.iter().flatten()).find(|(key, value)| {
        let before = old.and_then(|n| n.metadata.labels.as_ref()?.get(*key));
        is_restricted(key) && before != Some(*value)
    });
    match changed {
        Some((key, _)) => Err(format!("is not allowed to modify labels: {key}")),
        None => Ok(()),
    }
}

fn is_restricted(key: &str) -> bool {
    let prefix = key.split_once('/').map_or("", |(prefix, _)| prefix);
    prefix == RESTRICTED || prefix.ends_with(&format!(".{RESTRICTED}"))
}

fn of_lease(request: &Request<'_>, node: &str) -> Result<(), String> {
    if request.namespace != LEASES {
        return Err(format!("can only access leases in the {LEASES:?} system namespace"));
    }
    let name = match request.operation {
        Operation::Create => request.new_as::<Lease>().and_then(|l| l.metadata.name.as_deref()).unwrap_or_default(),
        _ => request.name,
    };
    match name == node {
        true => Ok(()),
        false => Err("can only access node lease with the same name as the requesting node".to_owned()),
    }
}
