//! ComponentStatuses: whether the parts that keep the cluster's state work. Computed, never stored.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::{ComponentCondition, ComponentStatus};
use podium_api::{ApiError, Kind as _, Object};
use tokio_util::sync::CancellationToken;

use crate::registry::{Registry, cache::Entry};

/// How often the parts are asked.
const EVERY: Duration = Duration::from_secs(5);
/// The one part that this server cannot be ready without, under the name that it has in Kubernetes.
const STORE: &str = "etcd-0";

/// Keeps the statuses, for as long as the server runs.
pub(crate) async fn run(registry: Arc<Registry>, stop: CancellationToken) {
    loop {
        if let Err(error) = refresh(&registry) {
            tracing::warn!(%error, "the status of the components cannot be shown");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

fn refresh(registry: &Registry) -> Result<(), ApiError> {
    let resource = registry.of(&ComponentStatus::NAMES)?;
    let mut status = ComponentStatus { conditions: Some(vec![health(registry.check_store())]), ..Default::default() };
    status.metadata.name = Some(STORE.to_owned());
    let object: Arc<dyn Object> = Arc::new(status);
    resource.cache.load(Entry::of(resource.cache.key("", STORE), object, &[])?);
    Ok(())
}

fn health(check: Result<(), ApiError>) -> ComponentCondition {
    let (status, message, error) = match check {
        Ok(()) => ("True", Some("ok".to_owned()), None),
        Err(why) => ("False", None, Some(why.message)),
    };
    ComponentCondition { type_: "Healthy".to_owned(), status: status.to_owned(), message, error }
}
