//! Validation of probes and lifecycle hooks.
//!
//! # Source
//! Kubernetes `pkg/apis/core/validation/validation.go`, `validateProbe`, `validateHandler`.

use k8s_openapi::{
    api::core::v1::{
        Container, ExecAction, GRPCAction, HTTPGetAction, LifecycleHandler, Probe, SleepAction, TCPSocketAction,
    },
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::container::validate_port;
use crate::{
    field::{FieldErrors, FieldPath},
    names,
};

/// What a probe or a hook does; at most one of these may be set.
#[derive(Default)]
struct Handler<'a> {
    exec: Option<&'a ExecAction>,
    http_get: Option<&'a HTTPGetAction>,
    tcp_socket: Option<&'a TCPSocketAction>,
    grpc: Option<&'a GRPCAction>,
    sleep: Option<&'a SleepAction>,
}

/// Checks the three probes of a container at `path`.
pub(super) fn validate_probes(
    container: &Container,
    grace_seconds: Option<i64>,
    path: &FieldPath,
    errs: &mut FieldErrors,
) {
    let probes = [
        ("livenessProbe", &container.liveness_probe),
        ("readinessProbe", &container.readiness_probe),
        ("startupProbe", &container.startup_probe),
    ];
    for (field, probe) in probes {
        let Some(probe) = probe else { continue };
        let at = path.child(field);
        validate_probe(probe, grace_seconds, &at, errs);
        if field == "readinessProbe" {
            if let Some(seconds) = probe.termination_grace_period_seconds {
                let detail = "must not be set for readinessProbes";
                errs.invalid(&at.child("terminationGracePeriodSeconds"), seconds, detail);
            }
        } else if let Some(times) = probe.success_threshold.filter(|t| *t != 1) {
            errs.invalid(&at.child("successThreshold"), times, "must be 1");
        }
    }
}

fn validate_probe(probe: &Probe, grace_seconds: Option<i64>, path: &FieldPath, errs: &mut FieldErrors) {
    let handler = Handler {
        exec: probe.exec.as_ref(),
        http_get: probe.http_get.as_ref(),
        tcp_socket: probe.tcp_socket.as_ref(),
        grpc: probe.grpc.as_ref(),
        sleep: None,
    };
    validate_handler(&handler, grace_seconds, path, errs);
    let numbers = [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ];
    for (field, number) in numbers {
        errs.non_negative(&path.child(field), i64::from(number.unwrap_or_default()));
    }
    if let Some(seconds) = probe.termination_grace_period_seconds.filter(|s| *s <= 0) {
        errs.invalid(&path.child("terminationGracePeriodSeconds"), seconds, "must be greater than 0");
    }
}

/// Checks the hooks of a container at `path`.
pub(super) fn validate_lifecycle(
    container: &Container,
    grace_seconds: Option<i64>,
    path: &FieldPath,
    errs: &mut FieldErrors,
) {
    let Some(lifecycle) = &container.lifecycle else { return };
    let at = path.child("lifecycle");
    for (field, hook) in [("postStart", &lifecycle.post_start), ("preStop", &lifecycle.pre_stop)] {
        if let Some(hook) = hook {
            validate_handler(&hook_handler(hook), grace_seconds, &at.child(field), errs);
        }
    }
}

fn hook_handler(hook: &LifecycleHandler) -> Handler<'_> {
    Handler {
        exec: hook.exec.as_ref(),
        http_get: hook.http_get.as_ref(),
        tcp_socket: hook.tcp_socket.as_ref(),
        grpc: None,
        sleep: hook.sleep.as_ref(),
    }
}

fn validate_handler(handler: &Handler<'_>, grace_seconds: Option<i64>, path: &FieldPath, errs: &mut FieldErrors) {
    let given = [
        ("exec", handler.exec.is_some()),
        ("httpGet", handler.http_get.is_some()),
        ("tcpSocket", handler.tcp_socket.is_some()),
        ("grpc", handler.grpc.is_some()),
        ("sleep", handler.sleep.is_some()),
    ];
    let mut given = given.iter().filter(|(_, given)| *given).map(|(field, _)| *field);
    let Some(first) = given.next() else {
        return errs.required(path, "must specify a handler type");
    };
    for more in given {
        errs.forbidden(&path.child(more), "may not specify more than 1 handler type");
    }
    let at = path.child(first);
    match *handler {
        Handler { exec: Some(exec), .. } => {
            if exec.command.as_ref().is_none_or(|c| c.is_empty()) {
                errs.required(&at.child("command"), "");
            }
        }
        Handler { http_get: Some(http), .. } => validate_http_get(http, &at, errs),
        Handler { tcp_socket: Some(tcp), .. } => validate_port_number_or_name(&tcp.port, &at.child("port"), errs),
        Handler { grpc: Some(grpc), .. } => validate_port(grpc.port, &at.child("port"), errs),
        Handler { sleep: Some(sleep), .. } => validate_sleep(sleep, grace_seconds, &at, errs),
        Handler { sleep: None, .. } => {}
    }
}

/// A pod that sleeps longer than it has to end would be ended in its sleep.
fn validate_sleep(sleep: &SleepAction, grace_seconds: Option<i64>, path: &FieldPath, errs: &mut FieldErrors) {
    let Some(grace) = grace_seconds.filter(|grace| sleep.seconds < 0 || sleep.seconds > *grace) else { return };
    let detail = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
    errs.invalid(path, sleep.seconds, &detail);
}

fn validate_http_get(http: &HTTPGetAction, path: &FieldPath, errs: &mut FieldErrors) {
    if http.path.as_deref().unwrap_or_default().is_empty() {
        errs.required(&path.child("path"), "");
    }
    validate_port_number_or_name(&http.port, &path.child("port"), errs);
    let scheme = http.scheme.as_deref().unwrap_or_default();
    if !matches!(scheme, "HTTP" | "HTTPS") {
        errs.not_supported(&path.child("scheme"), scheme, &["HTTP", "HTTPS"]);
    }
    for header in http.http_headers.iter().flatten() {
        errs.invalid_each(&path.child("httpHeaders"), &header.name, names::is_http_header_name(&header.name));
    }
}

/// A port's number, or the name that the container gives it.
pub(in crate::kinds) fn validate_port_number_or_name(port: &IntOrString, path: &FieldPath, errs: &mut FieldErrors) {
    match port {
        IntOrString::Int(number) => validate_port(*number, path, errs),
        IntOrString::String(name) => errs.invalid_each(path, name, names::is_port_name(name)),
    }
}
