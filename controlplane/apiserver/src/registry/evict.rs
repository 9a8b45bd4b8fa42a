//! Eviction: a deletion that a PodDisruptionBudget may refuse.
//!
//! A disruption is counted on the budget before the pod goes, in one write that another eviction cannot come between.
//! What a budget allows is said by its controller; one that it has not looked at yet allows nothing.
//!
//! # Source
//! Kubernetes `pkg/registry/core/pod/storage/eviction.go`.

use podium_api::{
    ApiError, Kind as _, Reason,
    k8s_openapi::{
        api::{
            core::v1::{Pod, PodCondition},
            policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus},
        },
        apimachinery::pkg::apis::meta::v1::{Condition, DeleteOptions, Preconditions, StatusCause, Time},
    },
    selector::Selector,
};

use super::{
    CONFLICT_RETRIES, Part, Registry, Resource, WriteContext, cache::Filter, create::whole_seconds,
    delete::check_preconditions,
};
use crate::bootstrap::own;

/// More evictions than that wait for the budget's controller: no more are taken.
const DISRUPTED_PODS_MAX: usize = 2000;
const REFUSED: &str = "Cannot evict pod as it would violate the pod's disruption budget.";
const ALLOWED: &str = "DisruptionAllowed";
const DISRUPTED: &str = "DisruptionTarget";

/// What budgets say of a pod that is to go.
enum Judgement {
    /// It goes.
    Go,
    /// It goes if it is still as it was seen: it does not count as healthy.
    GoAsSeen,
}

impl Registry {
    /// Deletes a pod unless that would disrupt too much.
    ///
    /// # Errors
    /// 404; 429 when the pod's budget does not allow it; 500 when it has several budgets; as a deletion.
    pub(crate) async fn evict(
        &self,
        resource: &Resource,
        (namespace, name): (&str, &str),
        options: &DeleteOptions,
        context: &WriteContext<'_>,
    ) -> Result<(), ApiError> {
        let is_given = options.preconditions.as_ref().is_some_and(|p| p.resource_version.is_some());
        for _ in 0..=CONFLICT_RETRIES {
            let entry = resource.cache.get(namespace, name).ok_or_else(|| resource.not_found(name))?;
            let Some(pod) = entry.object.downcast_ref::<Pod>() else { break };
            let (judgement, budget) = match is_ended(pod) {
                true => (Judgement::Go, String::new()),
                false if phase(pod) == "Pending" => (Judgement::GoAsSeen, String::new()),
                false => self.judge_eviction(pod, context).await?,
            };
            let mut options = options.clone();
            if matches!(judgement, Judgement::GoAsSeen) && !is_given {
                let seen = options.preconditions.get_or_insert_with(Preconditions::default);
                seen.resource_version = pod.metadata.resource_version.clone();
            }
            match self.announce_and_delete(resource, (namespace, name), &mut options, context).await {
                Err(error) if error.is_conflict() && !is_given && matches!(judgement, Judgement::GoAsSeen) => {
                    if !budget.is_empty() {
                        return Err(not_looked_at(&budget));
                    }
                }
                result => return result,
            }
        }
        Err(ApiError::modified(&resource.names, name))
    }

    /// Says on the pod why it goes, then deletes it. What is asked of the pod has to hold for both.
    async fn announce_and_delete(
        &self,
        resource: &Resource,
        (namespace, name): (&str, &str),
        options: &mut DeleteOptions,
        context: &WriteContext<'_>,
    ) -> Result<(), ApiError> {
        if !context.dry_run {
            let now = Time(whole_seconds(self.clock.now()));
            let who = own();
            let as_server = WriteContext::new(&who, "kube-apiserver").unchecked();
            let asked = options.clone();
            let announced = self.update_with(resource, (namespace, name), Part::Status, &as_server, |current| {
                check_preconditions(resource, &*current.object, &asked)?;
                let mut new = current.object.boxed_clone();
                say_why(new.downcast_mut().ok_or_else(|| ApiError::internal("no Pod"))?, &now);
                Ok(new.into())
            });
            let version = announced.await?.object.meta().resource_version.clone();
            if let Some(wanted) = options.preconditions.as_mut().and_then(|p| p.resource_version.as_mut()) {
                wanted.clone_from(&version.unwrap_or_default());
            }
        }
        self.delete(resource, namespace, name, options, context).await.map(drop)
    }

    /// Asks the pod's budget, and counts the disruption on it. Its name comes along.
    async fn judge_eviction(&self, pod: &Pod, context: &WriteContext<'_>) -> Result<(Judgement, String), ApiError> {
        let budgets = self.of(&PodDisruptionBudget::NAMES)?;
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let entries = budgets.cache.list(&Filter { namespace: namespace.clone(), ..Filter::default() }).entries;
        let mut matching = entries.iter().filter_map(|e| e.object.downcast_ref()).filter(|b| selects(b, pod));
        let Some(budget) = matching.next() else { return Ok((Judgement::Go, String::new())) };
        if matching.next().is_some() {
            let message =
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
            return Err(ApiError::new(Reason::InternalError, message));
        }
        let name = budget.metadata.name.clone().unwrap_or_default();
        if !is_ready(pod) && may_go_unhealthy(budget) {
            return Ok((Judgement::GoAsSeen, name));
        }
        let pod = pod.metadata.name.as_deref().unwrap_or_default();
        let now = Time(whole_seconds(self.clock.now()));
        let who = own();
        let as_server = WriteContext::new(&who, "kube-apiserver").unchecked().dry_run(context.dry_run);
        self.update_with(&budgets, (&namespace, &name), Part::Status, &as_server, |current| {
            let mut new = current.object.boxed_clone();
            let budget = new.downcast_mut().ok_or_else(|| ApiError::internal("no PodDisruptionBudget"))?;
            count_disruption(budget, pod, &now)?;
            Ok(new.into())
        })
        .await?;
        Ok((Judgement::Go, name))
    }
}

fn say_why(pod: &mut Pod, now: &Time) {
    let conditions = pod.status.get_or_insert_default().conditions.get_or_insert_default();
    let known = conditions.iter().find(|c| c.type_ == DISRUPTED && c.status == "True");
    let since = known.and_then(|c| c.last_transition_time.clone()).unwrap_or_else(|| now.clone());
    conditions.retain(|c| c.type_ != DISRUPTED);
    conditions.push(PodCondition {
        type_: DISRUPTED.to_owned(),
        status: "True".to_owned(),
        reason: Some("EvictionByEvictionAPI".to_owned()),
        message: Some("Eviction API: evicting".to_owned()),
        last_transition_time: Some(since),
        ..PodCondition::default()
    });
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default()
}

/// Whoever is gone already, or going, disrupts nothing any more.
fn is_ended(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed") || pod.metadata.deletion_timestamp.is_some()
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
    conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

fn selects(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    let selector = budget.spec.as_ref().and_then(|s| s.selector.as_ref());
    Selector::from_label_selector(selector).is_ok_and(|s| s.matches_option(pod.metadata.labels.as_ref()))
}

fn may_go_unhealthy(budget: &PodDisruptionBudget) -> bool {
    let policy = budget.spec.as_ref().and_then(|s| s.unhealthy_pod_eviction_policy.as_deref());
    let (current, desired) =
        budget.status.as_ref().map_or((0, 0), |s| (s.current_healthy.unwrap_or(0), s.desired_healthy.unwrap_or(0)));
    policy == Some("AlwaysAllow") || (current >= desired && desired > 0)
}

/// Takes one disruption off what the budget allows, and notes whose it was for the budget's controller.
fn count_disruption(budget: &mut PodDisruptionBudget, pod: &str, now: &Time) -> Result<(), ApiError> {
    let name = budget.metadata.name.clone().unwrap_or_default();
    let generation = budget.metadata.generation.unwrap_or(0);
    let status = budget.status.get_or_insert_default();
    if status.observed_generation.unwrap_or(0) < generation {
        return Err(not_looked_at(&name));
    }
    let allowed = status.disruptions_allowed.unwrap_or(0);
    let forbidden = |why: &str| Err(ApiError::forbidden(&PodDisruptionBudget::NAMES, &name, why));
    let disrupted = status.disrupted_pods.get_or_insert_default();
    match allowed {
        ..0 => return forbidden("pdb disruptions allowed is negative"),
        _ if disrupted.len() > DISRUPTED_PODS_MAX => {
            return forbidden("DisruptedPods map too big - too many evictions not confirmed by PDB controller");
        }
        0 => {
            let (needed, there) = (status.desired_healthy.unwrap_or(0), status.current_healthy.unwrap_or(0));
            let cause = format!("The disruption budget {name} needs {needed} healthy pods and has {there} currently");
            return Err(refused(cause, 0));
        }
        _ => {}
    }
    disrupted.insert(pod.to_owned(), now.clone());
    status.disruptions_allowed = Some(allowed - 1);
    if allowed == 1 {
        allow_no_more(status, now);
    }
    Ok(())
}

fn allow_no_more(status: &mut PodDisruptionBudgetStatus, now: &Time) {
    let conditions = status.conditions.get_or_insert_default();
    let since = conditions.iter().find(|c| c.type_ == ALLOWED && c.status == "False");
    let since = since.map_or(now, |c| &c.last_transition_time).clone();
    conditions.retain(|c| c.type_ != ALLOWED);
    conditions.push(Condition {
        type_: ALLOWED.to_owned(),
        status: "False".to_owned(),
        reason: "InsufficientPods".to_owned(),
        message: String::new(),
        observed_generation: status.observed_generation,
        last_transition_time: since,
    });
}

/// The budget's controller has to see it first.
fn not_looked_at(budget: &str) -> ApiError {
    refused(format!("The disruption budget {budget} is still being processed by the server."), 10)
}

fn refused(cause: String, retry_seconds: i32) -> ApiError {
    let mut error = ApiError::new(Reason::TooManyRequests, REFUSED).retry_after(retry_seconds);
    error.details.get_or_insert_default().causes = Some(vec![StatusCause {
        reason: Some("DisruptionBudget".to_owned()),
        message: Some(cause),
        ..StatusCause::default()
    }]);
    error
}
