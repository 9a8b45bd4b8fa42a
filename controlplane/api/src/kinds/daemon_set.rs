//! DaemonSet: a pod on each node.
//!
//! # Source
//! Kubernetes `pkg/apis/apps/v1/defaults.go`, `pkg/apis/apps/validation/validation.go` (`ValidateDaemonSet*`),
//! `pkg/registry/apps/daemonset/strategy.go`, `pkg/printers/internalversion/printers.go` (`printDaemonSet`).

use k8s_openapi::{
    api::{
        apps::v1::{DaemonSet, DaemonSetSpec, DaemonSetStatus},
        core::v1::PodSpec,
    },
    apimachinery::pkg::util::intstr::IntOrString,
};

use serde_json::json;

use super::{
    deployment::{validate_amount, validate_percent},
    label_selector, pod, replicas,
};
use crate::{
    field::{FieldErrors, FieldPath},
    kind::{Cell, Column, Kind, Names, Scope, Sub},
};

impl Kind for DaemonSet {
    const NAMES: Names =
        Names::new("apps", "v1", "DaemonSet", "daemonsets", "daemonset").short(&["ds"]).categories(&["all"]);
    const SCOPE: Scope = Scope::Namespaced;
    const SUBRESOURCES: &'static [Sub<Self>] = &[Sub::STATUS];
    const COLUMNS: &'static [Column<Self>] = &[
        Column::NAME,
        Column::<Self>::int("Desired", |d, _| Cell::from(count(d, |s| Some(s.desired_number_scheduled))))
            .field::<DaemonSetStatus>("desiredNumberScheduled"),
        Column::<Self>::int("Current", |d, _| Cell::from(count(d, |s| Some(s.current_number_scheduled))))
            .field::<DaemonSetStatus>("currentNumberScheduled"),
        Column::<Self>::int("Ready", |d, _| Cell::from(count(d, |s| Some(s.number_ready))))
            .field::<DaemonSetStatus>("numberReady"),
        Column::<Self>::int("Up-to-date", |d, _| Cell::from(count(d, |s| s.updated_number_scheduled)))
            .field::<DaemonSetStatus>("updatedNumberScheduled"),
        Column::<Self>::int("Available", |d, _| Cell::from(count(d, |s| s.number_available)))
            .field::<DaemonSetStatus>("numberAvailable"),
        Column::<Self>::text("Node Selector", |d, _| {
            let pod = d.spec.as_ref().and_then(|s| s.template.spec.as_ref());
            Cell::from(label_selector::labels_shown(pod.and_then(|p| p.node_selector.as_ref())))
        })
        .field::<PodSpec>("nodeSelector"),
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
        .field::<DaemonSetSpec>("selector"),
    ];

    fn fill_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        spec.revision_history_limit.get_or_insert(10);
        let strategy = spec.update_strategy.get_or_insert_default();
        pod::text_default(&mut strategy.type_, "RollingUpdate");
        if strategy.type_.as_deref() == Some("RollingUpdate") {
            let rolling = strategy.rolling_update.get_or_insert_default();
            rolling.max_unavailable.get_or_insert(IntOrString::Int(1));
            rolling.max_surge.get_or_insert(IntOrString::Int(0));
        }
        pod::fill_template_defaults(&mut spec.template);
    }

    fn prepare_create(&mut self) {
        self.status = Some(DaemonSetStatus::default());
        set_template_generation(self, template_generation(self).max(1));
    }

    fn prepare_update(&mut self, old: &Self) {
        self.status.clone_from(&old.status);
        let template = |set: &Self| set.spec.as_ref().map(|s| s.template.clone());
        let changed = template(self) != template(old);
        set_template_generation(self, template_generation(old).saturating_add(i64::from(changed)));
    }

    fn prepare_status_update(&mut self, old: &Self) {
        self.spec.clone_from(&old.spec);
    }

    crate::kind::generation_of_spec!();

    fn validate(&self, errs: &mut FieldErrors) {
        let default = DaemonSetSpec::default();
        validate_spec(self.spec.as_ref().unwrap_or(&default), &FieldPath::new("spec"), errs);
    }

    fn validate_update(&self, old: &Self, errs: &mut FieldErrors) {
        let selector = |d: &Self| d.spec.as_ref().map(|s| s.selector.clone());
        errs.immutable(&FieldPath::new("spec").child("selector"), &selector(self), &selector(old));
    }

    fn validate_status_update(&self, old: &Self, errs: &mut FieldErrors) {
        let path = FieldPath::new("status");
        let Some(status) = &self.status else { return };
        let parts = [
            ("currentNumberScheduled", Some(status.current_number_scheduled)),
            ("numberMisscheduled", Some(status.number_misscheduled)),
            ("desiredNumberScheduled", Some(status.desired_number_scheduled)),
            ("numberReady", Some(status.number_ready)),
            ("updatedNumberScheduled", status.updated_number_scheduled),
            ("numberAvailable", status.number_available),
            ("numberUnavailable", status.number_unavailable),
        ];
        for (field, part) in parts {
            errs.non_negative(&path.child(field), i64::from(part.unwrap_or_default()));
        }
        errs.non_negative(&path.child("observedGeneration"), status.observed_generation.unwrap_or_default());
        let old = old.status.as_ref().and_then(|s| s.collision_count);
        replicas::validate_collisions(status.collision_count, old, errs);
    }
}

/// How often the template has changed: a field of old versions of the API that lives on as an annotation.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

fn template_generation(set: &DaemonSet) -> i64 {
    let annotation = set.metadata.annotations.as_ref().and_then(|a| a.get(TEMPLATE_GENERATION));
    annotation.and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn set_template_generation(set: &mut DaemonSet, generation: i64) {
    set.metadata.annotations.get_or_insert_default().insert(TEMPLATE_GENERATION.to_owned(), generation.to_string());
}

fn count(set: &DaemonSet, of: fn(&DaemonSetStatus) -> Option<i32>) -> i32 {
    set.status.as_ref().and_then(of).unwrap_or_default()
}

fn validate_spec(spec: &DaemonSetSpec, path: &FieldPath, errs: &mut FieldErrors) {
    if label_selector::is_empty(&spec.selector) {
        errs.invalid(&path.child("selector"), json!({}), "empty selector is invalid for daemonset");
    }
    label_selector::validate(&spec.selector, &path.child("selector"), errs);
    pod::validate_template(&spec.template, &spec.selector, "DaemonSet", &path.child("template"), errs);
    errs.non_negative(&path.child("minReadySeconds"), i64::from(spec.min_ready_seconds.unwrap_or_default()));
    let history = spec.revision_history_limit.unwrap_or_default();
    errs.non_negative(&path.child("revisionHistoryLimit"), i64::from(history));
    let Some(strategy) = &spec.update_strategy else { return };
    let path = path.child("updateStrategy");
    match (strategy.type_.as_deref().unwrap_or_default(), &strategy.rolling_update) {
        ("OnDelete", _) => {}
        ("RollingUpdate", None) => errs.required(&path.child("rollingUpdate"), ""),
        ("RollingUpdate", Some(rolling)) => {
            let at = path.child("rollingUpdate");
            let amount = |amount: &Option<IntOrString>, field: &str, errs: &mut FieldErrors| {
                amount.as_ref().and_then(|a| validate_amount(a, &at.child(field), errs)).unwrap_or_default()
            };
            let unavailable = amount(&rolling.max_unavailable, "maxUnavailable", errs);
            let surge = amount(&rolling.max_surge, "maxSurge", errs);
            for (field, value) in [("maxUnavailable", &rolling.max_unavailable), ("maxSurge", &rolling.max_surge)] {
                value.iter().for_each(|value| validate_percent(value, &at.child(field), errs));
            }
            match (unavailable, surge) {
                (0, 0) => errs.required(&at.child("maxUnavailable"), "cannot be 0 when maxSurge is 0"),
                (u, s) if u > 0 && s > 0 => {
                    errs.invalid(
                        &at.child("maxSurge"),
                        serde_json::to_value(&rolling.max_surge).unwrap_or_default(),
                        "may not be set when maxUnavailable is non-zero",
                    );
                }
                _ => {}
            }
        }
        (other, _) => errs.not_supported_value(&path, json!({"type": other}), &["RollingUpdate", "OnDelete"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_of_the_template_are_counted() {
        let mut set = DaemonSet::default();
        set.prepare_create();
        assert_eq!(template_generation(&set), 1);
        let mut same = DaemonSet::default();
        same.prepare_update(&set);
        assert_eq!(template_generation(&same), 1, "a client need not send the annotation back");
        let mut changed = same.clone();
        changed.spec.get_or_insert_default().template.metadata = Some(Default::default());
        changed.prepare_update(&same);
        assert_eq!(template_generation(&changed), 2);
    }
}
