//! How far the rollout of a workload is, as its status tells. Pure.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/kubectl/pkg/polymorphichelpers/rollout_status.go`.

use serde_json::Value;

use super::Workload;

/// How far a rollout is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Progress {
    Waiting(String),
    Done(String),
    Failed(String),
}

use Progress::{Done, Failed, Waiting};

/// How far the rollout of `object`, which is a `workload`, is.
pub(super) fn progress(workload: Workload, object: &Value) -> Progress {
    let strategy = &object["spec"]["updateStrategy"]["type"];
    if workload != Workload::Deployment && strategy != "RollingUpdate" {
        return Failed("rollout status is only available for RollingUpdate strategy type".to_owned());
    }
    let observed = number(&object["status"]["observedGeneration"]);
    if number(&object["metadata"]["generation"]) > observed {
        return Waiting(format!("Waiting for {} spec update to be observed...", workload.noun()));
    }
    match workload {
        Workload::Deployment => deployment(object),
        Workload::DaemonSet => daemon_set(object),
        Workload::StatefulSet => stateful_set(object),
    }
}

fn deployment(object: &Value) -> Progress {
    let name = name(object);
    let (spec, status) = (&object["spec"], &object["status"]);
    let late = |c: &Value| c["type"] == "Progressing" && c["reason"] == "ProgressDeadlineExceeded";
    if status["conditions"].as_array().is_some_and(|all| all.iter().any(late)) {
        return Failed(format!("deployment {name:?} exceeded its progress deadline"));
    }
    let wanted = spec["replicas"].as_i64().unwrap_or(1);
    let (all, updated) = (number(&status["replicas"]), number(&status["updatedReplicas"]));
    let available = number(&status["availableReplicas"]);
    let waiting = |what: String| Waiting(format!("Waiting for deployment {name:?} rollout to finish: {what}..."));
    if updated < wanted {
        return waiting(format!("{updated} out of {wanted} new replicas have been updated"));
    }
    if all > updated {
        return waiting(format!("{} old replicas are pending termination", all - updated));
    }
    if available < updated {
        return waiting(format!("{available} of {updated} updated replicas are available"));
    }
    Done(format!("deployment {name:?} successfully rolled out"))
}

fn daemon_set(object: &Value) -> Progress {
    let (name, status) = (name(object), &object["status"]);
    let wanted = number(&status["desiredNumberScheduled"]);
    let (updated, available) = (number(&status["updatedNumberScheduled"]), number(&status["numberAvailable"]));
    let waiting = |what: String| Waiting(format!("Waiting for daemon set {name:?} rollout to finish: {what}..."));
    if updated < wanted {
        return waiting(format!("{updated} out of {wanted} new pods have been updated"));
    }
    if available < wanted {
        return waiting(format!("{available} of {wanted} updated pods are available"));
    }
    Done(format!("daemon set {name:?} successfully rolled out"))
}

fn stateful_set(object: &Value) -> Progress {
    let (spec, status) = (&object["spec"], &object["status"]);
    let wanted = spec["replicas"].as_i64().unwrap_or(1);
    let (ready, updated) = (number(&status["readyReplicas"]), number(&status["updatedReplicas"]));
    if ready < wanted {
        return Waiting(format!("Waiting for {} pods to be ready...", wanted - ready));
    }
    // The server fills it in: only who speaks to one that does not sees the sentences below.
    let rolling = &spec["updateStrategy"]["rollingUpdate"];
    if rolling.is_object() {
        let to_update = wanted.saturating_sub(number(&rolling["partition"]));
        if updated < to_update {
            return Waiting(format!(
                "Waiting for partitioned roll out to finish: {updated} out of {to_update} new pods have been updated..."
            ));
        }
        return Done(format!("partitioned roll out complete: {updated} new pods have been updated..."));
    }
    let revision = |which: &str| status[which].as_str().unwrap_or_default();
    let (current, update) = (revision("currentRevision"), revision("updateRevision"));
    if current != update {
        return Waiting(format!(
            "waiting for statefulset rolling update to complete {updated} pods at revision {update}..."
        ));
    }
    let pods = number(&status["currentReplicas"]);
    Done(format!("statefulset rolling update complete {pods} pods at revision {current}..."))
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn with(spec: &Value, status: &Value) -> Value {
        json!({"metadata": {"name": "web", "generation": 2}, "spec": spec, "status": status})
    }

    #[test]
    fn of_a_deployment() {
        let waiting = |what: &str| Waiting(format!("Waiting for deployment \"web\" rollout to finish: {what}..."));
        for (status, expected) in [
            (json!({"observedGeneration": 1}), Waiting("Waiting for deployment spec update to be observed...".into())),
            (
                json!({"observedGeneration": 2, "replicas": 3, "updatedReplicas": 1}),
                waiting("1 out of 3 new replicas have been updated"),
            ),
            (
                json!({"observedGeneration": 2, "replicas": 4, "updatedReplicas": 3}),
                waiting("1 old replicas are pending termination"),
            ),
            (
                json!({"observedGeneration": 2, "replicas": 3, "updatedReplicas": 3, "availableReplicas": 2}),
                waiting("2 of 3 updated replicas are available"),
            ),
            (
                json!({"observedGeneration": 2, "replicas": 3, "updatedReplicas": 3, "availableReplicas": 3}),
                Done("deployment \"web\" successfully rolled out".into()),
            ),
            (
                json!({"observedGeneration": 2, "conditions": [{"type": "Progressing", "reason": "ProgressDeadlineExceeded"}]}),
                Failed("deployment \"web\" exceeded its progress deadline".into()),
            ),
        ] {
            assert_eq!(progress(Workload::Deployment, &with(&json!({"replicas": 3}), &status)), expected);
        }
    }

    #[test]
    fn of_a_daemon_set() {
        let rolling = json!({"updateStrategy": {"type": "RollingUpdate"}});
        let status = |updated: i64, available: i64| {
            json!({
                "observedGeneration": 2, "desiredNumberScheduled": 3,
                "updatedNumberScheduled": updated, "numberAvailable": available,
            })
        };
        let waiting = |what: &str| Waiting(format!("Waiting for daemon set \"web\" rollout to finish: {what}..."));
        for (status, expected) in [
            (json!({"observedGeneration": 1}), Waiting("Waiting for daemon set spec update to be observed...".into())),
            (status(1, 3), waiting("1 out of 3 new pods have been updated")),
            (status(3, 2), waiting("2 of 3 updated pods are available")),
            (status(3, 3), Done("daemon set \"web\" successfully rolled out".into())),
        ] {
            assert_eq!(progress(Workload::DaemonSet, &with(&rolling, &status)), expected);
        }
    }

    #[test]
    fn of_a_stateful_set() {
        let partitioned = |partition: i64| {
            let update = json!({"type": "RollingUpdate", "rollingUpdate": {"partition": partition}});
            json!({"replicas": 3, "updateStrategy": update})
        };
        let rolling = || json!({"replicas": 3, "updateStrategy": {"type": "RollingUpdate"}});
        let status = |ready: i64, updated: i64, current: &str| {
            json!({
                "observedGeneration": 2, "readyReplicas": ready, "updatedReplicas": updated, "currentReplicas": 3,
                "currentRevision": current, "updateRevision": "web-2",
            })
        };
        for (spec, status, expected) in [
            (rolling(), json!({"observedGeneration": 1}), "Waiting for statefulset spec update to be observed..."),
            (rolling(), status(2, 1, "web-1"), "Waiting for 1 pods to be ready..."),
            (
                partitioned(2),
                status(3, 0, "web-1"),
                "Waiting for partitioned roll out to finish: 0 out of 1 new pods have been updated...",
            ),
            (
                rolling(),
                status(3, 1, "web-1"),
                "waiting for statefulset rolling update to complete 1 pods at revision web-2...",
            ),
        ] {
            assert_eq!(progress(Workload::StatefulSet, &with(&spec, &status)), Waiting(expected.into()));
        }
        for (spec, status, expected) in [
            (partitioned(2), status(3, 1, "web-1"), "partitioned roll out complete: 1 new pods have been updated..."),
            (rolling(), status(3, 3, "web-2"), "statefulset rolling update complete 3 pods at revision web-2..."),
        ] {
            assert_eq!(progress(Workload::StatefulSet, &with(&spec, &status)), Done(expected.into()));
        }
    }

    #[test]
    fn who_replaces_pods_only_when_they_are_deleted_rolls_nothing_out() {
        let on_delete = with(&json!({"updateStrategy": {"type": "OnDelete"}}), &json!({"observedGeneration": 2}));
        for workload in [Workload::DaemonSet, Workload::StatefulSet] {
            let why = "rollout status is only available for RollingUpdate strategy type";
            assert_eq!(progress(workload, &on_delete), Failed(why.into()));
        }
    }
}
