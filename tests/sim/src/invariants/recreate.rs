//! What must hold of Deployments that are recreated: none of the new pods is made while old ones may still run.
//!
//! Old ones that were made a short time before are not held against anybody: they may not be known of yet.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use podium_api::k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    core::v1::Pod,
};
use tokio::time::Instant;

use super::{LATE_SECONDS, owner, uid};

/// The Deployments, their ReplicaSets and pods, all by uid.
#[derive(Default)]
pub(super) struct Recreated {
    deployments: BTreeSet<String>,
    /// ReplicaSet -> Deployment.
    sets: BTreeMap<String, String>,
    pods: BTreeMap<String, Member>,
}

struct Member {
    set: String,
    since: Instant,
    ended: bool,
}

impl Recreated {
    pub(super) fn deployment(&mut self, deployment: &Deployment) {
        let strategy = deployment.spec.as_ref().and_then(|s| s.strategy.as_ref()?.type_.as_deref());
        if strategy == Some("Recreate") {
            self.deployments.insert(uid(&deployment.metadata));
        }
    }

    pub(super) fn set(&mut self, set: &ReplicaSet, gone: bool) {
        let owner = owner(&set.metadata);
        if !gone && self.deployments.contains(&owner) {
            self.sets.insert(uid(&set.metadata), owner);
        }
    }

    /// # Errors
    /// What does not hold.
    pub(super) fn pod(&mut self, pod: &Pod, gone: bool) -> Result<(), String> {
        let (id, set) = (uid(&pod.metadata), owner(&pod.metadata));
        let Some(deployment) = self.sets.get(&set) else { return Ok(()) };
        if gone {
            self.pods.remove(&id);
            return Ok(());
        }
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default();
        let ended = matches!(phase, "Failed" | "Succeeded");
        if let Some(known) = self.pods.get_mut(&id) {
            known.ended = ended;
            return Ok(());
        }
        let late = Duration::from_secs(LATE_SECONDS);
        let is_old = |m: &&Member| m.set != set && self.sets.get(&m.set) == Some(deployment);
        let old = self.pods.values().filter(is_old).filter(|m| !m.ended && m.since.elapsed() > late).count();
        self.pods.insert(id, Member { set, since: Instant::now(), ended });
        if old > 0 {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            return Err(format!("pod {name} was made while {old} of those that it replaces were there"));
        }
        Ok(())
    }
}
