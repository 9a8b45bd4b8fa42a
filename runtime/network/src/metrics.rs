//! What the network counts, per Service and per route.

use std::sync::Arc;

use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntCounterVec, Opts, core::Collector};

mod routes;

pub(crate) use routes::RouteMetrics;
use routes::RouteSeries;

use crate::{table::Name, tunnel::count::TunnelMetrics};

/// Latency buckets in seconds, from 10 microseconds on: a call on one node takes little more.
pub(crate) const BUCKETS: &[f64] =
    &[0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];

/// Counters and histograms of a node's network.
#[derive(Clone)]
pub struct Metrics {
    requests: IntCounterVec,
    seconds: HistogramVec,
    refused: IntCounterVec,
    egress_decisions: IntCounterVec,
    retries: IntCounterVec,
    ejections: IntCounterVec,
    unserved: IntCounterVec,
    bytes: IntCounterVec,
    dns: IntCounterVec,
    spans: IntCounterVec,
    routes: RouteSeries,
    /// What NetworkPolicies decided.
    pub(crate) decisions: IntCounterVec,
    /// Open connections that were cut.
    pub(crate) cut: IntCounter,
    /// Of what goes between nodes.
    pub(crate) tunnels: TunnelMetrics,
}

/// The metrics of one Service, looked up once.
#[derive(Clone)]
pub(crate) struct ServiceMetrics {
    /// By class of the status: 1xx to 5xx, then "no answer".
    classes: [prometheus::IntCounter; 6],
    seconds: prometheus::Histogram,
    /// Requests that were sent once more.
    pub(crate) retries: IntCounter,
    /// Endpoints that were passed over for a while.
    pub(crate) ejections: IntCounter,
    /// Requests and connections that nobody took, by [`Unserved`].
    unserved: [IntCounter; 2],
    /// Bytes of requests' bodies, of answers' bodies.
    pub(crate) received: IntCounter,
    pub(crate) sent: IntCounter,
}

/// Why a request or a connection to a Service found nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unserved {
    NoEndpoints,
    TooMany,
}

const UNSERVED: [&str; 2] = ["no_endpoints", "too_many"];
pub(crate) const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "none"];

/// A counter with labels.
pub(crate) fn counters(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    IntCounterVec::new(Opts::new(name, help), labels).expect("invariant: the metric's name and labels are well-formed")
}

impl Default for Metrics {
    fn default() -> Self {
        const SERVICE: [&str; 2] = ["namespace", "service"];
        let seconds = HistogramOpts::new(
            "podium_service_request_duration_seconds",
            "Time from a request to the head of its response.",
        )
        .buckets(BUCKETS.to_vec());
        Self {
            requests: counters(
                "podium_service_requests_total",
                "Requests sent to a Service, by class of the answer.",
                &["namespace", "service", "code"],
            ),
            seconds: HistogramVec::new(seconds, &SERVICE)
                .expect("invariant: the metric's name and labels are well-formed"),
            refused: counters(
                "podium_egress_refused_total",
                "Ways out of the cluster that pods were refused, by reason: not_granted, namespace_max, egress_policy, node_max, host.",
                &["reason"],
            ),
            egress_decisions: counters(
                "podium_egress_policy_decisions_total",
                "Ways out of the cluster that EgressPolicies decided on, by the policies' namespace.",
                &["namespace", "verdict"],
            ),
            retries: counters("podium_service_retries_total", "Requests to a Service that were sent again.", &SERVICE),
            ejections: counters(
                "podium_service_ejections_total",
                "Endpoints of a Service that were passed over for a while because they failed.",
                &SERVICE,
            ),
            unserved: counters(
                "podium_service_unserved_total",
                "Requests and connections to a Service that nobody took, by reason: no_endpoints, too_many.",
                &["namespace", "service", "reason"],
            ),
            bytes: counters(
                "podium_service_bytes_total",
                "Bytes of bodies sent to a Service (in) and by it (out).",
                &["namespace", "service", "direction"],
            ),
            spans: counters(
                "podium_trace_spans_total",
                "Spans by what became of them: sent, failed (the collector did not take them), left_out (too many waited).",
                &["result"],
            ),
            routes: RouteSeries::default(),
            dns: counters(
                "podium_dns_requests_total",
                "Questions to the DNS listener, by how they came and by the answer's code; those passed on count as NOERROR.",
                &["proto", "rcode"],
            ),
            decisions: counters(
                "podium_network_policy_decisions_total",
                "Connections, requests and datagrams that NetworkPolicies decided on, by the policies' namespace.",
                &["namespace", "direction", "verdict"],
            ),
            cut: IntCounter::new("podium_network_cut_total", "Open connections that policies came to forbid, and cut.")
                .expect("invariant: the metric's name is well-formed"),
            tunnels: TunnelMetrics::default(),
        }
    }
}

impl Metrics {
    /// All collectors, to register.
    pub fn collectors(&self) -> Vec<Box<dyn Collector>> {
        let vectors = [
            &self.requests,
            &self.refused,
            &self.egress_decisions,
            &self.retries,
            &self.ejections,
            &self.unserved,
            &self.bytes,
            &self.dns,
            &self.spans,
            &self.decisions,
        ];
        let mut all: Vec<Box<dyn Collector>> = vec![Box::new(self.seconds.clone()), Box::new(self.cut.clone())];
        all.extend(self.tunnels.collectors());
        all.extend(self.routes.collectors());
        all.extend(vectors.map(|counters| Box::new(counters.clone()) as Box<dyn Collector>));
        all
    }

    pub(crate) fn service(&self, name: &Name) -> ServiceMetrics {
        let Name { namespace, name } = name;
        let (namespace, name) = (namespace.as_str(), name.as_str());
        let with = |counters: &IntCounterVec, last: &str| counters.with_label_values(&[namespace, name, last]);
        ServiceMetrics {
            classes: CLASSES.map(|class| with(&self.requests, class)),
            seconds: self.seconds.with_label_values(&[namespace, name]),
            retries: self.retries.with_label_values(&[namespace, name]),
            ejections: self.ejections.with_label_values(&[namespace, name]),
            unserved: UNSERVED.map(|reason| with(&self.unserved, reason)),
            received: with(&self.bytes, "in"),
            sent: with(&self.bytes, "out"),
        }
    }

    /// A pod was refused a way out.
    pub(crate) fn refused(&self, reason: &str) {
        self.refused.with_label_values(&[reason]).inc();
    }

    /// EgressPolicies of a namespace decided on a way out.
    pub(crate) fn egress_decided(&self, namespace: &str, verdict: &str) {
        self.egress_decisions.with_label_values(&[namespace, verdict]).inc();
    }

    /// A namespace has no EgressPolicies any more.
    pub(crate) fn forget_egress(&self, namespace: &str) {
        // Absent is as good as removed.
        for verdict in ["allowed", "denied"] {
            let _ = self.egress_decisions.remove_label_values(&[namespace, verdict]);
        }
    }

    /// What became of some spans.
    pub(crate) fn spans(&self, result: &str, count: usize) {
        self.spans.with_label_values(&[result]).inc_by(count as u64);
    }

    /// The series of a route.
    pub(crate) fn route(&self, route: &Arc<str>) -> Arc<RouteMetrics> {
        self.routes.of(route)
    }

    /// A question was answered. The codes are those of a fixed list.
    pub(crate) fn asked(&self, proto: &str, rcode: &str) {
        self.dns.with_label_values(&[proto, rcode]).inc();
    }

    pub(crate) fn forget(&self, name: &Name) {
        let Name { namespace, name } = name;
        let (namespace, name) = (namespace.as_str(), name.as_str());
        // Absent is as good as removed.
        let remove =
            |counters: &IntCounterVec, last: &str| drop(counters.remove_label_values(&[namespace, name, last]));
        CLASSES.iter().for_each(|class| remove(&self.requests, class));
        UNSERVED.iter().for_each(|reason| remove(&self.unserved, reason));
        ["in", "out"].iter().for_each(|direction| remove(&self.bytes, direction));
        for counters in [&self.retries, &self.ejections] {
            let _ = counters.remove_label_values(&[namespace, name]);
        }
        let _ = self.seconds.remove_label_values(&[namespace, name]);
    }
}

impl ServiceMetrics {
    pub(crate) fn answered(&self, status: Option<http::StatusCode>, seconds: f64) {
        let class = status.map_or(5, |s| usize::from(s.as_u16() / 100).clamp(1, 5) - 1);
        self.classes[class].inc();
        self.seconds.observe(seconds);
    }

    pub(crate) fn unserved(&self, why: Unserved) {
        self.unserved[why as usize].inc();
    }
}
