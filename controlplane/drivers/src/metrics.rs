//! What the drivers count, in Kubernetes' names where Kubernetes has one.

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry, core::Collector};

use crate::scheduler::metrics::SchedulerMetrics;

/// The metrics of controllers and scheduler.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// `workqueue_depth{name}`
    pub(crate) depth: IntGaugeVec,
    /// `workqueue_retries_total{name}`
    pub(crate) retries: IntCounterVec,
    /// `workqueue_work_duration_seconds{name}`
    pub(crate) duration: HistogramVec,
    /// `podium_controller_reconcile_total{controller,result}`; result: `success`, `error`, `panic`
    pub(crate) reconciles: IntCounterVec,
    /// `leader_election_master_status{name}`
    pub(crate) leading: IntGaugeVec,
    /// Those of the scheduler.
    pub(crate) scheduler: SchedulerMetrics,
}

impl Metrics {
    /// The metrics, registered. Those that the registry holds already under these names stay as they are, and the ones
    /// made here are not shown: two drivers of one process should share one `Metrics`.
    pub fn new(registry: &Registry) -> Self {
        let metrics = Self {
            depth: gauges("workqueue_depth", "Keys that wait to be looked at.", "name"),
            retries: counters("workqueue_retries_total", "Keys that failed and will be tried again.", &["name"]),
            duration: histograms(
                "workqueue_work_duration_seconds",
                "Time to reconcile a key, with its writes.",
                "name",
            ),
            reconciles: counters(
                "podium_controller_reconcile_total",
                "Reconciles by their result.",
                &["controller", "result"],
            ),
            leading: gauges("leader_election_master_status", "1 while this process leads.", "name"),
            scheduler: SchedulerMetrics::default(),
        };
        for collector in metrics.collectors() {
            if let Err(error) = registry.register(collector) {
                tracing::debug!(%error, "a metric is registered already");
            }
        }
        metrics
    }

    fn collectors(&self) -> Vec<Box<dyn Collector>> {
        let mut all: Vec<Box<dyn Collector>> = vec![
            Box::new(self.depth.clone()),
            Box::new(self.retries.clone()),
            Box::new(self.duration.clone()),
            Box::new(self.reconciles.clone()),
            Box::new(self.leading.clone()),
        ];
        all.extend(self.scheduler.collectors());
        all
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new(&Registry::new())
    }
}

const VALID: &str = "invariant: names and labels are valid constants";

fn counters(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    IntCounterVec::new(Opts::new(name, help), labels).expect(VALID)
}

fn gauges(name: &str, help: &str, label: &str) -> IntGaugeVec {
    IntGaugeVec::new(Opts::new(name, help), &[label]).expect(VALID)
}

fn histograms(name: &str, help: &str, label: &str) -> HistogramVec {
    let buckets = vec![0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0];
    HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), &[label]).expect(VALID)
}
