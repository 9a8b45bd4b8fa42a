//! What `kubectl get pods` shows.
//!
//! # Source
//! Kubernetes `pkg/printers/internalversion/printers.go`, `printPod`.

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Container, ContainerState, ContainerStateTerminated, ContainerStatus, Pod, PodSpec, PodStatus},
    apimachinery::pkg::apis::meta::v1::Time,
};

use crate::kind::{Cell, Column, human_duration};

pub(super) const COLUMNS: &[Column<Pod>] = &[
    Column::NAME,
    Column::<Pod>::text("Ready", |pod, _| {
        let seen = look(pod);
        Cell::from(format!("{}/{}", seen.ready, seen.total))
    }).help("The aggregate readiness state of this pod for accepting traffic."),
    Column::<Pod>::text("Status", |pod, _| Cell::from(look(pod).reason)).help("The aggregate status of the containers in this pod."),
    Column::<Pod>::text("Restarts", |pod, now| Cell::from(look(pod).restarts.text(now))).help("The number of times the containers in this pod have been restarted and when the last container in this pod has restarted."),
    Column::AGE,
    Column::<Pod>::wide_text("IP", |pod, _| Cell::from(ip(pod))).field::<PodStatus>("podIP"),
    Column::<Pod>::wide_text("Node", |pod, _| or_none(pod.spec.as_ref().and_then(|s| s.node_name.as_deref()))).field::<PodSpec>("nodeName"),
    Column::<Pod>::wide_text("Nominated Node", |pod, _| {
        or_none(pod.status.as_ref().and_then(|s| s.nominated_node_name.as_deref()))
    }).field::<PodStatus>("nominatedNodeName"),
    Column::<Pod>::wide_text("Readiness Gates", |pod, _| Cell::from(readiness_gates(pod))).field::<PodSpec>("readinessGates"),
];

/// How often containers were started again, and when one last ended.
#[derive(Debug, Clone, Copy, Default)]
struct Restarts {
    count: i64,
    last: Option<Timestamp>,
}

impl Restarts {
    fn add(&mut self, status: &ContainerStatus) {
        self.count += i64::from(status.restart_count);
        let ended = status.last_state.as_ref().and_then(|s| s.terminated.as_ref()).and_then(|t| t.finished_at.as_ref());
        self.last = self.last.max(ended.map(|Time(t)| *t));
    }

    fn text(&self, now: Timestamp) -> String {
        match self.last {
            Some(last) if self.count > 0 => {
                format!("{} ({} ago)", self.count, human_duration(now.as_second() - last.as_second()))
            }
            _ => self.count.to_string(),
        }
    }
}

#[derive(Debug, Default)]
struct Seen {
    ready: usize,
    total: usize,
    reason: String,
    restarts: Restarts,
    sidecar_restarts: Restarts,
    initializing: bool,
}

fn look(pod: &Pod) -> Seen {
    let mut seen = Seen { reason: phase_reason(pod), ..Seen::default() };
    let containers = pod.spec.as_ref().map_or(0, |s| s.containers.len());
    seen.total = containers + init_containers(pod).iter().filter(|c| is_sidecar(c)).count();
    look_at_init_containers(pod, &mut seen);
    if !seen.initializing || has_true_condition(pod, "Initialized") {
        look_at_containers(pod, &mut seen);
    }
    if pod.metadata.deletion_timestamp.is_some() {
        let status = pod.status.as_ref();
        let phase = status.and_then(|s| s.phase.as_deref());
        if status.and_then(|s| s.reason.as_deref()) == Some("NodeLost") {
            seen.reason = "Unknown".to_owned();
        } else if !matches!(phase, Some("Succeeded" | "Failed")) {
            seen.reason = "Terminating".to_owned();
        }
    }
    seen
}

fn phase_reason(pod: &Pod) -> String {
    let Some(status) = &pod.status else { return String::new() };
    let gated = |c: &&k8s_openapi::api::core::v1::PodCondition| {
        c.type_ == "PodScheduled" && c.reason.as_deref() == Some("SchedulingGated")
    };
    if status.conditions.iter().flatten().find(gated).is_some() {
        return "SchedulingGated".to_owned();
    }
    let reason = status.reason.as_ref().filter(|r| !r.is_empty());
    reason.or(status.phase.as_ref()).cloned().unwrap_or_default()
}

fn look_at_init_containers(pod: &Pod, seen: &mut Seen) {
    let statuses = pod.status.as_ref().and_then(|s| s.init_container_statuses.as_deref()).unwrap_or_default();
    let specs = init_containers(pod);
    for (i, status) in statuses.iter().enumerate() {
        let sidecar = specs.iter().any(|c| c.name == status.name && is_sidecar(c));
        seen.restarts.add(status);
        if sidecar {
            seen.sidecar_restarts.add(status);
        }
        let state = status.state.as_ref();
        let terminated = state.and_then(|s| s.terminated.as_ref());
        if terminated.is_some_and(|t| t.exit_code == 0) {
            continue;
        }
        if sidecar && status.started == Some(true) {
            seen.ready += usize::from(status.ready);
            continue;
        }
        let waiting = waiting_reason(state).filter(|r| *r != "PodInitializing");
        seen.reason = match (terminated, waiting) {
            (Some(terminated), _) => format!("Init:{}", ending(terminated)),
            (None, Some(reason)) => format!("Init:{reason}"),
            (None, None) => format!("Init:{i}/{}", specs.len()),
        };
        seen.initializing = true;
        break;
    }
}

fn look_at_containers(pod: &Pod, seen: &mut Seen) {
    let statuses = pod.status.as_ref().and_then(|s| s.container_statuses.as_deref()).unwrap_or_default();
    seen.restarts = seen.sidecar_restarts;
    let mut running = false;
    for status in statuses.iter().rev() {
        seen.restarts.add(status);
        let state = status.state.as_ref();
        if let Some(reason) = waiting_reason(state) {
            reason.clone_into(&mut seen.reason);
        } else if let Some(terminated) = state.and_then(|s| s.terminated.as_ref()) {
            seen.reason = ending(terminated);
        } else if status.ready && state.is_some_and(|s| s.running.is_some()) {
            running = true;
            seen.ready += 1;
        }
    }
    if seen.reason == "Completed" && running {
        let ready = has_true_condition(pod, "Ready");
        seen.reason = if ready { "Running" } else { "NotReady" }.to_owned();
    }
}

fn waiting_reason(state: Option<&ContainerState>) -> Option<&str> {
    state?.waiting.as_ref()?.reason.as_deref().filter(|r| !r.is_empty())
}

fn ending(terminated: &ContainerStateTerminated) -> String {
    match (terminated.reason.as_deref().unwrap_or_default(), terminated.signal.unwrap_or_default()) {
        ("", 0) => format!("ExitCode:{}", terminated.exit_code),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn init_containers(pod: &Pod) -> &[Container] {
    pod.spec.as_ref().and_then(|s| s.init_containers.as_deref()).unwrap_or_default()
}

fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

fn has_true_condition(pod: &Pod, kind: &str) -> bool {
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|c| c.type_ == kind && c.status == "True")
}

fn or_none(text: Option<&str>) -> Cell {
    Cell::from(text.filter(|t| !t.is_empty()).unwrap_or("<none>"))
}

fn ip(pod: &Pod) -> String {
    let status = pod.status.as_ref();
    let first = status.and_then(|s| s.pod_ips.as_ref()).and_then(|ips| ips.first()).map(|ip| ip.ip.clone());
    let ip = first.or_else(|| status.and_then(|s| s.pod_ip.clone())).filter(|ip| !ip.is_empty());
    ip.unwrap_or_else(|| "<none>".to_owned())
}

fn readiness_gates(pod: &Pod) -> String {
    let gates = pod.spec.as_ref().and_then(|s| s.readiness_gates.as_deref()).unwrap_or_default();
    if gates.is_empty() {
        return "<none>".to_owned();
    }
    let open = gates.iter().filter(|g| has_true_condition(pod, &g.condition_type)).count();
    format!("{open}/{}", gates.len())
}
