//! Which manifests of the registry somebody counts on though no tag leads there: pods and templates of pods name images by
//! digest, and what a pod runs is what its image's name meant when it started.

use std::{collections::HashSet, sync::Arc};

use podium_api::{KindRef, Object, kinds};
use podium_client::{ApiRef, MirrorScope};
use serde_json::Value;

/// What has pods, or templates of them.
const KINDS: [&str; 8] =
    ["Pod", "ReplicationController", "ReplicaSet", "Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob"];

/// Digests that are named. `None`: the API cannot be asked now.
pub(super) async fn digests(api: &ApiRef) -> Option<HashSet<String>> {
    let mut objects = Vec::new();
    for kind in kinds::all().into_iter().filter(|kind| KINDS.contains(&kind.names().kind)) {
        objects.extend(list(api, &kind).await?);
    }
    let found = tokio::task::spawn_blocking(move || {
        let mut found = HashSet::new();
        for object in objects {
            // What cannot be read might name anything.
            collect(&object.to_value().ok()?, &mut found);
        }
        Some(found)
    });
    found.await.ok()?
}

async fn list(api: &ApiRef, kind: &KindRef) -> Option<Vec<Arc<dyn Object>>> {
    match api.mirror(kind, MirrorScope::default()).await {
        Ok(mirror) => Some(mirror.list(None)),
        Err(error) => {
            tracing::warn!(kind = kind.names().kind, %error, "which images are in use is not known: none goes");
            None
        }
    }
}

/// Digests behind `image` and `imageID`, wherever they stand.
fn collect(value: &Value, found: &mut HashSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let image = value.as_str().filter(|_| name == "image" || name == "imageID");
                match image.and_then(|image| image.split_once('@')) {
                    Some((_, digest)) => drop(found.insert(digest.to_owned())),
                    None => collect(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn digests_stand_in_specs_templates_and_statuses() {
        let mut found = HashSet::new();
        let container = json!({ "name": "a", "image": "demo/a@sha256:1", "args": ["x@sha256:no"] });
        for object in [
            json!({ "spec": { "containers": [container], "ephemeralContainers": [{ "image": "e@sha256:2" }] },
                "status": { "containerStatuses": [{ "image": "demo/b:v1", "imageID": "demo/b@sha256:3" }] } }),
            json!({ "spec": { "template": { "spec": { "initContainers": [{ "image": "c:v1@sha256:4" }] } } } }),
            json!({ "spec": { "jobTemplate": { "spec": { "template": { "spec": { "containers": [
                { "image": "d@sha256:5" }, { "image": "d:v1" }] } } } } } }),
        ] {
            collect(&object, &mut found);
        }
        let mut found: Vec<_> = found.into_iter().collect();
        found.sort();
        assert_eq!(found, ["sha256:1", "sha256:2", "sha256:3", "sha256:4", "sha256:5"]);
    }
}
