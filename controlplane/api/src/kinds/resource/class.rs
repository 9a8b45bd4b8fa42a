//! DeviceClass: devices that are claimed by one name.

use k8s_openapi::api::resource::v1::DeviceClass;

use super::{CONFIGS_MAX, GROUP, at_most, validate_configuration, validate_selectors};
use crate::{
    field::{FieldErrors, FieldPath},
    kind::{Column, Kind, Names, Scope},
    names,
};

impl Kind for DeviceClass {
    const NAMES: Names = Names::new(GROUP, "v1", "DeviceClass", "deviceclasses", "deviceclass");
    const SCOPE: Scope = Scope::Cluster;
    const RETURNS_DELETED: bool = true;
    const COLUMNS: &'static [Column<Self>] = &[Column::NAME, Column::AGE];

    crate::kind::generation_of_spec!();

    fn validate(&self, errs: &mut FieldErrors) {
        let path = FieldPath::new("spec");
        validate_selectors(self.spec.selectors.as_ref(), &path.child("selectors"), errs);
        let configs = self.spec.config.as_deref().unwrap_or_default();
        at_most(configs.len(), CONFIGS_MAX, &path.child("config"), errs);
        for (i, config) in configs.iter().enumerate() {
            validate_configuration(config.opaque.as_ref(), &path.child("config").index(i), errs);
        }
        if let Some(name) = self.spec.extended_resource_name.as_deref().filter(|n| !is_extended_resource(n)) {
            errs.invalid(&path.child("extendedResourceName"), name, "must be a valid extended resource name");
        }
    }
}

/// A resource of nodes that is not one of Kubernetes' own.
fn is_extended_resource(name: &str) -> bool {
    let native = !name.contains('/') || name.contains("kubernetes.io/") || name.starts_with("requests.");
    !native && names::is_qualified_name(&format!("requests.{name}")).is_empty()
}
