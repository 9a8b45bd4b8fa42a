//! Pod: what a node runs.

use k8s_openapi::api::core::v1::Pod;

use crate::kind::{Kind, Names, Scope, Sub, Verb};

impl Kind for Pod {
    const NAMES: Names = Names::new("", "v1", "Pod", "pods", "pod").short(&["po"]).categories(&["all"]);
    const SCOPE: Scope = Scope::Namespaced;
    const SUBRESOURCES: &'static [Sub<Self>] = &[
        Sub::verb("binding", Verb::Binding),
        Sub::verb("eviction", Verb::Eviction),
        Sub::verb("log", Verb::Log),
        Sub::STATUS,
    ];
}
