//! What `/metrics` shows of flow control, under Kubernetes' names.
//!
//! # Source
//! Kubernetes `staging/src/k8s.io/apiserver/pkg/util/flowcontrol/metrics/metrics.go`.

use prometheus::{
    Error, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    core::Collector,
};

use super::{queues::Refusal, shares::Bounds};

const LEVEL: &str = "priority_level";
const BOTH: [&str; 2] = [LEVEL, "flow_schema"];

/// All of them.
pub(super) struct Metrics {
    rejected: IntCounterVec,
    dispatched: IntCounterVec,
    waiting: IntGaugeVec,
    executing: IntGaugeVec,
    seats: IntGaugeVec,
    waited: HistogramVec,
    /// Nominal, lower, upper and present seats.
    limits: [IntGaugeVec; 4],
}

/// Those of one schema and its level, found once.
pub(super) struct Counted {
    pub(super) rejected: [IntCounter; 3],
    pub(super) dispatched: IntCounter,
    pub(super) waiting: IntGauge,
    pub(super) executing: IntGauge,
    pub(super) seats: IntGauge,
    /// Of those that went on to be served, and of those that did not.
    pub(super) waited: [Histogram; 2],
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(format!("apiserver_flowcontrol_{name}"), help)
}

impl Metrics {
    /// # Errors
    /// When a name is taken.
    pub(super) fn new(registry: &Registry) -> Result<Self, Error> {
        fn add<C: Collector + Clone + 'static>(registry: &Registry, made: Result<C, Error>) -> Result<C, Error> {
            let made = made?;
            registry.register(Box::new(made.clone()))?;
            Ok(made)
        }
        let counter = |name, help, labels: &[&str]| add(registry, IntCounterVec::new(opts(name, help), labels));
        let gauge = |name, help, labels: &[&str]| add(registry, IntGaugeVec::new(opts(name, help), labels));
        let waited =
            HistogramOpts::from(opts("request_wait_duration_seconds", "Time that requests waited in a queue."))
                .buckets(vec![0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0]);
        Ok(Self {
            rejected: counter("rejected_requests_total", "Requests refused.", &[LEVEL, BOTH[1], "reason"])?,
            dispatched: counter("dispatched_requests_total", "Requests that were let begin.", &BOTH)?,
            waiting: gauge("current_inqueue_requests", "Requests that wait in queues.", &BOTH)?,
            executing: gauge("current_executing_requests", "Requests under way; watches until they began.", &BOTH)?,
            seats: gauge("current_executing_seats", "Seats that requests under way take.", &BOTH)?,
            waited: add(registry, HistogramVec::new(waited, &[LEVEL, BOTH[1], "execute"]))?,
            limits: [
                gauge("nominal_limit_seats", "Seats by the shares of a level.", &[LEVEL])?,
                gauge("lower_limit_seats", "Seats that a level keeps when it lends.", &[LEVEL])?,
                gauge("upper_limit_seats", "Seats that a level may have when it borrows.", &[LEVEL])?,
                gauge("current_limit_seats", "Seats of a level now.", &[LEVEL])?,
            ],
        })
    }

    /// Those of a schema.
    pub(super) fn of(&self, level: &str, schema: &str) -> Counted {
        let both = [level, schema];
        Counted {
            rejected: Refusal::ALL.map(|why| self.rejected.with_label_values(&[level, schema, why.reason()])),
            dispatched: self.dispatched.with_label_values(&both),
            waiting: self.waiting.with_label_values(&both),
            executing: self.executing.with_label_values(&both),
            seats: self.seats.with_label_values(&both),
            waited: ["true", "false"].map(|executed| self.waited.with_label_values(&[level, schema, executed])),
        }
    }

    /// Shows the seats of a level.
    pub(super) fn limits(&self, level: &str, bounds: Bounds, now: usize) {
        for (gauge, seats) in self.limits.iter().zip([bounds.nominal, bounds.min, bounds.max, now]) {
            gauge.with_label_values(&[level]).set(i64::try_from(seats).unwrap_or(i64::MAX));
        }
    }

    /// A schema is gone, or has another level.
    pub(super) fn forget(&self, level: &str, schema: &str) {
        // What is not there need not go.
        for why in Refusal::ALL {
            let _gone = self.rejected.remove_label_values(&[level, schema, why.reason()]);
        }
        for executed in ["true", "false"] {
            let _gone = self.waited.remove_label_values(&[level, schema, executed]);
        }
        let both = [level, schema];
        let _gone = self.dispatched.remove_label_values(&both);
        for gauge in [&self.waiting, &self.executing, &self.seats] {
            let _gone = gauge.remove_label_values(&both);
        }
    }

    /// A level is gone.
    pub(super) fn forget_level(&self, level: &str) {
        for gauge in &self.limits {
            let _gone = gauge.remove_label_values(&[level]);
        }
    }
}
