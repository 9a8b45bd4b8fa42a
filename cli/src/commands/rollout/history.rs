//! The revisions of a workload: which there are, and what going back to one changes. Pure.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/kubectl/pkg/polymorphichelpers/{history,rollback}.go`.

use anyhow::{Result, bail};
use serde_json::{Map, Value, json};

use super::Workload;
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

/// One revision of a workload.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Revision {
    /// Counts up from one.
    pub(super) number: i64,
    /// The ReplicaSet or ControllerRevision that keeps it.
    kept: Value,
}

impl Revision {
    /// The template of its pods, without what tells revisions apart.
    pub(super) fn template(&self, workload: Workload) -> Value {
        match workload {
            Workload::Deployment => {
                let mut template = self.kept["spec"]["template"].clone();
                if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
                    labels.remove(TEMPLATE_HASH);
                }
                template
            }
            Workload::DaemonSet | Workload::StatefulSet => {
                let mut template = self.kept["data"]["spec"]["template"].clone();
                if let Some(fields) = template.as_object_mut() {
                    fields.remove("$patch");
                }
                template
            }
        }
    }

    /// The JSON patch that goes back to it; `None` when `object` is there already.
    pub(super) fn undo(&self, workload: Workload, object: &Value) -> Option<Value> {
        let template = self.template(workload);
        if template == object["spec"]["template"] {
            return None;
        }
        let mut patch = vec![json!({ "op": "replace", "path": "/spec/template", "value": template })];
        if workload == Workload::Deployment {
            let annotations = annotations(object, &self.kept);
            patch.push(json!({ "op": "replace", "path": "/metadata/annotations", "value": annotations }));
        }
        Some(Value::Array(patch))
    }

    fn cause(&self) -> &str {
        self.kept["metadata"]["annotations"][CHANGE_CAUSE].as_str().unwrap_or("<none>")
    }
}

/// The revisions of `object` among `list`, oldest first.
pub(super) fn revisions(workload: Workload, object: &Value, list: &Value) -> Vec<Revision> {
    let uid = &object["metadata"]["uid"];
    let owned = |kept: &&Value| {
        let owners = kept["metadata"]["ownerReferences"].as_array();
        owners.is_some_and(|all| all.iter().any(|o| o["uid"] == *uid && o["controller"] == true))
    };
    let numbered = |kept: &Value| {
        let number = match workload {
            Workload::Deployment => kept["metadata"]["annotations"][REVISION].as_str()?.parse().ok()?,
            Workload::DaemonSet | Workload::StatefulSet => kept["revision"].as_i64()?,
        };
        Some(Revision { number, kept: kept.clone() })
    };
    let all = list["items"].as_array().into_iter().flatten();
    let mut found: Vec<Revision> = all.filter(owned).filter_map(numbered).collect();
    found.sort_by_key(|revision| revision.number);
    found
}

/// The revision to go back to: the one named, or with zero the one before the newest.
pub(super) fn target(revisions: &[Revision], to_revision: i64) -> Result<&Revision> {
    let found = match (to_revision, revisions) {
        (0, [.., before, _]) => Some(before),
        (0, _) => bail!("no rollout history found"),
        (wanted, all) => all.iter().find(|revision| revision.number == wanted),
    };
    match found {
        Some(revision) => Ok(revision),
        None => bail!("unable to find specified revision {to_revision} in history"),
    }
}

/// The annotations after going back: the Deployment's own, and those of the revision.
fn annotations(deployment: &Value, replica_set: &Value) -> Value {
    let of = |object: &Value| object["metadata"]["annotations"].as_object().cloned().unwrap_or_default();
    let is_own = |key: &String| OWN_ANNOTATIONS.contains(&key.as_str());
    let own = of(deployment).into_iter().filter(|(key, _)| is_own(key));
    let earlier = of(replica_set).into_iter().filter(|(key, _)| !is_own(key));
    Value::Object(own.chain(earlier).collect::<Map<_, _>>())
}

/// The table of revisions.
pub(super) fn table(revisions: &[Revision]) -> String {
    let mut grid = Grid::default();
    grid.row(["REVISION", "CHANGE-CAUSE"]);
    for revision in revisions {
        grid.row([revision.number.to_string().as_str(), revision.cause()]);
    }
    grid.render()
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn of_a_deployment() {
        let workload = Workload::Deployment;
        let template = json!({"metadata": {"labels": {"app": "web"}}, "r": "10"});
        let annotations = json!({REVISION: "10", "mine": "x"});
        let deployment = json!({"metadata": {"uid": "u", "annotations": annotations}, "spec": {"template": template}});
        let revisions = revisions(workload, &deployment, &sets());
        assert_eq!(table(&revisions), "REVISION   CHANGE-CAUSE\n2          first\n10         <none>\n");
        let before = target(&revisions, 0).unwrap();
        assert_eq!(before.number, 2);
        let patch = before.undo(workload, &deployment).unwrap();
        assert_eq!(patch[0]["value"], json!({"metadata": {"labels": {"app": "web"}}, "r": "2"}));
        assert_eq!(patch[1]["value"], json!({REVISION: "10", CHANGE_CAUSE: "first"}));
        assert_eq!(target(&revisions, 10).unwrap().undo(workload, &deployment), None, "it is there already");
        assert!(target(&revisions, 3).unwrap_err().to_string().contains("revision 3"));
        assert!(target(&revisions[..1], 0).unwrap_err().to_string().contains("no rollout history"));
    }

    #[test]
    fn of_a_daemon_set() {
        let workload = Workload::DaemonSet;
        let kept = |revision: i64, image: &str| {
            json!({
                "metadata": {"ownerReferences": [{"uid": "u", "controller": true}]}, "revision": revision,
                "data": {"spec": {"template": {"$patch": "replace", "image": image}}},
            })
        };
        let object = json!({"metadata": {"uid": "u"}, "spec": {"template": {"image": "new"}}});
        let revisions = revisions(workload, &object, &json!({"items": [kept(2, "new"), kept(1, "old")]}));
        let patch = target(&revisions, 0).unwrap().undo(workload, &object).unwrap();
        assert_eq!(patch, json!([{"op": "replace", "path": "/spec/template", "value": {"image": "old"}}]));
        assert_eq!(target(&revisions, 2).unwrap().undo(workload, &object), None);
    }
}
