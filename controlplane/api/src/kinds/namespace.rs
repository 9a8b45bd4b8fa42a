//! Namespace: a set of names, and what goes when it goes.

use k8s_openapi::api::core::v1::Namespace;

use crate::kind::{Kind, Names, Scope, Sub, Verb};

impl Kind for Namespace {
    const NAMES: Names = Names::new("", "v1", "Namespace", "namespaces", "namespace").short(&["ns"]);
    const SCOPE: Scope = Scope::Cluster;
    const SUBRESOURCES: &'static [Sub<Self>] = &[Sub::verb("finalize", Verb::Finalize), Sub::STATUS];
}
