//! What the admission webhook says to each of its paths.

use std::time::Duration;

use serde_json::{Value, json};

use crate::tasks::{FOREVER, sleep};

/// The answer of a path; none when there is no such path.
pub async fn review(path: &str, asked: &Value, sidecar: &str) -> Option<Value> {
    let object = if asked["operation"] == "DELETE" { &asked["oldObject"] } else { &asked["object"] };
    Some(match path {
        "/always-allow-delay-5s" => {
            sleep(Duration::from_secs(5)).await;
            json!({ "allowed": true, "status": { "message": "this webhook allows all requests" } })
        }
        "/always-deny" => denied("message", "this webhook denies all requests"),
        "/add-label" => add_label(&asked["object"]),
        "/pods" => pods(&asked["object"]).await,
        "/pods/attach" => attach(asked),
        "/mutating-pods" => mutate_pods(&asked["object"]),
        "/mutating-pods-sidecar" => add_sidecar(&asked["object"], sidecar),
        "/configmaps" => data(asked, object, "configmap", "unwanted key and value"),
        "/custom-resource" => data(asked, object, "custom resource", "unwanted data"),
        "/mutating-configmaps" | "/mutating-custom-resource" => stages(&asked["object"]),
        "/crd" => match asked["object"]["metadata"]["labels"]["webhook-e2e-test"] == "webhook-disallow" {
            true => denied("message", "the crd contains unwanted label"),
            false => json!({ "allowed": true }),
        },
        _ => return None,
    })
}

fn denied(field: &str, why: &str) -> Value {
    json!({ "allowed": false, "status": { field: why } })
}

fn patched(patch: &Value) -> Value {
    let patch = podium_tools::base64(patch.to_string().as_bytes());
    json!({ "allowed": true, "patchType": "JSONPatch", "patch": patch })
}

fn add_label(object: &Value) -> Value {
    let labels = object["metadata"]["labels"].as_object().filter(|labels| !labels.is_empty());
    let path = "/metadata/labels/added-label";
    match labels.map(|labels| labels.get("added-label")) {
        None => patched(&json!([{ "op": "add", "path": "/metadata/labels", "value": { "added-label": "yes" } }])),
        Some(None) => patched(&json!([{ "op": "add", "path": path, "value": "yes" }])),
        Some(Some(value)) if value != "yes" => patched(&json!([{ "op": "replace", "path": path, "value": "yes" }])),
        Some(Some(_)) => json!({ "allowed": true }),
    }
}

async fn pods(pod: &Value) -> Value {
    let mut why = String::new();
    match pod["metadata"]["labels"]["webhook-e2e-test"].as_str() {
        Some("webhook-disallow") => why.push_str("the pod contains unwanted label; "),
        Some("wait-forever") => sleep(FOREVER).await,
        _ => {}
    }
    for container in pod["spec"]["containers"].as_array().into_iter().flatten() {
        if container["name"].as_str().is_some_and(|name| name.contains("webhook-disallow")) {
            why.push_str("the pod contains unwanted container name; ");
        }
    }
    if why.is_empty() { json!({ "allowed": true }) } else { denied("message", why.trim()) }
}

fn attach(asked: &Value) -> Value {
    let options = &asked["object"];
    if asked["name"] != "to-be-attached-pod" || options["stdin"] != true || options["container"] != "container1" {
        return json!({ "allowed": true });
    }
    denied("message", "attaching to pod 'to-be-attached-pod' is not allowed")
}

fn has_container(list: &Value, name: &str) -> bool {
    list.as_array().into_iter().flatten().any(|container| container["name"] == name)
}

fn mutate_pods(pod: &Value) -> Value {
    let name = "webhook-added-init-container";
    if pod["metadata"]["name"] != "webhook-to-be-mutated" || has_container(&pod["spec"]["initContainers"], name) {
        return json!({ "allowed": true });
    }
    let added = json!([{ "image": "webhook-added-image", "name": name, "resources": {} }]);
    patched(&json!([{ "op": "add", "path": "/spec/initContainers", "value": added }]))
}

fn add_sidecar(pod: &Value, image: &str) -> Value {
    if image.is_empty() {
        let why = "No image specified by the sidecar-image parameter";
        return json!({ "allowed": false, "status": { "status": "Failure", "message": why, "code": 500 } });
    }
    let name = "webhook-added-sidecar";
    if has_container(&pod["spec"]["containers"], name) {
        return json!({ "allowed": true });
    }
    let added = json!({ "image": image, "name": name, "resources": {} });
    patched(&json!([{ "op": "add", "path": "/spec/containers/-", "value": added }]))
}

/// Judges `data` by the key that tests set.
fn data(asked: &Value, object: &Value, what: &str, unwanted: &str) -> Value {
    let value = object["data"]["webhook-e2e-test"].as_str();
    match (value, asked["operation"].as_str()) {
        (Some("webhook-disallow"), Some("CREATE" | "UPDATE")) => {
            denied("reason", &format!("the {what} contains {unwanted}"))
        }
        (Some("webhook-nondeletable"), Some("DELETE")) => {
            denied("reason", &format!("the {what} cannot be deleted because it contains unwanted key and value"))
        }
        _ => json!({ "allowed": true }),
    }
}

fn stages(object: &Value) -> Value {
    let is = |key: &str| object["data"][key] == "yes";
    let stage = if is("mutation-stage-1") { 2 } else { 1 };
    if stage == 1 && !is("mutation-start") {
        return json!({ "allowed": true });
    }
    patched(&json!([{ "op": "add", "path": format!("/data/mutation-stage-{stage}"), "value": "yes" }]))
}
