//! The quality-of-service class of a pod.
//!
//! # Source
//! Kubernetes `pkg/apis/core/v1/helper/qos/qos.go`.

use std::collections::BTreeMap;

use k8s_openapi::{api::core::v1::PodSpec, apimachinery::pkg::api::resource::Quantity as WireQuantity};

use crate::quantity::Quantity;

type Amounts = BTreeMap<&'static str, Quantity>;

/// `Guaranteed`, `Burstable` or `BestEffort`.
pub(crate) fn qos_class(spec: &PodSpec) -> &'static str {
    let (mut requests, mut limits) = (Amounts::new(), Amounts::new());
    let mut all_limited = true;
    for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
        let resources = container.resources.as_ref();
        add(resources.and_then(|r| r.requests.as_ref()), &mut requests);
        all_limited &= add(resources.and_then(|r| r.limits.as_ref()), &mut limits) == 2;
    }
    if requests.is_empty() && limits.is_empty() {
        "BestEffort"
    } else if all_limited && requests == limits {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

/// Adds the amounts of cpu and memory that are more than nothing; how many of the two there were.
fn add(amounts: Option<&BTreeMap<String, WireQuantity>>, sum: &mut Amounts) -> usize {
    let mut found = 0;
    for name in ["cpu", "memory"] {
        let amount = amounts.and_then(|a| a.get(name)).and_then(|a| a.0.parse::<Quantity>().ok());
        if let Some(amount) = amount.filter(|a| *a > Quantity::ZERO) {
            let before = sum.get(name).copied().unwrap_or(Quantity::ZERO);
            sum.insert(name, before + amount);
            found += 1;
        }
    }
    found
}
