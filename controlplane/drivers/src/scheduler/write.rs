//! What the scheduler writes: bindings, what claims need before, the ends of victims, the condition of pods that fit
//! nowhere, and events about all of it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::future::join_all;
use podium_api::{
    ApiError, Object, ObjectKey, Reason,
    k8s_openapi::{
        api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim, Pod, PodCondition},
        apimachinery::pkg::apis::meta::v1::{DeleteOptions, Preconditions},
    },
    kind_of,
};
use podium_client::{ApiRef, ClockRef, Note, Patch, Recorder};
use podium_scheduler::{Changes, PodInfo, Preemption, Queued, Refusal, VolumePlan};
use serde_json::{Value, json};

/// Bound on one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How often it is asked whether a pod was bound, and how long between two times.
const ASKS_MAX: usize = 30;
const ASK_EVERY: Duration = Duration::from_secs(1);
const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

pub(super) struct Writer {
    pub(super) api: ApiRef,
    /// For each scheduler name.
    pub(super) recorders: HashMap<String, Recorder>,
    pub(super) clock: ClockRef,
}

/// How a write ended.
pub(super) enum Written {
    /// There is nothing more to do about it.
    Done,
    /// The pod is on its node.
    Bound(Queued),
    /// The pod may not be on its node.
    NotBound(Queued),
    /// What the pod's claims need could not be written.
    NotProvisioned { uid: String },
    /// These victims have been told to end; `missed`: others have not.
    Preempted { queued: Queued, unblocked_by: Changes, victims: Vec<String>, missed: bool },
}

impl Writer {
    pub(super) async fn bind(self: Arc<Self>, queued: Queued, node: Arc<str>) -> Written {
        let PodInfo { key, uid, .. } = &*queued.pod;
        match timely(self.api.bind(key, uid, &node)).await {
            Ok(()) => {
                let message = format!("Successfully assigned {key} to {node}");
                self.note(&queued.pod, key, uid, Said { warning: false, reason: "Scheduled", message });
                Written::Bound(queued)
            }
            Err(error) if self.is_bound(key, uid, &node, &error).await => {
                tracing::debug!(pod = %key, %node, %error, "bound, though the answer was another");
                Written::Bound(queued)
            }
            Err(error) => {
                tracing::warn!(pod = %key, %node, %error, "binding failed; trying again");
                if !error.is_not_found() {
                    self.failed(&queued.pod, format!("running Bind plugin \"DefaultBinder\": {error}"));
                }
                Written::NotBound(queued)
            }
        }
    }

    /// Whether a pod was bound though its binding was not answered well: the answer may have been lost. Asks until that is
    /// known, since a pod that is thought to be elsewhere leaves its room to others.
    async fn is_bound(&self, key: &ObjectKey, uid: &str, node: &str, why: &ApiError) -> bool {
        if why.is_not_found() {
            return false;
        }
        for _ in 0..ASKS_MAX {
            match timely(self.api.get(&kind_of::<Pod>(), key)).await {
                Ok(pod) => {
                    let on = pod.downcast_ref::<Pod>().and_then(|p| p.spec.as_ref()?.node_name.as_deref());
                    return pod.uid() == uid && on == Some(node);
                }
                Err(error) if error.is_not_found() => return false,
                Err(_) => tokio::time::sleep(ASK_EVERY).await,
            }
        }
        false
    }

    /// Gives volumes to claims, and claims to the node where their volumes are to be made.
    pub(super) async fn provision(self: Arc<Self>, pod: Arc<PodInfo>, node: Arc<str>, plan: VolumePlan) -> Written {
        let bind = plan.bind.iter().map(|(volume, claim)| self.give(volume, claim));
        let provision = plan.provision.iter().map(|claim| self.select(claim, &node));
        let (bound, selected) = (join_all(bind).await, join_all(provision).await);
        match bound.into_iter().chain(selected).collect::<Result<Vec<()>, ApiError>>() {
            Ok(_) => Written::Done,
            Err(error) => {
                tracing::warn!(pod = %pod.key, %node, %error, "volumes were not prepared; trying again");
                self.failed(&pod, format!("running PreBind plugin \"VolumeBinding\": {error}"));
                Written::NotProvisioned { uid: pod.uid.clone() }
            }
        }
    }

    async fn give(&self, volume: &str, claim: &ObjectKey) -> Result<(), ApiError> {
        let seen = timely(self.api.get(&kind_of::<PersistentVolumeClaim>(), claim)).await?;
        let patch = json!({
            "metadata": { "annotations": { BOUND_BY_CONTROLLER: "yes" } },
            "spec": { "claimRef": {
                "apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": claim.namespace,
                "name": claim.name, "uid": seen.uid(),
            } },
        });
        let there = timely(self.api.get(&kind_of::<PersistentVolume>(), &ObjectKey::new("", volume))).await?;
        let taken = there.downcast_ref::<PersistentVolume>().and_then(|v| v.spec.as_ref()?.claim_ref.as_ref());
        if taken.is_some_and(|t| t.uid.as_deref().is_some_and(|uid| uid != seen.uid())) {
            let why = format!("volume {volume:?} already bound to a different claim.");
            return Err(ApiError::new(Reason::Conflict, why));
        }
        let patch = at_revision(patch, &*there);
        timely(self.api.patch(&kind_of::<PersistentVolume>(), &there.key(), Patch::Merge(patch), None)).await.map(drop)
    }

    async fn select(&self, claim: &ObjectKey, node: &str) -> Result<(), ApiError> {
        let patch = json!({ "metadata": { "annotations": { SELECTED_NODE: node } } });
        let kind = kind_of::<PersistentVolumeClaim>();
        timely(self.api.patch(&kind, claim, Patch::Merge(patch), None)).await.map(drop)
    }

    /// Tells the user why a pod's volumes kept it from being bound.
    pub(super) fn late(&self, pod: &PodInfo) {
        let why = "running PreBind plugin \"VolumeBinding\": binding volumes: context deadline exceeded";
        self.failed(pod, why.to_owned());
    }

    /// Tells the user why a pod fits nowhere: an event, and the condition if it says something else now.
    pub(super) async fn unschedulable(
        self: Arc<Self>,
        pod: Arc<PodInfo>,
        seen: Arc<dyn Object>,
        refusal: Refusal,
    ) -> Written {
        let nominated = if refusal.clear_nomination { Nominated::Nowhere } else { Nominated::AsBefore };
        self.explain(&pod, &*seen, refusal.message, nominated).await;
        Written::Done
    }

    /// Nominates a pod to a node and tells its victims there to end.
    pub(super) async fn preempt(
        self: Arc<Self>,
        queued: Queued,
        seen: Arc<dyn Object>,
        refusal: Refusal,
        preemption: Preemption,
    ) -> Written {
        let pod = &queued.pod;
        self.explain(pod, &*seen, refusal.message, Nominated::To(&preemption.node)).await;
        for (key, uid) in &preemption.displaced {
            self.nominate_nowhere(key, uid).await;
        }
        let ends = preemption.victims.iter().map(|(key, uid)| self.end(pod, key, uid, &preemption.node));
        let ended = join_all(ends).await;
        let victims = preemption.victims.iter().zip(ended).filter(|(_, ended)| *ended);
        let victims: Vec<_> = victims.map(|((_, uid), _)| uid.clone()).collect();
        let missed = victims.len() < preemption.victims.len();
        Written::Preempted { queued, unblocked_by: refusal.unblocked_by, victims, missed }
    }

    /// Ends one victim: says why in its conditions, then deletes it with its grace. Whether it has been told.
    async fn end(&self, preemptor: &PodInfo, key: &ObjectKey, uid: &str, node: &str) -> bool {
        let kind = kind_of::<Pod>();
        let message = format!("{}: preempting to accommodate a higher priority pod", preemptor.scheduler_name);
        let condition = self.condition("DisruptionTarget", "True", "PreemptionByScheduler", &message);
        let patch = json!({ "metadata": { "uid": uid }, "status": { "conditions": [condition] } });
        let told = timely(self.api.patch(&kind, key, Patch::Strategic(patch), Some("status"))).await;
        let preconditions = Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None });
        let options = DeleteOptions { preconditions, ..DeleteOptions::default() };
        let ended = match told {
            Ok(_) => timely(self.api.delete(&kind, key, options)).await,
            Err(error) => Err(error),
        };
        match ended {
            Ok(()) => {
                let message = format!("Preempted by pod {} on node {node}", preemptor.uid);
                self.note(preemptor, key, uid, Said { warning: false, reason: "Preempted", message });
                true
            }
            Err(error) if error.is_not_found() || error.is_conflict() => true,
            Err(error) => {
                tracing::warn!(victim = %key, %error, "a victim of preemption was not ended");
                false
            }
        }
    }

    async fn nominate_nowhere(&self, key: &ObjectKey, uid: &str) {
        let patch = json!({ "metadata": { "uid": uid }, "status": { "nominatedNodeName": null } });
        let kind = kind_of::<Pod>();
        let patched = self.api.patch(&kind, key, Patch::Strategic(patch), Some("status"));
        if let Err(error) = timely(patched).await {
            tracing::debug!(pod = %key, %error, "the nominated node was not cleared");
        }
    }

    async fn explain(&self, pod: &PodInfo, seen: &dyn Object, message: String, nominated: Nominated<'_>) {
        self.failed(pod, message.clone());
        let seen = seen.downcast_ref::<Pod>();
        let before = seen.and_then(scheduled_condition);
        let said = before.is_some_and(|c| c.status == "False" && c.message.as_deref() == Some(&message));
        let was = seen.and_then(|p| p.status.as_ref()?.nominated_node_name.as_deref()).unwrap_or_default();
        let mut status = json!({});
        if !said {
            status["conditions"] = json!([self.condition("PodScheduled", "False", "Unschedulable", &message)]);
        }
        match nominated {
            Nominated::To(node) if node != was => status["nominatedNodeName"] = node.into(),
            Nominated::Nowhere if !was.is_empty() => status["nominatedNodeName"] = Value::Null,
            _ if said => return,
            _ => {}
        }
        let patch = json!({ "metadata": { "uid": pod.uid }, "status": status });
        let kind = kind_of::<Pod>();
        let patched = self.api.patch(&kind, &pod.key, Patch::Strategic(patch), Some("status"));
        if let Err(error) = timely(patched).await {
            // The next attempt says it again.
            tracing::debug!(pod = %pod.key, %error, "the condition PodScheduled was not written");
        }
    }

    fn condition(&self, kind: &str, status: &str, reason: &str, message: &str) -> Value {
        json!({
            "type": kind,
            "status": status,
            "reason": reason,
            "message": message,
            "lastProbeTime": null,
            "lastTransitionTime": jiff::Timestamp::from_second(self.clock.now().as_second()).ok(),
        })
    }

    fn failed(&self, pod: &PodInfo, message: String) {
        self.note(pod, &pod.key, &pod.uid, Said { warning: true, reason: "FailedScheduling", message });
    }

    /// An event about a pod, from the scheduler of another (or the same).
    fn note(&self, of: &PodInfo, key: &ObjectKey, uid: &str, said: Said) {
        let Some(recorder) = self.recorders.get(&of.scheduler_name) else { return };
        let regarding = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(key.namespace.clone()),
            name: Some(key.name.clone()),
            uid: Some(uid.to_owned()),
            ..ObjectReference::default()
        };
        let Said { warning, reason, message } = said;
        recorder.note(Note { regarding, warning, reason: reason.to_owned(), message });
    }
}

struct Said {
    warning: bool,
    reason: &'static str,
    message: String,
}

enum Nominated<'a> {
    AsBefore,
    To(&'a str),
    Nowhere,
}

fn at_revision(mut patch: Value, seen: &dyn Object) -> Value {
    patch["metadata"]["resourceVersion"] = json!(seen.meta().resource_version);
    patch
}

async fn timely<T>(request: impl Future<Output = Result<T, ApiError>>) -> Result<T, ApiError> {
    let late = || ApiError::new(Reason::Timeout, "the API did not answer in time");
    tokio::time::timeout(REQUEST_TIMEOUT, request).await.map_err(|_| late())?
}

fn scheduled_condition(pod: &Pod) -> Option<&PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == "PodScheduled")
}
