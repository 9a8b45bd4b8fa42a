//! Which requests need nobody's approval: those of nodes for their own client certificates, when who asks may have one.

use k8s_openapi::api::certificates::v1::CertificateSigningRequest as Csr;

use super::request::{Asked, KUBELET_CLIENT};
use crate::{
    auth::{Attributes, Authorizer as _, Identity},
    registry::Registry,
};

/// Why a request is approved; `None` when somebody has to decide.
pub(super) fn approves(registry: &Registry, csr: &Csr) -> Option<&'static str> {
    if csr.spec.signer_name != KUBELET_CLIENT {
        return None;
    }
    let asked = Asked::of(csr).ok()?;
    let who = Identity {
        user: csr.spec.username.clone().unwrap_or_default(),
        groups: csr.spec.groups.clone().unwrap_or_default(),
        uid: csr.spec.uid.clone().unwrap_or_default(),
        extra: csr.spec.extra.clone().unwrap_or_default(),
    };
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
