//! StatefulSets, DaemonSets, their pods and their revisions, from words.

use std::sync::Arc;

use k8s_openapi::api::{
    apps::v1::{ControllerRevision, DaemonSet, StatefulSet},
    core::v1::Pod,
};
use podium_api::Object;
use serde_json::{Value, json};

use super::{Words, pod, template, typed};
use crate::controller_history::data_of;

pub(super) fn object(kind: &str, metadata: Value, words: &Words<'_>) -> Arc<dyn Object> {
    match kind {
        "sts" => typed::<StatefulSet>(stateful_set(metadata, words)),
        "ds" => typed::<DaemonSet>(daemon_set(metadata, words)),
        "member" => typed::<Pod>(member(metadata, words)),
        "daemon" => typed::<Pod>(daemon(metadata, words)),
        _ => typed::<ControllerRevision>(revision(metadata, words)),
    }
}

/// A number, or a percentage.
fn amount(words: &Words<'_>, word: &str) -> Option<Value> {
    words.text(word).map(|text| text.parse::<i32>().map_or_else(|_| json!(text), |n| json!(n)))
}

/// `status=replicas:3,readyReplicas:2`
fn counts(words: &Words<'_>, status: &mut Value) {
    for (field, count) in words.list("status") {
        status[field] = count.parse::<i32>().unwrap().into();
    }
}

/// `claims=v,w parallel ondelete partition=1 unavailable=2 start=5 deleted=Delete scaled=Delete current=REV update=REV`
fn stateful_set(metadata: Value, words: &Words<'_>) -> Value {
    let claims = words.text("claims").into_iter().flat_map(|names| names.split(','));
    let claim = |name: &str| json!({"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"]}});
    let claims: Vec<Value> = claims.map(claim).collect();
    let strategy = match words.has("ondelete") {
        true => json!({"type": "OnDelete"}),
        false => json!({
            "type": "RollingUpdate",
            "rollingUpdate": {
                "partition": words.number("partition").unwrap_or(0), "maxUnavailable": amount(words, "unavailable"),
            },
        }),
    };
    let mut set = json!({
        "metadata": metadata,
        "spec": {
            "replicas": words.number("replicas").unwrap_or(1), "serviceName": "db", "minReadySeconds": words.number("min-ready"),
            "podManagementPolicy": if words.has("parallel") { "Parallel" } else { "OrderedReady" },
            "updateStrategy": strategy, "revisionHistoryLimit": words.number("history").unwrap_or(10),
            "selector": {"matchLabels": {"app": "web"}}, "template": template(words, None),
            "volumeClaimTemplates": claims,
            "persistentVolumeClaimRetentionPolicy": {
                "whenDeleted": words.text("deleted").unwrap_or("Retain"),
                "whenScaled": words.text("scaled").unwrap_or("Retain"),
            },
        },
        "status": {
            "replicas": 0, "availableReplicas": 0, "collisionCount": words.number("collisions").unwrap_or(0),
            "observedGeneration": 1, "currentRevision": words.text("current"), "updateRevision": words.text("update"),
        },
    });
    if let Some(start) = words.number("start") {
        set["spec"]["ordinals"] = json!({"start": start});
    }
    counts(words, &mut set["status"]);
    set
}

/// `unavailable=1 surge=10% ondelete select=disk:ssd tolerates=dedicated host-network`
fn daemon_set(metadata: Value, words: &Words<'_>) -> Value {
    let strategy = match words.has("ondelete") {
        true => json!({"type": "OnDelete"}),
        false => json!({
            "type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": amount(words, "surge"), "maxUnavailable": amount(words, "unavailable")},
        }),
    };
    let mut template = template(words, None);
    template["spec"]["nodeSelector"] = json!(words.pairs("select"));
    if let Some(key) = words.text("tolerates") {
        template["spec"]["tolerations"] = json!([{"key": key, "operator": "Exists"}]);
    }
    if words.has("host-network") {
        template["spec"]["hostNetwork"] = true.into();
    }
    let mut set = json!({
        "metadata": metadata,
        "spec": {
            "updateStrategy": strategy, "revisionHistoryLimit": words.number("history").unwrap_or(10),
            "minReadySeconds": words.number("min-ready"), "selector": {"matchLabels": {"app": "web"}},
            "template": template,
        },
        "status": {
            "currentNumberScheduled": 0, "desiredNumberScheduled": 0, "numberMisscheduled": 0, "numberReady": 0,
            "observedGeneration": 1, "collisionCount": words.number("collisions"),
        },
    });
    counts(words, &mut set["status"]);
    set
}

/// A StatefulSet's pod: `at=REV` is its revision, `claims=v` its claims.
fn member(metadata: Value, words: &Words<'_>) -> Value {
    let mut pod = pod(metadata, words);
    let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let index = name.rsplit('-').next().unwrap_or_default().to_owned();
    pod["metadata"]["labels"] = json!({
        "app": "web", "controller-revision-hash": words.text("at").unwrap_or_default(), "apps.kubernetes.io/pod-index": index,
        "statefulset.kubernetes.io/pod-name": if words.has("nameless") { "" } else { &name },
    });
    let claims = words.text("claims").into_iter().flat_map(|names| names.split(','));
    let volume =
        |claim: &str| json!({"name": claim, "persistentVolumeClaim": {"claimName": format!("{claim}-{name}")}});
    pod["spec"]["volumes"] = claims.map(volume).collect();
    pod
}

/// A DaemonSet's pod: `for=NODE` is where it is to go, `at=HASH` its version.
fn daemon(metadata: Value, words: &Words<'_>) -> Value {
    let mut pod = pod(metadata, words);
    pod["metadata"]["labels"] = json!({"app": "web", "controller-revision-hash": words.text("at").unwrap_or_default()});
    if let Some(node) = words.text("for") {
        let field = json!({"key": "metadata.name", "operator": "In", "values": [node]});
        let required = json!({"nodeSelectorTerms": [{"matchFields": [field]}]});
        pod["spec"]["affinity"] = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}});
    }
    pod
}

/// `image=v1 rev=2`: the revision of a template.
fn revision(metadata: Value, words: &Words<'_>) -> Value {
    let template = serde_json::from_value(template(words, None)).unwrap();
    json!({"metadata": metadata, "data": data_of(&template), "revision": words.number("rev").unwrap_or(1)})
}
