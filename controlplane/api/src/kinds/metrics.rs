//! `metrics.k8s.io`: what pods and nodes use now. Computed when it is asked for, never stored.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/metrics/pkg/apis/metrics/v1beta1/types.go`.

use std::collections::BTreeMap;

use k8s_openapi::{
    ClusterResourceScope, Metadata, NamespaceResourceScope, Resource,
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{ObjectMeta, Time},
    },
    schemars::{JsonSchema, Schema, SchemaGenerator, json_schema},
};
use serde::{Deserialize, Serialize};

use crate::kind::{Cell, Column, Kind, Names, Scope, Storage};

const GROUP: &str = "metrics.k8s.io";
const VERSION: &str = "v1beta1";
const API_VERSION: &str = "metrics.k8s.io/v1beta1";

/// What one pod uses.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(into = "Wire", from = "Wire")]
pub struct PodMetrics {
    /// Names the pod.
    pub metadata: ObjectMeta,
    /// The end of the time looked at.
    pub timestamp: Option<Time>,
    /// How long that time was, as Go writes durations.
    pub window: String,
    /// Each container's own.
    pub containers: Vec<ContainerMetrics>,
}

/// What one container uses.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ContainerMetrics {
    /// Its name.
    pub name: String,
    /// By resource: `cpu` and `memory`.
    pub usage: BTreeMap<String, Quantity>,
}

/// What one node uses.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(into = "Wire", from = "Wire")]
pub struct NodeMetrics {
    /// Names the node.
    pub metadata: ObjectMeta,
    /// The end of the time looked at.
    pub timestamp: Option<Time>,
    /// How long that time was, as Go writes durations.
    pub window: String,
    /// By resource: `cpu` and `memory`.
    pub usage: BTreeMap<String, Quantity>,
}

/// Both, as they stand in JSON.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    metadata: ObjectMeta,
    timestamp: Option<Time>,
    #[serde(default)]
    window: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    containers: Option<Vec<ContainerMetrics>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    usage: Option<BTreeMap<String, Quantity>>,
}

impl From<PodMetrics> for Wire {
    fn from(of: PodMetrics) -> Self {
        Self {
            api_version: API_VERSION.to_owned(),
            kind: PodMetrics::KIND.to_owned(),
            metadata: of.metadata,
            timestamp: of.timestamp,
            window: of.window,
            containers: Some(of.containers),
            usage: None,
        }
    }
}

impl From<Wire> for PodMetrics {
    fn from(wire: Wire) -> Self {
        let Wire { metadata, timestamp, window, containers, .. } = wire;
        Self { metadata, timestamp, window, containers: containers.unwrap_or_default() }
    }
}

impl From<NodeMetrics> for Wire {
    fn from(of: NodeMetrics) -> Self {
        Self {
            api_version: API_VERSION.to_owned(),
            kind: NodeMetrics::KIND.to_owned(),
            metadata: of.metadata,
            timestamp: of.timestamp,
            window: of.window,
            containers: None,
            usage: Some(of.usage),
        }
    }
}

impl From<Wire> for NodeMetrics {
    fn from(wire: Wire) -> Self {
        let Wire { metadata, timestamp, window, usage, .. } = wire;
        Self { metadata, timestamp, window, usage: usage.unwrap_or_default() }
    }
}

impl Resource for PodMetrics {
    const API_VERSION: &'static str = API_VERSION;
    const GROUP: &'static str = GROUP;
    const KIND: &'static str = "PodMetrics";
    const VERSION: &'static str = VERSION;
    const URL_PATH_SEGMENT: &'static str = "pods";
    type Scope = NamespaceResourceScope;
}

impl Metadata for PodMetrics {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl Resource for NodeMetrics {
    const API_VERSION: &'static str = API_VERSION;
    const GROUP: &'static str = GROUP;
    const KIND: &'static str = "NodeMetrics";
    const VERSION: &'static str = VERSION;
    const URL_PATH_SEGMENT: &'static str = "nodes";
    type Scope = ClusterResourceScope;
}

impl Metadata for NodeMetrics {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl Kind for PodMetrics {
    const NAMES: Names = Names::new(GROUP, VERSION, "PodMetrics", "pods", "podmetrics");
    const SCOPE: Scope = Scope::Namespaced;
    const STORAGE: Storage = Storage::Computed;
    const COLUMNS: &'static [Column<Self>] = &[
        Column::NAME,
        Column::<Self>::text("cpu", |of, _| Cell::from(sum(of, "cpu"))).help("CPU of all containers, in cores"),
        Column::<Self>::text("memory", |of, _| Cell::from(sum(of, "memory"))).help("Memory of all containers"),
        Column::<Self>::text("Window", |of, _| Cell::from(of.window.clone())).help("How long was looked"),
    ];
}

impl Kind for NodeMetrics {
    const NAMES: Names = Names::new(GROUP, VERSION, "NodeMetrics", "nodes", "nodemetrics");
    const SCOPE: Scope = Scope::Cluster;
    const STORAGE: Storage = Storage::Computed;
    const COLUMNS: &'static [Column<Self>] = &[
        Column::NAME,
        Column::<Self>::text("cpu", |of, _| Cell::from(shown(&of.usage, "cpu"))).help("CPU of the node, in cores"),
        Column::<Self>::text("memory", |of, _| Cell::from(shown(&of.usage, "memory"))).help("Memory of the node"),
        Column::<Self>::text("Window", |of, _| Cell::from(of.window.clone())).help("How long was looked"),
    ];
}

fn shown(usage: &BTreeMap<String, Quantity>, name: &str) -> String {
    usage.get(name).map(|quantity| quantity.0.clone()).unwrap_or_default()
}

fn sum(of: &PodMetrics, name: &str) -> String {
    let all = of.containers.iter().filter_map(|container| container.usage.get(name));
    let all = all.filter_map(|wire| crate::quantity::Quantity::try_from(wire).ok());
    all.sum::<crate::quantity::Quantity>().to_string()
}

const PACKAGE: &str = "io.k8s.metrics.pkg.apis.metrics.v1beta1";

impl JsonSchema for PodMetrics {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("{PACKAGE}.PodMetrics").into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = common("PodMetrics sets resource usage metrics of a pod.", generator);
        let containers = generator.subschema_for::<ContainerMetrics>();
        insert(
            &mut schema,
            "containers",
            json_schema!({
                "description": "Metrics for all containers are collected within the same time window.",
                "type": "array",
                "items": containers,
            }),
        );
        schema
    }
}

impl JsonSchema for NodeMetrics {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("{PACKAGE}.NodeMetrics").into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = common("NodeMetrics sets resource usage metrics of a node.", generator);
        let usage = usage(generator);
        insert(&mut schema, "usage", usage);
        schema
    }
}

impl JsonSchema for ContainerMetrics {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("{PACKAGE}.ContainerMetrics").into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let usage = usage(generator);
        json_schema!({
            "description": "ContainerMetrics sets resource usage metrics of a container.",
            "type": "object",
            "properties": {
                "name": { "description": "Container name corresponding to the one from pod.spec.containers.", "type": "string" },
                "usage": usage,
            },
            "required": ["name", "usage"],
        })
    }
}

fn usage(generator: &mut SchemaGenerator) -> Schema {
    let quantity = generator.subschema_for::<Quantity>();
    json_schema!({
        "description": "The memory usage is the memory working set.",
        "type": "object",
        "additionalProperties": quantity,
    })
}

fn common(description: &str, generator: &mut SchemaGenerator) -> Schema {
    let metadata = generator.subschema_for::<ObjectMeta>();
    let time = generator.subschema_for::<Time>();
    json_schema!({
        "description": description,
        "type": "object",
        "properties": {
            "apiVersion": { "description": "APIVersion defines the versioned schema of this representation of an object.", "type": "string" },
            "kind": { "description": "Kind is a string value representing the REST resource this object represents.", "type": "string" },
            "metadata": metadata,
            "timestamp": time,
            "window": { "description": "The following fields define time interval from which metrics were collected from the interval [Timestamp-Window, Timestamp].", "type": "string" },
        },
        "required": ["timestamp", "window"],
    })
}

fn insert(schema: &mut Schema, name: &str, property: Schema) {
    let properties = schema.ensure_object().get_mut("properties").and_then(serde_json::Value::as_object_mut);
    if let Some(properties) = properties {
        properties.insert(name.to_owned(), property.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Object as _;

    #[test]
    fn it_stands_in_json_as_the_metrics_server_writes_it() {
        let usage = |cpu: &str| BTreeMap::from([("cpu".to_owned(), Quantity(cpu.to_owned()))]);
        let container = ContainerMetrics { name: "c".into(), usage: usage("5m") };
        let mut pod = PodMetrics {
            window: "15s".into(),
            containers: vec![container.clone(), container],
            ..PodMetrics::default()
        };
        pod.metadata.name = Some("p".into());
        let json = String::from_utf8(pod.to_json().unwrap()).unwrap();
        let wanted = r#"{"apiVersion":"metrics.k8s.io/v1beta1","kind":"PodMetrics","metadata":{"name":"p"},"timestamp":null,"window":"15s","containers":[{"name":"c","usage":{"cpu":"5m"}},{"name":"c","usage":{"cpu":"5m"}}]}"#;
        assert_eq!(json, wanted);
        assert_eq!(serde_json::from_str::<PodMetrics>(&json).unwrap(), pod);
        assert_eq!(sum(&pod, "cpu"), "10m");
    }
}
