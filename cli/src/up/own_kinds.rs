//! The kinds that Podium adds to the API: CustomResourceDefinitions that every cluster has.
//!
//! Made when absent, and brought to what this version knows; objects of them are the users'.

use anyhow::{Context as _, Result};
use podium_api::{
    Kind, ObjectKey, Reason,
    k8s_openapi::{
        api::rbac::v1::ClusterRole, apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    },
    kind_of,
};
use podium_client::{ApiRef, Patch};
use serde_json::{Value, json};

/// Makes the definitions and the roles for them, or mends them.
pub(super) async fn install(api: &ApiRef) -> Result<()> {
    ensure::<CustomResourceDefinition>(api, egress_policy(), "spec").await?;
    ensure::<ClusterRole>(api, role("view", &["get", "list", "watch"]), "rules").await?;
    ensure::<ClusterRole>(api, role("admin", &["create", "update", "patch", "delete", "deletecollection"]), "rules")
        .await
}

/// Makes an object, or brings the part of it that says what it is to what it should be.
async fn ensure<K: Kind>(api: &ApiRef, object: Value, part: &str) -> Result<()> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let what = || format!("make the {} {name}", K::NAMES.kind);
    let made = kind_of::<K>().decode_value(object.clone()).with_context(what)?.object;
    match api.create(made).await {
        Err(error) if error.reason == Reason::AlreadyExists => {
            let patch = Patch::Merge(json!({ part: object[part] }));
            api.patch(&kind_of::<K>(), &ObjectKey::new("", &name), patch, None).await.with_context(what).map(drop)
        }
        made => made.with_context(what).map(drop),
    }
}

/// What of the roles `view` and `admin` concerns the kinds defined here.
fn role(of: &str, verbs: &[&str]) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {
            "name": format!("podium:aggregate-to-{of}"),
            "labels": { (format!("rbac.authorization.k8s.io/aggregate-to-{of}")): "true" },
        },
        "rules": [{ "apiGroups": ["network.podium.dev"], "resources": ["egresspolicies"], "verbs": verbs }],
    })
}

/// `EgressPolicy`: which hosts outside the cluster the selected pods may reach.
fn egress_policy() -> Value {
    let version = json!({
        "name": "v1alpha1", "served": true, "storage": true,
        "schema": { "openAPIV3Schema": egress_schema() },
        "additionalPrinterColumns": [
            { "name": "Hosts", "type": "string", "jsonPath": ".spec.egress[*].hosts" },
            { "name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp" },
        ],
    });
    json!({
        "apiVersion": CustomResourceDefinition::NAMES.api_version(), "kind": CustomResourceDefinition::NAMES.kind,
        "metadata": { "name": "egresspolicies.network.podium.dev" },
        "spec": {
            "group": "network.podium.dev", "scope": "Namespaced",
            "names": { "plural": "egresspolicies", "singular": "egresspolicy", "kind": "EgressPolicy",
                "listKind": "EgressPolicyList", "shortNames": ["egpol"] },
            "versions": [version],
        },
    })
}

fn egress_schema() -> Value {
    let text = |description: &str| json!({ "type": "string", "description": description });
    let expression = json!({
        "type": "object", "required": ["key", "operator"],
        "properties": {
            "key": text("The label."),
            "operator": { "type": "string", "enum": ["In", "NotIn", "Exists", "DoesNotExist"] },
            "values": { "type": "array", "items": { "type": "string" } },
        },
    });
    let selector = json!({
        "type": "object", "description": "The pods of the namespace that it is about; empty: all.",
        "properties": {
            "matchLabels": { "type": "object", "additionalProperties": { "type": "string" } },
            "matchExpressions": { "type": "array", "items": expression },
        },
    });
    json!({
        "type": "object", "required": ["spec"],
        "description": "EgressPolicy says which hosts outside the cluster the pods that it selects may reach. Without rules: none.",
        "properties": {
            "apiVersion": { "type": "string" }, "kind": { "type": "string" }, "metadata": { "type": "object" },
            "spec": {
                "type": "object",
                "properties": {
                    "podSelector": selector,
                    "egress": { "type": "array", "maxItems": 64, "items": egress_rule(),
                        "description": "What they may reach: whatever one of the rules allows." },
                },
            },
        },
    })
}

fn egress_rule() -> Value {
    const HOST: &str = r"^(\*|(\*\.)?([A-Za-z0-9_-]+\.)*[A-Za-z0-9_-]+\.?|[0-9a-fA-F.:]+(/[0-9]{1,3})?)$";
    let port = |description: &str| json!({ "type": "integer", "format": "int32", "minimum": 1, "maximum": 65535, "description": description });
    json!({
        "type": "object", "required": ["hosts"],
        "properties": {
            "hosts": {
                "type": "array", "minItems": 1, "maxItems": 64,
                "description": "Names of hosts, *.NAME for all below one, addresses, ranges of addresses, or *.",
                "items": { "type": "string", "maxLength": 253, "pattern": HOST },
            },
            "ports": {
                "type": "array", "maxItems": 32, "description": "On which ports; empty: on all, by TCP and UDP.",
                "items": {
                    "type": "object", "required": ["port"],
                    "x-kubernetes-validations": [{
                        "rule": "!has(self.endPort) || self.endPort >= self.port",
                        "message": "endPort must not be less than port",
                    }],
                    "properties": {
                        "port": port("The port, or the first of several."),
                        "endPort": port("The last of several."),
                        "protocol": { "type": "string", "enum": ["TCP", "UDP"], "default": "TCP" },
                    },
                },
            },
        },
    })
}
