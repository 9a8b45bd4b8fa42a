//! ReplicaSet: a number of like pods.
//!
//! # Source
//! Kubernetes `pkg/apis/apps/validation/validation.go`, `pkg/registry/apps/replicaset/strategy.go`.

use k8s_openapi::api::{
    apps::v1::{ReplicaSet, ReplicaSetSpec, ReplicaSetStatus},
    core::v1::PodTemplateSpec,
};

use super::{
    label_selector::{self, scale_text},
    pod, replicas,
};
use crate::{
    field::{FieldErrors, FieldPath},
    kind::{Cell, Column, Field, Kind, Names, ScaleView, Scope, Sub},
};

impl Kind for ReplicaSet {
    const NAMES: Names =
        Names::new("apps", "v1", "ReplicaSet", "replicasets", "replicaset").short(&["rs"]).categories(&["all"]);
    const SCOPE: Scope = Scope::Namespaced;
    const SUBRESOURCES: &'static [Sub<Self>] = &[Sub::scale(read_scale, write_scale), Sub::STATUS];
    const FIELDS: &'static [Field<Self>] =
        &[Field { path: "status.replicas", value: |rs| rs.status.as_ref().map_or(0, |s| s.replicas).to_string() }];
    const COLUMNS: &'static [Column<Self>] = &[
        Column::NAME,
        Column::<Self>::int("Desired", |rs, _| {
            Cell::from(rs.spec.as_ref().and_then(|s| s.replicas).unwrap_or_default())
        })
        .field::<ReplicaSetSpec>("replicas"),
        Column::<Self>::int("Current", |rs, _| Cell::from(rs.status.as_ref().map_or(0, |s| s.replicas)))
            .field::<ReplicaSetStatus>("replicas"),
        Column::<Self>::int("Ready", |rs, _| {
            Cell::from(rs.status.as_ref().and_then(|s| s.ready_replicas).unwrap_or_default())
        })
        .field::<ReplicaSetStatus>("readyReplicas"),
        Column::AGE,
        Column::<Self>::wide_text("Containers", |rs, _| Cell::from(pod::template_containers(template(rs))))
            .help("Names of each container in the template."),
        Column::<Self>::wide_text("Images", |rs, _| Cell::from(pod::template_images(template(rs))))
            .help("Images referenced by each container in the template."),
        Column::<Self>::wide_text("Selector", |rs, _| {
            Cell::from(label_selector::shown(rs.spec.as_ref().map(|s| &s.selector)))
        })
        .field::<ReplicaSetSpec>("selector"),
    ];

    fn fill_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        spec.replicas.get_or_insert(1);
        pod::fill_template_defaults(spec.template.get_or_insert_default());
    }

    crate::kind::status_apart!();
    crate::kind::generation_of_spec!();

    fn validate(&self, errs: &mut FieldErrors) {
        let default = ReplicaSetSpec::default();
        validate_spec(self.spec.as_ref().unwrap_or(&default), &FieldPath::new("spec"), errs);
    }

    fn validate_update(&self, old: &Self, errs: &mut FieldErrors) {
        let selector = |rs: &Self| rs.spec.as_ref().map(|s| s.selector.clone());
        errs.immutable(&FieldPath::new("spec").child("selector"), &selector(self), &selector(old));
    }

    fn validate_status_update(&self, _old: &Self, errs: &mut FieldErrors) {
        let Some(status) = &self.status else { return };
        let parts = [
            ("fullyLabeledReplicas", status.fully_labeled_replicas),
            ("readyReplicas", status.ready_replicas),
            ("availableReplicas", status.available_replicas),
        ];
        replicas::validate_counts(status.replicas, status.observed_generation, &parts, "readyReplicas", errs);
        let terminating = i64::from(status.terminating_replicas.unwrap_or_default());
        errs.non_negative(&FieldPath::new("status").child("terminatingReplicas"), terminating);
    }
}

fn template(rs: &ReplicaSet) -> Option<&PodTemplateSpec> {
    rs.spec.as_ref()?.template.as_ref()
}

fn read_scale(k: &ReplicaSet) -> ScaleView {
    let spec = k.spec.as_ref();
    ScaleView {
        spec_replicas: spec.and_then(|s| s.replicas).unwrap_or(1),
        status_replicas: k.status.as_ref().map_or(0, |s| s.replicas),
        selector: spec.map(|s| scale_text(&s.selector)).unwrap_or_default(),
    }
}

fn write_scale(k: &mut ReplicaSet, replicas: i32) {
    k.spec.get_or_insert_default().replicas = Some(replicas);
}

fn validate_spec(spec: &ReplicaSetSpec, path: &FieldPath, errs: &mut FieldErrors) {
    errs.non_negative(&path.child("replicas"), i64::from(spec.replicas.unwrap_or_default()));
    errs.non_negative(&path.child("minReadySeconds"), i64::from(spec.min_ready_seconds.unwrap_or_default()));
    if label_selector::is_empty(&spec.selector) {
        errs.required(&path.child("selector"), "");
    }
    label_selector::validate(&spec.selector, &path.child("selector"), errs);
    let at = path.child("template");
    match &spec.template {
        None => errs.required(&at, ""),
        Some(template) => pod::validate_template(template, &spec.selector, "ReplicaSet", &at, errs),
    }
}
