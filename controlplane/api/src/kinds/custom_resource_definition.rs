//! CustomResourceDefinition: a kind that users add.
//!
//! Here is what every kind has: defaults, the separation of the status, columns. Whether a definition is right (names,
//! versions, schemas and their rules) is checked by the crate of custom kinds, which the API server asks.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1/defaults.go`,
//! `pkg/registry/customresourcedefinition/strategy.go` there.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionStatus,
};

use crate::{
    kind::{Column, Kind, Names, Scope, Sub},
    names::NameRule,
};

impl Kind for CustomResourceDefinition {
    const NAMES: Names = Names::new(
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
        "customresourcedefinition",
    )
    .short(&["crd", "crds"])
    .categories(&["api-extensions"])
    .name_rule(NameRule::Dns1123Subdomain)
    .any_finalizers();
    const SCOPE: Scope = Scope::Cluster;
    const UNCONDITIONAL_UPDATE: bool = false;
    const SUBRESOURCES: &'static [Sub<Self>] = &[Sub::STATUS];
    const COLUMNS: &'static [Column<Self>] = &[Column::NAME, Column::CREATED_AT];

    fn fill_defaults(&mut self) {
        let names = &mut self.spec.names;
        if names.singular.as_deref().unwrap_or_default().is_empty() {
            names.singular = Some(names.kind.to_lowercase()).filter(|s| !s.is_empty());
        }
        if names.list_kind.as_deref().unwrap_or_default().is_empty() && !names.kind.is_empty() {
            names.list_kind = Some(format!("{}List", names.kind));
        }
        let conversion = self.spec.conversion.get_or_insert_default();
        if conversion.strategy.is_empty() {
            conversion.strategy = "None".to_owned();
        }
        let client = conversion.webhook.as_mut().and_then(|w| w.client_config.as_mut());
        if let Some(service) = client.and_then(|c| c.service.as_mut()) {
            service.port.get_or_insert(443);
        }
        // Who migrates what is stored says by a shorter list that it is done.
        if self.status.as_ref().and_then(|s| s.stored_versions.as_ref()).is_none_or(Vec::is_empty) {
            store_version(self);
        }
    }

    fn prepare_create(&mut self) {
        self.status = Some(CustomResourceDefinitionStatus::default());
        store_version(self);
    }

    fn prepare_update(&mut self, old: &Self) {
        self.status.clone_from(&old.status);
        store_version(self);
    }

    fn prepare_status_update(&mut self, old: &Self) {
        self.spec.clone_from(&old.spec);
    }

    crate::kind::generation_of_spec!();
}

/// The version that objects are stored as from now on is one of those that may be stored.
fn store_version(definition: &mut CustomResourceDefinition) {
    let Some(version) = definition.spec.versions.iter().find(|v| v.storage) else { return };
    let stored = definition.status.get_or_insert_default().stored_versions.get_or_insert_default();
    if !stored.contains(&version.name) {
        stored.push(version.name.clone());
    }
}
