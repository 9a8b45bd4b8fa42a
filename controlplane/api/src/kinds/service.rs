//! Service: a stable address in front of pods.

use k8s_openapi::api::core::v1::Service;

use crate::kind::{Kind, Names, Scope, Sub};
use crate::names::NameRule;

impl Kind for Service {
    const NAMES: Names = Names::new("", "v1", "Service", "services", "service")
        .short(&["svc"])
        .name_rule(NameRule::Dns1035Label)
        .categories(&["all"]);
    const SCOPE: Scope = Scope::Namespaced;
    const SUBRESOURCES: &'static [Sub<Self>] = &[Sub::STATUS];
}
