//! `LimitRanger`: what pods and claims ask for is filled up and kept within the bounds of their namespace.
//!
//! # Source
//! Kubernetes `plugin/pkg/admission/limitranger/admission.go`.

use std::collections::BTreeMap;

use async_trait::async_trait;
use k8s_openapi::{
    api::core::v1::{Container, LimitRange, LimitRangeItem, PersistentVolumeClaim, Pod, ResourceRequirements},
    apimachinery::pkg::api::resource::Quantity as WireQuantity,
};
use podium_api::{
    ApiError, Kind as _, Quantity,
    quota::{self, Usage},
};

use super::{Operation, Plugin, Request, Step};
use crate::registry::{Registry, cache::Filter};

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

type Amounts = BTreeMap<String, WireQuantity>;

/// The plug-in.
pub(super) struct LimitRanger;

#[async_trait]
impl Plugin for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    fn handles(&self, step: Step, request: &Request<'_>) -> bool {
        let written =
            matches!(request.operation, Operation::Create | Operation::Update) && request.subresource.is_empty();
        let claims = step == Step::Validate && written && request.is_about::<PersistentVolumeClaim>();
        claims || asks_anew(request)
    }

    async fn mutate(&self, registry: &Registry, request: &mut Request<'_>) -> Result<(), ApiError> {
        let ranges = ranges_of(registry, request.namespace);
        let Some(pod) = request.object.as_deref_mut().and_then(|o| o.downcast_mut::<Pod>()) else { return Ok(()) };
        for item in ranges.iter().flat_map(items).filter(|item| item.type_ == "Container") {
            fill(pod, item);
        }
        Ok(())
    }

    async fn validate(&self, registry: &Registry, request: &Request<'_>) -> Result<(), ApiError> {
        let Some(object) = request.object.as_deref() else { return Ok(()) };
        let ranges = ranges_of(registry, request.namespace);
        let mut wrong = Vec::new();
        if let Some(pod) = object.downcast_ref::<Pod>() {
            ranges.iter().flat_map(items).for_each(|item| judge_pod(pod, item, &mut wrong));
        } else if let Some(claim) = object.downcast_ref::<PersistentVolumeClaim>() {
            let bounds = ranges.iter().flat_map(items).filter(|item| item.type_ == "PersistentVolumeClaim");
            bounds.for_each(|item| judge_claim(claim, item, &mut wrong));
        }
        match wrong.as_slice() {
            [] => Ok(()),
            [one] => Err(ApiError::forbidden(&request.resource.names, request.name, one)),
            many => Err(ApiError::forbidden(&request.resource.names, request.name, &format!("[{}]", many.join(", ")))),
        }
    }
}

/// Whether a pod says what it asks for: as it is made, or resized. Other changes leave that alone.
fn asks_anew(request: &Request<'_>) -> bool {
    let resized = request.operation == Operation::Update && request.subresource == "resize";
    request.creates::<Pod>() || resized && request.is_about::<Pod>()
}

fn ranges_of(registry: &Registry, namespace: &str) -> Vec<LimitRange> {
    let Ok(resource) = registry.of(&LimitRange::NAMES) else { return Vec::new() };
    if resource.cache.len() == 0 {
        return Vec::new();
    }
    let filter = Filter { namespace: namespace.to_owned(), ..Filter::default() };
    let entries = resource.cache.list(&filter).entries;
    entries.iter().filter_map(|entry| entry.object.downcast_ref::<LimitRange>().cloned()).collect()
}

fn items(range: &LimitRange) -> impl Iterator<Item = &LimitRangeItem> {
    range.spec.iter().flat_map(|s| &s.limits)
}

/// Gives every container what it does not name, and notes that on the pod.
fn fill(pod: &mut Pod, item: &LimitRangeItem) {
    let Some(spec) = &mut pod.spec else { return };
    let mut notes = Vec::new();
    let main = spec.containers.iter_mut().map(|c| (c, "container"));
    let init = spec.init_containers.iter_mut().flatten().map(|c| (c, "init container"));
    for (container, what) in main.chain(init) {
        let name = container.name.clone();
        let resources = container.resources.get_or_insert_default();
        let limits = add(resources.limits.get_or_insert_default(), item.default.as_ref());
        let requests = add(resources.requests.get_or_insert_default(), item.default_request.as_ref());
        // A limit without a request is the request, as everywhere.
        for (key, amount) in resources.limits.clone().unwrap_or_default() {
            resources.requests.get_or_insert_default().entry(key).or_insert(amount);
        }
        tidy(resources);
        for (added, field) in [(requests, "request"), (limits, "limit")] {
            if !added.is_empty() {
                notes.push(format!("{} {field} for {what} {name}", added.join(", ")));
            }
        }
    }
    if !notes.is_empty() {
        let note = format!("LimitRanger plugin set: {}", notes.join("; "));
        pod.metadata.annotations.get_or_insert_default().insert(ANNOTATION.to_owned(), note);
    }
}

fn add(into: &mut Amounts, from: Option<&Amounts>) -> Vec<String> {
    let mut added = Vec::new();
    for (name, amount) in from.into_iter().flatten() {
        if !into.contains_key(name) {
            into.insert(name.clone(), amount.clone());
            added.push(name.clone());
        }
    }
    added
}

fn tidy(resources: &mut ResourceRequirements) {
    resources.limits = resources.limits.take().filter(|l| !l.is_empty());
    resources.requests = resources.requests.take().filter(|r| !r.is_empty());
}

fn judge_pod(pod: &Pod, item: &LimitRangeItem, wrong: &mut Vec<String>) {
    let spec = pod.spec.clone().unwrap_or_default();
    let all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    match item.type_.as_str() {
        "Container" => all.for_each(|container| {
            let (requests, limits) = amounts(container);
            judge("Container", (&requests, &limits), item, wrong);
        }),
        "Pod" => {
            let (mut requests, mut limits) = (Usage::new(), Usage::new());
            let prefixed = |usage: &Usage, prefix: &str| -> Usage {
                usage.iter().filter_map(|(k, v)| Some((k.strip_prefix(prefix)?.to_owned(), *v))).collect()
            };
            let usage = quota::usage(pod);
            quota::add(&mut requests, &prefixed(&usage, "requests."));
            quota::add(&mut limits, &prefixed(&usage, "limits."));
            judge("Pod", (&requests, &limits), item, wrong);
        }
        _ => {}
    }
}

fn amounts(container: &Container) -> (Usage, Usage) {
    let resources = container.resources.clone().unwrap_or_default();
    (quota::from_wire(resources.requests.as_ref()), quota::from_wire(resources.limits.as_ref()))
}

/// Minimum, maximum and ratio of each resource.
fn judge(what: &str, (requests, limits): (&Usage, &Usage), item: &LimitRangeItem, wrong: &mut Vec<String>) {
    // Of each bound only the first thing that is wrong is told.
    for (name, min) in quota::from_wire(item.min.as_ref()) {
        let says = format!("minimum {name} usage per {what} is {min}");
        match (requests.get(&name), limits.get(&name)) {
            (None, _) => wrong.push(format!("{says}.  No request is specified")),
            (Some(asked), _) if *asked < min => wrong.push(format!("{says}, but request is {asked}")),
            (_, Some(limit)) if *limit < min => wrong.push(format!("{says}, but limit is {limit}")),
            _ => {}
        }
    }
    for (name, max) in quota::from_wire(item.max.as_ref()) {
        let says = format!("maximum {name} usage per {what} is {max}");
        match (requests.get(&name), limits.get(&name)) {
            (_, None) => wrong.push(format!("{says}.  No limit is specified")),
            (_, Some(limit)) if *limit > max => wrong.push(format!("{says}, but limit is {limit}")),
            (Some(asked), _) if *asked > max => wrong.push(format!("{says}, but request is {asked}")),
            _ => {}
        }
    }
    for (name, ratio) in quota::from_wire(item.max_limit_request_ratio.as_ref()) {
        judge_ratio(what, &name, (requests.get(&name), limits.get(&name)), ratio, wrong);
    }
}

fn judge_ratio(
    what: &str,
    name: &str,
    (request, limit): (Option<&Quantity>, Option<&Quantity>),
    ratio: Quantity,
    wrong: &mut Vec<String>,
) {
    let positive = |amount: Option<&Quantity>| amount.copied().filter(|a| *a > Quantity::ZERO);
    let says = format!("{name} max limit to request ratio per {what} is {ratio}");
    let Some(request) = positive(request) else {
        return wrong.push(format!("{says}, but no request is specified or request is 0"));
    };
    let Some(limit) = positive(limit) else {
        return wrong.push(format!("{says}, but no limit is specified or limit is 0"));
    };
    let (request, limit) = (i128::from(request.milli()), i128::from(limit.milli()));
    // limit / request > ratio, without leaving whole numbers.
    if limit * 1000 > i128::from(ratio.milli()) * request {
        let shown = limit * 1_000_000 / request.max(1);
        let (whole, rest) = (shown / 1_000_000, shown % 1_000_000);
        wrong.push(format!("{says}, but provided ratio is {whole}.{rest:06}"));
    }
}

fn judge_claim(claim: &PersistentVolumeClaim, item: &LimitRangeItem, wrong: &mut Vec<String>) {
    let resources = claim.spec.as_ref().and_then(|s| s.resources.clone()).unwrap_or_default();
    let requests = quota::from_wire(resources.requests.as_ref());
    for (name, min) in quota::from_wire(item.min.as_ref()) {
        match requests.get(&name) {
            Some(asked) if *asked >= min => {}
            asked => {
                let asked = asked.map_or_else(|| "0".to_owned(), ToString::to_string);
                let what = "PersistentVolumeClaim";
                wrong.push(format!("minimum {name} usage per {what} is {min}, but request is {asked}"));
            }
        }
    }
    for (name, max) in quota::from_wire(item.max.as_ref()) {
        if let Some(asked) = requests.get(&name).filter(|asked| **asked > max) {
            wrong.push(format!("maximum {name} usage per PersistentVolumeClaim is {max}, but request is {asked}"));
        }
    }
}
