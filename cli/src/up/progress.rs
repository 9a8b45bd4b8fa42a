//! Applies the manifests and tells how they come up, a line for each thing that changes.

use std::{collections::HashSet, time::Duration};

use anyhow::{Context, Result};
use podium_api::{
    k8s_openapi::api::{
        apps::v1::Deployment,
        core::v1::{Event, Pod},
    },
    kind_of,
};
use podium_client::{Delta, MirrorScope};
use tokio::sync::mpsc::UnboundedReceiver;

use super::{UpArgs, cluster::Cluster};
use crate::commands::apply::{Document, apply_documents};

/// Applies the documents and waits until their Deployments are available.
pub(crate) async fn bring_up(cluster: &Cluster, documents: Vec<Document>, args: &UpArgs) -> Result<()> {
    let mut watched = Watched::new(cluster).await?;
    for line in apply_documents(cluster.client().await?, &documents).await? {
        println!("  {line}");
    }
    let wanted: HashSet<String> = documents.iter().filter_map(|d| d.deployment_key()).collect();
    let mut telling = Telling { wanted, ..Telling::default() };
    let all_ready = async {
        while !telling.wanted.is_empty() {
            let Some(line) = watched.next(&mut telling).await else { break };
            println!("  {line}");
        }
    };
    if tokio::time::timeout(Duration::from_secs(args.wait), all_ready).await.is_err() {
        let waiting = telling.wanted.iter().cloned().collect::<Vec<_>>().join(", ");
        println!("  not ready after {} s: {waiting} (podium describe deployment says why)", args.wait);
    }
    Ok(())
}

struct Watched {
    deployments: UnboundedReceiver<Delta>,
    pods: UnboundedReceiver<Delta>,
    events: UnboundedReceiver<Delta>,
}

#[derive(Default)]
struct Telling {
    /// Deployments that are not available yet.
    wanted: HashSet<String>,
    /// What has been said already.
    said: HashSet<String>,
}

impl Watched {
    async fn new(cluster: &Cluster) -> Result<Self> {
        let api = cluster.api();
        let mirror = async |kind| api.mirror(&kind, MirrorScope::default()).await.context("watch the cluster");
        Ok(Self {
            deployments: mirror(kind_of::<Deployment>()).await?.subscribe(),
            pods: mirror(kind_of::<Pod>()).await?.subscribe(),
            events: mirror(kind_of::<Event>()).await?.subscribe(),
        })
    }

    /// The next line to print.
    async fn next(&mut self, telling: &mut Telling) -> Option<String> {
        loop {
            let line = tokio::select! {
                delta = self.deployments.recv() => deployment_line(&delta?, telling),
                delta = self.pods.recv() => pod_line(&delta?),
                delta = self.events.recv() => event_line(&delta?),
            };
            if let Some(line) = line.filter(|line| telling.said.insert(line.clone())) {
                return Some(line);
            }
            if telling.wanted.is_empty() {
                return None;
            }
        }
    }
}

fn deployment_line(delta: &Delta, telling: &mut Telling) -> Option<String> {
    let Delta::Put { new, .. } = delta else { return None };
    let deployment = new.downcast_ref::<Deployment>()?;
    let key = new.key().to_string();
    if !telling.wanted.contains(&key) {
        return None;
    }
    let wanted = deployment.spec.as_ref()?.replicas.unwrap_or(1);
    let status = deployment.status.clone().unwrap_or_default();
    let seen = status.observed_generation >= deployment.metadata.generation;
    let (ready, updated) = (status.ready_replicas.unwrap_or(0), status.updated_replicas.unwrap_or(0));
    if seen && updated >= wanted && status.available_replicas.unwrap_or(0) >= wanted {
        telling.wanted.remove(&key);
    }
    Some(format!("deployment/{}  {ready} of {wanted} ready", new.key().name))
}

/// Why a container does not start.
fn pod_line(delta: &Delta) -> Option<String> {
    let Delta::Put { new, .. } = delta else { return None };
    let pod = new.downcast_ref::<Pod>()?;
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    statuses.iter().find_map(|container| {
        let waiting = container.state.as_ref()?.waiting.as_ref()?;
        let reason = waiting.reason.as_deref()?;
        let harmless = ["ContainerCreating", "PodInitializing"].contains(&reason);
        let message = waiting.message.as_deref().unwrap_or_default();
        (!harmless).then(|| format!("pod/{} {}: {reason}: {message}", new.key().name, container.name))
    })
}

/// What the agent does with images; the same image is named once.
fn event_line(delta: &Delta) -> Option<String> {
    let Delta::Put { new, .. } = delta else { return None };
    let event = new.downcast_ref::<Event>()?;
    let reason = event.reason.as_deref()?;
    ["Pulling", "Pulled"].contains(&reason).then(|| format!("image  {}", event.message.as_deref().unwrap_or_default()))
}
