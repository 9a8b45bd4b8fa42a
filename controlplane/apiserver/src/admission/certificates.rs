//! `CertificateApproval`, `CertificateSigning` and `CertificateSubjectRestriction`: who may approve and sign for which
//! signer, and that nobody gets a client certificate of the administrators' group.
//!
//! # Source
//! Kubernetes `plugin/pkg/admission/certificates/{approval,signing,subjectrestriction}/admission.go`,
//! `pkg/certauthorization/certauthorization.go`.

use async_trait::async_trait;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest as Csr;
use podium_api::ApiError;
use x509_parser::{certification_request::X509CertificationRequest, pem::parse_x509_pem, prelude::FromDer as _};

use super::{Operation, Plugin, Request, Step};
use crate::{
    auth::{Attributes, Authorizer as _, Identity, MASTERS},
    registry::Registry,
};

const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

/// Whether somebody may do something for a signer, or for all of its domain.
fn is_authorized(registry: &Registry, who: &Identity, verb: &str, signer: &str) -> bool {
    let domain = format!("{}/*", signer.split('/').next().unwrap_or_default());
    [signer, &domain].into_iter().any(|name| {
        let what =
            Attributes { verb, group: "certificates.k8s.io", resource: "signers", name, ..Attributes::default() };
        registry.rbac().allows(who, &what)
    })
}

fn changes(step: Step, request: &Request<'_>, subresource: &str) -> bool {
    step == Step::Validate
        && request.operation == Operation::Update
        && request.subresource == subresource
        && request.is_about::<Csr>()
}

/// The plug-in for approvals.
pub(super) struct Approval;

#[async_trait]
impl Plugin for Approval {
    fn name(&self) -> &'static str {
        "CertificateApproval"
    }

    fn handles(&self, step: Step, request: &Request<'_>) -> bool {
        changes(step, request, "approval")
    }

    async fn validate(&self, registry: &Registry, request: &Request<'_>) -> Result<(), ApiError> {
        let Some(old) = request.old.and_then(|o| o.downcast_ref::<Csr>()) else { return Ok(()) };
        let signer = &old.spec.signer_name;
        if is_authorized(registry, request.context.who, "approve", signer) {
            return Ok(());
        }
        Err(request.forbidden(&format!("user not permitted to approve requests with signerName {signer:?}")))
    }
}

/// The plug-in for certificates.
pub(super) struct Signing;

#[async_trait]
impl Plugin for Signing {
    fn name(&self) -> &'static str {
        "CertificateSigning"
    }

    fn handles(&self, step: Step, request: &Request<'_>) -> bool {
        changes(step, request, "status")
    }

    async fn validate(&self, registry: &Registry, request: &Request<'_>) -> Result<(), ApiError> {
        let old = request.old.and_then(|o| o.downcast_ref::<Csr>());
        let (Some(new), Some(old)) = (request.new_as::<Csr>(), old) else { return Ok(()) };
        let certificate = |csr: &Csr| csr.status.as_ref().and_then(|s| s.certificate.clone());
        let conditions = |csr: &Csr| csr.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
        if certificate(new) == certificate(old) && conditions(new) == conditions(old) {
            return Ok(());
        }
        let signer = &old.spec.signer_name;
        if is_authorized(registry, request.context.who, "sign", signer) {
            return Ok(());
        }
        Err(request.forbidden(&format!("user not permitted to sign requests with signerName {signer:?}")))
    }
}

/// The plug-in for subjects.
pub(super) struct SubjectRestriction;

#[async_trait]
impl Plugin for SubjectRestriction {
    fn name(&self) -> &'static str {
        "CertificateSubjectRestriction"
    }

    fn handles(&self, step: Step, request: &Request<'_>) -> bool {
        step == Step::Validate && request.creates::<Csr>()
    }

    async fn validate(&self, _registry: &Registry, request: &Request<'_>) -> Result<(), ApiError> {
        let Some(csr) = request.new_as::<Csr>().filter(|c| c.spec.signer_name == CLIENT_SIGNER) else { return Ok(()) };
        let groups =
            groups(&csr.spec.request.0).map_err(|why| request.forbidden(&format!("failed to parse CSR: {why}")))?;
        if groups.iter().any(|group| group == MASTERS) {
            let why = format!("use of {CLIENT_SIGNER} signer with {MASTERS} group is not allowed");
            return Err(request.forbidden(&why));
        }
        Ok(())
    }
}

/// The organisations of a request's subject.
fn groups(pem: &[u8]) -> Result<Vec<String>, String> {
    let (_, pem) = parse_x509_pem(pem).map_err(|_| "PEM block type must be CERTIFICATE REQUEST".to_owned())?;
    if pem.label != "CERTIFICATE REQUEST" {
        return Err("PEM block type must be CERTIFICATE REQUEST".to_owned());
    }
    let (_, request) = X509CertificationRequest::from_der(&pem.contents).map_err(|error| error.to_string())?;
    let subject = &request.certification_request_info.subject;
    Ok(subject.iter_organization().filter_map(|o| o.as_str().ok()).map(str::to_owned).collect())
}
