//! EndpointSlice: a part of the addresses behind a Service.

use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::kind::{Kind, Names, Scope};

impl Kind for EndpointSlice {
    const NAMES: Names = Names::new("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", "endpointslice");
    const SCOPE: Scope = Scope::Namespaced;
}
