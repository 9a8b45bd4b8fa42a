//! `RuntimeClass`: a pod gets the overhead of its class, and goes only where its class can run.
//!
//! # Source
//! Kubernetes `plugin/pkg/admission/runtimeclass/admission.go`, `pkg/util/tolerations/tolerations.go`.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use k8s_openapi::{
    api::{
        core::v1::{Pod, PodSpec, Toleration},
        node::v1::{RuntimeClass, Scheduling},
    },
    apimachinery::pkg::api::resource::Quantity as WireQuantity,
};
use podium_api::{ApiError, Kind as _, Quantity};

use super::{Plugin, Request, Step};
use crate::registry::Registry;

type Amounts = BTreeMap<String, WireQuantity>;

/// The plug-in.
pub(super) struct RuntimeClasses;

#[async_trait]
impl Plugin for RuntimeClasses {
    fn name(&self) -> &'static str {
        "RuntimeClass"
    }

    fn handles(&self, _step: Step, request: &Request<'_>) -> bool {
        request.creates::<Pod>()
    }

    async fn mutate(&self, registry: &Registry, request: &mut Request<'_>) -> Result<(), ApiError> {
        let Some(class) = class_of(registry, request)? else { return Ok(()) };
        let Some(spec) = request.new_as_mut::<Pod>().and_then(|p| p.spec.as_mut()) else { return Ok(()) };
        adopt(spec, &class).map_err(|why| request.forbidden(&why))
    }

    async fn validate(&self, registry: &Registry, request: &Request<'_>) -> Result<(), ApiError> {
        let class = class_of(registry, request)?;
        let given = request.new_as::<Pod>().and_then(|p| p.spec.as_ref()?.overhead.as_ref());
        match class.as_deref().and_then(overhead_of) {
            Some(overhead) if !given.is_some_and(|given| same(given, overhead)) => Err(request.forbidden(MISMATCH)),
            None if given.is_some() => {
                Err(request
                    .forbidden("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"))
            }
            _ => Ok(()),
        }
    }
}

const MISMATCH: &str = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";

fn class_of(registry: &Registry, request: &Request<'_>) -> Result<Option<Arc<RuntimeClass>>, ApiError> {
    let Some(name) = request.new_as::<Pod>().and_then(|p| p.spec.as_ref()?.runtime_class_name.as_deref()) else {
        return Ok(None);
    };
    let found = registry.of(&RuntimeClass::NAMES)?.cache.get("", name);
    let class = found.and_then(|entry| entry.object.clone().downcast_arc());
    class.map(Some).ok_or_else(|| request.forbidden(&format!("pod rejected: RuntimeClass {name:?} not found")))
}

/// What the class adds to a pod; nothing when it defines no overhead at all.
fn overhead_of(class: &RuntimeClass) -> Option<&Amounts> {
    class.overhead.as_ref()?.pod_fixed.as_ref()
}

fn same(a: &Amounts, b: &Amounts) -> bool {
    let amount = |q: &WireQuantity| q.0.parse::<Quantity>().ok();
    a.len() == b.len() && a.iter().all(|(name, q)| b.get(name).is_some_and(|other| amount(q) == amount(other)))
}

fn adopt(spec: &mut PodSpec, class: &RuntimeClass) -> Result<(), String> {
    if let Some(overhead) = overhead_of(class) {
        if spec.overhead.as_ref().is_some_and(|given| !same(given, overhead)) {
            return Err(MISMATCH.to_owned());
        }
        spec.overhead = Some(overhead.clone());
    }
    match &class.scheduling {
        Some(scheduling) => adopt_scheduling(spec, scheduling),
        None => Ok(()),
    }
}

fn adopt_scheduling(spec: &mut PodSpec, scheduling: &Scheduling) -> Result<(), String> {
    if let Some(wanted) = &scheduling.node_selector {
        let selector = spec.node_selector.get_or_insert_default();
        for (key, value) in wanted {
            if let Some(given) = selector.get(key).filter(|given| *given != value) {
                return Err(format!(
                    "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; pod.spec.nodeSelector[{key}] = {given}"
                ));
            }
            selector.insert(key.clone(), value.clone());
        }
    }
    if let Some(more) = scheduling.tolerations.as_ref().filter(|t| !t.is_empty()) {
        let all = spec.tolerations.iter().flatten().chain(more).cloned().collect();
        spec.tolerations = Some(merged(all));
    }
    Ok(())
}

/// Without those that others cover.
fn merged(all: Vec<Toleration>) -> Vec<Toleration> {
    let mut merged: Vec<Toleration> = Vec::new();
    for (i, one) in all.iter().enumerate() {
        let before = merged.iter().any(|other| covers(other, one));
        // Of two that are the same, the first stays.
        let after = all.iter().skip(i + 1).any(|other| other != one && covers(other, one));
        if !before && !after {
            merged.push(one.clone());
        }
    }
    merged
}

/// Whether a toleration tolerates all that another does.
fn covers(wide: &Toleration, narrow: &Toleration) -> bool {
    fn text(field: &Option<String>) -> &str {
        field.as_deref().unwrap_or_default()
    }
    let every_key = text(&wide.key).is_empty() && text(&wide.operator) == "Exists";
    if wide == narrow {
        return true;
    }
    if text(&wide.key) != text(&narrow.key) && !every_key {
        return false;
    }
    if text(&wide.effect) != text(&narrow.effect) && !text(&wide.effect).is_empty() {
        return false;
    }
    let longer = |limit: i64| narrow.toleration_seconds.is_none_or(|seconds| seconds > limit);
    if text(&wide.effect) == "NoExecute" && wide.toleration_seconds.is_some_and(longer) {
        return false;
    }
    match text(&wide.operator) {
        "Exists" => true,
        "" | "Equal" => text(&narrow.operator) == "Equal" && text(&narrow.value) == text(&wide.value),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn class(value: Value) -> RuntimeClass {
        let mut class = json!({"metadata": {"name": "fast"}, "handler": "fast"});
        class.as_object_mut().unwrap().extend(value.as_object().unwrap().clone());
        serde_json::from_value(class).unwrap()
    }

    #[test]
    fn what_a_pod_gets_of_its_class() {
        let overhead = json!({"overhead": {"podFixed": {"cpu": "100m", "memory": "1Gi"}}});
        let selecting = json!({"scheduling": {"nodeSelector": {"disk": "ssd"}}});
        for (of, pod, wanted) in [
            (&overhead, json!({}), Ok(json!({"overhead": {"cpu": "100m", "memory": "1Gi"}}))),
            (
                &overhead,
                json!({"overhead": {"cpu": "0.1", "memory": "1024Mi"}}),
                Ok(json!({"overhead": {"cpu": "100m", "memory": "1Gi"}})),
            ),
            (&overhead, json!({"overhead": {"cpu": "1"}}), Err(MISMATCH.to_owned())),
            (&selecting, json!({"nodeSelector": {"a": "b"}}), Ok(json!({"nodeSelector": {"a": "b", "disk": "ssd"}}))),
            (
                &selecting,
                json!({"nodeSelector": {"disk": "hdd"}}),
                Err("conflict: runtimeClass.scheduling.nodeSelector[disk] = ssd; pod.spec.nodeSelector[disk] = hdd"
                    .to_owned()),
            ),
        ] {
            let with = |value: Value| {
                let mut spec = json!({"containers": []});
                spec.as_object_mut().unwrap().extend(value.as_object().unwrap().clone());
                serde_json::from_value::<PodSpec>(spec).unwrap()
            };
            let mut spec = with(pod);
            let got = adopt(&mut spec, &class(of.clone())).map(|()| spec);
            assert_eq!(got, wanted.map(with));
        }
    }

    #[test]
    fn tolerations_are_merged() {
        let t = |v: Value| serde_json::from_value::<Toleration>(v).unwrap();
        let all = t(json!({"operator": "Exists"}));
        let key = t(json!({"key": "k", "operator": "Exists", "effect": "NoSchedule"}));
        let value = t(json!({"key": "k", "operator": "Equal", "value": "v", "effect": "NoSchedule"}));
        let short = t(json!({"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}));
        let long = t(json!({"key": "k", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 9}));
        for (given, wanted) in [
            (vec![&key, &key], vec![&key]),
            (vec![&value, &key], vec![&key]),
            (vec![&key, &value], vec![&key]),
            (vec![&short, &long, &key], vec![&long, &key]),
            (vec![&value, &short, &all], vec![&all]),
        ] {
            let owned = |list: Vec<&Toleration>| list.into_iter().cloned().collect::<Vec<_>>();
            assert_eq!(merged(owned(given)), owned(wanted));
        }
    }
}
