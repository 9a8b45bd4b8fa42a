//! ComponentStatus: the health of the parts of the control plane. Deprecated in Kubernetes, still asked for.

use k8s_openapi::api::core::v1::{ComponentCondition, ComponentStatus};

use crate::kind::{Cell, Column, Kind, Names, Scope, Storage};

impl Kind for ComponentStatus {
    const NAMES: Names = Names::new("", "v1", "ComponentStatus", "componentstatuses", "componentstatus").short(&["cs"]);
    const SCOPE: Scope = Scope::Cluster;
    const STORAGE: Storage = Storage::Computed;
    const COLUMNS: &'static [Column<Self>] = &[
        Column::NAME,
        Column::<Self>::text("Status", |c, _| {
            Cell::from(match healthy(c).map(|c| c.status.as_str()) {
                Some("True") => "Healthy",
                Some("False") => "Unhealthy",
                _ => "Unknown",
            })
        })
        .help("Status of the component conditions"),
        Column::<Self>::text("Message", |c, _| {
            Cell::from(healthy(c).and_then(|c| c.message.clone()).unwrap_or_default())
        })
        .help("Message of the component conditions"),
        Column::<Self>::text("Error", |c, _| Cell::from(healthy(c).and_then(|c| c.error.clone()).unwrap_or_default()))
            .help("Error of the component conditions"),
    ];
}

fn healthy(status: &ComponentStatus) -> Option<&ComponentCondition> {
    status.conditions.as_ref()?.iter().find(|c| c.type_ == "Healthy")
}
