//! Pod: what a node runs.
//!
//! The parts that pod templates share (defaults and validation of a `PodSpec`) are in the modules below; here is only
//! what a pod has beyond its template: status, deletion, binding.
//!
//! # Source
//! Kubernetes `pkg/registry/core/pod/strategy.go`.

use k8s_openapi::api::core::v1::{Pod, PodStatus};

use crate::{
    field::{FieldErrors, FieldPath},
    kind::{Column, Field, Kind, Names, Scope, Sub, Verb},
};

mod annotations;
mod columns;
mod compact;
mod container;
mod defaults;
mod env;
mod ephemeral;
mod handler;
mod mounts;
mod qos;
mod resize;
mod resources;
mod scheduling;
mod security;
mod spec;
mod status;
mod template;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_rules;
mod update;
mod volume;
mod volume_source;
mod windows;

pub(super) use container::{PROTOCOLS, validate_port};
pub(super) use defaults::text as text_default;
pub(super) use handler::validate_port_number_or_name;
pub(crate) use qos::qos_class as pod_qos_class;
pub(super) use resources::{validate_limits, validate_quantity};
pub(super) use scheduling::{EFFECTS, validate_node_selector, validate_tolerations};
pub(super) use spec::one_of;
pub(super) use template::{
    fill_template_defaults, template_containers, template_images, validate_any_template, validate_template,
};
pub(super) use update::differences;
pub(super) use volume_source::{Given, validate as validate_volume_source};

impl Kind for Pod {
    const NAMES: Names = Names::new("", "v1", "Pod", "pods", "pod").short(&["po"]).categories(&["all"]);
    const SCOPE: Scope = Scope::Namespaced;
    const RETURNS_DELETED: bool = true;
    const SUBRESOURCES: &'static [Sub<Self>] = &[
        Sub::verb("attach", Verb::Attach),
        Sub::verb("binding", Verb::Binding),
        Sub::verb("coredump", Verb::CoreDump),
        Sub::part("ephemeralcontainers", ephemeral::prepare, ephemeral::validate_update),
        Sub::verb("eviction", Verb::Eviction),
        Sub::verb("exec", Verb::Exec),
        Sub::verb("log", Verb::Log),
        Sub::verb("portforward", Verb::PortForward),
        Sub::verb("proxy", Verb::Proxy),
        Sub::part("resize", resize::prepare, resize::validate_update),
        Sub::STATUS,
    ];
    const COLUMNS: &'static [Column<Self>] = columns::COLUMNS;
    const FIELDS: &'static [Field<Self>] = &[
        Field { path: "spec.nodeName", value: |p| text(pod_spec(p).and_then(|s| s.node_name.as_ref())) },
        Field { path: "spec.restartPolicy", value: |p| text(pod_spec(p).and_then(|s| s.restart_policy.as_ref())) },
        Field { path: "spec.schedulerName", value: |p| text(pod_spec(p).and_then(|s| s.scheduler_name.as_ref())) },
        Field {
            path: "spec.serviceAccountName",
            value: |p| text(pod_spec(p).and_then(|s| s.service_account_name.as_ref())),
        },
        Field {
            path: "spec.hostNetwork",
            value: |p| pod_spec(p).and_then(|s| s.host_network).unwrap_or_default().to_string(),
        },
        Field { path: "status.phase", value: |p| text(status_of(p).and_then(|s| s.phase.as_ref())) },
        Field { path: "status.podIP", value: |p| text(status_of(p).and_then(|s| s.pod_ip.as_ref())) },
        Field {
            path: "status.nominatedNodeName",
            value: |p| text(status_of(p).and_then(|s| s.nominated_node_name.as_ref())),
        },
    ];

    fn completed(&self) -> Option<(&'static str, &'static str)> {
        match self.status.as_ref()?.phase.as_deref()? {
            "Succeeded" => Some(("Succeeded", "The pod has completed successfully.")),
            "Failed" => Some(("Failed", "The pod failed.")),
            _ => None,
        }
    }

    fn fill_defaults(&mut self) {
        defaults::pod(self);
    }

    fn compact(&mut self) {
        if let Some(spec) = &mut self.spec {
            compact::spec(spec);
        }
    }

    fn prepare_create(&mut self) {
        let spec = self.spec.get_or_insert_default();
        let gated = spec.scheduling_gates.as_ref().is_some_and(|g| !g.is_empty());
        self.status = Some(PodStatus {
            phase: Some("Pending".to_owned()),
            qos_class: Some(qos::qos_class(spec).to_owned()),
            conditions: gated.then(|| vec![update::gated_condition()]),
            ..PodStatus::default()
        });
    }

    fn prepare_update(&mut self, old: &Self) {
        self.status.clone_from(&old.status);
    }

    fn prepare_status_update(&mut self, old: &Self) {
        self.spec.clone_from(&old.spec);
        let (meta, old_meta) = (&mut self.metadata, &old.metadata);
        meta.owner_references.clone_from(&old_meta.owner_references);
        meta.deletion_timestamp.clone_from(&old_meta.deletion_timestamp);
        meta.deletion_grace_period_seconds = old_meta.deletion_grace_period_seconds;
        let status = self.status.get_or_insert_default();
        if status.qos_class.is_none() {
            status.qos_class = old.status.as_ref().and_then(|s| s.qos_class.clone());
        }
    }

    /// Being bound to a node is no new generation.
    fn generation_differs(&self, old: &Self) -> Option<bool> {
        let node = |pod: &Self| pod.spec.as_ref().and_then(|s| s.node_name.clone());
        if node(self) == node(old) {
            return Some(self.spec != old.spec);
        }
        let mut placed = old.spec.clone();
        if let Some(spec) = &mut placed {
            spec.node_name = node(self);
        }
        Some(self.spec != placed)
    }

    fn validate(&self, errs: &mut FieldErrors) {
        let path = FieldPath::new("spec");
        let default = Default::default();
        let spec = self.spec.as_ref().unwrap_or(&default);
        let at = FieldPath::new("metadata").child("annotations");
        annotations::validate(self.metadata.annotations.as_ref(), spec, &at, errs);
        let name = self.metadata.name.as_deref().unwrap_or_default();
        spec::validate(spec, spec::Of::Pod(name), &path, errs);
        container::validate_blanks(spec, &path, errs);
    }

    fn validate_create(&self, errs: &mut FieldErrors) {
        let (path, default) = (FieldPath::new("spec"), Default::default());
        let spec = self.spec.as_ref().unwrap_or(&default);
        if spec.ephemeral_containers.as_ref().is_some_and(|c| !c.is_empty()) {
            errs.forbidden(&path.child("ephemeralContainers"), "cannot be set on create");
        }
        let bound = spec.node_name.as_ref().is_some_and(|n| !n.is_empty());
        if bound && spec.scheduling_gates.as_ref().is_some_and(|g| !g.is_empty()) {
            let detail = "cannot be set until all schedulingGates have been cleared";
            errs.forbidden(&path.child("nodeName"), detail);
        }
        annotations::validate_profiles(self.metadata.annotations.as_ref(), spec, &path, errs);
    }

    fn validate_update(&self, old: &Self, errs: &mut FieldErrors) {
        update::validate(self, old, errs);
    }

    fn validate_status_update(&self, old: &Self, errs: &mut FieldErrors) {
        status::validate(self, old, errs);
    }

    fn grace_seconds(&self, requested: Option<i64>) -> Option<i64> {
        let spec = self.spec.as_ref()?;
        let bound = spec.node_name.as_ref().is_some_and(|n| !n.is_empty());
        let phase = self.status.as_ref().and_then(|s| s.phase.as_deref());
        if !bound || matches!(phase, Some("Succeeded" | "Failed")) {
            return None;
        }
        match requested.or(spec.termination_grace_period_seconds).unwrap_or(0) {
            0 => None,
            seconds => Some(if seconds < 0 { 1 } else { seconds }),
        }
    }
}

fn pod_spec(pod: &Pod) -> Option<&k8s_openapi::api::core::v1::PodSpec> {
    pod.spec.as_ref()
}

fn status_of(pod: &Pod) -> Option<&PodStatus> {
    pod.status.as_ref()
}

fn text(value: Option<&String>) -> String {
    value.cloned().unwrap_or_default()
}
