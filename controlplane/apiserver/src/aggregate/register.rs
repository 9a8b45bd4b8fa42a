//! An APIService for each group and version that this server serves itself, for as long as it does.
//!
//! Those that it made carry a label; others are users' and stay as they are.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{DeleteOptions, ObjectMeta},
    kube_aggregator::pkg::apis::apiregistration::v1::{APIService, APIServiceSpec},
};
use podium_api::{ApiError, Kind as _, discovery};
use tokio_util::sync::CancellationToken;

use crate::{
    auth::{Identity, MASTERS},
    registry::{Registry, Resource, WriteContext, cache::Filter},
};

const AUTOMANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";
/// What groups of custom resources have.
const CUSTOM: (i32, i32) = (1000, 100);

/// A group and a version.
type GroupVersion = (&'static str, &'static str);

/// Keeps the APIServices as what is served, for as long as the server runs.
pub(crate) async fn run(registry: Arc<Registry>, stop: CancellationToken) {
    let mut changes = registry.follow_served();
    loop {
        changes.borrow_and_update();
        if let Err(error) = adjust(&registry).await {
            tracing::warn!(%error, "the APIServices of this server's own groups cannot be kept");
        }
        tokio::select! {
            () = stop.cancelled() => return,
            changed = changes.changed() => if changed.is_err() { return },
        }
    }
}

async fn adjust(registry: &Registry) -> Result<(), ApiError> {
    let resource = registry.of(&APIService::NAMES)?;
    let served: BTreeSet<GroupVersion> =
        registry.served().all().iter().map(|r| (r.names.group, r.names.version)).collect();
    let who = Identity::new("system:apiserver", &[MASTERS]);
    let context = WriteContext::new(&who, "kube-apiserver").unchecked();
    for group_version in &served {
        if resource.cache.get("", &name(*group_version)).is_none() {
            registry.create(&resource, "", Box::new(own(*group_version)), &context).await?;
        }
    }
    let names: BTreeSet<String> = served.into_iter().map(name).collect();
    for stale in stale(&resource, &names) {
        let deleted = registry.delete(&resource, "", &stale, &DeleteOptions::default(), &context).await;
        if let Err(error) = deleted
            && !error.is_not_found()
        {
            return Err(error);
        }
    }
    Ok(())
}

/// Those that were made for groups that are served no more.
fn stale(resource: &Resource, wanted: &BTreeSet<String>) -> Vec<String> {
    let entries = resource.cache.list(&Filter::default()).entries;
    let own = entries.iter().filter(|e| e.object.meta().labels.as_ref().is_some_and(|l| l.contains_key(AUTOMANAGED)));
    own.filter_map(|e| e.object.meta().name.clone()).filter(|name| !wanted.contains(name)).collect()
}

fn name((group, version): GroupVersion) -> String {
    // The core group's is `v1.`, with its dot.
    format!("{version}.{group}")
}

fn own((group, version): GroupVersion) -> APIService {
    let known = discovery::priorities(group, version);
    let (group_priority_minimum, version_priority) = known.unwrap_or(CUSTOM);
    let managed = if known.is_some() { "onstart" } else { "true" };
    APIService {
        metadata: ObjectMeta {
            name: Some(name((group, version))),
            labels: Some([(AUTOMANAGED.to_owned(), managed.to_owned())].into()),
            ..ObjectMeta::default()
        },
        spec: Some(APIServiceSpec {
            group: Some(group.to_owned()),
            version: Some(version.to_owned()),
            group_priority_minimum,
            version_priority,
            ..APIServiceSpec::default()
        }),
        status: None,
    }
}
