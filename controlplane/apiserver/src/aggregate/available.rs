//! Whether other API servers can be reached: their conditions, and the resources that they say they serve.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/kube-aggregator/pkg/controllers/status/remote/remote_available_controller.go`.

use std::{sync::Arc, time::Duration};

use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Time,
    kube_aggregator::pkg::apis::apiregistration::v1::{APIService, APIServiceCondition, APIServiceSpec},
};
use podium_api::{ApiError, Kind as _};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::Aggregator;
use crate::{
    auth::{Identity, MASTERS},
    outbound,
    registry::{Part, WriteContext, cache::Filter},
};

/// How often a server that can be reached is asked again.
const EVERY: Duration = Duration::from_secs(30);
/// How often one is asked that cannot.
const SOON: Duration = Duration::from_secs(1);
/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of a resource list.
const LIST_BYTES_MAX: usize = 4 * 1024 * 1024;

impl Aggregator {
    /// Looks after all APIServices of other servers, for as long as this one runs.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let Ok(resource) = self.registry.of(&APIService::NAMES) else { return };
        let mut changes = resource.cache.subscribe(Filter::default());
        loop {
            let all = self.check_all().await;
            tokio::select! {
                () = stop.cancelled() => return,
                change = changes.recv() => if change.is_none() { return },
                () = tokio::time::sleep(if all { EVERY } else { SOON }) => {}
            }
            // Several changes are one reason to look.
            while changes.try_recv().is_ok() {}
        }
    }

    /// Whether all can be reached.
    async fn check_all(&self) -> bool {
        let Ok(resource) = self.registry.of(&APIService::NAMES) else { return true };
        let mut all = true;
        let mut names = Vec::new();
        for entry in resource.cache.list(&Filter::default()).entries {
            let Some(service) = entry.object.downcast_ref::<APIService>() else { continue };
            let Some(spec) = service.spec.as_ref().filter(|s| s.service.is_some()) else { continue };
            let name = service.metadata.name.clone().unwrap_or_default();
            let condition = self.check(&name, spec).await;
            all &= condition.status == "True";
            if let Err(error) = self.report(service, condition).await {
                tracing::warn!(name, %error, "whether an API server can be reached cannot be told");
            }
            names.push(name);
        }
        self.resources.write().retain(|name, _| names.contains(name));
        all
    }

    async fn check(&self, name: &str, spec: &APIServiceSpec) -> APIServiceCondition {
        let path = format!(
            "/apis/{}/{}",
            spec.group.as_deref().unwrap_or_default(),
            spec.version.as_deref().unwrap_or_default()
        );
        let (status, reason, message) = match tokio::time::timeout(TIMEOUT, self.fetch(spec, &path)).await {
            Ok(Ok(list)) => {
                self.resources.write().insert(name.to_owned(), list);
                ("True", "Passed", "all checks passed".to_owned())
            }
            failed => {
                self.resources.write().remove(name);
                let why = failed.map_or_else(|_| "no answer in time".to_owned(), |r| r.err().unwrap_or_default());
                let service = spec.service.clone().unwrap_or_default();
                let text = |t: Option<String>| t.unwrap_or_default();
                let shown = format!("{}/{}", text(service.namespace), text(service.name));
                if why.contains("not found") {
                    ("False", "ServiceNotFound", format!("service/{shown} is not present"))
                } else if why.contains("no endpoints available") {
                    ("False", "MissingEndpoints", format!("endpoints for service/{shown} have no addresses"))
                } else {
                    ("False", "FailedDiscoveryCheck", format!("failing or missing response from {path}: {why}"))
                }
            }
        };
        APIServiceCondition {
            type_: "Available".to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: None,
        }
    }

    async fn fetch(&self, spec: &APIServiceSpec, path: &str) -> Result<Value, String> {
        let empty = Empty::new().map_err(|never| match never {}).boxed_unsync();
        let request = Request::get(path)
            .header(header::ACCEPT, "application/json")
            .header("x-remote-user", "system:kube-aggregator");
        let request = request.header("x-remote-group", MASTERS).body(empty).map_err(|e| e.to_string())?;
        let answer = self.send(spec, request).await?;
        let status = answer.status();
        let body = outbound::read(answer.into_body(), LIST_BYTES_MAX).await?;
        if status != StatusCode::OK {
            return Err(format!("bad status {status}"));
        }
        serde_json::from_slice(&body).map_err(|e| format!("the answer is no JSON: {e}"))
    }

    async fn report(&self, service: &APIService, mut condition: APIServiceCondition) -> Result<(), ApiError> {
        let known = service.status.iter().flat_map(|s| s.conditions.iter().flatten());
        let same = known.into_iter().find(|c| c.type_ == condition.type_ && c.status == condition.status);
        condition.last_transition_time = match same {
            Some(same) if same.reason == condition.reason && same.message == condition.message => return Ok(()),
            Some(same) => same.last_transition_time.clone(),
            None => Some(Time(self.registry.clock().now())),
        };
        let resource = self.registry.of(&APIService::NAMES)?;
        let who = Identity::new("system:apiserver", &[MASTERS]);
        let context = WriteContext::new(&who, "kube-apiserver").unchecked();
        let name = service.metadata.name.clone().unwrap_or_default();
        let change = |current: &crate::registry::cache::Entry| {
            let mut new = current.object.boxed_clone();
            if let Some(new) = new.downcast_mut::<APIService>() {
                let conditions = new.status.get_or_insert_default().conditions.get_or_insert_default();
                conditions.retain(|c| c.type_ != condition.type_);
                conditions.push(condition.clone());
            }
            Ok(new.into())
        };
        self.registry.update_with(&resource, ("", &name), Part::Status, &context, change).await.map(|_| ())
    }
}
