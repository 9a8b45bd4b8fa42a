//! CertificateSigningRequests go when nobody needs them any more: decided ones after an hour, others after a day.
//!
//! Certificates live for ten minutes at least and are not looked into: one that has run out goes with its hour.
//!
//! # Source
//! Kubernetes `pkg/controller/certificates/cleaner/cleaner.go`.

#[cfg(test)]
mod tests;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest as Request;
use podium_api::kind_of;

use crate::{Controller, Key, Plan, Trigger, View, ViewExt, owners::delete};

/// How long what is denied, failed or issued may be looked at.
const DECIDED: SignedDuration = SignedDuration::from_hours(1);
/// How long a request may wait for its approval, or for its certificate after that.
const PENDING: SignedDuration = SignedDuration::from_hours(24);

/// The controller.
pub struct CertificateCleaner;

impl Controller for CertificateCleaner {
    fn name(&self) -> &'static str {
        "certificatesigningrequest-cleaner"
    }

    fn component(&self) -> &'static str {
        "certificatesigningrequest-cleaner-controller"
    }

    fn triggers(&self) -> Vec<Trigger> {
        vec![Trigger { kind: kind_of::<Request>(), keys: |object, _| vec![Key::of(object)] }]
    }

    fn reconcile(&self, key: &Key, view: &dyn View, now: Timestamp) -> Plan {
        let mut plan = Plan::default();
        let Some(request) = view.get_as::<Request>(&key.object) else { return plan };
        match expires_at(&request) {
            Some(at) if at < now => plan.push(delete(&*request)),
            Some(at) => plan.requeue_at(at.checked_add(SignedDuration::from_secs(1)).unwrap_or(at), now),
            None => {}
        }
        plan
    }
}

fn expires_at(request: &Request) -> Option<Timestamp> {
    let status = request.status.as_ref();
    let conditions = || status.iter().flat_map(|s| s.conditions.iter().flatten());
    let issued = status.is_some_and(|s| s.certificate.is_some());
    let ends = conditions().filter_map(|condition| {
        let lifetime = match condition.type_.as_str() {
            "Denied" | "Failed" => DECIDED,
            "Approved" if issued => DECIDED,
            "Approved" => PENDING,
            _ => return None,
        };
        condition.last_update_time.as_ref()?.0.checked_add(lifetime).ok()
    });
    let pending = || {
        let created = request.metadata.creation_timestamp.as_ref().filter(|_| conditions().next().is_none())?;
        created.0.checked_add(PENDING).ok()
    };
    ends.min().or_else(pending)
}
