//! ReplicationController: what ReplicaSets were before them.
//!
//! # Source
//! Kubernetes `pkg/apis/core/v1/defaults.go`, `pkg/apis/core/validation/validation.go`
//! (`ValidateReplicationController*`), `pkg/registry/core/replicationcontroller/strategy.go`.

use k8s_openapi::{
    api::core::v1::{PodTemplateSpec, ReplicationController, ReplicationControllerSpec, ReplicationControllerStatus},
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};

use super::{
    label_selector::{labels_shown, scale_text},
    pod, replicas,
};
use crate::{
    field::{FieldErrors, FieldPath},
    kind::{Cell, Column, Field, Kind, Names, ScaleView, Scope, Sub},
    meta,
};

impl Kind for ReplicationController {
    const NAMES: Names =
        Names::new("", "v1", "ReplicationController", "replicationcontrollers", "replicationcontroller")
            .short(&["rc"])
            .categories(&["all"]);
    const SCOPE: Scope = Scope::Namespaced;
    const ORPHANS_DEPENDENTS: bool = true;
    const SUBRESOURCES: &'static [Sub<Self>] = &[Sub::scale(read_scale, write_scale), Sub::STATUS];
    const FIELDS: &'static [Field<Self>] =
        &[Field { path: "status.replicas", value: |rc| rc.status.as_ref().map_or(0, |s| s.replicas).to_string() }];
    const COLUMNS: &'static [Column<Self>] = &[
        Column::NAME,
        Column::<Self>::int("Desired", |rc, _| {
            Cell::from(rc.spec.as_ref().and_then(|s| s.replicas).unwrap_or_default())
        })
        .field::<ReplicationControllerSpec>("replicas"),
        Column::<Self>::int("Current", |rc, _| Cell::from(rc.status.as_ref().map_or(0, |s| s.replicas)))
            .field::<ReplicationControllerStatus>("replicas"),
        Column::<Self>::int("Ready", |rc, _| {
            Cell::from(rc.status.as_ref().and_then(|s| s.ready_replicas).unwrap_or_default())
        })
        .field::<ReplicationControllerStatus>("readyReplicas"),
        Column::AGE,
        Column::<Self>::wide_text("Containers", |rc, _| Cell::from(pod::template_containers(template(rc))))
            .help("Names of each container in the template."),
        Column::<Self>::wide_text("Images", |rc, _| Cell::from(pod::template_images(template(rc))))
            .help("Images referenced by each container in the template."),
        Column::<Self>::wide_text("Selector", |rc, _| {
            Cell::from(labels_shown(rc.spec.as_ref().and_then(|s| s.selector.as_ref())))
        })
        .field::<ReplicationControllerSpec>("selector"),
    ];

    fn fill_defaults(&mut self) {
        let labels = template(self).and_then(|t| t.metadata.as_ref()).and_then(|m| m.labels.clone());
        let spec = self.spec.get_or_insert_default();
        spec.replicas.get_or_insert(1);
        if let Some(labels) = labels.filter(|l| !l.is_empty()) {
            if spec.selector.as_ref().is_none_or(|s| s.is_empty()) {
                spec.selector = Some(labels.clone());
            }
            if self.metadata.labels.as_ref().is_none_or(|l| l.is_empty()) {
                self.metadata.labels = Some(labels);
            }
        }
        if let Some(template) = &mut spec.template {
            pod::fill_template_defaults(template);
        }
    }

    crate::kind::status_apart!();
    crate::kind::generation_of_spec!();

    fn validate(&self, errs: &mut FieldErrors) {
        let default = ReplicationControllerSpec::default();
        validate_spec(self.spec.as_ref().unwrap_or(&default), &FieldPath::new("spec"), errs);
    }

    fn validate_status_update(&self, _old: &Self, errs: &mut FieldErrors) {
        let Some(status) = &self.status else { return };
        let parts = [
            ("fullyLabeledReplicas", status.fully_labeled_replicas),
            ("readyReplicas", status.ready_replicas),
            ("availableReplicas", status.available_replicas),
        ];
        replicas::validate_counts(status.replicas, status.observed_generation, &parts, "readyReplicas", errs);
    }
}

fn template(rc: &ReplicationController) -> Option<&PodTemplateSpec> {
    rc.spec.as_ref()?.template.as_ref()
}

/// Its selector is a map, as all selectors once were.
fn selector(spec: &ReplicationControllerSpec) -> LabelSelector {
    LabelSelector { match_labels: spec.selector.clone(), match_expressions: None }
}

fn read_scale(k: &ReplicationController) -> ScaleView {
    let spec = k.spec.as_ref();
    ScaleView {
        spec_replicas: spec.and_then(|s| s.replicas).unwrap_or(1),
        status_replicas: k.status.as_ref().map_or(0, |s| s.replicas),
        selector: spec.map(|s| scale_text(&selector(s))).unwrap_or_default(),
    }
}

fn write_scale(k: &mut ReplicationController, replicas: i32) {
    k.spec.get_or_insert_default().replicas = Some(replicas);
}

fn validate_spec(spec: &ReplicationControllerSpec, path: &FieldPath, errs: &mut FieldErrors) {
    errs.non_negative(&path.child("minReadySeconds"), i64::from(spec.min_ready_seconds.unwrap_or_default()));
    errs.non_negative(&path.child("replicas"), i64::from(spec.replicas.unwrap_or_default()));
    let at = path.child("selector");
    if spec.selector.as_ref().is_none_or(|s| s.is_empty()) {
        errs.required(&at, "");
    }
    meta::validate_labels(spec.selector.as_ref(), &at, errs);
    let at = path.child("template");
    match &spec.template {
        None => errs.required(&at, ""),
        Some(template) => pod::validate_template(template, &selector(spec), "ReplicationController", &at, errs),
    }
}
