//! CertificateSigningRequests of Kubernetes' own signers: nodes' are approved by themselves, approved ones are signed.
//!
//! It is done here and not by a controller since the key of the CA never leaves this process. A request is looked at
//! whenever it changes; what cannot be signed gets the condition `Failed` and is not tried again.
//!
//! # Source
//! Kubernetes `pkg/controller/certificates/{approver/sarapprove.go,signer/signer.go}`.

mod approve;
mod request;
mod sign;

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::{
    api::certificates::v1::{CertificateSigningRequest as Csr, CertificateSigningRequestCondition as Condition},
    apimachinery::pkg::apis::meta::v1::Time,
};
use podium_api::{ApiError, Kind as _, Object, Reason};
use podium_client::Delta;
use tokio_util::sync::CancellationToken;

use self::request::Asked;
pub(crate) use self::sign::Signer;
use crate::{
    bootstrap::own,
    registry::{Part, Registry, Resource, WriteContext, cache::Filter},
};

/// The field manager of what is written here.
const OWN: &str = "kube-controller-manager";

/// Approves and signs for as long as the server runs.
pub(crate) async fn run(registry: Arc<Registry>, signer: Signer, stop: CancellationToken) {
    let Ok(resource) = registry.of(&Csr::NAMES) else { return };
    let mut changes = resource.cache.subscribe(Filter::default());
    loop {
        let change = tokio::select! {
            () = stop.cancelled() => return,
            change = changes.recv() => change,
        };
        let Some(change) = change else { return };
        let Delta::Put { new, .. } = change else { continue };
        if let Err(error) = look_at(&registry, &resource, &signer, &*new).await
            && !matches!(error.reason, Reason::NotFound | Reason::Conflict)
        {
            tracing::warn!(request = %new.key(), %error, "a request for a certificate cannot be answered");
        }
    }
}

/// Takes a request one step further.
async fn look_at(registry: &Registry, resource: &Resource, signer: &Signer, new: &dyn Object) -> Result<(), ApiError> {
    let Some(csr) = new.downcast_ref::<Csr>() else { return Ok(()) };
    let done = csr.status.as_ref().is_some_and(|s| s.certificate.is_some());
    if done || has(csr, "Denied") || has(csr, "Failed") || !Asked::is_ours(csr) {
        return Ok(());
    }
    let now = registry.clock().now();
    if !has(csr, "Approved") {
        let Some(message) = approve::approves(registry, csr) else { return Ok(()) };
        let approved = condition("Approved", "AutoApproved", message, now);
        return write(registry, resource, csr, Part::Named("approval"), approved_with(csr, approved)).await;
    }
    let mut answered = csr.clone();
    match Asked::of(csr).and_then(|asked| signer.sign(asked, now)) {
        Ok(pem) => {
            let status = answered.status.get_or_insert_default();
            status.certificate = Some(k8s_openapi::ByteString(pem.into_bytes()));
        }
        Err(why) => answered = approved_with(csr, condition("Failed", "SignerValidationFailure", &why, now)),
    }
    write(registry, resource, csr, Part::Status, answered).await
}

fn approved_with(csr: &Csr, condition: Condition) -> Csr {
    let mut csr = csr.clone();
    csr.status.get_or_insert_default().conditions.get_or_insert_default().push(condition);
    csr
}

fn has(csr: &Csr, kind: &str) -> bool {
    let conditions = csr.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.into_iter().any(|c| c.type_ == kind && c.status == "True")
}

fn condition(kind: &str, reason: &str, message: &str, now: Timestamp) -> Condition {
    Condition {
        type_: kind.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_update_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    }
}

/// Writes what became of a request, at the revision at which it was seen: its change comes by here again.
async fn write(registry: &Registry, resource: &Resource, csr: &Csr, part: Part, new: Csr) -> Result<(), ApiError> {
    let who = own();
    let context = WriteContext::new(&who, OWN).unchecked();
    let name = csr.metadata.name.clone().unwrap_or_default();
    let new: Box<dyn Object> = Box::new(new);
    registry.update_with(resource, ("", &name), part, &context, |_| Ok(new.boxed_clone().into())).await.map(|_| ())
}
