//! What a pod requests: its containers, init containers and overhead in one sum.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/component-helpers/resource/helpers.go`, `PodRequests`.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{Container, PodSpec},
    apimachinery::pkg::api::resource::Quantity,
};

use crate::resources::Resources;

/// CPU that a container without a request is taken to need when nodes are scored, in millicores.
const NONZERO_MILLICORES: i64 = 100;
/// Memory that a container without a request is taken to need when nodes are scored, in bytes.
const NONZERO_MEMORY_BYTES: i64 = 200 * 1024 * 1024;

/// What a pod requests, `pods: 1` included; and the same with a minimum of CPU and memory for containers that request
/// nothing.
pub(crate) fn requests(spec: &PodSpec) -> (Resources, Resources) {
    (sum(spec, |_| (0, 0)), sum(spec, missing))
}

/// Millicores and bytes to add for what a container does not request.
fn missing(container: &Container) -> (i64, i64) {
    let requested = container.resources.as_ref().and_then(|r| r.requests.as_ref());
    let lacks = |name: &str| !requested.is_some_and(|r| r.contains_key(name));
    (if lacks("cpu") { NONZERO_MILLICORES } else { 0 }, if lacks("memory") { NONZERO_MEMORY_BYTES } else { 0 })
}

/// The sum of the containers or the largest init container, whichever is more, plus the overhead. Init containers that
/// keep running (`restartPolicy: Always`) count as containers, and are there while later init containers run. What the
/// pod requests as a whole takes the place of its containers' sum.
fn sum(spec: &PodSpec, missing: fn(&Container) -> (i64, i64)) -> Resources {
    let one = |container: &Container| {
        let requested = container.resources.as_ref().and_then(|r| r.requests.as_ref());
        let mut sum = requested.map(Resources::of).unwrap_or_default();
        let (millicores, bytes) = missing(container);
        sum.millicores += millicores;
        sum.memory_bytes += bytes;
        sum
    };
    let mut total = Resources::default();
    for container in &spec.containers {
        total.add(&one(container));
    }
    let (mut sidecars, mut largest) = (Resources::default(), Resources::default());
    for container in spec.init_containers.iter().flatten() {
        let mut needed = one(container);
        if container.restart_policy.as_deref() == Some("Always") {
            total.add(&needed);
            sidecars.add(&needed);
            needed = sidecars.clone();
        } else {
            needed.add(&sidecars);
        }
        largest.raise_to(&needed);
    }
    total.raise_to(&largest);
    if let Some(whole) = spec.resources.as_ref().and_then(|r| r.requests.as_ref()) {
        let amounts = Resources::of(whole);
        if whole.contains_key("cpu") {
            total.millicores = amounts.millicores;
        }
        if whole.contains_key("memory") {
            total.memory_bytes = amounts.memory_bytes;
        }
    }
    let none = BTreeMap::<String, Quantity>::new();
    total.add(&Resources::of(spec.overhead.as_ref().unwrap_or(&none)));
    total.pods = 1;
    total
}
