//! An APIService for each group and version that this server serves itself, for as long as it does.
//!
//! Those that it made carry a label; others are users' and stay as they are.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{DeleteOptions, ObjectMeta},
    kube_aggregator::pkg::apis::apiregistration::v1::{APIService, APIServiceSpec},
};
use podium_api::{ApiError, Kind as _};
use tokio_util::sync::CancellationToken;

use crate::{
    auth::{Identity, MASTERS},
    registry::{Registry, Resource, WriteContext, cache::Filter},
};

const AUTOMANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";
/// What groups of custom resources have.
const CUSTOM: (i32, i32) = (1000, 100);

/// The priorities of the groups of Kubernetes: of the group, and of the version in it.
///
/// # Source
/// Kubernetes `pkg/controlplane/apiserver/aggregator.go`.
const PRIORITIES: [(&str, &str, (i32, i32)); 24] = [
    ("", "v1", (18_000, 1)),
    ("apps", "v1", (17_800, 15)),
    ("events.k8s.io", "v1", (17_750, 15)),
    ("authentication.k8s.io", "v1", (17_700, 15)),
    ("authorization.k8s.io", "v1", (17_600, 15)),
    ("autoscaling", "v1", (17_500, 15)),
    ("autoscaling", "v2", (17_500, 30)),
    ("batch", "v1", (17_400, 15)),
    ("certificates.k8s.io", "v1", (17_300, 15)),
    ("networking.k8s.io", "v1", (17_200, 15)),
    ("policy", "v1", (17_100, 15)),
    ("rbac.authorization.k8s.io", "v1", (17_000, 15)),
    ("storage.k8s.io", "v1", (16_800, 15)),
    ("apiextensions.k8s.io", "v1", (16_700, 15)),
    ("admissionregistration.k8s.io", "v1", (16_700, 15)),
    ("scheduling.k8s.io", "v1", (16_600, 15)),
    ("coordination.k8s.io", "v1", (16_500, 15)),
    ("node.k8s.io", "v1", (16_300, 15)),
    ("discovery.k8s.io", "v1", (16_200, 15)),
    ("flowcontrol.apiserver.k8s.io", "v1", (16_100, 21)),
    ("resource.k8s.io", "v1", (16_200, 15)),
    ("storagemigration.k8s.io", "v1", (16_800, 9)),
    ("internal.apiserver.k8s.io", "v1", (16_000, 9)),
    ("apiregistration.k8s.io", "v1", (18_000, 15)),
];

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
    let known = PRIORITIES.iter().find(|(g, v, _)| *g == group && *v == version).map(|(_, _, priority)| *priority);
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
