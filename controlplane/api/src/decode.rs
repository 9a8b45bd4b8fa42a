//! Reading objects: what is wrong is said with its path, and fields that the kind does not have are listed.

use crate::{
    error::ApiError,
    kind::Kind,
    object::{Decoded, Object},
};

/// Reads one `K` from a tree.
///
/// By way of its JSON: reading the types of all kinds from a second format would double what this crate takes to compile.
pub(crate) fn decode_value<K: Kind>(value: &serde_json::Value) -> Result<Decoded, ApiError> {
    let json = serde_json::to_vec(value).map_err(|error| ApiError::internal(format!("encoding a tree: {error}")))?;
    decode::<K>(&json).map_err(|mut error| {
        // Lines and columns are those of the JSON in between, which nobody has seen.
        if let Some(end) = error.message.rfind(" at line ") {
            error.message.truncate(end);
        }
        error
    })
}

/// Kinds that hold JSON of others, which is kept as it is.
const WITH_FOREIGN_JSON: [&str; 5] =
    ["ControllerRevision", "CustomResourceDefinition", "ResourceClaim", "ResourceClaimTemplate", "DeviceClass"];
/// Lists at the top of a kind that Kubernetes writes although they hold nothing.
const WRITTEN_EMPTY: [(&str, &str); 3] = [("ClusterRole", "rules"), ("EndpointSlice", "ports"), ("Role", "rules")];
/// Fields that are maps of values, wherever they stand.
const MAPS: [&str; 12] = [
    "annotations",
    "binaryData",
    "data",
    "hard",
    "labels",
    "limits",
    "matchLabels",
    "nodeSelector",
    "overhead",
    "requests",
    "stringData",
    "volumeAttributes",
];

/// Leaves out lists and maps that hold nothing, as Kubernetes does in writing them. Those that may not be left out are
/// there again, empty, when the tree has been read.
pub(crate) fn drop_empty<K: Kind>(tree: &mut serde_json::Value) {
    let kind = K::NAMES.kind;
    if WITH_FOREIGN_JSON.contains(&kind) {
        return;
    }
    let written = WRITTEN_EMPTY.iter().filter(|(of, field)| *of == kind && tree[field] == serde_json::json!([]));
    let written: Vec<_> = written.map(|(_, field)| *field).collect();
    drop_empty_below(tree);
    for field in written {
        tree[field] = serde_json::json!([]);
    }
}

fn drop_empty_below(tree: &mut serde_json::Value) {
    use serde_json::Value;
    match tree {
        Value::Array(items) => items.iter_mut().for_each(drop_empty_below),
        Value::Object(fields) => fields.retain(|name, value| {
            drop_empty_below(value);
            match value {
                Value::Array(items) => !items.is_empty(),
                Value::Object(fields) => !fields.is_empty() || !MAPS.contains(&name.as_str()),
                _ => true,
            }
        }),
        _ => {}
    }
}

/// Reads one `K` from JSON.
pub(crate) fn decode<K: Kind>(json: &[u8]) -> Result<Decoded, ApiError> {
    let mut unknown = Vec::new();
    let mut track = serde_path_to_error::Track::new();
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let tracked = serde_path_to_error::Deserializer::new(&mut deserializer, &mut track);
    let read = serde_ignored::deserialize::<_, _, K>(tracked, |path| unknown.push(ignored_path(&path)));
    match read {
        Ok(object) => Ok(Decoded { object: Box::new(object) as Box<dyn Object>, unknown }),
        Err(error) => {
            let (kind, version) = (K::NAMES.kind, K::NAMES.version);
            let path = track.path().to_string();
            let place = if path == "." { String::new() } else { format!("{path}: ") };
            let message = format!("{kind} in version {version:?} cannot be handled as a {kind}: {place}{error}");
            Err(ApiError::bad_request(message))
        }
    }
}

/// `spec.template.spec.containers[0].foo`: `serde_ignored` shows `Option`s as `?`.
fn ignored_path(path: &serde_ignored::Path<'_>) -> String {
    use serde_ignored::Path;
    match path {
        Path::Root => String::new(),
        Path::Seq { parent, index } => format!("{}[{index}]", ignored_path(parent)),
        Path::Map { parent, key } => match ignored_path(parent) {
            parent if parent.is_empty() => key.clone(),
            parent => format!("{parent}.{key}"),
        },
        Path::Some { parent } | Path::NewtypeStruct { parent } | Path::NewtypeVariant { parent } => {
            ignored_path(parent)
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::{
        apps::v1::{ControllerRevision, Deployment},
        rbac::v1::Role,
    };
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_holds_nothing_is_left_out() {
        fn check<K: Kind>(tree: Value, wanted: Value) {
            let mut tree = tree;
            drop_empty::<K>(&mut tree);
            assert_eq!(tree, wanted);
        }
        check::<Deployment>(
            json!({"metadata": {"finalizers": [], "labels": {}, "annotations": {"a": ""}}, "spec": {
                "strategy": {}, "template": {"spec": {"tolerations": [], "nodeSelector": {}, "volumes": [{"emptyDir": {}}],
                "containers": [{"command": [], "resources": {"limits": {}}, "args": [""]}]}},
            }}),
            json!({"metadata": {"annotations": {"a": ""}}, "spec": {
                "strategy": {}, "template": {"spec": {"volumes": [{"emptyDir": {}}],
                "containers": [{"resources": {}, "args": [""]}]}},
            }}),
        );
        check::<Role>(json!({"metadata": {"labels": {}}, "rules": []}), json!({"metadata": {}, "rules": []}));
        check::<Role>(json!({"rules": [{"verbs": ["get"], "resources": []}]}), json!({"rules": [{"verbs": ["get"]}]}));
        check::<Role>(json!({"metadata": {"name": "a"}}), json!({"metadata": {"name": "a"}}));
        let data = json!({"data": {"spec": {"list": [], "labels": {}}}});
        check::<ControllerRevision>(data.clone(), data);
    }

    #[test]
    fn what_must_be_there_is_there_again() {
        let mut role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "r"},
            "rules": [{"verbs": []}]});
        drop_empty::<Role>(&mut role);
        let read = decode_value::<Role>(&role).unwrap().object.to_value().unwrap();
        assert_eq!(read["rules"], json!([{"verbs": []}]));
    }
}
