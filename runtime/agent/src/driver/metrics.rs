//! The agent's metrics.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntGauge, Registry};

/// What the agent counts.
#[derive(Clone)]
pub(crate) struct Metrics {
    /// Pods that this node knows.
    pub(crate) pods: IntGauge,
    /// Containers that run.
    pub(crate) running: IntGauge,
    /// Containers started.
    pub(crate) started: IntCounter,
    /// Starts that failed.
    pub(crate) start_failures: IntCounter,
    /// Containers started again.
    pub(crate) restarts: IntCounter,
    /// From the decision to start a container until it runs, in seconds.
    pub(crate) start_seconds: Histogram,
    /// CPU time that ended containers used.
    pub(crate) cpu_seconds: prometheus::Counter,
    /// Time that ended containers waited because their quota was used up.
    pub(crate) throttled_seconds: prometheus::Counter,
    /// Pods that had to leave.
    pub(crate) evictions: IntCounter,
    /// Status writes that were tried again.
    pub(crate) status_retries: IntCounter,
}

impl Metrics {
    /// Makes them and registers them; a name that is registered already (two agents in one process) is only logged.
    pub(crate) fn new(registry: &Registry) -> Self {
        let buckets = vec![0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];
        let start = HistogramOpts::new("podium_agent_container_start_seconds", "Time to start a container.");
        let metrics = Self {
            pods: made(IntGauge::new("podium_agent_pods", "Pods on this node.")),
            running: made(IntGauge::new("podium_agent_containers_running", "Containers that run.")),
            started: made(IntCounter::new("podium_agent_containers_started_total", "Containers started.")),
            start_failures: made(IntCounter::new("podium_agent_start_failures_total", "Starts that failed.")),
            restarts: made(IntCounter::new("podium_agent_container_restarts_total", "Containers started again.")),
            start_seconds: made(Histogram::with_opts(start.buckets(buckets))),
            cpu_seconds: made(prometheus::Counter::new(
                "podium_agent_ended_cpu_seconds_total",
                "CPU time of ended containers.",
            )),
            throttled_seconds: made(prometheus::Counter::new(
                "podium_agent_ended_throttled_seconds_total",
                "Time that ended containers were throttled.",
            )),
            evictions: made(IntCounter::new("podium_agent_evictions_total", "Pods that had to leave.")),
            status_retries: made(IntCounter::new("podium_agent_status_retries_total", "Status writes tried again.")),
        };
        metrics.register(registry);
        metrics
    }

    fn register(&self, registry: &Registry) {
        let all: [Box<dyn prometheus::core::Collector>; 10] = [
            Box::new(self.pods.clone()),
            Box::new(self.running.clone()),
            Box::new(self.started.clone()),
            Box::new(self.start_failures.clone()),
            Box::new(self.restarts.clone()),
            Box::new(self.start_seconds.clone()),
            Box::new(self.cpu_seconds.clone()),
            Box::new(self.throttled_seconds.clone()),
            Box::new(self.evictions.clone()),
            Box::new(self.status_retries.clone()),
        ];
        for collector in all {
            if let Err(error) = registry.register(collector) {
                tracing::warn!(%error, "a metric of the agent is not shown");
            }
        }
    }
}

fn made<T>(metric: prometheus::Result<T>) -> T {
    metric.expect("invariant: the names of metrics are valid")
}
