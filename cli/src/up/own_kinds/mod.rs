//! The kinds that Podium adds to the API: CustomResourceDefinitions that every cluster has.
//!
//! Made when absent, and brought to what this version knows; objects of them are the users'. Definitions of Gateway API that
//! somebody else has installed stay as they are.

mod egress_policy;
mod gateway_api;
mod gateway_schema;

use anyhow::{Context as _, Result};
use podium_api::{
    Kind, ObjectKey, Reason,
    k8s_openapi::{
        api::{networking::v1::IngressClass, rbac::v1::ClusterRole},
        apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    },
    kind_of,
};
use podium_client::{ApiRef, Patch};
use serde_json::{Value, json};

/// Makes the definitions and the roles for them, or mends them.
pub(super) async fn install(api: &ApiRef) -> Result<()> {
    ensure::<CustomResourceDefinition>(api, egress_policy::definition(), "spec").await?;
    for definition in gateway_api::definitions() {
        if gateway_api::is_ours(api, &definition).await {
            ensure::<CustomResourceDefinition>(api, definition, "spec").await?;
        }
    }
    ensure::<ClusterRole>(api, role("view", &["get", "list", "watch"]), "rules").await?;
    ensure::<ClusterRole>(api, role("admin", &["create", "update", "patch", "delete", "deletecollection"]), "rules")
        .await?;
    make_ingress_class(api).await
}

/// Makes the class of the Ingresses that are served here, unless there is one of that name.
async fn make_ingress_class(api: &ApiRef) -> Result<()> {
    let class = json!({
        "apiVersion": IngressClass::NAMES.api_version(), "kind": IngressClass::NAMES.kind,
        "metadata": { "name": "podium" }, "spec": { "controller": "podium.dev/ingress" },
    });
    let made =
        api.create(kind_of::<IngressClass>().decode_value(class).context("make the IngressClass podium")?.object);
    match made.await {
        Err(error) if error.reason == Reason::AlreadyExists => Ok(()),
        made => made.context("make the IngressClass podium").map(drop),
    }
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
        "rules": [
            { "apiGroups": ["network.podium.dev"], "resources": ["egresspolicies"], "verbs": verbs },
            { "apiGroups": [gateway_api::GROUP], "resources": gateway_api::ROUTES_AND_GATEWAYS, "verbs": verbs },
        ],
    })
}
