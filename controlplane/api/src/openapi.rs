//! OpenAPI v3: the index and one document for each group version, as kubectl reads them for `explain`, for the
//! merge keys of `apply`, and to learn that dry run and field validation are supported.
//!
//! Documents are large (hundreds of kilobytes): render once, keep the bytes.
//!
//! # Source
//! Kubernetes `api/openapi-spec/v3`; kubectl `pkg/explain/v2`; cli-runtime `pkg/resource/query_param_verifier_v3.go`.

use serde_json::{Map, Value, json};

use crate::{
    discovery::fnv1a,
    object::{AnyKind, KindRef},
    schema::definitions,
};

mod paths;
mod schemas;
pub mod v2;

/// The document of one group version.
#[derive(Debug, Clone)]
pub struct Document {
    /// `api/v1` or `apis/apps/v1`: its name in the index and below `/openapi/v3/`.
    pub path: String,
    /// The document.
    pub json: Vec<u8>,
    /// Changes when the document does.
    pub hash: String,
}

impl Document {
    fn new(path: String, document: &Value) -> Self {
        let json = document.to_string().into_bytes();
        let hash = format!("{:016X}", fnv1a(&json));
        Self { path, json, hash }
    }
}

/// The documents of all group versions that the kinds belong to.
pub fn documents(kinds: &[KindRef]) -> Vec<Document> {
    let mut group_versions: Vec<(&str, &str)> = kinds.iter().map(|k| (k.names().group, k.names().version)).collect();
    group_versions.sort_unstable();
    group_versions.dedup();
    group_versions.into_iter().map(|(group, version)| document(kinds, group, version)).collect()
}

fn document(kinds: &[KindRef], group: &str, version: &str) -> Document {
    let of_group = |k: &&KindRef| k.names().group == group && k.names().version == version;
    let kinds: Vec<&KindRef> = kinds.iter().filter(of_group).collect();
    let mut schemas = definitions(kinds.iter().map(|k| &***k as &dyn AnyKind));
    schemas::finish(&mut schemas, &kinds);
    let mut paths = Map::new();
    for kind in &kinds {
        paths::add(&mut paths, kind);
    }
    let document = json!({
        "openapi": "3.0.0",
        "info": { "title": "Kubernetes", "version": concat!("podium-", env!("CARGO_PKG_VERSION")) },
        "paths": paths,
        "components": { "schemas": schemas },
    });
    Document::new(prefix(group, version), &document)
}

/// `api/v1` or `apis/apps/v1`.
fn prefix(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// `GET /openapi/v3`.
pub fn index(documents: &[Document]) -> Value {
    let entry = |d: &Document| {
        let url = format!("/openapi/v3/{}?hash={}", d.path, d.hash);
        (d.path.clone(), json!({ "serverRelativeURL": url }))
    };
    let paths: Map<String, Value> = documents.iter().map(entry).collect();
    json!({ "paths": paths })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::REF_PREFIX;

    fn parsed() -> Vec<(String, Value)> {
        let documents = documents(&crate::kinds::all());
        documents.into_iter().map(|d| (d.path, serde_json::from_slice(&d.json).unwrap())).collect()
    }

    fn references(value: &Value, out: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                if let Some(Value::String(target)) = fields.get("$ref") {
                    assert_eq!(fields.len(), 1, "{value}: nothing may stand beside $ref");
                    out.push(target.clone());
                }
                fields.values().for_each(|v| references(v, out));
            }
            Value::Array(items) => items.iter().for_each(|v| references(v, out)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        for (path, document) in parsed() {
            let mut found = Vec::new();
            references(&document, &mut found);
            assert!(!found.is_empty());
            for target in found {
                let name = target.strip_prefix(REF_PREFIX).unwrap();
                assert!(document["components"]["schemas"].get(name).is_some(), "{path}: {target}");
            }
        }
    }

    #[test]
    fn every_kind_is_found_the_way_kubectl_looks() {
        let documents = parsed();
        for kind in crate::kinds::all() {
            let names = kind.names();
            let gvk = json!({"group": names.group, "version": names.version, "kind": names.kind});
            let path = prefix(names.group, names.version);
            let (_, document) = documents.iter().find(|(p, _)| *p == path).unwrap();
            let patches = document["paths"].as_object().unwrap().values().map(|p| &p["patch"]);
            let patch = patches.into_iter().find(|p| p["x-kubernetes-group-version-kind"] == gvk).unwrap();
            for parameter in ["dryRun", "fieldValidation"] {
                let parameters = patch["parameters"].as_array().unwrap();
                assert!(parameters.iter().any(|p| p["name"] == parameter && p["in"] == "query"));
            }
            assert!(patch["requestBody"]["content"].get("application/strategic-merge-patch+json").is_some());
            let schema = &document["components"]["schemas"][kind.schema_name()];
            assert_eq!(schema["x-kubernetes-group-version-kind"], json!([gvk]));
            let list = format!("/{path}/{}", names.plural);
            assert_eq!(document["paths"][&list]["get"]["x-kubernetes-group-version-kind"], gvk, "{list}");
            assert_eq!(document["paths"][&list]["get"]["x-kubernetes-action"], "list");
        }
    }

    #[test]
    fn merge_keys_and_types_are_told() {
        let documents = parsed();
        let (_, core) = documents.iter().find(|(p, _)| p == "api/v1").unwrap();
        let schemas = &core["components"]["schemas"];
        let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
        assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
        assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
        let metadata = &schemas["io.k8s.api.core.v1.Pod"]["properties"]["metadata"];
        assert_eq!(
            metadata["allOf"][0]["$ref"],
            "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
        );
        assert!(metadata["description"].as_str().is_some_and(|d| !d.is_empty()));
        assert_eq!(schemas["io.k8s.apimachinery.pkg.util.intstr.IntOrString"]["format"], "int-or-string");
        assert_eq!(schemas["io.k8s.api.core.v1.Pod"].get("required"), None);
    }

    #[test]
    fn hashes_are_stable() {
        let kinds = crate::kinds::all();
        let (one, two) = (index(&documents(&kinds)), index(&documents(&kinds)));
        assert_eq!(one, two);
        let url = one["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap();
        assert!(url.starts_with("/openapi/v3/apis/apps/v1?hash="), "{url}");
    }
}
