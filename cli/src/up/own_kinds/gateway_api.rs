//! The kinds of Gateway API (`gateway.networking.k8s.io`) that Podium serves: GatewayClass, Gateway, HTTPRoute, GRPCRoute,
//! TLSRoute and ReferenceGrant, with the fields and defaults of its standard channel.
//!
//! The schemas are Podium's own, and say so in the annotation that Kubernetes wants of its groups: the released definitions
//! are larger than all else that a cluster has at its start. Whoever installs those keeps them.
//!
//! # Source
//! <https://gateway-api.sigs.k8s.io/reference/spec/>

use podium_api::{
    Kind, ObjectKey, k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    kind_of,
};
use podium_client::ApiRef;
use serde_json::{Value, json};

use super::gateway_schema as schema;

pub(super) const GROUP: &str = "gateway.networking.k8s.io";
/// What users of a namespace may see or write; classes are the operators'.
pub(super) const ROUTES_AND_GATEWAYS: [&str; 5] =
    ["gateways", "httproutes", "grpcroutes", "tlsroutes", "referencegrants"];

const APPROVAL: &str = "api-approved.kubernetes.io";
const OURS: &str = "unapproved, Podium's own schemas of the kinds of Gateway API";

struct Definition {
    kind: &'static str,
    plural: &'static str,
    short: &'static [&'static str],
    namespaced: bool,
    /// The first is stored.
    versions: &'static [&'static str],
    schema: fn() -> Value,
    columns: fn() -> Value,
}

const ALL: &[Definition] = &[
    Definition {
        kind: "GatewayClass",
        plural: "gatewayclasses",
        short: &["gc"],
        namespaced: false,
        versions: &["v1", "v1beta1"],
        schema: schema::gateway_class,
        columns: || {
            json!([
                column("Controller", "string", ".spec.controllerName"),
                column("Accepted", "string", ".status.conditions[?(@.type==\"Accepted\")].status"),
                column("Age", "date", ".metadata.creationTimestamp"),
            ])
        },
    },
    Definition {
        kind: "Gateway",
        plural: "gateways",
        short: &["gtw"],
        namespaced: true,
        versions: &["v1", "v1beta1"],
        schema: schema::gateway,
        columns: || {
            json!([
                column("Class", "string", ".spec.gatewayClassName"),
                column("Address", "string", ".status.addresses[*].value"),
                column("Programmed", "string", ".status.conditions[?(@.type==\"Programmed\")].status"),
                column("Age", "date", ".metadata.creationTimestamp"),
            ])
        },
    },
    Definition {
        kind: "HTTPRoute",
        plural: "httproutes",
        short: &[],
        namespaced: true,
        versions: &["v1", "v1beta1"],
        schema: schema::http_route,
        columns: hostnames,
    },
    Definition {
        kind: "GRPCRoute",
        plural: "grpcroutes",
        short: &[],
        namespaced: true,
        versions: &["v1"],
        schema: schema::grpc_route,
        columns: hostnames,
    },
    Definition {
        kind: "TLSRoute",
        plural: "tlsroutes",
        short: &[],
        namespaced: true,
        versions: &["v1"],
        schema: schema::tls_route,
        columns: hostnames,
    },
    Definition {
        kind: "ReferenceGrant",
        plural: "referencegrants",
        short: &["refgrant"],
        namespaced: true,
        versions: &["v1beta1", "v1"],
        schema: schema::reference_grant,
        columns: || json!([column("Age", "date", ".metadata.creationTimestamp")]),
    },
];

fn column(name: &str, of: &str, path: &str) -> Value {
    json!({ "name": name, "type": of, "jsonPath": path })
}

fn hostnames() -> Value {
    json!([column("Hostnames", "string", ".spec.hostnames"), column("Age", "date", ".metadata.creationTimestamp"),])
}

/// All of them.
pub(super) fn definitions() -> impl Iterator<Item = Value> {
    ALL.iter().map(Definition::object)
}

/// Whether there is none of that name, or one that Podium has made.
pub(super) async fn is_ours(api: &ApiRef, definition: &Value) -> bool {
    let name = definition["metadata"]["name"].as_str().unwrap_or_default();
    match api.get(&kind_of::<CustomResourceDefinition>(), &ObjectKey::new("", name)).await {
        Ok(there) => there.meta().annotations.as_ref().and_then(|a| a.get(APPROVAL)).is_some_and(|said| said == OURS),
        Err(_) => true,
    }
}

impl Definition {
    fn object(&self) -> Value {
        let versions = self.versions.iter().enumerate().map(|(i, version)| {
            json!({
                "name": version, "served": true, "storage": i == 0,
                "schema": { "openAPIV3Schema": (self.schema)() },
                // Grants have no status, and nobody writes one.
                "subresources": { "status": {} },
                "additionalPrinterColumns": (self.columns)(),
            })
        });
        json!({
            "apiVersion": CustomResourceDefinition::NAMES.api_version(), "kind": CustomResourceDefinition::NAMES.kind,
            "metadata": {
                "name": format!("{}.{GROUP}", self.plural),
                "annotations": {
                    APPROVAL: OURS,
                    (format!("{GROUP}/channel")): "standard",
                },
            },
            "spec": {
                "group": GROUP, "scope": if self.namespaced { "Namespaced" } else { "Cluster" },
                "names": {
                    "plural": self.plural, "singular": self.kind.to_lowercase(), "kind": self.kind,
                    "listKind": format!("{}List", self.kind), "shortNames": self.short, "categories": ["gateway-api"],
                },
                "versions": versions.collect::<Vec<_>>(),
            },
        })
    }
}
