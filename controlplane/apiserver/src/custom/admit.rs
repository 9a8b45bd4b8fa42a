//! Checks definitions as they are written, and refuses new objects of those that are on their way out.

use async_trait::async_trait;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use podium_api::{ApiError, FieldErrors, Kind as _, Reason};
use podium_custom::{CustomObject, check_stored_versions, validate_definition};

use crate::{
    admission::{Operation, Plugin, Request, Step},
    registry::Registry,
};

/// What the kind itself cannot check, since it takes CEL and schemas.
pub(crate) struct Definitions;

#[async_trait]
impl Plugin for Definitions {
    fn name(&self) -> &'static str {
        "CustomResourceDefinitions"
    }

    fn handles(&self, step: Step, _request: &Request<'_>) -> bool {
        step == Step::Validate
    }

    async fn validate(&self, registry: &Registry, request: &Request<'_>) -> Result<(), ApiError> {
        let Some(object) = request.object.as_deref() else { return Ok(()) };
        if let Some(definition) = object.downcast_ref::<CustomResourceDefinition>() {
            return check(definition, request);
        }
        if request.operation != Operation::Create || object.downcast_other::<CustomObject>().is_none() {
            return Ok(());
        }
        let names = request.resource.names;
        let of = registry.of(&CustomResourceDefinition::NAMES)?;
        let definition = of.cache.get("", &format!("{}.{}", names.plural, names.group));
        if definition.is_some_and(|d| d.object.meta().deletion_timestamp.is_some()) {
            let message =
                format!("create not allowed while custom resource definition is terminating: {}", names.plural);
            return Err(ApiError::new(Reason::MethodNotAllowed, message));
        }
        Ok(())
    }
}

fn check(definition: &CustomResourceDefinition, request: &Request<'_>) -> Result<(), ApiError> {
    let old = request.old.and_then(|o| o.downcast_ref::<CustomResourceDefinition>());
    let mut errs = FieldErrors::new();
    match (request.operation, request.subresource) {
        (Operation::Create, _) => validate_definition(definition, None, &mut errs),
        // A definition that is on its way out only has to lose its finalizers.
        (Operation::Update, "") if old.is_none_or(|o| o.spec != definition.spec) => {
            validate_definition(definition, old, &mut errs);
        }
        (Operation::Update, "status") => check_stored_versions(definition, &mut errs),
        _ => {}
    }
    if errs.is_empty() {
        return Ok(());
    }
    Err(ApiError::invalid(&CustomResourceDefinition::NAMES, request.name, errs))
}
