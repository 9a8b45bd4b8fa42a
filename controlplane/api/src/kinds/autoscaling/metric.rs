//! What is right in a metric of an autoscaler.
//!
//! # Source
//! Kubernetes `pkg/apis/autoscaling/validation/validation.go` (`validateMetricSpec`).

use k8s_openapi::{
    api::autoscaling::v2::{CrossVersionObjectReference, MetricIdentifier, MetricSpec, MetricTarget},
    apimachinery::pkg::api::resource::Quantity as WireQuantity,
};

use crate::{
    field::{FieldErrors, FieldPath},
    names,
    quantity::Quantity,
};

const TYPES: [&str; 5] = ["ContainerResource", "External", "Object", "Pods", "Resource"];

/// One source of each sort, in the order in which they are looked at.
const FIELDS: [(&str, &str); 5] = [
    ("object", "Object"),
    ("external", "External"),
    ("pods", "Pods"),
    ("resource", "Resource"),
    ("containerResource", "ContainerResource"),
];

pub(super) fn validate_metric(metric: &MetricSpec, path: &FieldPath, errs: &mut FieldErrors) {
    let kind = metric.type_.as_str();
    if kind.is_empty() {
        errs.required(&path.child("type"), "must specify a metric source type");
    }
    if !TYPES.contains(&kind) {
        errs.not_supported(&path.child("type"), kind, &TYPES);
    }
    let given = FIELDS.iter().map(|(field, _)| *field).filter(|field| is_given(metric, field)).collect::<Vec<_>>();
    if let Some(first) = given.first() {
        validate_source(metric, first, &path.child(first), errs);
    }
    let expected = FIELDS.iter().find(|(_, of)| *of == kind).map(|(field, _)| *field);
    if let Some(expected) = expected.filter(|field| !given.contains(field)) {
        errs.required(&path.child(expected), "must populate information for the given metric source");
    }
    if given.len() != 1 {
        for field in given.into_iter().filter(|field| Some(*field) != expected) {
            errs.forbidden(&path.child(field), "must populate the given metric source only");
        }
    }
}

fn is_given(metric: &MetricSpec, field: &str) -> bool {
    match field {
        "object" => metric.object.is_some(),
        "external" => metric.external.is_some(),
        "pods" => metric.pods.is_some(),
        "resource" => metric.resource.is_some(),
        _ => metric.container_resource.is_some(),
    }
}

fn validate_source(metric: &MetricSpec, field: &str, path: &FieldPath, errs: &mut FieldErrors) {
    let at = path.child("target");
    if let Some(source) = metric.object.as_ref().filter(|_| field == "object") {
        validate_reference(&source.described_object, &path.child("describedObject"), errs);
        validate_identifier(&source.metric, &path.child("metric"), errs);
        validate_target(&source.target, &at, errs);
        if source.target.value.is_none() && source.target.average_value.is_none() {
            errs.required(&at.child("averageValue"), "must set either a target value or averageValue");
        }
    } else if let Some(source) = metric.external.as_ref().filter(|_| field == "external") {
        validate_identifier(&source.metric, &path.child("metric"), errs);
        validate_target(&source.target, &at, errs);
        match (&source.target.value, &source.target.average_value) {
            (None, None) => {
                let detail = "must set either a target value for metric or a per-pod target";
                errs.required(&at.child("averageValue"), detail);
            }
            (Some(_), Some(_)) => {
                let detail = "may not set both a target value for metric and a per-pod target";
                errs.forbidden(&at.child("value"), detail);
            }
            _ => {}
        }
    } else if let Some(source) = metric.pods.as_ref().filter(|_| field == "pods") {
        validate_identifier(&source.metric, &path.child("metric"), errs);
        validate_target(&source.target, &at, errs);
        if source.target.average_value.is_none() {
            errs.required(&at.child("averageValue"), "must specify a positive target averageValue");
        }
    } else if let Some(source) = metric.resource.as_ref().filter(|_| field == "resource") {
        validate_resource(&source.name, &source.target, path, errs);
    } else if let Some(source) = &metric.container_resource {
        validate_resource(&source.name, &source.target, path, errs);
        if source.container.is_empty() {
            errs.required(&path.child("container"), "must specify a container");
        }
    }
}

fn validate_resource(name: &str, target: &MetricTarget, path: &FieldPath, errs: &mut FieldErrors) {
    let at = path.child("target");
    if name.is_empty() {
        errs.required(&path.child("name"), "must specify a resource name");
    }
    validate_target(target, &at, errs);
    match (target.average_utilization, &target.average_value) {
        (None, None) => {
            let detail = "must set either a target raw value or a target utilization";
            errs.required(&at.child("averageUtilization"), detail);
        }
        (Some(_), Some(_)) => {
            let detail = "may not set both a target raw value and a target utilization";
            errs.forbidden(&at.child("averageValue"), detail);
        }
        _ => {}
    }
}

fn validate_target(target: &MetricTarget, path: &FieldPath, errs: &mut FieldErrors) {
    let kind = target.type_.as_str();
    if kind.is_empty() {
        errs.required(&path.child("type"), "must specify a metric target type");
    }
    if !matches!(kind, "Utilization" | "Value" | "AverageValue") {
        errs.invalid(&path.child("type"), kind, "must be either Utilization, Value, or AverageValue");
    }
    let positive = |amount: &Option<WireQuantity>, field: &str, errs: &mut FieldErrors| {
        if let Some(amount) = amount
            && amount.0.parse::<Quantity>().map_or(true, |q| q.is_zero() || q.is_negative())
        {
            errs.invalid(&path.child(field), amount.0.as_str(), "must be positive");
        }
    };
    positive(&target.value, "value", errs);
    positive(&target.average_value, "averageValue", errs);
    if let Some(utilization) = target.average_utilization.filter(|u| *u < 1) {
        errs.invalid(&path.child("averageUtilization"), utilization, "must be greater than 0");
    }
}

fn validate_identifier(id: &MetricIdentifier, path: &FieldPath, errs: &mut FieldErrors) {
    if id.name.is_empty() {
        errs.required(&path.child("name"), "must specify a metric name");
    } else {
        errs.invalid_each(&path.child("name"), &id.name, names::is_path_segment(&id.name));
    }
}

/// Checks a reference to an object that has the scale or the metric.
pub(super) fn validate_reference(target: &CrossVersionObjectReference, path: &FieldPath, errs: &mut FieldErrors) {
    for (field, value) in [("kind", &target.kind), ("name", &target.name)] {
        if value.is_empty() {
            errs.required(&path.child(field), "");
        } else {
            errs.invalid_each(&path.child(field), value, names::is_path_segment(value));
        }
    }
}
