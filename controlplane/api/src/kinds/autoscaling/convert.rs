//! From `autoscaling/v1` to `autoscaling/v2` and back: what v1 cannot say goes into annotations.
//!
//! # Source
//! Kubernetes `pkg/apis/autoscaling/v1/conversion.go`.

use std::collections::BTreeMap;

use k8s_openapi::api::autoscaling::{
    v1,
    v2::{self, MetricSpec, MetricStatus},
};
use serde::{Serialize, de::DeserializeOwned};

use super::v2::cpu;
use crate::{error::ApiError, object::Object};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";
const CURRENT: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";

type Annotations = Option<BTreeMap<String, String>>;

/// The form that is stored.
pub(super) fn to_v2(old: &v1::HorizontalPodAutoscaler) -> v2::HorizontalPodAutoscaler {
    let mut new = v2::HorizontalPodAutoscaler { metadata: old.metadata.clone(), ..Default::default() };
    let annotations = &mut new.metadata.annotations;
    let mut metrics: Vec<MetricSpec> = take(annotations, METRICS).unwrap_or_default();
    let behavior = take(annotations, BEHAVIOR);
    let current: Option<Vec<MetricStatus>> = take(annotations, CURRENT);
    let conditions = take(annotations, CONDITIONS);
    let spec = &old.spec;
    if let Some(percent) = spec.target_cpu_utilization_percentage {
        metrics.insert(0, cpu(percent));
    }
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
    let annotations = &mut old.metadata.annotations;
    let spec = &stored.spec;
    let mut metrics = spec.metrics.clone().unwrap_or_default();
    let at = metrics.iter().position(|m| utilization(m).is_some());
    let percent = at.and_then(|at| utilization(&metrics.remove(at)));
    put(annotations, METRICS, (!metrics.is_empty()).then_some(&metrics))?;
    put(annotations, BEHAVIOR, spec.behavior.as_ref())?;
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
        put(annotations, CURRENT, (!current.is_empty()).then_some(&current))?;
        let conditions = status.conditions.as_deref().unwrap_or_default();
        put(annotations, CONDITIONS, (!conditions.is_empty()).then_some(&conditions))?;
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

/// Reads an annotation and takes it off. What cannot be read stays what it is: a user's annotation.
fn take<T: DeserializeOwned>(annotations: &mut Annotations, key: &str) -> Option<T> {
    let all = annotations.as_mut()?;
    let read = serde_json::from_str(all.get(key)?).ok()?;
    all.remove(key);
    if all.is_empty() {
        *annotations = None;
    }
    Some(read)
}

fn put<T: Serialize>(annotations: &mut Annotations, key: &str, value: Option<&T>) -> Result<(), ApiError> {
    if let Some(value) = value {
        let text = serde_json::to_string(value).map_err(|e| ApiError::internal(e.to_string()))?;
        annotations.get_or_insert_default().insert(key.to_owned(), text);
    }
    Ok(())
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
                    {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 70}}},
                    {"type": "Pods", "pods": {"metric": {"name": "rps"}, "target": {"type": "AverageValue", "averageValue": "10"}}},
                ],
                "behavior": {"scaleDown": {"stabilizationWindowSeconds": 5}},
            },
            "status": {"desiredReplicas": 3, "currentReplicas": 2,
                "conditions": [{"type": "AbleToScale", "status": "True"}]},
        }))
        .unwrap();
        let old = from_v2(&stored).unwrap();
        assert_eq!(old.spec.target_cpu_utilization_percentage, Some(70));
        assert_eq!(old.metadata.annotations.as_ref().unwrap().len(), 4);
        assert_eq!(to_v2(&old), stored);
    }
}
