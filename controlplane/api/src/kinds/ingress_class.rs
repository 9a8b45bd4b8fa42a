//! IngressClass: who serves an Ingress.

use k8s_openapi::api::networking::v1::IngressClass;

use crate::kind::{Kind, Names, Scope};

impl Kind for IngressClass {
    const NAMES: Names = Names::new("networking.k8s.io", "v1", "IngressClass", "ingressclasses", "ingressclass");
    const SCOPE: Scope = Scope::Cluster;
}
