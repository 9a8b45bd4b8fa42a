//! StatefulSet: pods with names and volumes of their own.
//!
//! # Source
//! Kubernetes `pkg/apis/apps/v1/defaults.go`, `pkg/apis/apps/validation/validation.go` (`ValidateStatefulSet*`),
//! `pkg/registry/apps/statefulset/strategy.go`, `pkg/printers/internalversion/printers.go` (`printStatefulSet`).

use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use serde_json::json;

use super::{
    deployment::{validate_amount, validate_percent},
    label_selector::{self, scale_text},
    pod, replicas,
    storage::{fill_claim_defaults, validate_claim_spec},
};
use crate::{
    field::{FieldErrors, FieldPath},
    kind::{Cell, Column, Kind, Names, ScaleView, Scope, Sub},
    names,
};

const RETENTION: [&str; 2] = ["Delete", "Retain"];

impl Kind for StatefulSet {
    const NAMES: Names =
        Names::new("apps", "v1", "StatefulSet", "statefulsets", "statefulset").short(&["sts"]).categories(&["all"]);
    const SCOPE: Scope = Scope::Namespaced;
    const SUBRESOURCES: &'static [Sub<Self>] = &[Sub::scale(read_scale, write_scale), Sub::STATUS];
    const COLUMNS: &'static [Column<Self>] = &[
        Column::NAME,
        Column::<Self>::text("Ready", |s, _| {
            let wanted = s.spec.as_ref().and_then(|s| s.replicas).unwrap_or_default();
            let ready = s.status.as_ref().and_then(|s| s.ready_replicas).unwrap_or_default();
            Cell::from(format!("{ready}/{wanted}"))
        })
        .help("Number of the pod with ready state"),
        Column::AGE,
        Column::<Self>::wide_text("Containers", |s, _| {
            Cell::from(pod::template_containers(s.spec.as_ref().map(|s| &s.template)))
        })
        .help("Names of each container in the template."),
        Column::<Self>::wide_text("Images", |s, _| {
            Cell::from(pod::template_images(s.spec.as_ref().map(|s| &s.template)))
        })
        .help("Images referenced by each container in the template."),
    ];

    fn fill_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        pod::text_default(&mut spec.pod_management_policy, "OrderedReady");
        spec.replicas.get_or_insert(1);
        spec.revision_history_limit.get_or_insert(10);
        let retention = spec.persistent_volume_claim_retention_policy.get_or_insert_default();
        pod::text_default(&mut retention.when_deleted, "Retain");
        pod::text_default(&mut retention.when_scaled, "Retain");
        let strategy = spec.update_strategy.get_or_insert_default();
        pod::text_default(&mut strategy.type_, "RollingUpdate");
        if strategy.type_.as_deref() == Some("RollingUpdate") {
            strategy.rolling_update.get_or_insert_default().partition.get_or_insert(0);
        }
        pod::fill_template_defaults(&mut spec.template);
        spec.volume_claim_templates.iter_mut().flatten().for_each(fill_claim_defaults);
    }

    crate::kind::status_apart!();
    crate::kind::generation_of_spec!();

    fn validate(&self, errs: &mut FieldErrors) {
        let default = StatefulSetSpec::default();
        validate_spec(self.spec.as_ref().unwrap_or(&default), &FieldPath::new("spec"), errs);
    }

    fn validate_update(&self, old: &Self, errs: &mut FieldErrors) {
        let (Some(new), Some(old)) = (&self.spec, &old.spec) else { return };
        let mut allowed = new.clone();
        allowed.replicas = old.replicas;
        allowed.template.clone_from(&old.template);
        allowed.update_strategy.clone_from(&old.update_strategy);
        allowed.min_ready_seconds = old.min_ready_seconds;
        allowed.ordinals.clone_from(&old.ordinals);
        allowed.revision_history_limit = old.revision_history_limit;
        allowed.persistent_volume_claim_retention_policy.clone_from(&old.persistent_volume_claim_retention_policy);
        if allowed != *old {
            let detail = "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', \
                          'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
                          'minReadySeconds' are forbidden";
            errs.forbidden(&FieldPath::new("spec"), detail);
        }
    }

    fn validate_status_update(&self, old: &Self, errs: &mut FieldErrors) {
        let Some(status) = &self.status else { return };
        let parts = [
            ("readyReplicas", status.ready_replicas),
            ("currentReplicas", status.current_replicas),
            ("updatedReplicas", status.updated_replicas),
            ("availableReplicas", status.available_replicas),
        ];
        replicas::validate_counts(status.replicas, status.observed_generation, &parts, "status.readyReplicas", errs);
        let old = old.status.as_ref().and_then(|s| s.collision_count);
        replicas::validate_collisions(status.collision_count, old, errs);
    }
}

fn read_scale(k: &StatefulSet) -> ScaleView {
    let spec = k.spec.as_ref();
    ScaleView {
        spec_replicas: spec.and_then(|s| s.replicas).unwrap_or(1),
        status_replicas: k.status.as_ref().map_or(0, |s| s.replicas),
        selector: spec.map(|s| scale_text(&s.selector)).unwrap_or_default(),
    }
}

fn write_scale(k: &mut StatefulSet, replicas: i32) {
    k.spec.get_or_insert_default().replicas = Some(replicas);
}

fn validate_spec(spec: &StatefulSetSpec, path: &FieldPath, errs: &mut FieldErrors) {
    match spec.pod_management_policy.as_deref().unwrap_or_default() {
        "" => errs.required(&path.child("podManagementPolicy"), ""),
        "OrderedReady" | "Parallel" => {}
        other => errs.invalid(&path.child("podManagementPolicy"), other, "must be 'OrderedReady' or 'Parallel'"),
    }
    validate_strategy(spec, &path.child("updateStrategy"), errs);
    if let Some(policy) = &spec.persistent_volume_claim_retention_policy {
        let at = path.child("persistentVolumeClaimRetentionPolicy");
        for (field, value) in [("whenDeleted", &policy.when_deleted), ("whenScaled", &policy.when_scaled)] {
            if let Some(value) = value.as_deref().filter(|v| !RETENTION.contains(v)) {
                errs.not_supported(&at.child(field), value, &RETENTION);
            }
        }
    }
    errs.non_negative(&path.child("replicas"), i64::from(spec.replicas.unwrap_or_default()));
    errs.non_negative(&path.child("minReadySeconds"), i64::from(spec.min_ready_seconds.unwrap_or_default()));
    let history = spec.revision_history_limit.unwrap_or_default();
    errs.non_negative(&path.child("revisionHistoryLimit"), i64::from(history));
    if let Some(start) = spec.ordinals.as_ref().and_then(|o| o.start) {
        errs.non_negative(&path.child("ordinals").child("start"), i64::from(start));
    }
    if label_selector::is_empty(&spec.selector) {
        errs.required(&path.child("selector"), "");
    }
    label_selector::validate(&spec.selector, &path.child("selector"), errs);
    if let Some(service) = spec.service_name.as_deref().filter(|s| !s.is_empty()) {
        errs.invalid_each(&path.child("serviceName"), service, names::is_dns1123_subdomain(service));
    }
    for (i, claim) in spec.volume_claim_templates.iter().flatten().enumerate() {
        let at = path.child("volumeClaimTemplates").index(i).child("spec");
        let default = Default::default();
        validate_claim_spec(claim.spec.as_ref().unwrap_or(&default), &at, errs);
    }
    // What the claims make are volumes of the pods, though the template does not name them.
    let mut template = spec.template.clone();
    let volumes = template.spec.get_or_insert_default().volumes.get_or_insert_default();
    for claim in spec.volume_claim_templates.iter().flatten() {
        let name = claim.metadata.name.clone().unwrap_or_default();
        if !volumes.iter().any(|v| v.name == name) {
            let source = k8s_openapi::api::core::v1::PersistentVolumeClaimVolumeSource {
                claim_name: name.clone(),
                ..Default::default()
            };
            volumes.push(k8s_openapi::api::core::v1::Volume {
                name,
                persistent_volume_claim: Some(source),
                ..Default::default()
            });
        }
    }
    pod::validate_template(&template, &spec.selector, "StatefulSet", &path.child("template"), errs);
}

fn validate_strategy(spec: &StatefulSetSpec, path: &FieldPath, errs: &mut FieldErrors) {
    let Some(strategy) = &spec.update_strategy else { return };
    let at = path.child("rollingUpdate");
    match (strategy.type_.as_deref().unwrap_or_default(), &strategy.rolling_update) {
        ("", _) => errs.required(path, ""),
        ("OnDelete", Some(rolling)) => {
            let value = serde_json::to_value(rolling).unwrap_or_default();
            errs.invalid(&at, value, "only allowed for updateStrategy 'RollingUpdate'");
        }
        ("OnDelete" | "RollingUpdate", None) => {}
        ("RollingUpdate", Some(rolling)) => {
            errs.non_negative(&at.child("partition"), i64::from(rolling.partition.unwrap_or_default()));
            if let Some(unavailable) = &rolling.max_unavailable {
                let at = at.child("maxUnavailable");
                if validate_amount(unavailable, &at, errs) == Some(0) {
                    errs.invalid(&at, serde_json::to_value(unavailable).unwrap_or_default(), "cannot be 0");
                }
                validate_percent(unavailable, &at, errs);
            }
        }
        (other, _) => errs.invalid(path, json!({"type": other}), "must be 'RollingUpdate' or 'OnDelete'"),
    }
}
