//! [`Set`]: a ReplicaSet in a plan, and what a Deployment's spec says in numbers.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet},
        core::v1::PodTemplateSpec,
    },
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::history::REVISION;

/// Label that tells the pods of one template from those of others.
pub(super) const TEMPLATE_HASH: &str = "pod-template-hash";

/// A ReplicaSet with the replicas that the plan gives it.
#[derive(Debug, Clone)]
pub(super) struct Set {
    pub(super) seen: Arc<ReplicaSet>,
    /// `spec.replicas` once the plan is applied.
    pub(super) replicas: i32,
}

impl Set {
    pub(super) fn of(seen: Arc<ReplicaSet>) -> Self {
        let replicas = crate::replica_set::wanted(&seen);
        Self { seen, replicas }
    }

    pub(super) fn name(&self) -> &str {
        self.seen.metadata.name.as_deref().unwrap_or_default()
    }

    /// Order by age; the name decides between equals.
    pub(super) fn age_key(&self) -> (Option<jiff::Timestamp>, String) {
        (self.seen.metadata.creation_timestamp.as_ref().map(|t| t.0), self.name().to_owned())
    }

    pub(super) fn annotation(&self, name: &str) -> Option<&str> {
        self.seen.metadata.annotations.as_ref()?.get(name).map(String::as_str)
    }

    pub(super) fn number(&self, annotation: &str) -> Option<i32> {
        self.annotation(annotation)?.parse().ok()
    }

    pub(super) fn revision(&self) -> i64 {
        self.annotation(REVISION).and_then(|r| r.parse().ok()).unwrap_or(0)
    }

    pub(super) fn status_replicas(&self) -> i32 {
        self.seen.status.as_ref().map_or(0, |s| s.replicas)
    }

    pub(super) fn ready(&self) -> i32 {
        self.seen.status.as_ref().and_then(|s| s.ready_replicas).unwrap_or(0)
    }

    pub(super) fn available(&self) -> i32 {
        self.seen.status.as_ref().and_then(|s| s.available_replicas).unwrap_or(0)
    }

    /// How many are on their way out; `None` when its controller has not counted them.
    pub(super) fn terminating(&self) -> Option<i32> {
        self.seen.status.as_ref()?.terminating_replicas
    }

    /// How many are available of those that are wanted: its status may still count pods that it is about to delete.
    pub(super) fn stays_available(&self) -> i32 {
        self.available().min(self.replicas)
    }

    /// Whether it was made for the Deployment's template: the same but for the hash label.
    pub(super) fn has_template_of(&self, deployment: &Deployment) -> bool {
        let ours = deployment.spec.as_ref().map(|s| &s.template);
        let theirs = self.seen.spec.as_ref().and_then(|s| s.template.as_ref());
        let (Some(ours), Some(theirs)) = (ours, theirs) else { return false };
        ours.spec == theirs.spec && without_hash(ours) == without_hash(theirs)
    }
}

fn without_hash(template: &PodTemplateSpec) -> (BTreeMap<&str, &str>, BTreeMap<&str, &str>) {
    let meta = template.metadata.as_ref();
    let labels = meta.and_then(|m| m.labels.as_ref()).into_iter().flatten();
    let annotations = meta.and_then(|m| m.annotations.as_ref()).into_iter().flatten();
    (
        labels.filter(|(k, _)| *k != TEMPLATE_HASH).map(|(k, v)| (k.as_str(), v.as_str())).collect(),
        annotations.map(|(k, v)| (k.as_str(), v.as_str())).collect(),
    )
}

/// Wanted replicas.
pub(super) fn wanted(deployment: &Deployment) -> i32 {
    deployment.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

/// Whether the strategy is `RollingUpdate`.
pub(super) fn rolls(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.as_ref().and_then(|s| s.strategy.as_ref());
    strategy.and_then(|s| s.type_.as_deref()).unwrap_or("RollingUpdate") == "RollingUpdate"
}

/// How many pods above the wanted there may be.
pub(super) fn max_surge(deployment: &Deployment) -> i32 {
    if rolls(deployment) { fenceposts(deployment).0 } else { 0 }
}

/// How many pods below the wanted there may be.
pub(super) fn max_unavailable(deployment: &Deployment) -> i32 {
    let wanted = wanted(deployment);
    if !rolls(deployment) || wanted == 0 { 0 } else { fenceposts(deployment).1.min(wanted) }
}

/// Surge rounds up, unavailable down; when both come out as zero nothing could move, so one may be unavailable.
fn fenceposts(deployment: &Deployment) -> (i32, i32) {
    let strategy = deployment.spec.as_ref().and_then(|s| s.strategy.as_ref());
    let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
    let wanted = wanted(deployment);
    let surge = scaled(rolling.and_then(|r| r.max_surge.as_ref()), wanted, 99);
    let unavailable = scaled(rolling.and_then(|r| r.max_unavailable.as_ref()), wanted, 0);
    (surge, if surge == 0 && unavailable == 0 { 1 } else { unavailable })
}

fn scaled(value: Option<&IntOrString>, of: i32, round: i64) -> i32 {
    let percent = match value {
        Some(IntOrString::Int(n)) => return *n,
        Some(IntOrString::String(text)) => text.trim_end_matches('%').parse().unwrap_or(0),
        None => 25,
    };
    i32::try_from((i64::from(of) * percent + round) / 100).unwrap_or(i32::MAX)
}
