//! Jobs and their pods from a few words, for the tables of the tests.

use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use serde_json::{Value, json};

use super::{FINALIZER, INDEX, manage::FAILURES};
use crate::test_support::{Words, World, ago};

/// A finalizer of somebody else, which stays.
const OTHER: &str = "a.b/c";

/// The Job `pi` and its pods, one per `;`.
///
/// Of the Job: numbers of its spec, `indexed`, `suspended`, `started=60` seconds ago, counts of its status,
/// `waiting-succeeded=a,b` and `waiting-failed=a` for pods about to be counted, `said=FailureTarget:Reason`.
/// Of a pod: `NAME PHASE`, `ready`, `index=1`, `failures=1`, `exit=1`, `ended=5` seconds ago, `going` for a deletion
/// timestamp, `counted` for no finalizer, `alien` for other labels, `free` for no owner.
pub(crate) fn world(job: &str, pods: &str) -> World {
    with_policies(job, pods, json!({}))
}

/// The same, with more in the Job's spec.
pub(crate) fn with_policies(job: &str, pods: &str, more: Value) -> World {
    let mut job = self::job("pi", job);
    for (field, value) in more.as_object().unwrap() {
        job["spec"][field] = value.clone();
    }
    let lines = pods.split(';').map(str::trim).filter(|line| !line.is_empty());
    lines.fold(World::of("").plus::<Job>(job), |world, line| world.plus::<Pod>(pod(line)))
}

/// A Job, as an object.
pub(crate) fn job(name: &str, words: &str) -> Value {
    let words = Words::of(words.split_whitespace());
    let mut metadata = json!({
        "name": name, "namespace": "d", "uid": format!("job/{name}"), "generation": 1, "resourceVersion": "7",
        "creationTimestamp": ago(60),
    });
    if words.has("going") {
        metadata["deletionTimestamp"] = ago(0).into();
    }
    json!({"metadata": metadata, "spec": spec(name, &words), "status": status(&words)})
}

fn spec(name: &str, words: &Words<'_>) -> Value {
    let labels = json!({"job": name});
    json!({
        "completions": words.number("completions"), "parallelism": words.number("parallelism").unwrap_or(1),
        "completionMode": if words.has("indexed") { "Indexed" } else { "NonIndexed" },
        "backoffLimit": words.number("limit").unwrap_or(6), "backoffLimitPerIndex": words.number("per-index"),
        "maxFailedIndexes": words.number("max-failed"), "activeDeadlineSeconds": words.number("deadline"),
        "ttlSecondsAfterFinished": words.number("ttl"), "suspend": words.has("suspended"),
        "podReplacementPolicy": words.text("replace").unwrap_or("TerminatingOrFailed"),
        "managedBy": words.text("managed-by"), "selector": {"matchLabels": labels},
        "template": {
            "metadata": {"labels": labels},
            "spec": {
                "restartPolicy": words.text("restart").unwrap_or("Never"),
                "containers": [{"name": "c", "image": "i"}],
            },
        },
    })
}

fn status(words: &Words<'_>) -> Value {
    let condition = |said: &str| {
        let (kind, reason) = said.split_once(':').unwrap_or((said, ""));
        let (kind, status) = kind.strip_prefix('!').map_or((kind, "True"), |kind| (kind, "False"));
        let since = ago(words.number("since").unwrap_or(5));
        let message = match reason {
            "JobSuspended" => Some("Job suspended"),
            "BackoffLimitExceeded" => Some("Job has reached the specified backoff limit"),
            _ => None,
        };
        json!({"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": since})
    };
    let said: Option<Vec<Value>> = words.names("said").map(|said| said.into_iter().map(condition).collect());
    if !words.has("started") {
        return json!({"conditions": said});
    }
    json!({
        "startTime": ago(words.number("started").unwrap()), "ready": words.number("ready").unwrap_or(0),
        "terminating": words.number("terminating").unwrap_or(0), "active": words.number("active"),
        "succeeded": words.number("succeeded"), "failed": words.number("failed"), "completedIndexes": words.text("done"),
        "failedIndexes": words.text("failed-indexes"), "conditions": said,
        "uncountedTerminatedPods": {
            "succeeded": words.names("waiting-succeeded").map(uids), "failed": words.names("waiting-failed").map(uids),
        },
    })
}

fn uids(names: Vec<&str>) -> Vec<String> {
    names.into_iter().map(|name| format!("pod/{name}")).collect()
}

/// A pod of the Job `pi`.
pub(crate) fn pod(line: &str) -> Value {
    let mut parts = line.split_whitespace();
    let (name, phase) = (parts.next().unwrap(), parts.next().unwrap());
    let words = Words::of(parts);
    let owner = json!({
        "apiVersion": "batch/v1", "kind": "Job", "name": "pi", "uid": "job/pi", "controller": true,
        "blockOwnerDeletion": true,
    });
    let finalizers: &[&str] = if words.has("counted") || words.has("free") { &[OTHER] } else { &[OTHER, FINALIZER] };
    let mut metadata = json!({
        "name": name, "namespace": "d", "uid": format!("pod/{name}"), "resourceVersion": "7",
        "creationTimestamp": ago(words.number("age").unwrap_or(60)), "finalizers": finalizers,
        "labels": {"job": if words.has("alien") { "other" } else { "pi" }},
        "ownerReferences": if words.has("free") { json!([]) } else { json!([owner]) },
    });
    if let Some(index) = words.text("index") {
        metadata["annotations"][INDEX] = index.into();
    }
    if let Some(failures) = words.text("failures") {
        metadata["annotations"][FAILURES] = failures.into();
    }
    if words.has("going") {
        metadata["deletionTimestamp"] = ago(0).into();
        metadata["deletionGracePeriodSeconds"] = 0.into();
    }
    let ready = if words.has("ready") { "True" } else { "False" };
    let mut container = json!({
        "name": "c", "image": "i", "imageID": "", "ready": words.has("ready"),
        "restartCount": words.number("restarts").unwrap_or(0),
    });
    if let "Succeeded" | "Failed" = phase {
        let code = words.number("exit").unwrap_or(i64::from(phase == "Failed"));
        let ended = ago(words.number("ended").unwrap_or(50));
        container["state"] = json!({"terminated": {"exitCode": code, "finishedAt": ended}});
    }
    let mut conditions = vec![json!({"type": "Ready", "status": ready, "lastTransitionTime": ago(30)})];
    if words.has("disrupted") {
        conditions.push(json!({"type": "DisruptionTarget", "status": "True"}));
    }
    json!({
        "metadata": metadata, "spec": {"nodeName": words.text("node"), "containers": [{"name": "c", "image": "i"}]},
        "status": {"phase": phase, "conditions": conditions, "containerStatuses": [container]},
    })
}
