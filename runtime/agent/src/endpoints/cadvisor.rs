//! kubelet's `/metrics/cadvisor`: the series that dashboards draw containers from.
//!
//! What a WebAssembly container does not have (processes, threads, file systems, its own network interfaces) has no series. Bytes
//! of the network are the pod's: `eth0` stands for the pod network.
//!
//! # Source
//! cAdvisor `metrics/prometheus.go`.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use podium_sandbox::Limits;

use super::{
    Shared,
    exposition::Text,
    figures::{each, float},
};
use crate::{
    decide::resources,
    driver::meter::{ContainerUse, PodUse},
};

/// Microseconds that a quota is told in, as cgroups have it.
const PERIOD: u64 = 100_000;

/// A running container and what it was made from.
struct Seen<'a> {
    pod: &'a PodUse,
    using: &'a ContainerUse,
    id: String,
    image: String,
    /// What the sandbox enforces; `None`: the pod has just gone.
    limits: Option<Limits>,
}

type Value = fn(&Seen<'_>) -> Option<f64>;
/// Name, help, type, value; `None`: this container has none.
type Series = (&'static str, &'static str, &'static str, Value);

const SERIES: &[Series] = &[
    ("container_cpu_usage_seconds_total", "Cumulative cpu time consumed in seconds.", "counter", |s| {
        Some(s.using.usage.cpu.as_secs_f64())
    }),
    ("container_cpu_cfs_periods_total", "Number of elapsed enforcement period intervals.", "counter", |s| {
        s.quota_millicores().map(|_| float(s.using.usage.periods))
    }),
    ("container_cpu_cfs_throttled_periods_total", "Number of throttled period intervals.", "counter", |s| {
        s.quota_millicores().map(|_| float(s.using.usage.periods_throttled))
    }),
    (
        "container_cpu_cfs_throttled_seconds_total",
        "Total time duration the container has been throttled.",
        "counter",
        |s| s.quota_millicores().map(|_| s.using.usage.throttled.as_secs_f64()),
    ),
    ("container_memory_working_set_bytes", "Current working set in bytes.", "gauge", |s| {
        Some(float(s.using.usage.memory_bytes))
    }),
    (
        "container_memory_usage_bytes",
        "Current memory usage in bytes, including all memory regardless of when it was accessed",
        "gauge",
        |s| Some(float(s.using.usage.memory_bytes)),
    ),
    ("container_memory_rss", "Size of RSS in bytes.", "gauge", |s| Some(float(s.using.usage.memory_bytes))),
    ("container_memory_max_usage_bytes", "Maximum memory usage recorded in bytes", "gauge", |s| {
        Some(float(s.using.usage.memory_bytes_peak))
    }),
    ("container_spec_cpu_period", "CPU period of the container.", "gauge", |s| {
        s.quota_millicores().map(|_| float(PERIOD))
    }),
    ("container_spec_cpu_quota", "CPU quota of the container.", "gauge", |s| {
        s.quota_millicores().map(|millicores| float(millicores * PERIOD / 1000))
    }),
    ("container_spec_cpu_shares", "CPU share of the container.", "gauge", |s| {
        s.limits.as_ref().map(|limits| float((u64::from(limits.cpu.weight_millicores) * 1024 / 1000).max(2)))
    }),
    ("container_spec_memory_limit_bytes", "Memory limit for the container.", "gauge", |s| {
        s.limits.as_ref().map(|limits| float(limits.memory_bytes_max))
    }),
    ("container_start_time_seconds", "Start time of the container since unix epoch in seconds.", "gauge", |s| {
        Some(s.using.started.as_millisecond() as f64 / 1000.0)
    }),
];

impl Seen<'_> {
    fn quota_millicores(&self) -> Option<u64> {
        self.limits.as_ref()?.cpu.quota_millicores.map(u64::from)
    }

    fn labels<'s>(&'s self, extra: Option<(&'static str, &'s str)>) -> Vec<(&'static str, &'s str)> {
        let key = &self.pod.id.key;
        let mut labels = vec![("container", self.using.name.as_str())];
        labels.extend(extra);
        labels.extend([("id", self.id.as_str()), ("image", &self.image), ("name", &self.using.name)]);
        labels.extend([("namespace", key.namespace.as_str()), ("pod", key.name.as_str())]);
        labels
    }
}

/// The series.
pub(super) fn series(shared: &Shared) -> String {
    let pods = shared.meter.read();
    let now = shared.clock.now().as_millisecond();
    let seen: Vec<Seen<'_>> = each(&pods).map(|(pod, using)| see(shared, pod, using)).collect();
    let mut text = Text::default();
    for (name, help, kind, value) in SERIES {
        text.series(name, help, kind);
        // Of the CPU there is one figure for all cores.
        let extra = (*name == "container_cpu_usage_seconds_total").then_some(("cpu", "total"));
        for one in &seen {
            if let Some(value) = value(one) {
                text.value(name, &one.labels(extra), value, Some(now));
            }
        }
    }
    let name = "container_last_seen";
    text.series(name, "Last time a container was seen by the exporter", "gauge");
    seen.iter().for_each(|one| text.value(name, &one.labels(None), (now / 1000) as f64, Some(now)));
    network(&mut text, &pods, now);
    let name = "machine_cpu_cores";
    text.series(name, "Number of logical CPU cores.", "gauge");
    text.value(name, &[], float(shared.node.cpu_millicores / 1000), None);
    let name = "machine_memory_bytes";
    text.series(name, "Amount of memory installed on the machine.", "gauge");
    text.value(name, &[], float(shared.meter.node_use().memory_total_bytes), None);
    text.done()
}

fn see<'a>(shared: &Shared, pod: &'a PodUse, using: &'a ContainerUse) -> Seen<'a> {
    let object: Option<Arc<Pod>> = shared.pods.get(&pod.id.key).and_then(|object| object.downcast_arc());
    let spec = object.as_ref().and_then(|object| object.spec.as_ref());
    let all = spec.map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
    let spec = all.and_then(|mut all| all.find(|c| c.name == using.name));
    let annotations = object.as_ref().and_then(|object| object.metadata.annotations.as_ref());
    Seen {
        pod,
        using,
        id: format!("/kubepods/pod{}/{}", pod.id.uid, using.name),
        image: spec.and_then(|spec| spec.image.clone()).unwrap_or_default(),
        limits: spec.map(|spec| resources::limits(spec, annotations, &shared.node)),
    }
}

fn network(text: &mut Text, pods: &[PodUse], now: i64) {
    type Bytes = fn(&ContainerUse) -> u64;
    let all: [(&str, &str, Bytes); 2] = [
        ("container_network_receive_bytes_total", "Cumulative count of bytes received", |c| c.usage.received_bytes),
        ("container_network_transmit_bytes_total", "Cumulative count of bytes transmitted", |c| c.usage.sent_bytes),
    ];
    for (name, help, bytes) in all {
        text.series(name, help, "counter");
        for pod in pods {
            let (key, id) = (&pod.id.key, format!("/kubepods/pod{}", pod.id.uid));
            let labels = [
                ("container", ""),
                ("id", id.as_str()),
                ("image", ""),
                ("interface", "eth0"),
                ("name", ""),
                ("namespace", &key.namespace),
                ("pod", &key.name),
            ];
            text.value(name, &labels, float(pod.containers.iter().map(bytes).sum()), Some(now));
        }
    }
}
