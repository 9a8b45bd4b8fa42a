//! How objects of one version of a custom resource become those of another: as they are, or by a webhook.
//!
//! A webhook is asked once for all objects of a request. Of the metadata it may change labels and annotations only.
//!
//! # Source
//! Kubernetes `apiextensions-apiserver/pkg/apiserver/conversion/webhook_converter.go`.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use async_trait::async_trait;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{CustomResourceDefinition, WebhookConversion};
use podium_api::{ApiError, KindRef, Names, Object};
use serde_json::{Value, json};

use crate::{
    registry::{
        Registry,
        served::{ByKind, Conversion},
    },
    webhook::{self, Target},
};

/// How long a webhook may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The conversion that a definition asks for.
pub(super) fn of(definition: &CustomResourceDefinition, registry: &Arc<Registry>) -> Arc<dyn Conversion> {
    let conversion = definition.spec.conversion.as_ref().filter(|c| c.strategy == "Webhook");
    match conversion.and_then(|c| c.webhook.as_ref()).and_then(|w| Some((w, target(w)?))) {
        Some((webhook, target)) => Arc::new(ByWebhook {
            // The registry holds the conversion.
            registry: Arc::downgrade(registry),
            target,
            ca_bundle: bundle(webhook),
            version: if webhook.conversion_review_versions.iter().any(|v| v == "v1") { "v1" } else { "v1beta1" },
        }),
        None => Arc::new(ByKind),
    }
}

fn target(webhook: &WebhookConversion) -> Option<Target> {
    let client = webhook.client_config.as_ref()?;
    if let Some(url) = &client.url {
        return Some(Target::Url(url.clone()));
    }
    let service = client.service.as_ref()?;
    Some(Target::Service {
        namespace: service.namespace.clone(),
        name: service.name.clone(),
        path: service.path.clone().unwrap_or_default(),
        port: service.port.unwrap_or(443),
    })
}

fn bundle(webhook: &WebhookConversion) -> Arc<[u8]> {
    let bundle = webhook.client_config.as_ref().and_then(|c| c.ca_bundle.as_ref());
    bundle.map(|b| b.0.as_slice().into()).unwrap_or_default()
}

struct ByWebhook {
    registry: Weak<Registry>,
    target: Target,
    ca_bundle: Arc<[u8]>,
    version: &'static str,
}

/// `example.com/v1, Kind=Widget`
fn shown(names: &Names) -> String {
    format!("{}, Kind={}", names.api_version(), names.kind)
}

#[async_trait]
impl Conversion for ByWebhook {
    async fn convert(&self, objects: Vec<Arc<dyn Object>>, to: &KindRef) -> Result<Vec<Arc<dyn Object>>, ApiError> {
        let Some(first) = objects.first().map(|o| o.names()) else { return Ok(objects) };
        let failed = |why: String| ApiError::internal(format!("conversion webhook for {} {why}", shown(&first)));
        let registry = self.registry.upgrade().ok_or_else(|| failed("failed: the server stops".to_owned()))?;
        let trees: Result<Vec<Value>, _> = objects.iter().map(|o| o.to_value()).collect();
        let trees = trees.map_err(|error| failed(format!("failed: {error}")))?;
        let uid = uuid::Uuid::new_v4().to_string();
        let review = json!({
            "apiVersion": format!("apiextensions.k8s.io/{}", self.version),
            "kind": "ConversionReview",
            "request": {"uid": uid, "desiredAPIVersion": to.names().api_version(), "objects": trees},
        });
        let answer = webhook::call(&registry, &self.target, &self.ca_bundle, &review, TIMEOUT).await;
        let answer = answer.map_err(|error| failed(format!("failed: {error}")))?;
        let converted = converted(answer, &uid, self.version).map_err(|why| failed(format!("failed: {why}")))?;
        if converted.len() != objects.len() {
            return Err(failed(format!("returned {} objects, expected {}", converted.len(), objects.len())));
        }
        let pairs = objects.iter().zip(converted).enumerate();
        let one = |(i, (old, new)): (usize, (&Arc<dyn Object>, Value))| {
            let invalid = |why: String| failed(format!("returned invalid converted object at index {i}: {why}"));
            fit(&**old, new, to).map_err(invalid)
        };
        pairs.map(one).collect()
    }
}

/// The objects of an answer.
fn converted(mut answer: Value, uid: &str, version: &str) -> Result<Vec<Value>, String> {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let wanted = format!("apiextensions.k8s.io/{version}, Kind=ConversionReview");
    let found = format!("{}, Kind={}", text(&answer["apiVersion"]), text(&answer["kind"]));
    if found != wanted {
        return Err(format!("expected webhook response of {wanted}, got {found}"));
    }
    if !answer["response"].is_object() {
        return Err("no response provided".to_owned());
    }
    let response = &mut answer["response"];
    let got = text(&response["uid"]);
    if version == "v1" && got != uid {
        return Err(format!("expected response.uid={uid:?}, got {got:?}"));
    }
    let (status, message) = (text(&response["result"]["status"]), text(&response["result"]["message"]));
    if status != "Success" {
        return Err(if message.is_empty() {
            format!("response.result.status was '{status}', not 'Success'")
        } else {
            message
        });
    }
    match response["convertedObjects"].take() {
        Value::Array(objects) => Ok(objects),
        _ => Ok(Vec::new()),
    }
}

/// One object as the webhook made it, with the metadata that it may not change.
fn fit(old: &dyn Object, new: Value, to: &KindRef) -> Result<Arc<dyn Object>, String> {
    let names = to.names();
    let text = |field: &str| new[field].as_str().unwrap_or_default().to_owned();
    if text("apiVersion") != names.api_version() {
        let (expected, received) = (names.api_version(), text("apiVersion"));
        return Err(format!("invalid groupVersion (expected {expected}, received {received})"));
    }
    if text("kind") != names.kind {
        return Err(format!("invalid kind (expected {}, received {})", names.kind, text("kind")));
    }
    if !new["metadata"].is_object() {
        return Err("missing metadata in converted object".to_owned());
    }
    let mut object = to.decode_value(new).map_err(|error| error.message)?.object;
    let (before, after) = (old.meta(), object.meta());
    for (what, before, after) in [
        ("name", &before.name, &after.name),
        ("namespace", &before.namespace, &after.namespace),
        ("UID", &before.uid, &after.uid),
    ] {
        if before != after {
            let show = |v: &Option<String>| v.clone().unwrap_or_default();
            return Err(format!("must have the same {what}: {} != {}", show(before), show(after)));
        }
    }
    let (labels, annotations) = (after.labels.clone(), after.annotations.clone());
    *object.meta_mut() = before.clone();
    object.meta_mut().labels = labels;
    object.meta_mut().annotations = annotations;
    to.fill_defaults(&mut *object);
    Ok(object.into())
}
