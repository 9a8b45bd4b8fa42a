//! Which requests need nobody's approval: those of nodes for their own certificates, when who asks may have one.
//!
//! A node's serving certificate is approved here too, which Kubernetes leaves to others: it may have one name only, the
//! node's own, and that can be none of the API server's.

use k8s_openapi::api::certificates::v1::CertificateSigningRequest as Csr;

use super::request::{Asked, KUBELET_CLIENT, KUBELET_SERVING};
use crate::{
    auth::{Attributes, Authorizer as _, Identity},
    node_authorizer::node_of,
    registry::Registry,
};

/// Names that are the API server's, or anybody's.
const TAKEN: [&str; 6] = [
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster",
    "kubernetes.default.svc.cluster.local",
];

/// Why a request is approved; `None` when somebody has to decide.
pub(super) fn approves(registry: &Registry, csr: &Csr) -> Option<&'static str> {
    if csr.spec.signer_name != KUBELET_CLIENT && csr.spec.signer_name != KUBELET_SERVING {
        return None;
    }
    let asked = Asked::of(csr).ok()?;
    let who = Identity {
        user: csr.spec.username.clone().unwrap_or_default(),
        groups: csr.spec.groups.clone().unwrap_or_default(),
        uid: csr.spec.uid.clone().unwrap_or_default(),
        extra: csr.spec.extra.clone().unwrap_or_default(),
    };
    if csr.spec.signer_name == KUBELET_SERVING {
        return serves(&asked, &who).then_some("Auto approving serving certificate of a node for its own name.");
    }
    let may = |subresource| {
        let what = Attributes {
            verb: "create",
            group: "certificates.k8s.io",
            resource: "certificatesigningrequests",
            subresource,
            ..Attributes::default()
        };
        registry.rbac().allows(&who, &what)
    };
    if asked.common_name() == Some(who.user.as_str()) && may("selfnodeclient") {
        return Some("Auto approving self kubelet client certificate after SubjectAccessReview.");
    }
    may("nodeclient").then_some("Auto approving kubelet client certificate after SubjectAccessReview.")
}

/// Whether a node asks for a certificate of its own name alone.
fn serves(asked: &Asked, who: &Identity) -> bool {
    let Some(node) = node_of(who) else { return false };
    asked.common_name() == Some(who.user.as_str()) && asked.only_name() == Some(node) && !TAKEN.contains(&node)
}
