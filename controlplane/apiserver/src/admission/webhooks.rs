//! `MutatingAdmissionWebhook` and `ValidatingAdmissionWebhook`.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apiserver/pkg/admission/plugin/webhook/{mutating,validating}/dispatcher.go`.

use async_trait::async_trait;
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
use podium_api::{
    ApiError, Kind as _,
    patch::{self, PatchBody},
};
use serde_json::Value;

use super::{
    Plugin, Request, Step,
    hooks::{self, Configured, Wanted},
    matching,
};
use crate::registry::{Registry, Resource};

/// Lets webhooks change objects, one after the other.
pub(super) struct MutatingWebhooks(Configured);

impl MutatingWebhooks {
    pub(super) fn new() -> Self {
        Self(Configured::new(MutatingWebhookConfiguration::NAMES))
    }
}

#[async_trait]
impl Plugin for MutatingWebhooks {
    fn name(&self) -> &'static str {
        "MutatingAdmissionWebhook"
    }

    fn handles(&self, step: Step, request: &Request<'_>) -> bool {
        step == Step::Admit && !matching::is_exempt(request.resource)
    }

    async fn mutate(&self, registry: &Registry, request: &mut Request<'_>) -> Result<(), ApiError> {
        let wanted = self.0.about(registry, request)?;
        if wanted.is_empty() {
            return Ok(());
        }
        let again = request.reinvocation.is_again();
        if again {
            request.reinvocation.webhooks.require_if_changed(request.object.as_deref());
        }
        for one in &wanted {
            // Who was not asked the first time is not asked the second time either.
            if again && !request.reinvocation.webhooks.is_due(&one.hook.key) {
                continue;
            }
            let Some(changed) = ask(registry, request, one).await? else { continue };
            one.note(request, changed);
            let reinvocation = &mut request.reinvocation;
            if changed {
                reinvocation.webhooks.require();
                reinvocation.changed();
            }
            if one.hook.reinvoked {
                reinvocation.webhooks.asked(one.hook.key.clone());
            }
        }
        request.reinvocation.webhooks.finished(request.object.as_deref());
        Ok(())
    }
}

/// Asks one and does as it says; whether the object is another then, `None` when it was not asked.
async fn ask(registry: &Registry, request: &mut Request<'_>, one: &Wanted) -> Result<Option<bool>, ApiError> {
    let Some(verdict) = one.ask(registry, request, Step::Admit).await? else { return Ok(None) };
    match verdict.patch {
        Some(patch) if patch.as_array().is_none_or(|p| !p.is_empty()) => apply(request, one, patch).await.map(Some),
        _ => Ok(Some(false)),
    }
}

/// Patches the object, in the version that the webhook saw.
async fn apply(request: &mut Request<'_>, one: &Wanted, patch: Value) -> Result<bool, ApiError> {
    if request.object.is_none() || !hooks::changes(request.operation) {
        let name = &one.hook.name;
        return Err(ApiError::internal(format!(
            "admission webhook {name:?} attempted to modify the object, which is not supported for this operation"
        )));
    }
    let patch = PatchBody::Json(patch);
    let put = |shown: &Resource, tree| patch::apply(&*shown.kind, tree, &patch);
    hooks::change(request, one.version.as_deref(), put).await.map_err(|error| ApiError::internal(error.message))
}

/// Lets webhooks judge objects, all at once.
pub(super) struct ValidatingWebhooks(Configured);

impl ValidatingWebhooks {
    pub(super) fn new() -> Self {
        Self(Configured::new(ValidatingWebhookConfiguration::NAMES))
    }
}

#[async_trait]
impl Plugin for ValidatingWebhooks {
    fn name(&self) -> &'static str {
        "ValidatingAdmissionWebhook"
    }

    fn handles(&self, step: Step, request: &Request<'_>) -> bool {
        step == Step::Validate && !matching::is_exempt(request.resource)
    }

    async fn validate(&self, registry: &Registry, request: &Request<'_>) -> Result<(), ApiError> {
        let wanted = self.0.about(registry, request)?;
        if wanted.is_empty() {
            return Ok(());
        }
        let asked = wanted.iter().map(|one| one.ask(registry, request, Step::Validate));
        let refused = futures::future::join_all(asked).await.into_iter().find_map(Result::err);
        refused.map_or(Ok(()), Err)
    }
}
