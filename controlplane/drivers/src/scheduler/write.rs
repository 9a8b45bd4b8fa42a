//! What the scheduler writes: bindings, the condition of pods that fit nowhere, and events about both.

use std::{sync::Arc, time::Duration};

use podium_api::{
    ApiError, Object, ObjectKey, Reason,
    k8s_openapi::api::core::v1::{ObjectReference, Pod, PodCondition},
    kind_of,
};
use podium_client::{ApiRef, ClockRef, Note, Patch, Recorder};
use podium_scheduler::{PodInfo, Queued};
use serde_json::json;

/// Bound on one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

pub(super) struct Writer {
    pub(super) api: ApiRef,
    pub(super) recorder: Recorder,
    pub(super) clock: ClockRef,
}

/// How a write ended.
pub(super) enum Written {
    /// There is nothing more to do about it.
    Done,
    /// The pod may not be on its node.
    NotBound(Queued),
}

impl Writer {
    pub(super) async fn bind(self: Arc<Self>, queued: Queued, node: Arc<str>) -> Written {
        let PodInfo { key, uid, .. } = &*queued.pod;
        match timely(self.api.bind(key, uid, &node)).await {
            Ok(()) => {
                let message = format!("Successfully assigned {key} to {node}");
                self.recorder.note(note(key, uid, false, "Scheduled", message));
                Written::Done
            }
            Err(error) => {
                tracing::warn!(pod = %key, %node, %error, "binding failed; trying again");
                if !error.is_not_found() {
                    let message = format!("running Bind plugin \"DefaultBinder\": {error}");
                    self.recorder.note(note(key, uid, true, "FailedScheduling", message));
                }
                Written::NotBound(queued)
            }
        }
    }

    /// Tells the user why a pod fits nowhere: an event, and the condition if it says something else now.
    pub(super) async fn unschedulable(self: Arc<Self>, pod: Arc<dyn Object>, message: String) -> Written {
        let (key, uid) = (pod.key(), pod.uid());
        self.recorder.note(note(&key, uid, true, "FailedScheduling", message.clone()));
        let before = pod.downcast_ref::<Pod>().and_then(scheduled_condition);
        if before.is_some_and(|c| c.status == "False" && c.message.as_deref() == Some(&message)) {
            return Written::Done;
        }
        let patch = json!({
            "metadata": { "uid": uid },
            "status": { "conditions": [{
                "type": "PodScheduled",
                "status": "False",
                "reason": "Unschedulable",
                "message": message,
                "lastProbeTime": null,
                "lastTransitionTime": jiff::Timestamp::from_second(self.clock.now().as_second()).ok(),
            }] },
        });
        let kind = kind_of::<Pod>();
        let patched = self.api.patch(&kind, &key, Patch::Strategic(patch), Some("status"));
        if let Err(error) = timely(patched).await {
            // The next attempt says it again.
            tracing::debug!(pod = %key, %error, "the condition PodScheduled was not written");
        }
        Written::Done
    }
}

async fn timely<T>(request: impl Future<Output = Result<T, ApiError>>) -> Result<T, ApiError> {
    let late = || ApiError::new(Reason::Timeout, "the API did not answer in time");
    tokio::time::timeout(REQUEST_TIMEOUT, request).await.map_err(|_| late())?
}

fn scheduled_condition(pod: &Pod) -> Option<&PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == "PodScheduled")
}

fn note(key: &ObjectKey, uid: &str, warning: bool, reason: &str, message: String) -> Note {
    let regarding = ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: Some(key.namespace.clone()),
        name: Some(key.name.clone()),
        uid: Some(uid.to_owned()),
        ..ObjectReference::default()
    };
    Note { regarding, warning, reason: reason.to_owned(), message }
}
