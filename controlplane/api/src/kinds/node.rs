//! Node: a machine that runs pods.

use k8s_openapi::api::core::v1::Node;

use crate::kind::{Kind, Names, Scope, Sub};

impl Kind for Node {
    const NAMES: Names = Names::new("", "v1", "Node", "nodes", "node").short(&["no"]);
    const SCOPE: Scope = Scope::Cluster;
    const SUBRESOURCES: &'static [Sub<Self>] = &[Sub::STATUS];
}
