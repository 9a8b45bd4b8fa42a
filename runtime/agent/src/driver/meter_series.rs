//! What containers use, as Prometheus' series: those of kubelet's `/metrics/resource`, and Podium's own beside them.

use std::sync::Arc;

use prometheus::{
    core::{Collector, Desc},
    proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType},
};

use super::meter::{ContainerUse, Meter, PodUse};

type Value = fn(&ContainerUse) -> f64;

struct Series {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    value: Value,
}

const fn series(name: &'static str, help: &'static str, kind: MetricType, value: Value) -> Series {
    Series { name, help, kind, value }
}

#[expect(clippy::cast_precision_loss, reason = "series are floating-point numbers")]
const fn float(number: u64) -> f64 {
    number as f64
}

const SERIES: &[Series] = &[
    series(
        "container_cpu_usage_seconds_total",
        "Cumulative cpu time consumed by the container in core-seconds",
        MetricType::COUNTER,
        |c| c.usage.cpu.as_secs_f64(),
    ),
    series(
        "container_memory_working_set_bytes",
        "Current working set of the container in bytes",
        MetricType::GAUGE,
        |c| float(c.usage.memory_bytes),
    ),
    series(
        "container_start_time_seconds",
        "Start time of the container since unix epoch in seconds",
        MetricType::GAUGE,
        |c| c.started.as_millisecond() as f64 / 1000.0,
    ),
    series("container_memory_max_usage_bytes", "Maximum memory usage recorded in bytes", MetricType::GAUGE, |c| {
        float(c.usage.memory_bytes_peak)
    }),
    series(
        "container_cpu_cfs_periods_total",
        "Number of elapsed enforcement period intervals",
        MetricType::COUNTER,
        |c| float(c.usage.periods),
    ),
    series(
        "container_cpu_cfs_throttled_periods_total",
        "Number of throttled period intervals",
        MetricType::COUNTER,
        |c| float(c.usage.periods_throttled),
    ),
    series(
        "container_cpu_cfs_throttled_seconds_total",
        "Total time duration the container has been throttled",
        MetricType::COUNTER,
        |c| c.usage.throttled.as_secs_f64(),
    ),
    series("podium_container_instances", "Instances of the container that are alive", MetricType::GAUGE, |c| {
        float(c.usage.instances)
    }),
    series("podium_container_requests_total", "Requests that the container has answered", MetricType::COUNTER, |c| {
        float(c.usage.requests)
    }),
    series(
        "podium_container_received_bytes_total",
        "Bytes of bodies, TCP and UDP that the container has received",
        MetricType::COUNTER,
        |c| float(c.usage.received_bytes),
    ),
    series(
        "podium_container_sent_bytes_total",
        "Bytes of bodies, TCP and UDP that the container has sent",
        MetricType::COUNTER,
        |c| float(c.usage.sent_bytes),
    ),
];

/// The series of all containers, made when they are scraped.
pub(crate) struct ContainerSeries {
    meter: Arc<Meter>,
    descriptions: Vec<Desc>,
}

impl ContainerSeries {
    pub(crate) fn new(meter: Arc<Meter>) -> Self {
        let labels = ["container", "namespace", "pod"].map(str::to_owned).to_vec();
        let describe = |s: &Series| Desc::new(s.name.to_owned(), s.help.to_owned(), labels.clone(), [].into());
        let descriptions = SERIES.iter().filter_map(|series| describe(series).ok()).collect();
        Self { meter, descriptions }
    }
}

impl Collector for ContainerSeries {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let pods = self.meter.read();
        SERIES.iter().map(|series| family(series, &pods)).filter(|family| !family.get_metric().is_empty()).collect()
    }
}

fn family(series: &Series, pods: &[PodUse]) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(series.name.to_owned());
    family.set_help(series.help.to_owned());
    family.set_field_type(series.kind);
    let all = pods.iter().flat_map(|pod| pod.containers.iter().map(move |container| (pod, container)));
    family.set_metric(all.map(|(pod, container)| metric(series, pod, container)).collect());
    family
}

fn metric(series: &Series, pod: &PodUse, container: &ContainerUse) -> Metric {
    let pair = |name: &str, value: &str| {
        let mut pair = LabelPair::default();
        pair.set_name(name.to_owned());
        pair.set_value(value.to_owned());
        pair
    };
    let key = &pod.id.key;
    let labels = vec![pair("container", &container.name), pair("namespace", &key.namespace), pair("pod", &key.name)];
    let mut metric = Metric::from_label(labels);
    let value = (series.value)(container);
    if series.kind == MetricType::COUNTER {
        let mut counter = Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
    } else {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
    }
    metric
}
