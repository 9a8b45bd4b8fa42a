//! Refuses webhook configurations whose match conditions cannot be used.
//!
//! # Source
//! Kubernetes `pkg/apis/admissionregistration/validation/validation.go` (`validateMatchConditionsExpression`).

use async_trait::async_trait;
use k8s_openapi::api::admissionregistration::v1::{
    MatchCondition, MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use podium_api::{ApiError, FieldErrors, FieldPath, Object};

use super::{Plugin, Request, Step, matching};
use crate::registry::Registry;

/// The match conditions of each webhook.
type Conditions = Vec<Option<Vec<MatchCondition>>>;

/// The plug-in.
pub(super) struct HookRules;

#[async_trait]
impl Plugin for HookRules {
    fn name(&self) -> &'static str {
        "WebhookMatchConditions"
    }

    fn handles(&self, step: Step, request: &Request<'_>) -> bool {
        step == Step::Validate && matching::is_exempt(request.resource)
    }

    async fn validate(&self, _registry: &Registry, request: &Request<'_>) -> Result<(), ApiError> {
        let Some(given) = request.object.as_deref().and_then(conditions_of) else { return Ok(()) };
        // What was stored once is not judged again.
        let known = request.old.and_then(conditions_of).unwrap_or_default();
        let mut errs = FieldErrors::new();
        for (i, conditions) in given.iter().enumerate().filter(|(_, conditions)| !known.contains(conditions)) {
            let path = FieldPath::new("webhooks").index(i).child("matchConditions");
            let compiled = matching::conditions(conditions.as_deref(), false);
            for (j, (condition, (_, result))) in conditions.iter().flatten().zip(compiled).enumerate() {
                if let Err(error) = result {
                    let path = path.index(j).child("expression");
                    errs.invalid(&path, condition.expression.as_str(), &error.to_string());
                }
            }
        }
        if errs.is_empty() {
            return Ok(());
        }
        Err(ApiError::invalid(&request.resource.names, request.name, errs))
    }
}

fn conditions_of(object: &dyn Object) -> Option<Conditions> {
    if let Some(hooks) = object.downcast_ref::<MutatingWebhookConfiguration>() {
        return Some(hooks.webhooks.iter().flatten().map(|hook| hook.match_conditions.clone()).collect());
    }
    let hooks = object.downcast_ref::<ValidatingWebhookConfiguration>()?;
    Some(hooks.webhooks.iter().flatten().map(|hook| hook.match_conditions.clone()).collect())
}
