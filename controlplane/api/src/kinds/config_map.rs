//! ConfigMap: settings that pods read.
//!
//! # Source
//! Kubernetes `pkg/apis/core/validation/validation.go`, `ValidateConfigMap`, `ValidateConfigMapUpdate`.

use k8s_openapi::api::core::v1::ConfigMap;

use crate::{
    field::{FieldErrors, FieldPath},
    kind::{Cell, Column, Kind, Names, Scope},
    names,
};

/// Bytes of all values of a ConfigMap or a Secret.
pub(super) const DATA_BYTES_MAX: usize = 1024 * 1024;
pub(super) const IMMUTABLE: &str = "field is immutable when `immutable` is set";

impl Kind for ConfigMap {
    const NAMES: Names = Names::new("", "v1", "ConfigMap", "configmaps", "configmap").short(&["cm"]);
    const SCOPE: Scope = Scope::Namespaced;
    const COLUMNS: &'static [Column<Self>] =
        &[Column::NAME, Column::<Self>::text("Data", entries).field::<ConfigMap>("data"), Column::AGE];

    fn validate(&self, errs: &mut FieldErrors) {
        let mut bytes = 0;
        for (key, value) in self.data.iter().flatten() {
            bytes += value.len();
            validate_key("data", key, errs);
            if self.binary_data.as_ref().is_some_and(|d| d.contains_key(key)) {
                let at = FieldPath::new("data").key(key);
                errs.invalid(&at, key.as_str(), "duplicate of key present in binaryData");
            }
        }
        for (key, value) in self.binary_data.iter().flatten() {
            bytes += value.0.len();
            validate_key("binaryData", key, errs);
        }
        if bytes > DATA_BYTES_MAX {
            errs.too_long(&FieldPath::default(), DATA_BYTES_MAX);
        }
    }

    fn validate_update(&self, old: &Self, errs: &mut FieldErrors) {
        if old.immutable != Some(true) {
            return;
        }
        let changed = [
            ("immutable", self.immutable != Some(true)),
            ("data", self.data != old.data),
            ("binaryData", self.binary_data != old.binary_data),
        ];
        for (field, _) in changed.iter().filter(|(_, changed)| *changed) {
            errs.forbidden(&FieldPath::new(field), IMMUTABLE);
        }
    }
}

/// A key becomes the name of a file or of an environment variable.
pub(super) fn validate_key(field: &str, key: &str, errs: &mut FieldErrors) {
    let messages = names::is_config_map_key(key);
    if !messages.is_empty() {
        errs.invalid_each(&FieldPath::new(field).key(key), key, messages);
    }
}

fn entries(map: &ConfigMap, _now: jiff::Timestamp) -> Cell {
    Cell::from(map.data.as_ref().map_or(0, |d| d.len()) + map.binary_data.as_ref().map_or(0, |d| d.len()))
}
