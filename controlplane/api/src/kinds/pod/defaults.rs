//! What Kubernetes fills in when a pod leaves it out.
//!
//! Only the kinds of volumes that Podium can mount have defaults here.
//!
//! # Source
//! Kubernetes `pkg/apis/core/v1/defaults.go`.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        Container, DownwardAPIVolumeFile, EnvVar, EphemeralContainer, HTTPGetAction, LifecycleHandler, Pod, PodSpec,
        Probe, Volume, VolumeProjection,
    },
    apimachinery::pkg::api::resource::Quantity as WireQuantity,
};

use super::container::as_container;
use crate::quantity::Quantity;

const FILE_MODE: i32 = 0o644;

/// Sets a text that is absent or empty.
pub(crate) fn text(field: &mut Option<String>, default: &str) {
    if field.as_deref().unwrap_or_default().is_empty() {
        *field = Some(default.to_owned());
    }
}

/// Sets a number that is absent or zero.
fn number(field: &mut Option<i32>, default: i32) {
    if field.unwrap_or_default() == 0 {
        *field = Some(default);
    }
}

/// The defaults of a pod.
pub(super) fn pod(pod: &mut Pod) {
    let spec = pod.spec.get_or_insert_default();
    pod_spec(spec);
    spec.enable_service_links.get_or_insert(true);
    let host_network = spec.host_network == Some(true);
    for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
        requests_from_limits(container);
        if host_network {
            host_ports(container);
        }
    }
}

/// The defaults that pods and pod templates share.
pub(super) fn pod_spec(spec: &mut PodSpec) {
    text(&mut spec.dns_policy, "ClusterFirst");
    text(&mut spec.restart_policy, "Always");
    text(&mut spec.scheduler_name, "default-scheduler");
    spec.security_context.get_or_insert_default();
    spec.termination_grace_period_seconds.get_or_insert(30);
    // The old name of the field follows the new one, and stands in for it when only the old one is given.
    if spec.service_account_name.as_deref().unwrap_or_default().is_empty() {
        spec.service_account_name.clone_from(&spec.service_account);
    }
    spec.service_account.clone_from(&spec.service_account_name);
    spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()).for_each(container);
    spec.ephemeral_containers.iter_mut().flatten().for_each(ephemeral);
    spec.volumes.iter_mut().flatten().for_each(volume);
}

/// The same for what has the fields of a container and is none.
fn ephemeral(ephemeral: &mut EphemeralContainer) {
    let mut filled = as_container(ephemeral);
    container(&mut filled);
    ephemeral.image_pull_policy = filled.image_pull_policy;
    ephemeral.termination_message_path = filled.termination_message_path;
    ephemeral.termination_message_policy = filled.termination_message_policy;
    ephemeral.ports = filled.ports;
    ephemeral.resources = filled.resources;
    ephemeral.env = filled.env;
}

fn container(container: &mut Container) {
    let policy = pull_policy(container.image.as_deref().unwrap_or_default());
    text(&mut container.image_pull_policy, policy);
    text(&mut container.termination_message_path, "/dev/termination-log");
    text(&mut container.termination_message_policy, "File");
    for port in container.ports.iter_mut().flatten() {
        text(&mut port.protocol, "TCP");
    }
    let resources = container.resources.get_or_insert_default();
    canonical(&mut resources.limits);
    canonical(&mut resources.requests);
    container.env.iter_mut().flatten().for_each(env);
    for probe in [&mut container.liveness_probe, &mut container.readiness_probe, &mut container.startup_probe] {
        probe.iter_mut().for_each(self::probe);
    }
    if let Some(lifecycle) = &mut container.lifecycle {
        [&mut lifecycle.post_start, &mut lifecycle.pre_stop].into_iter().flatten().for_each(lifecycle_handler);
    }
}

/// `Always` for the tag `latest`, also when it is only implied.
pub(super) fn pull_policy(image: &str) -> &'static str {
    let (name, digest) = image.split_once('@').map_or((image, false), |(name, _)| (name, true));
    let tag = name.rsplit('/').next().and_then(|last| last.split_once(':')).map(|(_, tag)| tag);
    let latest = match tag {
        _ if image.is_empty() || image.contains("://") => false,
        Some(tag) => tag == "latest",
        None => !digest,
    };
    if latest { "Always" } else { "IfNotPresent" }
}

/// Amounts in the form in which the API shows them; what cannot be read is left for validation.
fn canonical(amounts: &mut Option<BTreeMap<String, WireQuantity>>) {
    for amount in amounts.iter_mut().flat_map(BTreeMap::values_mut) {
        if let Ok(read) = amount.0.parse::<Quantity>() {
            let wire = read.to_wire();
            if wire.0 != amount.0 {
                *amount = wire;
            }
        }
    }
}

fn requests_from_limits(container: &mut Container) {
    let Some(resources) = &mut container.resources else { return };
    let Some(limits) = resources.limits.as_ref().filter(|l| !l.is_empty()) else { return };
    let requests = resources.requests.get_or_insert_default();
    for (name, limit) in limits {
        requests.entry(name.clone()).or_insert_with(|| limit.clone());
    }
}

fn host_ports(container: &mut Container) {
    for port in container.ports.iter_mut().flatten() {
        let number = port.container_port;
        self::number(&mut port.host_port, number);
    }
}

fn env(env: &mut EnvVar) {
    let Some(from) = &mut env.value_from else { return };
    if let Some(field) = &mut from.field_ref {
        text(&mut field.api_version, "v1");
    }
    if let Some(resource) = &mut from.resource_field_ref {
        resource.divisor.get_or_insert_with(|| WireQuantity("0".to_owned()));
    }
}

fn probe(probe: &mut Probe) {
    number(&mut probe.timeout_seconds, 1);
    number(&mut probe.period_seconds, 10);
    number(&mut probe.success_threshold, 1);
    number(&mut probe.failure_threshold, 3);
    probe.http_get.iter_mut().for_each(http_get);
    if let Some(grpc) = &mut probe.grpc {
        grpc.service.get_or_insert_default();
    }
}

fn lifecycle_handler(handler: &mut LifecycleHandler) {
    handler.http_get.iter_mut().for_each(http_get);
}

fn http_get(action: &mut HTTPGetAction) {
    text(&mut action.path, "/");
    text(&mut action.scheme, "HTTP");
}

fn volume(volume: &mut Volume) {
    if super::volume::sources(volume).is_empty() {
        volume.empty_dir = Some(Default::default());
    }
    if let Some(source) = &mut volume.config_map {
        source.default_mode.get_or_insert(FILE_MODE);
    }
    if let Some(source) = &mut volume.secret {
        source.default_mode.get_or_insert(FILE_MODE);
    }
    if let Some(source) = &mut volume.downward_api {
        source.default_mode.get_or_insert(FILE_MODE);
        source.items.iter_mut().flatten().for_each(downward_file);
    }
    if let Some(source) = &mut volume.projected {
        source.default_mode.get_or_insert(FILE_MODE);
        source.sources.iter_mut().flatten().for_each(projection);
    }
    if let Some(source) = &mut volume.host_path {
        source.type_.get_or_insert_default();
    }
    if let Some(source) = &mut volume.image {
        let policy = pull_policy(source.reference.as_deref().unwrap_or_default());
        text(&mut source.pull_policy, policy);
    }
}

fn projection(projection: &mut VolumeProjection) {
    if let Some(token) = &mut projection.service_account_token {
        token.expiration_seconds.get_or_insert(3600);
    }
    if let Some(source) = &mut projection.downward_api {
        source.items.iter_mut().flatten().for_each(downward_file);
    }
}

fn downward_file(file: &mut DownwardAPIVolumeFile) {
    if let Some(field) = &mut file.field_ref {
        text(&mut field.api_version, "v1");
    }
    if let Some(resource) = &mut file.resource_field_ref {
        resource.divisor.get_or_insert_with(|| WireQuantity("0".to_owned()));
    }
}
