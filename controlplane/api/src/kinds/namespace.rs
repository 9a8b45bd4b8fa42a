//! Namespace: a set of names, and what goes when it goes.

use k8s_openapi::api::core::v1::Namespace;

use crate::kind::{Kind, Names, Scope, Sub, Verb};
use crate::names::NameRule;

impl Kind for Namespace {
    const NAMES: Names =
        Names::new("", "v1", "Namespace", "namespaces", "namespace").short(&["ns"]).name_rule(NameRule::Dns1123Label);
    const SCOPE: Scope = Scope::Cluster;
    const SUBRESOURCES: &'static [Sub<Self>] = &[Sub::verb("finalize", Verb::Finalize), Sub::STATUS];
}
