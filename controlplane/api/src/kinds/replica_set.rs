//! ReplicaSet: a number of like pods.

use k8s_openapi::api::apps::v1::ReplicaSet;

use super::label_selector::selector_text;
use crate::kind::{Kind, Names, ScaleView, Scope, Sub};

impl Kind for ReplicaSet {
    const NAMES: Names =
        Names::new("apps", "v1", "ReplicaSet", "replicasets", "replicaset").short(&["rs"]).categories(&["all"]);
    const SCOPE: Scope = Scope::Namespaced;
    const SUBRESOURCES: &'static [Sub<Self>] = &[Sub::scale(read_scale, write_scale), Sub::STATUS];
}

fn read_scale(k: &ReplicaSet) -> ScaleView {
    let spec = k.spec.as_ref();
    ScaleView {
        spec_replicas: spec.and_then(|s| s.replicas).unwrap_or(1),
        status_replicas: k.status.as_ref().map_or(0, |s| s.replicas),
        selector: spec.map(|s| selector_text(&s.selector)).unwrap_or_default(),
    }
}

fn write_scale(k: &mut ReplicaSet, replicas: i32) {
    k.spec.get_or_insert_default().replicas = Some(replicas);
}
