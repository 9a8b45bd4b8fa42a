//! How long to wait before a failed pod is replaced: longer each time, until one succeeds.
//!
//! Told from the pods that are there, counted ones too; whoever deletes them forgives their failures.
//!
//! # Source
//! Kubernetes `pkg/controller/job/backoff_utils.go`.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use crate::pods::ready_condition;

const FIRST_SECONDS: i64 = 10;
const LONGEST_SECONDS: i64 = 600;

/// Until when to wait after the failures since the last success. `None`: there is nothing to wait for.
pub(super) fn until<'p>(
    succeeded: impl Iterator<Item = &'p Arc<Pod>>,
    failed: impl Iterator<Item = &'p Arc<Pod>>,
) -> Option<Timestamp> {
    let success = succeeded.map(|pod| finished_at(pod)).max();
    let failures: Vec<Timestamp> =
        failed.map(|pod| finished_at(pod)).filter(|at| success.is_none_or(|success| *at > success)).collect();
    after(failures.len(), failures.iter().max().copied()?)
}

/// Until when to wait after so many failures in a row, the last of them then.
pub(super) fn after(failures: usize, last: Timestamp) -> Option<Timestamp> {
    let doublings = u32::try_from(failures.checked_sub(1)?).unwrap_or(u32::MAX).min(10);
    let seconds = (FIRST_SECONDS << doublings).min(LONGEST_SECONDS);
    last.checked_add(SignedDuration::from_secs(seconds)).ok()
}

/// When a pod ended: when its last container did, else since when it is not ready, else when its deletion was asked for.
pub(super) fn finished_at(pod: &Pod) -> Timestamp {
    let deleted = || {
        let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(0);
        let by = pod.metadata.deletion_timestamp.as_ref()?.0;
        by.checked_sub(SignedDuration::from_secs(grace)).ok()
    };
    let not_ready = || {
        let condition = ready_condition(pod).filter(|c| c.status == "False")?;
        condition.last_transition_time.as_ref().map(|t| t.0)
    };
    let created = || pod.metadata.creation_timestamp.as_ref().map(|t| t.0);
    last_container(pod).or_else(not_ready).or_else(deleted).or_else(created).unwrap_or_default()
}

/// When the last container ended; sidecars outlive the others. `None` while one runs.
fn last_container(pod: &Pod) -> Option<Timestamp> {
    let status = pod.status.as_ref()?;
    let is_sidecar = |container: &&ContainerStatus| {
        let mut sidecars = pod.spec.iter().flat_map(|s| s.init_containers.iter().flatten());
        sidecars.any(|c| c.name == container.name && c.restart_policy.as_deref() == Some("Always"))
    };
    let sidecars = status.init_container_statuses.iter().flatten().filter(is_sidecar);
    let all = status.container_statuses.iter().flatten().chain(sidecars);
    let ended = |c: &ContainerStatus| Some(c.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref()?.0);
    all.map(ended).collect::<Option<Vec<_>>>()?.into_iter().max()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    fn pod(value: Value) -> Arc<Pod> {
        Arc::new(serde_json::from_value(value).unwrap())
    }

    fn ended(second: i64) -> Arc<Pod> {
        pod(json!({"metadata": {}, "status": {"containerStatuses": [
            {"name": "c", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
             "state": {"terminated": {"exitCode": 1, "finishedAt": at(second).to_string()}}},
        ]}}))
    }

    #[test]
    fn waits_double_until_a_success() {
        for (succeeded, failed, wanted) in [
            (&[][..], &[][..], None),
            (&[], &[0], Some(10)),
            (&[], &[0, 15], Some(35)),
            (&[], &[0, 15, 40], Some(80)),
            (&[10], &[0], None),
            (&[10], &[0, 15], Some(25)),
            (&[10, 20], &[0, 15], None),
        ] {
            let pods = |ends: &[i64]| ends.iter().map(|second| ended(*second)).collect::<Vec<_>>();
            let (succeeded_pods, failed_pods) = (pods(succeeded), pods(failed));
            let until = until(succeeded_pods.iter(), failed_pods.iter());
            assert_eq!(until, wanted.map(at), "{succeeded:?} {failed:?}");
        }
        assert_eq!(after(100, at(0)), Some(at(LONGEST_SECONDS)));
    }

    #[test]
    fn ends_of_pods() {
        let created = json!({"creationTimestamp": at(1).to_string()});
        assert_eq!(finished_at(&pod(json!({"metadata": created}))), at(1));
        let mut deleted = created;
        deleted["deletionTimestamp"] = at(40).to_string().into();
        deleted["deletionGracePeriodSeconds"] = 30.into();
        assert_eq!(finished_at(&pod(json!({"metadata": deleted}))), at(10));
        let ready = json!([{"type": "Ready", "status": "False", "lastTransitionTime": at(7).to_string()}]);
        assert_eq!(finished_at(&pod(json!({"metadata": deleted, "status": {"conditions": ready}}))), at(7));
        assert_eq!(finished_at(&ended(3)), at(3));
    }
}
