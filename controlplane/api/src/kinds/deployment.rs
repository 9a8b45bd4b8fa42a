//! Deployment: like pods that can be rolled to a new template and back.
//!
//! # Source
//! Kubernetes `pkg/apis/apps/v1/defaults.go`, `pkg/apis/apps/validation/validation.go`,
//! `pkg/registry/apps/deployment/strategy.go`.

use k8s_openapi::{
    api::apps::v1::{Deployment, DeploymentSpec, DeploymentStatus, DeploymentStrategy},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::{
    label_selector::{self, scale_text},
    pod, replicas,
};
use crate::{
    field::{FieldErrors, FieldPath},
    kind::{Cell, Column, Kind, Names, ScaleView, Scope, Sub},
};

impl Kind for Deployment {
    const NAMES: Names =
        Names::new("apps", "v1", "Deployment", "deployments", "deployment").short(&["deploy"]).categories(&["all"]);
    const SCOPE: Scope = Scope::Namespaced;
    const SUBRESOURCES: &'static [Sub<Self>] = &[Sub::scale(read_scale, write_scale), Sub::STATUS];
    const COLUMNS: &'static [Column<Self>] = &[
        Column::NAME,
        Column::<Self>::text("Ready", |d, _| {
            let wanted = d.spec.as_ref().and_then(|s| s.replicas).unwrap_or_default();
            Cell::from(format!("{}/{wanted}", count(d, |s| s.ready_replicas)))
        })
        .help("Number of the pod with ready state"),
        Column::<Self>::text("Up-to-date", |d, _| Cell::from(count(d, |s| s.updated_replicas)))
            .field::<DeploymentStatus>("updatedReplicas"),
        Column::<Self>::text("Available", |d, _| Cell::from(count(d, |s| s.available_replicas)))
            .field::<DeploymentStatus>("availableReplicas"),
        Column::AGE,
        Column::<Self>::wide_text("Containers", |d, _| {
            Cell::from(pod::template_containers(d.spec.as_ref().map(|s| &s.template)))
        })
        .help("Names of each container in the template."),
        Column::<Self>::wide_text("Images", |d, _| {
            Cell::from(pod::template_images(d.spec.as_ref().map(|s| &s.template)))
        })
        .help("Images referenced by each container in the template."),
        Column::<Self>::wide_text("Selector", |d, _| {
            Cell::from(label_selector::shown(d.spec.as_ref().map(|s| &s.selector)))
        })
        .field::<DeploymentSpec>("selector"),
    ];

    fn fill_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        spec.replicas.get_or_insert(1);
        spec.revision_history_limit.get_or_insert(10);
        spec.progress_deadline_seconds.get_or_insert(600);
        let strategy = spec.strategy.get_or_insert_default();
        pod::text_default(&mut strategy.type_, "RollingUpdate");
        if strategy.type_.as_deref() == Some("RollingUpdate") {
            let rolling = strategy.rolling_update.get_or_insert_default();
            rolling.max_unavailable.get_or_insert_with(quarter);
            rolling.max_surge.get_or_insert_with(quarter);
        }
        pod::fill_template_defaults(&mut spec.template);
    }

    fn prepare_create(&mut self) {
        self.status = Some(DeploymentStatus::default());
    }

    fn prepare_update(&mut self, old: &Self) {
        self.status.clone_from(&old.status);
    }

    fn prepare_status_update(&mut self, old: &Self) {
        self.spec.clone_from(&old.spec);
        self.metadata.labels.clone_from(&old.metadata.labels);
    }

    fn generation_differs(&self, old: &Self) -> Option<bool> {
        // Annotations count too: rolling back is asked for by one.
        Some(self.spec != old.spec || self.metadata.annotations != old.metadata.annotations)
    }

    fn validate(&self, errs: &mut FieldErrors) {
        let default = DeploymentSpec::default();
        validate_spec(self.spec.as_ref().unwrap_or(&default), &FieldPath::new("spec"), errs);
    }

    fn validate_update(&self, old: &Self, errs: &mut FieldErrors) {
        let selector = |d: &Self| d.spec.as_ref().map(|s| s.selector.clone());
        errs.immutable(&FieldPath::new("spec").child("selector"), &selector(self), &selector(old));
    }

    fn validate_status_update(&self, old: &Self, errs: &mut FieldErrors) {
        let Some(status) = &self.status else { return };
        let parts = [
            ("updatedReplicas", status.updated_replicas),
            ("readyReplicas", status.ready_replicas),
            ("availableReplicas", status.available_replicas),
        ];
        replicas::validate_counts(
            status.replicas.unwrap_or_default(),
            status.observed_generation,
            &parts,
            "readyReplicas",
            errs,
        );
        let unavailable = i64::from(status.unavailable_replicas.unwrap_or_default());
        errs.non_negative(&FieldPath::new("status").child("unavailableReplicas"), unavailable);
        let terminating = i64::from(status.terminating_replicas.unwrap_or_default());
        errs.non_negative(&FieldPath::new("status").child("terminatingReplicas"), terminating);
        let old = old.status.as_ref().and_then(|s| s.collision_count);
        replicas::validate_collisions(status.collision_count, old, errs);
    }
}

fn quarter() -> IntOrString {
    IntOrString::String("25%".to_owned())
}

fn count(deployment: &Deployment, of: fn(&DeploymentStatus) -> Option<i32>) -> i32 {
    deployment.status.as_ref().and_then(of).unwrap_or_default()
}

fn read_scale(k: &Deployment) -> ScaleView {
    let spec = k.spec.as_ref();
    ScaleView {
        spec_replicas: spec.and_then(|s| s.replicas).unwrap_or(1),
        status_replicas: count(k, |s| s.replicas),
        selector: spec.map(|s| scale_text(&s.selector)).unwrap_or_default(),
    }
}

fn write_scale(k: &mut Deployment, replicas: i32) {
    k.spec.get_or_insert_default().replicas = Some(replicas);
}

fn validate_spec(spec: &DeploymentSpec, path: &FieldPath, errs: &mut FieldErrors) {
    errs.non_negative(&path.child("replicas"), i64::from(spec.replicas.unwrap_or_default()));
    if label_selector::is_empty(&spec.selector) {
        errs.required(&path.child("selector"), "");
    }
    label_selector::validate(&spec.selector, &path.child("selector"), errs);
    pod::validate_template(&spec.template, &spec.selector, "ReplicaSet", &path.child("template"), errs);
    let default = DeploymentStrategy::default();
    validate_strategy(spec.strategy.as_ref().unwrap_or(&default), &path.child("strategy"), errs);
    let ready = spec.min_ready_seconds.unwrap_or_default();
    errs.non_negative(&path.child("minReadySeconds"), i64::from(ready));
    let history = spec.revision_history_limit.unwrap_or_default();
    errs.non_negative(&path.child("revisionHistoryLimit"), i64::from(history));
    if let Some(deadline) = spec.progress_deadline_seconds {
        let at = path.child("progressDeadlineSeconds");
        errs.non_negative(&at, i64::from(deadline));
        if deadline <= ready {
            errs.invalid(&at, deadline, "must be greater than minReadySeconds");
        }
    }
}

fn validate_strategy(strategy: &DeploymentStrategy, path: &FieldPath, errs: &mut FieldErrors) {
    let at = path.child("rollingUpdate");
    match (strategy.type_.as_deref().unwrap_or_default(), &strategy.rolling_update) {
        ("Recreate", None) => {}
        ("Recreate", Some(_)) => {
            errs.forbidden(&at, "may not be specified when strategy `type` is 'Recreate'");
        }
        ("RollingUpdate", None) => errs.required(&at, "this should be defaulted and never be nil"),
        ("RollingUpdate", Some(rolling)) => {
            let unavailable = rolling.max_unavailable.clone().unwrap_or_default();
            let surge = rolling.max_surge.clone().unwrap_or_default();
            let unavailable_at = at.child("maxUnavailable");
            let unavailable_amount = validate_amount(&unavailable, &unavailable_at, errs);
            let surge_amount = validate_amount(&surge, &at.child("maxSurge"), errs);
            if (unavailable_amount, surge_amount) == (Some(0), Some(0)) {
                errs.invalid(&unavailable_at, json(&unavailable), "may not be 0 when `maxSurge` is 0");
            }
            validate_percent(&unavailable, &unavailable_at, errs);
        }
        (other, _) => {
            errs.not_supported_value(path, serde_json::json!({"type": other}), &["Recreate", "RollingUpdate"]);
        }
    }
}

fn json(value: &IntOrString) -> Cell {
    serde_json::to_value(value).unwrap_or_default()
}

/// No more than all of them.
pub(super) fn validate_percent(amount: &IntOrString, path: &FieldPath, errs: &mut FieldErrors) {
    if let IntOrString::String(text) = amount
        && text.strip_suffix('%').and_then(|digits| digits.parse::<u64>().ok()).is_some_and(|part| part > 100)
    {
        errs.invalid(path, text.as_str(), "must not be greater than 100%");
    }
}

/// A number that is not negative, or a percentage; the number of either when it is well formed.
pub(super) fn validate_amount(amount: &IntOrString, path: &FieldPath, errs: &mut FieldErrors) -> Option<i64> {
    match amount {
        IntOrString::Int(number) => {
            errs.non_negative(path, i64::from(*number));
            Some(i64::from(*number))
        }
        IntOrString::String(text) => {
            let digits = text.strip_suffix('%').filter(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit()));
            if digits.is_none() {
                let detail = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or \
                              '93%', regex used for validation is '[0-9]+%')";
                errs.invalid(path, text.as_str(), detail);
            }
            digits.map(|d| d.parse().unwrap_or(i64::MAX))
        }
    }
}
