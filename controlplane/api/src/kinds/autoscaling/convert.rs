//! From `autoscaling/v1` to `autoscaling/v2` and back: what v1 cannot say goes into annotations.
//!
//! # Source
//! Kubernetes `pkg/apis/autoscaling/v1/conversion.go`.

use std::collections::BTreeMap;

use k8s_openapi::api::autoscaling::{
    v1,
    v2::{self, MetricSpec, MetricStatus},
};
use serde_json::{Value, json};

use super::{annotations, v2::cpu};
use crate::{error::ApiError, object::Object};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CURRENT: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";

type Annotations = Option<BTreeMap<String, String>>;

/// The form that is stored.
pub(super) fn to_v2(old: &v1::HorizontalPodAutoscaler) -> v2::HorizontalPodAutoscaler {
    let mut new = v2::HorizontalPodAutoscaler { metadata: old.metadata.clone(), ..Default::default() };
    let all = &mut new.metadata.annotations;
    let mut metrics = take(all, METRICS, annotations::metrics_from_v1).unwrap_or_default();
    let behavior = take(all, BEHAVIOR, annotations::behavior_from_v1);
    let current = take(all, CURRENT, annotations::statuses_from_v1);
    let conditions = take(all, CONDITIONS, |text| serde_json::from_str(text).ok());
    let spec = &old.spec;
    metrics.extend(spec.target_cpu_utilization_percentage.map(cpu));
    let target = &spec.scale_target_ref;
    new.spec = v2::HorizontalPodAutoscalerSpec {
        scale_target_ref: v2::CrossVersionObjectReference {
            api_version: target.api_version.clone(),
            kind: target.kind.clone(),
            name: target.name.clone(),
        },
        min_replicas: spec.min_replicas,
        max_replicas: spec.max_replicas,
        metrics: Some(metrics).filter(|m| !m.is_empty()),
        behavior,
    };
    new.status = old.status.as_ref().map(|status| v2::HorizontalPodAutoscalerStatus {
        observed_generation: status.observed_generation,
        last_scale_time: status.last_scale_time.clone(),
        current_replicas: Some(status.current_replicas),
        desired_replicas: status.desired_replicas,
        current_metrics: current.or_else(|| status.current_cpu_utilization_percentage.map(|p| vec![current_cpu(p)])),
        conditions,
    });
    new
}

/// The old form of what is stored.
pub(super) fn from_v2(stored: &dyn Object) -> Result<v1::HorizontalPodAutoscaler, ApiError> {
    let stored = stored.downcast_ref::<v2::HorizontalPodAutoscaler>();
    let stored = stored.ok_or_else(|| ApiError::internal("expected an autoscaling/v2 HorizontalPodAutoscaler"))?;
    let mut old = v1::HorizontalPodAutoscaler { metadata: stored.metadata.clone(), ..Default::default() };
    let all = &mut old.metadata.annotations;
    let spec = &stored.spec;
    let mut metrics = spec.metrics.clone().unwrap_or_default();
    let at = metrics.iter().position(|m| utilization(m).is_some());
    let percent = at.and_then(|at| utilization(&metrics.remove(at)));
    put(all, METRICS, (!metrics.is_empty()).then(|| annotations::metrics_to_v1(&metrics)));
    put(all, BEHAVIOR, spec.behavior.as_ref().map(annotations::behavior_to_v1));
    let target = &spec.scale_target_ref;
    old.spec = v1::HorizontalPodAutoscalerSpec {
        scale_target_ref: v1::CrossVersionObjectReference {
            api_version: target.api_version.clone(),
            kind: target.kind.clone(),
            name: target.name.clone(),
        },
        min_replicas: spec.min_replicas,
        max_replicas: spec.max_replicas,
        target_cpu_utilization_percentage: percent,
    };
    if let Some(status) = &stored.status {
        let current = status.current_metrics.as_deref().unwrap_or_default();
        put(all, CURRENT, (!current.is_empty()).then(|| annotations::statuses_to_v1(current)));
        let conditions = status.conditions.as_deref().unwrap_or_default();
        put(all, CONDITIONS, (!conditions.is_empty()).then(|| json!(conditions)));
        let of_cpu = |m: &MetricStatus| m.resource.as_ref().filter(|r| r.name == "cpu")?.current.average_utilization;
        old.status = Some(v1::HorizontalPodAutoscalerStatus {
            observed_generation: status.observed_generation,
            last_scale_time: status.last_scale_time.clone(),
            current_replicas: status.current_replicas.unwrap_or_default(),
            desired_replicas: status.desired_replicas,
            current_cpu_utilization_percentage: current.iter().find_map(of_cpu),
        });
    }
    Ok(old)
}

fn utilization(metric: &MetricSpec) -> Option<i32> {
    metric.resource.as_ref().filter(|r| r.name == "cpu")?.target.average_utilization
}

fn current_cpu(percent: i32) -> MetricStatus {
    let resource = v2::ResourceMetricStatus {
        name: "cpu".to_owned(),
        current: v2::MetricValueStatus { average_utilization: Some(percent), ..Default::default() },
    };
    MetricStatus { type_: "Resource".to_owned(), resource: Some(resource), ..MetricStatus::default() }
}

/// Takes an annotation off and reads it. What cannot be read is gone.
fn take<T>(annotations: &mut Annotations, key: &str, read: impl Fn(&str) -> Option<T>) -> Option<T> {
    let all = annotations.as_mut()?;
    let text = all.remove(key);
    if all.is_empty() {
        *annotations = None;
    }
    read(&text?)
}

/// Takes off what only means something in v1.
pub(super) fn drop_annotations(annotations: &mut Annotations) {
    for key in [METRICS, BEHAVIOR, CURRENT, CONDITIONS] {
        take(annotations, key, |_| None::<()>);
    }
}

fn put(annotations: &mut Annotations, key: &str, value: Option<Value>) {
    if let Some(value) = value {
        annotations.get_or_insert_default().insert(key.to_owned(), value.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_v1_cannot_say_survives_it() {
        let stored: v2::HorizontalPodAutoscaler = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "a", "annotations": {"mine": "1"}},
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
                "minReplicas": 2, "maxReplicas": 5,
                "metrics": [
                    {"type": "Pods", "pods": {"metric": {"name": "rps"}, "target": {"type": "AverageValue", "averageValue": "10"}}},
                    {"type": "Object", "object": {
                        "describedObject": {"kind": "Ingress", "name": "i", "apiVersion": "networking.k8s.io/v1"},
                        "metric": {"name": "hits", "selector": {"matchLabels": {"a": "b"}}},
                        "target": {"type": "AverageValue", "averageValue": "3"},
                    }},
                    {"type": "External", "external": {"metric": {"name": "q"}, "target": {"type": "Value", "value": "7"}}},
                    {"type": "ContainerResource", "containerResource": {
                        "name": "cpu", "container": "c", "target": {"type": "Utilization", "averageUtilization": 50},
                    }},
                    {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}},
                ],
                "behavior": {"scaleDown": {
                    "stabilizationWindowSeconds": 5, "policies": [{"type": "Pods", "value": 1, "periodSeconds": 15}],
                }},
            },
            "status": {"desiredReplicas": 3, "currentReplicas": 2,
                "currentMetrics": [
                    {"type": "Resource", "resource": {"name": "cpu", "current": {"averageUtilization": 20, "averageValue": "5m"}}},
                    {"type": "Object", "object": {
                        "describedObject": {"kind": "Ingress", "name": "i"}, "metric": {"name": "hits"},
                        "current": {"averageValue": "2"},
                    }},
                ],
                "conditions": [{"type": "AbleToScale", "status": "True"}]},
        }))
        .unwrap();
        let old = from_v2(&stored).unwrap();
        assert_eq!(old.spec.target_cpu_utilization_percentage, Some(70));
        let annotations = old.metadata.annotations.clone().unwrap();
        assert_eq!(annotations.len(), 5);
        let wanted = json!([
            {"type": "Pods", "pods": {"metricName": "rps", "targetAverageValue": "10"}},
            {"type": "Object", "object": {
                "target": {"kind": "Ingress", "name": "i", "apiVersion": "networking.k8s.io/v1"},
                "metricName": "hits", "selector": {"matchLabels": {"a": "b"}}, "targetValue": "0", "averageValue": "3",
            }},
            {"type": "External", "external": {"metricName": "q", "targetValue": "7"}},
            {"type": "ContainerResource", "containerResource": {
                "name": "cpu", "container": "c", "targetAverageUtilization": 50,
            }},
        ]);
        assert_eq!(serde_json::from_str::<Value>(&annotations[METRICS]).unwrap(), wanted);
        let wanted = json!({"ScaleUp": null, "ScaleDown": {
            "StabilizationWindowSeconds": 5, "SelectPolicy": null, "Tolerance": null,
            "Policies": [{"Type": "Pods", "Value": 1, "PeriodSeconds": 15}],
        }});
        assert_eq!(serde_json::from_str::<Value>(&annotations[BEHAVIOR]).unwrap(), wanted);
        let wanted = json!([
            {"type": "Resource", "resource": {
                "name": "cpu", "currentAverageUtilization": 20, "currentAverageValue": "5m",
            }},
            {"type": "Object", "object": {
                "target": {"kind": "Ingress", "name": "i"}, "metricName": "hits", "currentValue": "0", "averageValue": "2",
            }},
        ]);
        assert_eq!(serde_json::from_str::<Value>(&annotations[CURRENT]).unwrap(), wanted);
        assert_eq!(to_v2(&old), stored);
    }
}
