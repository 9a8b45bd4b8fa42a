//! What objects take up of a namespace's quotas. Shared by admission, which refuses, and by the controller, which counts.
//!
//! # Source
//! Kubernetes `pkg/quota/v1/evaluator/core/{pods,services,persistent_volume_claims}.go`,
//! `staging/src/k8s.io/apiserver/pkg/quota/v1/generic/evaluator.go`.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        Container, PersistentVolumeClaim, Pod, PodSpec, ResourceQuota, ScopedResourceSelectorRequirement, Service,
    },
    apimachinery::pkg::api::resource::Quantity as WireQuantity,
};

use crate::{
    kind::{Kind, Names},
    object::Object,
    quantity::Quantity,
};

/// Amounts by the name that quotas know them by, for example `requests.cpu`.
pub type Usage = BTreeMap<String, Quantity>;

const ONE: &str = "1";
const CLASS_SUFFIX: &str = ".storageclass.storage.k8s.io/";

/// Kinds that are counted by their plain name too.
const PLAIN: [&str; 7] =
    ["configmaps", "persistentvolumeclaims", "pods", "replicationcontrollers", "resourcequotas", "secrets", "services"];

/// What an object takes up.
pub fn usage(object: &dyn Object) -> Usage {
    let names = object.names();
    let mut out = Usage::new();
    let one = || ONE.parse().unwrap_or(Quantity::ZERO);
    out.insert(format!("count/{}", names.qualified_resource()), one());
    if let Some(pod) = object.downcast_ref::<Pod>() {
        if !has_ended(pod) {
            out.insert("pods".to_owned(), one());
            pod_amounts(pod.spec.as_ref(), &mut out);
        }
        return out;
    }
    if names.group.is_empty() && PLAIN.contains(&names.plural) {
        out.insert(names.plural.to_owned(), one());
    }
    if let Some(service) = object.downcast_ref::<Service>() {
        service_ports(service, &mut out);
    } else if let Some(claim) = object.downcast_ref::<PersistentVolumeClaim>() {
        claim_amounts(claim, &mut out);
    }
    out
}

/// What an object takes up of one quota: of what it limits, when its scopes are met.
pub fn charged(quota: &ResourceQuota, object: &dyn Object) -> Usage {
    let hard = quota.spec.as_ref().and_then(|s| s.hard.as_ref());
    let Some(hard) = hard.filter(|_| in_scope(quota, object)) else { return Usage::new() };
    usage(object).into_iter().filter(|(name, _)| hard.contains_key(name)).collect()
}

/// Whether objects of a kind may count for a name.
pub fn concerns(name: &str, kind: &Names) -> bool {
    if let Some(resource) = name.strip_prefix("count/") {
        return resource == kind.qualified_resource();
    }
    if !kind.group.is_empty() {
        return false;
    }
    match kind.plural {
        "services" => name == "services" || name.starts_with("services."),
        "persistentvolumeclaims" => {
            matches!(name, "persistentvolumeclaims" | "requests.storage") || name.contains(CLASS_SUFFIX)
        }
        "pods" => {
            let other = PLAIN.contains(&name) && name != "pods";
            !other && !name.starts_with("services.") && name != "requests.storage" && !name.contains(CLASS_SUFFIX)
        }
        plural => name == plural,
    }
}

/// Resources that a quota limits and that a pod's containers do not name, with those containers.
pub fn unnamed(quota: &ResourceQuota, pod: &Pod) -> Vec<(String, Vec<String>)> {
    let hard = quota.spec.as_ref().and_then(|s| s.hard.as_ref());
    let Some(hard) = hard.filter(|_| in_scope(quota, pod)) else { return Vec::new() };
    let spec = pod.spec.clone().unwrap_or_default();
    let mut out = Vec::new();
    for name in hard.keys() {
        let (of_limits, resource) = match (name.strip_prefix("limits."), name.strip_prefix("requests.")) {
            (Some(resource), _) => (true, resource),
            (_, Some(resource)) => (false, resource),
            _ => (false, name.as_str()),
        };
        if !matches!(resource, "cpu" | "memory") {
            continue;
        }
        let names_it = |container: &Container| {
            let resources = container.resources.as_ref();
            let amounts = resources.and_then(|r| if of_limits { r.limits.as_ref() } else { r.requests.as_ref() });
            amounts.is_some_and(|a| a.contains_key(resource))
        };
        let all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
        let missing: Vec<String> = all.filter(|c| !names_it(c)).map(|c| c.name.clone()).collect();
        if !missing.is_empty() {
            out.push((name.clone(), missing));
        }
    }
    out
}

/// Adds one usage to another.
pub fn add(sum: &mut Usage, more: &Usage) {
    for (name, amount) in more {
        let before = sum.get(name).copied().unwrap_or(Quantity::ZERO);
        sum.insert(name.clone(), before + *amount);
    }
}

/// `pods=1,requests.cpu=2`, as refusals show it.
pub fn shown(usage: &Usage) -> String {
    usage.iter().map(|(name, amount)| format!("{name}={amount}")).collect::<Vec<_>>().join(",")
}

/// In the form of the API.
pub fn to_wire(usage: &Usage) -> BTreeMap<String, WireQuantity> {
    usage.iter().map(|(name, amount)| (name.clone(), amount.to_wire())).collect()
}

/// From the form of the API; what cannot be read counts as nothing.
pub fn from_wire(amounts: Option<&BTreeMap<String, WireQuantity>>) -> Usage {
    amounts.into_iter().flatten().filter_map(|(name, amount)| Some((name.clone(), amount.0.parse().ok()?))).collect()
}

fn has_ended(pod: &Pod) -> bool {
    matches!(pod.status.as_ref().and_then(|s| s.phase.as_deref()), Some("Succeeded" | "Failed"))
}

fn pod_amounts(spec: Option<&PodSpec>, out: &mut Usage) {
    let Some(spec) = spec else { return };
    for (name, amount) in effective(spec, |r| r.requests.as_ref()) {
        if matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
            out.insert(name.clone(), amount);
        }
        out.insert(format!("requests.{name}"), amount);
    }
    for (name, amount) in effective(spec, |r| r.limits.as_ref()) {
        out.insert(format!("limits.{name}"), amount);
    }
}

type Amounts = fn(&k8s_openapi::api::core::v1::ResourceRequirements) -> Option<&BTreeMap<String, WireQuantity>>;

/// The sum of the containers that run side by side, or the largest of those that run before them, and the overhead.
fn effective(spec: &PodSpec, of: Amounts) -> Usage {
    let amounts = |container: &Container| from_wire(container.resources.as_ref().and_then(of));
    let mut together = Usage::new();
    let mut largest = Usage::new();
    for init in spec.init_containers.iter().flatten() {
        let mut now = amounts(init);
        if init.restart_policy.as_deref() == Some("Always") {
            add(&mut together, &now);
            now.clone_from(&together);
        } else {
            add(&mut now, &together);
        }
        for (name, amount) in now {
            let known = largest.entry(name).or_insert(Quantity::ZERO);
            *known = amount.max(*known);
        }
    }
    spec.containers.iter().for_each(|container| add(&mut together, &amounts(container)));
    for (name, amount) in largest {
        let known = together.entry(name).or_insert(Quantity::ZERO);
        *known = amount.max(*known);
    }
    add(&mut together, &from_wire(spec.overhead.as_ref()));
    together
}

fn service_ports(service: &Service, out: &mut Usage) {
    let Some(spec) = &service.spec else { return };
    let ports = spec.ports.as_ref().map_or(0, Vec::len);
    let kind = spec.type_.as_deref().unwrap_or_default();
    let balanced = kind == "LoadBalancer";
    let with_node_ports = kind == "NodePort" || (balanced && spec.allocate_load_balancer_node_ports != Some(false));
    let count = |n: usize| n.to_string().parse().unwrap_or(Quantity::ZERO);
    out.insert("services.nodeports".to_owned(), count(if with_node_ports { ports } else { 0 }));
    out.insert("services.loadbalancers".to_owned(), count(usize::from(balanced)));
}

fn claim_amounts(claim: &PersistentVolumeClaim, out: &mut Usage) {
    let spec = claim.spec.as_ref();
    let requests = from_wire(spec.and_then(|s| s.resources.as_ref()).and_then(|r| r.requests.as_ref()));
    let storage = requests.get("storage").copied().unwrap_or(Quantity::ZERO);
    out.insert("requests.storage".to_owned(), storage);
    if let Some(class) = spec.and_then(|s| s.storage_class_name.as_deref()).filter(|c| !c.is_empty()) {
        out.insert(format!("{class}{CLASS_SUFFIX}requests.storage"), storage);
        out.insert(format!("{class}{CLASS_SUFFIX}persistentvolumeclaims"), ONE.parse().unwrap_or(Quantity::ZERO));
    }
}

/// Whether all scopes of a quota hold for an object. Only pods have any.
fn in_scope(quota: &ResourceQuota, object: &dyn Object) -> bool {
    let Some(spec) = &quota.spec else { return false };
    let listed = spec.scopes.iter().flatten().map(String::as_str);
    let selected: Vec<_> = spec.scope_selector.iter().flat_map(|s| s.match_expressions.iter().flatten()).collect();
    let mut scopes = listed.peekable();
    if scopes.peek().is_none() && selected.is_empty() {
        return true;
    }
    let Some(pod) = object.downcast_ref::<Pod>() else { return false };
    let exists = |scope: &str| ScopedResourceSelectorRequirement {
        scope_name: scope.to_owned(),
        operator: "Exists".to_owned(),
        values: None,
    };
    scopes.all(|scope| holds(&exists(scope), pod)) && selected.iter().all(|requirement| holds(requirement, pod))
}

fn holds(requirement: &ScopedResourceSelectorRequirement, pod: &Pod) -> bool {
    let spec = pod.spec.as_ref();
    let ends = spec.and_then(|s| s.active_deadline_seconds).is_some_and(|s| s >= 0);
    let best_effort = || spec.is_some_and(|s| crate::kinds::pod_qos_class(s) == "BestEffort");
    match requirement.scope_name.as_str() {
        "Terminating" => ends,
        "NotTerminating" => !ends,
        "BestEffort" => best_effort(),
        "NotBestEffort" => !best_effort(),
        "PriorityClass" => {
            let class = spec.and_then(|s| s.priority_class_name.as_deref()).unwrap_or_default();
            let named = requirement.values.iter().flatten().any(|v| v == class);
            match requirement.operator.as_str() {
                "In" => named,
                "NotIn" => !named,
                "DoesNotExist" => class.is_empty(),
                _ => !class.is_empty(),
            }
        }
        _ => false,
    }
}

/// Whether a kind is the one that quotas are of.
pub fn is_quota(names: &Names) -> bool {
    *names == ResourceQuota::NAMES
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap()
    }

    fn quota(spec: Value) -> ResourceQuota {
        serde_json::from_value(json!({"metadata": {"name": "q"}, "spec": spec})).unwrap()
    }

    fn container(requests: Value, limits: Value) -> Value {
        json!({"name": "c", "resources": {"requests": requests, "limits": limits}})
    }

    #[test]
    fn what_objects_take_up() {
        let two = pod(json!({
            "initContainers": [container(json!({"cpu": "3"}), json!({}))],
            "containers": [
                container(json!({"cpu": "1", "memory": "1Gi"}), json!({"cpu": "2"})),
                container(json!({"cpu": "500m"}), json!({})),
            ],
            "overhead": {"cpu": "100m"},
        }));
        assert_eq!(
            shown(&usage(&two)),
            "count/pods=1,cpu=3100m,limits.cpu=2100m,memory=1Gi,pods=1,requests.cpu=3100m,requests.memory=1Gi"
        );
        let mut ended = two;
        ended.status.get_or_insert_default().phase = Some("Failed".to_owned());
        assert_eq!(shown(&usage(&ended)), "count/pods=1");
        let service: Service = serde_json::from_value(json!({
            "metadata": {"name": "s"}, "spec": {"type": "LoadBalancer", "ports": [{"port": 1}, {"port": 2}]},
        }))
        .unwrap();
        assert_eq!(
            shown(&usage(&service)),
            "count/services=1,services=1,services.loadbalancers=1,services.nodeports=2"
        );
        let claim: PersistentVolumeClaim = serde_json::from_value(json!({
            "metadata": {"name": "c"},
            "spec": {"storageClassName": "gold", "resources": {"requests": {"storage": "2Gi"}}},
        }))
        .unwrap();
        let got = usage(&claim);
        assert_eq!(got["gold.storageclass.storage.k8s.io/requests.storage"].to_string(), "2Gi");
        for name in got.keys() {
            assert!(concerns(name, &PersistentVolumeClaim::NAMES), "{name}");
            assert!(!concerns(name, &Pod::NAMES) && !concerns(name, &Service::NAMES), "{name}");
        }
    }

    #[test]
    fn scopes() {
        let plain = pod(json!({"containers": [{"name": "c"}]}));
        let ending =
            pod(json!({"activeDeadlineSeconds": 5, "containers": [container(json!({"cpu": "1"}), json!({}))]}));
        let classed = pod(json!({"priorityClassName": "high", "containers": []}));
        let high = json!({"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]});
        for (spec, matching) in [
            (json!({}), [true, true, true]),
            (json!({"scopes": ["Terminating"]}), [false, true, false]),
            (json!({"scopes": ["NotTerminating", "BestEffort"]}), [true, false, true]),
            (json!({"scopes": ["NotBestEffort"]}), [false, true, false]),
            (json!({"scopeSelector": high}), [false, false, true]),
        ] {
            let mut spec = spec;
            spec["hard"] = json!({"pods": "5"});
            let quota = quota(spec.clone());
            let got = [&plain, &ending, &classed].map(|p| !charged(&quota, p).is_empty());
            assert_eq!(got, matching, "{spec}");
        }
        let map = k8s_openapi::api::core::v1::ConfigMap::default();
        assert!(charged(&quota(json!({"hard": {"configmaps": "1"}, "scopes": ["Terminating"]})), &map).is_empty());
    }

    #[test]
    fn what_is_not_named() {
        let quota = quota(json!({"hard": {"pods": "5", "limits.cpu": "1", "requests.memory": "1Gi"}}));
        let one = pod(json!({"containers": [container(json!({"memory": "1Mi"}), json!({}))]}));
        assert_eq!(unnamed(&quota, &one), [("limits.cpu".to_owned(), vec!["c".to_owned()])]);
    }
}
