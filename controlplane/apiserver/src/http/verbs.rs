//! Verbs that are more than storage, over HTTP: scale, binding, eviction, tokens.

use bytes::Bytes;
use http::{Method, StatusCode};
use k8s_openapi::{
    api::{authentication::v1::TokenRequest, autoscaling::v1::Scale, core::v1::Binding, policy::v1::Eviction},
    apimachinery::pkg::apis::meta::v1::Status,
};
use podium_api::{
    ApiError,
    patch::{self, PatchBody},
};

use super::{
    Call, Frontend, about,
    path::Target,
    resources::{Ask, body_of, context, is_dry_run, media_type, not_allowed, plain_shape},
    respond::{self, Answer},
};
use crate::registry::Resource;

impl Frontend {
    pub(super) async fn scale(&self, ask: Ask<'_>) -> Result<Answer, ApiError> {
        let Ask { resource, target, call, body } = ask;
        let encoding = plain_shape(call)?.encoding;
        let key = (target.namespace, target.name);
        let context = context(call)?;
        let scale = match *call.method {
            Method::GET | Method::HEAD => self.registry.scale(resource, target.namespace, target.name).await?,
            Method::PUT => {
                let wanted: Scale = body_of(call, body)?;
                self.registry.update_scale(resource, key, &context, |_| Ok(wanted.clone())).await?
            }
            Method::PATCH => {
                let patch = PatchBody::read(&media_type(call), body)?;
                self.registry
                    .update_scale(resource, key, &context, |scale| patched_scale(resource, scale, &patch))
                    .await?
            }
            _ => return Err(not_allowed()),
        };
        respond::value(StatusCode::OK, encoding, &scale)
    }

    pub(super) async fn bind(&self, target: &Target<'_>, call: &Call<'_>, body: &Bytes) -> Result<Answer, ApiError> {
        let binding: Binding = body_of(call, body)?;
        let own = binding.metadata.name.as_deref().unwrap_or_default();
        let name = if target.name.is_empty() { own } else { target.name };
        if !own.is_empty() && own != name {
            return Err(ApiError::bad_request("name in URL does not match name in Binding object"));
        }
        self.registry.bind(target.namespace, name, &binding, &context(call)?).await?;
        let status = Status { code: Some(201), status: Some("Success".to_owned()), ..Status::default() };
        respond::value(StatusCode::CREATED, plain_shape(call)?.encoding, &status)
    }

    /// `serviceaccounts/token`
    pub(super) async fn token(&self, ask: Ask<'_>) -> Result<Answer, ApiError> {
        let Ask { resource, target, call, body } = ask;
        let encoding = plain_shape(call)?.encoding;
        let entry = self.entry(resource, target).await?;
        let account = entry.object.downcast_ref().ok_or_else(about::unknown)?;
        let mut request: TokenRequest = body_of(call, body)?;
        self.accounts.answer(&self.registry, account, &mut request)?;
        respond::value(StatusCode::CREATED, encoding, &request)
    }

    pub(super) async fn evict(&self, ask: Ask<'_>) -> Result<Answer, ApiError> {
        let Ask { resource, target, call, body } = ask;
        let eviction: Eviction = body_of(call, body)?;
        if eviction.metadata.name.as_deref() != Some(target.name) {
            return Err(ApiError::bad_request("name in URL does not match name in Eviction object"));
        }
        let options = eviction.delete_options.unwrap_or_default();
        let mut context = context(call)?;
        context.dry_run |= is_dry_run(options.dry_run.iter().flatten().map(String::as_str))?;
        self.registry.evict(resource, (target.namespace, target.name), &options, &context).await?;
        let status = Status { code: Some(201), status: Some("Success".to_owned()), ..Status::default() };
        respond::value(StatusCode::CREATED, plain_shape(call)?.encoding, &status)
    }
}

fn patched_scale(resource: &Resource, scale: Scale, body: &PatchBody) -> Result<Scale, ApiError> {
    let tree = serde_json::to_value(scale).map_err(|e| ApiError::internal(e.to_string()))?;
    // A Scale has no lists: a strategic patch of it is a merge patch.
    let body = match body {
        PatchBody::Strategic(patch) => &PatchBody::Merge(patch.clone()),
        other => other,
    };
    let patched = patch::apply(&*resource.kind, tree, body)?;
    serde_json::from_value(patched).map_err(|e| ApiError::bad_request(format!("the patched Scale cannot be read: {e}")))
}
