//! Ingress: HTTP rules from outside to Services.

use k8s_openapi::api::networking::v1::Ingress;

use crate::kind::{Kind, Names, Scope, Sub};

impl Kind for Ingress {
    const NAMES: Names = Names::new("networking.k8s.io", "v1", "Ingress", "ingresses", "ingress").short(&["ing"]);
    const SCOPE: Scope = Scope::Namespaced;
    const SUBRESOURCES: &'static [Sub<Self>] = &[Sub::STATUS];
}
