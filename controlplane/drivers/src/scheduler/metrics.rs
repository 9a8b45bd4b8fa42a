//! What the scheduler counts, in Kubernetes' names.

use std::time::Duration;

use podium_scheduler::queue::Pending;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, core::Collector,
};

/// The metrics of the scheduler.
#[derive(Debug, Clone)]
pub(crate) struct SchedulerMetrics {
    /// `scheduler_schedule_attempts_total{result,profile}`; result: `scheduled`, `unschedulable`, `error`
    attempts: IntCounterVec,
    /// `scheduler_scheduling_attempt_duration_seconds{result,profile}`: the decision and the binding
    attempt_duration: HistogramVec,
    /// `scheduler_scheduling_algorithm_duration_seconds`: the decision alone
    algorithm_duration: Histogram,
    /// `scheduler_pod_scheduling_sli_duration_seconds{attempts}`: from entering the queue to being bound
    sli_duration: HistogramVec,
    /// `scheduler_pod_scheduling_attempts`: of pods that were bound
    pod_attempts: Histogram,
    /// `scheduler_preemption_attempts_total`
    preemptions: IntCounter,
    /// `scheduler_preemption_victims`
    victims: Histogram,
    /// `scheduler_pending_pods{queue}`; queue: `active`, `backoff`, `unschedulable`, `gated`
    pending: IntGaugeVec,
    /// `scheduler_cache_size{type}`; type: `nodes`, `pods`, `assumed_pods`
    cache: IntGaugeVec,
}

impl Default for SchedulerMetrics {
    fn default() -> Self {
        let attempts = Opts::new(
            "scheduler_schedule_attempts_total",
            "Number of attempts to schedule pods, by the result. 'unschedulable' means a pod could not be scheduled, while 'error' means an internal scheduler problem.",
        );
        let durations = |name: &str, help: &str, first: f64, labels: &[&str]| {
            HistogramVec::new(HistogramOpts::new(name, help).buckets(doubling(first, 20)), labels).expect(VALID)
        };
        let histogram = |name: &str, help: &str, buckets| {
            Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets)).expect(VALID)
        };
        let gauges =
            |name: &str, help: &str, label: &str| IntGaugeVec::new(Opts::new(name, help), &[label]).expect(VALID);
        Self {
            attempts: IntCounterVec::new(attempts, &["result", "profile"]).expect(VALID),
            attempt_duration: durations(
                "scheduler_scheduling_attempt_duration_seconds",
                "Scheduling attempt latency in seconds (scheduling algorithm + binding)",
                0.0001,
                &["result", "profile"],
            ),
            algorithm_duration: histogram(
                "scheduler_scheduling_algorithm_duration_seconds",
                "Scheduling algorithm latency in seconds",
                doubling(0.000_01, 20),
            ),
            sli_duration: durations(
                "scheduler_pod_scheduling_sli_duration_seconds",
                "E2e latency for a pod being scheduled, from the time the pod enters the scheduling queue and might involve multiple scheduling attempts.",
                0.001,
                &["attempts"],
            ),
            pod_attempts: histogram(
                "scheduler_pod_scheduling_attempts",
                "Number of attempts to successfully schedule a pod.",
                doubling(1.0, 5),
            ),
            preemptions: IntCounter::new(
                "scheduler_preemption_attempts_total",
                "Total preemption attempts in the cluster till now",
            )
            .expect(VALID),
            victims: histogram(
                "scheduler_preemption_victims",
                "Number of selected preemption victims",
                doubling(1.0, 7),
            ),
            pending: gauges("scheduler_pending_pods", "Number of pending pods, by the queue type.", "queue"),
            cache: gauges(
                "scheduler_cache_size",
                "Number of nodes, pods, and assumed (bound) pods in the scheduler cache.",
                "type",
            ),
        }
    }
}

impl SchedulerMetrics {
    pub(crate) fn collectors(&self) -> Vec<Box<dyn Collector>> {
        vec![
            Box::new(self.attempts.clone()),
            Box::new(self.attempt_duration.clone()),
            Box::new(self.algorithm_duration.clone()),
            Box::new(self.sli_duration.clone()),
            Box::new(self.pod_attempts.clone()),
            Box::new(self.preemptions.clone()),
            Box::new(self.victims.clone()),
            Box::new(self.pending.clone()),
            Box::new(self.cache.clone()),
        ]
    }

    pub(super) fn decided(&self, took: Duration) {
        self.algorithm_duration.observe(took.as_secs_f64());
    }

    pub(super) fn attempt(&self, result: &str, profile: &str, took: Duration) {
        self.attempts.with_label_values(&[result, profile]).inc();
        self.attempt_duration.with_label_values(&[result, profile]).observe(took.as_secs_f64());
    }

    /// A pod was bound, so long after it entered the queue.
    pub(super) fn bound(&self, attempts: u32, waited: Duration) {
        self.pod_attempts.observe(f64::from(attempts));
        let label = if attempts > 15 { "16+".to_owned() } else { attempts.to_string() };
        self.sli_duration.with_label_values(&[&label]).observe(waited.as_secs_f64());
    }

    pub(super) fn preemption(&self, victims: usize) {
        self.preemptions.inc();
        self.victims.observe(victims as f64);
    }

    pub(super) fn show(&self, pending: Pending, (nodes, pods): (usize, usize), assumed: usize) {
        let set = |gauge: &IntGaugeVec, label: &str, value: usize| {
            gauge.with_label_values(&[label]).set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        set(&self.pending, "active", pending.active);
        set(&self.pending, "backoff", pending.backoff);
        set(&self.pending, "unschedulable", pending.unschedulable);
        set(&self.pending, "gated", pending.gated);
        set(&self.cache, "nodes", nodes);
        set(&self.cache, "pods", pods);
        set(&self.cache, "assumed_pods", assumed);
    }
}

const VALID: &str = "invariant: names and labels are valid constants";

fn doubling(first: f64, count: i32) -> Vec<f64> {
    (0..count).map(|n| first * f64::powi(2.0, n)).collect()
}
