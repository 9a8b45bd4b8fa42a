//! Pods that carry the tracking finalizer though no Job will count them: their Job is gone, has finished, or was taken
//! off them.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::{
    api::{batch::v1::Job, core::v1::Pod},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use podium_api::{Kind as _, Object, ObjectKey};

use super::{
    claim::{is_tracked, untrack},
    finished, is_ours,
};
use crate::{Key, Plan, View, ViewExt, owners::controller_of};

/// A pod older than this is judged even when the Jobs' mirror does not tell how far it is.
const LAG_SECONDS_MAX: i64 = 30;

/// What a pod's owner is.
enum Owner {
    /// A Job that counts it, or something else that is not our business.
    Busy,
    /// A Job that is not in the mirror.
    NotSeen,
    /// None, or a Job that counts no more.
    Done,
}

/// Whether a pod with the finalizer may be one of these.
pub(super) fn may_be(meta: &ObjectMeta, view: &dyn View) -> bool {
    !matches!(owner(meta, view), Owner::Busy)
}

fn owner(meta: &ObjectMeta, view: &dyn View) -> Owner {
    let Some(reference) = controller_of(meta) else { return Owner::Done };
    if reference.kind != Job::NAMES.kind || reference.api_version != Job::NAMES.api_version() {
        return Owner::Busy;
    }
    let key = ObjectKey::new(meta.namespace.clone().unwrap_or_default(), reference.name.clone());
    let job: Option<Arc<Job>> =
        view.get_as(&key).filter(|job: &Arc<Job>| job.metadata.uid.as_ref() == Some(&reference.uid));
    match job {
        None => Owner::NotSeen,
        Some(job) if is_ours(&job) && finished(&job).is_some() => Owner::Done,
        Some(_) => Owner::Busy,
    }
}

/// Lets a pod go that is left over.
pub(super) fn reconcile(key: &Key, view: &dyn View, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let Some(pod) = view.get_as::<Pod>(&key.object).filter(|pod| is_tracked(pod)) else { return plan };
    match owner(&pod.metadata, view) {
        Owner::Busy => {}
        Owner::NotSeen if lags(&pod, view, now) => plan.requeue_in(1),
        Owner::NotSeen | Owner::Done => plan.push(untrack(&pod)),
    }
    plan
}

/// Whether its Job may just not have been heard of.
fn lags(pod: &Pod, view: &dyn View, now: Timestamp) -> bool {
    let created = pod.metadata.creation_timestamp.as_ref().map_or(now, |t| t.0);
    let object: &dyn Object = pod;
    now.as_second() - created.as_second() <= LAG_SECONDS_MAX && view.revision(&Job::NAMES) < object.revision()
}
