//! `EgressPolicy` of `network.podium.dev`: which hosts outside the cluster pods may reach.

use podium_api::{Kind, k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition};
use serde_json::{Value, json};

/// `EgressPolicy`: which hosts outside the cluster the selected pods may reach.
pub(super) fn definition() -> Value {
    let version = json!({
        "name": "v1alpha1", "served": true, "storage": true,
        "schema": { "openAPIV3Schema": schema() },
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

fn schema() -> Value {
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
