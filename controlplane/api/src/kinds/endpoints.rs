//! Endpoints: the addresses behind a Service, in the old form.

use k8s_openapi::api::core::v1::Endpoints;

use crate::kind::{Kind, Names, Scope};

impl Kind for Endpoints {
    const NAMES: Names = Names::new("", "v1", "Endpoints", "endpoints", "endpoints").short(&["ep"]);
    const SCOPE: Scope = Scope::Namespaced;
}
