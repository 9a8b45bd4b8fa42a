//! kubelet's `/metrics/resource` and `/metrics/probes`.
//!
//! # Source
//! Kubernetes `pkg/kubelet/metrics/collectors/resource_metrics.go` and `pkg/kubelet/prober/prober.go`.

use super::{NodeUse, Shared, exposition::Text};
use crate::driver::meter::{ContainerUse, PodUse};

/// A figure as Prometheus takes it.
#[expect(clippy::cast_precision_loss, reason = "series are floating-point numbers")]
pub(super) const fn float(number: u64) -> f64 {
    number as f64
}

/// `/metrics/resource`: what metrics-server and Prometheus' adapter read.
pub(super) fn resource(shared: &Shared) -> String {
    let now = shared.clock.now().as_millisecond();
    let (pods, node) = (shared.meter.read(), shared.meter.node_use());
    let mut text = Text::default();
    containers(&mut text, &pods, now);
    of_node(&mut text, &node, now);
    of_pods(&mut text, &pods, now);
    let name = "resource_scrape_error";
    text.series(name, "1 if there was an error while getting container metrics, 0 otherwise", "gauge");
    text.value(name, &[], 0.0, None);
    text.done()
}

/// Labels of a container's series.
pub(super) fn labels<'a>(pod: &'a PodUse, container: &'a ContainerUse) -> [(&'static str, &'a str); 3] {
    let key = &pod.id.key;
    [("container", container.name.as_str()), ("namespace", &key.namespace), ("pod", &key.name)]
}

/// All containers of all pods.
pub(super) fn each(pods: &[PodUse]) -> impl Iterator<Item = (&PodUse, &ContainerUse)> {
    pods.iter().flat_map(|pod| pod.containers.iter().map(move |container| (pod, container)))
}

fn containers(text: &mut Text, pods: &[PodUse], now: i64) {
    type Value = fn(&ContainerUse) -> f64;
    let all: [(&str, &str, &str, Value); 3] = [
        (
            "container_cpu_usage_seconds_total",
            "Cumulative cpu time consumed by the container in core-seconds",
            "counter",
            |c| c.usage.cpu.as_secs_f64(),
        ),
        ("container_memory_working_set_bytes", "Current working set of the container in bytes", "gauge", |c| {
            float(c.usage.memory_bytes)
        }),
        ("container_swap_usage_bytes", "Current amount of the container swap usage in bytes.", "gauge", |_| 0.0),
    ];
    for (name, help, kind, value) in all {
        text.series(name, help, kind);
        each(pods).for_each(|(pod, container)| text.value(name, &labels(pod, container), value(container), Some(now)));
    }
    let name = "container_start_time_seconds";
    text.series(name, "Start time of the container since unix epoch in seconds", "gauge");
    for (pod, container) in each(pods) {
        text.value(name, &labels(pod, container), container.started.as_millisecond() as f64 / 1000.0, None);
    }
}

fn of_node(text: &mut Text, node: &NodeUse, now: i64) {
    let name = "node_cpu_usage_seconds_total";
    text.series(name, "Cumulative cpu time consumed by the node in core-seconds", "counter");
    text.value(name, &[], node.cpu.as_secs_f64(), Some(now));
    let name = "node_memory_working_set_bytes";
    text.series(name, "Current working set of the node in bytes", "gauge");
    text.value(name, &[], float(node.memory_used_bytes), Some(now));
}

fn of_pods(text: &mut Text, pods: &[PodUse], now: i64) {
    type Value = fn(&PodUse) -> f64;
    let all: [(&str, &str, &str, Value); 2] = [
        ("pod_cpu_usage_seconds_total", "Cumulative cpu time consumed by the pod in core-seconds", "counter", |pod| {
            pod.containers.iter().map(|c| c.usage.cpu.as_secs_f64()).sum()
        }),
        ("pod_memory_working_set_bytes", "Current working set of the pod in bytes", "gauge", |pod| {
            float(pod.containers.iter().map(|c| c.usage.memory_bytes).sum())
        }),
    ];
    for (name, help, kind, value) in all {
        text.series(name, help, kind);
        for pod in pods {
            let key = &pod.id.key;
            text.value(name, &[("namespace", &key.namespace), ("pod", &key.name)], value(pod), Some(now));
        }
    }
}

/// `/metrics/probes`.
pub(super) fn probes(shared: &Shared) -> String {
    let mut text = Text::default();
    let name = "prober_probe_total";
    let help = "Cumulative number of a liveness, readiness or startup probe for a container by result.";
    text.series(name, help, "counter");
    for probe in shared.meter.probes() {
        for (result, count) in probe.results() {
            let key = &probe.pod.key;
            let labels = [
                ("container", probe.container.as_str()),
                ("namespace", &key.namespace),
                ("pod", &key.name),
                ("pod_uid", &probe.pod.uid),
                ("probe_type", probe.kind.title()),
                ("result", result),
            ];
            text.value(name, &labels, float(count), None);
        }
    }
    text.done()
}
