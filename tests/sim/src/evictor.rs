//! [`Evictor`]: protects Deployments with budgets, and evicts pods as far as these allow it.
//!
//! It asks as the API does: what is granted is counted on the budget in one write, and only then the pod goes; now and then
//! the deletion never comes.

use std::sync::Arc;

use podium_api::{
    Object, ObjectKey,
    k8s_openapi::{
        api::{
            apps::v1::Deployment,
            core::v1::Pod,
            policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus},
        },
        apimachinery::pkg::apis::meta::v1::{DeleteOptions, Preconditions, Time},
    },
    kind_of,
};
use podium_client::{Api, Clock, ModelApi};
use rand::{RngExt, rngs::SmallRng};
use serde_json::json;

use crate::{
    clocks::JumpyClock,
    objects::{all, app_of, is_ready, object},
};

/// What it says before the pods that go.
pub(crate) const EVICTS: &str = "user evicts ";

/// The user of budgets.
pub(crate) struct Evictor {
    model: Arc<ModelApi>,
    /// That of the API.
    clock: Arc<JumpyClock>,
    made: u32,
}

impl Evictor {
    pub(crate) fn new(model: Arc<ModelApi>, clock: Arc<JumpyClock>) -> Self {
        Self { model, clock, made: 0 }
    }

    /// Does one thing; says what.
    pub(crate) async fn act(&mut self, random: &mut SmallRng) -> String {
        let budgets = all::<PodDisruptionBudget>(&self.model);
        let open: Vec<String> = all::<Deployment>(&self.model)
            .iter()
            .filter_map(|deployment| deployment.metadata.name.clone())
            .filter(|name| !budgets.iter().any(|budget| app_of_budget(budget) == Some(name)))
            .collect();
        if !open.is_empty() && (budgets.is_empty() || random.random_bool(0.4)) {
            return self.protect(&open[random.random_range(0..open.len())], random).await;
        }
        let Some(budget) = budgets.get(random.random_range(0..budgets.len().max(1))) else {
            return "user finds nothing to protect".to_owned();
        };
        if random.random_range(0..8) == 0 {
            let key = ObjectKey::of(&budget.metadata);
            let _ = self.model.delete(&kind_of::<PodDisruptionBudget>(), &key, DeleteOptions::default()).await;
            return format!("user deletes budget {key}");
        }
        let app = app_of_budget(budget).unwrap_or_default();
        let mut pods = all::<Pod>(&self.model);
        pods.retain(|pod| app_of(&pod.metadata) == Some(app));
        let mut said = EVICTS.to_owned();
        for _ in 0..random.random_range(1..5) {
            if pods.is_empty() {
                break;
            }
            let pod = pods.swap_remove(random.random_range(0..pods.len()));
            if self.evict(&pod, random.random_range(0..10) == 0).await {
                said.push_str(&format!("{} ", ObjectKey::of(&pod.metadata)));
            }
        }
        said
    }

    async fn protect(&mut self, app: &str, random: &mut SmallRng) -> String {
        self.made += 1;
        let name = format!("budget{}", self.made);
        let amount = match random.random_range(0..3) {
            0 => json!({"minAvailable": random.random_range(0..6)}),
            1 => json!({"minAvailable": "50%"}),
            _ => json!({"maxUnavailable": random.random_range(0..3)}),
        };
        let mut spec = amount.clone();
        spec["selector"] = json!({"matchLabels": {"app": app}});
        let metadata = json!({"name": name, "namespace": "default"});
        let budget =
            json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": metadata, "spec": spec});
        self.model.create(object::<PodDisruptionBudget>(budget)).await.expect("the name is new");
        format!("user protects {app} with {name}: {amount}")
    }

    /// Whether the pod goes.
    async fn evict(&self, pod: &Pod, fails: bool) -> bool {
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default();
        let ended = matches!(phase, "Succeeded" | "Failed") || pod.metadata.deletion_timestamp.is_some();
        if !ended && phase != "Pending" && !self.is_granted(pod).await || fails {
            return false;
        }
        let preconditions = Preconditions { uid: pod.metadata.uid.clone(), resource_version: None };
        let options = DeleteOptions { preconditions: Some(preconditions), ..DeleteOptions::default() };
        self.model.delete(&kind_of::<Pod>(), &ObjectKey::of(&pod.metadata), options).await.is_ok()
    }

    /// Asks the pod's budget, if it has one.
    async fn is_granted(&self, pod: &Pod) -> bool {
        let budgets = all::<PodDisruptionBudget>(&self.model);
        let of_pod = |budget: &&Arc<PodDisruptionBudget>| app_of_budget(budget) == app_of(&pod.metadata);
        let Some(budget) = budgets.iter().find(of_pod) else { return true };
        let mut status = budget.status.clone().unwrap_or_default();
        let count = |n: Option<i32>| n.unwrap_or(0);
        let (current, desired) = (count(status.current_healthy), count(status.desired_healthy));
        if !is_ready(pod) && current >= desired && desired > 0 {
            return true;
        }
        if status.observed_generation < budget.metadata.generation || count(status.disruptions_allowed) <= 0 {
            return false;
        }
        self.note(&mut status, pod);
        let counted = PodDisruptionBudget { status: Some(status), ..(**budget).clone() };
        self.model.update(Box::new(counted) as Box<dyn Object>, Some("status")).await.is_ok()
    }

    fn note(&self, status: &mut PodDisruptionBudgetStatus, pod: &Pod) {
        let name = pod.metadata.name.clone().unwrap_or_default();
        status.disrupted_pods.get_or_insert_default().insert(name, Time(self.clock.now()));
        status.disruptions_allowed = status.disruptions_allowed.map(|allowed| allowed - 1);
    }

    /// What budgets say that is not so.
    pub(crate) fn missing(&self) -> Option<String> {
        let pods = all::<Pod>(&self.model);
        all::<PodDisruptionBudget>(&self.model).iter().find_map(|budget| {
            let name = budget.metadata.name.as_deref().unwrap_or_default();
            let status = budget.status.clone().unwrap_or_default();
            let app = app_of_budget(budget);
            let there = pods.iter().filter(|p| app_of(&p.metadata) == app && p.metadata.deletion_timestamp.is_none());
            let healthy = i32::try_from(there.filter(|pod| is_ready(pod)).count()).unwrap_or(i32::MAX);
            let known = status.observed_generation == budget.metadata.generation;
            let going = status.disrupted_pods.as_ref().map_or(0, |pods| pods.len());
            (!known || status.current_healthy != Some(healthy) || going > 0)
                .then(|| format!("{name} says {status:?}, but {healthy} pods are healthy"))
        })
    }
}

/// The app that a budget is for.
pub(crate) fn app_of_budget(budget: &PodDisruptionBudget) -> Option<&str> {
    let selector = budget.spec.as_ref()?.selector.as_ref()?;
    selector.match_labels.as_ref()?.get("app").map(String::as_str)
}
