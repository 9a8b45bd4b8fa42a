//! Documents of the built-in kinds: what is promised of each of them.

use std::collections::HashSet;

use super::*;
use crate::schema::REF_PREFIX;

fn parsed() -> Vec<(String, Value)> {
    let kinds = crate::kinds::served();
    parts(&kinds).iter().map(|(path, part)| (path.clone(), whole(part))).collect()
}

fn at<'a>(documents: &'a [(String, Value)], path: &str) -> &'a Value {
    documents.iter().find(|(p, _)| p == path).map(|(_, d)| d).unwrap()
}

fn references(value: &Value, alone: bool, out: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(target)) = fields.get("$ref") {
                assert!(fields.len() == 1 || !alone, "{value}: nothing may stand beside $ref");
                out.push(target.clone());
            }
            fields.values().for_each(|v| references(v, alone, out));
        }
        Value::Array(items) => items.iter().for_each(|v| references(v, alone, out)),
        _ => {}
    }
}

fn operations(document: &Value) -> Vec<(String, &Value)> {
    let mut out = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let methods = item.as_object().unwrap().iter().filter(|(key, _)| *key != "parameters");
        out.extend(methods.map(|(method, operation)| (format!("{method} {path}"), operation)));
    }
    out
}

#[test]
fn every_reference_leads_somewhere() {
    for (path, document) in parsed() {
        let mut found = Vec::new();
        references(&document, true, &mut found);
        assert!(!found.is_empty());
        for target in found {
            let name = target.strip_prefix(REF_PREFIX).unwrap();
            assert!(document["components"]["schemas"].get(name).is_some(), "{path}: {target}");
        }
    }
    let document = v2::document(&crate::kinds::served());
    let mut found = Vec::new();
    references(&document, false, &mut found);
    for target in found {
        let (_, pointer) = target.split_once('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{target}");
    }
}

#[test]
fn ids_of_operations_are_unique() {
    let v2 = v2::document(&crate::kinds::served());
    let mut seen = HashSet::new();
    for (place, operation) in operations(&v2) {
        let id = operation["operationId"].as_str().unwrap();
        assert!(seen.insert(id.to_owned()), "{place}: {id} is used twice");
        assert!(operation["description"].as_str().is_some_and(|d| !d.is_empty()), "{place}");
    }
    for id in [
        "getAPIVersions",
        "getCoreV1APIResources",
        "getAppsAPIGroup",
        "listCoreV1NamespacedPod",
        "listCoreV1PodForAllNamespaces",
        "watchCoreV1NamespacedPodList",
        "deleteCoreV1CollectionNamespacedPod",
        "replaceAppsV1NamespacedDeploymentScale",
        "createCoreV1NamespacedPodEviction",
        "readCoreV1NamespacedPodLog",
        "createAuthenticationV1TokenReview",
    ] {
        assert!(seen.contains(id), "{id}");
    }
}

#[test]
fn every_kind_is_found_the_way_kubectl_looks() {
    let documents = parsed();
    for kind in crate::kinds::served() {
        let names = kind.names();
        let gvk = json!({"group": names.group, "version": names.version, "kind": names.kind});
        let path = prefix(names.group, names.version);
        let document = at(&documents, &path);
        let schema = &document["components"]["schemas"][kind.schema_name()];
        assert_eq!(schema["x-kubernetes-group-version-kind"], json!([gvk]));
        assert!(schema["description"].as_str().is_some_and(|d| !d.is_empty()), "{names:?}");
        if kind.storage() != crate::Storage::Stored {
            continue;
        }
        let patches = document["paths"].as_object().unwrap().values().map(|p| &p["patch"]);
        let patch = patches.into_iter().find(|p| p["x-kubernetes-group-version-kind"] == gvk).unwrap();
        for parameter in ["dryRun", "fieldValidation"] {
            let parameters = patch["parameters"].as_array().unwrap();
            assert!(parameters.iter().any(|p| p["name"] == parameter && p["in"] == "query"));
        }
        for form in ["application/strategic-merge-patch+json", "application/apply-patch+yaml"] {
            assert!(patch["requestBody"]["content"].get(form).is_some(), "{form}");
        }
        let list = format!("/{path}/{}", names.plural);
        assert_eq!(document["paths"][&list]["get"]["x-kubernetes-group-version-kind"], gvk, "{list}");
        assert_eq!(document["paths"][&list]["get"]["x-kubernetes-action"], "list");
    }
}

#[test]
fn fields_are_described() {
    for (path, document) in parsed() {
        for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
            for (field, property) in schema["properties"].as_object().into_iter().flatten() {
                let has = |key| property.get(key).is_some();
                let bare = ["type", "allOf", "$ref", "x-kubernetes-int-or-string"].into_iter().any(has);
                assert!(bare || has("description"), "{path}: {name}.{field}: {property}");
            }
        }
    }
}

#[test]
fn merge_keys_and_types_are_told() {
    let documents = parsed();
    let core = at(&documents, "api/v1");
    let schemas = &core["components"]["schemas"];
    let pod_spec = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"];
    let containers = &pod_spec["containers"];
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
    assert_eq!(containers["x-kubernetes-list-type"], "map");
    assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
    assert_eq!(pod_spec["tolerations"]["x-kubernetes-list-type"], "atomic");
    let port = &schemas["io.k8s.api.core.v1.ContainerPort"]["properties"]["protocol"];
    assert_eq!(port["default"], "TCP");
    let metadata = &schemas["io.k8s.api.core.v1.Pod"]["properties"]["metadata"];
    assert_eq!(metadata["allOf"][0]["$ref"], "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");
    assert_eq!(metadata["default"], json!({}));
    assert!(metadata["description"].as_str().is_some_and(|d| !d.is_empty()));
    assert_eq!(schemas["io.k8s.apimachinery.pkg.util.intstr.IntOrString"]["format"], "int-or-string");
    assert_eq!(schemas["io.k8s.api.core.v1.Pod"].get("required"), None);
    assert_eq!(schemas["io.k8s.api.core.v1.SecretKeySelector"]["x-kubernetes-map-type"], "atomic");
    let options = &schemas["io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"]["x-kubernetes-group-version-kind"];
    let wanted = json!({"group": "apps", "version": "v1", "kind": "DeleteOptions"});
    assert!(options.as_array().unwrap().contains(&wanted), "{options}");
}

#[test]
fn v2_says_it_in_its_words() {
    let document = v2::document(&crate::kinds::served());
    let schemas = &document["definitions"];
    let pod = &schemas["io.k8s.api.core.v1.Pod"];
    assert_eq!(pod["properties"]["metadata"]["$ref"], "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");
    let int_or_string = &schemas["io.k8s.apimachinery.pkg.util.intstr.IntOrString"];
    assert_eq!((&int_or_string["type"], &int_or_string["format"]), (&json!("string"), &json!("int-or-string")));
    assert_eq!(schemas["io.k8s.apimachinery.pkg.api.resource.Quantity"]["type"], "string");
    let create = &document["paths"]["/api/v1/namespaces/{namespace}/pods"]["post"];
    assert_eq!(create["parameters"][0]["schema"]["$ref"], "#/definitions/io.k8s.api.core.v1.Pod");
    assert_eq!(create["consumes"], json!(["application/json", "application/yaml"]));
    assert_eq!(create["responses"]["201"]["schema"]["$ref"], "#/definitions/io.k8s.api.core.v1.Pod");
    let list = &document["paths"]["/api/v1/pods"]["get"];
    assert!(list["produces"].as_array().unwrap().contains(&json!("application/json;stream=watch")));
}

#[test]
fn what_v2_has_no_words_for_is_left_out() {
    for (given, expected) in [
        (
            json!({"type": "object", "properties": {"a": {"type": "string", "nullable": true}}, "required": ["a"]}),
            json!({"type": "object", "properties": {"a": {}}}),
        ),
        (
            json!({"type": "array", "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}),
            json!({"type": "array", "items": {"x-kubernetes-preserve-unknown-fields": true}}),
        ),
        (
            json!({"properties": {"oneOf": {"oneOf": [{"required": ["x"]}], "type": "object", "default": {}}}}),
            json!({"properties": {"oneOf": {"type": "object", "default": {}}}}),
        ),
        (
            json!({"allOf": [{"$ref": "#/components/schemas/x.Y"}], "description": "d"}),
            json!({"$ref": "#/definitions/x.Y", "description": "d"}),
        ),
        (
            json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]}),
            json!({"x-kubernetes-int-or-string": true}),
        ),
    ] {
        let mut converted = given.clone();
        v2::convert(converted.as_object_mut().unwrap(), false);
        assert_eq!(converted, expected, "{given}");
    }
}

/// What older clients find wrong with a value, by what they look at.
fn mistakes(definitions: &Value, schema: &Value, value: &Value, path: &str, out: &mut Vec<String>) {
    if let Some(target) = schema["$ref"].as_str() {
        return mistakes(definitions, &definitions[target.rsplit('/').next().unwrap()], value, path, out);
    }
    let fits = match schema["type"].as_str() {
        None => return,
        // As kubectl sees it: a number can be a text.
        Some("string") => value.is_string() || value.is_number(),
        Some("integer") => value.is_i64(),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        Some("array") => value.is_array(),
        Some(_) => value.is_object(),
    };
    if !fits {
        out.push(format!("{path}: {value} is no {}", schema["type"]));
    }
    for (i, item) in value.as_array().into_iter().flatten().enumerate() {
        mistakes(definitions, &schema["items"], item, &format!("{path}[{i}]"), out);
    }
    let Some(fields) = value.as_object() else { return };
    for required in schema["required"].as_array().into_iter().flatten() {
        if !fields.contains_key(required.as_str().unwrap()) {
            out.push(format!("{path}: no {required}"));
        }
    }
    for (name, value) in fields {
        let path = format!("{path}.{name}");
        match (&schema["properties"][name], &schema["additionalProperties"]) {
            (Value::Null, Value::Null) if schema["properties"].is_null() => {}
            (Value::Null, Value::Null) => out.push(format!("{path}: unknown")),
            (Value::Null, any) => mistakes(definitions, any, value, &path, out),
            (schema, _) => mistakes(definitions, schema, value, &path, out),
        }
    }
}

#[test]
fn the_examples_of_all_kinds_are_as_v2_says() {
    let document = v2::document(&crate::kinds::served());
    let definitions = document["definitions"].as_object().unwrap();
    for example in crate::kinds::tests::examples::all() {
        let (group, version) = example["apiVersion"].as_str().unwrap().rsplit_once('/').unwrap_or(("", "v1"));
        let gvk = json!({"group": group, "version": version, "kind": example["kind"]});
        let named = |schema: &&Value| {
            schema["x-kubernetes-group-version-kind"].as_array().is_some_and(|kinds| kinds.contains(&gvk))
        };
        let schema = definitions.values().find(named).unwrap_or_else(|| panic!("no definition of {gvk}"));
        let mut found = Vec::new();
        mistakes(&document["definitions"], schema, &example, "", &mut found);
        assert!(found.is_empty(), "{gvk}: {found:#?}");
    }
}

#[test]
fn documents_are_kept_while_their_kinds_are_the_same() {
    let openapi = OpenApi::default();
    let kinds = crate::kinds::all();
    let one = openapi.document(&kinds, "apis/apps/v1").unwrap();
    let index = openapi.index(&kinds);
    assert!(Arc::ptr_eq(&one, &openapi.document(&kinds, "apis/apps/v1").unwrap()));
    let told: Value = serde_json::from_slice(&index.json).unwrap();
    let url = told["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap();
    assert_eq!(url, format!("/openapi/v3/apis/apps/v1?hash={}", one.hash));
    let v2 = openapi.v2(&kinds);
    assert!(Arc::ptr_eq(&v2, &openapi.v2(&kinds)));
    let fewer: Vec<KindRef> = kinds.iter().filter(|k| k.names().kind != "ReplicaSet").cloned().collect();
    let core = openapi.document(&kinds, "api/v1").unwrap();
    assert!(Arc::ptr_eq(&core, &openapi.document(&fewer, "api/v1").unwrap()));
    assert_ne!(openapi.document(&fewer, "apis/apps/v1").unwrap().hash, one.hash);
    assert_ne!(openapi.index(&fewer).hash, index.hash);
    assert_ne!(openapi.v2(&fewer).hash, v2.hash);
    assert!(openapi.document(&kinds, "apis/nope/v1").is_none());
    // The same kinds make the same documents in every process.
    assert_eq!(OpenApi::default().index(&crate::kinds::all()).hash, index.hash);
}
