//! `autoscaling/v2`: replicas by metrics.
//!
//! # Source
//! Kubernetes `pkg/apis/autoscaling/v2/defaults.go`, `pkg/apis/autoscaling/validation/validation.go`,
//! `pkg/printers/internalversion/printers.go` (`printHorizontalPodAutoscaler`).

use k8s_openapi::api::autoscaling::v2::{
    HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec,
    HorizontalPodAutoscalerStatus, MetricSpec, MetricTarget, ResourceMetricSource,
};

use super::{
    convert,
    metric::{validate_metric, validate_reference},
};
use crate::{
    field::{FieldErrors, FieldPath},
    kind::{Cell, Column, Kind, Names, Scope, Sub},
    kinds::pod,
};

/// The utilization that is aimed at when no metric is named.
const CPU_UTILIZATION: i32 = 80;
const WINDOW_MAX: i32 = 3600;
const PERIOD_MAX: i32 = 1800;
const SELECT: [&str; 3] = ["Disabled", "Max", "Min"];

impl Kind for HorizontalPodAutoscaler {
    const NAMES: Names = Names::new(
        "autoscaling",
        "v2",
        "HorizontalPodAutoscaler",
        "horizontalpodautoscalers",
        "horizontalpodautoscaler",
    )
    .short(&["hpa"])
    .categories(&["all"]);
    const SCOPE: Scope = Scope::Namespaced;
    const SUBRESOURCES: &'static [Sub<Self>] = &[Sub::STATUS];
    const COLUMNS: &'static [Column<Self>] = &[
        Column::NAME,
        Column::<Self>::text("Reference", |h, _| {
            let target = &h.spec.scale_target_ref;
            Cell::from(format!("{}/{}", target.kind, target.name))
        })
        .field::<HorizontalPodAutoscalerSpec>("scaleTargetRef"),
        Column::<Self>::text("Targets", |h, _| Cell::from(targets(h))).field::<HorizontalPodAutoscalerSpec>("metrics"),
        Column::<Self>::text("MinPods", |h, _| {
            Cell::from(h.spec.min_replicas.map_or_else(|| "<unset>".to_owned(), |m| m.to_string()))
        })
        .field::<HorizontalPodAutoscalerSpec>("minReplicas"),
        Column::<Self>::text("MaxPods", |h, _| Cell::from(h.spec.max_replicas))
            .field::<HorizontalPodAutoscalerSpec>("maxReplicas"),
        Column::<Self>::text("Replicas", |h, _| {
            Cell::from(h.status.as_ref().and_then(|s| s.current_replicas).unwrap_or_default())
        })
        .field::<HorizontalPodAutoscalerStatus>("currentReplicas"),
        Column::AGE,
    ];

    fn fill_defaults(&mut self) {
        convert::drop_annotations(&mut self.metadata.annotations);
        fill_spec_defaults(&mut self.spec);
    }

    crate::kind::status_apart!();

    fn validate(&self, errs: &mut FieldErrors) {
        validate_spec(&self.spec, &FieldPath::new("spec"), errs);
    }

    fn validate_status_update(&self, _old: &Self, errs: &mut FieldErrors) {
        let (Some(status), path) = (&self.status, FieldPath::new("status")) else { return };
        let current = i64::from(status.current_replicas.unwrap_or_default());
        errs.non_negative(&path.child("currentReplicas"), current);
        errs.non_negative(&path.child("desiredReplicas"), i64::from(status.desired_replicas));
    }
}

pub(super) fn fill_spec_defaults(spec: &mut HorizontalPodAutoscalerSpec) {
    spec.min_replicas.get_or_insert(1);
    let metrics = spec.metrics.get_or_insert_default();
    if metrics.is_empty() {
        metrics.push(cpu(CPU_UTILIZATION));
    }
    if let Some(behavior) = &mut spec.behavior {
        let pods = |kind: &str, value| HPAScalingPolicy { type_: kind.to_owned(), value, period_seconds: 15 };
        let up = behavior.scale_up.get_or_insert_default();
        fill_rules(up, 0, &[pods("Pods", 4), pods("Percent", 100)]);
        let down = behavior.scale_down.get_or_insert_default();
        let window = down.stabilization_window_seconds;
        fill_rules(down, 300, &[pods("Percent", 100)]);
        // Left open, the cluster's own window counts.
        down.stabilization_window_seconds = window;
    }
}

fn fill_rules(rules: &mut HPAScalingRules, window: i32, policies: &[HPAScalingPolicy]) {
    pod::text_default(&mut rules.select_policy, "Max");
    rules.stabilization_window_seconds.get_or_insert(window);
    if rules.policies.as_ref().is_none_or(Vec::is_empty) {
        rules.policies = Some(policies.to_vec());
    }
}

/// A metric of the pods' own CPU.
pub(super) fn cpu(utilization: i32) -> MetricSpec {
    MetricSpec {
        type_: "Resource".to_owned(),
        resource: Some(ResourceMetricSource {
            name: "cpu".to_owned(),
            target: MetricTarget {
                type_: "Utilization".to_owned(),
                average_utilization: Some(utilization),
                ..MetricTarget::default()
            },
        }),
        ..MetricSpec::default()
    }
}

fn validate_spec(spec: &HorizontalPodAutoscalerSpec, path: &FieldPath, errs: &mut FieldErrors) {
    let min = spec.min_replicas.unwrap_or(1);
    if min < 1 {
        errs.invalid(&path.child("minReplicas"), min, "must be greater than or equal to 1");
    }
    if spec.max_replicas < 1 {
        errs.invalid(&path.child("maxReplicas"), spec.max_replicas, "must be greater than 0");
    }
    if spec.max_replicas < min {
        let detail = "must be greater than or equal to `minReplicas`";
        errs.invalid(&path.child("maxReplicas"), spec.max_replicas, detail);
    }
    validate_reference(&spec.scale_target_ref, &path.child("scaleTargetRef"), errs);
    for (i, metric) in spec.metrics.iter().flatten().enumerate() {
        validate_metric(metric, &path.child("metrics").index(i), errs);
    }
    if let Some(behavior) = &spec.behavior {
        let path = path.child("behavior");
        for (field, rules) in [("scaleUp", &behavior.scale_up), ("scaleDown", &behavior.scale_down)] {
            if let Some(rules) = rules {
                validate_rules(rules, &path.child(field), errs);
            }
        }
    }
}

fn validate_rules(rules: &HPAScalingRules, path: &FieldPath, errs: &mut FieldErrors) {
    if let Some(window) = rules.stabilization_window_seconds {
        let at = path.child("stabilizationWindowSeconds");
        if window < 0 {
            errs.invalid(&at, window, "must be greater than or equal to zero");
        }
        if window > WINDOW_MAX {
            errs.invalid(&at, window, &format!("must be less than or equal to {WINDOW_MAX}"));
        }
    }
    if let Some(select) = rules.select_policy.as_deref().filter(|s| !SELECT.contains(s)) {
        errs.not_supported(&path.child("selectPolicy"), select, &SELECT);
    }
    let policies = rules.policies.as_deref().unwrap_or_default();
    if policies.is_empty() {
        errs.required(&path.child("policies"), "must specify at least one Policy");
    }
    for (i, policy) in policies.iter().enumerate() {
        let at = path.child("policies").index(i);
        if !matches!(policy.type_.as_str(), "Pods" | "Percent") {
            errs.not_supported(&at.child("type"), &policy.type_, &["Percent", "Pods"]);
        }
        if policy.value <= 0 {
            errs.invalid(&at.child("value"), policy.value, "must be greater than zero");
        }
        if policy.period_seconds <= 0 {
            errs.invalid(&at.child("periodSeconds"), policy.period_seconds, "must be greater than zero");
        }
        if policy.period_seconds > PERIOD_MAX {
            let detail = format!("must be less than or equal to {PERIOD_MAX}");
            errs.invalid(&at.child("periodSeconds"), policy.period_seconds, &detail);
        }
    }
}

/// `cpu: 30%/80%, pods/requests: 5/10 + 1 more...`, as `kubectl get` prints it.
pub(super) fn targets(hpa: &HorizontalPodAutoscaler) -> String {
    let metrics = hpa.spec.metrics.as_deref().unwrap_or_default();
    if metrics.is_empty() {
        return "<none>".to_owned();
    }
    let current = hpa.status.as_ref().and_then(|s| s.current_metrics.as_deref()).unwrap_or_default();
    let shown = |(i, metric): (usize, &MetricSpec)| {
        let value = current.get(i);
        let (name, target, average) = match metric {
            MetricSpec { resource: Some(r), .. } => (format!("{}: ", r.name), &r.target, ""),
            MetricSpec { container_resource: Some(r), .. } => (format!("{}: ", r.name), &r.target, ""),
            MetricSpec { pods: Some(p), .. } => (String::new(), &p.target, ""),
            MetricSpec { object: Some(o), .. } => (String::new(), &o.target, " (avg)"),
            MetricSpec { external: Some(e), .. } => (String::new(), &e.target, " (avg)"),
            _ => return "<unknown type>".to_owned(),
        };
        let now = value.and_then(|v| {
            let of = v.resource.as_ref().map(|r| &r.current).or(v.pods.as_ref().map(|p| &p.current));
            let of = of.or(v.container_resource.as_ref().map(|r| &r.current));
            let of = of.or(v.object.as_ref().map(|o| &o.current)).or(v.external.as_ref().map(|e| &e.current))?;
            match (of.average_utilization, &of.average_value, &of.value) {
                (Some(percent), ..) if target.average_utilization.is_some() => Some(format!("{percent}%")),
                (_, Some(amount), _) | (_, None, Some(amount)) => Some(amount.0.clone()),
                _ => None,
            }
        });
        let wanted = match (target.average_utilization, &target.average_value, &target.value) {
            (Some(percent), ..) => format!("{percent}%"),
            (_, Some(amount), _) => format!("{}{average}", amount.0),
            (_, _, Some(amount)) => amount.0.clone(),
            _ => "<auto>".to_owned(),
        };
        format!("{name}{}/{wanted}", now.unwrap_or_else(|| "<unknown>".to_owned()))
    };
    const SHOWN_MAX: usize = 2;
    let mut out = metrics.iter().enumerate().take(SHOWN_MAX).map(shown).collect::<Vec<_>>().join(", ");
    if metrics.len() > SHOWN_MAX {
        out.push_str(&format!(" + {} more...", metrics.len() - SHOWN_MAX));
    }
    out
}
