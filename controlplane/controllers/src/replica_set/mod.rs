//! ReplicaSet and ReplicationController: as many pods as wanted, whoever made them.
//!
//! Both kinds go the same way, told apart by [`Replicated`] alone. One plan creates or deletes at most [`BURST_MAX`] pods; the pods' own events bring the key back for the rest.
//!
//! # Source
//! Kubernetes `pkg/controller/replicaset/replica_set.go`, `pkg/controller/replication/replication_controller.go`.

mod rank;
mod replicated;
mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        apps::v1::ReplicaSet,
        core::v1::{Pod, ReplicationController},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use podium_api::{ApiError, Object, Reason, Selector, kind_of};

use self::replicated::Replicated;

use crate::{
    Action, Controller, EventNote, Key, Plan, Trigger, View, ViewExt,
    owners::{claim_and_adopt, controller_key, controller_of, controller_ref, delete, matching},
    pods::{is_active, is_terminating},
};

/// At most so many pods are created or deleted by one plan.
pub const BURST_MAX: usize = 500;
/// At most so many pods are told of by events of one plan, as Kubernetes' spam filter allows.
const EVENTS_MAX: usize = 25;

/// The controller of ReplicaSets.
pub struct ReplicaSets;

impl Controller for ReplicaSets {
    fn name(&self) -> &'static str {
        "replicaset"
    }

    fn component(&self) -> &'static str {
        "replicaset-controller"
    }

    fn triggers(&self) -> Vec<Trigger> {
        triggers::<ReplicaSet>()
    }

    fn reconcile(&self, key: &Key, view: &dyn View, now: Timestamp) -> Plan {
        reconcile::<ReplicaSet>(key, view, now)
    }

    fn refused(&self, key: &Key, error: &ApiError, view: &dyn View, now: Timestamp) -> Plan {
        refused::<ReplicaSet>(key, error, view, now)
    }
}

/// The controller of ReplicationControllers.
pub struct ReplicationControllers;

impl Controller for ReplicationControllers {
    fn name(&self) -> &'static str {
        "replicationcontroller"
    }

    fn component(&self) -> &'static str {
        "replication-controller"
    }

    fn triggers(&self) -> Vec<Trigger> {
        triggers::<ReplicationController>()
    }

    fn reconcile(&self, key: &Key, view: &dyn View, now: Timestamp) -> Plan {
        reconcile::<ReplicationController>(key, view, now)
    }

    fn refused(&self, key: &Key, error: &ApiError, view: &dyn View, now: Timestamp) -> Plan {
        refused::<ReplicationController>(key, error, view, now)
    }
}

fn triggers<R: Replicated>() -> Vec<Trigger> {
    vec![
        Trigger { kind: kind_of::<R>(), keys: |object, _| vec![Key::of(object)] },
        Trigger { kind: kind_of::<Pod>(), keys: of_pod::<R> },
    ]
}

/// The pods that a set has claimed, as far as they have not ended.
#[derive(Default)]
struct Pods {
    active: Vec<Arc<Pod>>,
    /// How many are on their way out.
    terminating: usize,
}

impl Pods {
    /// An orphan that has ended is nobody's any more.
    fn claim<R: Replicated>(rs: &R, selector: &Selector, view: &dyn View, actions: &mut Vec<Action>) -> Self {
        let belongs = |pod: &Pod| selector.matches_option(pod.metadata.labels.as_ref());
        let mut claimed = claim_and_adopt(rs, belongs, is_active, view, actions);
        let terminating = claimed.iter().filter(|pod| is_terminating(pod)).count();
        claimed.retain(|pod| is_active(pod));
        Self { active: claimed, terminating }
    }
}

fn reconcile<R: Replicated>(key: &Key, view: &dyn View, now: Timestamp) -> Plan {
    let Some(rs) = view.get_as::<R>(&key.object) else { return Plan::default() };
    let Some(selector) = rs.selector().filter(|s| !s.is_everything()) else { return Plan::default() };
    let mut plan = Plan::default();
    let pods = Pods::claim(&*rs, &selector, view, &mut plan.actions);
    if rs.metadata().deletion_timestamp.is_none() {
        manage(&*rs, &pods.active, view, now, &mut plan);
    }
    status::update(&*rs, &pods, now, &mut plan);
    plan
}

fn refused<R: Replicated>(key: &Key, error: &ApiError, view: &dyn View, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let in_terminating_namespace = error.message.contains("because it is being terminated");
    if error.reason == Reason::AlreadyExists || in_terminating_namespace {
        return plan;
    }
    if let Some(rs) = view.get_as::<R>(&key.object) {
        let selector = rs.selector().filter(|s| !s.is_everything());
        let pods = selector.map(|s| Pods::claim(&*rs, &s, view, &mut Vec::new())).unwrap_or_default();
        let surplus = i32::try_from(pods.active.len()).is_ok_and(|active| active > rs.wanted());
        let (reason, event, why) = match surplus {
            true => ("FailedDelete", format!("Error deleting: {error}"), format!("unable to delete pods: {error}")),
            false => ("FailedCreate", format!("Error creating: {error}"), error.message.clone()),
        };
        plan.push(Action::Event(EventNote::warning(&*rs, reason, event)));
        status::failed(&*rs, &pods, (reason, why), now, &mut plan);
    }
    plan
}

fn of_pod<R: Replicated>(object: &dyn Object, view: &dyn View) -> Vec<Key> {
    let meta = object.meta();
    match controller_of(meta) {
        Some(_) => controller_key(meta, &R::NAMES).into_iter().collect(),
        None => matching(meta, view, R::selector),
    }
}

/// Wanted replicas.
pub(crate) fn wanted(rs: &ReplicaSet) -> i32 {
    rs.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1)
}

fn manage<R: Replicated>(rs: &R, pods: &[Arc<Pod>], view: &dyn View, now: Timestamp, plan: &mut Plan) {
    let wanted = usize::try_from(rs.wanted()).unwrap_or(0);
    if pods.len() < wanted {
        create(rs, (wanted - pods.len()).min(BURST_MAX), plan);
    } else if pods.len() > wanted {
        let doomed = rank::victims(rs, pods, (pods.len() - wanted).min(BURST_MAX), view, now);
        plan.actions.extend(doomed.iter().map(|pod| delete(&***pod)));
        let told = doomed.iter().take(EVENTS_MAX).map(|pod| {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            Action::Event(EventNote::normal(rs, "SuccessfulDelete", format!("Deleted pod: {name}")))
        });
        plan.actions.extend(told);
    }
}

fn create<R: Replicated>(rs: &R, count: usize, plan: &mut Plan) {
    let pod = new_pod(rs);
    let event = EventNote::normal(rs, "SuccessfulCreate", "Created pod: ");
    for i in 0..count {
        let pod = Box::new(pod.clone());
        plan.push(if i < EVENTS_MAX { Action::CreateAndTell(pod, event.clone()) } else { Action::Create(pod) });
    }
}

fn new_pod<R: Replicated>(rs: &R) -> Pod {
    let template = rs.template().cloned().unwrap_or_default();
    let given = template.metadata.unwrap_or_default();
    let metadata = ObjectMeta {
        generate_name: rs.metadata().name.as_ref().map(|name| format!("{name}-")),
        namespace: rs.metadata().namespace.clone(),
        labels: given.labels,
        annotations: given.annotations,
        finalizers: given.finalizers,
        owner_references: Some(vec![controller_ref(rs)]),
        ..ObjectMeta::default()
    };
    Pod { metadata, spec: template.spec, status: None }
}
