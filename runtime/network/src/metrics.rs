//! What the network counts, per Service.

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts, core::Collector};

use crate::table::Name;

/// Latency buckets in seconds, from 10 microseconds on: a call on one node takes little more.
const BUCKETS: &[f64] =
    &[0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];

/// Counters and histograms of a node's network.
#[derive(Clone)]
pub struct Metrics {
    requests: IntCounterVec,
    seconds: HistogramVec,
    refused: IntCounterVec,
}

/// The metrics of one Service, looked up once.
#[derive(Clone)]
pub(crate) struct ServiceMetrics {
    /// By class of the status: 1xx to 5xx, then "no answer".
    classes: [prometheus::IntCounter; 6],
    seconds: prometheus::Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        let requests =
            Opts::new("podium_service_requests_total", "Requests sent to a Service, by class of the answer.");
        let seconds = HistogramOpts::new(
            "podium_service_request_duration_seconds",
            "Time from a request to the head of its response.",
        )
        .buckets(BUCKETS.to_vec());
        let refused = Opts::new(
            "podium_egress_refused_total",
            "Ways out of the cluster that pods were refused, by reason: not_granted, namespace_max, host.",
        );
        Self {
            refused: IntCounterVec::new(refused, &["reason"])
                .expect("invariant: the metric's name and labels are well-formed"),
            requests: IntCounterVec::new(requests, &["namespace", "service", "code"])
                .expect("invariant: the metric's name and labels are well-formed"),
            seconds: HistogramVec::new(seconds, &["namespace", "service"])
                .expect("invariant: the metric's name and labels are well-formed"),
        }
    }
}

impl Metrics {
    /// All collectors, to register.
    pub fn collectors(&self) -> Vec<Box<dyn Collector>> {
        vec![Box::new(self.requests.clone()), Box::new(self.seconds.clone()), Box::new(self.refused.clone())]
    }

    pub(crate) fn service(&self, name: &Name) -> ServiceMetrics {
        let Name { namespace, name } = name;
        ServiceMetrics {
            classes: ["1xx", "2xx", "3xx", "4xx", "5xx", "none"]
                .map(|class| self.requests.with_label_values(&[namespace.as_str(), name.as_str(), class])),
            seconds: self.seconds.with_label_values(&[namespace.as_str(), name.as_str()]),
        }
    }

    /// A pod was refused a way out.
    pub(crate) fn refused(&self, reason: &str) {
        self.refused.with_label_values(&[reason]).inc();
    }

    pub(crate) fn forget(&self, name: &Name) {
        let Name { namespace, name } = name;
        for class in ["1xx", "2xx", "3xx", "4xx", "5xx", "none"] {
            // Absent is as good as removed.
            let _ = self.requests.remove_label_values(&[namespace.as_str(), name.as_str(), class]);
        }
        let _ = self.seconds.remove_label_values(&[namespace.as_str(), name.as_str()]);
    }
}

impl ServiceMetrics {
    pub(crate) fn answered(&self, status: Option<http::StatusCode>, seconds: f64) {
        let class = status.map_or(5, |s| usize::from(s.as_u16() / 100).clamp(1, 5) - 1);
        self.classes[class].inc();
        self.seconds.observe(seconds);
    }
}
