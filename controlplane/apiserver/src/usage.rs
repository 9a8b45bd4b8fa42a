//! `metrics.k8s.io`: what pods and nodes use, from the nodes' own summaries, taken when somebody asks.
//!
//! # Source
//! `sigs.k8s.io/metrics-server`, `pkg/api` and `pkg/storage`; kubelet's `/stats/summary`.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Node, Pod},
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{ObjectMeta, Time},
    },
};
use podium_api::{
    ApiError, Kind, Names, Reason,
    kinds::{ContainerMetrics, NodeMetrics, PodMetrics},
};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;

use crate::{
    gateway::NodeGateway,
    registry::{Registry, cache::Entry},
};

/// The group.
pub(crate) const GROUP: &str = NodeMetrics::NAMES.group;
/// Answers within this time show the same.
const FRESH: Duration = Duration::from_secs(1);

/// When the nodes were asked last.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    asked: Mutex<Option<Instant>>,
}

/// The part of kubelet's summary that is shown.
#[derive(Debug, Deserialize)]
struct Summary {
    node: NodeStats,
    #[serde(default)]
    pods: Vec<PodStats>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct NodeStats {
    node_name: String,
    cpu: Cpu,
    memory: Memory,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodStats {
    pod_ref: PodRef,
    #[serde(default)]
    containers: Vec<ContainerStats>,
}

#[derive(Debug, Deserialize)]
struct PodRef {
    name: String,
    namespace: String,
}

#[derive(Debug, Deserialize)]
struct ContainerStats {
    name: String,
    cpu: Cpu,
    memory: Memory,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Cpu {
    time: Timestamp,
    #[serde(default)]
    usage_nano_cores: u64,
    #[serde(default)]
    window_seconds: f64,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Memory {
    #[serde(default)]
    working_set_bytes: u64,
}

impl Usage {
    /// Asks the nodes, unless that was done just now.
    ///
    /// # Errors
    /// 503 when there is no node to ask.
    pub(crate) async fn refresh(&self, registry: &Registry, nodes: Option<&dyn NodeGateway>) -> Result<(), ApiError> {
        let mut asked = self.asked.lock().await;
        if asked.is_some_and(|at| at.elapsed() < FRESH) {
            return Ok(());
        }
        let nodes =
            nodes.ok_or_else(|| ApiError::new(Reason::ServiceUnavailable, "no node can be asked by this server"))?;
        let summaries = nodes.summaries().await?;
        let (of_nodes, of_pods) = read(registry, summaries)?;
        replace(registry, &NodeMetrics::NAMES, of_nodes)?;
        replace(registry, &PodMetrics::NAMES, of_pods)?;
        *asked = Some(Instant::now());
        Ok(())
    }
}

fn read(registry: &Registry, summaries: Vec<Value>) -> Result<(Vec<NodeMetrics>, Vec<PodMetrics>), ApiError> {
    let (mut of_nodes, mut of_pods) = (Vec::new(), Vec::new());
    let (nodes, pods) = (registry.of(&Node::NAMES)?, registry.of(&Pod::NAMES)?);
    for summary in summaries {
        let summary: Summary = serde_json::from_value(summary)
            .map_err(|error| ApiError::internal(format!("a node's summary cannot be read: {error}")))?;
        let node = summary.node;
        // One that has gone is not shown, though it still answers.
        if let Some(entry) = nodes.cache.get("", &node.node_name) {
            of_nodes.push(NodeMetrics {
                metadata: metadata(entry.object.meta(), node.cpu.time),
                timestamp: Some(Time(node.cpu.time)),
                window: window(node.cpu.window_seconds),
                usage: usage(node.cpu, node.memory),
            });
        }
        for pod in summary.pods {
            let Some(entry) = pods.cache.get(&pod.pod_ref.namespace, &pod.pod_ref.name) else { continue };
            let Some(first) = pod.containers.first().map(|c| c.cpu) else { continue };
            let containers = pod.containers.into_iter();
            let containers =
                containers.map(|c| ContainerMetrics { usage: usage(c.cpu, c.memory), name: c.name }).collect();
            of_pods.push(PodMetrics {
                metadata: metadata(entry.object.meta(), first.time),
                timestamp: Some(Time(first.time)),
                window: window(first.window_seconds),
                containers,
            });
        }
    }
    Ok((of_nodes, of_pods))
}

/// Named and labelled as what is measured, so that it can be selected the same way.
fn metadata(of: &ObjectMeta, at: Timestamp) -> ObjectMeta {
    ObjectMeta {
        name: of.name.clone(),
        namespace: of.namespace.clone(),
        labels: of.labels.clone(),
        creation_timestamp: Some(Time(at)),
        ..ObjectMeta::default()
    }
}

fn usage(cpu: Cpu, memory: Memory) -> BTreeMap<String, Quantity> {
    BTreeMap::from([
        ("cpu".to_owned(), Quantity(format!("{}n", cpu.usage_nano_cores))),
        ("memory".to_owned(), Quantity(format!("{}Ki", memory.working_set_bytes / 1024))),
    ])
}

/// As Go writes a duration: `15.01s`.
fn window(seconds: f64) -> String {
    format!("{}s", (seconds.max(0.0) * 1000.0).round() / 1000.0)
}

fn replace<K: Kind>(registry: &Registry, names: &Names, objects: Vec<K>) -> Result<(), ApiError> {
    let resource = registry.of(names)?;
    let mut entries = Vec::with_capacity(objects.len());
    for object in objects {
        let meta = object.metadata();
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        let key = resource.cache.key(namespace, meta.name.as_deref().unwrap_or_default());
        entries.push(Entry::of(key, Arc::new(object), &[])?);
    }
    resource.cache.replace(entries);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_the_metrics_server() {
        assert_eq!([window(15.0), window(0.0126), window(-1.0)], ["15s", "0.013s", "0s"]);
        let at = Timestamp::UNIX_EPOCH;
        let cpu = Cpu { time: at, usage_nano_cores: 5_000_001, window_seconds: 1.0 };
        let found = usage(cpu, Memory { working_set_bytes: 10 << 20 });
        assert_eq!((found["cpu"].0.as_str(), found["memory"].0.as_str()), ("5000001n", "10240Ki"));
    }
}
