//! `ResourceQuota`: nothing is made that would take up more than a namespace may.
//!
//! What is taken up is counted from the objects themselves while no other object of the namespace is being made, so that
//! creations side by side never exceed. The status of a quota, which the controller counts, is only shown.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apiserver/pkg/admission/plugin/resourcequota/controller.go`.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Pod, ResourceQuota as Quota};
use parking_lot::Mutex;
use podium_api::{
    ApiError, Kind as _, Object, Quantity, Reason, Scope,
    quota::{self, Usage},
};

use super::{Operation, Plugin, Request, Step};
use crate::registry::{Registry, Resource, cache::Filter};

/// How long an object waits for others of its namespace.
const PATIENCE: Duration = Duration::from_secs(10);

type Turn = tokio::sync::Mutex<()>;

/// The plug-in.
#[derive(Default)]
pub(super) struct ResourceQuota {
    /// Whose turn it is in each namespace where somebody waits.
    turns: Mutex<HashMap<String, Weak<Turn>>>,
}

#[async_trait]
impl Plugin for ResourceQuota {
    fn name(&self) -> &'static str {
        "ResourceQuota"
    }

    fn handles(&self, step: Step, request: &Request<'_>) -> bool {
        step == Step::Validate
            && matches!(request.operation, Operation::Create | Operation::Update)
            && request.resource.scope == Scope::Namespaced
            && matches!(request.subresource, "" | "resize")
    }

    async fn validate(&self, registry: &Registry, request: &Request<'_>) -> Result<(), ApiError> {
        let Some(object) = request.object.as_deref() else { return Ok(()) };
        let quotas = quotas_of(registry, request.namespace);
        let concerned: Vec<&Quota> = quotas.iter().filter(|q| needs_more(q, object, request.old)).collect();
        if concerned.is_empty() {
            return Ok(());
        }
        let turn = self.turn(request.namespace);
        let held = tokio::time::timeout(PATIENCE, turn.lock_owned()).await;
        let held = held.map_err(|_| {
            let message = "the quota of this namespace is busy: too many objects are being made at once";
            ApiError::new(Reason::TooManyRequests, message).retry_after(1)
        })?;
        for quota in concerned {
            check(registry, request, quota, object)?;
        }
        if !request.context.dry_run {
            request.hold(Box::new(held));
        }
        Ok(())
    }
}

impl ResourceQuota {
    fn turn(&self, namespace: &str) -> Arc<Turn> {
        let mut turns = self.turns.lock();
        if let Some(turn) = turns.get(namespace).and_then(Weak::upgrade) {
            return turn;
        }
        turns.retain(|_, turn| turn.strong_count() > 0);
        let turn = Arc::new(Turn::default());
        turns.insert(namespace.to_owned(), Arc::downgrade(&turn));
        turn
    }
}

fn quotas_of(registry: &Registry, namespace: &str) -> Vec<Quota> {
    let Ok(resource) = registry.of(&Quota::NAMES) else { return Vec::new() };
    if resource.cache.len() == 0 {
        return Vec::new();
    }
    let filter = Filter { namespace: namespace.to_owned(), ..Filter::default() };
    let entries = resource.cache.list(&filter).entries;
    entries.iter().filter_map(|entry| entry.object.downcast_ref::<Quota>().cloned()).collect()
}

/// What an object takes up beyond what it did before.
fn growth(quota: &Quota, object: &dyn Object, old: Option<&dyn Object>) -> Usage {
    let before = old.map(|old| quota::charged(quota, old)).unwrap_or_default();
    let mut more = quota::charged(quota, object);
    for (name, amount) in &mut more {
        *amount = *amount - before.get(name).copied().unwrap_or(Quantity::ZERO);
    }
    more.retain(|_, amount| *amount > Quantity::ZERO);
    more
}

fn needs_more(quota: &Quota, object: &dyn Object, old: Option<&dyn Object>) -> bool {
    let names = |pod: &Pod| old.is_none() && !quota::unnamed(quota, pod).is_empty();
    !growth(quota, object, old).is_empty() || object.downcast_ref().is_some_and(names)
}

fn check(registry: &Registry, request: &Request<'_>, quota: &Quota, object: &dyn Object) -> Result<(), ApiError> {
    let name = quota.metadata.name.as_deref().unwrap_or_default();
    let forbidden = |why: String| ApiError::forbidden(&request.resource.names, request.name, &why);
    if let Some(pod) = object.downcast_ref::<Pod>().filter(|_| request.old.is_none()) {
        let missing = quota::unnamed(quota, pod);
        if !missing.is_empty() {
            let shown: Vec<String> = missing.iter().map(|(what, of)| format!("{what} for: {}", of.join(","))).collect();
            return Err(forbidden(format!("failed quota: {name}: must specify {}", shown.join("; "))));
        }
    }
    let requested = growth(quota, object, request.old);
    let hard = quota::from_wire(quota.spec.as_ref().and_then(|s| s.hard.as_ref()));
    let used = used(registry, request.resource, quota, request.namespace);
    let exceeds = |what: &str, more: Quantity| {
        let before = used.get(what).copied().unwrap_or(Quantity::ZERO);
        hard.get(what).is_some_and(|most| before + more > *most)
    };
    let over: Vec<&String> =
        requested.iter().filter(|(what, more)| exceeds(what, **more)).map(|(what, _)| what).collect();
    if over.is_empty() {
        return Ok(());
    }
    let only = |all: &Usage| {
        let amount = |what: &&&String| ((**what).clone(), all.get(**what).copied().unwrap_or(Quantity::ZERO));
        quota::shown(&over.iter().map(|what| amount(&what)).collect())
    };
    Err(forbidden(format!(
        "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
        only(&requested),
        only(&used),
        only(&hard)
    )))
}

/// What the objects of one kind take up now. Others do not count for what this kind is charged.
fn used(registry: &Registry, resource: &Resource, quota: &Quota, namespace: &str) -> Usage {
    let mut sum = Usage::new();
    let filter = Filter { namespace: namespace.to_owned(), ..Filter::default() };
    let names = resource.cache.kind().names();
    let stored = registry.of(&names).ok();
    let cache = stored.as_ref().map_or(&resource.cache, |stored| &stored.cache);
    for entry in cache.list(&filter).entries {
        quota::add(&mut sum, &quota::charged(quota, &*entry.object));
    }
    sum
}
