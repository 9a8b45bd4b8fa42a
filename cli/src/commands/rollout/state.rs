//! What the state of a Deployment and its ReplicaSets means for a rollout. Pure.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/kubectl/pkg/polymorphichelpers/{rollout_status,history,rollback}.go`.

use anyhow::{Result, bail};
use serde_json::{Map, Value};

use crate::output::Grid;

const REVISION: &str = "deployment.kubernetes.io/revision";
const CHANGE_CAUSE: &str = "kubernetes.io/change-cause";
const TEMPLATE_HASH: &str = "pod-template-hash";
/// Annotations that belong to the Deployment and not to a revision of it.
const OWN_ANNOTATIONS: [&str; 5] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    "deployment.kubernetes.io/revision-history",
    "deployment.kubernetes.io/desired-replicas",
    "deployment.kubernetes.io/max-replicas",
];

/// How far a rollout is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Progress {
    Waiting(String),
    Done(String),
    Failed(String),
}

/// How far the rollout of a Deployment is.
pub(super) fn progress(deployment: &Value) -> Progress {
    let name = deployment["metadata"]["name"].as_str().unwrap_or_default();
    let (meta, spec, status) = (&deployment["metadata"], &deployment["spec"], &deployment["status"]);
    let number = |value: &Value| value.as_i64().unwrap_or(0);
    if number(&meta["generation"]) > number(&status["observedGeneration"]) {
        return Progress::Waiting("Waiting for deployment spec update to be observed...".to_owned());
    }
    let conditions = status["conditions"].as_array();
    let late = |c: &Value| c["type"] == "Progressing" && c["reason"] == "ProgressDeadlineExceeded";
    if conditions.is_some_and(|all| all.iter().any(late)) {
        return Progress::Failed(format!("deployment {name:?} exceeded its progress deadline"));
    }
    let wanted = spec["replicas"].as_i64().unwrap_or(1);
    let (all, updated) = (number(&status["replicas"]), number(&status["updatedReplicas"]));
    let available = number(&status["availableReplicas"]);
    let waiting =
        |what: String| Progress::Waiting(format!("Waiting for deployment {name:?} rollout to finish: {what}..."));
    if updated < wanted {
        return waiting(format!("{updated} out of {wanted} new replicas have been updated"));
    }
    if all > updated {
        return waiting(format!("{} old replicas are pending termination", all - updated));
    }
    if available < updated {
        return waiting(format!("{available} of {updated} updated replicas are available"));
    }
    Progress::Done(format!("deployment {name:?} successfully rolled out"))
}

/// The ReplicaSets that a Deployment owns, by revision, oldest first.
pub(super) fn revisions(deployment: &Value, replica_sets: &Value) -> Vec<(i64, Value)> {
    let uid = &deployment["metadata"]["uid"];
    let owned = |set: &&Value| {
        let owners = set["metadata"]["ownerReferences"].as_array();
        owners.is_some_and(|all| all.iter().any(|o| o["uid"] == *uid && o["controller"] == true))
    };
    let numbered = |set: &Value| {
        let number = set["metadata"]["annotations"][REVISION].as_str()?.parse().ok()?;
        Some((number, set.clone()))
    };
    let sets = replica_sets["items"].as_array().into_iter().flatten();
    let mut found: Vec<(i64, Value)> = sets.filter(owned).filter_map(numbered).collect();
    found.sort_by_key(|(number, _)| *number);
    found
}

/// The revision to go back to: the one named, or with zero the one before the newest.
pub(super) fn target(revisions: &[(i64, Value)], to_revision: i64) -> Result<(i64, &Value)> {
    let found = match (to_revision, revisions) {
        (0, [.., before, _]) => Some(before),
        (0, _) => bail!("no rollout history found"),
        (wanted, all) => all.iter().find(|(number, _)| *number == wanted),
    };
    match found {
        Some((number, set)) => Ok((*number, set)),
        None => bail!("unable to find specified revision {to_revision} in history"),
    }
}

/// The template of a revision without the label that tells revisions apart.
pub(super) fn template_of(replica_set: &Value) -> Value {
    let mut template = replica_set["spec"]["template"].clone();
    if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
        labels.remove(TEMPLATE_HASH);
    }
    template
}

/// The annotations after going back: the Deployment's own, and those of the revision.
pub(super) fn annotations(deployment: &Value, replica_set: &Value) -> Value {
    let of = |object: &Value| object["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
    let is_own = |key: &String| OWN_ANNOTATIONS.contains(&key.as_str());
    let own = of(deployment).into_iter().filter(|(key, _)| is_own(key));
    let earlier = of(replica_set).into_iter().filter(|(key, _)| !is_own(key));
    Value::Object(own.chain(earlier).collect::<Map<_, _>>())
}

/// The table of revisions.
pub(super) fn history(revisions: &[(i64, Value)]) -> String {
    let mut grid = Grid::default();
    grid.row(["REVISION", "CHANGE-CAUSE"]);
    for (number, set) in revisions {
        let cause = set["metadata"]["annotations"][CHANGE_CAUSE].as_str().unwrap_or("<none>");
        grid.row([number.to_string().as_str(), cause]);
    }
    grid.render()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn how_far_it_is() {
        let deployment = |status: Value| json!({"metadata": {"name": "web", "generation": 2}, "spec": {"replicas": 3}, "status": status});
        let waiting =
            |what: &str| Progress::Waiting(format!("Waiting for deployment \"web\" rollout to finish: {what}..."));
        for (status, expected) in [
            (
                json!({"observedGeneration": 1}),
                Progress::Waiting("Waiting for deployment spec update to be observed...".into()),
            ),
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
                Progress::Done("deployment \"web\" successfully rolled out".into()),
            ),
            (
                json!({"observedGeneration": 2, "conditions": [{"type": "Progressing", "reason": "ProgressDeadlineExceeded"}]}),
                Progress::Failed("deployment \"web\" exceeded its progress deadline".into()),
            ),
        ] {
            assert_eq!(progress(&deployment(status)), expected);
        }
    }

    fn sets() -> Value {
        let set = |revision: &str, uid: &str, cause: Option<&str>| {
            json!({
                "metadata": {
                    "annotations": {REVISION: revision, CHANGE_CAUSE: cause}, "ownerReferences": [{"uid": uid, "controller": true}],
                },
                "spec": {"template": {"metadata": {"labels": {"app": "web", TEMPLATE_HASH: "1"}}, "r": revision}},
            })
        };
        json!({"items": [set("10", "u", None), set("2", "u", Some("first")), set("7", "other", None)]})
    }

    #[test]
    fn revisions_and_going_back() {
        let deployment = json!({"metadata": {"uid": "u", "annotations": {REVISION: "10", "mine": "x"}}});
        let revisions = revisions(&deployment, &sets());
        assert_eq!(revisions.iter().map(|(n, _)| *n).collect::<Vec<_>>(), [2, 10]);
        assert_eq!(history(&revisions), "REVISION   CHANGE-CAUSE\n2          first\n10         <none>\n");
        let (number, set) = target(&revisions, 0).unwrap();
        assert_eq!(number, 2);
        assert_eq!(template_of(set), json!({"metadata": {"labels": {"app": "web"}}, "r": "2"}));
        assert_eq!(annotations(&deployment, set), json!({REVISION: "10", CHANGE_CAUSE: "first"}));
        assert_eq!(target(&revisions, 10).unwrap().0, 10);
        assert!(target(&revisions, 3).unwrap_err().to_string().contains("revision 3"));
        assert!(target(&revisions[..1], 0).unwrap_err().to_string().contains("no rollout history"));
    }
}
