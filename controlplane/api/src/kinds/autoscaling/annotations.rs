//! The annotations of `autoscaling/v1` that say what its fields cannot.
//!
//! Metrics have there the JSON of types of v1's own; the behavior has that of a type inside Kubernetes, whose fields
//! are spelled with capitals.
//!
//! # Source
//! Kubernetes `pkg/apis/autoscaling/v1/conversion.go`, `staging/src/k8s.io/api/autoscaling/v1/types.go`,
//! `pkg/apis/autoscaling/types.go`, `pkg/apis/autoscaling/helpers.go`.

use k8s_openapi::{
    api::autoscaling::v2::{
        ContainerResourceMetricSource, ContainerResourceMetricStatus, CrossVersionObjectReference,
        ExternalMetricSource, ExternalMetricStatus, HorizontalPodAutoscalerBehavior, MetricIdentifier, MetricSpec,
        MetricStatus, MetricTarget, MetricValueStatus, ObjectMetricSource, ObjectMetricStatus, PodsMetricSource,
        PodsMetricStatus, ResourceMetricSource, ResourceMetricStatus,
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::LabelSelector},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

/// A metric, aimed at or seen: the types of v1 for both are one here, as they differ in the words before the values.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metric<T> {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<T>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pods: Option<T>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<T>,
    #[serde(skip_serializing_if = "Option::is_none")]
    container_resource: Option<T>,
    #[serde(skip_serializing_if = "Option::is_none")]
    external: Option<T>,
}

fn read<T: DeserializeOwned>(from: &Value, field: &str) -> Option<T> {
    from.get(field).and_then(|value| serde_json::from_value(value.clone()).ok())
}

/// A field that v1 always has.
fn amount(from: &Option<Quantity>) -> Value {
    from.as_ref().map_or_else(|| json!("0"), |q| json!(q))
}

fn set<T: Serialize>(into: &mut Value, field: &str, value: Option<&T>) {
    if let Some(value) = value {
        into[field] = json!(value);
    }
}

fn named(metric: &MetricIdentifier, selector: &str) -> Value {
    let mut out = json!({"metricName": metric.name});
    set(&mut out, selector, metric.selector.as_ref());
    out
}

fn identifier(from: &Value, selector: &str) -> MetricIdentifier {
    MetricIdentifier {
        name: read(from, "metricName").unwrap_or_default(),
        selector: read::<LabelSelector>(from, selector),
    }
}

/// The metrics as the annotation has them.
pub(super) fn metrics_to_v1(metrics: &[MetricSpec]) -> Value {
    let one = |m: &MetricSpec| Metric {
        kind: m.type_.clone(),
        object: m.object.as_ref().map(|s| {
            let mut out = named(&s.metric, "selector");
            out["target"] = json!(s.described_object);
            out["targetValue"] = amount(&s.target.value);
            set(&mut out, "averageValue", s.target.average_value.as_ref());
            out
        }),
        pods: m.pods.as_ref().map(|s| {
            let mut out = named(&s.metric, "selector");
            out["targetAverageValue"] = amount(&s.target.average_value);
            out
        }),
        resource: m.resource.as_ref().map(|s| resource_target(&s.name, &s.target)),
        container_resource: m.container_resource.as_ref().map(|s| {
            let mut out = resource_target(&s.name, &s.target);
            out["container"] = json!(s.container);
            out
        }),
        external: m.external.as_ref().map(|s| {
            let mut out = named(&s.metric, "metricSelector");
            set(&mut out, "targetValue", s.target.value.as_ref());
            set(&mut out, "targetAverageValue", s.target.average_value.as_ref());
            out
        }),
    };
    json!(metrics.iter().map(one).collect::<Vec<_>>())
}

fn resource_target(name: &str, target: &MetricTarget) -> Value {
    let mut out = json!({"name": name});
    set(&mut out, "targetAverageUtilization", target.average_utilization.as_ref());
    set(&mut out, "targetAverageValue", target.average_value.as_ref());
    out
}

/// The metrics that an annotation says.
pub(super) fn metrics_from_v1(text: &str) -> Option<Vec<MetricSpec>> {
    let metrics: Vec<Metric<Value>> = serde_json::from_str(text).ok()?;
    let one = |m: Metric<Value>| MetricSpec {
        type_: m.kind,
        object: m.object.map(|s| {
            let average_value = read::<Quantity>(&s, "averageValue");
            let value = read::<Quantity>(&s, "targetValue").filter(|v| average_value.is_none() || v.0 != "0");
            ObjectMetricSource {
                described_object: read(&s, "target").unwrap_or_default(),
                metric: identifier(&s, "selector"),
                target: target(value, average_value, None),
            }
        }),
        pods: m.pods.map(|s| PodsMetricSource {
            metric: identifier(&s, "selector"),
            target: target(None, read(&s, "targetAverageValue"), None),
        }),
        resource: m.resource.map(|s| ResourceMetricSource {
            name: read(&s, "name").unwrap_or_default(),
            target: target(None, read(&s, "targetAverageValue"), read(&s, "targetAverageUtilization")),
        }),
        container_resource: m.container_resource.map(|s| ContainerResourceMetricSource {
            name: read(&s, "name").unwrap_or_default(),
            container: read(&s, "container").unwrap_or_default(),
            target: target(None, read(&s, "targetAverageValue"), read(&s, "targetAverageUtilization")),
        }),
        external: m.external.map(|s| {
            let value = read(&s, "targetValue");
            let kind = if value.is_some() { "Value" } else { "AverageValue" };
            ExternalMetricSource {
                metric: identifier(&s, "metricSelector"),
                target: MetricTarget { type_: kind.to_owned(), ..target(value, read(&s, "targetAverageValue"), None) },
            }
        }),
    };
    Some(metrics.into_iter().map(one).collect())
}

fn target(value: Option<Quantity>, average_value: Option<Quantity>, utilization: Option<i32>) -> MetricTarget {
    let kind = match (utilization, &average_value, &value) {
        (Some(_), ..) => "Utilization",
        (None, None, Some(_)) => "Value",
        _ => "AverageValue",
    };
    MetricTarget { type_: kind.to_owned(), value, average_value, average_utilization: utilization }
}

/// What was measured, as the annotation has it.
pub(super) fn statuses_to_v1(metrics: &[MetricStatus]) -> Value {
    let one = |m: &MetricStatus| Metric {
        kind: m.type_.clone(),
        object: m.object.as_ref().map(|s| {
            let mut out = named(&s.metric, "selector");
            out["target"] = json!(s.described_object);
            out["currentValue"] = amount(&s.current.value);
            set(&mut out, "averageValue", s.current.average_value.as_ref());
            out
        }),
        pods: m.pods.as_ref().map(|s| {
            let mut out = named(&s.metric, "selector");
            out["currentAverageValue"] = amount(&s.current.average_value);
            out
        }),
        resource: m.resource.as_ref().map(|s| resource_current(&s.name, &s.current)),
        container_resource: m.container_resource.as_ref().map(|s| {
            let mut out = resource_current(&s.name, &s.current);
            out["container"] = json!(s.container);
            out
        }),
        external: m.external.as_ref().map(|s| {
            let mut out = named(&s.metric, "metricSelector");
            out["currentValue"] = amount(&s.current.value);
            set(&mut out, "currentAverageValue", s.current.average_value.as_ref());
            out
        }),
    };
    json!(metrics.iter().map(one).collect::<Vec<_>>())
}

fn resource_current(name: &str, current: &MetricValueStatus) -> Value {
    let mut out = json!({"name": name, "currentAverageValue": amount(&current.average_value)});
    set(&mut out, "currentAverageUtilization", current.average_utilization.as_ref());
    out
}

/// What an annotation says was measured.
pub(super) fn statuses_from_v1(text: &str) -> Option<Vec<MetricStatus>> {
    let metrics: Vec<Metric<Value>> = serde_json::from_str(text).ok()?;
    let one = |m: Metric<Value>| MetricStatus {
        type_: m.kind,
        object: m.object.map(|s| ObjectMetricStatus {
            described_object: read::<CrossVersionObjectReference>(&s, "target").unwrap_or_default(),
            metric: identifier(&s, "selector"),
            current: current(&s, "averageValue"),
        }),
        pods: m.pods.map(|s| PodsMetricStatus {
            metric: identifier(&s, "selector"),
            current: current(&s, "currentAverageValue"),
        }),
        resource: m.resource.map(|s| ResourceMetricStatus {
            name: read(&s, "name").unwrap_or_default(),
            current: current(&s, "currentAverageValue"),
        }),
        container_resource: m.container_resource.map(|s| ContainerResourceMetricStatus {
            name: read(&s, "name").unwrap_or_default(),
            container: read(&s, "container").unwrap_or_default(),
            current: current(&s, "currentAverageValue"),
        }),
        external: m.external.map(|s| ExternalMetricStatus {
            metric: identifier(&s, "metricSelector"),
            current: current(&s, "currentAverageValue"),
        }),
    };
    Some(metrics.into_iter().map(one).collect())
}

fn current(from: &Value, average: &str) -> MetricValueStatus {
    let average_value = read::<Quantity>(from, average);
    MetricValueStatus {
        // Zero is also what is written for none.
        value: read::<Quantity>(from, "currentValue").filter(|v| average_value.is_none() || v.0 != "0"),
        average_utilization: read(from, "currentAverageUtilization"),
        average_value,
    }
}

/// The behavior as the annotation has it.
pub(super) fn behavior_to_v1(behavior: &HorizontalPodAutoscalerBehavior) -> Value {
    let rules = |rules: &Option<k8s_openapi::api::autoscaling::v2::HPAScalingRules>| {
        rules.as_ref().map(|rules| {
            let policies = rules.policies.as_ref().map(|policies| {
                let one = |p: &k8s_openapi::api::autoscaling::v2::HPAScalingPolicy| {
                    json!({"Type": p.type_, "Value": p.value, "PeriodSeconds": p.period_seconds})
                };
                policies.iter().map(one).collect::<Vec<_>>()
            });
            json!({
                "StabilizationWindowSeconds": rules.stabilization_window_seconds,
                "SelectPolicy": rules.select_policy,
                "Policies": policies,
                "Tolerance": rules.tolerance,
            })
        })
    };
    json!({"ScaleUp": rules(&behavior.scale_up), "ScaleDown": rules(&behavior.scale_down)})
}

/// The behavior that an annotation says, its fields spelled in any way.
pub(super) fn behavior_from_v1(text: &str) -> Option<HorizontalPodAutoscalerBehavior> {
    let behavior = serde_json::from_value(uncapitalized(serde_json::from_str(text).ok()?)).ok();
    behavior.filter(|b| *b != HorizontalPodAutoscalerBehavior::default())
}

fn uncapitalized(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let small = |(name, value): (String, Value)| {
                let mut chars = name.chars();
                let first = chars.next().map(|c| c.to_ascii_lowercase());
                (first.into_iter().chain(chars).collect::<String>(), uncapitalized(value))
            };
            Value::Object(fields.into_iter().filter(|(_, value)| !value.is_null()).map(small).collect::<Map<_, _>>())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(uncapitalized).collect()),
        other => other,
    }
}
