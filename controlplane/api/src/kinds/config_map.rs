//! ConfigMap: settings that pods read.

use k8s_openapi::api::core::v1::ConfigMap;

use crate::kind::{Cell, Column, Kind, Names, Scope};

impl Kind for ConfigMap {
    const NAMES: Names = Names::new("", "v1", "ConfigMap", "configmaps", "configmap").short(&["cm"]);
    const SCOPE: Scope = Scope::Namespaced;
    const COLUMNS: &'static [Column<Self>] = &[Column::NAME, Column::int("Data", entries), Column::AGE];
}

fn entries(map: &ConfigMap, _now: jiff::Timestamp) -> Cell {
    Cell::from(map.data.as_ref().map_or(0, |d| d.len()) + map.binary_data.as_ref().map_or(0, |d| d.len()))
}
